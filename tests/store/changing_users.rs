//! Users changed: field by field, whole or not at all, one change after the other.

use std::sync::Arc;

use doorward::{
    clock::Span,
    ids::UserId,
    model::{
        session::{CloseReason, SessionState},
        user::{OnLimit, SessionLimitOverride, User, UserPatch},
    },
    store::{CreateUser, OpenSession, Seen, Store, UpdateUser},
};
use serde_json::json;

use super::sample::{
    IDLE, Login, NOW, SINGLE, add, add_user, address, at, attributes, by_email, by_username,
    closed, fresh_user_id, limit, login_finds, name, named_user, new_user, open_ids, open_one,
    own_max, state, two_nodes, user,
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race},
};

for_each_store! {
    each_field_changes_and_the_others_stay,
    an_empty_change_changes_nothing,
    the_time_of_change_never_goes_back,
    an_unknown_user_is_gone,
    a_name_can_be_changed_and_is_free_afterwards,
    a_name_can_be_given_up,
    an_address_can_be_changed_and_is_free_afterwards,
    ones_own_address_and_name_in_another_case_are_not_taken,
    a_taken_address_refuses_the_whole_change,
    a_taken_name_refuses_the_whole_change,
    a_new_address_is_not_verified_unless_said_so,
    a_lower_limit_closes_the_oldest_surplus_in_the_same_step,
    a_lower_limit_counts_only_live_sessions,
    a_limit_taken_back_is_measured_with_the_policy,
    a_higher_limit_and_other_fields_close_nothing,
    concurrent_changes_of_different_fields_all_hold,
    one_of_sixteen_users_gets_an_address_changed_to,
    a_change_and_a_registration_race_for_a_name,
    a_limit_lowered_during_logins_holds,
}

async fn change(store: &dyn Store, id: UserId, patch: UserPatch) -> UpdateUser {
    store
        .update_user(id, &patch, None, SINGLE, IDLE, &by(at(1)))
        .await
        .expect("an answer")
}

async fn changed(store: &dyn Store, id: UserId, patch: UserPatch) -> User {
    match change(store, id, patch).await {
        UpdateUser::Updated(user) => *user,
        other => panic!("{other:?}"),
    }
}

fn to_name(username: &str) -> UserPatch {
    UserPatch {
        username: Some(Some(name(username))),
        ..UserPatch::default()
    }
}

fn to_address(email: &str) -> UserPatch {
    UserPatch {
        email: Some(address(email)),
        ..UserPatch::default()
    }
}

fn to_limit(own: SessionLimitOverride) -> UserPatch {
    UserPatch {
        max_sessions: Some(own.max),
        on_session_limit: Some(own.on_limit),
        ..UserPatch::default()
    }
}

async fn each_field_changes_and_the_others_stay(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let mut expected = named_user("ann@example.org", "ann").user;
    let new = doorward::model::user::NewUser {
        user: expected.clone(),
        password_hash: None,
        provisional_until: None,
    };
    let id = add(&*store, &new).await;
    let own = SessionLimitOverride {
        max: Some(4),
        on_limit: Some(OnLimit::Reject),
    };
    expected.updated_at = at(1);
    for patch in [
        to_name("Ann_Lee"),
        UserPatch {
            attributes: Some(attributes(json!({"a": [1]}))),
            ..UserPatch::default()
        },
        to_address("Ann.Lee@example.org"),
        UserPatch {
            email_verified: Some(true),
            ..UserPatch::default()
        },
        to_limit(own),
    ] {
        if let Some(username) = &patch.username {
            expected.username.clone_from(username);
        }
        if let Some(attributes) = &patch.attributes {
            expected.attributes = attributes.clone();
        }
        if let Some(email) = &patch.email {
            expected.email = email.clone();
        }
        if patch.email_verified.is_some() {
            expected.email_verified_at = Some(at(1));
        }
        if let Some(max) = patch.max_sessions {
            expected.session_limit.max = max;
        }
        if let Some(on_limit) = patch.on_session_limit {
            expected.session_limit.on_limit = on_limit;
        }
        assert_eq!(changed(&*store, id, patch).await, expected);
        assert_eq!(user(&*other_node, id).await, expected);
    }
}

async fn an_empty_change_changes_nothing(database: Database) {
    let store = database.open().await;
    let mut new = named_user("ann@example.org", "ann");
    new.user.attributes = attributes(json!({"a": 1}));
    let id = add(&*store, &new).await;
    let after = changed(&*store, id, UserPatch::default()).await;
    assert_eq!(
        User {
            updated_at: NOW,
            ..after
        },
        new.user
    );
}

async fn the_time_of_change_never_goes_back(database: Database) {
    let store = database.open().await;
    let id = add_user(&*store, "ann@example.org").await;
    let earlier = NOW.minus(Span::days(1));
    let outcome = store
        .update_user(id, &to_name("ann"), None, SINGLE, IDLE, &by(earlier))
        .await
        .expect("an answer");
    assert!(matches!(outcome, UpdateUser::Updated(user) if user.updated_at == NOW));
}

async fn an_unknown_user_is_gone(database: Database) {
    let store = database.open().await;
    let nobody = fresh_user_id();
    for patch in [
        to_name("ann"),
        to_address("ann@example.org"),
        to_limit(own_max(1)),
    ] {
        assert_eq!(change(&*store, nobody, patch).await, UpdateUser::Gone);
    }
    add(&*store, &named_user("ann@example.org", "ann")).await;
}

async fn a_name_can_be_changed_and_is_free_afterwards(database: Database) {
    let store = database.open().await;
    let ann = add(&*store, &named_user("ann@example.org", "ann")).await;
    changed(&*store, ann, to_name("anna")).await;
    assert_eq!(login_finds(&*store, &by_username("anna")).await, Some(ann));
    assert_eq!(login_finds(&*store, &by_username("ann")).await, None);
    let other = add(&*store, &named_user("other@example.org", "ANN")).await;
    assert_eq!(login_finds(&*store, &by_username("ann")).await, Some(other));
}

async fn a_name_can_be_given_up(database: Database) {
    let store = database.open().await;
    let ann = add(&*store, &named_user("ann@example.org", "ann")).await;
    let none = UserPatch {
        username: Some(None),
        ..UserPatch::default()
    };
    assert_eq!(changed(&*store, ann, none.clone()).await.username, None);
    assert_eq!(changed(&*store, ann, none).await.username, None);
    assert_eq!(login_finds(&*store, &by_username("ann")).await, None);
    let bob = add_user(&*store, "bob@example.org").await;
    changed(&*store, bob, to_name("ann")).await;
}

async fn an_address_can_be_changed_and_is_free_afterwards(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    changed(&*store, ann, to_address("anna@example.org")).await;
    assert_eq!(
        login_finds(&*store, &by_email("anna@example.org")).await,
        Some(ann)
    );
    assert_eq!(
        login_finds(&*store, &by_email("ann@example.org")).await,
        None
    );
    add_user(&*store, "Ann@example.org").await;
}

async fn ones_own_address_and_name_in_another_case_are_not_taken(database: Database) {
    let store = database.open().await;
    let ann = add(&*store, &named_user("ann@example.org", "ann")).await;
    let patch = UserPatch {
        username: Some(Some(name("Ann"))),
        ..to_address("Ann@Example.org")
    };
    let after = changed(&*store, ann, patch.clone()).await;
    assert_eq!(
        (after.email.as_str(), after.username),
        ("Ann@Example.org", Some(name("Ann")))
    );
    changed(&*store, ann, patch).await;
    assert_eq!(
        login_finds(&*store, &by_email("ann@example.org")).await,
        Some(ann)
    );
    assert_eq!(login_finds(&*store, &by_username("ann")).await, Some(ann));
}

async fn a_taken_address_refuses_the_whole_change(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    add_user(&*store, "bob@example.org").await;
    let before = user(&*store, ann).await;
    let patch = UserPatch {
        username: Some(Some(name("free"))),
        attributes: Some(attributes(json!({"a": 1}))),
        max_sessions: Some(Some(1)),
        ..to_address("BOB@example.org")
    };
    open_one(&*store, ann, NOW).await;
    open_one(&*store, ann, NOW).await;
    assert_eq!(change(&*store, ann, patch).await, UpdateUser::EmailTaken);
    assert_eq!(user(&*store, ann).await, before);
    assert_eq!(open_ids(&*store, ann).await.len(), 2);
    add(&*store, &named_user("free@example.org", "free")).await;
}

async fn a_taken_name_refuses_the_whole_change(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    add(&*store, &named_user("bob@example.org", "bob")).await;
    let before = user(&*store, ann).await;
    let patch = UserPatch {
        email: Some(address("free@example.org")),
        ..to_name("BOB")
    };
    assert_eq!(change(&*store, ann, patch).await, UpdateUser::UsernameTaken);
    assert_eq!(user(&*store, ann).await, before);
    assert_eq!(
        login_finds(&*store, &by_email("ann@example.org")).await,
        Some(ann)
    );
    add_user(&*store, "free@example.org").await;
}

async fn a_new_address_is_not_verified_unless_said_so(database: Database) {
    let store = database.open().await;
    let mut new = new_user("ann@example.org");
    new.user.email_verified_at = Some(NOW);
    let ann = add(&*store, &new).await;
    let verified = |flag| UserPatch {
        email_verified: Some(flag),
        ..UserPatch::default()
    };

    let again = changed(&*store, ann, verified(true)).await;
    assert_eq!(again.email_verified_at, Some(NOW), "the first time is kept");
    let moved = changed(&*store, ann, to_address("anna@example.org")).await;
    assert_eq!(moved.email_verified_at, None);
    let both = UserPatch {
        email_verified: Some(true),
        ..to_address("ann@example.org")
    };
    assert_eq!(
        changed(&*store, ann, both).await.email_verified_at,
        Some(at(1))
    );
    assert_eq!(
        changed(&*store, ann, verified(false))
            .await
            .email_verified_at,
        None
    );
}

async fn a_lower_limit_closes_the_oldest_surplus_in_the_same_step(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let mut sessions = Vec::new();
    for n in 0..4 {
        sessions.push(open_one(&*store, ann, at(n)).await);
    }
    let outcome = store
        .update_user(
            ann,
            &to_limit(own_max(2)),
            None,
            limit(100),
            IDLE,
            &by(at(9)),
        )
        .await;
    assert!(matches!(outcome, Ok(UpdateUser::Updated(_))));
    for (n, session) in sessions.iter().enumerate() {
        let expected = if n < 2 {
            closed(CloseReason::LimitLowered, at(9))
        } else {
            SessionState::Open
        };
        assert_eq!(
            state(&*other_node, ann, *session).await,
            expected,
            "session {n}"
        );
    }
    assert_eq!(
        open_ids(&*other_node, ann).await,
        [sessions[3], sessions[2]]
    );
}

async fn a_lower_limit_counts_only_live_sessions(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let lower = async |now| {
        let outcome = store
            .update_user(ann, &to_limit(own_max(1)), None, limit(100), IDLE, &by(now))
            .await;
        assert!(matches!(outcome, Ok(UpdateUser::Updated(_))));
    };
    let seen = async |session_id, at| {
        let seen = Seen {
            user_id: ann,
            session_id,
            at,
        };
        store.note_seen(&[seen]).await.expect("noted");
    };
    let used = open_one(&*store, ann, NOW).await;
    let idle = open_one(&*store, ann, at(1)).await;
    let later = at(1).plus(IDLE.idle_ttl).plus(IDLE.flush).plus(IDLE.flush);
    seen(used, later).await;
    lower(later).await;
    assert_eq!(state(&*store, ann, used).await, SessionState::Open);
    let gone = closed(CloseReason::Idle, later);
    assert_eq!(state(&*store, ann, idle).await, gone);
    // A flush that comes late revives nobody.
    seen(idle, later).await;
    assert_eq!(state(&*store, ann, idle).await, gone);

    changed(&*store, ann, to_limit(own_max(2))).await;
    let last = open_one(&*store, ann, later).await;
    let expired = NOW.plus(Span::days(31));
    seen(last, expired).await;
    lower(expired).await;
    assert_eq!(state(&*store, ann, last).await, SessionState::Open);
    assert_eq!(
        state(&*store, ann, used).await,
        closed(CloseReason::Expired, expired)
    );
}

async fn a_limit_taken_back_is_measured_with_the_policy(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    changed(&*store, ann, to_limit(own_max(5))).await;
    let login = Login::of(&*store, ann).await;
    for n in 0..5 {
        login.open(&*store, at(n)).await;
    }
    let none = to_limit(SessionLimitOverride::default());
    let outcome = store
        .update_user(ann, &none, None, limit(2), IDLE, &by(at(9)))
        .await;
    assert!(matches!(outcome, Ok(UpdateUser::Updated(_))));
    assert_eq!(open_ids(&*store, ann).await.len(), 2);
}

async fn a_higher_limit_and_other_fields_close_nothing(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    for n in 0..3 {
        open_one(&*store, ann, at(n)).await;
    }
    changed(&*store, ann, to_limit(own_max(3))).await;
    changed(&*store, ann, to_limit(own_max(0))).await;
    changed(&*store, ann, to_name("ann")).await;
    changed(&*store, ann, to_address("anna@example.org")).await;
    assert_eq!(open_ids(&*store, ann).await.len(), 3);
}

async fn concurrent_changes_of_different_fields_all_hold(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    for round in 0..10 {
        let rule = [OnLimit::Reject, OnLimit::EvictOldest][round as usize % 2];
        let patches = [
            to_name(&format!("ann{round}")),
            to_address(&format!("ann{round}@example.org")),
            UserPatch {
                attributes: Some(attributes(json!({"round": round}))),
                ..UserPatch::default()
            },
            UserPatch {
                max_sessions: Some(Some(round + 1)),
                ..UserPatch::default()
            },
            UserPatch {
                on_session_limit: Some(Some(rule)),
                ..UserPatch::default()
            },
        ];
        let racers = patches.into_iter().enumerate().map(|(n, patch)| {
            let store = Arc::clone(&nodes[n % 2]);
            async move { change(&*store, ann, patch).await }
        });
        for outcome in race(racers).await {
            assert!(matches!(outcome, UpdateUser::Updated(_)), "{outcome:?}");
        }
        let after = user(&*nodes[0], ann).await;
        assert_eq!(after.username, Some(name(&format!("ann{round}"))));
        assert_eq!(after.email, address(&format!("ann{round}@example.org")));
        assert_eq!(after.attributes, attributes(json!({"round": round})));
        let own = SessionLimitOverride {
            max: Some(round + 1),
            on_limit: Some(rule),
        };
        assert_eq!(after.session_limit, own);
    }
}

async fn one_of_sixteen_users_gets_an_address_changed_to(database: Database) {
    let nodes = two_nodes(&database).await;
    let mut ids = Vec::new();
    for n in 0..16 {
        ids.push(add_user(&*nodes[0], &format!("user{n}@example.org")).await);
    }
    let racers = ids.iter().enumerate().map(|(n, id)| {
        let (store, id) = (Arc::clone(&nodes[n % 2]), *id);
        let email = if n % 3 == 0 {
            "ANN@example.org"
        } else {
            "ann@example.org"
        };
        async move { change(&*store, id, to_address(email)).await }
    });
    let outcomes = race(racers).await;
    let taken = outcomes
        .iter()
        .filter(|o| **o == UpdateUser::EmailTaken)
        .count();
    assert_eq!(taken, 15, "{outcomes:?}");
    let winner = outcomes
        .iter()
        .position(|o| matches!(o, UpdateUser::Updated(_)));
    let winner = ids[winner.expect("one winner")];
    assert_eq!(
        login_finds(&*nodes[0], &by_email("ann@example.org")).await,
        Some(winner)
    );
}

async fn a_change_and_a_registration_race_for_a_name(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..10 {
        let old = add_user(&*nodes[0], &format!("old{round}@example.org")).await;
        let username = format!("wanted{round}");
        let (node, other_node) = (Arc::clone(&nodes[0]), Arc::clone(&nodes[1]));
        let new = named_user(&format!("new{round}@example.org"), &username);
        let patch = to_name(&username);
        let update = tokio::spawn(async move { change(&*node, old, patch).await });
        let made = other_node
            .create_user(&new, None, None, &by(NOW))
            .await
            .expect("an answer");
        let changed = update.await.expect("no panic");
        let winner = match (made, changed) {
            (CreateUser::Created, UpdateUser::UsernameTaken) => new.user.id,
            (CreateUser::UsernameTaken, UpdateUser::Updated(_)) => old,
            both => panic!("{both:?}"),
        };
        assert_eq!(
            login_finds(&*nodes[0], &by_username(&username)).await,
            Some(winner)
        );
    }
}

async fn a_limit_lowered_during_logins_holds(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..5 {
        let ann = add_user(&*nodes[0], &format!("ann{round}@example.org")).await;
        let login = Login::of(&*nodes[0], ann).await.under(limit(100));
        let racers = (0..17).map(|n| {
            let (store, login) = (Arc::clone(&nodes[n % 2]), login.clone());
            async move {
                if n == 8 {
                    let patch = to_limit(own_max(1));
                    let outcome = store
                        .update_user(ann, &patch, None, limit(100), IDLE, &by(NOW))
                        .await;
                    assert!(matches!(outcome, Ok(UpdateUser::Updated(_))));
                } else {
                    let outcome = login.try_open(&*store, NOW).await;
                    assert!(matches!(outcome, OpenSession::Opened { .. }));
                }
            }
        });
        race(racers).await;
        assert_eq!(open_ids(&*nodes[0], ann).await.len(), 1, "round {round}");
    }
}

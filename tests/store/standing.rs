//! Who may log in, who is an administrator, and that one always is.

use std::sync::Arc;

use doorward::{
    clock::Span,
    ids::UserId,
    model::{
        session::{CloseReason, SessionState},
        user::{Roles, User, UserStatus},
    },
    store::{ChangeStanding, OpenSession, Store, UserFilter},
};

use super::sample::{
    Login, NOW, add, add_user, at, built_in, closed, credentials, fresh_user_id, new_admin,
    new_user, open_ids, open_one, roles, state, two_nodes, user, view,
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race, rounds},
};

for_each_store! {
    roles_are_replaced_and_sessions_stay_open,
    an_unknown_user_has_no_standing,
    deactivation_closes_all_sessions_in_the_same_step,
    deactivating_twice_keeps_the_first_time,
    a_proof_of_old_credentials_deactivates_nobody,
    activation_revives_no_session,
    activating_an_active_user_changes_nothing,
    times_of_change_never_go_back,
    the_last_administrator_can_be_neither_demoted_nor_deactivated,
    a_deactivated_administrator_does_not_count,
    who_is_no_active_administrator_can_always_be_demoted,
    without_any_administrator_nobody_is_the_last,
    two_administrators_demoting_each_other_leave_one,
    two_administrators_deactivating_each_other_leave_one,
    of_eight_administrators_leaving_at_once_one_stays,
    after_a_deactivation_no_racing_login_is_open,
}

async fn set_roles(store: &dyn Store, id: UserId, held: &Roles) -> ChangeStanding {
    store
        .set_roles(id, held, &built_in(), &by(at(1)))
        .await
        .expect("an answer")
}

async fn deactivate(store: &dyn Store, id: UserId) -> ChangeStanding {
    store
        .deactivate_user(id, None, &built_in(), &by(at(1)))
        .await
        .expect("an answer")
}

fn changed(outcome: ChangeStanding) -> User {
    match outcome {
        ChangeStanding::Changed(user) => *user,
        other => panic!("{other:?}"),
    }
}

async fn active_admins(store: &dyn Store) -> usize {
    let filter = UserFilter {
        active: Some(true),
        role: Some("admin".to_owned()),
        limit: 100,
        ..UserFilter::default()
    };
    store.list_users(&filter).await.expect("an answer").len()
}

async fn roles_are_replaced_and_sessions_stay_open(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    for held in [
        roles(["writer", "editor"]),
        roles(["editor"]),
        Roles::default(),
        Roles::default(),
    ] {
        let after = changed(set_roles(&*store, ann, &held).await);
        assert_eq!((&after.roles, after.updated_at), (&held, at(1)));
        let seen = view(&*other_node, ann, session)
            .await
            .expect("the session exists");
        assert_eq!((seen.user.roles, seen.state), (held, SessionState::Open));
    }
}

async fn an_unknown_user_has_no_standing(database: Database) {
    let store = database.open().await;
    let nobody = fresh_user_id();
    assert_eq!(
        set_roles(&*store, nobody, &Roles::admin()).await,
        ChangeStanding::Gone
    );
    assert_eq!(deactivate(&*store, nobody).await, ChangeStanding::Gone);
    let activated = store
        .activate_user(nobody, &by(NOW))
        .await
        .expect("an answer");
    assert_eq!(activated, ChangeStanding::Gone);
}

async fn deactivation_closes_all_sessions_in_the_same_step(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let of_ann = [
        open_one(&*store, ann, NOW).await,
        open_one(&*store, ann, NOW).await,
    ];
    let of_bob = open_one(&*store, bob, NOW).await;
    let after = changed(deactivate(&*store, ann).await);
    assert_eq!(after.status, UserStatus::Deactivated { at: at(1) });
    assert_eq!(after.updated_at, at(1));
    for session in of_ann {
        let seen = view(&*other_node, ann, session)
            .await
            .expect("the session exists");
        assert_eq!(seen.state, closed(CloseReason::AccountDeactivated, at(1)));
        assert_eq!(seen.user, after);
    }
    assert_eq!(state(&*other_node, bob, of_bob).await, SessionState::Open);
    let login = Login::of(&*store, ann).await;
    assert_eq!(login.try_open(&*store, at(2)).await, OpenSession::NotActive);
}

async fn deactivating_twice_keeps_the_first_time(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    deactivate(&*store, ann).await;
    let again = changed(
        store
            .deactivate_user(ann, None, &built_in(), &by(at(60)))
            .await
            .expect("an answer"),
    );
    assert_eq!(again.status, UserStatus::Deactivated { at: at(1) });
}

async fn a_proof_of_old_credentials_deactivates_nobody(database: Database) {
    let store = database.open().await;
    for new in [new_user("ann@example.org"), new_admin("root@example.org")] {
        let id = add(&*store, &new).await;
        let session = open_one(&*store, id, NOW).await;
        let version = credentials(&*store, id).await.credential_version;
        let outcome = store
            .deactivate_user(id, Some(version - 1), &built_in(), &by(at(1)))
            .await;
        assert_eq!(
            outcome.expect("an answer"),
            ChangeStanding::CredentialsChanged
        );
        assert_eq!(user(&*store, id).await, new.user);
        assert_eq!(state(&*store, id, session).await, SessionState::Open);
    }
    let ann = add_user(&*store, "anna@example.org").await;
    let version = credentials(&*store, ann).await.credential_version;
    let outcome = store
        .deactivate_user(ann, Some(version), &built_in(), &by(at(1)))
        .await;
    changed(outcome.expect("an answer"));
}

async fn activation_revives_no_session(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    deactivate(&*store, ann).await;
    let after = changed(
        store
            .activate_user(ann, &by(at(2)))
            .await
            .expect("an answer"),
    );
    assert_eq!(
        (after.status, after.updated_at),
        (UserStatus::Active, at(2))
    );
    let expected = closed(CloseReason::AccountDeactivated, at(1));
    assert_eq!(state(&*store, ann, session).await, expected);
    assert_eq!(open_ids(&*store, ann).await, []);
    let login = Login::of(&*store, ann).await;
    login.open(&*store, at(3)).await;
}

async fn activating_an_active_user_changes_nothing(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let after = changed(
        store
            .activate_user(ann, &by(at(2)))
            .await
            .expect("an answer"),
    );
    assert_eq!(after.status, UserStatus::Active);
    assert_eq!(state(&*store, ann, session).await, SessionState::Open);
}

async fn times_of_change_never_go_back(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let earlier = NOW.minus(Span::days(1));
    let held = roles(["writer"]);
    for outcome in [
        store.set_roles(ann, &held, &built_in(), &by(earlier)).await,
        store
            .deactivate_user(ann, None, &built_in(), &by(earlier))
            .await,
        store.activate_user(ann, &by(earlier)).await,
    ] {
        assert_eq!(changed(outcome.expect("an answer")).updated_at, NOW);
    }
}

async fn the_last_administrator_can_be_neither_demoted_nor_deactivated(database: Database) {
    let store = database.open().await;
    let root = add(&*store, &new_admin("root@example.org")).await;
    add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, root, NOW).await;
    let before = user(&*store, root).await;
    assert_eq!(
        set_roles(&*store, root, &Roles::default()).await,
        ChangeStanding::LastAdmin
    );
    assert_eq!(deactivate(&*store, root).await, ChangeStanding::LastAdmin);
    assert_eq!(user(&*store, root).await, before);
    assert_eq!(state(&*store, root, session).await, SessionState::Open);
    // Other roles may come and go.
    changed(set_roles(&*store, root, &roles(["admin", "writer"])).await);
    let second = add(&*store, &new_admin("second@example.org")).await;
    changed(deactivate(&*store, root).await);
    assert_eq!(deactivate(&*store, second).await, ChangeStanding::LastAdmin);
}

async fn a_deactivated_administrator_does_not_count(database: Database) {
    let store = database.open().await;
    let root = add(&*store, &new_admin("root@example.org")).await;
    let away = add(&*store, &new_admin("away@example.org")).await;
    changed(deactivate(&*store, away).await);
    assert_eq!(
        set_roles(&*store, root, &Roles::default()).await,
        ChangeStanding::LastAdmin
    );
    assert_eq!(deactivate(&*store, root).await, ChangeStanding::LastAdmin);
    changed(
        store
            .activate_user(away, &by(at(2)))
            .await
            .expect("an answer"),
    );
    changed(set_roles(&*store, root, &Roles::default()).await);
}

async fn who_is_no_active_administrator_can_always_be_demoted(database: Database) {
    let store = database.open().await;
    add(&*store, &new_admin("root@example.org")).await;
    let away = add(&*store, &new_admin("away@example.org")).await;
    let ann = add_user(&*store, "ann@example.org").await;
    changed(deactivate(&*store, away).await);
    changed(deactivate(&*store, away).await);
    changed(set_roles(&*store, away, &Roles::default()).await);
    changed(deactivate(&*store, ann).await);
}

async fn without_any_administrator_nobody_is_the_last(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    changed(set_roles(&*store, ann, &Roles::default()).await);
    changed(deactivate(&*store, ann).await);
}

/// ASVS 2.3.4.
async fn two_administrators_demoting_each_other_leave_one(database: Database) {
    each_other(database, |store, id| async move {
        set_roles(&*store, id, &Roles::default()).await
    })
    .await;
}

async fn two_administrators_deactivating_each_other_leave_one(database: Database) {
    each_other(database, |store, id| async move {
        deactivate(&*store, id).await
    })
    .await;
}

/// Two administrators do the same to each other, each on a node of their own.
async fn each_other<F>(database: Database, act: fn(Arc<dyn Store>, UserId) -> F)
where
    F: Future<Output = ChangeStanding> + Send + 'static,
{
    let nodes = two_nodes(&database).await;
    let ids = [
        add(&*nodes[0], &new_admin("one@example.org")).await,
        add(&*nodes[0], &new_admin("two@example.org")).await,
    ];
    for round in 0..rounds(200) {
        let racers = (0..2).map(|n| act(Arc::clone(&nodes[n]), ids[1 - n]));
        let outcomes = race(racers).await;
        let refused = outcomes
            .iter()
            .filter(|o| **o == ChangeStanding::LastAdmin)
            .count();
        assert_eq!(
            (refused, active_admins(&*nodes[0]).await),
            (1, 1),
            "round {round}: {outcomes:?}"
        );
        for id in ids {
            changed(
                nodes[0]
                    .activate_user(id, &by(NOW))
                    .await
                    .expect("an answer"),
            );
            changed(set_roles(&*nodes[0], id, &Roles::admin()).await);
        }
    }
}

async fn of_eight_administrators_leaving_at_once_one_stays(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..rounds(30) {
        let mut ids = Vec::new();
        for n in 0..8 {
            ids.push(add(&*nodes[0], &new_admin(&format!("a{round}.{n}@example.org"))).await);
        }
        let racers = ids.iter().enumerate().map(|(n, id)| {
            let (store, id) = (Arc::clone(&nodes[n % 2]), *id);
            async move {
                if n < 4 {
                    set_roles(&*store, id, &Roles::default()).await
                } else {
                    deactivate(&*store, id).await
                }
            }
        });
        let outcomes = race(racers).await;
        let refused = outcomes
            .iter()
            .filter(|o| **o == ChangeStanding::LastAdmin)
            .count();
        assert_eq!(
            (refused, active_admins(&*nodes[1]).await),
            (1, 1),
            "{outcomes:?}"
        );
        let helper = add(
            &*nodes[0],
            &new_admin(&format!("helper{round}@example.org")),
        )
        .await;
        for id in ids {
            changed(set_roles(&*nodes[0], id, &Roles::default()).await);
        }
        assert_eq!(
            deactivate(&*nodes[0], helper).await,
            ChangeStanding::LastAdmin
        );
        // Out of the way by hand, so that the next round begins without an administrator.
        database.delete_user_row(helper).await;
    }
}

/// ASVS 7.4.2.
async fn after_a_deactivation_no_racing_login_is_open(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..rounds(100) {
        let ann = add_user(&*nodes[0], &format!("ann{round}@example.org")).await;
        let login = Login::of(&*nodes[0], ann).await;
        let racers = (0..9).map(|n| {
            let (store, login) = (Arc::clone(&nodes[n % 2]), login.clone());
            async move {
                if n == 4 {
                    changed(deactivate(&*store, ann).await);
                } else {
                    let outcome = login.try_open(&*store, at(1)).await;
                    let fine =
                        matches!(outcome, OpenSession::Opened { .. } | OpenSession::NotActive);
                    assert!(fine, "{outcome:?}");
                }
            }
        });
        race(racers).await;
        assert_eq!(open_ids(&*nodes[1], ann).await, [], "round {round}");
    }
}

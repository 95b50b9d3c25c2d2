//! Users stored and found again; addresses and names belong to one user each.

use std::sync::Arc;

use doorward::{
    clock::{Clock, Span, SystemClock},
    model::{
        token::Proof,
        user::{OnLimit, SessionLimitOverride, UserStatus},
    },
    store::{CreateUser, Redeem},
};
use futures_util::FutureExt;
use serde_json::json;

use super::sample::{
    NOW, add, add_user, attributes, by_email, by_username, credentials, fresh_user_id, hash,
    login_finds, named_user, new_link, new_user, roles, two_nodes, user,
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race, until},
};

for_each_store! {
    a_user_is_read_back_as_it_was_stored,
    a_bare_user_is_read_back_as_it_was_stored,
    attributes_of_every_kind_come_back_unchanged,
    a_deactivated_user_can_be_stored,
    who_is_not_there_is_absent_and_no_error,
    login_finds_users_by_canonical_address_and_name,
    an_address_in_another_case_is_taken,
    a_name_in_another_case_is_taken,
    users_without_names_do_not_collide,
    an_address_is_no_name_and_a_name_no_address,
    a_refused_user_leaves_nothing_behind,
    a_link_is_stored_with_its_user,
    one_of_sixty_four_users_gets_an_address,
    one_of_sixty_four_users_gets_a_name,
    a_write_whose_caller_goes_away_is_finished,
    the_database_tells_the_time,
    closing_one_node_leaves_the_others_alone,
}

async fn a_user_is_read_back_as_it_was_stored(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let mut new = named_user("Ann.Lee+Door@Example.org", "Ann_Lee");
    new.user.email_verified_at = Some(NOW.minus(Span::days(1)));
    new.user.attributes = attributes(json!({"plan": "pro"}));
    new.user.roles = roles(["admin", "writer"]);
    new.user.session_limit = SessionLimitOverride {
        max: Some(3),
        on_limit: Some(OnLimit::Reject),
    };
    let id = add(&*store, &new).await;

    assert_eq!(user(&*other_node, id).await, new.user);
    let found = credentials(&*other_node, id).await;
    assert_eq!(found.user, new.user);
    assert_eq!(
        found.password_hash.expect("a hash").expose(),
        hash("first").expose()
    );
    let by_login = store
        .user_by_login(&by_username("ann_lee"))
        .await
        .expect("an answer");
    let by_login = by_login.expect("found");
    assert_eq!(
        (by_login.user, by_login.credential_version),
        (new.user, found.credential_version)
    );
}

async fn a_bare_user_is_read_back_as_it_was_stored(database: Database) {
    let store = database.open().await;
    let mut new = new_user("ann@example.org");
    new.password_hash = None;
    let id = add(&*store, &new).await;
    let found = credentials(&*store, id).await;
    assert_eq!(found.user, new.user);
    assert!(found.password_hash.is_none());
}

async fn attributes_of_every_kind_come_back_unchanged(database: Database) {
    let store = database.open().await;
    let kinds = [
        json!({}),
        json!({"nothing": null, "yes": true, "no": false, "empty": "", "list": [], "object": {}}),
        json!({"largest": 9_007_199_254_740_992_i64, "smallest": -9_007_199_254_740_992_i64, "zero": 0}),
        json!({"half": 0.5, "whole": 1.0, "tenth": 0.1, "third": -1.0 / 3.0, "tiny": 1e-7}),
        json!({"text": "äöü ß € 漢字 🦀 \u{202e} \\ \" ' $ % _ \n\t\u{1}"}),
        json!({"a": {"b": [1, "two", [3.5, null], {"c": {"d": [true]}}]}}),
        json!({"_id": "mine", "id": 1, "Upper": 1, "upper": 2, "set": {"unset": 1}}),
        json!({"z": 1, "a": 2, "m": 3}),
        json!({"date": "2027-01-15T08:00:00Z", "number": "1", "oid": "507f1f77bcf86cd799439011"}),
    ];
    for (n, value) in kinds.into_iter().enumerate() {
        let mut new = new_user(&format!("user{n}@example.org"));
        new.user.attributes = attributes(value.clone());
        let id = add(&*store, &new).await;
        let found = user(&*store, id).await.attributes;
        assert_eq!(found.as_map(), value.as_object().expect("an object"));
        assert_eq!(found, new.user.attributes);
    }
}

async fn a_deactivated_user_can_be_stored(database: Database) {
    let store = database.open().await;
    let mut new = new_user("ann@example.org");
    new.user.status = UserStatus::Deactivated { at: NOW };
    let id = add(&*store, &new).await;
    assert_eq!(user(&*store, id).await, new.user);
}

async fn who_is_not_there_is_absent_and_no_error(database: Database) {
    let store = database.open().await;
    add_user(&*store, "ann@example.org").await;
    let nobody = fresh_user_id();
    assert_eq!(store.user(nobody).await.expect("an answer"), None);
    assert!(
        store
            .user_credentials(nobody)
            .await
            .expect("an answer")
            .is_none()
    );
    assert_eq!(
        login_finds(&*store, &by_email("nobody@example.org")).await,
        None
    );
    assert_eq!(login_finds(&*store, &by_username("nobody")).await, None);
}

async fn login_finds_users_by_canonical_address_and_name(database: Database) {
    let store = database.open().await;
    let ann = add(&*store, &named_user("Ann@Example.org", "Ann")).await;
    let bob = add(&*store, &named_user("bob@example.org", "bob")).await;
    for (login, expected) in [
        (by_email("Ann@Example.org"), ann),
        (by_email("ann@example.ORG"), ann),
        (by_username("ANN"), ann),
        (by_email("bob@example.org"), bob),
        (by_username("Bob"), bob),
    ] {
        assert_eq!(
            login_finds(&*store, &login).await,
            Some(expected),
            "{login:?}"
        );
    }
    assert_eq!(
        login_finds(&*store, &by_email("an_@example.org")).await,
        None,
        "no pattern"
    );
}

async fn an_address_in_another_case_is_taken(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let late = new_user("ANN@Example.Org");
    let outcome = store
        .create_user(&late, None, None, &by(NOW))
        .await
        .expect("an answer");
    assert_eq!(outcome, CreateUser::EmailTaken);
    assert_eq!(
        login_finds(&*store, &by_email("ann@example.org")).await,
        Some(ann)
    );
}

async fn a_name_in_another_case_is_taken(database: Database) {
    let store = database.open().await;
    let ann = add(&*store, &named_user("ann@example.org", "ann")).await;
    let late = named_user("other@example.org", "ANN");
    let outcome = store
        .create_user(&late, None, None, &by(NOW))
        .await
        .expect("an answer");
    assert_eq!(outcome, CreateUser::UsernameTaken);
    assert_eq!(login_finds(&*store, &by_username("ann")).await, Some(ann));
}

async fn users_without_names_do_not_collide(database: Database) {
    let store = database.open().await;
    add_user(&*store, "ann@example.org").await;
    add_user(&*store, "bob@example.org").await;
}

async fn an_address_is_no_name_and_a_name_no_address(database: Database) {
    let store = database.open().await;
    // The local part of one is the name of the other; nothing is in the way of either.
    let ann = add_user(&*store, "bob@example.org").await;
    let bob = add(&*store, &named_user("ann@example.org", "bob")).await;
    assert_eq!(
        login_finds(&*store, &by_email("bob@example.org")).await,
        Some(ann)
    );
    assert_eq!(login_finds(&*store, &by_username("bob")).await, Some(bob));
}

async fn a_refused_user_leaves_nothing_behind(database: Database) {
    let store = database.open().await;
    add(&*store, &named_user("ann@example.org", "ann")).await;
    for refused in [
        named_user("ann@example.org", "free"),
        named_user("free@example.org", "ann"),
    ] {
        let link = new_link(refused.user.id);
        let outcome = store
            .create_user(&refused, Some(&link), None, &by(NOW))
            .await
            .expect("an answer");
        assert_ne!(outcome, CreateUser::Created);
        assert_eq!(store.user(refused.user.id).await.expect("an answer"), None);
        let redeemed = store
            .redeem_set_password(&Proof::Link(link.hash), &hash("new"), None, &by(NOW))
            .await;
        assert_eq!(redeemed.expect("an answer"), Redeem::Refused);
    }
    add(&*store, &named_user("free@example.org", "free")).await;
}

async fn a_link_is_stored_with_its_user(database: Database) {
    let store = database.open().await;
    let mut new = new_user("ann@example.org");
    new.password_hash = None;
    let link = new_link(new.user.id);
    let outcome = store
        .create_user(&new, Some(&link), None, &by(NOW))
        .await
        .expect("an answer");
    assert_eq!(outcome, CreateUser::Created);
    let redeemed = store
        .redeem_set_password(&Proof::Link(link.hash), &hash("new"), None, &by(NOW))
        .await;
    assert_eq!(redeemed.expect("an answer"), Redeem::Redeemed(new.user.id));
}

/// ASVS 2.3.4.
async fn one_of_sixty_four_users_gets_an_address(database: Database) {
    let nodes = two_nodes(&database).await;
    let racers = (0..64).map(|n| {
        let store = Arc::clone(&nodes[n % 2]);
        let email = ["ann@example.org", "Ann@example.org", "ANN@EXAMPLE.ORG"][n % 3];
        let new = named_user(email, &format!("name{n}"));
        async move {
            (
                new.user.id,
                store
                    .create_user(&new, None, None, &by(NOW))
                    .await
                    .expect("an answer"),
            )
        }
    });
    let outcomes = race(racers).await;
    let winners: Vec<_> = outcomes
        .iter()
        .filter(|(_, o)| *o == CreateUser::Created)
        .collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    let losers = outcomes
        .iter()
        .filter(|(_, o)| *o == CreateUser::EmailTaken)
        .count();
    assert_eq!(losers, 63, "{outcomes:?}");
    let found = login_finds(&*nodes[0], &by_email("ann@example.org")).await;
    assert_eq!(found, Some(winners[0].0));
}

async fn one_of_sixty_four_users_gets_a_name(database: Database) {
    let nodes = two_nodes(&database).await;
    let racers = (0..64).map(|n| {
        let store = Arc::clone(&nodes[n % 2]);
        let username = ["ann", "Ann", "ANN"][n % 3];
        let new = named_user(&format!("user{n}@example.org"), username);
        async move {
            (
                new.user.id,
                store
                    .create_user(&new, None, None, &by(NOW))
                    .await
                    .expect("an answer"),
            )
        }
    });
    let outcomes = race(racers).await;
    let winners: Vec<_> = outcomes
        .iter()
        .filter(|(_, o)| *o == CreateUser::Created)
        .collect();
    assert_eq!(winners.len(), 1, "{outcomes:?}");
    let losers = outcomes
        .iter()
        .filter(|(_, o)| *o == CreateUser::UsernameTaken)
        .count();
    assert_eq!(losers, 63, "{outcomes:?}");
    assert_eq!(
        login_finds(&*nodes[1], &by_username("ann")).await,
        Some(winners[0].0)
    );
    // The losers' addresses stayed free.
    for (n, (_, outcome)) in outcomes.iter().enumerate() {
        if *outcome != CreateUser::Created {
            add_user(&*nodes[0], &format!("user{n}@example.org")).await;
        }
    }
}

/// ASVS 2.3.3.
async fn a_write_whose_caller_goes_away_is_finished(database: Database) {
    let store = database.open().await;
    let mut users = Vec::new();
    for n in 0..10 {
        let mut new = named_user(&format!("user{n}@example.org"), &format!("name{n}"));
        new.password_hash = None;
        let link = new_link(new.user.id);
        // Asked once and then dropped, as when a client hangs up.
        let answered = store
            .create_user(&new, Some(&link), None, &by(NOW))
            .now_or_never();
        assert!(answered.is_none(), "no database answers at once");
        users.push((new, link));
    }
    for (new, link) in users {
        until("the user is stored", || async {
            store.user(new.user.id).await.expect("an answer").is_some()
        })
        .await;
        let username = new.user.username.clone().expect("a name");
        assert_eq!(
            login_finds(&*store, &by_username(username.as_str())).await,
            Some(new.user.id)
        );
        let redeemed = store
            .redeem_set_password(&Proof::Link(link.hash), &hash("new"), None, &by(NOW))
            .await;
        assert_eq!(redeemed.expect("an answer"), Redeem::Redeemed(new.user.id));
    }
}

async fn the_database_tells_the_time(database: Database) {
    let store = database.open().await;
    let before = SystemClock::new().now().minus(Span::secs(5));
    let time = store.time().await.expect("an answer");
    let after = SystemClock::new().now().plus(Span::secs(5));
    assert!(before < time && time < after, "{before} {time} {after}");
}

async fn closing_one_node_leaves_the_others_alone(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    store.close().await;
    assert_eq!(user(&*other_node, ann).await.id, ann);
}

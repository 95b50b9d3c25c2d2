//! Passwords set: against the version they were judged with, or by a one-time link.

use std::sync::Arc;

use doorward::{
    clock::{Span, Timestamp},
    ids::{SessionId, UserId},
    model::{
        session::{CloseReason, SessionState},
        token::Proof,
    },
    store::{OpenSession, Redeem, SetPassword, Store},
};

use super::sample::{
    Login, NOW, add_invited, add_user, at, built_in, closed, credentials, fresh_session_id,
    fresh_user_id, hash, new_link, open_ids, open_one, state, stored_hash, two_nodes, view,
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race, rounds},
};

for_each_store! {
    a_new_password_closes_all_sessions_but_one,
    a_new_password_without_a_session_to_keep_closes_all,
    a_session_to_keep_that_is_not_the_users_or_not_open_is_not_kept,
    the_kept_session_counts_as_authenticated_now,
    the_version_grows_by_one,
    a_password_judged_by_an_older_version_writes_nothing,
    a_deactivated_user_gets_no_new_password,
    an_unknown_user_gets_no_password,
    a_new_password_voids_open_links,
    one_of_sixteen_concurrent_changes_wins,
    a_login_racing_with_a_new_password_leaves_no_old_session,
    a_link_sets_the_password_and_is_spent,
    a_link_closes_all_sessions,
    an_unknown_or_expired_link_is_refused,
    a_deactivated_users_link_is_refused_and_not_spent,
    one_of_sixteen_concurrent_redemptions_wins,
    a_link_and_a_change_of_password_exclude_each_other,
}

async fn version(store: &dyn Store, user: UserId) -> i64 {
    credentials(store, user).await.credential_version
}

/// Sets the password `second` against the present version.
async fn set(store: &dyn Store, user: UserId, keep: Option<SessionId>) -> SetPassword {
    let version = version(store, user).await;
    let outcome = store
        .set_password(user, &hash("second"), version, keep, None, &by(at(1)))
        .await;
    outcome.expect("an answer")
}

async fn redeem(
    store: &dyn Store,
    link: &doorward::model::token::SecretHash,
    now: doorward::clock::Timestamp,
) -> Redeem {
    let outcome = store
        .redeem_set_password(&Proof::Link(*link), &hash("linked"), None, &by(now))
        .await;
    outcome.expect("an answer")
}

/// The hash of this password, as [`stored_hash`] tells it.
#[expect(clippy::unnecessary_wraps, reason = "compared with what may be absent")]
fn is(text: &str) -> Option<String> {
    Some(hash(text).expose().clone())
}

fn changed(closed: u64, authenticated_at: Option<Timestamp>) -> SetPassword {
    SetPassword::Changed {
        closed,
        authenticated_at,
    }
}

/// ASVS 7.4.3.
async fn a_new_password_closes_all_sessions_but_one(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let of_bob = open_one(&*store, bob, NOW).await;
    let mut sessions = Vec::new();
    for n in 0..3 {
        sessions.push(open_one(&*store, ann, at(n)).await);
    }
    assert_eq!(
        set(&*store, ann, Some(sessions[1])).await,
        changed(2, Some(at(1)))
    );
    assert_eq!(stored_hash(&*other_node, ann).await, is("second"));
    let ended = closed(CloseReason::PasswordChanged, at(1));
    assert_eq!(state(&*other_node, ann, sessions[0]).await, ended);
    assert_eq!(state(&*other_node, ann, sessions[2]).await, ended);
    assert_eq!(open_ids(&*other_node, ann).await, [sessions[1]]);
    assert_eq!(open_ids(&*other_node, bob).await, [of_bob]);
    assert_eq!(stored_hash(&*other_node, bob).await, is("first"));
}

async fn a_new_password_without_a_session_to_keep_closes_all(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    assert_eq!(set(&*store, ann, None).await, changed(0, None));
    open_one(&*store, ann, NOW).await;
    open_one(&*store, ann, NOW).await;
    assert_eq!(set(&*store, ann, None).await, changed(2, None));
    assert_eq!(open_ids(&*store, ann).await, []);
}

async fn a_session_to_keep_that_is_not_the_users_or_not_open_is_not_kept(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let of_bob = open_one(&*store, bob, NOW).await;
    let ended = open_one(&*store, ann, NOW).await;
    store
        .close_session(ann, ended, CloseReason::LoggedOut, None, &by(NOW))
        .await
        .expect("an answer");
    for keep in [of_bob, fresh_session_id(), ended] {
        open_one(&*store, ann, NOW).await;
        assert_eq!(set(&*store, ann, Some(keep)).await, changed(1, None));
        assert_eq!(open_ids(&*store, ann).await, []);
    }
    let seen = view(&*store, bob, of_bob)
        .await
        .expect("the session exists");
    assert_eq!(
        (seen.state, seen.authenticated_at),
        (SessionState::Open, NOW)
    );
    let seen = view(&*store, ann, ended).await.expect("the session exists");
    assert_eq!(seen.state, closed(CloseReason::LoggedOut, NOW));
}

async fn the_kept_session_counts_as_authenticated_now(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let authenticated = async || {
        view(&*store, ann, session)
            .await
            .expect("the session exists")
            .authenticated_at
    };
    assert_eq!(authenticated().await, NOW);
    set(&*store, ann, Some(session)).await;
    assert_eq!(authenticated().await, at(1));
    let version = version(&*store, ann).await;
    let earlier = NOW.minus(Span::days(1));
    let outcome = store
        .set_password(
            ann,
            &hash("third"),
            version,
            Some(session),
            None,
            &by(earlier),
        )
        .await;
    assert_eq!(outcome.expect("an answer"), changed(0, Some(at(1))));
    assert_eq!(
        authenticated().await,
        at(1),
        "a stored time never goes back"
    );
}

async fn the_version_grows_by_one(database: Database) {
    let store = database.open().await;
    let (ann, link) = add_invited(&*store, "ann@example.org").await;
    let first = version(&*store, ann).await;
    redeem(&*store, &link, NOW).await;
    assert_eq!(version(&*store, ann).await, first + 1);
    set(&*store, ann, None).await;
    assert_eq!(version(&*store, ann).await, first + 2);
}

/// ASVS 15.4.2.
async fn a_password_judged_by_an_older_version_writes_nothing(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let old = version(&*store, ann).await;
    set(&*store, ann, None).await;
    let session = open_one(&*store, ann, NOW).await;
    for stale in [old, old - 1, old + 2] {
        let outcome = store
            .set_password(ann, &hash("stale"), stale, None, None, &by(at(2)))
            .await;
        assert_eq!(outcome.expect("an answer"), SetPassword::CredentialsChanged);
        assert_eq!(stored_hash(&*store, ann).await, is("second"));
        assert_eq!(version(&*store, ann).await, old + 1);
        assert_eq!(open_ids(&*store, ann).await, [session]);
    }
}

async fn a_deactivated_user_gets_no_new_password(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    store
        .deactivate_user(ann, None, &built_in(), &by(NOW))
        .await
        .expect("an answer");
    assert_eq!(set(&*store, ann, None).await, SetPassword::NotActive);
    assert_eq!(stored_hash(&*store, ann).await, is("first"));
}

async fn an_unknown_user_gets_no_password(database: Database) {
    let store = database.open().await;
    let outcome = store
        .set_password(fresh_user_id(), &hash("x"), 1, None, None, &by(NOW))
        .await;
    assert_eq!(outcome.expect("an answer"), SetPassword::Gone);
}

/// ASVS 6.4.1.
async fn a_new_password_voids_open_links(database: Database) {
    let store = database.open().await;
    let (ann, link_of_ann) = add_invited(&*store, "ann@example.org").await;
    let (bob, link_of_bob) = add_invited(&*store, "bob@example.org").await;
    set(&*store, ann, None).await;
    assert_eq!(redeem(&*store, &link_of_ann, NOW).await, Redeem::Refused);
    assert_eq!(stored_hash(&*store, ann).await, is("second"));
    assert_eq!(
        redeem(&*store, &link_of_bob, NOW).await,
        Redeem::Redeemed(bob)
    );
}

async fn one_of_sixteen_concurrent_changes_wins(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    for round in 0..5 {
        let version = version(&*nodes[0], ann).await;
        let racers = (0..16).map(|n| {
            let store = Arc::clone(&nodes[n % 2]);
            let new = hash(&format!("{round}.{n}"));
            async move {
                store
                    .set_password(ann, &new, version, None, None, &by(NOW))
                    .await
                    .expect("an answer")
            }
        });
        let outcomes = race(racers).await;
        let winners: Vec<_> = (0..16)
            .filter(|n| matches!(outcomes[*n], SetPassword::Changed { .. }))
            .collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        let losers = outcomes
            .iter()
            .filter(|o| **o == SetPassword::CredentialsChanged)
            .count();
        assert_eq!(losers, 15, "{outcomes:?}");
        let expected = is(&format!("{round}.{}", winners[0]));
        assert_eq!(stored_hash(&*nodes[1], ann).await, expected);
    }
}

async fn a_login_racing_with_a_new_password_leaves_no_old_session(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    for round in 0..rounds(100) {
        let mut login = Login::of(&*nodes[0], ann).await;
        login.rehash = Some(hash("rehash of the old one"));
        let new = hash(&format!("new{round}"));
        let racers = (0..9).map(|n| {
            let (store, login, new) = (Arc::clone(&nodes[n % 2]), login.clone(), new.clone());
            async move {
                if n == 4 {
                    let outcome = store
                        .set_password(ann, &new, login.version, None, None, &by(NOW))
                        .await;
                    assert!(
                        matches!(outcome, Ok(SetPassword::Changed { .. })),
                        "{outcome:?}"
                    );
                } else {
                    let outcome = login.try_open(&*store, NOW).await;
                    let fine = matches!(
                        outcome,
                        OpenSession::Opened { .. } | OpenSession::CredentialsChanged
                    );
                    assert!(fine, "{outcome:?}");
                }
            }
        });
        race(racers).await;
        assert_eq!(open_ids(&*nodes[0], ann).await, [], "round {round}");
        assert_eq!(
            stored_hash(&*nodes[0], ann).await,
            Some(new.expose().clone()),
            "round {round}"
        );
    }
}

async fn a_link_sets_the_password_and_is_spent(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let (ann, link) = add_invited(&*store, "ann@example.org").await;
    assert_eq!(stored_hash(&*store, ann).await, None);
    assert_eq!(redeem(&*store, &link, NOW).await, Redeem::Redeemed(ann));
    assert_eq!(stored_hash(&*other_node, ann).await, is("linked"));
    let again = other_node
        .redeem_set_password(&Proof::Link(link), &hash("again"), None, &by(NOW))
        .await;
    assert_eq!(again.expect("an answer"), Redeem::Refused);
    assert_eq!(stored_hash(&*store, ann).await, is("linked"));
}

async fn a_link_closes_all_sessions(database: Database) {
    let store = database.open().await;
    let (ann, link) = add_invited(&*store, "ann@example.org").await;
    let sessions = [
        open_one(&*store, ann, NOW).await,
        open_one(&*store, ann, NOW).await,
    ];
    assert_eq!(redeem(&*store, &link, at(1)).await, Redeem::Redeemed(ann));
    for session in sessions {
        let expected = closed(CloseReason::PasswordChanged, at(1));
        assert_eq!(state(&*store, ann, session).await, expected);
    }
}

async fn an_unknown_or_expired_link_is_refused(database: Database) {
    let store = database.open().await;
    let (ann, link) = add_invited(&*store, "ann@example.org").await;
    let unknown = new_link(ann).hash;
    assert_eq!(redeem(&*store, &unknown, NOW).await, Redeem::Refused);
    let end = NOW.plus(Span::days(1));
    for late in [end.plus(Span::millis(1)), end.plus(Span::days(400))] {
        assert_eq!(redeem(&*store, &link, late).await, Redeem::Refused);
    }
    assert_eq!(stored_hash(&*store, ann).await, None);
    assert_eq!(
        redeem(&*store, &link, end.minus(Span::millis(1))).await,
        Redeem::Redeemed(ann)
    );
}

async fn a_deactivated_users_link_is_refused_and_not_spent(database: Database) {
    let store = database.open().await;
    let (ann, link) = add_invited(&*store, "ann@example.org").await;
    store
        .deactivate_user(ann, None, &built_in(), &by(NOW))
        .await
        .expect("an answer");
    assert_eq!(redeem(&*store, &link, NOW).await, Redeem::Refused);
    assert_eq!(stored_hash(&*store, ann).await, None);
    store.activate_user(ann, &by(NOW)).await.expect("an answer");
    assert_eq!(redeem(&*store, &link, NOW).await, Redeem::Redeemed(ann));
}

async fn one_of_sixteen_concurrent_redemptions_wins(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..5 {
        let (ann, link) = add_invited(&*nodes[0], &format!("ann{round}@example.org")).await;
        let racers = (0..16).map(|n| {
            let store = Arc::clone(&nodes[n % 2]);
            let new = hash(&n.to_string());
            async move {
                store
                    .redeem_set_password(&Proof::Link(link), &new, None, &by(NOW))
                    .await
                    .expect("an answer")
            }
        });
        let outcomes = race(racers).await;
        let winners: Vec<_> = (0..16)
            .filter(|n| outcomes[*n] == Redeem::Redeemed(ann))
            .collect();
        assert_eq!(winners.len(), 1, "{outcomes:?}");
        assert_eq!(
            stored_hash(&*nodes[0], ann).await,
            is(&winners[0].to_string())
        );
    }
}

async fn a_link_and_a_change_of_password_exclude_each_other(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..rounds(100) {
        let (ann, link) = add_invited(&*nodes[0], &format!("ann{round}@example.org")).await;
        let before = version(&*nodes[0], ann).await;
        let (node, other_node) = (Arc::clone(&nodes[0]), Arc::clone(&nodes[1]));
        let link_used = tokio::spawn(async move { redeem(&*node, &link, NOW).await });
        let changed = other_node
            .set_password(ann, &hash("second"), before, None, None, &by(NOW))
            .await;
        let redeemed = link_used.await.expect("no panic");
        let winner = match (redeemed, changed.expect("an answer")) {
            (Redeem::Redeemed(_), SetPassword::CredentialsChanged) => "linked",
            (Redeem::Refused, SetPassword::Changed { .. }) => "second",
            both => panic!("{both:?}"),
        };
        assert_eq!(stored_hash(&*nodes[0], ann).await, is(winner));
        assert_eq!(version(&*nodes[0], ann).await, before + 1);
    }
}

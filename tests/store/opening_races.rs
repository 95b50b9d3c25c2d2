//! However many logins of one user race, on whatever nodes, the limit holds.

use std::sync::Arc;

use doorward::{
    clock::Span,
    ids::{SessionId, UserId},
    model::session::{CloseReason, SessionState},
    store::{OpenSession, Store},
};

use super::sample::{
    Login, NOW, add_user, at, limit, open_ids, open_one, reject, state, two_nodes,
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race, rounds, until},
};

for_each_store! {
    sixty_four_logins_leave_exactly_one_session,
    every_replaced_session_is_named_by_exactly_one_login,
    a_limit_of_three_is_never_four,
    reject_refuses_exactly_the_surplus,
    racing_logins_close_an_expired_session_once,
    no_moment_shows_two_sessions,
    a_session_open_when_all_are_closed_does_not_survive,
    logins_whose_callers_go_away_leave_one_session,
}

const RACERS: usize = 64;

/// All logins at once, spread over the nodes.
async fn race_logins(
    nodes: &[Arc<dyn Store>; 2],
    login: &Login,
    racers: usize,
) -> Vec<OpenSession> {
    let racers = (0..racers).map(|n| {
        let (store, login) = (Arc::clone(&nodes[n % 2]), login.clone());
        async move { login.try_open(&*store, NOW).await }
    });
    race(racers).await
}

fn opened(outcomes: &[OpenSession]) -> Vec<SessionId> {
    let ids = outcomes.iter().filter_map(|outcome| match outcome {
        OpenSession::Opened { session, .. } => Some(session.id),
        _ => None,
    });
    ids.collect()
}

async fn sixty_four_logins_leave_exactly_one_session(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    let login = Login::of(&*nodes[0], ann).await;
    for round in 0..rounds(40) {
        let outcomes = race_logins(&nodes, &login, RACERS).await;
        let ids = opened(&outcomes);
        assert_eq!(ids.len(), RACERS, "under eviction every login succeeds");
        let left = open_ids(&*nodes[round % 2], ann).await;
        assert_eq!(left.len(), 1, "round {round}");
        assert!(
            ids.contains(&left[0]),
            "round {round}: the one left is of this round"
        );
    }
}

async fn every_replaced_session_is_named_by_exactly_one_login(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    let login = Login::of(&*nodes[0], ann).await.under(limit(2));
    let outcomes = race_logins(&nodes, &login, 16).await;
    let mut named: Vec<SessionId> = outcomes
        .iter()
        .flat_map(|outcome| match outcome {
            OpenSession::Opened { evicted, .. } => evicted.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    named.extend(open_ids(&*nodes[0], ann).await);
    named.sort();
    let mut all = opened(&outcomes);
    all.sort();
    assert_eq!(named, all);
}

async fn a_limit_of_three_is_never_four(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    let login = Login::of(&*nodes[0], ann).await.under(limit(3));
    for round in 0..rounds(40) {
        race_logins(&nodes, &login, RACERS).await;
        assert_eq!(open_ids(&*nodes[0], ann).await.len(), 3, "round {round}");
    }
}

async fn reject_refuses_exactly_the_surplus(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..rounds(40) {
        let ann = add_user(&*nodes[0], &format!("ann{round}@example.org")).await;
        let login = Login::of(&*nodes[0], ann).await.under(reject(3));
        let outcomes = race_logins(&nodes, &login, 20).await;
        let refused = outcomes
            .iter()
            .filter(|o| **o == OpenSession::Refused { open: 3 })
            .count();
        assert_eq!((opened(&outcomes).len(), refused), (3, 17), "{outcomes:?}");
        let mut left = open_ids(&*nodes[1], ann).await;
        let mut ids = opened(&outcomes);
        left.sort();
        ids.sort();
        assert_eq!(left, ids, "the winners stay");
    }
}

async fn racing_logins_close_an_expired_session_once(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    let old = open_one(&*nodes[0], ann, NOW.minus(Span::days(31))).await;
    let login = Login::of(&*nodes[0], ann).await.under(reject(1));
    let outcomes = race_logins(&nodes, &login, 16).await;
    assert_eq!(opened(&outcomes).len(), 1, "{outcomes:?}");
    let expected = SessionState::Closed {
        at: NOW,
        reason: CloseReason::Expired,
    };
    assert_eq!(state(&*nodes[0], ann, old).await, expected);
}

/// A reader on another node asks all the while.
async fn no_moment_shows_two_sessions(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    let login = Login::of(&*nodes[0], ann).await;
    login.open(&*nodes[0], NOW).await;
    let watcher = tokio::spawn({
        let reader = database.open().await;
        async move {
            for _ in 0..100 {
                assert_eq!(open_ids(&*reader, ann).await.len(), 1);
            }
        }
    });
    while !watcher.is_finished() {
        race_logins(&nodes, &login, 8).await;
    }
    watcher.await.expect("always exactly one");
}

async fn close_all(store: &dyn Store, user: UserId) -> Option<u64> {
    let outcome = store
        .close_sessions(user, None, CloseReason::Revoked, &by(at(1)))
        .await;
    outcome.expect("an answer")
}

async fn a_session_open_when_all_are_closed_does_not_survive(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    let login = Login::of(&*nodes[0], ann).await.under(limit(100));
    for round in 0..rounds(100) {
        let before = login.open(&*nodes[0], NOW).await.id;
        let racers = (0..9).map(|n| {
            let (store, login) = (Arc::clone(&nodes[n % 2]), login.clone());
            async move {
                if n == 4 {
                    assert!(
                        close_all(&*store, ann)
                            .await
                            .is_some_and(|closed| closed >= 1)
                    );
                    None
                } else {
                    Some(login.open(&*store, NOW).await.id)
                }
            }
        });
        let outcomes = race(racers).await;
        let ended = state(&*nodes[0], ann, before).await;
        assert_ne!(ended, SessionState::Open, "round {round}");
        // What is open now was opened during the race, and one more call ends it.
        for id in open_ids(&*nodes[0], ann).await {
            assert!(outcomes.contains(&Some(id)), "round {round}");
        }
        close_all(&*nodes[1], ann).await;
        assert_eq!(open_ids(&*nodes[0], ann).await, [], "round {round}");
    }
}

/// ASVS 2.3.3.
async fn logins_whose_callers_go_away_leave_one_session(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    let login = Login::of(&*nodes[0], ann).await;
    login.open(&*nodes[0], NOW).await;
    for n in 0..40 {
        let patience = std::time::Duration::from_micros(100 * n);
        let request = login.request(NOW);
        let _ = tokio::time::timeout(patience, nodes[0].open_session(&request, &by(NOW))).await;
        assert_eq!(
            open_ids(&*nodes[1], ann).await.len(),
            1,
            "after {patience:?}"
        );
    }
    // Nothing is stuck: a login through each node is answered, and the last one stays.
    login.open(&*nodes[0], at(1)).await;
    let last = login.open(&*nodes[1], at(2)).await.id;
    until("only the last one is open", || async {
        open_ids(&*nodes[0], ann).await == [last]
    })
    .await;
}

//! When sessions were last used: never backwards, never after their end, never in a deadlock.

use std::{sync::Arc, time::Duration};

use doorward::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    model::session::CloseReason,
    presence::Presence,
    store::{Seen, Store},
};

use super::sample::{
    Login, NOW, add_user, at, closed, fresh_session_id, fresh_user_id, limit, open_one, state,
    two_nodes, view,
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race, rounds, until, watched::WatchedStore},
};

for_each_store! {
    the_last_use_is_noted_for_several_sessions_at_once,
    the_last_use_never_goes_back,
    nothing_seen_is_nothing_noted,
    closed_and_unknown_sessions_are_passed_over,
    two_nodes_flushing_the_same_sessions_do_not_deadlock,
    a_flush_revives_no_session_that_is_closed_meanwhile,
    who_writes_at_once_waits_for_nobody_who_takes_time,
}

fn seen(user_id: UserId, session_id: SessionId, at: Timestamp) -> Seen {
    Seen {
        user_id,
        session_id,
        at,
    }
}

async fn last_seen(store: &dyn Store, user: UserId, session: SessionId) -> Timestamp {
    view(store, user, session)
        .await
        .expect("the session exists")
        .last_seen_at
}

async fn the_last_use_is_noted_for_several_sessions_at_once(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let keys = [
        (ann, open_one(&*store, ann, NOW).await),
        (bob, open_one(&*store, bob, NOW).await),
        (ann, open_one(&*store, ann, NOW).await),
    ];
    let unused = open_one(&*store, ann, NOW).await;
    let batch: Vec<_> = keys
        .iter()
        .zip(1..)
        .map(|((u, s), n)| seen(*u, *s, at(n)))
        .collect();
    store.note_seen(&batch).await.expect("noted");
    for ((user, session), n) in keys.into_iter().zip(1..) {
        assert_eq!(last_seen(&*other_node, user, session).await, at(n));
    }
    assert_eq!(last_seen(&*other_node, ann, unused).await, NOW);
    let listed = other_node.open_sessions_of(bob).await.expect("an answer");
    assert_eq!(listed[0].last_seen_at, at(2));
}

async fn the_last_use_never_goes_back(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    for (noted, expected) in [(5, 5), (3, 5), (5, 5), (6, 6), (-100, 6)] {
        store
            .note_seen(&[seen(ann, session, at(noted))])
            .await
            .expect("noted");
        assert_eq!(last_seen(&*store, ann, session).await, at(expected));
    }
}

async fn nothing_seen_is_nothing_noted(database: Database) {
    database.open().await.note_seen(&[]).await.expect("noted");
}

async fn closed_and_unknown_sessions_are_passed_over(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let ended = open_one(&*store, ann, NOW).await;
    store
        .close_session_by_id(ended, CloseReason::LoggedOut, &by(at(1)))
        .await
        .expect("an answer");
    let open = open_one(&*store, ann, NOW).await;
    let batch = [
        seen(ann, ended, at(5)),
        seen(bob, open, at(9)),
        seen(fresh_user_id(), fresh_session_id(), at(5)),
        seen(ann, fresh_session_id(), at(5)),
        seen(ann, open, at(5)),
    ];
    store.note_seen(&batch).await.expect("noted");
    assert_eq!(last_seen(&*store, ann, ended).await, NOW);
    assert_eq!(
        state(&*store, ann, ended).await,
        closed(CloseReason::LoggedOut, at(1))
    );
    assert_eq!(
        last_seen(&*store, ann, open).await,
        at(5),
        "the others are noted all the same"
    );
}

async fn two_nodes_flushing_the_same_sessions_do_not_deadlock(database: Database) {
    let nodes = two_nodes(&database).await;
    let mut keys = Vec::new();
    for n in 0..10 {
        let id = add_user(&*nodes[0], &format!("user{n}@example.org")).await;
        let login = Login::of(&*nodes[0], id).await.under(limit(10));
        for _ in 0..5 {
            keys.push((id, login.open(&*nodes[0], NOW).await.id));
        }
    }
    for round in 1..=i64::try_from(rounds(50)).expect("small") {
        let racers = (0..6).map(|n: usize| {
            let store = Arc::clone(&nodes[n % 2]);
            let when = at(round * 10 + i64::try_from(n).expect("small"));
            let mut batch: Vec<_> = keys.iter().map(|(u, s)| seen(*u, *s, when)).collect();
            if n % 2 == 1 {
                batch.reverse();
            }
            batch.rotate_left(n * 7);
            async move { store.note_seen(&batch).await }
        });
        for outcome in race(racers).await {
            outcome.expect("noted");
        }
        for (user, session) in &keys {
            assert_eq!(
                last_seen(&*nodes[0], *user, *session).await,
                at(round * 10 + 5)
            );
        }
    }
}

async fn a_flush_revives_no_session_that_is_closed_meanwhile(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    for round in 0..rounds(100) {
        let session = open_one(&*nodes[0], ann, NOW).await;
        let flushing = tokio::spawn({
            let store = Arc::clone(&nodes[0]);
            async move { store.note_seen(&[seen(ann, session, at(5))]).await }
        });
        nodes[1]
            .close_session_by_id(session, CloseReason::Revoked, &by(at(6)))
            .await
            .expect("closed");
        flushing.await.expect("no panic").expect("noted");
        let expected = closed(CloseReason::Revoked, at(6));
        assert_eq!(
            state(&*nodes[0], ann, session).await,
            expected,
            "round {round}"
        );
    }
}

async fn who_writes_at_once_waits_for_nobody_who_takes_time(database: Database) {
    let store = Arc::new(WatchedStore::new(database.open().await));
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let presence = Presence::new(store.clone());
    presence.note(ann, session, at(5));
    // What nobody knows is passed over, and counts all the same.
    for _ in 0..store.arrange_seen(&mut []) * 2 {
        presence.note(ann, fresh_session_id(), at(5));
    }
    let written = || store.calls_of("note_seen");
    let unhurried = tokio::spawn({
        let presence = presence.clone();
        async move { presence.flush_over(Duration::from_hours(1)).await }
    });
    until("a first part is written", async || written() == 1).await;
    presence.note(ann, session, at(6));
    presence.flush().await.expect("written");
    assert_eq!(written(), 3, "each part once");
    assert_eq!(last_seen(&*store, ann, session).await, at(6));
    presence.flush().await.expect("nothing to write");
    assert_eq!(written(), 3);
    assert!(!unhurried.is_finished(), "it takes its time");
    unhurried.abort();
}

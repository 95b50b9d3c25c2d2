//! The decorated store itself: what the tests of frozen moments rest on.

use std::sync::Arc;

use doorward::{model::session::CloseReason, store::Store};

use super::sample::{NOW, add_user, closed, open_one, state};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, watched::WatchedStore},
};

for_each_store! {
    calls_are_counted_by_method,
    a_call_held_before_is_decided_later,
    a_call_held_after_was_decided_before,
}

async fn calls_are_counted_by_method(database: Database) {
    let store = WatchedStore::new(database.open().await);
    let ann = add_user(&store, "ann@example.org").await;
    store.user(ann).await.expect("an answer");
    store.user(ann).await.expect("an answer");
    assert_eq!(
        (
            store.calls(),
            store.calls_of("user"),
            store.calls_of("time")
        ),
        (3, 2, 0)
    );
}

async fn a_call_held_before_is_decided_later(database: Database) {
    let store = Arc::new(WatchedStore::new(database.open().await));
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let gate = store.hold_before("live_sessions");
    let held = tokio::spawn({
        let store = Arc::clone(&store);
        async move { state(&*store, ann, session).await }
    });
    gate.reached().await;
    store
        .close_session_by_id(session, CloseReason::Revoked, &by(NOW))
        .await
        .expect("an answer");
    gate.release();
    assert_eq!(
        held.await.expect("no panic"),
        closed(CloseReason::Revoked, NOW)
    );
}

async fn a_call_held_after_was_decided_before(database: Database) {
    let store = Arc::new(WatchedStore::new(database.open().await));
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let gate = store.hold_after("live_sessions");
    let held = tokio::spawn({
        let store = Arc::clone(&store);
        async move { state(&*store, ann, session).await }
    });
    gate.reached().await;
    store
        .close_session_by_id(session, CloseReason::Revoked, &by(NOW))
        .await
        .expect("an answer");
    // Only one call is held: this one passes and sees the present.
    assert_eq!(
        state(&*store, ann, session).await,
        closed(CloseReason::Revoked, NOW)
    );
    gate.release();
    let frozen = held.await.expect("no panic");
    assert_eq!(frozen, doorward::model::session::SessionState::Open);
}

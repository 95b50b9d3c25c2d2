//! Rows changed by hand are obeyed at the next read; a nonsensical one is named and fails alone.

use doorward::{
    ids::{SessionId, UserId},
    model::session::{CloseReason, SessionState, Verdict},
    store::{Store, StoreError},
};

use super::sample::{IDLE, NOW, add_user, at, closed, open_one, state, two_nodes, view};
use crate::{for_each_store, harness::backend::Database};

for_each_store! {
    a_deleted_user_is_gone_with_the_sessions,
    a_deleted_session_is_gone,
    a_closed_session_is_closed,
    an_expired_session_is_overdue,
    a_deactivated_users_open_session_opens_nothing,
    a_corrupt_session_fails_one_caller_only,
    a_corrupt_user_fails_its_own_callers_only,
}

/// Ann with a session and Bob with one.
async fn ann_and_bob(store: &dyn Store) -> [(UserId, SessionId); 2] {
    let ann = add_user(store, "ann@example.org").await;
    let bob = add_user(store, "bob@example.org").await;
    [
        (ann, open_one(store, ann, NOW).await),
        (bob, open_one(store, bob, NOW).await),
    ]
}

async fn a_deleted_user_is_gone_with_the_sessions(database: Database) {
    let nodes = two_nodes(&database).await;
    let [(ann, session), (bob, of_bob)] = ann_and_bob(&*nodes[0]).await;
    database.delete_user_row(ann).await;
    for store in &nodes {
        assert_eq!(view(&**store, ann, session).await, None);
        assert_eq!(store.user(ann).await.expect("an answer"), None);
        assert_eq!(state(&**store, bob, of_bob).await, SessionState::Open);
    }
}

async fn a_deleted_session_is_gone(database: Database) {
    let store = database.open().await;
    let [(ann, session), _] = ann_and_bob(&*store).await;
    let other = open_one(&*store, ann, NOW).await;
    database.delete_session_row(ann, session).await;
    assert_eq!(view(&*store, ann, session).await, None);
    assert_eq!(state(&*store, ann, other).await, SessionState::Open);
}

async fn a_closed_session_is_closed(database: Database) {
    let store = database.open().await;
    let [(ann, session), (bob, of_bob)] = ann_and_bob(&*store).await;
    database.close_session_row(ann, session, at(1)).await;
    assert_eq!(
        state(&*store, ann, session).await,
        closed(CloseReason::Revoked, at(1))
    );
    assert_eq!(state(&*store, bob, of_bob).await, SessionState::Open);
}

async fn an_expired_session_is_overdue(database: Database) {
    let store = database.open().await;
    let [(ann, session), _] = ann_and_bob(&*store).await;
    database.expire_session_row(ann, session, at(1)).await;
    let seen = view(&*store, ann, session)
        .await
        .expect("the session exists");
    assert_eq!(
        (seen.expires_at, seen.judge(NOW, IDLE)),
        (at(1), Verdict::Live)
    );
    assert_eq!(
        seen.judge(at(1), IDLE),
        Verdict::Overdue(CloseReason::Expired)
    );
}

async fn a_deactivated_users_open_session_opens_nothing(database: Database) {
    let store = database.open().await;
    let [(ann, session), (bob, of_bob)] = ann_and_bob(&*store).await;
    database.deactivate_user_row(ann, at(1)).await;
    let seen = view(&*store, ann, session)
        .await
        .expect("the session exists");
    assert_eq!(seen.state, SessionState::Open);
    assert_eq!(
        seen.judge(NOW, IDLE),
        Verdict::Ended(CloseReason::AccountDeactivated)
    );
    let seen = view(&*store, bob, of_bob)
        .await
        .expect("the session exists");
    assert_eq!(seen.judge(NOW, IDLE), Verdict::Live);
}

/// The rows of one batch, and whether each is corrupt.
async fn corrupt_ones(store: &dyn Store, wanted: &[(UserId, SessionId)]) -> Vec<bool> {
    let rows = store.live_sessions(wanted).await.expect("an answer");
    let is_corrupt = |row: &Result<_, StoreError>| match row {
        Ok(Some(_)) => false,
        Err(StoreError::Corrupt { .. }) => true,
        other => panic!("{other:?}"),
    };
    rows.iter().map(is_corrupt).collect()
}

async fn a_corrupt_session_fails_one_caller_only(database: Database) {
    let store = database.open().await;
    let [(ann, session), (bob, of_bob)] = ann_and_bob(&*store).await;
    let other = open_one(&*store, ann, NOW).await;
    database.corrupt_session_row(ann, session, at(1)).await;
    let wanted = [(bob, of_bob), (ann, session), (ann, other), (ann, session)];
    assert_eq!(
        corrupt_ones(&*store, &wanted).await,
        [false, true, false, true]
    );
    let mut rows = store
        .live_sessions(&[(ann, session)])
        .await
        .expect("an answer");
    let Err(StoreError::Corrupt { column, row, .. }) = rows.remove(0) else {
        panic!("not corrupt")
    };
    assert_eq!((column, row), ("close_reason", session.to_string()));
}

async fn a_corrupt_user_fails_its_own_callers_only(database: Database) {
    let store = database.open().await;
    let [(ann, session), (bob, of_bob)] = ann_and_bob(&*store).await;
    database.corrupt_user_row(ann).await;
    let wanted = [(ann, session), (bob, of_bob)];
    assert_eq!(corrupt_ones(&*store, &wanted).await, [true, false]);
    let Err(StoreError::Corrupt { table, column, row }) = store.user(ann).await else {
        panic!("not corrupt")
    };
    assert_eq!((table, column, row), ("users", "email", ann.to_string()));
}

//! A database that is away is unavailable, never empty; when it is back, so is the store.

use std::time::Duration;

use doorward::{
    model::session::CloseReason,
    store::{StoreError, StoreResult, UserFilter, open::open, settings::Backend},
};

use super::sample::{Login, NOW, add_user, built_in, by_email, open_one, user, view};
use crate::harness::occasions::by;
use crate::harness::{servers::PrivateServer, until};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_away_is_unavailable_and_comes_back() {
    away_is_unavailable_and_comes_back(Backend::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mongodb_away_is_unavailable_and_comes_back() {
    away_is_unavailable_and_comes_back(Backend::Mongodb).await;
}

#[track_caller]
fn assert_unavailable<T: std::fmt::Debug>(what: &str, answer: &StoreResult<T>) {
    assert!(
        matches!(answer, Err(StoreError::Unavailable(_))),
        "{what}: {answer:?}"
    );
}

async fn away_is_unavailable_and_comes_back(backend: Backend) {
    let mut server = PrivateServer::start(backend).await;
    let store = open(&server.settings()).await.expect("open").store;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let login = Login::of(&*store, ann).await;

    server.kill();
    let everybody = UserFilter {
        limit: 10,
        ..UserFilter::default()
    };
    assert_unavailable("time", &store.time().await);
    assert_unavailable("user", &store.user(ann).await);
    assert_unavailable(
        "user_by_login",
        &store.user_by_login(&by_email("ann@example.org")).await,
    );
    assert_unavailable("user_credentials", &store.user_credentials(ann).await);
    assert_unavailable("list_users", &store.list_users(&everybody).await);
    assert_unavailable(
        "live_sessions",
        &store.live_sessions(&[(ann, session)]).await,
    );
    assert_unavailable("open_sessions_of", &store.open_sessions_of(ann).await);
    assert_unavailable(
        "open_session",
        &store.open_session(&login.request(NOW), &by(NOW)).await,
    );
    let closed = store
        .close_session(ann, session, CloseReason::Revoked, None, &by(NOW))
        .await;
    assert_unavailable("close_session", &closed);
    assert_unavailable(
        "deactivate_user",
        &store
            .deactivate_user(ann, None, &built_in(), &by(NOW))
            .await,
    );

    server.start_again().await;
    let back = until("it answers", async || {
        store.live_sessions(&[(ann, session)]).await.is_ok()
    });
    tokio::time::timeout(Duration::from_secs(5), back)
        .await
        .expect("service within five seconds");
    assert!(view(&*store, ann, session).await.is_some());
    assert_eq!(user(&*store, ann).await.id, ann);
    login.open(&*store, NOW).await;
}

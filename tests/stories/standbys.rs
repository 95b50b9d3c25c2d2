//! Promises 1 and 4 with a synchronous standby: what it does not have is not acknowledged, however often it is asked for.

use std::sync::Arc;

use doorward::{
    clock::{ManualClock, Span},
    store::{open::open, settings::Backend},
};
use serde_json::json;

use crate::harness::{
    app::{Client, PASSWORD, Setup, serve},
    servers::PrivateServer,
};

/// The commit of a logout reaches the primary's disk and no standby. A primary that starts again shows such commits; to
/// say "logged out" then would be a lie once the standby is promoted.
#[tokio::test(flavor = "multi_thread")]
async fn asking_again_does_not_acknowledge_what_no_standby_has() {
    let mut server = PrivateServer::start(Backend::Postgres).await;
    let mut settings = server.settings();
    settings.postgres.statement_timeout = Span::millis(500);
    let store = open(&settings).await.expect("open").store;
    let setup = Setup::default();
    let node = serve(store, &setup, Arc::new(ManualClock::at(setup.start))).await;
    let anonymous = Client::anonymous(&node.url);
    let account = json!({"email": "ann@example.org", "password": PASSWORD});
    let registered = anonymous.post("/v1/auth/register", account).await;
    registered.expect(201);
    let ann = anonymous.log_in("ann@example.org", PASSWORD).await;

    server.reload("synchronous_standby_names = 'nobody'");
    crate::harness::until("commits wait for a standby", async || {
        ann.call("/v1/auth/logout?scope=others").await.status == 503
    })
    .await;
    assert_eq!(ann.call("/v1/auth/logout").await.status, 503);
    server.kill();
    server.start_again().await;
    crate::harness::until("the primary shows that the session is closed", async || {
        ann.me().await.status == 401
    })
    .await;
    assert_eq!(ann.call("/v1/auth/logout").await.status, 503);

    // The standby is back: it has everything that the primary has.
    server.reload("synchronous_standby_names = ''");
    crate::harness::until("it is acknowledged", async || {
        ann.call("/v1/auth/logout").await.status == 204
    })
    .await;
}

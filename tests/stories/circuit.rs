//! While the database is away nobody waits to be told so, and nobody has to restart anything when it is back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use doorward::{
    clock::{ManualClock, Span, Timestamp},
    metrics::CircuitUse,
    store::{open::open, settings::Backend},
};
use serde_json::json;

use crate::harness::{
    app::{Client, PASSWORD, Setup, serve},
    race,
    servers::PrivateServer,
    until,
};

const CLIENTS: usize = 200;
/// What an answer takes that waits for nothing. A machine that is busy with other tests gives it to most only.
const AT_ONCE: Duration = Duration::from_millis(100);
/// No answer comes as late as the end of any wait.
const NOBODY_WAITS: Duration = Duration::from_secs(2);
/// Between two clients.
const APART: Duration = Duration::from_millis(10);
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// ASVS 13.2.6, 16.5.2.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_postgres_that_is_away() {
    nobody_waits_for_a_database_that_is_away(Backend::Postgres).await;
}

/// ASVS 13.2.6, 16.5.2.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_mongodb_that_is_away() {
    nobody_waits_for_a_database_that_is_away(Backend::Mongodb).await;
}

async fn nobody_waits_for_a_database_that_is_away(backend: Backend) {
    let mut server = PrivateServer::start(backend).await;
    let store = open(&server.settings()).await.expect("open").store;
    let watched = Arc::clone(&store);
    let now = store.time().await.expect("the time");
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(now.as_millis())));
    let mut setup = Setup::default();
    setup.sessions.max_per_user = 10;
    let node = serve(store, &setup, clock).await;
    let anonymous = Client::anonymous(&node.url);
    let account = json!({"email": "ann@example.org", "password": PASSWORD});
    anonymous
        .post("/v1/auth/register", account)
        .await
        .expect(201);
    let ann = anonymous.log_in("ann@example.org", PASSWORD).await;

    for (n, frozen) in [(1, false), (2, true)] {
        if frozen {
            server.freeze().await;
        } else {
            server.kill();
        }
        until("the circuit has opened", async || {
            ask_all(&ann).await;
            watched.circuit().opened == n
        })
        .await;
        let mut times = ask_all(&ann).await;
        times.sort();
        assert!(times[CLIENTS / 2] < AT_ONCE, "{times:?}");
        assert!(times[CLIENTS - 1] < NOBODY_WAITS, "{times:?}");
        for path in ["/v1/auth/logout", "/v1/auth/me/deactivate"] {
            assert_eq!(
                ann.post(path, json!({"password": PASSWORD})).await.status,
                503
            );
        }
        assert!(watched.circuit().rejected > 0);

        if frozen {
            server.thaw();
        } else {
            server.start_again().await;
        }
        let back = until("it answers", async || ann.me().await.status == 200);
        tokio::time::timeout(BACK_WITHIN, back)
            .await
            .expect("service within three seconds");
        // Nothing that broke is still in use.
        for _ in 0..20 {
            ann.me().await.expect(200);
        }
        anonymous
            .log_in("ann@example.org", PASSWORD)
            .await
            .me()
            .await
            .expect(200);
        assert_eq!(watched.circuit().opened, n);
    }
}

/// Two hundred clients, each of whom is told that the database is away; and how long that took.
async fn ask_all(ann: &Client) -> Vec<Duration> {
    let all = (0..CLIENTS).map(|n| {
        let ann = ann.clone();
        async move {
            // What is measured is the wait, not how fast this machine works off two hundred at once.
            tokio::time::sleep(APART * u32::try_from(n).expect("few")).await;
            let start = Instant::now();
            (ann.me().await, start.elapsed())
        }
    });
    let mut times = Vec::new();
    for (reply, time) in race(all).await {
        assert_eq!(
            (reply.status, reply.header("retry-after")),
            (503, Some("1")),
            "{reply:?}"
        );
        times.push(time);
    }
    times
}

/// A row that somebody holds is no outage: whoever wants it is told so in time, and nobody else notices.
///
/// ASVS 15.4.4.
#[tokio::test(flavor = "multi_thread")]
async fn slow_statements_do_not_open_the_circuit() {
    let server = PrivateServer::start(Backend::Postgres).await;
    let mut settings = server.settings();
    settings.postgres.statement_timeout = Span::millis(1200);
    let store = open(&settings).await.expect("open").store;
    let watched = Arc::clone(&store);
    let node = serve(
        store,
        &Setup::default(),
        Arc::new(ManualClock::at(Timestamp::EPOCH)),
    )
    .await;
    let anonymous = Client::anonymous(&node.url);
    let account = json!({"email": "ann@example.org", "password": PASSWORD});
    anonymous
        .post("/v1/auth/register", account)
        .await
        .expect(201);
    let ann = anonymous.log_in("ann@example.org", PASSWORD).await;

    let url = server.settings().postgres.url;
    let (holder, connection) = tokio_postgres::connect(url.expose(), tokio_postgres::NoTls)
        .await
        .expect("connected");
    tokio::spawn(connection);
    let hold = "BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE";
    holder.batch_execute(hold).await.expect("held");
    // Not one of them is answered in between, so all that speaks for the database is that it lets others in.
    let all = (0..8).map(|_| {
        let ann = ann.clone();
        async move { ann.me().await.status }
    });
    assert_eq!(race(all).await, [503; 8]);
    holder.batch_execute("COMMIT").await.expect("let go");
    ann.me().await.expect(200);
    assert_eq!(watched.circuit(), CircuitUse::default());

    // One connection that breaks is replaced; whoever used it is told, nobody else.
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'doorward'";
    holder.batch_execute(kill).await.expect("ended");
    until("they are gone", async || ann.me().await.status == 200).await;
    for _ in 0..20 {
        ann.me().await.expect(200);
    }
    assert_eq!(watched.circuit(), CircuitUse::default());
}

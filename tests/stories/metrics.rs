//! Metrics, told over HTTP: each counter moves when it should, nothing that a client sends becomes a label, and the
//! canary tells of a node that goes on accepting.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use doorward::{
    Auth,
    auth::canary::CanaryPolicy,
    clock::{ManualClock, Span, Timestamp},
    http::ApiOptions,
    ids::UserId,
    model::{audit::AuditFilter, quota::Limit},
    store::{Store, UserFilter},
};
use poem::{
    Server, handler,
    http::StatusCode,
    listener::{Acceptor, Listener, TcpListener},
    web::Data,
};
use reqwest::Method;
use serde_json::json;

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, PASSWORD, Setup},
        backend::Database,
        mailbox::{Mailbox, settled},
        race, until,
        watched::WatchedStore,
    },
};

for_each_store! {
    each_counter_moves_when_it_should,
    nothing_that_a_client_sends_becomes_a_label,
    the_canary_measures_this_node_and_its_peers,
    a_peer_that_goes_on_accepting_is_counted,
    an_unreachable_peer_is_no_acceptance,
    a_database_that_is_away_is_counted,
    what_takes_long_to_count_is_counted_seldom,
}

/// A node that shows its metrics.
fn shown() -> Setup {
    Setup {
        api: ApiOptions {
            metrics: true,
            ..ApiOptions::default()
        },
        ..Setup::default()
    }
}

fn asking(peers: &[String]) -> Setup {
    Setup {
        canary: CanaryPolicy {
            peers: peers.to_vec(),
            ..CanaryPolicy::off()
        },
        ..shown()
    }
}

/// What one node shows.
struct Shown(String);

impl Shown {
    async fn by(client: &Client) -> Self {
        let reply = client.get("/metrics").await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        let format = "text/plain; version=0.0.4; charset=utf-8";
        assert_eq!(reply.header("content-type"), Some(format));
        Self(reply.text)
    }

    /// The value of a sample, as it is written before the value.
    #[track_caller]
    fn of(&self, sample: &str) -> f64 {
        self.find(sample)
            .unwrap_or_else(|| panic!("{sample} is missing:\n{}", self.0))
    }

    fn find(&self, sample: &str) -> Option<f64> {
        let mut values = self.0.lines().filter_map(|line| line.strip_prefix(sample));
        let value = values.find_map(|rest| rest.strip_prefix(' '))?;
        Some(value.parse().expect("a number"))
    }

    #[track_caller]
    fn assert_all(&self, samples: &[(&str, u32)]) {
        for (sample, value) in samples {
            assert!(
                (self.of(sample) - f64::from(*value)).abs() < 1e-9,
                "{sample} is not {value}:\n{}",
                self.0
            );
        }
    }
}

async fn each_counter_moves_when_it_should(database: Database) {
    let mut setup = shown();
    setup.limits.forgot_address = Limit::of(1, Span::minutes(10));
    let (_mailbox, setup) = Mailbox::in_memory(setup);
    let app = App::with(database, setup).await;
    let admin = app.admin("admin@example.org").await;
    let ann = app.user("ann@example.org").await;
    assert_problem!(
        app.anonymous()
            .try_log_in("ann@example.org", "not the one")
            .await,
        401,
        "bad_credentials"
    );
    let again = app.log_in("ann@example.org").await;
    assert_problem!(ann.me().await, 401, "session_replaced");
    let id = again.me().await.expect(200)["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let revoked = admin.call(&format!("/v1/admin/users/{id}/revoke")).await;
    assert!(revoked.status < 300, "{}", revoked.text);
    assert_problem!(again.me().await, 401, "session_revoked");
    let open = app.log_in("ann@example.org").await;
    open.call("/v1/auth/logout").await.expect(204);
    let anonymous = app.anonymous();
    let forgot = json!({"email": "ann@example.org"});
    for expected in [202, 429] {
        let asked = anonymous.post("/v1/auth/password/forgot", forgot.clone());
        assert_eq!(asked.await.status, expected);
    }
    let auth = &app.nodes[0].auth;
    settled(&app).await;
    auth.observe().await.expect("observed");

    let shown = Shown::by(&app.anonymous()).await;
    shown.assert_all(&[
        ("doorward_logins_total{outcome=\"ok\"}", 4),
        ("doorward_logins_total{outcome=\"bad_credentials\"}", 1),
        ("doorward_revocations_total{reason=\"replaced\"}", 1),
        ("doorward_revocations_total{reason=\"revoked\"}", 1),
        ("doorward_revocations_total{reason=\"logged_out\"}", 1),
        (
            "doorward_authentications_total{outcome=\"session_revoked\"}",
            1,
        ),
        (
            "doorward_authentications_total{outcome=\"session_replaced\"}",
            1,
        ),
        // Once by the administrator, once by Ann.
        ("doorward_authentications_total{outcome=\"ok\"}", 2),
        (
            "doorward_limit_refusals_total{limit=\"forgot_address\"}",
            1,
        ),
        (
            "doorward_http_requests_total{method=\"GET\",route=\"/v1/auth/me\",status=\"200\"}",
            1,
        ),
        (
            "doorward_http_requests_total{method=\"GET\",route=\"/v1/auth/me\",status=\"401\"}",
            2,
        ),
        (
            "doorward_http_requests_total{method=\"POST\",route=\"/v1/admin/users/:id/revoke\",status=\"200\"}",
            1,
        ),
        (
            "doorward_http_request_duration_seconds_count{method=\"GET\",route=\"/v1/auth/me\"}",
            3,
        ),
        // The request that reads this.
        ("doorward_http_requests_in_flight", 1),
        ("doorward_lookups_total", 4),
        ("doorward_lookups_per_batch_sum", 4),
        ("doorward_scrypt_waiting", 0),
        ("doorward_database_up", 1),
        // The administrator's.
        ("doorward_sessions_live", 1),
        ("doorward_outbox_waiting_letters", 0),
        ("doorward_store_errors_total{class=\"unavailable\"}", 0),
    ]);
    // Two accounts, four right passwords and a wrong one.
    let runs = shown.of("doorward_scrypt_runs_total");
    assert!((runs - 7.0).abs() < 1e-9, "{runs}");
    assert!((shown.of("doorward_scrypt_run_seconds_count") - runs).abs() < 1e-9);
    assert!(shown.of("doorward_audit_unsealed_records") > 0.0);
    assert!(shown.of("process_resident_memory_bytes") > 1e6);
    assert!(
        shown.0.contains("doorward_pool_connections{pool=") && shown.0.contains("state=\"idle\"}"),
        "{}",
        shown.0
    );
}

/// Paths, methods, addresses and headers that would make a time series for each client, or tell of one (ASVS 16.2.5).
async fn nothing_that_a_client_sends_becomes_a_label(database: Database) {
    let app = App::with(database, shown()).await;
    let client = app.user("marker-user@example.org").await;
    let brew = Method::from_bytes(b"MARKERBREW").expect("a method");
    for (method, path) in [
        (Method::GET, "/marker-path/%22%7D%0a"),
        (Method::GET, "/v1/auth/marker-below"),
        (Method::GET, "/v1/admin/users/marker-id?marker-query=1"),
        (Method::DELETE, "/v1/auth/sessions/marker-session"),
        (Method::PUT, "/v1/auth/me"),
        (brew.clone(), "/v1/auth/me"),
        (brew, "/marker-brewed"),
    ] {
        let _ = client.send(method, path, None).await;
    }
    let forged = client.with_token("marker-token");
    assert_eq!(forged.me().await.status, 401);
    let anonymous = app.anonymous();
    let refused = anonymous.try_log_in("marker@example.org", "marker-password");
    assert_eq!(refused.await.status, 401);
    let shown = Shown::by(&app.anonymous()).await;
    assert!(!shown.0.to_lowercase().contains("marker"), "{}", shown.0);
    let other = "doorward_http_requests_total{method=\"GET\",route=\"other\",status=\"404\"}";
    assert!(shown.of(other) >= 2.0);
    let strange = "doorward_http_requests_total{method=\"other\",route=\"other\",status=";
    assert!(shown.0.contains(strange), "{}", shown.0);
}

async fn the_canary_measures_this_node_and_its_peers(database: Database) {
    let mut app = App::with(database, asking(&[])).await;
    let peer = app.nodes[0].url.clone();
    app.add_node(&asking(std::slice::from_ref(&peer))).await;
    // Both make the account, at once.
    let releases = app.nodes.iter().map(|node| {
        let auth = node.auth.clone();
        async move { auth.release_canary().await }
    });
    race(releases.collect::<Vec<_>>()).await;
    let shown = Shown::by(&app.anonymous_on(1)).await;
    for peer in ["self", &peer] {
        let label = format!("{{peer=\"{peer}\"}}");
        shown.assert_all(&[
            (
                &format!("doorward_revocation_visible_seconds_count{label}"),
                1,
            ),
            (
                &format!("doorward_revocation_canary_accepted_total{label}"),
                0,
            ),
        ]);
    }
    assert_eq!(failures(&shown), 0, "{}", shown.0);
    // No revocation of anybody's, no session, no record, no user to be seen.
    shown.assert_all(&[("doorward_revocations_total{reason=\"revoked\"}", 0)]);
    let node = &app.nodes[1];
    node.auth.observe().await.expect("observed");
    Shown::by(&app.anonymous_on(1)).await.assert_all(&[
        ("doorward_sessions_live", 0),
        ("doorward_store_errors_total{class=\"refused\"}", 0),
    ]);
    let everybody = UserFilter {
        limit: 10,
        ..UserFilter::default()
    };
    let users = node.store.list_users(&everybody);
    assert_eq!(users.await.expect("listed"), []);
    let everything = AuditFilter {
        limit: 10,
        ..AuditFilter::default()
    };
    let records = node.store.list_audit(&everything);
    assert_eq!(records.await.expect("listed"), []);
    // Nothing is left of earlier rounds.
    app.clock.advance(Span::minutes(6));
    node.auth.release_canary().await;
    let later = app.now().plus(Span::secs(1));
    let left = node.store.forget_sessions(UserId::CANARY, later).await;
    assert_eq!(left.expect("removed"), 1, "the last one's alone");
    assert_problem!(
        app.anonymous()
            .try_log_in("canary@doorward.invalid", PASSWORD)
            .await,
        401,
        "bad_credentials"
    );
}

fn failures(shown: &Shown) -> u64 {
    let lines = shown.0.lines();
    let failed = lines.filter(|line| line.starts_with("doorward_revocation_canary_failures_total"));
    let counts = failed.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

/// Accepts whatever it is asked, so many times.
#[handler]
fn stubborn(Data(left): Data<&Arc<AtomicUsize>>) -> StatusCode {
    let before = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    before.map_or(StatusCode::UNAUTHORIZED, |_| StatusCode::OK)
}

async fn a_peer_that_goes_on_accepting_is_counted(database: Database) {
    use poem::EndpointExt;
    let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await;
    let acceptor = acceptor.expect("a free port");
    let address = acceptor.local_addr()[0].as_socket_addr().copied();
    let peer = format!("http://{}", address.expect("an address"));
    // Once while the session is open, as it should, and twice after.
    let app = stubborn.data(Arc::new(AtomicUsize::new(3)));
    let serving = tokio::spawn(Server::new_with_acceptor(acceptor).run(app));
    let app = App::with(database, asking(std::slice::from_ref(&peer))).await;
    app.nodes[0].auth.release_canary().await;
    let shown = Shown::by(&app.anonymous()).await;
    serving.abort();
    let accepted = |peer: &str| {
        shown.of(&format!(
            "doorward_revocation_canary_accepted_total{{peer=\"{peer}\"}}"
        ))
    };
    assert!((accepted(&peer) - 2.0).abs() < 1e-9, "{}", shown.0);
    assert!(accepted("self").abs() < 1e-9);
    let count = format!("doorward_revocation_visible_seconds_count{{peer=\"{peer}\"}}");
    shown.assert_all(&[(&count, 1)]);
}

async fn an_unreachable_peer_is_no_acceptance(database: Database) {
    let peer = "http://127.0.0.1:9".to_owned();
    let app = App::with(database, asking(std::slice::from_ref(&peer))).await;
    app.nodes[0].auth.release_canary().await;
    let shown = Shown::by(&app.anonymous()).await;
    shown.assert_all(&[
        (
            &format!("doorward_revocation_canary_failures_total{{peer=\"{peer}\",reason=\"unreachable\"}}"),
            1,
        ),
        (
            &format!("doorward_revocation_canary_accepted_total{{peer=\"{peer}\"}}"),
            0,
        ),
        (
            &format!("doorward_revocation_visible_seconds_count{{peer=\"{peer}\"}}"),
            0,
        ),
        ("doorward_revocation_visible_seconds_count{peer=\"self\"}", 1),
    ]);
}

async fn a_database_that_is_away_is_counted(database: Database) {
    let app = App::with(database, shown()).await;
    let node = &app.nodes[0];
    node.auth.observe().await.expect("observed");
    node.store.fail_at("take");
    let anonymous = app.anonymous();
    let refused = anonymous.try_log_in("ann@example.org", PASSWORD);
    assert_eq!(refused.await.status, 503);
    let shown = Shown::by(&app.anonymous()).await;
    shown.assert_all(&[
        ("doorward_store_errors_total{class=\"unavailable\"}", 1),
        ("doorward_logins_total{outcome=\"database_unavailable\"}", 1),
        ("doorward_database_up", 1),
    ]);
}

/// To count sessions the database reads all of them, so one with many is not asked again at once.
async fn what_takes_long_to_count_is_counted_seldom(database: Database) {
    let store = Arc::new(WatchedStore::new(database.open().await));
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_700_000_000_000)));
    let _node = Auth::builder(Arc::clone(&store) as _, (Setup::default().keys)())
        .clock(Arc::clone(&clock) as _)
        .observe_every(Span::millis(1))
        .build()
        .expect("valid policies");
    let counted = || store.calls_of("count_live_sessions");
    let asked_again = async |method| {
        let before = store.calls_of(method);
        until(method, async || store.calls_of(method) > before + 2).await;
    };
    // No time goes by while they are counted.
    asked_again("count_live_sessions").await;

    let gate = store.hold_before("count_live_sessions");
    gate.reached().await;
    let often = counted();
    clock.advance(Span::millis(50));
    gate.release();
    asked_again("waiting_letters").await;
    clock.advance(Span::millis(9_999));
    asked_again("waiting_letters").await;
    assert_eq!(
        counted(),
        often,
        "two hundred times as long has not gone by"
    );

    clock.advance(Span::millis(1));
    asked_again("count_live_sessions").await;
}

//! More clients than there is room for, and requests that panic.

use doorward::{
    audit::AuditPolicy,
    clock::Span,
    http::{ApiOptions, HttpSettings},
    store::Store,
};
use poem::{EndpointExt, Route, get, handler};
use serde_json::json;

use super::{Wire, listen, start, start_with};
use crate::{
    assert_problem,
    harness::{
        app::{PASSWORD, Setup},
        mailbox::Mailbox,
        until,
    },
};

/// Whether a connection to this node is served.
fn is_served(app: &crate::harness::app::App) -> Option<Wire> {
    let mut wire = Wire::to(app);
    wire.send("GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut first = [0; 1];
    let served = std::io::Read::read(&mut wire.0, &mut first).is_ok_and(|n| n == 1);
    served.then_some(wire)
}

/// ASVS 13.1.2.
#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_in_all_and_for_each_address() {
    let room_for_two = HttpSettings {
        max_connections: 2,
        ..HttpSettings::default()
    };
    let two_each = HttpSettings {
        max_connections_per_address: 2,
        ..HttpSettings::default()
    };
    let proxied = HttpSettings {
        trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")],
        ..two_each.clone()
    };
    for (http, bounded) in [(room_for_two, true), (two_each, true), (proxied, false)] {
        let app = start(http).await;
        let first = is_served(&app).expect("room");
        let _second = is_served(&app).expect("room");
        assert_eq!(is_served(&app).is_none(), bounded);
        drop(first);
        until("its place is free", async || is_served(&app).is_some()).await;
    }
}

/// ASVS 15.2.2.
#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_bound_are_503_at_once_and_the_node_is_alive() {
    let app = start_with(Setup {
        api: ApiOptions {
            max_in_flight: 1,
            ..ApiOptions::default()
        },
        ..Setup::default()
    })
    .await;
    let ann = app.user("ann@example.org").await;
    let gate = app.nodes[0].store.hold_before("open_sessions_of");
    let first = tokio::spawn({
        let ann = ann.clone();
        async move { ann.get("/v1/auth/sessions").await }
    });
    gate.reached().await;
    let before = app.nodes[0].store.calls();
    for refused in [
        ann.me().await,
        app.anonymous()
            .try_log_in("ann@example.org", PASSWORD)
            .await,
        app.anonymous().get("/health/ready").await,
    ] {
        assert_eq!(refused.header("retry-after"), Some("1"));
        assert_problem!(refused, 503, "overloaded");
    }
    assert_eq!(app.nodes[0].store.calls(), before, "nothing was looked up");
    for path in ["/health/live", "/health"] {
        app.anonymous().get(path).await.expect(200);
    }
    // Who sends a body slowly takes no place.
    gate.release();
    first.await.expect("no panic").expect(200);
    let mut slow = Wire::to(&app);
    slow.send("POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(slow.answer().status, 100, "it is being read");
    ann.me().await.expect(200);
}

#[handler]
fn boom() -> &'static str {
    panic!("hunter2 is a secret")
}

/// ASVS 16.5.1, 16.5.4.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_in_an_apps_own_handler_is_a_500_and_its_connection_goes_on() {
    let app = start(HttpSettings::default()).await;
    let (auth, options) = (&app.nodes[0].auth, ApiOptions::default());
    let routes = auth.mount(Route::new().at("/boom", get(boom)), &options);
    let routes = routes.with(auth.middleware(&options));
    let (address, serving) = listen(routes, &HttpSettings::default(), None).await;
    let mut wire = Wire::open(&address.to_string());
    for _ in 0..2 {
        let reply = wire.get("/boom");
        assert!(!reply.text.contains("hunter2"), "{}", reply.text);
        let id = reply.json()["request_id"].as_str().map(str::len);
        assert_eq!(id, Some(36));
        assert_problem!(reply, 500, "internal");
        assert_eq!(wire.get("/health/live").status, 200);
    }
    serving.abort();
}

/// ASVS 16.5.4: a panic ends no task that runs in the background.
#[tokio::test(flavor = "multi_thread")]
async fn what_runs_in_the_background_outlives_a_panic() {
    let mut setup = Setup {
        audit: AuditPolicy {
            seal_every: Span::secs(1),
            ..AuditPolicy::default()
        },
        ..Setup::default()
    };
    setup.sessions.last_seen_flush = Span::secs(1);
    let (mailbox, setup) = Mailbox::in_memory(setup);
    let app = start_with(setup).await;
    let store = &app.nodes[0].store;
    for method in ["claim_letters", "unsealed_audit", "note_seen"] {
        store.panic_at(method);
    }
    let ann = app.user("ann@example.org").await;
    let flushed = store.calls_of("note_seen");
    until("last seen was flushed again", async || {
        ann.me().await.expect(200);
        store.calls_of("note_seen") > flushed + 1
    })
    .await;
    until("what was recorded is sealed", async || {
        !store.sealed_audit(0, 1).await.expect("listed").is_empty()
    })
    .await;
    let body = json!({"email": "ann@example.org"});
    let asked = app.anonymous().post("/v1/auth/password/forgot", body).await;
    asked.expect(202);
    until("the letter is sent", async || {
        !mailbox.to(&app, "ann@example.org").await.is_empty()
    })
    .await;
}

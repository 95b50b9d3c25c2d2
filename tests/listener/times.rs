//! Clients that take their time.

use std::{io::Write, time::Instant};

use doorward::{
    http::{ApiOptions, HttpSettings},
    store::Store,
};
use serde_json::json;

use super::{NOT_BEFORE, SHORT, Wire, start, start_with};
use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, PASSWORD, Setup},
        backend::Database,
    },
};

for_each_store! {
    a_request_that_is_given_up_leaves_nothing_half_done,
}

fn short_heads() -> HttpSettings {
    HttpSettings {
        header_timeout: SHORT,
        ..HttpSettings::default()
    }
}

/// A client that sends half a head, a byte of it now and then, or nothing at all, is cut off; on a new connection
/// and on one that has served.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_come_is_not_waited_for() {
    let app = start(short_heads()).await;
    for (sent, drips) in [
        ("", false),
        ("GET / HTTP/1.1\r\nX-A: ", false),
        ("GET /", true),
    ] {
        for served_before in [false, true] {
            let mut wire = Wire::to(&app);
            if served_before {
                assert_eq!(wire.get("/health/live").status, 200);
            }
            // Between requests nothing is a head yet: that takes a byte.
            if sent.is_empty() && served_before {
                continue;
            }
            wire.send(sent);
            let begun = Instant::now();
            if drips {
                wire.drip();
            }
            assert!(wire.is_hung_up_on(), "{sent:?}");
            assert!(begun.elapsed() >= NOT_BEFORE, "{sent:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_in_is_408() {
    let app = start_with(Setup {
        api: ApiOptions {
            body_timeout: SHORT,
            ..ApiOptions::default()
        },
        ..Setup::default()
    })
    .await;
    let head = "POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n\r\n";
    for drips in [false, true] {
        let mut wire = Wire::to(&app);
        wire.send(head);
        if drips {
            wire.drip();
        }
        let reply = wire.answer();
        assert_eq!(reply.header("connection"), Some("close"));
        assert_problem!(reply, 408, "body_too_slow");
        assert!(wire.is_hung_up_on());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_is_cut_off() {
    let app = start(HttpSettings {
        write_timeout: SHORT,
        ..HttpSettings::default()
    })
    .await;
    let mut wire = Wire::to(&app);
    let request = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    // All buffers in between fill up, first with answers and then with requests that nobody reads.
    let cut = (0..10_000).find_map(|_| wire.0.write_all(request.as_bytes()).err());
    let cut = cut.expect("the server reads no further").kind();
    let hung_up = [
        std::io::ErrorKind::ConnectionReset,
        std::io::ErrorKind::BrokenPipe,
    ];
    assert!(hung_up.contains(&cut), "{cut:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_connection_is_closed_and_one_in_use_is_not() {
    let app = start(HttpSettings {
        idle_timeout: SHORT,
        ..HttpSettings::default()
    })
    .await;
    let mut wire = Wire::to(&app);
    assert_eq!(wire.get("/health/live").status, 200);
    let begun = Instant::now();
    assert!(wire.is_hung_up_on());
    assert!(begun.elapsed() >= NOT_BEFORE);

    // A request that takes longer is no idleness.
    let ann = app.user("ann@example.org").await;
    let gate = app.nodes[0].store.hold_before("live_sessions");
    let mut wire = Wire::to(&app);
    let token = ann.token();
    wire.send(&format!(
        "GET /v1/auth/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    ));
    gate.reached().await;
    tokio::time::sleep(2 * SHORT.to_duration()).await;
    gate.release();
    assert_eq!(wire.answer().status, 200);
}

fn impatient(http: HttpSettings) -> Setup {
    Setup {
        api: ApiOptions {
            request_timeout: http.request_timeout,
            ..ApiOptions::default()
        },
        http,
        ..Setup::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_too_long_is_503_and_its_connection_goes_on() {
    let app = start_with(impatient(HttpSettings {
        request_timeout: SHORT,
        ..HttpSettings::default()
    }))
    .await;
    let ann = app.user("ann@example.org").await;
    let gate = app.nodes[0].store.hold_before("open_sessions_of");
    let mut wire = Wire::to(&app);
    let token = ann.token();
    let ask = format!(
        "GET /v1/auth/sessions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    wire.send(&ask);
    gate.reached().await;
    let reply = wire.answer();
    assert_eq!(reply.header("retry-after"), Some("1"));
    let id = reply.header("x-request-id").map(str::to_owned);
    assert_eq!(reply.json()["request_id"].as_str(), id.as_deref());
    assert_problem!(reply, 503, "too_late");
    wire.send(&ask);
    assert_eq!(wire.answer().status, 200);
}

/// What is given up at any moment was done whole or not at all.
///
/// ASVS 2.3.3.
async fn a_request_that_is_given_up_leaves_nothing_half_done(database: Database) {
    let mut app = App::start(database).await;
    let given_up = impatient(HttpSettings::default());
    let mut late = 0;
    for millis in [1, 2, 4, 8] {
        let mut setup = given_up.clone();
        setup.api.request_timeout = doorward::clock::Span::millis(millis);
        let hasty = app.add_node(&setup).await;
        for n in 0..5 {
            let email = format!("ann{millis}x{n}@example.org");
            let client = app.anonymous_on(hasty);
            let body = json!({"email": email, "password": PASSWORD});
            let first = client.post("/v1/auth/register", body.clone()).await;
            late += usize::from(first.status == 503);
            // Whoever is told nothing asks again, elsewhere, and then it is done.
            let again = app.anonymous().post("/v1/auth/register", body).await;
            let expected: &[u16] = if first.status == 201 {
                &[409]
            } else {
                &[201, 409]
            };
            assert!(expected.contains(&again.status), "{}", again.text);
            let login = client.try_log_in(&email, PASSWORD).await;
            late += usize::from(login.status == 503);
            let session = app.log_in(&email).await;
            let user = session.me().await.expect(200)["id"].clone();
            let user = user.as_str().expect("an id").parse().expect("an id");
            let open = app.nodes[0].store.open_sessions_of(user).await;
            assert_eq!(open.expect("listed").len(), 1);
        }
    }
    assert!(late > 0, "nothing was given up");
}

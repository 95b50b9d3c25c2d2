//! A node that is told to stop.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use doorward::{
    http::{ApiOptions, HttpSettings},
    server::listener::Listener,
};
use rustix::process::Signal;
use tokio::sync::oneshot;

use super::{Wire, start};
use crate::{
    harness::PATIENCE,
    program::{KEY, Place},
};

/// A connection that waits for its next request is closed at once; one whose request runs gets its answer, with
/// the word that it is the last.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_idle_is_closed_and_what_runs_is_answered() {
    let app = start(HttpSettings::default()).await;
    let ann = app.user("ann@example.org").await;
    let listener = Listener::bind(("", "127.0.0.1:0"), &HttpSettings::default(), None).await;
    let listener = listener.expect("a free port");
    let address = listener.address().to_string();
    let (stop, told) = oneshot::channel();
    let routes = app.nodes[0].auth.routes(&ApiOptions::default());
    let told = async { told.await.unwrap_or_default() };
    let serving = tokio::spawn(listener.serve(routes, told, PATIENCE));

    let mut idle = Wire::open(&address);
    assert_eq!(idle.get("/health/live").status, 200);
    let mut fresh = Wire::open(&address);
    let gate = app.nodes[0].store.hold_before("live_sessions");
    let mut running = Wire::open(&address);
    let token = ann.token();
    running.send(&format!(
        "GET /v1/auth/me HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    ));
    gate.reached().await;
    let begun = Instant::now();
    stop.send(()).expect("it listens");
    assert!(idle.is_hung_up_on() && fresh.is_hung_up_on());
    assert!(begun.elapsed() < Duration::from_secs(5), "at once");
    assert!(
        std::net::TcpStream::connect(&address).is_err(),
        "nobody listens"
    );
    gate.release();
    let answer = running.answer();
    assert_eq!(
        (answer.status, answer.header("connection")),
        (200, Some("close"))
    );
    serving.await.expect("it ends by itself");
}

/// Told to stop, it says that it is not ready and serves on, until its time is over.
#[test]
fn a_draining_server_is_not_ready_and_serves_on() {
    let place = Place::new();
    let mut server = place.serve(&[
        ("DOORWARD__ENVIRONMENT", "test"),
        ("DOORWARD__TOKENS__KEY", KEY),
        ("DOORWARD__DATABASE__AUTO_MIGRATE", "true"),
        ("DOORWARD__HTTP__DRAIN", "2s"),
    ]);
    let mut wire = Wire::open(&server.address);
    assert_eq!(wire.get("/health/ready").status, 200);
    server.signal(Signal::TERM);
    server.logs("not ready any more");
    let mut late = Wire::open(&server.address);
    let reply = late.get("/health/ready");
    assert_eq!(reply.problem(), (503, "stopping".to_owned()));
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert_eq!(wire.get("/.well-known/jwks.json").status, 200);
    let (gone, ended) = mpsc::channel();
    std::thread::spawn(move || gone.send(server.wait()));
    assert_eq!(ended.recv_timeout(PATIENCE), Ok(Some(0)));
    assert!(wire.is_hung_up_on());
}

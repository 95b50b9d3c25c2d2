//! The API under attack and under its own documentation. Hardly any of it depends on the database, so it
//! runs on SQLite alone; only `outbox_admin` runs on all.

mod breaches;
mod browsers;
mod compat;
mod embedding;
mod headers;
mod http_hygiene;
mod mail_pages;
mod oauth;
mod openapi;
mod outbox_admin;
mod parameters;
mod password_strength;
mod raw;
mod request_bodies;
mod texts;
mod token_attacks;
mod token_forge;
mod token_rotation;
mod transport;
mod ways_in;

use doorward::clock::{Clock, SystemClock};

use crate::harness::{
    app::{App, Reply, Setup},
    backend::{Backend, Database},
};

async fn sqlite() -> Database {
    Database::fresh(Backend::Sqlite).await
}

async fn start() -> App {
    App::start(sqlite().await).await
}

/// As [`start`], with a clock that agrees with the database's, for nodes that are to be ready.
async fn start_today() -> App {
    start_with(Setup {
        start: SystemClock::new().now(),
        ..Setup::default()
    })
    .await
}

async fn start_with(setup: Setup) -> App {
    App::with(sqlite().await, setup).await
}

/// What every answer carries, whatever it says (ASVS 3.2.1, 3.4.3, 3.4.5, 3.4.6, 3.5.8, 13.4.6).
#[track_caller]
fn assert_sound(what: &str, reply: &Reply) {
    let header = |name: &str| {
        let mut all = reply.headers.get_all(name).iter();
        let value = all.next().map(|v| v.to_str().expect("text").to_owned());
        assert!(all.next().is_none(), "{what}: `{name}` stands twice");
        value.unwrap_or_else(|| panic!("{what}: `{name}` is missing"))
    };
    let policy = header("content-security-policy");
    for directive in [
        "default-src 'none'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(directive), "{what}: {directive}: {policy}");
    }
    assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
    assert_eq!(header("referrer-policy"), "no-referrer", "{what}");
    for name in ["cross-origin-resource-policy", "cross-origin-opener-policy"] {
        assert_eq!(header(name), "same-origin", "{what}");
    }
    assert!(header("permissions-policy").contains("camera=()"), "{what}");
    assert!(!header("x-request-id").is_empty(), "{what}");
    for absent in [
        "server",
        "x-powered-by",
        "set-cookie",
        "x-evil",
        "access-control-allow-origin",
        "access-control-allow-credentials",
    ] {
        assert_eq!(reply.header(absent), None, "{what}: {absent}");
    }
}

/// A whole problem of this kind, with everything that belongs to one (RFC 9457; ASVS 4.1.1, 14.2.2,
/// 16.5.1).
#[track_caller]
fn assert_refused(what: &str, reply: &Reply, status: u16, code: &str) {
    assert_eq!(
        reply.problem(),
        (status, code.to_owned()),
        "{what}: {}",
        reply.text
    );
    assert_sound(what, reply);
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{what}");
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json"),
        "{what}"
    );
    let body = reply.json();
    assert_eq!(body["status"], status, "{what}");
    assert_eq!(body["type"], "about:blank", "{what}");
    assert_eq!(
        body["request_id"].as_str(),
        reply.header("x-request-id"),
        "{what}"
    );
    for text in ["title", "detail"] {
        assert!(body[text].as_str().is_some_and(|t| !t.is_empty()), "{what}");
    }
    assert_eq!(
        reply.header("www-authenticate").is_some(),
        status == 401,
        "{what}: a challenge with 401, and only then"
    );
}

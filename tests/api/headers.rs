//! The headers of every answer that the API gives, whatever it says, and requests that proxies and servers might
//! take for different ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use doorward::http::ApiOptions;
use reqwest::Method;
use serde_json::json;

use super::{
    assert_sound,
    http_hygiene::SOME_ID,
    openapi::{Operation, document, with_odd_bodies},
    start, start_with,
};
use crate::harness::{
    app::{App, Client, PASSWORD, Reply, Setup, fresh_email},
    browser::form_body,
};

/// A server that is reached over TLS, and that pages of one other site may use.
async fn public() -> App {
    start_with(Setup {
        api: ApiOptions {
            public_url: "https://auth.example.org".to_owned(),
            allowed_origins: vec!["https://app.example.org".to_owned()],
            compat: Some("/other".to_owned()),
            ..ApiOptions::default()
        },
        ..Setup::default()
    })
    .await
}

/// What was answered, by status, with what was asked.
type Seen = BTreeMap<u16, Vec<(String, Reply)>>;

fn note(seen: &mut Seen, what: &str, reply: Reply) {
    let what = format!("{what}: {}", reply.status);
    seen.entry(reply.status).or_default().push((what, reply));
}

/// Provokes every operation, as nobody, as an administrator, with bodies of all kinds, and while it fails.
async fn every_operation(app: &App) -> Seen {
    let mut seen = Seen::new();
    let document = document();
    for operation in Operation::all(&document) {
        let name = operation.name().to_owned();
        let root = app.admin(&fresh_email()).await;
        let example = operation.example(&document);
        let nobody = app.anonymous();
        let asked = [
            operation.call(&nobody, SOME_ID, example.clone()).await,
            operation.call(&root, "x", Some(json!({}))).await,
            operation.call(&root, SOME_ID, Some(json!({"x": 1}))).await,
            operation.call(&root, SOME_ID, example).await,
        ];
        for reply in asked
            .into_iter()
            .chain(with_odd_bodies(&operation, app).await)
        {
            note(&mut seen, &name, reply);
        }
        if operation.is_protected() && !name.contains("logout") {
            let root = app.admin(&fresh_email()).await;
            app.nodes[0].store.panic_at("live_sessions");
            let reply = operation.call(&root, SOME_ID, None).await;
            note(&mut seen, &name, reply);
        }
        let path = operation.path.replace("{id}", SOME_ID);
        for method in [Method::TRACE, Method::OPTIONS, Method::HEAD] {
            let reply = nobody.send(method.clone(), &path, None).await;
            note(&mut seen, &format!("{method} {path}"), reply);
        }
    }
    seen
}

/// What is not in the API document: pages, documents, other services' paths, nothing at all.
async fn everything_else(app: &App, seen: &mut Seen) {
    let guest = app.anonymous();
    for path in [
        "/login",
        "/verify-email",
        "/confirm-registration",
        "/forgot-password",
        "/reset-password",
        "/set-password",
        "/confirm-email",
        "/not-me",
        "/docs",
        "/redoc",
        "/scalar",
        "/openapi.json",
        "/other/protected",
        "/other/auth/verify-email",
        "/nowhere",
        "/v1/auth/me/x.css",
        "/v1/auth/check?redirect=https://app.example.org/",
    ] {
        note(seen, path, guest.get(path).await);
        note(seen, path, guest.post(path, json!({})).await);
    }
    for path in ["/login", "/reset-password", "/forgot-password"] {
        let request = guest.http.post(format!("{}{path}", guest.url));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let fields = [
            ("email", "ann@example.org"),
            ("code", "000000"),
            ("password", PASSWORD),
        ];
        let request = request.body(form_body(&fields));
        let reply = Reply::of(request.send().await.expect("an answer")).await;
        note(seen, path, reply);
    }
    let short = json!({"email": fresh_email(), "password": "short"});
    note(
        seen,
        "register",
        guest.post("/v1/auth/register", short).await,
    );
}

/// ASVS 3.2.1, 3.4.1, 3.4.3, 3.4.4, 3.4.5, 3.4.6, 3.4.8, 3.5.8, 4.1.1, 13.4.6, 14.2.2: on every route, and with
/// every status.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_carries_every_header() {
    let app = public().await;
    let mut seen = every_operation(&app).await;
    everything_else(&app, &mut seen).await;
    for table in ["sessions", "users", "one_time_secrets"] {
        app.database.sql(&format!("DROP TABLE {table}")).await;
    }
    let login = json!({"email": "ann@example.org", "password": PASSWORD});
    note(
        &mut seen,
        "no table",
        app.anonymous().post("/v1/auth/login", login).await,
    );
    let statuses: BTreeSet<u16> = seen.keys().copied().collect();
    for status in [
        200, 201, 204, 400, 401, 403, 404, 405, 409, 413, 415, 422, 500, 503,
    ] {
        assert!(
            statuses.contains(&status),
            "{status} was never provoked: {statuses:?}"
        );
    }
    for (what, reply) in seen.values().flatten() {
        assert_whole(what, reply);
    }
}

#[track_caller]
fn assert_whole(what: &str, reply: &Reply) {
    let is_head = what.starts_with("HEAD ");
    let header = |name: &str| reply.header(name).unwrap_or_default();
    assert_eq!(
        header("strict-transport-security"),
        "max-age=31536000; includeSubDomains",
        "{what}"
    );
    let varies = reply.headers.get_all("vary");
    assert!(varies.iter().any(|name| name == "Origin"), "{what}");
    let policy = header("content-security-policy");
    let kind = header("content-type");
    match kind {
        "application/json" | "application/problem+json" => {
            assert_sound(what, reply);
            assert!(policy.ends_with("; sandbox"), "{what}: {policy}");
            if !is_head {
                serde_json::from_str::<serde_json::Value>(&reply.text).expect(what);
            }
        }
        "application/x-ndjson" => {
            assert_sound(what, reply);
            assert!(policy.ends_with("; sandbox"), "{what}: {policy}");
            for line in reply.text.lines() {
                serde_json::from_str::<serde_json::Value>(line).expect(what);
            }
        }
        "text/html; charset=utf-8" => {
            assert_page(what, reply);
            let begins = reply.text.trim_start();
            assert!(is_head || begins.starts_with('<'), "{what}");
        }
        "" => {
            assert_sound(what, reply);
            assert_eq!(reply.text, "", "{what}");
            assert!(policy.ends_with("; sandbox"), "{what}: {policy}");
        }
        other => panic!("{what}: {other}"),
    }
    assert!(reply.status != 204 || kind.is_empty(), "{what}");
    let may_be_kept = ["/docs", "/redoc", "/scalar", "/openapi.json", "jwks"];
    let is_kept = reply.status == 200 && may_be_kept.iter().any(|name| what.contains(name));
    let expected = if is_kept {
        "public, max-age=300"
    } else {
        "no-store"
    };
    assert_eq!(header("cache-control"), expected, "{what}");
}

/// A page may send its own form, and that for logging in says where it came from.
#[track_caller]
fn assert_page(what: &str, reply: &Reply) {
    let header = |name: &str| reply.header(name).unwrap_or_default();
    let policy = header("content-security-policy");
    for directive in [
        "default-src 'none'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action '",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(directive), "{what}: {directive}: {policy}");
    }
    assert_eq!(header("x-content-type-options"), "nosniff", "{what}");
    for name in ["cross-origin-resource-policy", "cross-origin-opener-policy"] {
        assert_eq!(header(name), "same-origin", "{what}");
    }
    let referrer = header("referrer-policy");
    assert!(["no-referrer", "same-origin"].contains(&referrer), "{what}");
    assert!(!header("x-request-id").is_empty(), "{what}");
    assert_eq!(
        (header("server"), header("x-powered-by")),
        ("", ""),
        "{what}"
    );
}

/// ASVS 3.5.6: data is JSON and nothing that a page of another site could run.
#[tokio::test(flavor = "multi_thread")]
async fn there_is_no_jsonp() {
    let app = start().await;
    let ann = app.user("ann@example.org").await;
    for name in ["callback", "jsonp", "cb", "_callback"] {
        let reply = ann.get(&format!("/v1/auth/me?{name}=steal")).await;
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert!(
            reply.text.starts_with('{') && !reply.text.contains("steal"),
            "{name}"
        );
    }
}

/// ASVS 14.2.1: a token in a URL is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_query_is_not_looked_at() {
    let app = start().await;
    let ann = app.user("ann@example.org").await;
    let guest = Client::anonymous(&ann.url);
    for name in ["access_token", "token", "authorization", "jwt"] {
        let reply = guest
            .get(&format!("/v1/auth/me?{name}={}", ann.token()))
            .await;
        assert_eq!(
            reply.problem(),
            (401, "unauthenticated".to_owned()),
            "{name}"
        );
    }
}

/// All that comes over a connection on which the client says nothing more.
fn answers(url: &str, request: &str) -> String {
    let address = url.strip_prefix("http://").expect("a plain URL");
    let mut stream = TcpStream::connect(address).expect("connected");
    // Only a server that waits for more, as it may, is waited for so long.
    let limit = Some(Duration::from_millis(500));
    stream.set_read_timeout(limit).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("written");
    let (mut all, mut chunk) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        all.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8(all).expect("text")
}

/// ASVS 4.2.1: what stands in a body is never taken for a request of its own.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_smuggled_in_another() {
    let app = start().await;
    let url = app.nodes[0].url.clone();
    let two = "GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2);
    let said = answers(&url, &two);
    assert_eq!(
        said.matches("HTTP/1.1 200").count(),
        2,
        "two are two: {said}"
    );
    let hidden = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let body = format!("0\r\n\r\n{hidden}");
    let length = body.len();
    let head = |headers: &str| {
        let login = "POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
        format!("{login}{headers}\r\n{body}")
    };
    for headers in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: 5\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: 5, {length}\r\n"),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        format!("Transfer-Encoding : chunked\r\nContent-Length: {length}\r\n"),
        format!("X-Folded: a\r\n Content-Length: 5\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: +{length}\r\n"),
        format!("Content-Length: {length}\r\nTransfer-Encoding:\u{b}chunked\r\n"),
    ] {
        let said = answers(&url, &head(&headers));
        let count = said.matches("HTTP/1.1 ").count();
        assert!(count <= 1, "{headers:?}: {said}");
        assert!(!said.starts_with("HTTP/1.1 2"), "{headers:?}: {said}");
    }
}

//! Requests and answers as HTTP carries them: of what type, at which address, and where one ends.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use doorward::http::ApiOptions;
use reqwest::Method;
use serde_json::json;

use super::{http_hygiene::paths, start, start_with};
use crate::harness::{
    PATIENCE,
    app::{Client, Reply, Setup},
};

/// Fails unless the type of an answer is that of its body.
#[track_caller]
fn assert_typed(what: &str, reply: &Reply) {
    let is_json = || serde_json::from_str::<serde_json::Value>(&reply.text).is_ok();
    match reply.header("content-type") {
        None => assert_eq!(reply.text, "", "{what}"),
        Some(kind) if kind.starts_with("application/json") => assert!(is_json(), "{what}"),
        Some("application/problem+json") => {
            assert!(is_json() && reply.status >= 400, "{what}: {}", reply.text);
        }
        Some("text/html; charset=utf-8") => {
            let page = reply.text.trim_start().to_ascii_lowercase();
            let begins = page.starts_with("<!doctype html") || page.starts_with("<html");
            assert!(begins, "{what}: {}", reply.text);
        }
        Some(other) => panic!("{what}: {other}"),
    }
    assert_eq!(
        reply.text.is_empty(),
        reply.status == 204,
        "{what}: nothing but nothing is 204"
    );
}

/// ASVS 4.1.1.
#[tokio::test(flavor = "multi_thread")]
async fn each_answer_is_of_the_type_that_it_says() {
    let app = start().await;
    let root = app.admin("root@example.org").await;
    for (path, _) in paths() {
        for method in [Method::GET, Method::PUT, Method::PATCH] {
            for client in [&app.anonymous(), &root] {
                let what = format!("{method} {path}");
                let reply = client.send(method.clone(), &path, None).await;
                assert_typed(&what, &reply);
            }
        }
        let posted = app.anonymous().post(&path, json!({})).await;
        assert_typed(&format!("POST {path}"), &posted);
    }
    for path in ["/nowhere", "/v1/auth/me/x.css"] {
        assert_typed(path, &root.get(path).await);
    }
    let logout = root.call("/v1/auth/logout").await;
    assert_typed("logout", &logout);
    assert_eq!(logout.status, 204);
}

/// ASVS 4.1.2: who sends a token over plain http is to notice, and not to be led on.
#[tokio::test(flavor = "multi_thread")]
async fn plain_http_is_not_led_to_https() {
    let app = start_with(Setup {
        api: ApiOptions {
            public_url: "https://auth.example.org".to_owned(),
            trusted_proxies: vec!["127.0.0.0/8".parse().expect("a net")],
            ..ApiOptions::default()
        },
        ..Setup::default()
    })
    .await;
    let Client { http, url, .. } = app.anonymous();
    for (path, _) in paths() {
        for method in [Method::GET, Method::POST] {
            let request = http.request(method.clone(), format!("{url}{path}"));
            let request = request.header("x-forwarded-proto", "http");
            let reply = Reply::of(request.send().await.expect("an answer")).await;
            assert!(
                !(300..400).contains(&reply.status),
                "{method} {path}: {}",
                reply.status
            );
            assert_eq!(reply.header("location"), None, "{method} {path}");
        }
    }
}

/// The statuses of all answers to these bytes. What follows them asks the server to hang up.
fn statuses(url: &str, bytes: &str) -> Vec<String> {
    let address = url.strip_prefix("http://").expect("a plain URL");
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let last = "GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    // It may hang up with bytes unread, which resets the connection; what came before that counts.
    let _ = stream.write_all(format!("{bytes}{last}").as_bytes());
    let (mut answers, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(n @ 1..) = stream.read(&mut part) {
        answers.extend_from_slice(&part[..n]);
    }
    let answers = String::from_utf8_lossy(&answers);
    let heads = answers.split("HTTP/1.1 ").skip(1);
    heads
        .map(|head| head.get(..3).unwrap_or_default().to_owned())
        .collect()
}

const HIDDEN: &str = "GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n";

fn posted(headers: &str, body: &str) -> String {
    format!(
        "POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}\r\n{body}"
    )
}

/// ASVS 4.2.1: two servers in a row must not disagree about where a request ends.
#[tokio::test(flavor = "multi_thread")]
async fn no_request_hides_in_another() {
    let app = start().await;
    let url = app.anonymous().url;
    let length = |n: usize| format!("Content-Length: {n}\r\n");
    let chunked = "Transfer-Encoding: chunked\r\n";
    let both = format!("0\r\n\r\n{HIDDEN}");
    assert_eq!(
        statuses(&url, &posted(&length(2), "{}")),
        ["400", "200"],
        "two requests are two"
    );
    for (what, headers) in [
        ("length, then chunked", length(both.len()) + chunked),
        (
            "chunked, then length",
            chunked.to_owned() + &length(both.len()),
        ),
    ] {
        let answers = statuses(&url, &posted(&headers, &both));
        assert_eq!(answers.len(), 1, "{what}: {answers:?}");
    }
    for (what, headers) in [
        ("two lengths", length(0) + &length(both.len())),
        ("a list of lengths", "Content-Length: 0, 5\r\n".to_owned()),
        ("a signed length", "Content-Length: +5\r\n".to_owned()),
        (
            "an unknown encoding",
            "Transfer-Encoding: xchunked\r\n".to_owned(),
        ),
        (
            "chunked, but not last",
            "Transfer-Encoding: chunked, x\r\n".to_owned(),
        ),
        (
            "a folded line",
            "X-A: 1\r\n Content-Length: 5\r\n".to_owned(),
        ),
        (
            "a space before the colon",
            "Content-Length : 5\r\n".to_owned(),
        ),
    ] {
        let answers = statuses(&url, &posted(&headers, &both));
        assert_eq!(answers, ["400"], "{what}");
    }
}

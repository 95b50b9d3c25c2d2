//! Answers as HTTP carries them: of what type, and at which address.

use doorward::http::ApiOptions;
use reqwest::Method;
use serde_json::{Value, json};

use super::{http_hygiene::paths, start, start_with};
use crate::harness::app::{Client, Reply, Setup};

/// Fails unless the type of an answer is that of its body.
#[track_caller]
fn assert_typed(what: &str, reply: &Reply) {
    let is_json = || serde_json::from_str::<Value>(&reply.text).is_ok();
    match reply.header("content-type") {
        None => assert_eq!(reply.text, "", "{what}"),
        Some(kind) if kind.starts_with("application/json") => assert!(is_json(), "{what}"),
        Some("application/problem+json") => {
            assert!(is_json() && reply.status >= 400, "{what}: {}", reply.text);
        }
        Some("application/x-ndjson") => {
            let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok();
            assert!(reply.text.lines().all(is_json), "{what}: {}", reply.text);
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

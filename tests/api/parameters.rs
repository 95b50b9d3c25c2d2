//! Values in paths and queries.

use doorward::http::ApiOptions;
use reqwest::Method;

use super::{
    assert_refused, assert_sound, http_hygiene::SOME_ID, raw::exchange, start, start_with,
};
use crate::harness::app::{Client, Setup};

/// Sends a path as it is; a client library would tidy it.
fn send(client: &Client, method: &Method, path: &str) -> crate::harness::app::Reply {
    let token = client.token();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    exchange(&client.url, request.as_bytes())
}

/// ASVS 1.4.2, 1.5.2, 2.2.1.
#[tokio::test(flavor = "multi_thread")]
async fn query_parameters_take_what_is_documented() {
    let app = start().await;
    let root = app.admin("root@example.org").await;
    for query in [
        "limit=abc",
        "limit=-1",
        "limit=1.5",
        "limit=99999999999999999999",
        "limit=0x10",
        "limit=",
        "limit=%00",
        "status=nope",
        "status=ACTIVE",
        "status[$ne]=active&status=nope",
        "cursor=nope",
        "cursor=1",
        "cursor=%0d%0aX-Evil:%201",
    ] {
        let reply = send(&root, &Method::GET, &format!("/v1/admin/users?{query}"));
        assert_refused(query, &reply, 400, "wrong_parameter");
    }
    for query in ["limit=0", "limit=201", "limit=4294967295"] {
        let reply = root.get(&format!("/v1/admin/users?{query}")).await;
        assert_refused(query, &reply, 422, "invalid_input");
    }
    let long = root
        .get(&format!("/v1/admin/users?q={}", "x".repeat(255)))
        .await;
    assert_refused("a long q", &long, 422, "invalid_input");
    for scope in ["nope", "THIS", "this%20", "%00", "all,others"] {
        let path = format!("/v1/auth/logout?scope={scope}");
        let reply = send(&root, &Method::POST, &path);
        assert_refused(scope, &reply, 400, "wrong_parameter");
    }
    root.me().await.expect(200);
}

/// ASVS 15.3.7: a parameter that stands twice has no value.
#[tokio::test(flavor = "multi_thread")]
async fn repeated_parameters_are_refused() {
    let app = start().await;
    let root = app.admin("root@example.org").await;
    for query in [
        "limit=1&limit=2",
        "limit=1&limit=1",
        "q=a&role=b&q=c",
        "status=active&%73tatus=deactivated",
        "role=admin&role=",
    ] {
        let reply = send(&root, &Method::GET, &format!("/v1/admin/users?{query}"));
        assert_refused(query, &reply, 400, "ambiguous_parameter");
    }
    let reply = root.call("/v1/auth/logout?scope=this&scope=all").await;
    assert_refused("scope", &reply, 400, "ambiguous_parameter");
    root.me().await.expect(200);
}

/// A parameter that is not documented changes nothing, and never is an error of the server.
#[tokio::test(flavor = "multi_thread")]
async fn odd_queries_fail_softly() {
    let app = start().await;
    let root = app.admin("root@example.org").await;
    for query in [
        "",
        "&&&",
        "=",
        "a",
        "%",
        "%zz",
        "%ff=%fe",
        "q=%ff",
        "q[$ne]=",
        "_method=DELETE",
        "role=%00",
        "q=%0d%0aX-Evil:%201",
    ] {
        let reply = send(&root, &Method::GET, &format!("/v1/admin/users?{query}"));
        assert!(
            [200, 400, 422].contains(&reply.status),
            "{query}: {}",
            reply.text
        );
        assert_sound(query, &reply);
    }
}

/// ASVS 1.2.4, 16.5.1: an id that is none names nothing.
#[tokio::test(flavor = "multi_thread")]
async fn path_parameters_that_are_no_ids_are_not_found() {
    let app = start().await;
    let root = app.admin("root@example.org").await;
    let ids = [
        "x",
        "0",
        "-1",
        "null",
        "me",
        "00000000-0000-0000-0000-000000000000",
        SOME_ID,
        "0196f3a8-7c1d-7b3e-9a54-2f6d1c8b0e7",
        "0196f3a8-7c1d-7b3e-9a54-2f6d1c8b0e777",
        "'%20OR%201=1--",
        "%7B%22$ne%22:null%7D",
        "..%2f..%2fhealth",
        "%00",
        "%ff",
        "%",
        "%0d%0aX-Evil:%201",
        "*",
    ];
    for id in ids {
        for (method, path) in [
            (Method::GET, format!("/v1/admin/users/{id}")),
            (Method::POST, format!("/v1/admin/users/{id}/deactivate")),
            (Method::GET, format!("/v1/admin/users/{id}/sessions")),
            (Method::POST, format!("/v1/admin/sessions/{id}/revoke")),
            (Method::DELETE, format!("/v1/auth/sessions/{id}")),
        ] {
            let reply = send(&root, &method, &path);
            assert_refused(&format!("{method} {path}"), &reply, 404, "not_found");
            assert!(!reply.text.contains("X-Evil"), "{path}: {}", reply.text);
        }
    }
    root.me().await.expect(200);
}

/// ASVS 13.4.5, 13.4.6: in production the documents and the version are not here.
#[tokio::test(flavor = "multi_thread")]
async fn without_documents_there_are_no_documents() {
    let app = start_with(Setup {
        api: ApiOptions {
            docs: false,
            ..ApiOptions::default()
        },
        ..Setup::default()
    })
    .await;
    for path in ["/docs", "/redoc", "/scalar", "/openapi.json", "/version"] {
        let reply = app.anonymous().get(path).await;
        assert_refused(path, &reply, 404, "not_found");
    }
    let welcome = app.anonymous().get("/").await.expect(200);
    assert_eq!(welcome["docs"], serde_json::Value::Null);
    assert!(!welcome.to_string().contains(env!("CARGO_PKG_VERSION")));
}

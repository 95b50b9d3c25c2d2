//! What every answer carries, whom the server believes, and which paths and methods there are.

use doorward::{http::ApiOptions, passwords::PasswordPolicy};
use reqwest::{Method, header::AUTHORIZATION};
use serde_json::{Value, json};

use super::{assert_refused, assert_sound, raw::exchange, start, start_today, start_with};
use crate::harness::app::{App, Client, PASSWORD, Reply, Setup};

pub(super) const SOME_ID: &str = "0196f3a8-7c1d-7b3e-9a54-2f6d1c8b0e77";

/// Every documented path with its methods, and those that the documents themselves are served at.
pub(super) fn paths() -> Vec<(String, Vec<String>)> {
    let document: Value =
        serde_json::from_str(&doorward::http::openapi_document("http://localhost")).expect("JSON");
    let documented = document["paths"].as_object().expect("paths").iter();
    let mut paths: Vec<(String, Vec<String>)> = documented
        .map(|(path, operations)| {
            let methods = operations.as_object().expect("operations").keys();
            (
                path.replace("{id}", SOME_ID),
                methods.map(|method| method.to_uppercase()).collect(),
            )
        })
        .collect();
    for page in [
        "/openapi.json",
        "/docs",
        "/redoc",
        "/scalar",
        "/set-password",
    ] {
        paths.push((page.to_owned(), vec!["GET".to_owned()]));
    }
    for (_, methods) in &mut paths {
        if methods.iter().any(|method| method == "GET") {
            methods.push("HEAD".to_owned());
        }
        methods.sort();
    }
    // Its own question is asked with the method of the request that it is about.
    paths.retain(|(path, _)| path != "/v1/auth/check");
    assert!(paths.len() > 20);
    paths
}

fn method(name: &str) -> Method {
    Method::from_bytes(name.as_bytes()).expect("a method")
}

/// ASVS 3.2.1, 3.4.3, 3.4.4, 3.4.5, 3.4.6, 4.1.4, 13.4.4.
#[tokio::test(flavor = "multi_thread")]
async fn each_path_takes_its_methods_and_names_them() {
    let app = start().await;
    let anonymous = app.anonymous();
    for (path, allowed) in paths() {
        for name in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO", "get",
        ] {
            let what = format!("{name} {path}");
            let reply = anonymous.send(method(name), &path, None).await;
            if allowed.iter().any(|known| known == name) {
                assert_ne!(reply.status, 405, "{what}");
                assert_sound(&what, &reply);
                continue;
            }
            if name == "HEAD" {
                assert_eq!((reply.status, reply.text.as_str()), (405, ""), "{what}");
            } else {
                assert_refused(&what, &reply, 405, "method_not_allowed");
            }
            let mut said: Vec<&str> = reply.header("allow").expect("Allow").split(", ").collect();
            said.sort_unstable();
            assert_eq!(said, allowed, "{what}");
        }
    }
}

/// ASVS 4.1.4: the method is the method.
#[tokio::test(flavor = "multi_thread")]
async fn no_header_or_parameter_overrides_the_method() {
    let app = start().await;
    let ann = app.user("ann@example.org").await;
    for name in [
        "x-http-method-override",
        "x-http-method",
        "x-method-override",
    ] {
        let at = |m: Method, path: &str| {
            let request = ann.http.request(m, format!("{}{path}", ann.url));
            request.bearer_auth(ann.token())
        };
        let read = at(Method::GET, "/v1/auth/me").header(name, "PATCH");
        assert_eq!(
            read.send().await.expect("an answer").status(),
            200,
            "{name}"
        );
        let posted = at(Method::POST, "/v1/auth/me?_method=GET").header(name, "GET");
        let reply = Reply::of(posted.send().await.expect("an answer")).await;
        assert_refused(name, &reply, 405, "method_not_allowed");
        let path = format!("/v1/auth/sessions/{}", ann.session_id().await);
        let posted = at(Method::POST, &path).header(name, "DELETE");
        let reply = Reply::of(posted.send().await.expect("an answer")).await;
        assert_refused(name, &reply, 405, "method_not_allowed");
    }
    ann.me().await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn head_answers_as_get_without_a_body() {
    let app = start().await;
    let ann = app.user("ann@example.org").await;
    for (path, allowed) in paths() {
        if !allowed.iter().any(|known| known == "GET") {
            continue;
        }
        let head = format!(
            "HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            ann.token()
        );
        let headed = exchange(&ann.url, head.as_bytes());
        let got = ann.get(&path).await;
        assert_eq!(headed.status, got.status, "{path}");
        assert_eq!(headed.text, "", "{path}");
        assert_sound(&path, &headed);
    }
}

/// ASVS 13.4.1, 13.4.2, 13.4.3, 14.2.5: there is nothing beside the paths, whatever a cache would make of it.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_paths_are_not_found() {
    let app = start().await;
    let ann = app.user("ann@example.org").await;
    let paths = [
        "/v1/auth/me/x.css",
        "/v1/auth/me/",
        "/v1/auth/me;.js",
        "/v1/auth/me.json",
        "/v1/auth/me%2fa.png",
        "/v1/auth/me%3Fa.png",
        "/v1/auth/me%00.css",
        "/v1/auth/me%0a",
        "/v1/auth//me",
        "//v1/auth/me",
        "/v1/auth/%6De",
        "/V1/auth/me",
        "/v1/auth",
        "/v1",
        "/v2/auth/me",
        "/v1/auth/x/..%2fme",
        "/.git/config",
        "/.env",
        "/favicon.ico",
        "/robots.txt",
        "/metrics",
        "/debug",
        "/docs/x.js",
        "/openapi.yaml",
        "/%ff",
        "/%0d%0aX-Evil:%201",
    ];
    for path in paths {
        // By hand: a client library would tidy the path.
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
            ann.token()
        );
        let reply = exchange(&ann.url, request.as_bytes());
        assert_refused(path, &reply, 404, "not_found");
        assert!(!reply.text.contains("ann@"), "{path}");
    }
}

/// ASVS 3.4.1.
#[tokio::test(flavor = "multi_thread")]
async fn strict_transport_is_asked_for_where_there_is_tls() {
    let public = |url: &str| Setup {
        api: ApiOptions {
            public_url: url.to_owned(),
            ..ApiOptions::default()
        },
        ..Setup::default()
    };
    let secure = start_with(public("https://auth.example.org")).await;
    let plain = start_with(public("http://localhost:8080")).await;
    for path in ["/", "/health/ready", "/v1/auth/me", "/nowhere", "/docs"] {
        let reply = secure.anonymous().get(path).await;
        let sts = reply.header("strict-transport-security");
        assert_eq!(sts, Some("max-age=31536000; includeSubDomains"), "{path}");
        let reply = plain.anonymous().get(path).await;
        assert_eq!(reply.header("strict-transport-security"), None, "{path}");
    }
    let refused = secure.anonymous().send(Method::TRACE, "/", None).await;
    assert!(refused.header("strict-transport-security").is_some());
}

/// A node that is two seconds off would end sessions too early or too late.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_off_is_not_ready() {
    let ready = start_today().await.anonymous().get("/health/ready").await;
    assert_eq!(ready.expect(200)["status"], "ready");
    let reply = start().await.anonymous().get("/health/ready").await;
    assert_refused("another year", &reply, 503, "clock_skew");
    assert!(reply.header("retry-after").is_some());
}

/// ASVS 14.2.2, 14.3.2: answers about somebody are kept by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn answers_are_not_to_be_stored() {
    let app = start_today().await;
    let admin = app.admin("root@example.org").await;
    for path in [
        "/",
        "/health",
        "/health/live",
        "/health/ready",
        "/version",
        "/v1/auth/me",
        "/v1/auth/sessions",
        "/v1/admin/users",
        "/set-password",
    ] {
        let reply = admin.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
        assert_sound(path, &reply);
    }
    let login = json!({"email": "root@example.org", "password": PASSWORD});
    let reply = app.anonymous().post("/v1/auth/login", login).await;
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_sound("login", &reply);
}

/// ASVS 3.4.2: no page of anybody else may read an answer.
#[tokio::test(flavor = "multi_thread")]
async fn no_origin_is_let_in() {
    let app = start().await;
    let anonymous = app.anonymous();
    for origin in ["https://evil.example", "null", "http://localhost:8080"] {
        for m in [Method::GET, Method::OPTIONS, Method::POST] {
            let request = anonymous
                .http
                .request(m, format!("{}/v1/auth/login", anonymous.url))
                .header("origin", origin)
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization");
            let reply = Reply::of(request.send().await.expect("an answer")).await;
            let access =
                |name: &&reqwest::header::HeaderName| name.as_str().starts_with("access-control-");
            assert_eq!(reply.headers.keys().find(access), None, "{origin}");
        }
    }
}

/// ASVS 15.3.7: two answers to "who asks" are none.
#[tokio::test(flavor = "multi_thread")]
async fn two_authorization_headers_are_refused() {
    let app = start().await;
    let ann = app.user("ann@example.org").await;
    let genuine = format!("Bearer {}", ann.token());
    for pair in [
        [genuine.as_str(), genuine.as_str()],
        [genuine.as_str(), "Bearer x"],
        ["Basic eDp5", genuine.as_str()],
    ] {
        for (m, path) in [
            (Method::GET, "/v1/auth/me"),
            (Method::POST, "/v1/auth/logout"),
            (Method::GET, "/v1/admin/users"),
        ] {
            let request = ann
                .http
                .request(m, format!("{}{path}", ann.url))
                .header(AUTHORIZATION, pair[0])
                .header(AUTHORIZATION, pair[1]);
            let reply = Reply::of(request.send().await.expect("an answer")).await;
            assert_refused(path, &reply, 400, "ambiguous_credentials");
        }
    }
    ann.me().await.expect(200);
}

/// ASVS 16.5.1: what went wrong inside is for the log.
#[tokio::test(flavor = "multi_thread")]
async fn failures_of_the_server_say_nothing_about_it() {
    let app = start().await;
    let ann = app.user("ann@example.org").await;
    app.database
        .sql("UPDATE users SET roles = 'neither JSON nor a secret'")
        .await;
    let login = json!({"email": "ann@example.org", "password": PASSWORD});
    for reply in [
        ann.me().await,
        app.anonymous().post("/v1/auth/login", login.clone()).await,
    ] {
        assert_refused("corrupt", &reply, 500, "internal");
        assert_bland(&reply);
    }
    app.database.sql("DROP TABLE sessions").await;
    let reply = ann.me().await;
    assert!([500, 503].contains(&reply.status));
    let code = reply.problem().1;
    assert_refused("no table", &reply, reply.status, &code);
    assert_bland(&reply);
}

#[track_caller]
fn assert_bland(reply: &Reply) {
    let text = reply.text.to_lowercase();
    for inside in [
        "sqlite", "select", "users", "roles", "neither", "table", "diesel", ".rs", "panick",
        "poem", "/tmp", "column",
    ] {
        assert!(!text.contains(inside), "{inside}: {text}");
    }
}

fn behind_local_proxy(trusted: bool) -> Setup {
    let networks: &[&str] = if trusted {
        &["127.0.0.0/8"]
    } else {
        &["10.0.0.0/8"]
    };
    Setup {
        api: ApiOptions {
            trusted_proxies: networks.iter().map(|n| n.parse().expect("a net")).collect(),
            ..ApiOptions::default()
        },
        ..Setup::default()
    }
}

async fn address_of_login(app: &App, headers: &[(&str, &str)]) -> String {
    let anonymous = app.anonymous();
    let mut request = anonymous
        .http
        .post(format!("{}/v1/auth/login", anonymous.url))
        .json(&json!({"email": "ann@example.org", "password": PASSWORD}));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let reply = Reply::of(request.send().await.expect("an answer")).await;
    let session = &reply.expect(200)["session"];
    session["address"].as_str().expect("an address").to_owned()
}

/// ASVS 4.1.3, 15.3.4.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_believed_only_from_a_trusted_proxy() {
    let stranger = start_with(behind_local_proxy(false)).await;
    let proxied = start_with(behind_local_proxy(true)).await;
    stranger.register("ann@example.org").await;
    proxied.register("ann@example.org").await;
    let forged = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-real-ip", "203.0.113.9"),
        ("forwarded", "for=203.0.113.9"),
        ("x-client-ip", "203.0.113.9"),
        ("cf-connecting-ip", "203.0.113.9"),
        ("true-client-ip", "203.0.113.9"),
    ];
    assert_eq!(address_of_login(&stranger, &forged).await, "127.0.0.1");
    assert_eq!(
        address_of_login(&proxied, &forged[1..]).await,
        "127.0.0.1",
        "one header, not any of them"
    );
    assert_eq!(address_of_login(&proxied, &forged).await, "203.0.113.9");
    let chain = [("x-forwarded-for", "198.51.100.1, 203.0.113.9")];
    assert_eq!(
        address_of_login(&proxied, &chain).await,
        "203.0.113.9",
        "what the client itself wrote stands further left"
    );
}

async fn request_id_for(client: &Client, given: &str) -> String {
    let request = client
        .http
        .get(format!("{}/v1/auth/me", client.url))
        .header("x-request-id", given);
    let reply = Reply::of(request.send().await.expect("an answer")).await;
    assert_refused(given, &reply, 401, "unauthenticated");
    reply.header("x-request-id").expect("an id").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_believed_only_from_a_trusted_proxy() {
    let app = start_with(behind_local_proxy(false)).await;
    let stranger = app.anonymous();
    assert_ne!(request_id_for(&stranger, SOME_ID).await, SOME_ID);
    let app = start_with(behind_local_proxy(true)).await;
    let proxied = app.anonymous();
    assert_eq!(request_id_for(&proxied, SOME_ID).await, SOME_ID);
    for junk in ["", " ", "a b\"<script>", &"x".repeat(5000)] {
        assert_ne!(request_id_for(&proxied, junk).await, junk);
    }
}

/// ASVS 16.5.1, 16.5.4: what went wrong in one request stays there, and says nothing about the server.
#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_a_500_for_its_request_alone() {
    let app = start().await;
    let ann = app.user("ann@example.org").await;
    let store = &app.nodes[0].store;
    // In a handler, and more often than there are readers in what all handlers share.
    for method in ["open_sessions_of", "live_sessions"] {
        for _ in 0..8 {
            store.panic_at(method);
            let reply = ann.get("/v1/auth/sessions").await;
            assert_refused(method, &reply, 500, "internal");
            assert!(!reply.text.contains(method), "{}", reply.text);
        }
        ann.get("/v1/auth/sessions").await.expect(200);
    }
}

/// ASVS 15.2.2: a storm of logins costs those who log in, and nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_of_passwords_is_503_and_leaves_everybody_else_alone() {
    let app = start_with(Setup {
        passwords: PasswordPolicy {
            // A tenth of a second each.
            scrypt_log_n: 15,
            scrypt_p: 3,
            threads: 1,
            queue: 1,
            ..PasswordPolicy::light()
        },
        ..Setup::default()
    })
    .await;
    let ann = app.user("ann@example.org").await;
    let storm: Vec<_> = (0..16)
        .map(|_| {
            let ann = ann.clone();
            tokio::spawn(async move { ann.try_log_in("ann@example.org", "not it at all").await })
        })
        .collect();
    let mut served = 0;
    while storm.iter().any(|login| !login.is_finished()) {
        ann.me().await.expect(200);
        served += 1;
    }
    let (mut checked, mut refused) = (0, 0);
    for login in storm {
        let reply = login.await.expect("no panic");
        if reply.status == 503 {
            assert_refused("a full queue", &reply, 503, "overloaded");
            assert!(reply.header("retry-after").is_some());
            refused += 1;
        } else {
            assert_refused("a wrong password", &reply, 401, "bad_credentials");
            checked += 1;
        }
    }
    assert!(checked >= 1 && refused >= 1, "{checked} and {refused}");
    assert!(
        served >= 10,
        "{served} requests in the time of {checked} logins"
    );
}

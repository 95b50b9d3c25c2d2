//! A proxy asks before it passes a request on: who sends it, and may they.

use doorward::http::ApiOptions;
use reqwest::Method;

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, Reply, Setup},
        backend::Database,
        browser::Browser,
    },
};

for_each_store! {
    a_proxy_is_told_who_sends_the_request,
    a_proxy_asks_with_any_method_at_any_path_below,
    a_role_is_asked_for,
    whoever_is_not_logged_in_is_refused_or_sent_to_log_in,
    with_a_cookie_the_original_method_counts,
    a_session_that_ends_is_refused_at_the_next_question,
}

const CHECK: &str = "/v1/auth/check";

/// Two nodes behind a proxy on this machine, and a role.
async fn behind_a_proxy(database: Database) -> App {
    let setup = Setup {
        nodes: 2,
        api: ApiOptions {
            trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")],
            redirect_origins: vec!["https://app.example.org".to_owned()],
            allowed_origins: vec!["https://app.example.org".to_owned()],
            ..ApiOptions::default()
        },
        ..Setup::default()
    };
    App::with(database, setup).await
}

async fn asked(client: &Client, method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let mut request = client.http.request(method, format!("{}{path}", client.url));
    if let Some(token) = &client.token {
        request = request.bearer_auth(token);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Reply::of(request.send().await.expect("an answer")).await
}

/// The headers that a proxy passes on.
fn told(reply: &Reply) -> Vec<(&str, &str)> {
    assert_eq!((reply.status, reply.text.as_str()), (200, ""));
    let names = [
        "x-auth-user",
        "x-auth-session",
        "x-auth-roles",
        "x-auth-email",
        "cookie",
    ];
    let told = names.map(|name| (name, reply.header(name).expect(name)));
    told.to_vec()
}

async fn a_proxy_is_told_who_sends_the_request(database: Database) {
    let app = behind_a_proxy(database).await;
    let root = app.admin("root@example.org").await;
    let ann = app.user("ann@example.org").await;
    let id = ann.me().await.expect(200)["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let session = ann.session_id().await;
    // What the client writes itself stands in the question and never in the answer.
    let forged = [
        ("x-auth-user", "somebody else"),
        ("x-auth-roles", "admin"),
        ("x-auth-email", "root@example.org"),
        ("cookie", "theme=dark; lang=de"),
    ];
    for node in &app.nodes {
        let reply = asked(&ann.at(node), "GET", CHECK, &forged).await;
        let wanted = vec![
            ("x-auth-user", id.as_str()),
            ("x-auth-session", &session),
            ("x-auth-roles", ""),
            ("x-auth-email", ""),
            ("cookie", "theme=dark; lang=de"),
        ];
        assert_eq!(
            told(&reply),
            wanted,
            "an address that was not verified is not told"
        );
    }
    let change = serde_json::json!({"email_verified": true});
    root.patch(&format!("/v1/admin/users/{id}"), change)
        .await
        .expect(200);
    let roles = serde_json::json!({"roles": ["editor", "author"]});
    root.put(&format!("/v1/admin/users/{id}/roles"), roles)
        .await
        .expect(200);
    let reply = asked(&ann.at(&app.nodes[1]), "GET", CHECK, &[]).await;
    let told = told(&reply);
    assert_eq!(told[2], ("x-auth-roles", "author,editor"));
    assert_eq!(
        told[3..],
        [("x-auth-email", "ann@example.org"), ("cookie", "")]
    );
}

async fn a_proxy_asks_with_any_method_at_any_path_below(database: Database) {
    let app = behind_a_proxy(database).await;
    let ann = app.user("ann@example.org").await;
    for method in [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND",
    ] {
        for path in [
            CHECK,
            "/v1/auth/check/",
            "/v1/auth/check/notes/1?page=2&page=3&role=admin&redirect=x",
            "/v1/auth/check//..%2f%00",
        ] {
            let reply = asked(&ann, method, path, &[]).await;
            assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text);
            let reply = asked(&app.anonymous(), method, path, &[]).await;
            assert_eq!(reply.status, 401, "{method} {path}");
        }
    }
    // To the proxy any 2xx is a yes, so a preflight gets none of its own.
    let preflight = [
        ("origin", "https://app.example.org"),
        ("access-control-request-method", "GET"),
    ];
    for path in [CHECK, "/v1/auth/check/notes"] {
        let reply = asked(&app.anonymous(), "OPTIONS", path, &preflight).await;
        assert_problem!(reply, 401, "unauthenticated");
    }
    // The body is the application's: however long, it is not read.
    let long = ann
        .http
        .post(format!("{}{CHECK}", ann.url))
        .bearer_auth(ann.token());
    let long = long
        .body(vec![b'x'; 100_000])
        .send()
        .await
        .expect("an answer");
    assert_eq!(long.status(), 200);
    for path in ["/v1/auth/checks", "/v1/auth/check.php"] {
        assert_problem!(asked(&ann, "GET", path, &[]).await, 404, "not_found");
    }
}

async fn a_role_is_asked_for(database: Database) {
    let app = behind_a_proxy(database).await;
    let root = app.admin("root@example.org").await;
    let ann = app.user("ann@example.org").await;
    let only_admins = "/v1/auth/check?role=admin";
    let html = [("accept", "text/html")];
    assert_eq!(asked(&root, "GET", only_admins, &[]).await.status, 200);
    for path in [
        only_admins,
        "/v1/auth/check?role=admin&redirect=/x",
        "/v1/auth/check?role=",
    ] {
        let refused = asked(&ann, "GET", path, &html).await;
        // For proxies that show their clients nothing of the body.
        assert_eq!(refused.header("x-auth-problem"), Some("role_required"));
        assert_problem!(refused, 403, "role_required");
    }
    assert_problem!(
        asked(&app.anonymous(), "GET", only_admins, &[]).await,
        401,
        "unauthenticated"
    );
    let id = ann.me().await.expect(200)["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let roles = serde_json::json!({"roles": ["admin"]});
    root.put(&format!("/v1/admin/users/{id}/roles"), roles)
        .await
        .expect(200);
    let there = ann.at(&app.nodes[1]);
    assert_eq!(
        asked(&there, "GET", only_admins, &[]).await.status,
        200,
        "with the same token"
    );
}

async fn whoever_is_not_logged_in_is_refused_or_sent_to_log_in(database: Database) {
    let app = behind_a_proxy(database).await;
    let ann = app.user("ann@example.org").await;
    ann.call("/v1/auth/logout").await.expect(204);
    let browser = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
    for (who, code) in [(&app.anonymous(), "unauthenticated"), (&ann, "logged_out")] {
        assert_problem!(asked(who, "GET", CHECK, &[browser]).await, 401, code);
        let path = "/v1/auth/check?redirect=/notes?a=b%26c=d";
        let reply = asked(who, "GET", path, &[("accept", "application/json")]).await;
        assert!(reply.header("www-authenticate").is_some());
        assert_problem!(reply, 401, code);
        let reply = asked(who, "GET", path, &[browser]).await;
        let page = "http://localhost:8080/login?redirect=%2Fnotes%3Fa%3Db%26c%3Dd";
        assert_eq!((reply.status, reply.header("location")), (302, Some(page)));
    }
    // Whoever is logged in is not sent anywhere, so it does not matter where to.
    let bob = app.user("bob@example.org").await;
    let reply = asked(&bob, "GET", "/v1/auth/check?redirect=//evil", &[browser]).await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    // An empty `redirect` is the address that the proxy was asked for.
    let original = [
        browser,
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "app.example.org"),
        ("x-forwarded-uri", "/notes?page=2"),
    ];
    let anonymous = app.anonymous();
    let reply = asked(&anonymous, "GET", "/v1/auth/check?redirect=", &original).await;
    let page =
        "http://localhost:8080/login?redirect=https%3A%2F%2Fapp.example.org%2Fnotes%3Fpage%3D2";
    assert_eq!((reply.status, reply.header("location")), (302, Some(page)));
    // Browsers do not encode everything that they send.
    let raw = reqwest::header::HeaderValue::from_bytes(b"/s?q=a\\b\xfc c").expect("a value");
    let request = anonymous
        .http
        .get(format!("{}{CHECK}?redirect=", anonymous.url));
    let request = original[..3]
        .iter()
        .fold(request, |r, (name, value)| r.header(*name, *value));
    let reply = Reply::of(
        request
            .header("x-forwarded-uri", raw)
            .send()
            .await
            .expect("an answer"),
    )
    .await;
    let page = "http://localhost:8080/login?redirect=https%3A%2F%2Fapp.example.org%2Fs%3Fq%3Da%5Cb%25FC%2520c";
    assert_eq!((reply.status, reply.header("location")), (302, Some(page)));
    for untold in [
        &original[..1],
        &[
            browser,
            original[1],
            ("x-forwarded-host", "evil.example"),
            original[3],
        ],
    ] {
        let reply = asked(&anonymous, "GET", "/v1/auth/check?redirect=", untold).await;
        assert_problem!(reply, 400, "redirect_refused");
    }
}

/// ASVS 3.5.1, 3.5.2.
async fn with_a_cookie_the_original_method_counts(database: Database) {
    let app = behind_a_proxy(database).await;
    app.register("ann@example.org").await;
    let browser = app.browser().log_in("ann@example.org").await;
    let foreign = browser.saying(&[
        ("sec-fetch-site", "cross-site"),
        ("origin", "https://evil.example"),
    ]);
    let status = async |browser: &Browser, header: &str, method: Option<&str>| {
        let mut request = browser.request(Method::GET, CHECK);
        if let Some(method) = method {
            request = request.header(header, method);
        }
        browser.send(request).await.status
    };
    for header in ["x-forwarded-method", "x-original-method"] {
        for safe in ["GET", "HEAD", "OPTIONS"] {
            assert_eq!(status(&foreign, header, Some(safe)).await, 200, "{safe}");
        }
        let both = foreign
            .request(Method::GET, CHECK)
            .header("x-original-method", "POST");
        let both = foreign.send(both.header("x-forwarded-method", "GET")).await;
        assert_problem!(both, 403, "cross_site");
        for other in ["POST", "PUT", "PATCH", "DELETE", "get", "FOO", ""] {
            assert_eq!(status(&foreign, header, Some(other)).await, 403, "{other}");
            assert_eq!(status(&browser, header, Some(other)).await, 200, "{other}");
        }
        assert_eq!(
            status(&foreign, header, None).await,
            403,
            "nobody told the method"
        );
    }
    // Nobody but a trusted proxy tells the method.
    let direct = App::with(app.database, Setup::default()).await;
    let stranger = foreign.moved_to(&direct.nodes[0]);
    let told = Some("GET");
    assert_eq!(status(&stranger, "x-original-method", told).await, 403);
    // Nor gets to see cookies that pages may not read.
    let page = browser.moved_to(&direct.nodes[0]);
    let cookies = format!("{}; secret=1", page.cookie.as_deref().expect("a cookie"));
    let seen = page.with_cookie(&cookies).get(CHECK).await;
    assert_eq!((seen.status, seen.header("cookie")), (200, Some("")));
}

async fn a_session_that_ends_is_refused_at_the_next_question(database: Database) {
    let app = behind_a_proxy(database).await;
    let ann = app.user("ann@example.org").await;
    let there = ann.at(&app.nodes[1]);
    assert_eq!(asked(&there, "GET", CHECK, &[]).await.status, 200);
    ann.call("/v1/auth/logout").await.expect(204);
    assert_problem!(asked(&there, "GET", CHECK, &[]).await, 401, "logged_out");
    let both = [("cookie", "doorward=x")];
    assert_problem!(
        asked(&ann, "GET", CHECK, &both).await,
        400,
        "ambiguous_credentials"
    );
}

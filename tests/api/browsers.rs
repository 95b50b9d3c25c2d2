//! What other sites' pages may do from a browser, and where a login may lead.

use doorward::http::ApiOptions;
use reqwest::Method;

use super::{start, start_with};
use crate::{
    assert_problem,
    harness::{
        app::{App, PASSWORD, Reply, Setup},
        browser::{Browser, form_body, set_cookie},
    },
};

const APP: &str = "https://app.example.org";

async fn with_origins() -> App {
    start_with(Setup {
        api: ApiOptions {
            public_url: "https://auth.example.org".to_owned(),
            allowed_origins: vec![APP.to_owned(), "http://localhost:3000".to_owned()],
            redirect_origins: vec![APP.to_owned()],
            ..ApiOptions::default()
        },
        ..Setup::default()
    })
    .await
}

async fn from(app: &App, method: Method, path: &str, headers: &[(&str, &str)]) -> Reply {
    let client = app.anonymous();
    let mut request = client.http.request(method, format!("{}{path}", client.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Reply::of(request.send().await.expect("an answer")).await
}

fn cors(reply: &Reply) -> Vec<String> {
    let headers = reply.headers.iter();
    let cors = headers.filter(|(name, _)| name.as_str().starts_with("access-control-"));
    let mut cors: Vec<String> = cors
        .map(|(name, value)| format!("{name}: {value:?}"))
        .collect();
    cors.sort();
    cors
}

/// ASVS 3.4.2.
#[tokio::test(flavor = "multi_thread")]
async fn only_pages_of_allowed_sites_read_answers() {
    let app = with_origins().await;
    for path in ["/v1/auth/me", "/health", "/no/such/path"] {
        for origin in [APP, "http://localhost:3000"] {
            let reply = from(&app, Method::GET, path, &[("origin", origin)]).await;
            assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
            assert_eq!(
                reply.header("access-control-allow-credentials"),
                Some("true")
            );
            assert_eq!(reply.header("vary"), Some("Origin"));
            let exposed = reply.header("access-control-expose-headers");
            assert_eq!(exposed, Some("retry-after, www-authenticate, x-request-id"));
        }
        for origin in [
            "null",
            "*",
            "https://evil.example",
            "https://app.example.org.evil.example",
            "https://evilapp.example.org",
            "https://app.example.org:8443",
            "http://app.example.org",
            "https://APP.example.org",
            "https://auth.example.org",
        ] {
            let reply = from(&app, Method::GET, path, &[("origin", origin)]).await;
            assert_eq!(cors(&reply), Vec::<String>::new(), "{origin}");
            assert_eq!(
                reply.header("vary"),
                Some("Origin"),
                "caches tell them apart"
            );
        }
        let plain = from(&app, Method::GET, path, &[]).await;
        assert_eq!(cors(&plain), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_are_told_what_allowed_pages_may_send() {
    let app = with_origins().await;
    let asks = [("origin", APP), ("access-control-request-method", "POST")];
    let reply = from(&app, Method::OPTIONS, "/v1/auth/login", &asks).await;
    assert_eq!((reply.status, reply.text.as_str()), (204, ""));
    assert_eq!(reply.header("access-control-allow-origin"), Some(APP));
    assert_eq!(
        reply.header("access-control-allow-credentials"),
        Some("true")
    );
    assert_eq!(reply.header("vary"), Some("Origin"));
    let allowed = reply
        .header("access-control-allow-headers")
        .expect("headers");
    assert_eq!(
        allowed, "authorization, content-type",
        "no `*` with credentials"
    );
    let methods = reply
        .header("access-control-allow-methods")
        .expect("methods");
    for method in ["GET", "POST", "PATCH", "DELETE"] {
        assert!(methods.contains(method), "{method}");
    }
    let evil = [("origin", "https://evil.example"), asks[1]];
    let reply = from(&app, Method::OPTIONS, "/v1/auth/login", &evil).await;
    assert_eq!((reply.status, cors(&reply)), (405, vec![]));
    // Without a list there is nobody to tell apart.
    let closed = start().await;
    let reply = from(&closed, Method::GET, "/health", &[("origin", APP)]).await;
    assert_eq!((cors(&reply), reply.header("vary")), (vec![], None));
}

/// ASVS 3.3.1, 3.3.2, 3.3.3, 3.3.4, 3.5.4.
#[tokio::test(flavor = "multi_thread")]
async fn on_https_no_other_host_can_set_the_cookie() {
    let app = with_origins().await;
    app.register("ann@example.org").await;
    let reply = app.browser().try_log_in("ann@example.org").await;
    let set = set_cookie(&reply.headers).expect("a cookie").to_owned();
    assert!(set.starts_with("__Host-doorward=eyJ"), "{set}");
    assert!(
        set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Secure"),
        "{set}"
    );
    let browser = app.browser().after(&reply);
    browser.me().await.expect(200);
    // Browsers guard the prefix whatever its case, so only the exact name counts.
    for name in [
        "doorward",
        "__HOST-doorward",
        "__host-doorward",
        "__Secure-doorward",
    ] {
        let planted = browser.with_cookie(&format!("{name}={}", browser.value()));
        assert_problem!(planted.me().await, 401, "unauthenticated");
    }
    let reply = browser.call("/v1/auth/logout").await;
    let gone = "__Host-doorward=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax; Secure";
    assert_eq!(set_cookie(&reply.headers), Some(gone));
}

/// What the form of the page sends.
async fn fill(browser: &Browser, name: &str, password: &str, redirect: &str) -> Reply {
    let form = [
        ("username", name),
        ("password", password),
        ("redirect", redirect),
    ];
    let request = browser.request(Method::POST, "/login");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    browser.send(request.body(form_body(&form))).await
}

/// ASVS 3.4.6, 3.5.3, 7.6.2.
#[tokio::test(flavor = "multi_thread")]
async fn the_login_page_logs_in_and_leads_back() {
    let app = with_origins().await;
    app.register("ann@example.org").await;
    let page = app.browser().get("/login?redirect=/notes?page=2").await;
    assert_eq!(page.status, 200);
    assert!(
        page.text.contains("value=\"/notes?page=2\""),
        "{}",
        page.text
    );
    assert!(!page.text.contains("<script"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(
        policy.starts_with("default-src 'none'; object-src 'none'; style-src 'nonce-"),
        "{policy}"
    );
    assert!(policy.contains("form-action 'self'"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(
        set_cookie(&page.headers),
        None,
        "looking opens no session (ASVS 3.5.3)"
    );

    for (redirect, location) in [
        ("/notes?page=2", "/notes?page=2"),
        ("", "/"),
        ("https://app.example.org/x", "https://app.example.org/x"),
    ] {
        let reply = fill(&app.browser(), "ann@example.org", PASSWORD, redirect).await;
        // 303, so that the password is not sent on (RFC 9700 §4.12).
        assert_eq!(
            (reply.status, reply.header("location")),
            (303, Some(location))
        );
        app.browser().after(&reply).me().await.expect(200);
    }
    let elsewhere = app
        .browser()
        .get("/login?redirect=https://app.example.org/x")
        .await;
    let policy = elsewhere
        .header("content-security-policy")
        .expect("a policy");
    assert!(
        policy.contains("form-action 'self' https://app.example.org"),
        "{policy}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_says_why_on_the_page() {
    let app = with_origins().await;
    app.register("ann@example.org").await;
    let evil = "\"><script>alert(1)</script>";
    for name in ["ann@example.org", "nobody@example.org", "nobody", evil] {
        let reply = fill(&app.browser(), name, "a wrong password", "/notes").await;
        assert_eq!(reply.status, 401, "{name}");
        assert_eq!(
            reply.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(set_cookie(&reply.headers), None);
        assert!(
            reply
                .text
                .contains("role=\"alert\">The name or the password is wrong.")
        );
        assert!(
            reply.text.contains("value=\"/notes\""),
            "it still leads back"
        );
        assert!(!reply.text.contains("<script"), "{}", reply.text);
        assert!(!reply.text.contains("a wrong password"));
    }
    let foreign = app.browser().saying(&[("sec-fetch-site", "cross-site")]);
    let reply = fill(&foreign, "ann@example.org", PASSWORD, "/").await;
    assert_problem!(reply, 403, "cross_site");
    let odd = app.browser().request(Method::POST, "/login").body("x");
    assert_problem!(app.browser().send(odd).await, 400, "malformed_form");
}

/// ASVS 3.7.2.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_leads_nowhere_else() {
    let app = with_origins().await;
    app.register("ann@example.org").await;
    for evil in [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "https://app.example.org@evil.example",
        "javascript:alert(1)",
    ] {
        let encoded: String = form_urlencoded::byte_serialize(evil.as_bytes()).collect();
        for path in ["/login", "/v1/auth/check"] {
            let browser = app.browser();
            let page = browser.request(Method::GET, &format!("{path}?redirect={encoded}"));
            let page = browser.send(page.header("accept", "text/html")).await;
            assert_problem!(page, 400, "redirect_refused");
        }
        let reply = fill(&app.browser(), "ann@example.org", PASSWORD, evil).await;
        assert_problem!(&reply, 400, "redirect_refused");
        assert_eq!(set_cookie(&reply.headers), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_ones_own_takes_the_place_of_ours() {
    let app = start_with(Setup {
        api: ApiOptions {
            login_page: "https://app.example.org/sign-in?lang=en".to_owned(),
            ..ApiOptions::default()
        },
        ..Setup::default()
    })
    .await;
    assert_problem!(app.browser().get("/login").await, 404, "not_found");
    let asks = [("accept", "text/html"), ("sec-fetch-site", "none")];
    let reply = from(&app, Method::GET, "/v1/auth/check?redirect=/notes", &asks).await;
    let page = "https://app.example.org/sign-in?lang=en&redirect=%2Fnotes";
    assert_eq!((reply.status, reply.header("location")), (302, Some(page)));
}

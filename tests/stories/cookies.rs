//! Sessions in a cookie: what browsers get, who may use it, and when another takes its place.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use doorward::{clock::Span, http::ApiOptions};
use reqwest::Method;
use serde_json::json;

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, PASSWORD, Setup},
        backend::Database,
        browser::{Browser, set_cookie},
        race,
    },
};

for_each_store! {
    a_browser_logs_in_and_never_sees_a_token,
    a_cookie_and_a_token_are_never_taken_for_each_other,
    no_foreign_page_acts_for_the_user,
    pages_of_allowed_sites_act_for_the_user,
    a_new_proof_brings_a_new_cookie,
    two_proofs_at_once_leave_one_good_cookie,
    logging_out_takes_the_cookie_away,
    a_cookie_ends_with_its_session,
    what_is_planted_is_no_session,
}

/// ASVS 3.3.4.
async fn a_browser_logs_in_and_never_sees_a_token(database: Database) {
    let app = App::two_nodes(database).await;
    app.register("ann@example.org").await;
    let reply = app.browser().try_log_in("ann@example.org").await;
    let set = set_cookie(&reply.headers).expect("a cookie").to_owned();
    let (pair, attributes) = set.split_once("; ").expect("attributes");
    let (name, value) = pair.split_once('=').expect("a pair");
    assert_eq!(name, "doorward", "on plain http");
    // Thirty days, as long as the session (ASVS 3.3.2, 3.3.4).
    assert_eq!(
        attributes,
        "Max-Age=2592000; Path=/; HttpOnly; SameSite=Lax"
    );
    // ASVS 3.3.4: nothing in the answer but the cookie itself can be used.
    assert!(!reply.text.contains(value) && !reply.text.contains("dwr_"));
    let browser = app.browser().after(&reply);
    let answer = reply.expect(200);
    let fields: Vec<&str> = answer
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(fields, ["session"]);
    for node in &app.nodes {
        let me = browser.moved_to(node).me().await.expect(200);
        assert_eq!(me["email"], "ann@example.org");
    }
    let sessions = browser.get("/v1/auth/sessions").await.expect(200);
    assert_eq!(sessions["items"][0]["id"], answer["session"]["id"]);
    // As long as the session, and no refreshing in between.
    app.clock.advance(Span::days(6));
    browser.moved_to(&app.nodes[1]).me().await.expect(200);
}

/// ASVS 9.2.2, 15.3.7.
async fn a_cookie_and_a_token_are_never_taken_for_each_other(database: Database) {
    let mut setup = Setup::default();
    setup.sessions.max_per_user = 5;
    let app = App::with(database, setup).await;
    let ann = app.user("ann@example.org").await;
    let browser = app.browser().log_in("ann@example.org").await;
    assert_problem!(browser.as_bearer().me().await, 401, "token_invalid");
    for token in [ann.token(), ann.refresh_token()] {
        let stuffed = browser.with_cookie(&format!("doorward={token}"));
        assert_problem!(stuffed.me().await, 401, "token_invalid");
    }
    assert_problem!(
        ann.with_token(ann.refresh_token()).me().await,
        401,
        "token_invalid"
    );
    for wrong in [ann.token(), browser.value()] {
        let body = json!({"refresh_token": wrong});
        let refused = app.anonymous().post("/v1/auth/refresh", body).await;
        assert_problem!(refused, 401, "token_invalid");
    }
    // Both together, or two of one name, are nobody's.
    let both = browser
        .request(Method::GET, "/v1/auth/me")
        .bearer_auth(ann.token());
    assert_problem!(browser.send(both).await, 400, "ambiguous_credentials");
    let twice = format!("{0}; {0}", browser.cookie.as_deref().expect("a cookie"));
    let twice = browser.with_cookie(&twice).me().await;
    assert_problem!(twice, 400, "ambiguous_credentials");
    // A cookie of another name is none of ours, and ours is found among others.
    let among = format!(
        "theme=dark; {}; lang=de",
        browser.cookie.as_deref().expect("a cookie")
    );
    browser.with_cookie(&among).me().await.expect(200);
    let other = browser.with_cookie(&format!("Doorward={}", browser.value()));
    assert_problem!(other.me().await, 401, "unauthenticated");
}

/// What browsers say when a foreign page makes them send something, and what says nothing at all.
const FOREIGN: [&[(&str, &str)]; 7] = [
    &[
        ("sec-fetch-site", "cross-site"),
        ("origin", "https://evil.example"),
    ],
    &[
        ("sec-fetch-site", "same-site"),
        ("origin", "https://evil.example.org"),
    ],
    &[("sec-fetch-site", "cross-site"), ("origin", "null")],
    &[("origin", "https://evil.example")],
    &[("origin", "null")],
    &[("origin", "http://localhost:8080.evil.example")],
    &[],
];

/// ASVS 3.5.1, 3.5.2, 3.1.1, 3.7.5.
async fn no_foreign_page_acts_for_the_user(database: Database) {
    let mut setup = Setup {
        nodes: 2,
        ..Setup::default()
    };
    setup.sessions.max_per_user = 0;
    let app = App::with(database, setup).await;
    app.register("ann@example.org").await;
    let browser = app.browser().log_in("ann@example.org").await;
    let session = browser.get("/v1/auth/sessions").await.expect(200)["items"][0]["id"].clone();
    let before = browser.me().await.expect(200);
    for says in FOREIGN {
        let foreign = browser.moved_to(&app.nodes[1]).saying(says);
        let wanted =
            json!({"current_password": PASSWORD, "new_password": "another horse entirely"});
        let proof = json!({"password": PASSWORD});
        let replies = [
            foreign.try_log_in("ann@example.org").await,
            foreign.call("/v1/auth/logout").await,
            foreign.call("/v1/auth/logout?scope=all").await,
            foreign.post("/v1/auth/reauthenticate", proof.clone()).await,
            foreign.post("/v1/auth/me/password", wanted).await,
            foreign.post("/v1/auth/me/deactivate", proof).await,
            foreign
                .send(
                    foreign
                        .request(Method::PATCH, "/v1/auth/me")
                        .json(&json!({"username": "mallory"})),
                )
                .await,
            foreign
                .send(foreign.request(
                    Method::DELETE,
                    &format!("/v1/auth/sessions/{}", session.as_str().expect("an id")),
                ))
                .await,
        ];
        for reply in replies {
            assert_problem!(&reply, 403, "cross_site");
            assert_eq!(set_cookie(&reply.headers), None, "{says:?}");
            assert_eq!(reply.header("access-control-allow-origin"), None);
        }
        // A form of a foreign page can send no JSON, and gets no cookie for anything else.
        for kind in ["text/plain", "application/x-www-form-urlencoded"] {
            let body = format!("username=ann@example.org&password={PASSWORD}&transport=cookie");
            let form = foreign.request(Method::POST, "/v1/auth/login");
            let reply = foreign
                .send(form.header("content-type", kind).body(body))
                .await;
            assert_eq!(set_cookie(&reply.headers), None, "{says:?} {kind}");
        }
    }
    // A page that opens a WebSocket could read what comes back, and browsers ask no leave for one.
    for header in [
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-fetch-mode", "websocket"),
    ] {
        for path in ["/v1/auth/me", "/v1/auth/check"] {
            let opened = |browser: &Browser| {
                browser
                    .request(Method::GET, path)
                    .header(header.0, header.1)
            };
            let same_site = browser.saying(&[
                ("sec-fetch-site", "same-site"),
                ("origin", "http://evil.localhost"),
            ]);
            assert_problem!(same_site.send(opened(&same_site)).await, 403, "cross_site");
            browser.send(opened(&browser)).await.expect(200);
        }
    }
    // Reading is no harm: what comes back stays in the browser.
    let link = browser.saying(&[("sec-fetch-site", "cross-site")]);
    assert_eq!(link.me().await.expect(200), before, "nothing has changed");
}

async fn pages_of_allowed_sites_act_for_the_user(database: Database) {
    let setup = Setup {
        api: ApiOptions {
            allowed_origins: vec!["https://app.example.org".to_owned()],
            ..ApiOptions::default()
        },
        ..Setup::default()
    };
    let app = App::with(database, setup).await;
    app.register("ann@example.org").await;
    for says in [
        &[
            ("sec-fetch-site", "same-site"),
            ("origin", "https://app.example.org"),
        ][..],
        &[("origin", "https://app.example.org")],
        &[("origin", "http://localhost:8080")],
        &[("sec-fetch-site", "none")],
    ] {
        let page = app.browser().saying(says);
        let page = page.log_in("ann@example.org").await;
        page.me().await.expect(200);
        page.call("/v1/auth/logout").await.expect(204);
    }
    for says in FOREIGN {
        let page = app.browser().saying(says);
        assert_problem!(page.try_log_in("ann@example.org").await, 403, "cross_site");
    }
}

/// ASVS 7.2.4.
async fn a_new_proof_brings_a_new_cookie(database: Database) {
    let app = App::two_nodes(database).await;
    app.register("ann@example.org").await;
    let first = app.browser().log_in("ann@example.org").await;
    app.clock.advance(Span::minutes(5));
    let proof = json!({"password": PASSWORD});
    let reply = first.post("/v1/auth/reauthenticate", proof).await;
    assert_eq!(reply.status, 204, "{}", reply.text);
    let second = first.after(&reply);
    assert_ne!(second.value(), first.value());
    let set = set_cookie(&reply.headers).expect("a cookie");
    let left = 30 * 24 * 3600 - 300;
    assert!(set.contains(&format!("Max-Age={left}; ")), "{set}");

    app.clock.advance(Span::minutes(5));
    let change = json!({"current_password": PASSWORD, "new_password": "another horse entirely"});
    let reply = second.post("/v1/auth/me/password", change).await;
    assert_eq!(reply.status, 204, "{}", reply.text);
    let third = second.after(&reply);
    for node in &app.nodes {
        for old in [&first, &second] {
            assert_problem!(old.moved_to(node).me().await, 401, "cookie_superseded");
        }
        third.moved_to(node).me().await.expect(200);
    }
    // Whoever still has an old one may end the session by it, and nothing else.
    let refused = first.call("/v1/auth/logout?scope=all").await;
    assert_eq!(refused.status, 401, "{}", refused.text);
    first.call("/v1/auth/logout").await.expect(204);
    assert_problem!(third.me().await, 401, "logged_out");
}

/// Somebody who presses the button twice stays logged in, whichever answer comes last.
async fn two_proofs_at_once_leave_one_good_cookie(database: Database) {
    let app = App::two_nodes(database).await;
    app.register("ann@example.org").await;
    let browser = app.browser().log_in("ann@example.org").await;
    app.clock.advance(Span::minutes(5));
    let change = json!({"current_password": PASSWORD, "new_password": "another horse entirely"});
    let proof = json!({"password": PASSWORD});
    let proofs = (0..8).map(|n| {
        // One of them gives a new password as well.
        let (path, body) = match n {
            3 => ("/v1/auth/me/password", change.clone()),
            _ => ("/v1/auth/reauthenticate", proof.clone()),
        };
        let tab = browser.moved_to(&app.nodes[n % 2]);
        let clock = std::sync::Arc::clone(&app.clock);
        async move {
            clock.advance(Span::millis(1));
            let reply = tab.post(path, body).await;
            if reply.status == 204 {
                return Some((path, tab.after(&reply)));
            }
            // It came after another one was done.
            let late = [
                (401, "cookie_superseded".to_owned()),
                (403, "wrong_password".to_owned()),
            ];
            assert!(late.contains(&reply.problem()), "{}", reply.text);
            None
        }
    });
    let renewed: Vec<_> = race(proofs).await.into_iter().flatten().collect();
    assert!(!renewed.is_empty());
    // A new password supersedes whatever was given before it; those who were given one together have it.
    let newest = renewed.iter().max_by_key(|(_, tab)| generation(tab));
    let newest = generation(&newest.expect("one at the least").1);
    for (path, tab) in renewed {
        if generation(&tab) == newest {
            tab.me().await.expect(200);
        } else {
            assert_eq!(path, "/v1/auth/reauthenticate");
            assert_problem!(tab.me().await, 401, "cookie_superseded");
        }
    }
}

/// When the user had proved who they are, as a cookie says it.
fn generation(browser: &Browser) -> i64 {
    let payload = browser.value().split('.').nth(1).expect("claims");
    let claims = URL_SAFE_NO_PAD.decode(payload).expect("base64url");
    let claims: serde_json::Value = serde_json::from_slice(&claims).expect("JSON");
    claims["gen"].as_i64().expect("a time")
}

/// ASVS 14.3.1.
async fn logging_out_takes_the_cookie_away(database: Database) {
    let mut setup = Setup::default();
    setup.sessions.max_per_user = 5;
    let app = App::with(database, setup).await;
    let ann = app.user("ann@example.org").await;
    let browser = app.browser().log_in("ann@example.org").await;
    let other = app.browser().log_in("ann@example.org").await;

    let reply = browser.call("/v1/auth/logout?scope=others").await;
    assert_eq!((reply.status, set_cookie(&reply.headers)), (204, None));
    assert_eq!(reply.header("clear-site-data"), None);
    assert_problem!(other.me().await, 401, "logged_out");
    assert_problem!(ann.me().await, 401, "logged_out");

    let reply = browser.call("/v1/auth/logout").await;
    assert_eq!(reply.status, 204);
    let gone = "doorward=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax";
    assert_eq!(set_cookie(&reply.headers), Some(gone));
    assert_eq!(
        reply.header("clear-site-data"),
        Some("\"cache\", \"storage\"")
    );
    assert_eq!(browser.after(&reply).cookie, None);
    assert_problem!(browser.me().await, 401, "logged_out");
    let browser_of_all = app.browser().log_in("ann@example.org").await;
    let reply = browser_of_all.call("/v1/auth/logout?scope=all").await;
    assert_eq!(browser_of_all.after(&reply).cookie, None);
    // Whoever carries tokens gets no cookie, whatever they do.
    let ann = app.log_in("ann@example.org").await;
    let proof = json!({"password": PASSWORD});
    let change = json!({"current_password": PASSWORD, "new_password": "another horse entirely"});
    for reply in [
        ann.post("/v1/auth/reauthenticate", proof).await,
        ann.post("/v1/auth/me/password", change).await,
        ann.call("/v1/auth/logout").await,
    ] {
        assert_eq!((reply.status, set_cookie(&reply.headers)), (204, None));
        assert_eq!(reply.header("clear-site-data"), None);
    }
    browser.call("/v1/auth/logout").await.expect(204);
}

/// ASVS 7.3.2.
async fn a_cookie_ends_with_its_session(database: Database) {
    let app = App::two_nodes(database).await;
    app.register("ann@example.org").await;
    let browser = app.browser().log_in("ann@example.org").await;
    let newer = app.browser().log_in("ann@example.org").await;
    assert_problem!(browser.me().await, 401, "session_replaced");
    for day in 1..30 {
        app.clock.advance(Span::days(1));
        let node = &app.nodes[day % 2];
        newer.moved_to(node).me().await.expect(200);
        node.auth.flush().await.expect("written");
    }
    app.clock.advance(Span::days(1));
    assert_problem!(newer.me().await, 401, "session_expired");
    assert_problem!(
        newer.moved_to(&app.nodes[1]).me().await,
        401,
        "session_expired"
    );
}

/// ASVS 7.2.4: nobody chooses the session that a login opens.
async fn what_is_planted_is_no_session(database: Database) {
    let app = App::two_nodes(database).await;
    app.register("ann@example.org").await;
    app.register("mallory@example.org").await;
    let theirs = app.browser().log_in("mallory@example.org").await;
    let planted: Browser = app
        .browser()
        .with_cookie(theirs.cookie.as_deref().expect("a cookie"));
    let reply = planted.try_log_in("ann@example.org").await;
    let browser = planted.after(&reply);
    assert_ne!(browser.value(), theirs.value());
    assert_eq!(browser.me().await.expect(200)["email"], "ann@example.org");
    assert_eq!(
        theirs.me().await.expect(200)["email"],
        "mallory@example.org"
    );
}

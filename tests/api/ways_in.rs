//! The ways in: each is judged alike, and each form is made for those who keep their passwords elsewhere.

use doorward::{accounts::AccountPolicy, http::ApiOptions, letters::Page};
use reqwest::Method;
use serde_json::{Value, json};

use super::{start, start_with};
use crate::harness::{
    app::{App, Client, PASSWORD, Reply, Setup},
    browser::form_body,
    mailbox::Mailbox,
};

/// Where a session is opened, and the body that does it for an address.
type Way = (&'static str, fn(&str) -> Body);

const WAYS: [Way; 6] = [
    ("/v1/auth/login", |email| {
        Body::Json(json!({"email": email, "password": PASSWORD}))
    }),
    ("/v1/auth/login", |email| {
        Body::Json(json!({"email": email, "password": PASSWORD, "transport": "cookie"}))
    }),
    ("/v1/auth/login", |email| {
        Body::form(&[("username", email), ("password", PASSWORD)])
    }),
    ("/login", |email| {
        Body::form(&[("username", email), ("password", PASSWORD)])
    }),
    ("/v1/oauth/token", |email| {
        let grant = ("grant_type", "password");
        Body::form(&[grant, ("username", email), ("password", PASSWORD)])
    }),
    ("/auth/login", |email| {
        Body::Json(json!({"email": email, "password": PASSWORD}))
    }),
];

enum Body {
    Json(Value),
    Form(String),
}

impl Body {
    fn form(fields: &[(&str, &str)]) -> Self {
        Self::Form(form_body(fields))
    }
}

async fn come(client: &Client, path: &str, body: Body) -> Reply {
    let request = client.http.post(format!("{}{path}", client.url));
    let request = request.header("sec-fetch-site", "same-origin");
    let request = match body {
        Body::Json(body) => request.json(&body),
        Body::Form(body) => request
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body),
    };
    Reply::of(request.send().await.expect("an answer")).await
}

/// Whether an answer lets somebody in.
fn lets_in(reply: &Reply) -> bool {
    let shown = reply.text.contains("access_token");
    shown || reply.header("set-cookie").is_some() || reply.status < 400
}

async fn everywhere() -> (App, Mailbox) {
    let (mailbox, setup) = Mailbox::in_memory(Setup {
        accounts: AccountPolicy {
            require_verified_email: true,
            ..AccountPolicy::default()
        },
        api: ApiOptions {
            password_grant: true,
            compat: Some(String::new()),
            ..ApiOptions::default()
        },
        ..Setup::default()
    });
    (start_with(setup).await, mailbox)
}

/// ASVS 6.3.4: there is one judgement, whichever way somebody comes.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_log_in_may_not_on_any_way() {
    let (app, mailbox) = everywhere().await;
    let guest = app.anonymous();
    for (n, (path, body)) in WAYS.into_iter().enumerate() {
        let email = format!("way{n}@example.org");
        let what = format!("way {n}, {path}");
        app.register(&email).await;
        let early = come(&guest, path, body(&email)).await;
        assert!(!lets_in(&early), "unverified, {what}: {}", early.text);
        let proof = json!({"token": mailbox.newest(&app, &email).await.token()});
        let verified = guest.post("/v1/auth/email/verify", proof).await;
        verified.expect(204);
        let reply = come(&guest, path, body(&email)).await;
        assert!(lets_in(&reply), "verified, {what}: {}", reply.text);
        let own = app.log_in(&email).await;
        let proof = json!({"password": PASSWORD});
        own.post("/v1/auth/me/deactivate", proof).await.expect(204);
        let late = come(&guest, path, body(&email)).await;
        assert!(!lets_in(&late), "deactivated, {what}: {}", late.text);
    }
}

/// ASVS 6.2.6, 6.2.7: masked, filled in by password managers, and nothing stands in the way of pasting.
#[tokio::test(flavor = "multi_thread")]
async fn forms_mask_passwords_and_take_them_from_anywhere() {
    let (app, _mailbox) = everywhere().await;
    let pages = Page::ALL.map(Page::path).into_iter().chain(["/login"]);
    let mut passwords = 0;
    for path in pages {
        let page = app.anonymous().get(path).await;
        assert_eq!(page.status, 200, "{path}");
        for hindrance in ["onpaste", "oncopy", "'paste'", "\"paste\"", "=\"off\""] {
            assert!(!page.text.contains(hindrance), "{path}: {hindrance}");
        }
        for input in page.text.split("<input ").skip(1) {
            let input = input.split('>').next().expect("a tag");
            if !input.contains("password") {
                continue;
            }
            passwords += 1;
            assert!(input.contains("type=\"password\""), "{path}: {input}");
            assert!(
                input.contains("autocomplete=\"new-password\"")
                    || input.contains("autocomplete=\"current-password\""),
                "{path}: {input}"
            );
            assert!(!input.contains("maxlength"), "{path}: {input}");
        }
    }
    assert!(passwords >= 4, "{passwords}");
}

/// ASVS 6.4.2.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_asked_for_a_hint_or_a_secret_answer() {
    let document = doorward::http::openapi_document("http://localhost");
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let schemas = document["components"]["schemas"].as_object();
    let schemas = schemas.expect("schemas").values();
    let fields = schemas.flat_map(|schema| schema["properties"].as_object().into_iter().flatten());
    let names: Vec<&str> = fields.map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"password"));
    for name in names {
        // What kind of token it is that a client asks about (RFC 7662).
        let hints = name.contains("hint") && name != "token_type_hint";
        assert!(
            !hints && !name.contains("question") && !name.contains("answer"),
            "{name}"
        );
    }
    let app = start().await;
    let body = json!({"email": "ann@example.org", "password": PASSWORD, "password_hint": "horse"});
    let refused = app.anonymous();
    let refused = refused
        .send(Method::POST, "/v1/auth/register", Some(body))
        .await;
    assert_eq!(refused.problem(), (400, "unknown_field".to_owned()));
}

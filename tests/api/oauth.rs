//! OAuth's endpoints: what libraries that know nothing of Doorward expect of them.

use doorward::{
    clock::Span,
    entropy::SystemEntropy,
    http::ApiOptions,
    model::client::{Clients, fresh_client},
};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{start, start_with};
use crate::{
    assert_problem,
    harness::{
        app::{App, Client, PASSWORD, Reply, Setup, fresh_email},
        browser::form_body,
    },
};

/// A server with one client, and the client's secret.
async fn with_client() -> (App, String) {
    let (secret, entry) = fresh_client("notes", &SystemEntropy);
    let app = start_with(Setup {
        api: ApiOptions {
            clients: Clients::parse(&[entry]).expect("a client"),
            password_grant: true,
            ..ApiOptions::default()
        },
        ..Setup::default()
    })
    .await;
    (app, secret.expose().clone())
}

fn form(app: &App, path: &str, fields: &[(&str, &str)]) -> RequestBuilder {
    let client = app.anonymous();
    let request = client.http.post(format!("{}{path}", client.url));
    request
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form_body(fields))
}

async fn sent(request: RequestBuilder) -> Reply {
    Reply::of(request.send().await.expect("an answer")).await
}

async fn token(app: &App, fields: &[(&str, &str)]) -> Reply {
    sent(form(app, "/v1/oauth/token", fields)).await
}

/// An error of RFC 6749 §5.2.
#[track_caller]
fn assert_error(reply: &Reply, status: u16, error: &str, code: &str) {
    let body = reply.json();
    let said = (reply.status, body["error"].as_str(), body["code"].as_str());
    assert_eq!(said, (status, Some(error), Some(code)), "{}", reply.text);
    assert!(body["error_description"].is_string(), "{body}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_refreshed_and_reuse_is_told() {
    let app = start().await;
    let ann = app.user("ann@example.org").await;
    let old = ann.refresh_token();
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", old)];
    let answer = token(&app, &refresh).await;
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let answer = answer.expect(200);
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], 900);
    let ann = ann.with_pair(&answer);
    ann.me().await.expect(200);
    app.clock.advance(Span::minutes(1));
    let reused = token(&app, &refresh).await;
    assert_error(&reused, 400, "invalid_grant", "refresh_reused");
    assert_problem!(ann.me().await, 401, "refresh_reused");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_token_endpoint_does_not_take_it_says() {
    let app = start().await;
    app.register("ann@example.org").await;
    for (fields, error, code) in [
        (&[][..], "invalid_request", "invalid_request"),
        (
            &[("grant_type", "refresh_token")],
            "invalid_request",
            "invalid_request",
        ),
        (
            &[("grant_type", "refresh_token"), ("refresh_token", "dwr_x")],
            "invalid_grant",
            "token_invalid",
        ),
        (
            &[
                ("grant_type", "password"),
                ("username", "ann@example.org"),
                ("password", PASSWORD),
            ],
            "unsupported_grant_type",
            "unsupported_grant_type",
        ),
        (
            &[("grant_type", "authorization_code"), ("code", "x")],
            "unsupported_grant_type",
            "unsupported_grant_type",
        ),
    ] {
        assert_error(&token(&app, fields).await, 400, error, code);
    }
    let twice = [("grant_type", "refresh_token"), ("grant_type", "password")];
    let refused = token(&app, &twice).await;
    assert_error(&refused, 400, "invalid_request", "invalid_request");
    let client = app.anonymous();
    let body = json!({"grant_type": "refresh_token"});
    let json = client.post("/v1/oauth/token", body).await;
    assert_problem!(json, 415, "unsupported_media_type");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_grant_logs_in_where_it_is_on() {
    let (app, _) = with_client().await;
    app.register("ann@example.org").await;
    let login = |password| {
        [
            ("grant_type", "password"),
            ("username", "ann@example.org"),
            ("password", password),
        ]
    };
    let answer = token(&app, &login(PASSWORD)).await.expect(200);
    let ann = app.anonymous().with_pair(&answer);
    ann.me().await.expect(200);
    ann.refreshed().await.me().await.expect(200);
    let wrong = token(&app, &login("a wrong password")).await;
    assert_error(&wrong, 400, "invalid_grant", "bad_credentials");
    let incomplete = token(&app, &login(PASSWORD)[..2]).await;
    assert_error(&incomplete, 400, "invalid_request", "invalid_request");
}

async fn introspect(app: &App, secret: &str, text: &str, hint: Option<&str>) -> Value {
    let mut fields = vec![("token", text)];
    fields.extend(hint.map(|hint| ("token_type_hint", hint)));
    let request = form(app, "/v1/oauth/introspect", &fields);
    let reply = sent(request.basic_auth("notes", Some(secret))).await;
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    reply.expect(200)
}

/// RFC 7662.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_learns_what_a_token_is_worth() {
    let (app, secret) = with_client().await;
    let ann = app.user("ann@example.org").await;
    let me = ann.me().await.expect(200);
    let session = ann.session_id().await;
    let hints = [
        None,
        Some("access_token"),
        Some("refresh_token"),
        Some("other"),
    ];
    for hint in hints {
        let about = introspect(&app, &secret, ann.token(), hint).await;
        assert_eq!(about["active"], true, "{hint:?}");
        assert_eq!(about["token_type"], "Bearer");
        assert_eq!((&about["sub"], &about["email"]), (&me["id"], &me["email"]));
        assert_eq!(about["sid"], json!(session));
        assert_eq!(about["roles"], json!([]));
        assert_eq!(about["username"], "ann@example.org");
        let (iat, exp) = (about["iat"].as_i64(), about["exp"].as_i64());
        assert_eq!(exp.zip(iat).map(|(exp, iat)| exp - iat), Some(900));
        assert_eq!(
            (&about["iss"], &about["aud"]),
            (&json!("doorward"), &json!("doorward"))
        );

        let about = introspect(&app, &secret, ann.refresh_token(), hint).await;
        assert_eq!((&about["active"], &about["sub"]), (&json!(true), &me["id"]));
        assert_eq!(about["token_type"], "refresh_token");
    }
    let refreshed = ann.refreshed().await;
    let inactive = json!({"active": false});
    let browser = app
        .cookie(&{
            let email = fresh_email();
            app.register(&email).await;
            email
        })
        .await;
    for text in [ann.refresh_token(), "", "x", "dwr_x", &browser] {
        assert_eq!(
            introspect(&app, &secret, text, None).await,
            inactive,
            "{text}"
        );
    }
    app.clock.advance(Span::minutes(16));
    assert_eq!(
        introspect(&app, &secret, ann.token(), None).await,
        inactive,
        "expired"
    );
    let alive = introspect(&app, &secret, refreshed.refresh_token(), None).await;
    assert_eq!(
        alive["active"], true,
        "asking about a refresh token does not use it"
    );
    refreshed.call("/v1/auth/logout").await.expect(204);
    for text in [refreshed.token(), refreshed.refresh_token()] {
        assert_eq!(introspect(&app, &secret, text, None).await, inactive);
    }
}

/// Asking for a client is a use of the session: else one that only ever uses an application behind
/// introspection would become idle, and a copied refresh token would go unnoticed.
#[tokio::test(flavor = "multi_thread")]
async fn an_introspected_access_token_was_used() {
    let (app, secret) = with_client().await;
    let old = app.user("ann@example.org").await;
    let new = old.refreshed().await;
    introspect(&app, &secret, new.token(), None).await;
    app.clock.advance(Span::minutes(1));
    assert_problem!(old.try_refresh().await, 401, "refresh_reused");
}

/// One of the tokens that a client carries.
type Which = fn(&Client) -> &str;

/// RFC 7009.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_revokes_a_session_by_any_of_its_tokens() {
    let (app, secret) = with_client().await;
    let revoke = async |text: &str, hint: Option<&str>| {
        let mut fields = vec![("token", text)];
        fields.extend(hint.map(|hint| ("token_type_hint", hint)));
        let request = form(&app, "/v1/oauth/revoke", &fields);
        let request = request.basic_auth("notes", Some(&secret));
        assert_eq!(sent(request).await.expect(200), json!({}));
    };
    let access: Which = |client| client.token();
    let refresh: Which = |client| client.refresh_token();
    for (which, hint) in [
        (access, None),
        (access, Some("refresh_token")),
        (refresh, Some("refresh_token")),
        (refresh, Some("access_token")),
    ] {
        let ann = app.user(&fresh_email()).await;
        revoke(which(&ann), hint).await;
        assert_problem!(ann.me().await, 401, "session_revoked");
        assert_problem!(ann.try_refresh().await, 401, "session_revoked");
        revoke(which(&ann), hint).await;
    }
    let bystander = app.user(&fresh_email()).await;
    for text in ["", "x", "dwr_x"] {
        revoke(text, None).await;
    }
    // An expired token and a used one still say whose session it is.
    let ann = app.user(&fresh_email()).await;
    let later = ann.refreshed().await;
    later.me().await.expect(200);
    app.clock.advance(Span::minutes(16));
    revoke(ann.refresh_token(), None).await;
    assert_problem!(later.try_refresh().await, 401, "session_revoked");
    bystander.refreshed().await.me().await.expect(200);
}

/// RFC 6749 §2.3, ASVS 8.3.3.
#[tokio::test(flavor = "multi_thread")]
async fn only_declared_clients_may_ask() {
    let (app, secret) = with_client().await;
    let ann = app.user("ann@example.org").await;
    for path in ["/v1/oauth/introspect", "/v1/oauth/revoke"] {
        let about = [("token", ann.token())];
        let ask = || form(&app, path, &about);
        let refused = [
            sent(ask()).await,
            sent(ask().basic_auth("notes", Some("dwc_wrong"))).await,
            sent(ask().basic_auth("other", Some(&secret))).await,
            sent(ask().basic_auth("notes", None::<&str>)).await,
            sent(ask().bearer_auth(ann.token())).await,
            sent(ask().header("authorization", "Basic !")).await,
            sent(form(&app, path, &[about[0], ("client_id", "notes")])).await,
        ];
        for reply in refused {
            assert_error(&reply, 401, "invalid_client", "invalid_client");
            let challenge = reply.header("www-authenticate").expect("a challenge");
            assert!(challenge.starts_with("Basic "), "{challenge}");
        }
        let both = [about[0], ("client_id", "notes"), ("client_secret", &secret)];
        let twice = sent(form(&app, path, &both).basic_auth("notes", Some(&secret))).await;
        assert_error(&twice, 400, "invalid_request", "invalid_request");
        let nothing = sent(form(&app, path, &both[1..])).await;
        assert_error(&nothing, 400, "invalid_request", "invalid_request");
    }
    ann.me().await.expect(200);
    let in_body = [
        ("token", ann.token()),
        ("client_id", "notes"),
        ("client_secret", &secret),
    ];
    let answer = sent(form(&app, "/v1/oauth/introspect", &in_body)).await;
    assert_eq!(answer.expect(200)["active"], true);
    // A server without clients has nobody to ask.
    let closed = start().await;
    let ask = form(&closed, "/v1/oauth/introspect", &[("token", "x")]);
    let reply = sent(ask.basic_auth("notes", Some(&secret))).await;
    assert_error(&reply, 401, "invalid_client", "invalid_client");
}

/// RFC 8414.
#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_tells_the_truth() {
    let path = "/.well-known/oauth-authorization-server";
    let (with, _) = with_client().await;
    let without = start().await;
    let about = with.anonymous().get(path).await.expect(200);
    assert_eq!(about["issuer"], "doorward");
    assert_eq!(
        about["grant_types_supported"],
        json!(["refresh_token", "password"])
    );
    assert_eq!(about["response_types_supported"], json!([]));
    let bare = without.anonymous().get(path).await.expect(200);
    assert_eq!(bare["grant_types_supported"], json!(["refresh_token"]));
    for (app, about, endpoints) in [(&with, about, 5), (&without, bare, 3)] {
        let mut found = 0;
        for (name, value) in about.as_object().expect("an object") {
            let Some(address) = value.as_str().filter(|_| name != "issuer") else {
                continue;
            };
            let path = address.strip_prefix("http://localhost:8080").expect("ours");
            let reply = app.anonymous().get(path).await;
            assert!(
                [200, 405].contains(&reply.status),
                "{name}: {}",
                reply.status
            );
            found += 1;
        }
        assert_eq!(found, endpoints, "{about}");
    }
}

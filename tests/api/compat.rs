//! The paths of hand-written services: the whole life of a client that knows no others.

use doorward::{accounts::AccountPolicy, http::ApiOptions};
use reqwest::Method;
use serde_json::{Value, json};

use super::{assert_refused, assert_sound, sqlite, start, start_with};
use crate::harness::{
    app::{App, Client, PASSWORD, Reply, Setup},
    browser::form_body,
    mailbox::Mailbox,
};

const ANN: &str = "ann@example.org";
const NEW_PASSWORD: &str = "another horse entirely";

/// A node that sends letters, and what it sends, with such paths below a prefix.
async fn below(prefix: &str, accounts: AccountPolicy) -> (App, Mailbox) {
    let (mailbox, setup) = Mailbox::in_memory(Setup {
        accounts,
        api: ApiOptions {
            compat: Some(prefix.to_owned()),
            ..ApiOptions::default()
        },
        ..Setup::default()
    });
    (start_with(setup).await, mailbox)
}

fn verified() -> AccountPolicy {
    AccountPolicy {
        require_verified_email: true,
        ..AccountPolicy::default()
    }
}

/// The body of a sound answer with this status: JSON, and no cookie.
#[track_caller]
fn told(reply: Reply, status: u16) -> Value {
    assert_sound("a compatible path", &reply);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    reply.expect(status)
}

async fn log_in(client: &Client, password: &str) -> Reply {
    let body = json!({"email": ANN, "password": password});
    client.post("/balance_hub/auth/login", body).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_lives_its_whole_life() {
    let (app, mailbox) = below("/balance_hub", verified()).await;
    let guest = app.anonymous();
    let post = async |path: &str, body| guest.post(&format!("/balance_hub{path}"), body).await;

    let body = json!({
        "email": ANN, "password": PASSWORD, "username": "ann", "attributes": {"plan": "pro"}, "terms": true,
    });
    let ann = told(post("/auth/sign_up", body.clone()).await, 201);
    assert_eq!(
        (&ann["email"], &ann["username"], &ann["attributes"]["plan"]),
        (&json!(ANN), &json!("ann"), &json!("pro"))
    );
    let taken = post("/auth/register", body).await;
    assert_refused("taken", &taken, 409, "email_taken");
    let early = log_in(&guest, PASSWORD).await;
    assert_refused("unverified", &early, 403, "email_unverified");

    let code = mailbox.newest(&app, ANN).await.code();
    let proof = json!({"email": ANN, "code": code});
    let done = told(post("/auth/verify-email", proof.clone()).await, 200);
    assert!(done["message"].is_string(), "{done}");
    let again = post("/auth/verify-email", proof).await;
    assert_refused("spent", &again, 400, "code_invalid");

    let pair = told(log_in(&guest, PASSWORD).await, 200);
    assert_eq!(
        (&pair["token_type"], &pair["expires_in"]),
        (&json!("bearer"), &json!(900))
    );
    let client = guest.with_pair(&pair);
    let me = told(client.get("/balance_hub/protected").await, 200);
    assert_eq!(
        (&me["id"], &me["email_verified"]),
        (&ann["id"], &json!(true))
    );
    assert_eq!(me, client.me().await.expect(200));

    let body = json!({"refresh_token": client.refresh_token()});
    let client = client.with_pair(&told(post("/auth/refresh", body).await, 200));
    let change = json!({"username": "anna", "attributes": {"plan": "free"}, "email": "x"});
    let path = "/balance_hub/auth/update-user";
    let changed = told(client.put(path, change).await, 200);
    assert_eq!(
        (
            &changed["username"],
            &changed["attributes"],
            &changed["email"]
        ),
        (&json!("anna"), &json!({"plan": "free"}), &json!(ANN))
    );
    let cleared = told(client.put(path, json!({"username": null})).await, 200);
    assert_eq!(
        (&cleared["username"], &cleared["attributes"]["plan"]),
        (&Value::Null, &json!("free"))
    );

    let forgot = told(
        post("/auth/password/forget", json!({"email": ANN})).await,
        202,
    );
    let stranger = json!({"email": "bob@example.org"});
    let unknown = told(post("/auth/password/forget", stranger).await, 202);
    assert_eq!(forgot, unknown);
    let code = mailbox.newest(&app, ANN).await.code();
    let short = json!({"email": ANN, "code": code, "new_password": "short"});
    let refused = post("/auth/reset-password", short).await;
    assert_refused("short", &refused, 422, "invalid_input");
    let body = json!({"email": ANN, "code": code, "new_password": NEW_PASSWORD});
    told(post("/auth/reset-password", body).await, 200);

    let ended = client.get("/balance_hub/protected").await;
    assert_refused("after the reset", &ended, 401, "password_changed");
    let old = log_in(&guest, PASSWORD).await;
    assert_refused("the old password", &old, 401, "bad_credentials");
    let client = guest.with_pair(&told(log_in(&guest, NEW_PASSWORD).await, 200));
    let logout = "/balance_hub/auth/logout";
    assert!(told(client.call(logout).await, 200)["message"].is_string());
    let ended = client.get("/balance_hub/protected").await;
    assert_refused("after the logout", &ended, 401, "logged_out");
    told(client.call(logout).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_names_of_a_path_and_both_proofs_lead_to_the_same() {
    let (app, mailbox) = below("", AccountPolicy::default()).await;
    let guest = app.anonymous();
    let body = json!({"email": ANN, "password": PASSWORD});
    told(guest.post("/auth/register", body).await, 201);
    let body = json!({"token": mailbox.newest(&app, ANN).await.token(), "email": ANN});
    told(guest.post("/auth/verify-email", body).await, 200);
    let resend = "/auth/resend-verification";
    let sent = mailbox.letters(&app).await.len();
    told(guest.post(resend, json!({"email": ANN})).await, 202);
    assert_eq!(
        mailbox.letters(&app).await.len(),
        sent,
        "nothing is left to verify"
    );

    let forgot = "/auth/request-password-reset";
    told(guest.post(forgot, json!({"email": ANN})).await, 202);
    let token = mailbox.newest(&app, ANN).await.token();
    let body = json!({"token": token, "password": NEW_PASSWORD});
    told(guest.post("/auth/password/reset", body).await, 200);
    let form = form_body(&[
        ("grant_type", "password"),
        ("username", ANN),
        ("password", NEW_PASSWORD),
        ("scope", ""),
    ]);
    told(send_form(&guest, "/auth/login", form).await, 200);
}

async fn send_form(client: &Client, path: &str, form: String) -> Reply {
    let request = client.http.post(format!("{}{path}", client.url));
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    Reply::of(request.body(form).send().await.expect("an answer")).await
}

/// Where registering conceals who has an account, the password completes the registration.
#[tokio::test(flavor = "multi_thread")]
async fn a_concealed_registration_is_completed() {
    let conceals = AccountPolicy {
        conceal_existence: true,
        ..verified()
    };
    let (app, mailbox) = below("", conceals).await;
    let guest = app.anonymous();
    let body = json!({"email": ANN, "password": PASSWORD});
    told(guest.post("/auth/sign_up", body.clone()).await, 202);
    let code = mailbox.newest(&app, ANN).await.code();
    let wrong = json!({"email": ANN, "code": code, "password": NEW_PASSWORD});
    let refused = guest.post("/auth/verify-email", wrong).await;
    assert_refused("another password", &refused, 400, "code_invalid");
    let proof = json!({"email": ANN, "code": code, "password": PASSWORD});
    told(guest.post("/auth/verify-email", proof).await, 200);
    told(guest.post("/auth/login", body).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_stands_below_the_prefix() {
    let (app, mailbox) = below("/apps/balance_hub", AccountPolicy::default()).await;
    let guest = app.anonymous();
    app.register(ANN).await;
    let path = "/apps/balance_hub/auth/verify-email";
    let page = guest.get(path).await;
    assert_eq!(page.status, 200, "{}", page.text);
    // Relative to where the page is.
    let script = "data-post=\"../../../v1/auth/email/verify\"";
    assert!(page.text.contains(script), "{}", page.text);
    let code = mailbox.newest(&app, ANN).await.code();
    let form = form_body(&[("email", ANN), ("code", &code)]);
    let done = send_form(&guest, path, form).await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert!(done.text.contains("Your address is confirmed."));
    assert_eq!(
        app.log_in(ANN).await.me().await.json()["email_verified"],
        true
    );
}

/// Only a token in `Authorization` counts (ASVS 14.2.1), and a cookie is as good as none.
#[tokio::test(flavor = "multi_thread")]
async fn cookies_and_queries_carry_no_session() {
    let (app, _mailbox) = below("", AccountPolicy::default()).await;
    app.register(ANN).await;
    let browser = app.browser().log_in(ANN).await;
    for path in ["/protected", "/protected?token=x"] {
        let reply = browser.get(path).await;
        assert_refused(path, &reply, 401, "unauthenticated");
    }
    let reply = browser.call("/auth/logout").await;
    assert_refused("logout", &reply, 401, "unauthenticated");
    assert_eq!(browser.me().await.status, 200);
    let junk = app.anonymous().with_token("x").get("/protected").await;
    assert_refused("junk", &junk, 401, "token_invalid");
    let junk = app.anonymous().with_token("x");
    let refused = junk.put("/auth/update-user", json!({})).await;
    assert_refused("junk", &refused, 401, "token_invalid");
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_read_strictly() {
    let (app, _mailbox) = below("", AccountPolicy::default()).await;
    let guest = app.anonymous();
    for (path, body, status, code) in [
        ("/auth/sign_up", json!({"email": ANN}), 400, "missing_field"),
        ("/auth/sign_up", json!({"email": 1}), 400, "wrong_type"),
        (
            "/auth/sign_up",
            json!({"email": ANN, "password": PASSWORD, "attributes": []}),
            400,
            "wrong_type",
        ),
        (
            "/auth/login",
            json!({"email": ANN, "username": "ann", "password": PASSWORD}),
            422,
            "invalid_input",
        ),
        (
            "/auth/login",
            json!({"grant_type": "implicit", "username": "ann", "password": PASSWORD}),
            400,
            "unsupported_grant_type",
        ),
        (
            "/auth/refresh",
            json!({"refresh_token": "x"}),
            401,
            "token_invalid",
        ),
        (
            "/auth/verify-email",
            json!({"email": ANN}),
            422,
            "invalid_input",
        ),
        (
            "/auth/reset-password",
            json!({"token": "x", "new_password": null}),
            400,
            "missing_field",
        ),
        ("/auth/reset-password", json!([]), 400, "malformed_json"),
        (
            "/auth/password/forget",
            json!({"email": "ann"}),
            422,
            "invalid_input",
        ),
    ] {
        let reply = guest.post(path, body.clone()).await;
        assert_refused(&format!("{path} {body}"), &reply, status, code);
        assert!(!reply.text.contains(PASSWORD), "{}", reply.text);
    }
    let twice = form_body(&[("username", "a"), ("username", "b"), ("password", "c")]);
    let refused = send_form(&guest, "/auth/login", twice).await;
    assert_refused("twice", &refused, 400, "malformed_form");
    let refused = send_form(&guest, "/auth/sign_up", String::new()).await;
    assert_refused("a form", &refused, 415, "unsupported_media_type");
    let request = guest.http.post(format!("{}/auth/login", guest.url));
    let request = request.header("content-type", "application/json");
    let request = request.body(r#"{"email": "a", "email": "b", "password": "c"}"#);
    let reply = Reply::of(request.send().await.expect("an answer")).await;
    assert_refused("twice", &reply, 400, "malformed_json");
    let long = json!({"email": "x".repeat(70_000)});
    let reply = guest.post("/auth/sign_up", long).await;
    assert_refused("long", &reply, 413, "body_too_large");
}

const PATHS: [(&str, &str); 13] = [
    ("/auth/register", "POST"),
    ("/auth/sign_up", "POST"),
    ("/auth/login", "POST"),
    ("/auth/logout", "POST"),
    ("/auth/refresh", "POST"),
    ("/auth/verify-email", "GET, POST, HEAD"),
    ("/auth/resend-verification", "POST"),
    ("/auth/request-password-reset", "POST"),
    ("/auth/password/forget", "POST"),
    ("/auth/reset-password", "POST"),
    ("/auth/password/reset", "POST"),
    ("/auth/update-user", "PUT"),
    ("/protected", "GET, HEAD"),
];

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_there_with_their_methods_or_not_at_all() {
    let (app, _mailbox) = below("/balance_hub", AccountPolicy::default()).await;
    let guest = app.anonymous();
    for (path, allow) in PATHS {
        let path = format!("/balance_hub{path}");
        let reply = guest.send(Method::DELETE, &path, None).await;
        assert_refused(&path, &reply, 405, "method_not_allowed");
        assert_eq!(reply.header("allow"), Some(allow), "{path}");
    }
    let by_default = start().await;
    // No prefix that the settings refuse takes our own paths away.
    let (odd, _mailbox) = below("/v1", AccountPolicy::default()).await;
    for (path, _) in PATHS {
        for client in [&guest, &by_default.anonymous(), &odd.anonymous()] {
            assert_refused(path, &client.get(path).await, 404, "not_found");
        }
    }
    for path in [
        "/balance_hub",
        "/balance_hub/auth",
        "/balance_hub/v1/auth/me",
    ] {
        assert_refused(path, &guest.get(path).await, 404, "not_found");
    }
    let own = odd.anonymous().get("/v1/auth/me").await;
    assert_refused("our own", &own, 401, "unauthenticated");
    let document = doorward::http::openapi_document("http://localhost");
    assert!(!document.contains("sign_up") && !document.contains("/protected"));
}

/// An app that embeds the API gives it these paths, too, and the other way round keeps its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_mounts_them() {
    use poem::{Endpoint, Request, Route};

    let app = App::start(sqlite().await).await;
    let auth = &app.nodes[0].auth;
    for (compat, status) in [(Some("/balance_hub"), 401), (None, 404)] {
        let options = ApiOptions {
            compat: compat.map(str::to_owned),
            ..ApiOptions::default()
        };
        let whole = auth.mount(Route::new(), &options);
        let request = Request::builder().uri_str("/balance_hub/protected");
        let response = whole.get_response(request.finish()).await;
        assert_eq!(response.status().as_u16(), status);
    }
}

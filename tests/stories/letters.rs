//! What users live through by mail: joining, forgetting, moving, being robbed. Letters cross a real mail
//! server over TLS.

use doorward::{accounts::AccountPolicy, clock::Span, mail::settings::SmtpTls};
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, PASSWORD, Setup},
        backend::Database,
        mailbox::Mailbox,
    },
};

for_each_store! {
    joining_by_link,
    joining_by_code,
    forgetting_the_password,
    forgetting_it_and_typing_the_code,
    moving_to_another_address,
    moving_by_code,
    a_thief_who_changed_the_password_is_thrown_out,
    a_thief_who_changed_the_address_is_thrown_out,
    an_administrator_gives_an_account_its_address_back,
    an_address_that_was_never_verified_gets_no_way_back,
    asking_for_an_address_tells_nothing,
    a_copied_refresh_token_is_told,
    a_login_from_a_new_device_is_told,
    an_invited_user_sets_the_first_password,
    an_administrator_starts_a_reset,
    letters_speak_their_readers_language,
}

const ANN: &str = "ann@example.org";
const NEW_PASSWORD: &str = "another horse entirely";
const THIEF: &str = "thief@example.com";
/// What a thief would choose.
const CHOSEN: &str = "what a thief would choose";

/// Two nodes that send letters over TLS and let nobody in who has not answered one.
async fn strict(database: Database, tls: SmtpTls) -> (App, Mailbox) {
    let setup = Setup {
        nodes: 2,
        accounts: AccountPolicy {
            require_verified_email: true,
            ..AccountPolicy::default()
        },
        ..Setup::default()
    };
    let (mailbox, setup) = Mailbox::on_server(setup, tls);
    (App::with(database, setup).await, mailbox)
}

/// Two nodes that send letters, and a user who has answered the first one and is logged in.
async fn with_ann(database: Database) -> (App, Mailbox, Client) {
    let setup = Setup {
        nodes: 2,
        ..Setup::default()
    };
    let (mailbox, setup) = Mailbox::on_server(setup, SmtpTls::Starttls);
    let app = App::with(database, setup).await;
    app.register(ANN).await;
    let body = json!({"token": mailbox.newest(&app, ANN).await.token()});
    verify(&app, body).await.expect(204);
    let ann = app.log_in(ANN).await;
    (app, mailbox, ann)
}

async fn verify(app: &App, body: Value) -> crate::harness::app::Reply {
    app.anonymous_on(app.nodes.len() - 1)
        .post("/v1/auth/email/verify", body)
        .await
}

async fn reset(app: &App, mut body: Value, password: &str) -> crate::harness::app::Reply {
    body["password"] = json!(password);
    app.anonymous_on(app.nodes.len() - 1)
        .post("/v1/auth/password/reset", body)
        .await
}

/// ASVS 2.3.1.
async fn joining_by_link(database: Database) {
    let (app, mailbox) = strict(database, SmtpTls::Implicit).await;
    app.register(ANN).await;
    assert_problem!(
        app.anonymous()
            .try_log_in(ANN, "a wrong one altogether")
            .await,
        401,
        "bad_credentials"
    );
    assert_problem!(
        app.anonymous().try_log_in(ANN, PASSWORD).await,
        403,
        "email_unverified"
    );
    let letter = mailbox.newest(&app, ANN).await;
    assert!(
        letter
            .text
            .contains("https://auth.example.org/verify-email#token=")
    );
    let body = json!({"token": letter.token()});
    verify(&app, body.clone()).await.expect(204);
    assert_problem!(verify(&app, body).await, 400, "link_invalid");
    let me = app.log_in(ANN).await.me().await.expect(200);
    assert_eq!(me["email_verified"], true);
    assert_eq!(mailbox.letters(&app).await.len(), 1);
}

async fn joining_by_code(database: Database) {
    let (app, mailbox) = strict(database, SmtpTls::Starttls).await;
    app.register(ANN).await;
    let first = mailbox.newest(&app, ANN).await;
    app.clock.advance(Span::secs(61));
    let body = json!({"email": ANN});
    let resent = app.anonymous().post("/v1/auth/email/resend", body).await;
    assert_eq!(resent.expect(202), json!({"status": "accepted"}));
    let second = mailbox.newest(&app, ANN).await;
    assert_ne!(first.code(), second.code());
    let by_code = |code: &str| json!({"email": "Ann@Example.org", "code": code});
    assert_problem!(
        verify(&app, by_code(&first.code())).await,
        400,
        "code_invalid"
    );
    verify(&app, by_code(&second.code())).await.expect(204);
    app.log_in(ANN).await;
}

/// ASVS 6.4.3, 7.4.3.
async fn forgetting_the_password(database: Database) {
    let (app, mailbox, ann) = with_ann(database).await;
    let body = json!({"email": ANN});
    app.anonymous()
        .post("/v1/auth/password/forgot", body)
        .await
        .expect(202);
    let letter = mailbox.newest(&app, ANN).await;
    let body = json!({"token": letter.token()});
    assert_problem!(
        reset(&app, body.clone(), "short").await,
        422,
        "invalid_input"
    );
    reset(&app, body.clone(), NEW_PASSWORD).await.expect(204);
    assert_problem!(ann.me().await, 401, "password_changed");
    assert_problem!(ann.try_refresh().await, 401, "password_changed");
    assert_problem!(reset(&app, body, PASSWORD).await, 400, "link_invalid");
    assert_problem!(
        app.anonymous().try_log_in(ANN, PASSWORD).await,
        401,
        "bad_credentials"
    );
    app.anonymous().log_in(ANN, NEW_PASSWORD).await;
    let told = mailbox.newest(&app, ANN).await;
    assert!(told.subject.contains("password"), "{}", told.subject);
}

async fn forgetting_it_and_typing_the_code(database: Database) {
    let (app, mailbox, ann) = with_ann(database).await;
    let body = json!({"email": ANN});
    app.anonymous()
        .post("/v1/auth/password/forgot", body)
        .await
        .expect(202);
    let letter = mailbox.newest(&app, ANN).await;
    let right = json!({"email": ANN, "code": letter.code()});
    let wrong = json!({"email": ANN, "code": other_code(&letter.code())});
    for _ in 0..4 {
        assert_problem!(
            reset(&app, wrong.clone(), NEW_PASSWORD).await,
            400,
            "code_invalid"
        );
    }
    reset(&app, right, NEW_PASSWORD).await.expect(204);
    assert_problem!(ann.me().await, 401, "password_changed");
    app.anonymous().log_in(ANN, NEW_PASSWORD).await;
}

/// Six digits that are not these.
fn other_code(code: &str) -> String {
    let number: u32 = code.parse().expect("digits");
    format!("{:06}", (number + 1) % 1_000_000)
}

/// ASVS 6.3.7, 7.5.1.
async fn moving_to_another_address(database: Database) {
    let (app, mailbox, ann) = with_ann(database).await;
    let ask = |password: &str| json!({"email": "ann@example.com", "password": password});
    assert_problem!(
        ann.post("/v1/auth/me/email", ask("a wrong one altogether"))
            .await,
        403,
        "wrong_password"
    );
    ann.post("/v1/auth/me/email", ask(PASSWORD))
        .await
        .expect(202);
    let letter = mailbox.newest(&app, "ann@example.com").await;
    assert_eq!(ann.me().await.expect(200)["email"], ANN, "not yet");
    let body = json!({"token": letter.token()});
    let confirm = async || {
        let anonymous = app.anonymous_on(1);
        anonymous.post("/v1/auth/email/confirm", body.clone()).await
    };
    confirm().await.expect(204);
    assert_problem!(confirm().await, 400, "link_invalid");
    let me = ann.me().await.expect(200);
    assert_eq!(
        (&me["email"], &me["email_verified"]),
        (&json!("ann@example.com"), &json!(true))
    );
    assert_problem!(
        app.anonymous().try_log_in(ANN, PASSWORD).await,
        401,
        "bad_credentials"
    );
    app.log_in("ann@example.com").await;
    let told = mailbox.newest(&app, ANN).await;
    assert!(told.text.contains("a***@example.com"), "{}", told.text);
    assert!(told.text.contains("/not-me#token="), "{}", told.text);
}

async fn moving_by_code(database: Database) {
    let (app, mailbox, ann) = with_ann(database).await;
    let body = json!({"email": "ann@example.com", "password": PASSWORD});
    ann.post("/v1/auth/me/email", body).await.expect(202);
    let code = mailbox.newest(&app, "ann@example.com").await.code();
    let bob = app.user("bob@example.org").await;
    let confirm = async |who: &Client| {
        let body = json!({"code": code});
        who.post("/v1/auth/me/email/confirm", body).await
    };
    assert_problem!(confirm(&bob).await, 400, "code_invalid");
    let me = confirm(&ann).await.expect(200);
    assert_eq!(me["email"], "ann@example.com");
}

async fn a_thief_who_changed_the_password_is_thrown_out(database: Database) {
    let (app, mailbox, thief) = with_ann(database).await;
    let body = json!({"current_password": PASSWORD, "new_password": "what a thief would choose"});
    thief.post("/v1/auth/me/password", body).await.expect(204);
    let told = mailbox.newest(&app, ANN).await;
    let body = json!({"token": told.token()});
    let not_me = async || {
        let anonymous = app.anonymous_on(1);
        anonymous.post("/v1/auth/not-me", body.clone()).await
    };
    not_me().await.expect(204);
    assert_problem!(not_me().await, 400, "link_invalid");
    assert_problem!(thief.me().await, 401, "session_revoked");
    assert_problem!(thief.try_refresh().await, 401, "session_revoked");
    for password in [PASSWORD, "what a thief would choose"] {
        assert_problem!(
            app.anonymous().try_log_in(ANN, password).await,
            401,
            "bad_credentials"
        );
    }
    let letter = mailbox.newest(&app, ANN).await;
    let body = json!({"token": letter.token()});
    reset(&app, body, NEW_PASSWORD).await.expect(204);
    app.anonymous().log_in(ANN, NEW_PASSWORD).await;
}

/// Moves an account to an address of a thief, who is logged in to it.
async fn stolen(app: &App, mailbox: &Mailbox, thief: &Client) {
    let body = json!({"email": THIEF, "password": PASSWORD});
    thief.post("/v1/auth/me/email", body).await.expect(202);
    let body = json!({"token": mailbox.newest(app, THIEF).await.token()});
    let confirmed = app.anonymous().post("/v1/auth/email/confirm", body).await;
    confirmed.expect(204);
}

async fn not_me(app: &App, token: &str) -> crate::harness::app::Reply {
    let anonymous = app.anonymous_on(1);
    anonymous
        .post("/v1/auth/not-me", json!({"token": token}))
        .await
}

async fn forgot(app: &App, mailbox: &Mailbox, email: &str) -> String {
    // What was caused before comes before it, and a minute ago.
    mailbox.letters(app).await;
    app.clock.advance(Span::secs(61));
    let body = json!({"email": email});
    let forgot = app.anonymous().post("/v1/auth/password/forgot", body).await;
    forgot.expect(202);
    mailbox.newest(app, email).await.token()
}

/// Whatever the thief does by mail at the new address must not take the owner's way back.
async fn a_thief_who_changed_the_address_is_thrown_out(database: Database) {
    let (app, mailbox, thief) = with_ann(database).await;
    stolen(&app, &mailbox, &thief).await;
    let way_back = mailbox.newest(&app, ANN).await.token();
    // A notice of the thief's own making, denied by the thief.
    app.clock.advance(Span::secs(1));
    let body = json!({"current_password": PASSWORD, "new_password": CHOSEN});
    thief.post("/v1/auth/me/password", body).await.expect(204);
    let own_notice = mailbox.newest(&app, THIEF).await.token();
    not_me(&app, &own_notice).await.expect(204);
    // A password by mail, a login, and another letter in the drawer.
    let first = json!({"token": forgot(&app, &mailbox, THIEF).await});
    reset(&app, first, CHOSEN).await.expect(204);
    let thief = app.anonymous().log_in(THIEF, CHOSEN).await;
    let drawer = forgot(&app, &mailbox, THIEF).await;
    // The old address, before its owner reads on.
    let body = json!({"email": ANN, "password": CHOSEN});
    let taken = app.anonymous().post("/v1/auth/register", body).await;
    assert_problem!(taken, 409, "email_taken");

    not_me(&app, &way_back).await.expect(204);
    assert_problem!(thief.me().await, 401, "session_revoked");
    let by_thief = reset(&app, json!({"token": drawer}), CHOSEN).await;
    assert_problem!(by_thief, 400, "link_invalid");
    assert_problem!(not_me(&app, &own_notice).await, 400, "link_invalid");
    let told = mailbox.newest(&app, THIEF).await;
    assert!(!told.text.contains("#token="), "{}", told.text);
    let body = json!({"token": mailbox.newest(&app, ANN).await.token()});
    reset(&app, body, NEW_PASSWORD).await.expect(204);
    let ann = app.anonymous().log_in(ANN, NEW_PASSWORD).await;
    let me = ann.me().await.expect(200);
    assert_eq!(me["email"], ANN, "it is the owner's again");
}

/// An administrator's word is not undone by a link, neither by one that was sent before.
async fn an_administrator_gives_an_account_its_address_back(database: Database) {
    let (app, mailbox, thief) = with_ann(database).await;
    stolen(&app, &mailbox, &thief).await;
    let body = json!({"current_password": PASSWORD, "new_password": CHOSEN});
    thief.post("/v1/auth/me/password", body).await.expect(204);
    let own_notice = mailbox.newest(&app, THIEF).await.token();
    let admin = app.admin("root@example.org").await;
    let id = thief.me().await.expect(200)["id"].clone();
    let path = format!("/v1/admin/users/{}", id.as_str().expect("an id"));
    let body = json!({"email": ANN, "email_verified": true});
    admin.patch(&path, body).await.expect(200);
    assert_problem!(not_me(&app, &own_notice).await, 400, "link_invalid");
    let told = mailbox.newest(&app, THIEF).await;
    assert!(told.text.contains("a***@example.org"), "{}", told.text);
    assert!(!told.text.contains("#token="), "{}", told.text);
}

/// A mistyped address is somebody else's, who has no claim to the account.
async fn an_address_that_was_never_verified_gets_no_way_back(database: Database) {
    let (mailbox, setup) = Mailbox::in_memory(Setup::default());
    let app = App::with(database, setup).await;
    let ann = app.user("anm@example.org").await;
    let body = json!({"email": ANN, "password": PASSWORD});
    ann.post("/v1/auth/me/email", body).await.expect(202);
    let code = mailbox.newest(&app, ANN).await.code();
    let body = json!({"code": code});
    ann.post("/v1/auth/me/email/confirm", body)
        .await
        .expect(200);
    assert_eq!(
        mailbox.to(&app, "anm@example.org").await.len(),
        1,
        "the first one"
    );
    app.register("anm@example.org").await;
}

/// What becomes of an earlier code does not tell whether somebody has the address that is asked for.
async fn asking_for_an_address_tells_nothing(database: Database) {
    let (app, mailbox, ann) = with_ann(database).await;
    app.register("bob@example.org").await;
    for other in ["bob@example.org", "nobody@example.org"] {
        mailbox.letters(&app).await;
        app.clock.advance(Span::secs(61));
        let ask = async |email: &str| {
            let body = json!({"email": email, "password": PASSWORD});
            ann.post("/v1/auth/me/email", body).await.expect(202)
        };
        ask("own@example.com").await;
        let code = mailbox.newest(&app, "own@example.com").await.code();
        app.clock.advance(Span::secs(1));
        ask(other).await;
        mailbox.letters(&app).await;
        let confirmed = ann
            .post("/v1/auth/me/email/confirm", json!({"code": code}))
            .await;
        assert_problem!(confirmed, 400, "code_invalid");
    }
}

async fn a_copied_refresh_token_is_told(database: Database) {
    let (app, mailbox, ann) = with_ann(database).await;
    let next = ann.refreshed().await;
    next.me().await.expect(200);
    app.clock.advance(Span::secs(11));
    assert_problem!(ann.try_refresh().await, 401, "refresh_reused");
    assert_problem!(ann.try_refresh().await, 401, "refresh_reused");
    let told = mailbox.to(&app, ANN).await;
    assert_eq!(told.len(), 2, "one to verify, one that tells");
    let body = json!({"token": told[1].token()});
    app.anonymous()
        .post("/v1/auth/not-me", body)
        .await
        .expect(204);
}

/// ASVS 6.3.5.
async fn a_login_from_a_new_device_is_told(database: Database) {
    let (app, mailbox, _) = with_ann(database).await;
    let log_in = async |agent: &str| {
        let request = app
            .anonymous()
            .http
            .post(format!("{}/v1/auth/login", app.nodes[0].url));
        let body = json!({"email": ANN, "password": PASSWORD});
        let sent = request.header("user-agent", agent).json(&body).send().await;
        assert_eq!(sent.expect("an answer").status().as_u16(), 200, "{agent}");
    };
    log_in("Mozilla/5.0 (X11; Linux) Firefox/140.0").await;
    let told = mailbox.newest(&app, ANN).await;
    assert!(told.text.contains("Firefox/"), "{}", told.text);
    assert!(told.text.contains("127.0.0"), "{}", told.text);
    let letters = mailbox.letters(&app).await.len();
    log_in("Mozilla/5.0 (X11; Linux) Firefox/141.0").await;
    assert_eq!(
        mailbox.letters(&app).await.len(),
        letters,
        "an update is no new device"
    );
}

/// ASVS 6.4.1.
async fn an_invited_user_sets_the_first_password(database: Database) {
    let (app, mailbox, _) = with_ann(database).await;
    let admin = app.admin("root@example.org").await;
    let body = json!({"email": "ben@example.org", "invite": true});
    let made = admin.post("/v1/admin/users", body).await.expect(201);
    assert!(made.get("password_link").is_none(), "{made}");
    let letter = mailbox.newest(&app, "ben@example.org").await;
    assert!(
        letter.text.contains("/set-password#token="),
        "{}",
        letter.text
    );
    let body = json!({"token": letter.token()});
    reset(&app, body, NEW_PASSWORD).await.expect(204);
    let me = app
        .anonymous()
        .log_in("ben@example.org", NEW_PASSWORD)
        .await;
    assert_eq!(me.me().await.expect(200)["email_verified"], true);
    assert_eq!(
        mailbox.to(&app, "ben@example.org").await.len(),
        1,
        "a first password is no news"
    );
}

/// ASVS 6.4.6.
async fn an_administrator_starts_a_reset(database: Database) {
    let (app, mailbox, ann) = with_ann(database).await;
    let admin = app.admin("root@example.org").await;
    let id = ann.me().await.expect(200)["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let path = format!("/v1/admin/users/{id}/reset-password");
    let answer = admin.call(&path).await.expect(202);
    assert_eq!(answer, json!({"status": "accepted"}));
    ann.me().await.expect(200);
    let body = json!({"token": mailbox.newest(&app, ANN).await.token()});
    reset(&app, body, NEW_PASSWORD).await.expect(204);
    assert_problem!(ann.me().await, 401, "password_changed");
}

async fn letters_speak_their_readers_language(database: Database) {
    let (app, mailbox, _) = with_ann(database).await;
    let request = app
        .anonymous()
        .http
        .post(format!("{}/v1/auth/register", app.nodes[0].url));
    let body = json!({"email": "uwe@example.org", "password": PASSWORD});
    let sent = request
        .header("accept-language", "de-AT, en;q=0.5")
        .json(&body)
        .send()
        .await;
    assert_eq!(sent.expect("an answer").status().as_u16(), 201);
    let letter = mailbox.newest(&app, "uwe@example.org").await;
    assert!(letter.html.contains("lang=\"de\""), "{}", letter.html);
    assert!(letter.text.contains("Adresse"), "{}", letter.text);
}

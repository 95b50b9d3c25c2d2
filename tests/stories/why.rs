//! "Why was I logged out?": each way in which a session ends has its sentence.

use doorward::{
    accounts::AccountPolicy, clock::Span, ids::SessionId, roles::Actor, sessions::SessionPolicy,
};
use serde_json::{Value, json};

use crate::{
    for_each_store,
    harness::{
        app::{App, Client, PASSWORD, Setup},
        backend::Database,
        mailbox::Mailbox,
    },
};

for_each_store! {
    it_says_who_ended_a_session,
    it_names_the_login_that_took_its_place,
    it_says_what_else_ends_sessions,
    it_says_what_came_by_letter,
    it_says_that_the_account_is_gone,
    it_tells_what_happened_while_it_was_open,
    it_guesses_nothing,
}

const ANN: &str = "ann@example.org";

async fn start(database: Database) -> (App, Client) {
    let sessions = SessionPolicy {
        max_per_user: 3,
        ..SessionPolicy::default()
    };
    let setup = Setup {
        sessions,
        ..Setup::default()
    };
    let app = App::with(database, setup).await;
    let admin = app.admin("root@example.org").await;
    app.register(ANN).await;
    (app, admin)
}

async fn why(admin: &Client, session: &str) -> Value {
    let path = format!("/v1/admin/sessions/{session}/why");
    admin.get(&path).await.expect(200)
}

/// Fails unless a session ended for this reason and its story says so.
async fn assert_ended(admin: &Client, session: &str, reason: &str, sentence: &str) {
    let story = why(admin, session).await;
    assert_eq!(story["state"], "ended", "{story}");
    assert_eq!(story["ended"]["reason"], reason, "{story}");
    let text = story["text"].as_str().expect("a text");
    let opened = format!("Session {session} of user");
    assert!(text.starts_with(&opened), "{text}");
    assert!(text.contains(" by password, from 127.0.0.1"), "{text}");
    assert!(text.contains(sentence), "{text}");
    assert!(text.ends_with('.'), "{text}");
}

/// A login of Ann's, later than all before, with the id of its session.
async fn log_in(app: &App) -> (Client, String) {
    app.clock.advance(Span::secs(1));
    let ann = app.log_in(ANN).await;
    let session = ann.session_id().await;
    (ann, session)
}

async fn id_of(client: &Client) -> String {
    let me = client.me().await.expect(200);
    me["id"].as_str().expect("an id").to_owned()
}

async fn it_says_who_ended_a_session(database: Database) {
    let (app, admin) = start(database).await;
    let root = id_of(&admin).await;

    let (ann, session) = log_in(&app).await;
    ann.call("/v1/auth/logout").await.expect(204);
    assert_ended(
        &admin,
        &session,
        "logged_out",
        "its user logged out, from 127.0.0.1",
    )
    .await;

    let (ann, _) = log_in(&app).await;
    let (_, session) = log_in(&app).await;
    let path = format!("/v1/auth/sessions/{session}");
    ann.delete(&path).await.expect(204);
    let sentence = "its user ended it from another session";
    assert_ended(&admin, &session, "revoked", sentence).await;

    let (_, session) = log_in(&app).await;
    let path = format!("/v1/admin/sessions/{session}/revoke");
    admin.call(&path).await.expect(204);
    let sentence = format!("it was revoked by administrator {root}");
    assert_ended(&admin, &session, "revoked", &sentence).await;

    let (_, session) = log_in(&app).await;
    let id: SessionId = session.parse().expect("an id");
    let auth = &app.nodes[0].auth;
    let revoked = auth.admin().revoke_session(Actor::Operator, id).await;
    revoked.expect("revoked");
    let sentence = "it was revoked by an operator, on the command line.";
    assert_ended(&admin, &session, "revoked", sentence).await;

    let (ann, session) = log_in(&app).await;
    let revoked = auth.sessions().revoke_by_token(ann.token()).await;
    revoked.expect("revoked");
    let sentence = "it was revoked by a service, by a token of it";
    assert_ended(&admin, &session, "revoked", sentence).await;

    let (ann, session) = log_in(&app).await;
    let path = format!("/v1/admin/users/{}", id_of(&ann).await);
    let deactivated = admin.call(&format!("{path}/deactivate")).await;
    deactivated.expect(200);
    let sentence = format!("the account was deactivated by administrator {root}");
    assert_ended(&admin, &session, "account_deactivated", &sentence).await;
    admin.call(&format!("{path}/activate")).await.expect(200);

    // Where the person was is forgotten; who erased them is not.
    let (_, session) = log_in(&app).await;
    admin.delete(&path).await.expect(204);
    let story = why(&admin, &session).await;
    let text = story["text"].as_str().expect("a text");
    let sentence = format!("the account was erased by administrator {root}");
    assert!(text.contains(&sentence), "{text}");
    assert_eq!(story["opened"]["details"], Value::Null);
    assert_eq!(story["ended"]["reason"], "account_erased");
}

async fn it_names_the_login_that_took_its_place(database: Database) {
    let app = App::start(database).await;
    let admin = app.admin("root@example.org").await;
    app.register(ANN).await;
    let (_, first) = log_in(&app).await;
    app.clock.advance(Span::minutes(5));
    let agent = "Laptop\u{1}/2";
    let login = app
        .anonymous()
        .http
        .post(format!("{}/v1/auth/login", app.nodes[0].url));
    let login = login.header("user-agent", agent.replace('\u{1}', "\t"));
    let login = login.json(&json!({"email": ANN, "password": PASSWORD}));
    let answer: Value = login
        .send()
        .await
        .expect("sent")
        .json()
        .await
        .expect("JSON");
    let second = app.anonymous().with_pair(&answer).session_id().await;

    assert_ended(&admin, &first, "replaced", "a newer login took its place").await;
    let story = why(&admin, &first).await;
    assert_eq!(story["ended"]["replaced_by"]["session_id"], second);
    assert_eq!(story["ended"]["replaced_by"]["at"], app.now().to_string());
    let text = story["text"].as_str().expect("a text");
    let from = format!(
        "session {second}, opened at {} by password, from 127.0.0.1",
        app.now()
    );
    assert!(text.contains(&from), "{text}");
    assert!(
        text.contains("(Laptop/2)"),
        "nothing in it steers a terminal: {text:?}"
    );
}

async fn it_says_what_else_ends_sessions(database: Database) {
    let (app, admin) = start(database).await;
    let root = id_of(&admin).await;

    let (_, session) = log_in(&app).await;
    let (ann, _) = log_in(&app).await;
    let path = format!("/v1/admin/users/{}", id_of(&ann).await);
    let limit = admin.patch(&path, json!({"max_sessions": 1})).await;
    limit.expect(200);
    let sentence = format!("sessions was lowered by administrator {root}");
    assert_ended(&admin, &session, "limit_lowered", &sentence).await;
    let limit = admin.patch(&path, json!({"max_sessions": null})).await;
    limit.expect(200);

    let (_, session) = log_in(&app).await;
    let body = json!({"current_password": PASSWORD, "new_password": "another horse entirely"});
    ann.post("/v1/auth/me/password", body).await.expect(204);
    let sentence = "the password was changed by its user";
    assert_ended(&admin, &session, "password_changed", sentence).await;
    let body = json!({"current_password": "another horse entirely", "new_password": PASSWORD});
    ann.post("/v1/auth/me/password", body).await.expect(204);
    ann.call("/v1/auth/logout").await.expect(204);

    let (ann, session) = log_in(&app).await;
    let once = ann.refreshed().await;
    once.refreshed().await.me().await.expect(200);
    assert_eq!(ann.try_refresh().await.status, 401);
    let sentence = "a refresh token that had been used before was used again";
    assert_ended(&admin, &session, "refresh_reused", sentence).await;

    let (ann, session) = log_in(&app).await;
    app.clock.advance(Span::days(8));
    assert_eq!(ann.try_refresh().await.status, 401);
    let admin = app.log_in("root@example.org").await;
    let sentence = "it had not been used for too long";
    assert_ended(&admin, &session, "idle", sentence).await;

    // Nobody used it since, so that nothing was recorded.
    let (_, session) = log_in(&app).await;
    app.clock.advance(Span::days(31));
    let admin = app.log_in("root@example.org").await;
    let sentence = "it had reached the end of its lifetime";
    assert_ended(&admin, &session, "expired", sentence).await;
}

async fn it_says_what_came_by_letter(database: Database) {
    let (mailbox, setup) = Mailbox::in_memory(Setup::default());
    let app = App::with(database, setup).await;
    app.admin("root@example.org").await;
    app.register(ANN).await;
    let verify = json!({"token": mailbox.newest(&app, ANN).await.token()});
    let verified = app.anonymous().post("/v1/auth/email/verify", verify).await;
    verified.expect(204);
    let (_, session) = log_in(&app).await;
    app.clock.advance(Span::minutes(2));
    let anonymous = app.anonymous();
    let body = json!({"email": ANN});
    anonymous
        .post("/v1/auth/password/forgot", body)
        .await
        .expect(202);
    let token = mailbox.newest(&app, ANN).await.token();
    let body = json!({"token": token, "password": "another horse entirely"});
    let reset = app.anonymous().post("/v1/auth/password/reset", body).await;
    reset.expect(204);
    let admin = app.log_in("root@example.org").await;
    let sentence = "the password was reset by a link or a code from a letter, from 127.0.0.1.";
    assert_ended(&admin, &session, "password_changed", sentence).await;

    let told = mailbox.newest(&app, ANN).await.token();
    app.clock.advance(Span::secs(1));
    let ann = app.anonymous().log_in(ANN, "another horse entirely").await;
    let session = ann.session_id().await;
    let body = json!({"token": told});
    anonymous.post("/v1/auth/not-me", body).await.expect(204);
    let sentence = "used the link in a notice to say that a change was not theirs";
    assert_ended(&admin, &session, "revoked", sentence).await;
}

async fn it_says_that_the_account_is_gone(database: Database) {
    let accounts = AccountPolicy {
        require_verified_email: true,
        unverified_ttl: Span::days(7),
        ..AccountPolicy::default()
    };
    let (_mailbox, strict) = Mailbox::in_memory(Setup {
        accounts,
        ..Setup::default()
    });
    let mut app = App::with(database, strict).await;
    let lax = app.add_node(&Setup::default()).await;
    app.register(ANN).await;
    let ann = app.anonymous_on(lax).log_in(ANN, PASSWORD).await;
    let session = ann.session_id().await;
    app.clock.advance(Span::days(8));
    let swept = app.nodes[0].auth.sweeper().sweep().await;
    assert_eq!(swept.expect("an answer").expect("swept").accounts, 1);

    let story = app.nodes[0]
        .auth
        .audit()
        .story(session.parse().expect("an id"));
    let story = story.await.expect("a story").to_string();
    let sentence = "the account was removed, since its address was never verified.";
    assert!(story.ends_with(sentence), "{story}");
}

async fn it_tells_what_happened_while_it_was_open(database: Database) {
    let (app, admin) = start(database).await;
    let (ann, session) = log_in(&app).await;
    for _ in 0..2 {
        app.clock.advance(Span::minutes(1));
        let proof = json!({"password": PASSWORD});
        ann.post("/v1/auth/reauthenticate", proof).await.expect(204);
    }
    let proved = app.now();
    ann.refreshed().await;
    app.clock.advance(Span::secs(5));
    ann.try_refresh().await.expect(200);

    let story = why(&admin, &session).await;
    assert_eq!(story["state"], "open");
    assert_eq!(story["ended"], Value::Null);
    assert_eq!(
        story["reauthenticated"],
        json!({"times": 2, "last": proved.to_string()})
    );
    assert_eq!(
        story["refresh_repeated"],
        json!({"times": 1, "last": app.now().to_string()})
    );
    let text = story["text"].as_str().expect("a text");
    for sentence in [
        format!("Its user proved again who they are 2 times, last at {proved}."),
        format!("lost and given again once, last at {}.", app.now()),
        "It is still open.".to_owned(),
    ] {
        assert!(text.contains(&sentence), "{text}");
    }
}

async fn it_guesses_nothing(database: Database) {
    let (app, admin) = start(database).await;
    let story = why(&admin, "01a1fd08-c4b9-7c5d-8c09-c269bf8dc48f").await;
    assert_eq!(
        (
            &story["state"],
            &story["user_id"],
            &story["opened"],
            &story["ended"]
        ),
        (&json!("unknown"), &Value::Null, &Value::Null, &Value::Null)
    );
    let text = story["text"].as_str().expect("a text");
    assert!(
        text.starts_with("Nothing is known of session 01a1fd08"),
        "{text}"
    );

    // Another session's end is not taken for one's own.
    let (ann, mine) = log_in(&app).await;
    let (_, other) = log_in(&app).await;
    ann.delete(&format!("/v1/auth/sessions/{other}"))
        .await
        .expect(204);
    assert_eq!(why(&admin, &mine).await["state"], "open");
}

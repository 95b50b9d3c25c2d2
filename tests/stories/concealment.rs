//! Registering where nobody may learn which addresses have accounts.

use doorward::{accounts::AccountPolicy, clock::Span};
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, PASSWORD, Reply, Setup},
        backend::Database,
        mailbox::Mailbox,
        race,
    },
};

for_each_store! {
    an_account_exists_once_its_address_is_confirmed_with_the_password,
    nobody_puts_a_password_on_the_address_of_somebody_else,
    the_owner_of_a_taken_address_gets_a_letter,
    the_letter_can_be_sent_once_more,
    a_user_name_that_is_taken_is_said,
    of_fifty_confirmations_one_makes_the_account,
}

const ANN: &str = "ann@example.org";

pub async fn concealing(database: Database) -> (App, Mailbox) {
    let setup = Setup {
        nodes: 2,
        accounts: AccountPolicy {
            require_verified_email: true,
            conceal_existence: true,
            ..AccountPolicy::default()
        },
        ..Setup::default()
    };
    let (mailbox, setup) = Mailbox::in_memory(setup);
    (App::with(database, setup).await, mailbox)
}

async fn ask(app: &App, email: &str, password: &str) -> Reply {
    let body = json!({"email": email, "password": password});
    app.anonymous().post("/v1/auth/register", body).await
}

async fn confirm(app: &App, mut shown: Value, password: &str) -> Reply {
    shown["password"] = json!(password);
    let anonymous = app.anonymous_on(1);
    anonymous.post("/v1/auth/register/confirm", shown).await
}

async fn an_account_exists_once_its_address_is_confirmed_with_the_password(database: Database) {
    let (app, mailbox) = concealing(database).await;
    let answer = ask(&app, ANN, PASSWORD).await.expect(202);
    assert_eq!(answer, json!({"status": "accepted"}));
    let early = app.anonymous().try_log_in(ANN, PASSWORD).await;
    assert_problem!(early, 401, "bad_credentials");
    let letter = mailbox.newest(&app, ANN).await;
    let by_link = json!({"token": letter.token()});
    let wrong = "not what was chosen";
    assert_problem!(
        confirm(&app, by_link.clone(), wrong).await,
        403,
        "wrong_password"
    );
    let user = confirm(&app, by_link.clone(), PASSWORD).await.expect(201);
    assert_eq!(user["email_verified"], true);
    assert_problem!(confirm(&app, by_link, PASSWORD).await, 400, "link_invalid");
    let ann = app.log_in(ANN).await;
    assert_eq!(ann.me().await.expect(200)["id"], user["id"]);
}

/// A thief registers somebody else's address; its owner presses what the letter offers.
async fn nobody_puts_a_password_on_the_address_of_somebody_else(database: Database) {
    let (app, mailbox) = concealing(database).await;
    ask(&app, ANN, "what a thief would choose")
        .await
        .expect(202);
    let thiefs = mailbox.newest(&app, ANN).await;
    app.clock.advance(Span::secs(1));
    ask(&app, ANN, PASSWORD).await.expect(202);
    let anns = mailbox.newest(&app, ANN).await;
    for letter in [&thiefs, &anns] {
        let by_code = json!({"email": ANN, "code": letter.code()});
        let by_thief = confirm(&app, by_code, "what a thief would choose").await;
        assert_problem!(by_thief, 400, "code_invalid");
    }
    let by_owner = confirm(&app, json!({"token": thiefs.token()}), PASSWORD).await;
    assert_problem!(by_owner, 403, "wrong_password");
    let by_code = json!({"email": ANN, "code": anns.code()});
    confirm(&app, by_code, PASSWORD).await.expect(201);
    app.log_in(ANN).await;
    let late = confirm(
        &app,
        json!({"token": thiefs.token()}),
        "what a thief would choose",
    )
    .await;
    assert_problem!(late, 400, "link_invalid");
}

async fn the_owner_of_a_taken_address_gets_a_letter(database: Database) {
    let (app, mailbox) = concealing(database).await;
    ask(&app, ANN, PASSWORD).await.expect(202);
    let body = json!({"token": mailbox.newest(&app, ANN).await.token()});
    confirm(&app, body, PASSWORD).await.expect(201);
    app.clock.advance(Span::secs(1));
    let answer = ask(&app, "Ann@Example.org", "what a thief would choose").await;
    assert_eq!(answer.expect(202), json!({"status": "accepted"}));
    let letters = mailbox.letters(&app).await;
    let told = letters.last().expect("a letter");
    assert!(!told.text.contains("#token="), "{}", told.text);
    assert!(
        told.text.contains("https://auth.example.org/login"),
        "{}",
        told.text
    );
    app.log_in(ANN).await;
}

async fn the_letter_can_be_sent_once_more(database: Database) {
    let (app, mailbox) = concealing(database).await;
    ask(&app, ANN, PASSWORD).await.expect(202);
    let first = mailbox.newest(&app, ANN).await;
    let resend = async || {
        let body = json!({"email": ANN});
        let answer = app.anonymous().post("/v1/auth/email/resend", body).await;
        answer.expect(202)
    };
    resend().await;
    resend().await;
    assert_eq!(mailbox.letters(&app).await.len(), 2, "one a minute");
    let second = mailbox.newest(&app, ANN).await;
    let old = json!({"email": ANN, "code": first.code()});
    assert_problem!(confirm(&app, old, PASSWORD).await, 400, "code_invalid");
    let new = json!({"email": ANN, "code": second.code()});
    confirm(&app, new, PASSWORD).await.expect(201);
}

async fn a_user_name_that_is_taken_is_said(database: Database) {
    let (app, mailbox) = concealing(database).await;
    let named = async |email: &str| {
        let body = json!({"email": email, "password": PASSWORD, "username": "ann"});
        app.anonymous().post("/v1/auth/register", body).await
    };
    named(ANN).await.expect(202);
    named("other@example.org").await.expect(202);
    let body = json!({"token": mailbox.newest(&app, ANN).await.token()});
    confirm(&app, body, PASSWORD).await.expect(201);
    let body = json!({"token": mailbox.newest(&app, "other@example.org").await.token()});
    assert_problem!(confirm(&app, body, PASSWORD).await, 409, "username_taken");
    assert_problem!(named("third@example.org").await, 409, "username_taken");
}

/// ASVS 2.3.4.
async fn of_fifty_confirmations_one_makes_the_account(database: Database) {
    let (app, mailbox) = concealing(database).await;
    ask(&app, ANN, PASSWORD).await.expect(202);
    let letter = mailbox.newest(&app, ANN).await;
    let racers = (0..50).map(|n| {
        let client = app.anonymous_on(n % 2);
        let body = if n % 4 < 2 {
            json!({"token": letter.token(), "password": PASSWORD})
        } else {
            json!({"email": ANN, "code": letter.code(), "password": PASSWORD})
        };
        async move { client.post("/v1/auth/register/confirm", body).await.status }
    });
    let statuses = race(racers).await;
    let made = statuses.iter().filter(|status| **status == 201).count();
    assert_eq!(made, 1, "{statuses:?}");
    let fine = [201, 400, 409, 503];
    assert!(statuses.iter().all(|s| fine.contains(s)), "{statuses:?}");
    app.log_in(ANN).await;
}

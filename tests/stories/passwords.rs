//! Which passwords are accepted, on every path on which one can be set.

use doorward::{accounts::AccountPolicy, clock::Span, http::ApiOptions};
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, PASSWORD, Reply, Setup},
        backend::Database,
        breaches::BreachService,
        mailbox::{Letter, Mailbox},
    },
};

for_each_store! {
    a_password_that_is_tried_first_is_refused_on_every_path,
    words_of_the_place_and_of_the_person_are_refused_on_every_path,
    a_password_known_from_a_breach_is_refused_on_every_path,
    any_composition_is_accepted,
    a_refused_password_leaves_everything_as_it_was,
    a_refused_password_gives_no_more_tries_of_a_code,
    a_wrong_code_says_nothing_about_whose_name_is_in_a_password,
    where_registering_is_concealed_the_rules_are_the_same,
}

const ANN: &str = "annika.berg@example.org";
const NAME: &str = "bergfrau";
const GOOD: &str = "another horse entirely";

/// Somebody with an account, and every way in which a password is set.
struct World {
    app: App,
    mailbox: Mailbox,
    ann: Client,
    /// A letter for setting a new password.
    letter: Letter,
    /// The secret of an administrator's link.
    link: String,
}

impl World {
    async fn new(database: Database, setup: Setup) -> Self {
        let (mailbox, setup) = Mailbox::in_memory(Setup {
            api: ApiOptions {
                compat: Some(String::new()),
                ..ApiOptions::default()
            },
            ..setup
        });
        let app = App::with(database, setup).await;
        let account = json!({"email": ANN, "username": NAME, "password": PASSWORD});
        let registered = app.anonymous().post("/v1/auth/register", account).await;
        registered.expect(201);
        let ann = app.log_in(ANN).await;
        let admin = app.admin("root@example.org").await;
        let letter = forgot(&app, &mailbox, ANN).await;
        let made = admin
            .post(
                "/v1/admin/users",
                json!({"email": "new.colleague@example.org"}),
            )
            .await
            .expect(201);
        let url = made["password_link"]["url"].as_str().expect("a link");
        let link = url.split_once("#token=").expect("a secret").1.to_owned();
        Self {
            app,
            mailbox,
            ann,
            letter,
            link,
        }
    }

    /// Tries a password everywhere; each answer with the name of its path.
    async fn everywhere(&self, password: &str) -> Vec<(&'static str, Reply)> {
        let guest = self.app.anonymous();
        let account = json!({"email": ANN, "username": NAME, "password": password});
        let (token, code) = (self.letter.token(), self.letter.code());
        let change = json!({"current_password": PASSWORD, "new_password": password});
        let by_link = json!({"token": token, "password": password});
        let by_code = json!({"email": ANN, "code": code, "password": password});
        let first = json!({"token": self.link, "password": password});
        let new = json!({"token": token, "new_password": password});
        let mut all = vec![(
            "change",
            self.ann.post("/v1/auth/me/password", change).await,
        )];
        for (name, path, body) in [
            ("register", "/v1/auth/register", account.clone()),
            ("reset by link", "/v1/auth/password/reset", by_link),
            ("reset by code", "/v1/auth/password/reset", by_code),
            ("first password", "/v1/auth/password/reset", first),
            ("compatible register", "/auth/sign_up", account),
            ("compatible reset", "/auth/password/reset", new),
        ] {
            all.push((name, guest.post(path, body).await));
        }
        all
    }

    async fn assert_refused_everywhere(&self, password: &str, code: &str) {
        for (path, reply) in self.everywhere(password).await {
            assert_refused(&format!("{path}: {password}"), &reply, code);
        }
    }

    /// That a good password is still taken where others were refused.
    async fn assert_unspent(&self) {
        self.ann.me().await.expect(200);
        let guest = self.app.anonymous();
        for (token, who) in [
            (&self.letter.token(), ANN),
            (&self.link, "new.colleague@example.org"),
        ] {
            let body = json!({"token": token, "password": GOOD});
            let set = guest.post("/v1/auth/password/reset", body).await;
            assert_eq!(set.status, 204, "{}", set.text);
            guest.log_in(who, GOOD).await;
        }
        let old = guest.try_log_in(ANN, PASSWORD).await;
        assert_problem!(old, 401, "bad_credentials");
    }
}

async fn forgot(app: &App, mailbox: &Mailbox, email: &str) -> Letter {
    mailbox.letters(app).await;
    let body = json!({"email": email});
    let asked = app.anonymous().post("/v1/auth/password/forgot", body).await;
    asked.expect(202);
    mailbox.newest(app, email).await
}

/// A 422 that names the field, the rule and what would be better, and repeats nothing.
#[track_caller]
fn assert_refused(what: &str, reply: &Reply, code: &str) {
    let text = reply.text.clone();
    assert_eq!(
        reply.problem(),
        (422, "invalid_input".to_owned()),
        "{what}: {text}"
    );
    let problem = reply.json();
    let errors = problem["errors"].as_array().expect("errors");
    let field = errors[0]["field"].as_str().expect("a field");
    assert!(["password", "new_password"].contains(&field), "{what}");
    assert_eq!(
        (errors.len(), &errors[0]["code"]),
        (1, &json!(code)),
        "{what}: {text}"
    );
    let detail = errors[0]["detail"].as_str().expect("a sentence");
    assert!(detail.contains("choose"), "{what}: {detail}");
    let password = what.rsplit(": ").next().expect("a password");
    assert!(!text.contains(password), "{what}: {text}");
}

/// ASVS 6.2.4.
async fn a_password_that_is_tried_first_is_refused_on_every_path(database: Database) {
    let world = World::new(database, Setup::default()).await;
    for (password, code) in [
        ("PasswordPassword", "common"),
        ("thisisthefirstdayofmylife", "common"),
        ("IloveYou123456789", "common"),
        ("987654321987654321", "repetitive"),
        ("qwertyuiopasdfghjkl", "repetitive"),
        ("hahahahahahahahaha", "repetitive"),
    ] {
        world.assert_refused_everywhere(password, code).await;
    }
    world.assert_unspent().await;
}

/// ASVS 6.2.11, and NIST SP 800-63B-4 §3.1.1.2: whole passwords, not parts of them.
async fn words_of_the_place_and_of_the_person_are_refused_on_every_path(database: Database) {
    let world = World::new(database, Setup::default()).await;
    for password in ["Doorward2026!!!", "D00rw4rd-D00rw4rd-", "auth.example.org"] {
        world.assert_refused_everywhere(password, "context").await;
    }
    // Whoever has no such name may be called so.
    for password in ["Annika.Berg.1987", "4nn1k4b3rg!", "bergfraubergfrau", ANN] {
        for (path, reply) in world.everywhere(password).await {
            if path == "first password" {
                assert_ne!(reply.status, 422, "{path}: {}", reply.text);
            } else {
                assert_refused(&format!("{path}: {password}"), &reply, "context");
            }
        }
    }
    for password in ["Annika knits at Doorward", "bergfrau sieht keine Berge"] {
        let change = json!({"current_password": PASSWORD, "new_password": password});
        let changed = world.ann.post("/v1/auth/me/password", change).await;
        assert_eq!(changed.status, 204, "{}", changed.text);
        let back = json!({"current_password": password, "new_password": PASSWORD});
        let changed = world.ann.post("/v1/auth/me/password", back).await;
        assert_eq!(changed.status, 204, "{}", changed.text);
    }
}

/// ASVS 6.2.12.
async fn a_password_known_from_a_breach_is_refused_on_every_path(database: Database) {
    let known = "purple elephants dance at noon";
    let service = BreachService::knowing(&[known]).await;
    let setup = Setup {
        passwords: service.policy(),
        ..Setup::default()
    };
    let world = World::new(database, setup).await;
    service.asked();
    world.assert_refused_everywhere(known, "breached").await;
    assert_eq!(service.asked().len(), 7, "each path asks once");
    world
        .assert_refused_everywhere("PasswordPassword", "common")
        .await;
    assert!(
        service.asked().is_empty(),
        "what is refused anyway is not asked"
    );
    let change = json!({"current_password": "not it at all", "new_password": known});
    let refused = world.ann.post("/v1/auth/me/password", change).await;
    assert_problem!(refused, 403, "wrong_password");
    assert!(
        service.asked().is_empty(),
        "nor for whoever is not who they say"
    );
    world.assert_unspent().await;
}

/// ASVS 6.2.5, 6.2.9: nothing but length, what is known and what is obvious.
async fn any_composition_is_accepted(database: Database) {
    let app = App::start(database).await;
    let mut ann = app.user(ANN).await;
    let mut current = PASSWORD.to_owned();
    let long: String = ('\u{4e00}'..).take(256).collect();
    for password in [
        "kqzjwvhxmtrbpnlfgdcs",
        "83749218374650192837",
        "WHY NOT ALL CAPITALS THEN",
        "Käse, Brot und ein Glas Wein",
        "🐎🔋📎🦆🌧🎈🧲🪵🧀🛶🪐🧭🎻🌵🦉",
        "صباح الخير يا جاري",
        "}{~*&^%$ ,.;/-_<>|",
        &long,
    ] {
        let change = json!({"current_password": current, "new_password": password});
        let changed = ann.post("/v1/auth/me/password", change).await;
        assert_eq!(changed.status, 204, "{password}: {}", changed.text);
        current = password.to_owned();
        ann = app.anonymous().log_in(ANN, &current).await;
    }
}

/// What stood before stands after.
async fn a_refused_password_leaves_everything_as_it_was(database: Database) {
    let world = World::new(database, Setup::default()).await;
    let before = world.ann.me().await.expect(200);
    world.everywhere("PasswordPassword").await;
    world.everywhere("AnnikaBerg1987!!").await;
    assert_eq!(world.ann.me().await.expect(200), before);
    world.app.anonymous().log_in(ANN, PASSWORD).await;
    assert_eq!(
        world.mailbox.to(&world.app, ANN).await.len(),
        2,
        "nobody was told of anything"
    );
}

/// ASVS 6.6.3: a right code with a refused password is no try; a wrong one is, whatever the password.
async fn a_refused_password_gives_no_more_tries_of_a_code(database: Database) {
    let world = World::new(database, Setup::default()).await;
    let (guest, code) = (world.app.anonymous(), world.letter.code());
    let reset = async |code: &str, password: &str| {
        let body = json!({"email": ANN, "code": code, "password": password});
        guest.post("/v1/auth/password/reset", body).await
    };
    for _ in 0..8 {
        assert_refused(
            "by code: AnnikaBerg1987",
            &reset(&code, "AnnikaBerg1987").await,
            "context",
        );
    }
    let wrong = if code == "000000" { "000001" } else { "000000" };
    for _ in 0..4 {
        assert_problem!(reset(wrong, "AnnikaBerg1987").await, 400, "code_invalid");
    }
    assert_refused(
        "by code: AnnikaBerg1987",
        &reset(&code, "AnnikaBerg1987").await,
        "context",
    );
    assert_problem!(reset(wrong, "AnnikaBerg1987").await, 400, "code_invalid");
    assert_problem!(reset(&code, GOOD).await, 400, "code_invalid");
    world.assert_unspent().await;
}

/// ASVS 6.3.8: neither that there is an account, nor what its user is called.
async fn a_wrong_code_says_nothing_about_whose_name_is_in_a_password(database: Database) {
    let world = World::new(database, Setup::default()).await;
    let guest = world.app.anonymous();
    let mut seen = Vec::new();
    for email in [ANN, "nobody@example.org"] {
        for password in ["bergfrau bergfrau", "a phrase of no interest"] {
            let body = json!({"email": email, "code": "000000", "password": password});
            let reply = guest.post("/v1/auth/password/reset", body).await;
            assert_eq!(reply.status, 400, "{}", reply.text);
            let mut problem = reply.json();
            problem["request_id"] = Value::Null;
            seen.push(problem.to_string());
        }
    }
    assert!(seen.iter().all(|text| *text == seen[0]), "{seen:?}");
}

/// ASVS 6.2.4, 6.2.11, 6.3.8: whether the address is taken changes nothing.
async fn where_registering_is_concealed_the_rules_are_the_same(database: Database) {
    let (mailbox, setup) = Mailbox::in_memory(Setup {
        accounts: AccountPolicy {
            require_verified_email: true,
            conceal_existence: true,
            ..AccountPolicy::default()
        },
        ..Setup::default()
    });
    let app = App::with(database, setup).await;
    let guest = app.anonymous();
    let ask = async |password: &str| {
        let body = json!({"email": ANN, "username": NAME, "password": password});
        guest.post("/v1/auth/register", body).await
    };
    let refusals = async || {
        for (password, code) in [
            ("PasswordPassword", "common"),
            ("bergfrau.bergfrau", "context"),
            ("annika.berg.example", "context"),
            ("123123123123123", "repetitive"),
        ] {
            assert_refused(
                &format!("concealed: {password}"),
                &ask(password).await,
                code,
            );
        }
    };
    refusals().await;
    assert!(mailbox.letters(&app).await.is_empty());
    ask(PASSWORD).await.expect(202);
    let token = mailbox.newest(&app, ANN).await.token();
    let confirm = json!({"token": token, "password": PASSWORD});
    let made = guest.post("/v1/auth/register/confirm", confirm).await;
    made.expect(201);
    app.clock.advance(Span::minutes(2));
    refusals().await;
    assert_eq!(mailbox.letters(&app).await.len(), 1);
}

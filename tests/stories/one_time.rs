//! Links and codes: good for one use, for one thing, and not for whoever merely looks at them.

use doorward::clock::Span;
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, PASSWORD, Reply, Setup},
        backend::Database,
        mailbox::{Letter, Mailbox, PUBLIC_URL},
        race,
    },
};

for_each_store! {
    of_fifty_uses_of_a_link_one_counts,
    of_fifty_uses_of_a_code_one_counts,
    a_code_survives_four_wrong_tries_and_dies_at_five,
    asking_again_gives_no_more_tries,
    a_secret_is_good_for_one_purpose_and_one_user,
    links_and_codes_end,
    a_scanner_spends_nothing,
    the_host_of_a_request_never_shows_in_a_letter,
    nothing_that_is_written_adds_a_recipient,
}

const ANN: &str = "ann@example.org";
const NEW_PASSWORD: &str = "another horse entirely";

async fn two_nodes(database: Database) -> (App, Mailbox) {
    let setup = Setup {
        nodes: 2,
        ..Setup::default()
    };
    let (mailbox, setup) = Mailbox::in_memory(setup);
    (App::with(database, setup).await, mailbox)
}

async fn forgot(app: &App, mailbox: &Mailbox, email: &str) -> Letter {
    // What was caused before comes before it.
    mailbox.letters(app).await;
    let body = json!({"email": email});
    let answer = app.anonymous().post("/v1/auth/password/forgot", body).await;
    answer.expect(202);
    mailbox.newest(app, email).await
}

fn reset_by(shown: &Value) -> Value {
    let mut body = shown.clone();
    body["password"] = json!(NEW_PASSWORD);
    body
}

/// Sends the same fifty times at once, to both nodes.
async fn fifty(app: &App, path: &'static str, body: &Value) -> Vec<u16> {
    let racers = (0..50).map(|n| {
        let (client, body) = (app.anonymous_on(n % 2), body.clone());
        async move { client.post(path, body).await.status }
    });
    race(racers).await
}

#[track_caller]
fn assert_one(statuses: &[u16]) {
    let spent = statuses.iter().filter(|status| **status == 204).count();
    assert_eq!(spent, 1, "{statuses:?}");
    // A database under fifty conflicts may say that it cannot answer: then nothing was spent.
    let fine = |status: &u16| [204, 400, 503].contains(status);
    assert!(statuses.iter().all(fine), "{statuses:?}");
}

/// ASVS 2.3.4, 15.4.2.
async fn of_fifty_uses_of_a_link_one_counts(database: Database) {
    let (app, mailbox) = two_nodes(database).await;
    app.register(ANN).await;
    let verify = json!({"token": mailbox.newest(&app, ANN).await.token()});
    assert_one(&fifty(&app, "/v1/auth/email/verify", &verify).await);
    let reset = json!({"token": forgot(&app, &mailbox, ANN).await.token()});
    assert_one(&fifty(&app, "/v1/auth/password/reset", &reset_by(&reset)).await);
    let told = json!({"token": mailbox.newest(&app, ANN).await.token()});
    assert_one(&fifty(&app, "/v1/auth/not-me", &told).await);
}

/// ASVS 2.3.4.
async fn of_fifty_uses_of_a_code_one_counts(database: Database) {
    let (app, mailbox) = two_nodes(database).await;
    app.register(ANN).await;
    let verify = json!({"email": ANN, "code": mailbox.newest(&app, ANN).await.code()});
    assert_one(&fifty(&app, "/v1/auth/email/verify", &verify).await);
    let reset = json!({"email": ANN, "code": forgot(&app, &mailbox, ANN).await.code()});
    assert_one(&fifty(&app, "/v1/auth/password/reset", &reset_by(&reset)).await);
}

async fn try_code(app: &App, code: &str) -> Reply {
    let body = reset_by(&json!({"email": ANN, "code": code}));
    app.anonymous().post("/v1/auth/password/reset", body).await
}

/// The `n`th of the codes that are not this one.
fn wrong_code(code: &str, n: u32) -> String {
    let number: u32 = code.parse().expect("digits");
    format!("{:06}", (number + n) % 1_000_000)
}

/// ASVS 6.6.3.
async fn a_code_survives_four_wrong_tries_and_dies_at_five(database: Database) {
    let (app, mailbox) = two_nodes(database).await;
    app.register(ANN).await;
    let code = forgot(&app, &mailbox, ANN).await.code();
    for n in 1..=4 {
        assert_problem!(
            try_code(&app, &wrong_code(&code, n)).await,
            400,
            "code_invalid"
        );
    }
    try_code(&app, &code).await.expect(204);
    app.clock.advance(Span::secs(61));
    let letter = forgot(&app, &mailbox, ANN).await;
    for n in 1..=5 {
        let wrong = wrong_code(&letter.code(), n);
        assert_problem!(try_code(&app, &wrong).await, 400, "code_invalid");
    }
    assert_problem!(try_code(&app, &letter.code()).await, 400, "code_invalid");
    let by_link = reset_by(&json!({"token": letter.token()}));
    let reset = app
        .anonymous()
        .post("/v1/auth/password/reset", by_link)
        .await;
    reset.expect(204);
}

/// ASVS 6.6.3: nor do fifty tries at once count as fewer.
async fn asking_again_gives_no_more_tries(database: Database) {
    let (app, mailbox) = two_nodes(database).await;
    app.register(ANN).await;
    let first = forgot(&app, &mailbox, ANN).await.code();
    let racers = (1..=20_u32).map(|n| {
        let node = usize::from(n % 2 == 1);
        let (client, code) = (app.anonymous_on(node), wrong_code(&first, n));
        let body = reset_by(&json!({"email": ANN, "code": code}));
        async move { client.post("/v1/auth/password/reset", body).await.status }
    });
    let statuses = race(racers).await;
    assert!(!statuses.contains(&204), "{statuses:?}");
    app.clock.advance(Span::secs(61));
    let second = forgot(&app, &mailbox, ANN).await;
    assert_eq!(
        crate::harness::smtp::code(&second.text),
        None,
        "{}",
        second.text
    );
    let by_link = reset_by(&json!({"token": second.token()}));
    let reset = app
        .anonymous()
        .post("/v1/auth/password/reset", by_link)
        .await;
    reset.expect(204);
    app.clock.advance(Span::minutes(61));
    let third = forgot(&app, &mailbox, ANN).await.code();
    try_code(&app, &third).await.expect(204);
}

/// ASVS 2.3.1, 6.6.2.
async fn a_secret_is_good_for_one_purpose_and_one_user(database: Database) {
    let (app, mailbox) = two_nodes(database).await;
    app.register(ANN).await;
    app.register("bob@example.org").await;
    let verify = mailbox.newest(&app, ANN).await;
    let reset = forgot(&app, &mailbox, ANN).await;
    let post = async |path: &str, body: Value| app.anonymous().post(path, body).await;
    let everywhere = [
        "/v1/auth/email/verify",
        "/v1/auth/email/confirm",
        "/v1/auth/not-me",
        "/v1/auth/password/reset",
        "/v1/auth/register/confirm",
    ];
    for (letter, own) in [(&verify, everywhere[0]), (&reset, everywhere[3])] {
        for path in everywhere.into_iter().filter(|path| *path != own) {
            let mut body = json!({"token": letter.token()});
            if path.ends_with("reset") || path.ends_with("register/confirm") {
                body["password"] = json!(NEW_PASSWORD);
            }
            assert_problem!(post(path, body).await, 400, "link_invalid");
        }
    }
    for (email, code) in [
        (ANN, reset.code()),
        ("bob@example.org", verify.code()),
        ("nobody@example.org", verify.code()),
    ] {
        let body = json!({"email": email, "code": code});
        let refused = post("/v1/auth/email/verify", body).await;
        assert_problem!(refused, 400, "code_invalid");
    }
    let body = json!({"email": ANN, "code": verify.code()});
    post("/v1/auth/email/verify", body).await.expect(204);
    let body = reset_by(&json!({"email": ANN, "code": reset.code()}));
    post("/v1/auth/password/reset", body).await.expect(204);
}

/// ASVS 6.5.5.
async fn links_and_codes_end(database: Database) {
    let (app, mailbox) = two_nodes(database).await;
    app.register(ANN).await;
    let letter = forgot(&app, &mailbox, ANN).await;
    app.clock.advance(Span::minutes(10));
    assert_problem!(try_code(&app, &letter.code()).await, 400, "code_invalid");
    app.clock.advance(Span::minutes(50));
    let by_link = reset_by(&json!({"token": letter.token()}));
    let late = app
        .anonymous()
        .post("/v1/auth/password/reset", by_link)
        .await;
    assert_problem!(late, 400, "link_invalid");
    app.log_in(ANN).await;
}

/// ASVS 3.5.3, 7.6.2: whatever looks at the links of letters, with whatever method that only reads.
async fn a_scanner_spends_nothing(database: Database) {
    let (app, mailbox) = two_nodes(database).await;
    app.register(ANN).await;
    let verify = mailbox.newest(&app, ANN).await;
    let ann = app.log_in(ANN).await;
    let body = json!({"email": "ann@example.com", "password": PASSWORD});
    ann.post("/v1/auth/me/email", body).await.expect(202);
    let admin = app.admin("root@example.org").await;
    let body = json!({"email": "ben@example.org", "invite": true});
    admin.post("/v1/admin/users", body).await.expect(201);
    let letters = mailbox.letters(&app).await;
    assert_eq!(letters.len(), 3);
    for letter in &letters {
        scan(&app, letter).await;
    }
    let post = async |path: &str, body: Value| app.anonymous().post(path, body).await;
    let body = json!({"token": verify.token()});
    post("/v1/auth/email/verify", body).await.expect(204);
    // Two nodes send them: which comes first is anybody's guess.
    let to = |address: &str| letters.iter().find(|letter| letter.to == address);
    let change = to("ann@example.com").expect("a letter to the new address");
    let body = json!({"token": change.token()});
    post("/v1/auth/email/confirm", body).await.expect(204);
    let invitation = to("ben@example.org").expect("an invitation");
    let body = reset_by(&json!({"token": invitation.token()}));
    post("/v1/auth/password/reset", body).await.expect(204);
    let told = mailbox.newest(&app, ANN).await;
    scan(&app, &told).await;
    let body = json!({"token": told.token()});
    post("/v1/auth/not-me", body).await.expect(204);
}

/// Opens every link of a letter, as it stands there and with its secret where a scanner may put it.
async fn scan(app: &App, letter: &Letter) {
    let mut links = 0;
    for text in [&letter.text, &letter.html] {
        for found in text.split(PUBLIC_URL).skip(1) {
            let end = found.find(|c: char| c.is_whitespace() || "\"<>".contains(c));
            let link = &found[..end.unwrap_or(found.len())];
            for path in [link.to_owned(), link.replace('#', "?")] {
                for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                    let client = app.anonymous_on(links % 2);
                    let reply = client.send(method.clone(), &path, None).await;
                    assert!(reply.status < 500, "{method} {path}: {}", reply.text);
                    assert!(reply.header("set-cookie").is_none(), "{method} {path}");
                }
            }
            links += 1;
        }
    }
    assert!(links >= 2, "{}", letter.text);
}

/// ASVS 1.2.2.
async fn the_host_of_a_request_never_shows_in_a_letter(database: Database) {
    let (app, mailbox) = two_nodes(database).await;
    let send = async |client: &Client, path: &str, body: Value| {
        let url = format!("{}{path}", app.nodes[0].url);
        let mut request = client.http.post(url).json(&body);
        for (name, value) in [
            ("host", "evil.test"),
            ("x-forwarded-host", "evil.test"),
            ("x-forwarded-proto", "gopher"),
            ("forwarded", "host=evil.test"),
            ("x-original-host", "evil.test"),
            ("origin", "https://evil.test"),
            ("referer", "https://evil.test/"),
        ] {
            request = request.header(name, value);
        }
        if let Some(token) = &client.token {
            request = request.bearer_auth(token);
        }
        let reply = Reply::of(request.send().await.expect("an answer")).await;
        assert!(reply.status < 300, "{path}: {}", reply.text);
    };
    let anonymous = app.anonymous();
    let body = json!({"email": ANN, "password": PASSWORD});
    send(&anonymous, "/v1/auth/register", body).await;
    send(
        &anonymous,
        "/v1/auth/password/forgot",
        json!({"email": ANN}),
    )
    .await;
    let ann = app.log_in(ANN).await;
    let body = json!({"email": "ann@example.com", "password": PASSWORD});
    send(&ann, "/v1/auth/me/email", body).await;
    // A new password drops what waits.
    mailbox.letters(&app).await;
    let body = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    send(&ann, "/v1/auth/me/password", body).await;
    app.clock.advance(Span::secs(61));
    send(&anonymous, "/v1/auth/email/resend", json!({"email": ANN})).await;
    let letters = mailbox.letters(&app).await;
    assert!(letters.len() >= 4, "{letters:?}");
    for letter in letters {
        let whole = format!("{}{}{}", letter.subject, letter.text, letter.html);
        assert!(
            !whole.contains("evil") && !whole.contains("gopher"),
            "{whole}"
        );
        assert!(whole.contains(PUBLIC_URL), "{whole}");
    }
}

/// ASVS 1.1.2, 1.2.1, 1.3.7, 1.3.10, 1.3.11.
async fn nothing_that_is_written_adds_a_recipient(database: Database) {
    let setup = Setup::default();
    let (mailbox, mut setup) = Mailbox::on_server(setup, doorward::mail::settings::SmtpTls::None);
    if let Some(post) = &mut setup.post {
        "locale".clone_into(&mut post.policy.language_attribute);
    }
    let app = App::with(database, setup).await;
    for address in [
        "ann@example.org\r\nBcc: evil@example.org",
        "ann@example.org, evil@example.org",
        "ann@example.org evil@example.org",
        "<ann@example.org>\nTo: evil@example.org",
        "ann@example.org\0evil@example.org",
    ] {
        let anonymous = app.anonymous();
        let body = json!({"email": address, "password": PASSWORD});
        let refused = anonymous.post("/v1/auth/register", body).await;
        assert_problem!(refused, 422, "invalid_input");
        for path in ["/v1/auth/password/forgot", "/v1/auth/email/resend"] {
            let refused = anonymous.post(path, json!({"email": address})).await;
            assert_problem!(refused, 422, "invalid_input");
        }
    }
    let account = json!({
        "email": ANN,
        "password": PASSWORD,
        "username": "ann",
        "attributes": {"locale": "de\r\nBcc: evil@example.org"},
    });
    let evil = "{{7*7}} {0} %n <b>&\"Bcc: evil@example.org";
    let send = async |path: &str, body: &Value, token: Option<&str>| {
        let url = format!("{}{path}", app.nodes[0].url);
        let request = app.anonymous().http.post(url).json(body);
        let request = request
            .header("user-agent", evil)
            .header("accept-language", "{{7*7}}, x\"; q=nan, ../../etc/passwd");
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.expect("an answer").status().as_u16()
    };
    assert_eq!(send("/v1/auth/register", &account, None).await, 201);
    let ann = app.log_in(ANN).await;
    let body = json!({"current_password": PASSWORD, "new_password": NEW_PASSWORD});
    let changed = send("/v1/auth/me/password", &body, ann.token.as_deref()).await;
    assert_eq!(changed, 204);
    let letters = mailbox.letters(&app).await;
    assert_eq!(letters.len(), 2, "{letters:?}");
    for letter in &letters {
        assert_eq!(letter.to, ANN, "one recipient");
    }
    let told = letters
        .iter()
        .find(|letter| letter.text.contains("/not-me#"))
        .expect("the notice");
    assert!(told.text.contains("{{7*7}} {0} %n <b>&"), "{}", told.text);
    assert!(
        told.html.contains("{{7*7}} {0} %n &lt;b&gt;&amp;"),
        "{}",
        told.html
    );
}

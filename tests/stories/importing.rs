//! Moving here: accounts of other systems, whose people log in as before. The exports were made by those systems:
//! see `tests/imports`.

use std::{
    process::Child,
    time::{Duration, Instant},
};

use doorward::{
    email::EmailAddress,
    model::audit::AuditFilter,
    store::{LoginName, Store, UserFilter},
};
use serde_json::{Value, json};

use super::crashes::the_trail_is_as_the_rows_are;
use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, PASSWORD},
        backend::Database,
        until,
    },
    program::{Place, borrowed, serving},
};

for_each_store! {
    people_log_in_with_the_passwords_that_they_have,
    a_killed_import_is_completed_by_doing_it_again,
}

/// Each export, whose it is, how many accounts it has, and what checking their hashes costs.
const EXPORTS: [(&str, &str, u64, &[&str]); 3] = [
    (
        "fastapi-users",
        include_str!("../imports/fastapi-users.csv"),
        4,
        &["argon2:m=256,t=1", "bcrypt:4"],
    ),
    (
        "django",
        include_str!("../imports/django.jsonl"),
        7,
        &[
            "argon2:m=512,t=2",
            "bcrypt:4",
            "pbkdf2_sha1:1000",
            "pbkdf2_sha256:1000",
            "scrypt:ln=4,r=8,p=5",
        ],
    ),
    (
        "better-auth",
        include_str!("../imports/better-auth.jsonl"),
        4,
        &["scrypt:ln=14,r=16,p=1"],
    ),
];

fn import(database: &Database, (from, export): (&str, &str), more: &[&str]) -> Value {
    let place = Place::new();
    let format = if export.starts_with('{') {
        "jsonl"
    } else {
        "csv"
    };
    let args = [
        "user", "import", "-", "--format", format, "--from", from, "--json",
    ];
    let variables = serving(database);
    place
        .run_with_input(&[&args, more].concat(), &borrowed(&variables), export)
        .json()
}

async fn how_many_users(store: &dyn Store) -> usize {
    let filter = UserFilter {
        limit: 1000,
        ..UserFilter::default()
    };
    store.list_users(&filter).await.expect("an answer").len()
}

async fn stored_hash(store: &dyn Store, email: &str) -> String {
    let email = EmailAddress::parse(email).expect("an address");
    let found = store.user_by_login(&LoginName::Email(email)).await;
    let found = found.expect("an answer").expect("a user");
    found.password_hash.expect("a hash").expose().clone()
}

/// Tries a wrong password, logs in twice, and finds the hash replaced by one of ours in between.
async fn moves(app: &App, email: &str, password: &str) -> Client {
    let store = &*app.nodes[0].store;
    let before = stored_hash(store, email).await;
    assert!(!before.starts_with("$scrypt$"), "{email}");
    let wrong = app
        .anonymous()
        .try_log_in(email, "correct horse battery stable")
        .await;
    assert_problem!(wrong, 401, "bad_credentials");
    assert_eq!(stored_hash(store, email).await, before, "{email}");
    app.anonymous().log_in(email, password).await;
    assert!(
        stored_hash(store, email).await.starts_with("$scrypt$"),
        "{email}"
    );
    app.anonymous().log_in(email, password).await
}

/// ASVS 11.4.2: each hash is replaced by one of ours at its owner's first login.
async fn people_log_in_with_the_passwords_that_they_have(database: Database) {
    let store = database.open().await;
    for (from, export, accounts, costs) in EXPORTS {
        let before = how_many_users(&*store).await;
        let tried = import(&database, (from, export), &["--dry-run"]);
        assert_eq!(
            (&tried["created"], &tried["failed"]),
            (&json!(accounts), &json!(0)),
            "{tried}"
        );
        assert_eq!(how_many_users(&*store).await, before, "nothing is written");
        let done = import(&database, (from, export), &[]);
        assert_eq!(
            (&done["created"], &done["failed"]),
            (&json!(accounts), &json!(0)),
            "{done}"
        );
        let named: Vec<&String> = done["costs"].as_object().expect("costs").keys().collect();
        assert_eq!(named, costs, "{from}");
        let again = import(&database, (from, export), &[]);
        assert_eq!(
            (&again["created"], &again["skipped"]),
            (&json!(0), &json!(accounts)),
            "{again}"
        );
    }
    let records = AuditFilter {
        limit: 100,
        ..AuditFilter::default()
    };
    let records = store.list_audit(&records).await.expect("an answer");
    assert_eq!(records.len(), 15);
    let by_operator = |event: &str, actor: &str| event == "account_created" && actor == "operator";
    assert!(
        records
            .iter()
            .all(|record| by_operator(&record.event, &record.actor))
    );

    let app = App::start(database).await;
    for kind in [
        "pbkdf2_sha256",
        "pbkdf2_sha1",
        "scrypt",
        "argon2",
        "bcrypt_sha256",
        "bcrypt",
    ] {
        moves(&app, &format!("{kind}@django.example"), PASSWORD).await;
    }
    let ann = moves(&app, "ann@fastapi.example", PASSWORD)
        .await
        .me()
        .await
        .expect(200);
    assert_eq!(
        ann["id"], "59440f01-79ff-4795-b7ef-c7538a77ad62",
        "it is kept"
    );
    assert_eq!(ann["email_verified"], true);
    let bob = moves(&app, "bob@fastapi.example", PASSWORD)
        .await
        .me()
        .await
        .expect(200);
    assert_eq!(
        (&bob["email"], &bob["email_verified"]),
        (&json!("Bob@fastapi.example"), &json!(false))
    );
    let root = app
        .log_in("root@fastapi.example")
        .await
        .me()
        .await
        .expect(200);
    assert_eq!(
        root["roles"],
        json!([]),
        "nobody becomes an administrator unasked"
    );

    let ligature = "fine horses of \u{c5}ngstr\u{f6}m";
    moves(&app, "ligature@better.example", ligature).await;
    let guest = app.anonymous();
    for email in ["gone@fastapi.example", "banned@better.example"] {
        assert_problem!(
            guest.try_log_in(email, PASSWORD).await,
            403,
            "account_deactivated"
        );
    }
    assert_problem!(
        guest.try_log_in("none@django.example", PASSWORD).await,
        401,
        "bad_credentials"
    );
}

const MANY: usize = 400;

fn started(place: &Place, variables: &[(&str, &str)], file: &str) -> Child {
    let mut import = place.command(&["user", "import", file], variables);
    import.spawn().expect("started")
}

/// ASVS 2.3.3: promise 4, for imports.
async fn a_killed_import_is_completed_by_doing_it_again(database: Database) {
    let hash =
        "$scrypt$ln=4,r=8,p=1$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g";
    let line = |n| {
        json!({"email": format!("user{n}@example.org"), "username": format!("user{n}"), "password_hash": hash})
            .to_string()
    };
    let export: Vec<String> = (0..MANY).map(line).collect();
    let place = Place::new();
    let file = place.write("users.jsonl", &export.join("\n"));
    let file = file.to_str().expect("UTF-8");
    let store = database.open().await;
    let variables = serving(&database);
    let variables = borrowed(&variables);

    let mut import = started(&place, &variables, file);
    until("some are imported", async || {
        how_many_users(&*store).await >= 10
    })
    .await;
    import.kill().expect("killed");
    import.wait().expect("ended");
    let some = how_many_users(&*store).await;
    assert!(
        (10..MANY).contains(&some),
        "{some} were imported when it was killed"
    );

    // What the killed one held open on MongoDB is ended within seconds, which the log says; until then the answer
    // is "again".
    let started = Instant::now();
    let done: Value = loop {
        let done = place.run(&["user", "import", file, "--json"], &variables);
        if done.code == 0 {
            break serde_json::from_str(&done.out).expect("JSON");
        }
        assert!(started.elapsed() < Duration::from_secs(90), "{}", done.err);
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    assert_eq!(done["failed"], 0);
    assert_eq!(how_many_users(&*store).await, MANY);
    the_trail_is_as_the_rows_are(&*store).await;
}

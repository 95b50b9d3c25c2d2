//! Promise 6: a login never tells whether an account exists, nor does asking for a letter, nor, where that
//! is concealed, registering.

use std::collections::BTreeMap;

use ::mongodb::bson::{Document, doc};
use doorward::{
    accounts::{AccountPolicy, ImportedUser},
    admin::{AdminNewUser, AdminUserChange},
    clock::Span,
    model::{
        account::NewAccount,
        user::{Roles, SessionLimitOverride},
    },
    roles::Actor,
};
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, PASSWORD, Reply, Setup},
        backend::{Backend, Database},
        mailbox::Mailbox,
    },
};

for_each_store! {
    unknown_and_known_accounts_are_answered_alike_for_the_same_work,
    asking_for_letters_tells_nothing,
    registering_tells_nothing_where_that_is_concealed,
    a_wrong_code_tells_nothing,
}

/// What a request made this node do: scrypt runs, and store calls but for those of the outbox's worker.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Work(u64, BTreeMap<&'static str, usize>);

/// Sends a request; answers what came back, without what differs between any two, and the work it took.
async fn measured(app: &App, path: &str, body: Value) -> (Anonymised, Work) {
    let node = &app.nodes[0];
    let before = (
        node.auth.metrics().scrypt_runs.get(),
        node.store.by_method(),
    );
    let reply = app.anonymous().post(path, body).await;
    let runs = node.auth.metrics().scrypt_runs.get() - before.0;
    let mut calls = node.store.by_method();
    calls.retain(|method, count| {
        *count -= before.1.get(method).copied().unwrap_or_default();
        let of_worker = ["claim_letters", "prepare_letter", "settle_letter"].contains(method);
        *count > 0 && !of_worker
    });
    (anonymised(&reply), Work(runs, calls))
}

/// Known and verified, known and not verified, deactivated, invited, waiting, unknown.
async fn people(database: Database, conceals: bool) -> (App, Vec<&'static str>) {
    let setup = Setup {
        accounts: AccountPolicy {
            require_verified_email: true,
            conceal_existence: conceals,
            ..AccountPolicy::default()
        },
        ..Setup::default()
    };
    let (_, setup) = Mailbox::in_memory(setup);
    let app = App::with(database, setup).await;
    for (n, email) in ["ann@example.org", "new@example.org", "gone@example.org"]
        .into_iter()
        .enumerate()
    {
        let account = NewAccount {
            email: email.into(),
            username: None,
            attributes: None,
        };
        let made = app.nodes[0].auth.accounts();
        let made = made
            .create(account, &PASSWORD.into(), Roles::default())
            .await;
        let id = made.expect("made").id;
        let admin = app.nodes[0].auth.admin();
        let verified = AdminUserChange {
            email_verified: Some(n != 1),
            ..AdminUserChange::default()
        };
        admin
            .update_user(Actor::Operator, id, verified)
            .await
            .expect("changed");
        if n == 2 {
            admin
                .deactivate(Actor::Operator, id)
                .await
                .expect("deactivated");
        }
    }
    let invited = AdminNewUser {
        account: NewAccount {
            email: "invited@example.org".into(),
            username: None,
            attributes: None,
        },
        roles: vec![],
        email_verified: false,
        session_limit: SessionLimitOverride::default(),
        invite: true,
    };
    let admin = app.nodes[0].auth.admin();
    admin
        .create_user(Actor::Operator, invited)
        .await
        .expect("made");
    let waiting = json!({"email": "waiting@example.org", "password": PASSWORD});
    if conceals {
        let anonymous = app.anonymous();
        let asked = anonymous.post("/v1/auth/register", waiting).await;
        asked.expect(202);
    }
    app.clock.advance(Span::secs(61));
    let people = vec![
        "ann@example.org",
        "ANN@example.org",
        "new@example.org",
        "gone@example.org",
        "invited@example.org",
        "waiting@example.org",
        "nobody@example.org",
    ];
    (app, people)
}

fn assert_alike(seen: &[(String, Anonymised, Work)], runs: u64) {
    for (who, answer, work) in seen {
        assert_eq!(answer, &seen[0].1, "{who}");
        assert_eq!(work, &seen[0].2, "{who}");
    }
    assert_eq!(seen[0].2.0, runs, "{seen:?}");
    let calls: usize = seen[0].2.1.values().sum();
    assert!(calls >= 1, "{seen:?}");
}

/// ASVS 6.3.8: also when the same address is asked for twice.
async fn asking_for_letters_tells_nothing(database: Database) {
    let (app, people) = people(database, false).await;
    for path in ["/v1/auth/password/forgot", "/v1/auth/email/resend"] {
        let mut seen = Vec::new();
        for who in people.iter().chain(&people) {
            let (answer, work) = measured(&app, path, json!({"email": who})).await;
            assert_eq!(answer.0, 202);
            seen.push(((*who).to_owned(), answer, work));
        }
        assert_alike(&seen, 0);
    }
}

async fn registering_tells_nothing_where_that_is_concealed(database: Database) {
    let (app, people) = people(database, true).await;
    let mut seen = Vec::new();
    for who in people {
        let body = json!({"email": who, "password": PASSWORD});
        let (answer, work) = measured(&app, "/v1/auth/register", body).await;
        assert_eq!(answer.0, 202);
        seen.push((who.to_owned(), answer, work));
    }
    assert_alike(&seen, 1);
}

async fn a_wrong_code_tells_nothing(database: Database) {
    let (app, people) = people(database, true).await;
    for (path, runs) in [
        ("/v1/auth/email/verify", 0),
        ("/v1/auth/password/reset", 1),
        ("/v1/auth/register/confirm", 1),
    ] {
        let mut seen = Vec::new();
        for who in &people {
            let mut body = json!({"email": who, "code": "000000"});
            if runs > 0 {
                body["password"] = json!(PASSWORD);
            }
            let (answer, work) = measured(&app, path, body).await;
            assert_eq!(answer.0, 400);
            seen.push(((*who).to_owned(), answer, work));
        }
        assert_alike(&seen, runs);
    }
}

/// ASVS 6.3.8: same status, body, headers, scrypt runs and store calls.
async fn unknown_and_known_accounts_are_answered_alike_for_the_same_work(database: Database) {
    let app = App::start(database).await;
    let body = json!({"email": "ann@example.org", "username": "ann", "password": PASSWORD});
    app.anonymous()
        .post("/v1/auth/register", body)
        .await
        .expect(201);
    let admin = app.admin("root@example.org").await;
    admin
        .post("/v1/admin/users", json!({"email": "invited@example.org"}))
        .await
        .expect(201);
    let imported = ImportedUser {
        id: None,
        account: NewAccount {
            email: "imported@example.org".into(),
            username: None,
            attributes: None,
        },
        email_verified: false,
        email_verified_at: None,
        roles: vec![],
        active: true,
        deactivated_at: None,
        created_at: None,
        password_hash: Some("$2b$04$5j.89Awxab5wVYmWqqIhGe1QEysrT.tfnCXyENbZiHugpQFbgV43K".into()),
    };
    let accounts = app.nodes[0].auth.accounts();
    accounts.import(imported, true).await.expect("imported");

    let node = &app.nodes[0];
    let mut seen = Vec::new();
    for who in [
        json!({"email": "ann@example.org"}),
        json!({"email": "ANN@example.org"}),
        json!({"username": "ann"}),
        json!({"email": "nobody@example.org"}),
        json!({"username": "nobody"}),
        json!({"email": "invited@example.org"}),
        json!({"email": "imported@example.org"}),
        json!({"email": "not an address"}),
        json!({"username": "x"}),
        json!({"email": "ann@example.org\r\nX-Evil: 1"}),
    ] {
        let (scrypt_before, calls_before) =
            (node.auth.metrics().scrypt_runs.get(), node.store.calls());
        let mut login = who.clone();
        login["password"] = json!("a wrong password altogether");
        let reply = app.anonymous().post("/v1/auth/login", login).await;
        let work = (
            node.auth.metrics().scrypt_runs.get() - scrypt_before,
            node.store.calls() - calls_before,
        );
        seen.push((who, anonymised(&reply), work));
    }
    for (who, answer, work) in &seen {
        assert_eq!(answer, &seen[0].1, "{who}");
        assert_eq!(work, &(1, 4), "{who}: one scrypt run and four store calls");
    }
}

/// On MongoDB a name and its user are two reads, besides the two of counters and the one of the key that the
/// record of the refusal is for; a name that leads nowhere takes
/// as many, since a whole round trip could be timed from outside. SQL takes one statement either way.
#[tokio::test(flavor = "multi_thread")]
async fn mongodb_reads_as_much_for_nobody_as_for_somebody() {
    let app = App::start(Database::fresh(Backend::Mongodb).await).await;
    app.register("ann@example.org").await;
    let mongo = app.database.mongo().await;
    let mut seen = Vec::new();
    for email in ["ann@example.org", "nobody@example.org"] {
        let profile = |level: i32| mongo.run_command(doc! { "profile": level });
        profile(2).await.expect("a profile");
        let login = json!({"email": email, "password": "a wrong password altogether"});
        assert_problem!(
            app.anonymous().post("/v1/auth/login", login).await,
            401,
            "bad_credentials"
        );
        profile(0).await.expect("no profile");
        let profiled = mongo.collection::<Document>("system.profile");
        let reads = profiled.distinct("command.find", doc! {}).await;
        let count = profiled.count_documents(doc! { "op": "query" }).await;
        seen.push((reads.expect("reads"), count.expect("a count")));
        profiled.drop().await.expect("forgotten");
    }
    assert_eq!(seen[0].1, 5, "{seen:?}");
    assert_eq!(seen[0], seen[1]);
}

/// Status, body and headers.
type Anonymised = (u16, Value, Vec<(String, String)>);

/// An answer without what differs between any two requests.
fn anonymised(reply: &Reply) -> Anonymised {
    let mut body = reply.json();
    if reply.status >= 400 {
        assert!(body["request_id"].is_string());
        body["request_id"] = Value::Null;
    }
    let mut headers: Vec<_> = reply
        .headers
        .iter()
        .filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()))
        .collect();
    headers.sort();
    (reply.status, body, headers)
}

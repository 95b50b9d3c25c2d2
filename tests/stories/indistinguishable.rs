//! Promise 6: a login never tells whether an account exists.

use ::mongodb::bson::{Document, doc};
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, PASSWORD, Reply},
        backend::{Backend, Database},
    },
};

for_each_store! {
    unknown_and_known_accounts_are_answered_alike_for_the_same_work,
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

    let node = &app.nodes[0];
    let mut seen = Vec::new();
    for who in [
        json!({"email": "ann@example.org"}),
        json!({"email": "ANN@example.org"}),
        json!({"username": "ann"}),
        json!({"email": "nobody@example.org"}),
        json!({"username": "nobody"}),
        json!({"email": "invited@example.org"}),
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
        assert_eq!(work, &(1, 1), "{who}: one scrypt run and one store call");
    }
}

/// On MongoDB a name and its user are two reads; a name that leads nowhere takes two as well, since a
/// whole round trip could be timed from outside. SQL takes one statement either way.
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
    assert_eq!(seen[0].1, 2, "{seen:?}");
    assert_eq!(seen[0], seen[1]);
}

/// An answer without what differs between any two requests.
fn anonymised(reply: &Reply) -> (u16, Value, Vec<(String, String)>) {
    let mut body = reply.json();
    assert!(body["request_id"].is_string());
    body["request_id"] = Value::Null;
    let mut headers: Vec<_> = reply
        .headers
        .iter()
        .filter(|(name, _)| !["x-request-id", "date"].contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned()))
        .collect();
    headers.sort();
    (reply.status, body, headers)
}

//! Persons: what is kept of one is given out, and erased for good.

use doorward::{
    clock::Span,
    ids::UserId,
    model::{
        audit::{AuditFilter, AuditRecord, Event, EventKind},
        role::{FixedRoles, Permissions, RoleDefinition},
    },
    store::Store,
};
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, PASSWORD, Setup},
        backend::Database,
    },
};

for_each_store! {
    an_erased_person_is_gone_everywhere_at_once,
    erasing_takes_permission_rank_and_a_fresh_login,
    the_last_administrator_is_not_erased,
    an_export_holds_what_is_the_persons_and_nothing_else,
}

const ANN: &str = "ann@example.org";

async fn id_of(client: &Client) -> String {
    let me = client.me().await.expect(200);
    me["id"].as_str().expect("an id").to_owned()
}

/// Registers Ann and logs her in, each at a time of its own: what happens in one millisecond has no order.
async fn ann(app: &App) -> Client {
    app.register(ANN).await;
    app.clock.advance(Span::secs(1));
    let ann = app.log_in(ANN).await;
    app.clock.advance(Span::secs(1));
    ann
}

async fn records_of(app: &App, user: &str) -> Vec<AuditRecord> {
    let user: UserId = user.parse().expect("an id");
    let filter = AuditFilter {
        subject: Some(user),
        limit: 100,
        ..AuditFilter::default()
    };
    app.nodes[0]
        .store
        .list_audit(&filter)
        .await
        .expect("listed")
}

/// ASVS 7.4.2, 14.2.7.
async fn an_erased_person_is_gone_everywhere_at_once(database: Database) {
    let app = App::two_nodes(database).await;
    let admin = app.admin("root@example.org").await;
    let ann = ann(&app).await;
    let id = id_of(&ann).await;
    ann.at(&app.nodes[1]).me().await.expect(200);
    let before = records_of(&app, &id).await;
    assert!(before.iter().all(|record| record.details.is_some()));

    let path = format!("/v1/admin/users/{id}");
    admin.delete(&path).await.expect(204);
    for node in &app.nodes {
        assert_problem!(ann.at(node).me().await, 401, "session_unknown");
        assert_problem!(ann.at(node).try_refresh().await, 401, "session_unknown");
    }
    assert_problem!(admin.get(&path).await, 404, "not_found");
    assert_problem!(admin.delete(&path).await, 404, "not_found");
    let login = app.anonymous().try_log_in(ANN, PASSWORD).await;
    assert_problem!(login, 401, "bad_credentials");

    // What was written stays, byte for byte, so that its seals hold; nobody can open it any more, wherever a copy
    // of it comes from, since the key is gone.
    let after = records_of(&app, &id).await;
    let kept: Vec<_> = after
        .iter()
        .filter(|record| before.contains(record))
        .collect();
    assert_eq!(kept.len(), before.len());
    let person: UserId = id.parse().expect("an id");
    let keys = app.nodes[0].store.audit_keys(&[person]).await;
    assert_eq!(keys.expect("an answer"), []);
    let query = format!("/v1/admin/audit?subject={id}");
    let shown = admin.get(&query).await.expect(200);
    let shown = shown["items"].as_array().expect("items");
    let names: Vec<_> = shown
        .iter()
        .map(|record| record["event"].as_str())
        .collect();
    // Erased in one step.
    let mut newest = names[..2].to_vec();
    newest.sort_unstable();
    assert_eq!(newest, ["account_erased", "session_ended"].map(Some));
    assert_eq!(names[2..], ["login", "account_created"].map(Some));
    for record in shown {
        let is_admins = record["actor_id"] == id_of(&admin).await;
        let state = if is_admins { "shown" } else { "erased" };
        assert_eq!(record["details_state"], state, "{record}");
        assert_eq!(record["details"].is_null(), !is_admins, "{record}");
    }

    // The name is free, and whoever takes it is somebody else.
    let another = app.user(ANN).await;
    assert_ne!(id_of(&another).await, id);
    let events = another.get("/v1/auth/me/events").await.expect(200);
    assert_eq!(events["items"].as_array().map(Vec::len), Some(2));
    let still = admin.get(&query).await.expect(200);
    assert_eq!(still["items"][2]["details_state"], "erased");
}

fn role(name: &str, permissions: &[&str]) -> RoleDefinition {
    RoleDefinition {
        name: name.to_owned(),
        permissions: Permissions::parse(permissions.iter().copied()).expect("valid"),
    }
}

/// ASVS 7.5.3, 8.2.1.
async fn erasing_takes_permission_rank_and_a_fresh_login(database: Database) {
    let setup = Setup {
        roles: FixedRoles::with([
            role("privacy", &["users:erase"]),
            role("clerk", &["users:read", "users:write"]),
        ]),
        ..Setup::default()
    };
    let app = App::with(database, setup).await;
    let privacy = app.holder("eve@example.org", &["privacy"]).await;
    let clerk = app.holder("bob@example.org", &["clerk"]).await;
    let ann = ann(&app).await;
    let path = format!("/v1/admin/users/{}", id_of(&ann).await);
    let export = format!("{path}/export");
    assert_problem!(clerk.delete(&path).await, 403, "permission_required");
    assert_problem!(clerk.get(&export).await, 403, "permission_required");
    let of_clerk = format!("/v1/admin/users/{}", id_of(&clerk).await);
    assert_problem!(privacy.delete(&of_clerk).await, 403, "outranked");
    assert_problem!(
        privacy.get(&format!("{of_clerk}/export")).await,
        403,
        "outranked"
    );

    app.clock.advance(Span::minutes(16));
    let privacy = privacy.refreshed().await;
    assert_problem!(privacy.delete(&path).await, 403, "reauth_required");
    assert_problem!(privacy.get(&export).await, 403, "reauth_required");
    let proof = json!({"password": PASSWORD});
    privacy
        .post("/v1/auth/reauthenticate", proof)
        .await
        .expect(204);
    privacy.get(&export).await.expect(200);
    privacy.delete(&path).await.expect(204);
    clerk.refreshed().await.me().await.expect(200);
}

async fn the_last_administrator_is_not_erased(database: Database) {
    let app = App::start(database).await;
    let admin = app.admin("root@example.org").await;
    let path = format!("/v1/admin/users/{}", id_of(&admin).await);
    assert_problem!(admin.delete(&path).await, 409, "last_admin");
    admin.me().await.expect(200);
    let second = app.admin("second@example.org").await;
    admin.delete(&path).await.expect(204);
    assert_problem!(admin.me().await, 401, "session_unknown");
    second.me().await.expect(200);
}

async fn an_export_holds_what_is_the_persons_and_nothing_else(database: Database) {
    let app = App::start(database).await;
    let admin = app.admin("root@example.org").await;
    let ann = ann(&app).await;
    let (id, root) = (id_of(&ann).await, id_of(&admin).await);
    let path = format!("/v1/admin/users/{id}");
    let change = json!({"attributes": {"plan": "pro"}});
    admin.patch(&path, change).await.expect(200);
    app.clock.advance(Span::secs(1));

    let reply = admin.get(&format!("{path}/export")).await;
    assert!(!reply.text.contains(&root), "{}", reply.text);
    let data = reply.expect(200);
    assert_eq!(data["user"]["email"], ANN);
    assert_eq!(data["user"]["attributes"], json!({"plan": "pro"}));
    assert_eq!(data["sessions"][0]["id"], ann.session_id().await);
    let events = data["events"].as_array().expect("events");
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str()).collect();
    assert_eq!(
        names,
        [
            "account_exported",
            "account_changed",
            "login",
            "account_created"
        ]
        .map(Some)
    );
    assert_eq!(events[0]["actor"], "administrator");
    assert_eq!(events[0]["details"], Value::Null);
    assert_eq!(events[2]["details"]["address"], "127.0.0.1");
    // An export of everybody who did more than fits on a page is whole.
    let node = &app.nodes[0];
    let many = Event::done(EventKind::Login);
    let many = vec![many.about(id.parse::<UserId>().expect("an id")); 450];
    let by = node.auth.audit().by_itself();
    node.store.record(&many, &by).await.expect("recorded");
    let data = admin.get(&format!("{path}/export")).await.expect(200);
    assert_eq!(data["events"].as_array().map(Vec::len), Some(455));
}

//! Who reads what of the audit trail: administrators all of it, users what is theirs.

use std::collections::BTreeSet;

use doorward::{
    audit::AuditPolicy,
    clock::Span,
    ids::UserId,
    model::audit::{Event, EventKind},
    secret::SecretString,
    store::Store,
};
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, Reply, Setup},
        backend::Database,
    },
};

for_each_store! {
    records_are_listed_filtered_and_paged,
    an_export_is_whole_in_json_lines_and_is_recorded,
    only_who_may_read_the_trail_sees_it,
    users_see_their_own_events_and_nothing_of_others,
    details_of_another_key_are_said_to_be_unreadable,
}

const ANN: &str = "ann@example.org";
const AUDIT: &str = "/v1/admin/audit";

fn items(page: &Value) -> Vec<Value> {
    page["items"].as_array().expect("items").clone()
}

async fn list(admin: &Client, query: &str) -> Vec<Value> {
    items(&admin.get(&format!("{AUDIT}{query}")).await.expect(200))
}

async fn id_of(client: &Client) -> String {
    let me = client.me().await.expect(200);
    me["id"].as_str().expect("an id").to_owned()
}

fn names(records: &[Value]) -> Vec<&str> {
    let name = |record| -> &str { Value::as_str(record).expect("a name") };
    records
        .iter()
        .map(|record| name(&record["event"]))
        .collect()
}

/// What happens in one millisecond has no order.
fn later(app: &App) {
    app.clock.advance(Span::secs(1));
}

/// ASVS 2.2.3, 16.2.2.
async fn records_are_listed_filtered_and_paged(database: Database) {
    let app = App::start(database).await;
    let admin = app.admin("root@example.org").await;
    let registered_at = app.now();
    app.register(ANN).await;
    app.clock.advance(Span::minutes(1));
    let logins_from = app.now();
    let wrong = app.anonymous().try_log_in(ANN, "not the password").await;
    assert_problem!(wrong, 401, "bad_credentials");
    app.clock.advance(Span::minutes(1));
    let ann = app.log_in(ANN).await;
    let (user, session) = (id_of(&ann).await, ann.session_id().await);

    let of_ann = list(&admin, &format!("?subject={user}")).await;
    assert_eq!(names(&of_ann), ["login", "login", "account_created"]);
    let login = &of_ann[0];
    for (field, value) in [
        ("outcome", json!("done")),
        ("actor", json!("user")),
        ("actor_id", json!(user)),
        ("actor_session", json!(session)),
        ("session_id", json!(session)),
        ("details_state", json!("shown")),
        ("facts", json!({"auth_methods": ["pwd"]})),
        ("seq", Value::Null),
    ] {
        assert_eq!(login[field], value, "{field}");
    }
    assert_eq!(login["details"]["address"], "127.0.0.1");
    assert!(login["at"].as_str().expect("a time").ends_with('Z'));
    let refused = &of_ann[1];
    assert_eq!(
        (&refused["outcome"], &refused["actor"], &refused["actor_id"]),
        (&json!("refused"), &json!("nobody"), &Value::Null)
    );

    for (query, count) in [
        ("event=login&outcome=refused".to_owned(), 1),
        (format!("session={session}"), 1),
        (format!("user={user}"), 3),
        (format!("user={user}&until={registered_at}"), 0),
        (format!("user={user}&from={logins_from}"), 2),
        (
            format!("user={user}&from={registered_at}&until={logins_from}"),
            1,
        ),
    ] {
        assert_eq!(
            list(&admin, &format!("?{query}")).await.len(),
            count,
            "{query}"
        );
    }

    let all = list(&admin, "").await;
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = admin
            .get(&format!("{AUDIT}?limit=2{cursor}"))
            .await
            .expect(200);
        paged.extend(items(&page));
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, all);

    for (query, status) in [
        ("event=dance", 400),
        ("outcome=maybe", 400),
        ("from=yesterday", 400),
        ("user=ann", 400),
        ("limit=0", 422),
        ("limit=201", 422),
        ("from=2027-01-02T00:00:00Z&until=2027-01-01T00:00:00Z", 422),
    ] {
        let reply = admin.get(&format!("{AUDIT}?{query}")).await;
        assert_eq!(reply.status, status, "{query}: {}", reply.text);
    }
}

fn lines(reply: &Reply) -> Vec<Value> {
    assert_eq!(
        (reply.status, reply.header("content-type")),
        (200, Some("application/x-ndjson"))
    );
    let parse = |line: &str| serde_json::from_str(line).expect(line);
    reply.text.lines().map(parse).collect()
}

async fn an_export_is_whole_in_json_lines_and_is_recorded(database: Database) {
    let app = App::start(database).await;
    let admin = app.admin("root@example.org").await;
    // More than two batches.
    let node = &app.nodes[0];
    let events = vec![Event::done(EventKind::LimitReached); 450];
    let by = node.auth.audit().by_itself();
    node.store.record(&events, &by).await.expect("recorded");

    let reply = admin
        .get("/v1/admin/audit/export?event=limit_reached")
        .await;
    let exported = lines(&reply);
    let ids: Vec<&str> = exported
        .iter()
        .map(|line| line["id"].as_str().expect("an id"))
        .collect();
    let distinct: BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!((ids.len(), distinct.len()), (450, 450));
    assert!(ids.is_sorted_by(|a, b| a > b), "newest first");
    assert!(exported.iter().all(|line| line["event"] == "limit_reached"));

    let recorded = list(&admin, "?event=audit_exported").await;
    assert_eq!(recorded.len(), 1);
    assert_eq!(recorded[0]["facts"], json!({"event": "limit_reached"}));
    assert_eq!(recorded[0]["actor_id"], id_of(&admin).await);

    later(&app);
    let whole = lines(&admin.get("/v1/admin/audit/export").await);
    assert_eq!(whole[0]["event"], "audit_exported");
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    while paged.len() < whole.len() {
        let page = list(&admin, &format!("?limit=200{cursor}")).await;
        let last = page.last().expect("some are left")["id"].clone();
        cursor = format!("&cursor={}", last.as_str().expect("an id"));
        paged.extend(page);
    }
    assert_eq!(whole, paged);
}

/// ASVS 16.4.2: reading takes a permission of its own.
async fn only_who_may_read_the_trail_sees_it(database: Database) {
    use doorward::model::role::{FixedRoles, Permissions, RoleDefinition};
    let define = |name: &str, permissions: [&str; 2]| RoleDefinition {
        name: name.to_owned(),
        permissions: Permissions::parse(permissions).expect("valid"),
    };
    let setup = Setup {
        roles: FixedRoles::with([
            define("auditor", ["audit:read", "roles:read"]),
            define("clerk", ["users:read", "users:write"]),
        ]),
        ..Setup::default()
    };
    let app = App::with(database, setup).await;
    let auditor = app.holder("eve@example.org", &["auditor"]).await;
    let clerk = app.holder("bob@example.org", &["clerk"]).await;
    let session = clerk.session_id().await;
    for path in [
        AUDIT.to_owned(),
        format!("{AUDIT}/export"),
        format!("/v1/admin/sessions/{session}/why"),
    ] {
        assert_problem!(app.anonymous().get(&path).await, 401, "unauthenticated");
        assert_problem!(clerk.get(&path).await, 403, "permission_required");
        assert_eq!(auditor.get(&path).await.status, 200, "{path}");
    }
}

async fn users_see_their_own_events_and_nothing_of_others(database: Database) {
    let app = App::start(database).await;
    let admin = app.admin("root@example.org").await;
    app.register(ANN).await;
    later(&app);
    let ann = app.log_in(ANN).await;
    let bob = app.user("bob@example.org").await;
    let (user, root) = (id_of(&ann).await, id_of(&admin).await);
    later(&app);
    let wrong = app.anonymous().try_log_in(ANN, "not the password").await;
    assert_problem!(wrong, 401, "bad_credentials");
    later(&app);
    let change = json!({"attributes": {"plan": "pro"}});
    let path = format!("/v1/admin/users/{user}");
    admin.patch(&path, change).await.expect(200);
    let node = &app.nodes[0];
    let id: UserId = user.parse().expect("an id");
    let dropped = Event::done(EventKind::LetterDropped).about(id);
    let by = node.auth.audit().by_itself();
    node.store.record(&[dropped], &by).await.expect("recorded");

    let reply = ann.get("/v1/auth/me/events").await;
    for others in [root, id_of(&bob).await] {
        assert!(!reply.text.contains(&others), "{}", reply.text);
    }
    let events = items(&reply.expect(200));
    let shown = |event: &Value| {
        let text = |field: &str| event[field].as_str().unwrap_or("-").to_owned();
        let is_from_somewhere = event["details"].is_object();
        (
            text("event"),
            text("outcome"),
            text("actor"),
            is_from_somewhere,
        )
    };
    let expected = [
        // An administrator's address is no user's business.
        ("account_changed", "done", "administrator", false),
        ("login", "refused", "nobody", true),
        ("login", "done", "you", true),
        ("account_created", "done", "nobody", true),
    ]
    .map(|(event, outcome, actor, from)| {
        (event.to_owned(), outcome.to_owned(), actor.to_owned(), from)
    });
    assert_eq!(events.iter().map(shown).collect::<Vec<_>>(), expected);
    assert_eq!(events[2]["session_id"], ann.session_id().await);
    assert!(events.iter().all(|event| event["about_you"] == true));

    // What administrators did is among their own events, without saying to whom.
    let acted = admin.get("/v1/auth/me/events?limit=1").await.expect(200);
    let act = &acted["items"][0];
    assert_eq!(
        (
            &act["event"],
            &act["actor"],
            &act["about_you"],
            &act["session_id"]
        ),
        (
            &json!("account_changed"),
            &json!("you"),
            &json!(false),
            &Value::Null
        )
    );
    assert!(acted["next_cursor"].is_string());
    let next = acted["next_cursor"].as_str().expect("a cursor");
    let path = format!("/v1/auth/me/events?limit=1&cursor={next}");
    let next = admin.get(&path).await.expect(200);
    assert_ne!(next["items"][0]["id"], act["id"]);
    assert_problem!(
        ann.get("/v1/auth/me/events?limit=201").await,
        422,
        "invalid_input"
    );
    assert_problem!(
        app.anonymous().get("/v1/auth/me/events").await,
        401,
        "unauthenticated"
    );
}

async fn details_of_another_key_are_said_to_be_unreadable(database: Database) {
    let mut app = App::start(database).await;
    let admin = app.admin("root@example.org").await;
    let other = Setup {
        audit: AuditPolicy {
            key: SecretString::from("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
            ..Setup::default().audit
        },
        ..Setup::default()
    };
    let node = app.add_node(&other).await;
    let query = "?event=login&outcome=done";
    for (client, state) in [
        (admin.clone(), "shown"),
        (admin.at(&app.nodes[node]), "unreadable"),
    ] {
        let logins = list(&client, query).await;
        assert_eq!(logins[0]["details_state"], state);
        assert_eq!(logins[0]["details"].is_null(), state != "shown");
    }
}

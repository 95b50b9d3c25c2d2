//! Roles: what they let people do, how they are made, and that nobody climbs by them.

use std::collections::{BTreeMap, BTreeSet};

use doorward::{
    admin::AdminPolicy,
    clock::Span,
    http::{Asks, Operation, Verdict, openapi_document, operations},
    model::role::{FixedRoles, OWN, Permissions, RoleDefinition},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, PASSWORD, Reply, Setup, fresh_email},
        backend::Database,
    },
};

for_each_store! {
    every_role_gets_what_the_matrix_says_from_every_operation,
    a_role_of_the_database_counts_from_the_next_request_on,
    a_demoted_administrators_token_is_refused_on_the_next_request,
    roles_are_listed_with_where_they_come_from,
    nobody_writes_rights_of_their_own,
    nobody_acts_on_somebody_who_may_do_more,
    giving_roles_takes_more_than_making_users,
    the_gravest_acts_take_a_fresh_login,
    the_last_administrator_may_be_one_by_a_stored_role,
    a_proxy_asks_for_a_permission,
}

fn role(name: &str, permissions: &[&str]) -> RoleDefinition {
    RoleDefinition {
        name: name.to_owned(),
        permissions: Permissions::parse(permissions.iter().copied()).expect("valid"),
    }
}

/// What every operation asks for is in the matrix, and in the document as it is there.
#[test]
fn the_document_says_what_the_matrix_says() {
    let document: Value =
        serde_json::from_str(&openapi_document("https://auth.example.org")).expect("JSON");
    let operations = operations();
    let mut documented = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, about) in methods.as_object().expect("operations") {
            let id = about["operationId"].as_str().expect("an operationId");
            documented.insert(id);
            let entry = operations.iter().find(|operation| operation.id == id);
            let entry = entry.unwrap_or_else(|| panic!("{id} is not in the matrix"));
            assert_eq!(
                (entry.method.to_lowercase().as_str(), &entry.path),
                (method.as_str(), path)
            );
            let is_protected = about["security"]
                .as_array()
                .is_some_and(|ways| !ways.is_empty());
            assert_eq!(is_protected, entry.asks != Asks::Nothing, "{id}");
            let description = about["description"].as_str().unwrap_or_default();
            match entry.asks {
                Asks::Permission { name, step_up } => {
                    assert_eq!(about["x-permission"], name, "{id}");
                    assert_eq!(about["x-step-up"], step_up.as_str(), "{id}");
                    assert!(
                        description.contains(&format!("Needs the permission `{name}`")),
                        "{id}"
                    );
                }
                _ => assert!(about["x-permission"].is_null(), "{id}"),
            }
            let is_administration = path.starts_with("/v1/admin/");
            assert_eq!(
                matches!(entry.asks, Asks::Permission { .. }),
                is_administration,
                "{id}"
            );
        }
    }
    assert_eq!(documented.len(), operations.len());
    for (permission, _) in OWN {
        let asks = |operation: &&Operation| matches!(operation.asks, Asks::Permission { name, .. } if name == permission);
        assert!(
            operations.iter().find(asks).is_some(),
            "nothing asks for {permission}"
        );
    }
}

/// Somebody who calls operations.
struct Caller {
    who: String,
    roles: Vec<String>,
    client: Client,
    /// Nothing for nobody.
    holds: Option<Permissions>,
    is_fresh: bool,
}

impl Caller {
    /// Somebody of the same standing whose session is nobody else's.
    async fn double(&self, app: &App) -> Client {
        if self.holds.is_none() {
            return self.client.clone();
        }
        let roles: Vec<&str> = self.roles.iter().map(String::as_str).collect();
        app.holder(&fresh_email(), &roles).await
    }
}

async fn caller(app: &App, name: &str, holds: Permissions) -> Caller {
    let roles: Vec<String> = (!name.is_empty())
        .then(|| name.to_owned())
        .into_iter()
        .collect();
    let held: Vec<&str> = roles.iter().map(String::as_str).collect();
    Caller {
        who: format!("a holder of `{name}`"),
        client: app.holder(&fresh_email(), &held).await,
        roles,
        holds: Some(holds),
        is_fresh: true,
    }
}

/// A name for a role that grants one permission.
fn only(permission: &str) -> String {
    format!("only-{}", permission.replace(':', "-"))
}

/// What a well-formed request of an operation looks like; nothing where the documents have no example.
fn request(document: &Value, operation: &Operation) -> Option<Value> {
    let about = &document["paths"][&operation.path][operation.method.to_lowercase()];
    let schema = &about["requestBody"]["content"]["application/json"]["schema"]["$ref"];
    let name = schema.as_str()?.strip_prefix("#/components/schemas/")?;
    match operation.id {
        // Without anything that takes more than the operation itself.
        "create_user" => Some(json!({"email": fresh_email()})),
        "update_user" => Some(json!({"attributes": {}})),
        _ => Some(document["components"]["schemas"][name]["example"].clone()),
    }
}

async fn call(client: &Client, operation: &Operation, target: &str, body: Option<Value>) -> Reply {
    let path = operation
        .path
        .replace("{id}", target)
        .replace("{name}", "nobodys");
    assert!(!path.contains('{'), "{path}");
    if operation.asks == Asks::Client || operation.id == "oauth_token" {
        let form = "token=x&grant_type=refresh_token&refresh_token=x";
        let mut request = client.http.post(format!("{}{path}", client.url));
        if let Some(token) = &client.token {
            request = request.bearer_auth(token);
        }
        let request = request
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        return Reply::of(request.send().await.expect("an answer")).await;
    }
    let method: Method = operation.method.parse().expect("a method");
    client.send(method, &path, body).await
}

/// What an answer says about who is let in.
fn verdict_of(reply: &Reply) -> &'static str {
    let is_json = reply
        .header("content-type")
        .is_some_and(|kind| kind.ends_with("/json") || kind.ends_with("+json"));
    let body = if is_json { reply.json() } else { Value::Null };
    match body["code"].as_str().or(body["error"].as_str()) {
        Some("unauthenticated" | "invalid_client") => "401",
        Some("permission_required" | "role_required" | "outranked") => "403",
        Some("reauth_required") => "reauth",
        _ => "let in",
    }
}

/// Calls every operation and compares with the matrix.
async fn walk(app: &App, caller: &Caller, document: &Value) {
    for operation in operations() {
        let is_admin = operation.path.starts_with("/v1/admin/");
        let client = if is_admin || operation.method == "GET" {
            caller.client.clone()
        } else if caller.is_fresh {
            caller.double(app).await
        } else {
            continue;
        };
        let target = if operation.path.contains("/users/{id}") {
            app.register(&fresh_email()).await["id"]
                .as_str()
                .expect("an id")
                .to_owned()
        } else {
            "01a1fd04-d80f-78ad-8214-d1b435d1f2f0".to_owned()
        };
        let reply = call(&client, &operation, &target, request(document, &operation)).await;
        let wanted = match operation.answers(caller.holds.as_ref()) {
            Verdict::Unauthorized => "401",
            Verdict::Forbidden => "403",
            Verdict::StepUp if !caller.is_fresh => "reauth",
            Verdict::Allowed | Verdict::StepUp | Verdict::StepUpSometimes => "let in",
        };
        let (who, id) = (&caller.who, operation.id);
        assert_eq!(
            verdict_of(&reply),
            wanted,
            "{id} by {who}: {} {}",
            reply.status,
            reply.text
        );
        // The clock of a test is not the database's.
        let is_sound = reply.status < 500 || id == "health_ready";
        assert!(is_sound, "{id} by {who}: {}", reply.text);
        assert!(
            ![415, 422].contains(&reply.status),
            "{id} by {who}: {}",
            reply.text
        );
    }
}

/// Every role × every operation. ASVS 8.1.1, 8.1.2, 8.1.3, 8.1.4, 8.2.1, 8.3.1.
async fn every_role_gets_what_the_matrix_says_from_every_operation(database: Database) {
    let single = OWN.map(|(permission, _)| role(&only(permission), &[permission]));
    let configured = role(
        "support",
        &["users:read", "sessions:revoke", "billing:write"],
    );
    let fixed = FixedRoles::with(single.iter().cloned().chain([configured.clone()]));
    let setup = Setup {
        roles: fixed,
        ..Setup::default()
    };
    let app = App::with(database, setup).await;
    let document: Value = serde_json::from_str(&openapi_document("http://x")).expect("JSON");

    let mut old = caller(&app, "admin", Permissions::own()).await;
    app.clock.advance(Span::minutes(16));
    old.client = old.client.refreshed().await;
    (old.is_fresh, old.who) = (false, "an administrator with an old login".to_owned());
    walk(&app, &old, &document).await;

    let stored = role("clerk", &["users:read", "outbox:manage", "roles:read"]);
    let root = caller(&app, "admin", Permissions::own()).await;
    let body = json!({"permissions": stored.permissions.to_vec()});
    root.client
        .put("/v1/admin/roles/clerk", body)
        .await
        .expect(200);
    let nobody = Caller {
        who: "nobody".to_owned(),
        roles: Vec::new(),
        client: app.anonymous(),
        holds: None,
        is_fresh: true,
    };
    let mut callers = vec![
        nobody,
        caller(&app, "", Permissions::default()).await,
        caller(&app, "undefined", Permissions::default()).await,
        root,
    ];
    for role in single.into_iter().chain([configured, stored]) {
        callers.push(caller(&app, &role.name, role.permissions).await);
    }
    for caller in &callers {
        walk(&app, caller, &document).await;
    }
}

async fn id_of(client: &Client) -> String {
    let me = client.me().await.expect(200);
    me["id"].as_str().expect("an id").to_owned()
}

/// ASVS 8.3.2: what a role grants is read at each request.
async fn a_role_of_the_database_counts_from_the_next_request_on(database: Database) {
    let app = App::two_nodes(database).await;
    let root = app.admin("root@example.org").await;
    let ann = app.user("ann@example.org").await.at(&app.nodes[1]);
    let users = "/v1/admin/users";
    let support = "/v1/admin/roles/support";
    let given = format!("/v1/admin/users/{}/roles", id_of(&ann).await);
    root.put(&given, json!({"roles": ["support"]}))
        .await
        .expect(200);
    assert_problem!(ann.get(users).await, 403, "permission_required");
    let put = async |permissions: Value| {
        let put = root.put(support, json!({"permissions": permissions})).await;
        put.expect(200)
    };
    let made = put(json!(["users:read", "billing:write", "users:read"])).await;
    assert_eq!(made["permissions"], json!(["billing:write", "users:read"]));
    ann.get(users).await.expect(200);
    let granted = ann.get("/v1/auth/me/permissions").await.expect(200);
    assert_eq!(
        granted["permissions"],
        json!(["billing:write", "users:read"])
    );
    put(json!(["billing:write"])).await;
    let refused = ann.get(users).await;
    assert!(refused.text.contains("`users:read`"), "{}", refused.text);
    assert_problem!(refused, 403, "permission_required");
    put(json!(["users:read"])).await;
    ann.get(users).await.expect(200);
    root.delete(support).await.expect(204);
    assert_problem!(ann.get(users).await, 403, "permission_required");
    assert_problem!(root.delete(support).await, 404, "not_found");
}

/// ASVS 8.3.2: rights come from the database, not from the token.
async fn a_demoted_administrators_token_is_refused_on_the_next_request(database: Database) {
    let app = App::two_nodes(database).await;
    let root = app.admin("root@example.org").await;
    let second = app.admin("second@example.org").await.at(&app.nodes[1]);
    for operation in ["/v1/admin/users", "/v1/admin/roles", "/v1/admin/outbox"] {
        second.get(operation).await.expect(200);
    }
    let roles = format!("/v1/admin/users/{}/roles", id_of(&second).await);
    root.put(&roles, json!({"roles": []})).await.expect(200);
    for operation in ["/v1/admin/users", "/v1/admin/roles", "/v1/admin/outbox"] {
        assert_problem!(second.get(operation).await, 403, "permission_required");
    }
    let back = second.put(&roles, json!({"roles": ["admin"]})).await;
    assert_problem!(back, 403, "permission_required");
    second.me().await.expect(200);
}

async fn roles_are_listed_with_where_they_come_from(database: Database) {
    let setup = Setup {
        roles: FixedRoles::with([role("support", &["users:read"])]),
        ..Setup::default()
    };
    let app = App::with(database, setup).await;
    let root = app.admin("root@example.org").await;
    let put = async |name: &str, permissions: Value| {
        let path = format!("/v1/admin/roles/{name}");
        root.put(&path, json!({"permissions": permissions})).await
    };
    put("clerk", json!(["roles:read"])).await.expect(200);
    let listed = root.get("/v1/admin/roles").await.expect(200);
    let listed: BTreeMap<&str, &str> = listed["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|role| {
            let text = |field: &str| role[field].as_str().expect("text");
            assert_eq!(role["updated_at"].is_string(), text("source") == "stored");
            (text("name"), text("source"))
        })
        .collect();
    let wanted = [
        ("admin", "built_in"),
        ("clerk", "stored"),
        ("support", "config"),
    ];
    assert_eq!(listed, BTreeMap::from(wanted));
    for fixed in ["admin", "support"] {
        assert_problem!(put(fixed, json!([])).await, 409, "role_fixed");
        let path = format!("/v1/admin/roles/{fixed}");
        assert_problem!(root.delete(&path).await, 409, "role_fixed");
    }
    for name in ["Clerk", "a.b", "1st", "a%20b"] {
        assert_problem!(put(name, json!([])).await, 422, "invalid_input");
    }
    let misspelt = put("clerk", json!(["users:read", "users:reed"])).await;
    let fault = &misspelt.json()["errors"][0];
    assert_eq!(fault["field"], "permissions.1");
    let detail = fault["detail"].as_str().expect("text");
    assert!(detail.contains("did you mean users:read?"), "{detail}");
    assert_problem!(misspelt, 422, "invalid_input");
    let many: Vec<String> = (0..65).map(|n| format!("app:p{n}")).collect();
    for bad in [json!(["users"]), json!(["a:b c"]), json!(many)] {
        assert_problem!(put("clerk", bad).await, 422, "invalid_input");
    }
}

/// ASVS 8.2.3, 15.3.3: fields that decide about rights cannot be written by their owner.
async fn nobody_writes_rights_of_their_own(database: Database) {
    let app = App::start(database).await;
    let forbidden = [
        ("roles", json!(["admin"])),
        ("role", json!("admin")),
        ("permissions", json!(["roles:grant"])),
        ("email_verified", json!(true)),
        ("email_verified_at", json!("2026-01-01T00:00:00Z")),
        ("status", json!("active")),
        ("deactivated_at", Value::Null),
        ("max_sessions", json!(0)),
        ("on_session_limit", json!("reject")),
        ("id", json!("01a1fd04-d80f-78ad-8214-d1b435d1f2f0")),
        ("created_at", json!("2026-01-01T00:00:00Z")),
        ("credential_version", json!(7)),
    ];
    let ann = app.user("ann@example.org").await;
    let before = ann.me().await.expect(200);
    for (field, value) in &forbidden {
        let mut registration = json!({"email": "ben@example.org", "password": PASSWORD});
        registration[field] = value.clone();
        let reply = app
            .anonymous()
            .post("/v1/auth/register", registration)
            .await;
        assert_problem!(reply, 400, "unknown_field");
        let reply = ann.patch("/v1/auth/me", json!({*field: value})).await;
        assert_problem!(reply, 400, "unknown_field");
        let reply = ann
            .patch("/v1/auth/me", json!({"username": "ann", *field: value}))
            .await;
        assert_problem!(reply, 400, "unknown_field");
    }
    assert_eq!(ann.me().await.expect(200), before);
    assert_eq!(
        (&before["roles"], &before["email_verified"]),
        (&json!([]), &json!(false))
    );
    let ben = app
        .anonymous()
        .try_log_in("ben@example.org", PASSWORD)
        .await;
    assert_problem!(ben, 401, "bad_credentials");
    // What an application keeps in the attributes is no right.
    let attributes = json!({"roles": ["admin"], "permissions": ["users:read"]});
    ann.patch("/v1/auth/me", json!({"attributes": attributes}))
        .await
        .expect(200);
    assert_problem!(ann.get("/v1/admin/users").await, 403, "permission_required");
}

/// Everything that may be done to a user without `roles:grant`.
async fn acts_on(client: &Client, user: &str, session: &str) -> Vec<(u16, String)> {
    let path = format!("/v1/admin/users/{user}");
    let mut answers = Vec::new();
    for body in [
        json!({"email": fresh_email(), "email_verified": true}),
        json!({"username": null}),
        json!({"max_sessions": 1}),
        json!({}),
    ] {
        answers.push(client.patch(&path, body).await);
    }
    for act in ["reset-password", "activate", "revoke", "deactivate"] {
        answers.push(client.call(&format!("{path}/{act}")).await);
    }
    answers.push(
        client
            .call(&format!("/v1/admin/sessions/{session}/revoke"))
            .await,
    );
    let codes = answers.iter().map(|reply| match reply.problem_if_any() {
        Some(problem) => problem,
        None => (reply.status, String::new()),
    });
    codes.collect()
}

/// ASVS 8.2.2, 8.3.1.
async fn nobody_acts_on_somebody_who_may_do_more(database: Database) {
    let support = ["users:read", "users:write", "sessions:revoke"];
    let setup = Setup {
        roles: FixedRoles::with([role("support", &support), role("reader", &["users:read"])]),
        ..Setup::default()
    };
    let app = App::with(database, setup).await;
    let root = app.admin("root@example.org").await;
    let billing = json!({"permissions": ["billing:write"]});
    root.put("/v1/admin/roles/billing", billing)
        .await
        .expect(200);
    let agent = app.holder("agent@example.org", &["support"]).await;
    let refused = (403, "outranked".to_owned());
    for above in [&["admin"][..], &["reader", "billing"]] {
        let target = app.holder(&fresh_email(), above).await;
        let (id, session) = (id_of(&target).await, target.session_id().await);
        for answer in acts_on(&agent, &id, &session).await {
            assert_eq!(answer, refused, "{above:?}");
        }
        target.me().await.expect(200);
    }
    // Not while they are deactivated, either: whoever is activated again is as mighty as before.
    let away = app.holder("away@example.org", &["billing"]).await;
    let path = format!("/v1/admin/users/{}", id_of(&away).await);
    root.call(&format!("{path}/deactivate")).await.expect(200);
    assert_problem!(
        agent.call(&format!("{path}/activate")).await,
        403,
        "outranked"
    );

    for beside in [&[][..], &["reader"], &["support"], &["undefined"]] {
        let target = app.holder(&fresh_email(), beside).await;
        let (id, session) = (id_of(&target).await, target.session_id().await);
        let answers = acts_on(&agent, &id, &session).await;
        let statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        // The reset is refused because no mail is sent here.
        assert_eq!(
            statuses,
            [200, 200, 200, 200, 409, 200, 200, 200, 204],
            "{answers:?}"
        );
    }
    let target = app.admin("other@example.org").await;
    let (id, session) = (id_of(&target).await, target.session_id().await);
    let answers = acts_on(&root, &id, &session).await;
    assert!(
        answers.iter().all(|answer| *answer != refused),
        "{answers:?}"
    );
    // Whom one role made mightier is out of reach from the next request on.
    let ann = app.user("ann@example.org").await;
    let path = format!("/v1/admin/users/{}", id_of(&ann).await);
    agent
        .patch(&path, json!({"username": "ann"}))
        .await
        .expect(200);
    root.put(&format!("{path}/roles"), json!({"roles": ["billing"]}))
        .await
        .expect(200);
    assert_problem!(
        agent.patch(&path, json!({"username": "ben"})).await,
        403,
        "outranked"
    );
}

/// ASVS 8.2.1, 8.2.3.
async fn giving_roles_takes_more_than_making_users(database: Database) {
    let setup = Setup {
        roles: FixedRoles::with([role("support", &["users:read", "users:write"])]),
        ..Setup::default()
    };
    let app = App::with(database, setup).await;
    let root = app.admin("root@example.org").await;
    let agent = app.holder("agent@example.org", &["support"]).await;
    let make = async |client: &Client, roles: Value| {
        let body = json!({"email": fresh_email(), "roles": roles});
        client.post("/v1/admin/users", body).await
    };
    make(&agent, json!([])).await.expect(201);
    for roles in [json!(["admin"]), json!(["support"]), json!(["undefined"])] {
        assert_problem!(
            make(&agent, roles.clone()).await,
            403,
            "permission_required"
        );
        make(&root, roles).await.expect(201);
    }
    let own = format!("/v1/admin/users/{}", id_of(&agent).await);
    let admin = json!({"roles": ["admin"]});
    assert_problem!(
        agent.put(&format!("{own}/roles"), admin.clone()).await,
        403,
        "permission_required"
    );
    assert_problem!(agent.patch(&own, admin).await, 400, "unknown_field");
    let wider = json!({"permissions": ["roles:grant"]});
    assert_problem!(
        agent.put("/v1/admin/roles/support", wider).await,
        403,
        "permission_required"
    );
    assert_eq!(agent.me().await.expect(200)["roles"], json!(["support"]));
}

/// ASVS 7.5.3.
async fn the_gravest_acts_take_a_fresh_login(database: Database) {
    let app = App::two_nodes(database).await;
    let root = app.admin("root@example.org").await;
    let ann = app.register("ann@example.org").await;
    let path = format!("/v1/admin/users/{}", ann["id"].as_str().expect("an id"));
    let admin = json!({"email": "ben@example.org", "roles": ["admin"]});
    let acts = |root: &Client| {
        let root = root.clone();
        let (path, admin) = (path.clone(), admin.clone());
        async move {
            [
                root.put(&format!("{path}/roles"), json!({"roles": ["x"]}))
                    .await,
                root.patch(&path, json!({"email": "anna@example.org"}))
                    .await,
                root.patch(&path, json!({"email_verified": true})).await,
                root.call(&format!("{path}/reset-password")).await,
                root.call(&format!("{path}/deactivate")).await,
                root.post("/v1/admin/users", admin).await,
                root.put("/v1/admin/roles/x", json!({"permissions": []}))
                    .await,
                root.delete("/v1/admin/roles/x").await,
            ]
        }
    };
    // Just fresh enough.
    app.clock.advance(Span::minutes(15));
    let root = root.refreshed().await;
    root.call(&format!("{path}/deactivate")).await.expect(200);
    root.call(&format!("{path}/activate")).await.expect(200);
    let before = root.get(&path).await.expect(200);

    app.clock.advance(Span::millis(1));
    for refused in acts(&root).await {
        assert!(
            refused.text.contains("/v1/auth/reauthenticate"),
            "{}",
            refused.text
        );
        assert_problem!(refused, 403, "reauth_required");
    }
    assert_eq!(
        root.get(&path).await.expect(200),
        before,
        "nothing has changed"
    );
    let found = root.get("/v1/admin/users?q=ben").await.expect(200);
    assert_eq!(found["items"], json!([]));
    // What is not as grave goes on.
    root.patch(&path, json!({"username": "ann", "max_sessions": 2}))
        .await
        .expect(200);
    root.call(&format!("{path}/revoke")).await.expect(200);
    root.post("/v1/admin/users", json!({"email": fresh_email()}))
        .await
        .expect(201);

    let wrong = root
        .post(
            "/v1/auth/reauthenticate",
            json!({"password": "not the password"}),
        )
        .await;
    assert_problem!(wrong, 403, "wrong_password");
    assert_problem!(
        root.call(&format!("{path}/deactivate")).await,
        403,
        "reauth_required"
    );
    root.post("/v1/auth/reauthenticate", json!({"password": PASSWORD}))
        .await
        .expect(204);
    let statuses = acts(&root.at(&app.nodes[1]))
        .await
        .map(|reply| reply.status);
    // The reset is refused because no mail is sent here.
    assert_eq!(statuses, [200, 200, 200, 409, 200, 201, 200, 204]);
}

/// `admin.step_up = "0s"` lasts as long as the session.
#[tokio::test(flavor = "multi_thread")]
async fn without_step_up_an_old_login_is_enough() {
    let step_up = Span::secs(0);
    let setup = Setup {
        admin: AdminPolicy { step_up },
        ..Setup::default()
    };
    let database = Database::fresh(crate::harness::backend::Backend::Sqlite).await;
    let app = App::with(database, setup).await;
    let root = app.admin("root@example.org").await;
    app.clock.advance(Span::days(6));
    let root = root.refreshed().await;
    root.put("/v1/admin/roles/x", json!({"permissions": []}))
        .await
        .expect(200);
}

async fn the_last_administrator_may_be_one_by_a_stored_role(database: Database) {
    let app = App::two_nodes(database).await;
    let root = app.admin("root@example.org").await;
    let chief = "/v1/admin/roles/chief";
    let granting = json!({"permissions": ["roles:grant", "users:read", "users:write"]});
    root.put(chief, granting).await.expect(200);
    let ann = app
        .holder("ann@example.org", &["chief"])
        .await
        .at(&app.nodes[1]);
    let (roots, anns) = (id_of(&root).await, id_of(&ann).await);
    let demoted = ann
        .put(
            &format!("/v1/admin/users/{roots}/roles"),
            json!({"roles": []}),
        )
        .await;
    demoted.expect(200);
    let path = format!("/v1/admin/users/{anns}");
    for refused in [
        ann.put(&format!("{path}/roles"), json!({"roles": []}))
            .await,
        ann.call(&format!("{path}/deactivate")).await,
        ann.post("/v1/auth/me/deactivate", json!({"password": PASSWORD}))
            .await,
        ann.put(chief, json!({"permissions": ["users:read"]})).await,
        ann.delete(chief).await,
    ] {
        assert_problem!(refused, 409, "last_admin");
    }
    ann.put(
        &format!("/v1/admin/users/{roots}/roles"),
        json!({"roles": ["admin"]}),
    )
    .await
    .expect(200);
    ann.delete(chief).await.expect(204);
    assert_problem!(ann.get("/v1/admin/users").await, 403, "permission_required");
    root.get("/v1/admin/users").await.expect(200);
}

async fn a_proxy_asks_for_a_permission(database: Database) {
    let app = App::start(database).await;
    let root = app.admin("root@example.org").await;
    let editing = json!({"permissions": ["articles:write"]});
    root.put("/v1/admin/roles/editor", editing)
        .await
        .expect(200);
    let editor = app.holder("ann@example.org", &["editor"]).await;
    let asked = "/v1/auth/check?permission=articles:write";
    assert_eq!(editor.get(asked).await.status, 200);
    let refused = root.get(asked).await;
    assert_eq!(
        refused.header("x-auth-problem"),
        Some("permission_required")
    );
    assert_problem!(refused, 403, "permission_required");
    assert_problem!(app.anonymous().get(asked).await, 401, "unauthenticated");
    let both = "/v1/auth/check?permission=articles:write&role=admin";
    assert_problem!(editor.get(both).await, 403, "role_required");
    root.delete("/v1/admin/roles/editor").await.expect(204);
    assert_problem!(editor.get(asked).await, 403, "permission_required");
}

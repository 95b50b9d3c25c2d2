//! What users do with their own account.

use doorward::{clock::Span, model::account::AttributeRules};
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, PASSWORD, Setup},
        backend::Database,
    },
};

for_each_store! {
    from_register_to_revoked_and_refused,
    names_are_unique_without_regard_to_case,
    nobody_can_choose_what_is_not_theirs,
    a_profile_is_changed_field_by_field,
    attributes_come_back_as_they_were_given,
    attributes_satisfy_the_applications_schema,
    a_password_change_needs_the_old_one_and_ends_other_sessions,
    a_password_does_not_age,
    a_deactivated_account_keeps_its_data_and_cannot_log_in,
    a_hash_with_old_parameters_is_renewed_at_login,
}

async fn from_register_to_revoked_and_refused(database: Database) {
    let app = App::two_nodes(database).await;
    let user = app.register("Ann@Example.org").await;
    assert_eq!(user["email"], "Ann@Example.org");
    assert_eq!(user["email_verified"], false);
    assert_eq!(
        (&user["roles"], &user["status"]),
        (&json!([]), &json!("active"))
    );

    let ann = app.log_in("ann@example.org").await;
    assert_eq!(
        ann.me().await.expect(200),
        user,
        "what was registered is what is read"
    );
    ann.at(&app.nodes[1]).me().await.expect(200);

    let admin = app.admin("root@example.org").await;
    let path = format!(
        "/v1/admin/users/{}/revoke",
        user["id"].as_str().expect("an id")
    );
    assert_eq!(admin.call(&path).await.expect(200), json!({"revoked": 1}));
    assert_problem!(ann.me().await, 401, "session_revoked");
    assert_problem!(ann.at(&app.nodes[1]).me().await, 401, "session_revoked");
    app.log_in("ann@example.org").await.me().await.expect(200);
}

async fn names_are_unique_without_regard_to_case(database: Database) {
    let app = App::start(database).await;
    let register = async |email: &str, username: &str| {
        let body = json!({"email": email, "username": username, "password": PASSWORD});
        app.anonymous().post("/v1/auth/register", body).await
    };
    register("ann@example.org", "Annie").await.expect(201);
    assert_problem!(
        register("ANN@example.ORG", "other").await,
        409,
        "email_taken"
    );
    assert_problem!(
        register("other@example.org", "aNNie").await,
        409,
        "username_taken"
    );
    let body = json!({"username": "ANNIE", "password": PASSWORD});
    app.anonymous()
        .post("/v1/auth/login", body)
        .await
        .expect(200);
    register("other@example.org", "other").await.expect(201);
}

/// ASVS 8.2.3, 15.3.3.
async fn nobody_can_choose_what_is_not_theirs(database: Database) {
    let app = App::start(database).await;
    let ann = app.user("ann@example.org").await;
    for (field, value) in [
        ("roles", json!(["admin"])),
        ("email_verified", json!(true)),
        ("status", json!("active")),
        ("max_sessions", json!(1000)),
        ("id", json!("01a1fd04-d80f-78ad-8214-d1b435d1f2f0")),
        ("credential_version", json!(7)),
    ] {
        let mut body = json!({"email": "eve@example.org", "password": PASSWORD});
        body[field] = value.clone();
        assert_problem!(
            app.anonymous().post("/v1/auth/register", body).await,
            400,
            "unknown_field"
        );
        assert_problem!(
            ann.patch("/v1/auth/me", json!({field: value})).await,
            400,
            "unknown_field"
        );
    }
    assert_problem!(
        app.anonymous()
            .try_log_in("eve@example.org", PASSWORD)
            .await,
        401,
        "bad_credentials"
    );
    assert_problem!(ann.get("/v1/admin/users").await, 403, "permission_required");
}

async fn a_profile_is_changed_field_by_field(database: Database) {
    let app = App::start(database).await;
    let ann = app.user("ann@example.org").await;
    let patch = async |body: Value| ann.patch("/v1/auth/me", body).await;
    let changed = patch(json!({"username": "annie", "attributes": {"plan": "pro"}}))
        .await
        .expect(200);
    assert_eq!(
        (&changed["username"], &changed["attributes"]),
        (&json!("annie"), &json!({"plan": "pro"}))
    );
    let changed = patch(json!({"attributes": {"seats": 3}})).await.expect(200);
    assert_eq!(
        (&changed["username"], &changed["attributes"]),
        (&json!("annie"), &json!({"seats": 3}))
    );
    let changed = patch(json!({"username": null})).await.expect(200);
    assert_eq!(
        (&changed["username"], &changed["attributes"]),
        (&Value::Null, &json!({"seats": 3}))
    );
    assert_eq!(
        patch(json!({})).await.expect(200),
        changed,
        "nothing to change changes nothing"
    );
    assert_problem!(
        patch(json!({"username": "a b"})).await,
        422,
        "invalid_input"
    );
    assert_eq!(ann.me().await.expect(200), changed);

    app.user("ben@example.org")
        .await
        .patch("/v1/auth/me", json!({"username": "annie"}))
        .await
        .expect(200);
    assert_problem!(
        patch(json!({"username": "ANNIE"})).await,
        409,
        "username_taken"
    );
}

/// ASVS 1.1.2, 1.2.3.
async fn attributes_come_back_as_they_were_given(database: Database) {
    let app = App::start(database).await;
    let ann = app.user("ann@example.org").await;
    for attributes in [
        json!({}),
        json!({"text": "Zoë 😀 \"quoted\" \\ <b>&</b> ' OR 1=1--", "yes": true, "nothing": null}),
        json!({"whole": 9_007_199_254_740_992_i64, "minus": -3, "half": 0.5, "tiny": 1.5e-300, "two": 2.0}),
        json!({"nested": {"list": [1, "two", [3.5], {"four": {}}], "empty": []}}),
    ] {
        let changed = ann
            .patch("/v1/auth/me", json!({"attributes": attributes}))
            .await
            .expect(200);
        assert_eq!(changed["attributes"], attributes);
        assert_eq!(ann.me().await.expect(200)["attributes"], attributes);
    }
    for refused in [
        json!({"$set": {"roles": ["admin"]}}),
        json!({"a.b": 1}),
        json!({"n": 9_007_199_254_740_993_u64}),
        json!({"t": "x\u{0}"}),
        json!({"n": 1e16}),
    ] {
        assert_problem!(
            ann.patch("/v1/auth/me", json!({"attributes": refused}))
                .await,
            422,
            "invalid_input"
        );
    }
}

async fn attributes_satisfy_the_applications_schema(database: Database) {
    let schema = json!({"type": "object", "required": ["plan"], "properties": {"plan": {"enum": ["free", "pro"]}}});
    let rules = AttributeRules::from_schema(&schema.to_string()).expect("a schema");
    let app = App::with(
        database,
        Setup {
            rules,
            ..Setup::default()
        },
    )
    .await;
    let register = async |body: Value| app.anonymous().post("/v1/auth/register", body).await;
    let reply = register(json!({"email": "ann@example.org", "password": PASSWORD})).await;
    assert_eq!(reply.json()["errors"][0]["field"], "attributes");
    assert_problem!(reply, 422, "invalid_input");
    let reply = register(
        json!({"email": "ann@example.org", "password": PASSWORD, "attributes": {"plan": "gold"}}),
    )
    .await;
    assert_eq!(reply.json()["errors"][0]["field"], "attributes.plan");
    register(
        json!({"email": "ann@example.org", "password": PASSWORD, "attributes": {"plan": "pro"}}),
    )
    .await
    .expect(201);
    let ann = app.log_in("ann@example.org").await;
    assert_problem!(
        ann.patch("/v1/auth/me", json!({"attributes": {}})).await,
        422,
        "invalid_input"
    );
}

/// ASVS 6.2.2, 6.2.3, 7.4.3.
async fn a_password_change_needs_the_old_one_and_ends_other_sessions(database: Database) {
    let sessions = doorward::sessions::SessionPolicy {
        max_per_user: 3,
        ..Default::default()
    };
    let app = App::with(
        database,
        Setup {
            nodes: 2,
            sessions,
            ..Setup::default()
        },
    )
    .await;
    let here = app.user("ann@example.org").await;
    let (phone, tablet) = (
        app.log_in("ann@example.org").await,
        app.log_in("ann@example.org").await,
    );
    let change = async |current: &str, new: &str| {
        here.post(
            "/v1/auth/me/password",
            json!({"current_password": current, "new_password": new}),
        )
        .await
    };
    assert_problem!(
        change("not the password", "another horse entirely").await,
        403,
        "wrong_password"
    );
    assert_problem!(change(PASSWORD, "short").await, 422, "invalid_input");
    phone.me().await.expect(200);
    change(PASSWORD, "another horse entirely").await.expect(204);
    here.at(&app.nodes[1]).me().await.expect(200);
    assert_problem!(phone.at(&app.nodes[1]).me().await, 401, "password_changed");
    assert_problem!(tablet.at(&app.nodes[1]).me().await, 401, "password_changed");
    assert_problem!(
        app.anonymous()
            .try_log_in("ann@example.org", PASSWORD)
            .await,
        401,
        "bad_credentials"
    );
    app.anonymous()
        .log_in("ann@example.org", "another horse entirely")
        .await;
}

/// ASVS 6.2.10.
async fn a_password_does_not_age(database: Database) {
    let app = App::start(database).await;
    app.register("ann@example.org").await;
    app.clock.advance(Span::days(5 * 365));
    app.log_in("ann@example.org").await.me().await.expect(200);
}

/// ASVS 7.4.2.
async fn a_deactivated_account_keeps_its_data_and_cannot_log_in(database: Database) {
    let app = App::two_nodes(database).await;
    let ann = app.user("ann@example.org").await;
    ann.patch("/v1/auth/me", json!({"attributes": {"plan": "pro"}}))
        .await
        .expect(200);
    assert_problem!(
        ann.post("/v1/auth/me/deactivate", json!({"password": "wrong"}))
            .await,
        403,
        "wrong_password"
    );
    ann.post("/v1/auth/me/deactivate", json!({"password": PASSWORD}))
        .await
        .expect(204);
    assert_problem!(ann.at(&app.nodes[1]).me().await, 401, "account_deactivated");
    assert_problem!(
        app.anonymous()
            .try_log_in("ann@example.org", PASSWORD)
            .await,
        403,
        "account_deactivated"
    );
    assert_problem!(
        app.anonymous().try_log_in("ann@example.org", "wrong").await,
        401,
        "bad_credentials"
    );
    let body = json!({"email": "ann@example.org", "password": PASSWORD});
    assert_problem!(
        app.anonymous().post("/v1/auth/register", body).await,
        409,
        "email_taken"
    );

    let admin = app.admin("root@example.org").await;
    let found = admin
        .get("/v1/admin/users?q=ann@&status=deactivated")
        .await
        .expect(200);
    let user = &found["items"][0];
    assert_eq!(
        (&user["status"], &user["attributes"]),
        (&json!("deactivated"), &json!({"plan": "pro"}))
    );
    let path = format!(
        "/v1/admin/users/{}/activate",
        user["id"].as_str().expect("an id")
    );
    admin.call(&path).await.expect(200);
    assert_problem!(ann.me().await, 401, "account_deactivated");
    app.log_in("ann@example.org").await.me().await.expect(200);
}

/// ASVS 11.2.2.
async fn a_hash_with_old_parameters_is_renewed_at_login(database: Database) {
    let mut app = App::start(database).await;
    app.register("ann@example.org").await;
    let mut stronger = Setup::default();
    stronger.passwords.scrypt_log_n = 5;
    let node = app.add_node(&stronger).await;
    let runs = |app: &App| app.nodes[node].auth.metrics().scrypt_runs.get();
    let mut needed = Vec::new();
    for _ in 0..2 {
        let before = runs(&app);
        app.anonymous_on(node)
            .log_in("ann@example.org", PASSWORD)
            .await
            .me()
            .await
            .expect(200);
        needed.push(runs(&app) - before);
    }
    assert_eq!(
        needed,
        [2, 1],
        "checked and hashed anew once, then only checked"
    );
    assert_eq!(
        app.anonymous_on(0)
            .try_log_in("ann@example.org", PASSWORD)
            .await
            .status,
        200
    );
}

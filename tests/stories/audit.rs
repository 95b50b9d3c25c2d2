//! What the audit trail tells: who did what, when, from where, and what was refused.

use doorward::{
    accounts::AccountPolicy, clock::Span, model::quota::Limit, throttle::settings::LimitSettings,
};
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, PASSWORD, Reply, Setup},
        backend::Database,
        mailbox::Mailbox,
    },
};

for_each_store! {
    every_login_is_recorded_and_every_refusal_of_one,
    a_request_and_its_records_have_one_id,
    forged_addresses_change_no_record,
    behind_two_proxies_the_right_hop_is_recorded,
    who_is_refused_is_recorded_with_what_they_asked_for,
    what_a_limit_refuses_is_counted_in_one_record,
    a_used_refresh_token_leaves_records,
    what_cannot_be_recorded_is_not_answered,
    a_trail_that_is_off_records_nothing,
}

const WRONG: &str = "a wrong password altogether";

async fn send(client: &Client, path: &str, headers: &[(&str, &str)], body: Value) -> Reply {
    let mut request = client.http.post(format!("{}{path}", client.url));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Reply::of(request.json(&body).send().await.expect("an answer")).await
}

/// Records as an administrator sees them, newest first.
async fn records(admin: &Client, query: &str) -> Vec<Value> {
    let path = format!("/v1/admin/audit?limit=200{query}");
    let page = admin.get(&path).await.expect(200);
    page["items"].as_array().expect("records").clone()
}

/// What became of a record: event, outcome and reason.
fn told(record: &Value) -> [&str; 3] {
    ["event", "outcome", "reason"].map(|field| record[field].as_str().unwrap_or("-"))
}

async fn id_of(client: &Client) -> String {
    let me = client.me().await.expect(200);
    me["id"].as_str().expect("an id").to_owned()
}

/// ASVS 16.3.1, 16.2.1.
async fn every_login_is_recorded_and_every_refusal_of_one(database: Database) {
    let setup = Setup {
        accounts: AccountPolicy {
            require_verified_email: true,
            ..AccountPolicy::default()
        },
        ..Setup::default()
    };
    let (_mailbox, setup) = Mailbox::in_memory(setup);
    let app = App::with(database, setup.clone()).await;
    app.register("ann@example.org").await;
    let log_in = async |email: &str, password: &str| {
        let body = json!({"email": email, "password": password});
        app.anonymous().post("/v1/auth/login", body).await
    };
    app.clock.advance(Span::secs(1));
    assert_problem!(
        log_in("ann@example.org", WRONG).await,
        401,
        "bad_credentials"
    );
    app.clock.advance(Span::secs(1));
    assert_problem!(
        log_in("nobody@example.org", WRONG).await,
        401,
        "bad_credentials"
    );
    app.clock.advance(Span::secs(1));
    let unverified = log_in("ann@example.org", PASSWORD).await;
    assert_problem!(unverified, 403, "email_unverified");

    let mut open = setup.clone();
    open.accounts = AccountPolicy::default();
    let mut app = app;
    let node = app.add_node(&open).await;
    app.clock.advance(Span::secs(1));
    let ann = app
        .anonymous_on(node)
        .log_in("ann@example.org", PASSWORD)
        .await;
    let ann_id = id_of(&ann).await;
    let about_ann = format!("&event=login&user={ann_id}");
    let admin = app.nodes[node].auth.accounts();
    let admin = {
        let account = doorward::model::account::NewAccount {
            email: "admin@example.org".into(),
            username: None,
            attributes: None,
        };
        let roles = doorward::model::user::Roles::admin();
        let made = admin.create(account, &PASSWORD.into(), roles).await;
        made.expect("made");
        app.anonymous_on(node)
            .log_in("admin@example.org", PASSWORD)
            .await
    };
    let of_ann = records(&admin, &about_ann).await;
    let told_of_ann: Vec<_> = of_ann.iter().map(told).collect();
    assert_eq!(
        told_of_ann,
        [
            ["login", "done", "-"],
            ["login", "refused", "email_unverified"],
            ["login", "refused", "wrong_password"],
        ]
    );
    assert_eq!(of_ann[0]["facts"], json!({"auth_methods": ["pwd"]}));
    assert_eq!(of_ann[0]["actor_id"], json!(ann_id));
    assert_eq!(of_ann[2]["actor"], "nobody");
    assert_eq!(of_ann[2]["details"]["address"], "127.0.0.1");
    let refused = records(&admin, "&event=login&outcome=refused").await;
    assert_eq!(refused.len(), 3);
    let unknown = &refused[1];
    assert_eq!(told(unknown), ["login", "refused", "unknown_account"]);
    assert_eq!(unknown["subject_id"], Value::Null);
    assert!(!unknown.to_string().contains("nobody@example.org"));
}

async fn a_request_and_its_records_have_one_id(database: Database) {
    let app = App::start(database).await;
    let admin = app.admin("admin@example.org").await;
    app.register("ann@example.org").await;
    for _ in 0..2 {
        let body = json!({"email": "ann@example.org", "password": PASSWORD});
        let login = app.anonymous().post("/v1/auth/login", body).await;
        let request = login.header("x-request-id").expect("an id").to_owned();
        let records = records(&admin, "").await;
        let of_request: Vec<_> = records
            .iter()
            .filter(|record| record["request_id"] == request.as_str())
            .map(|record| record["event"].as_str().expect("an event"))
            .collect();
        assert!(of_request.contains(&"login"), "{records:?}");
    }
    let replaced = records(&admin, "&event=session_ended").await;
    assert_eq!(told(&replaced[0]), ["session_ended", "done", "replaced"]);
}

/// ASVS 4.1.3, 15.3.4.
async fn forged_addresses_change_no_record(database: Database) {
    let app = App::start(database).await;
    let admin = app.admin("admin@example.org").await;
    for forged in [
        ("x-forwarded-for", "6.6.6.1"),
        ("forwarded", "for=6.6.6.2"),
        ("x-real-ip", "6.6.6.3"),
        ("x-request-id", "6.6.6.4"),
    ] {
        let body = json!({"email": "ann@example.org", "password": WRONG});
        let tried = send(&app.anonymous(), "/v1/auth/login", &[forged], body).await;
        assert_problem!(tried, 401, "bad_credentials");
        let records = records(&admin, "&event=login").await;
        assert_eq!(records[0]["details"]["address"], "127.0.0.1", "{forged:?}");
        assert!(!records[0].to_string().contains("6.6.6."), "{forged:?}");
    }
}

/// ASVS 4.1.3, 15.3.4.
async fn behind_two_proxies_the_right_hop_is_recorded(database: Database) {
    let mut setup = Setup::default();
    setup.api.trusted_proxies = ["127.0.0.0/8", "10.0.0.0/8"]
        .map(|net| net.parse().expect("a network"))
        .to_vec();
    let app = App::with(database, setup).await;
    let admin = app.admin("admin@example.org").await;
    let headers = [
        ("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.0.0.1"),
        ("forwarded", "for=6.6.6.7"),
        ("x-real-ip", "6.6.6.8"),
    ];
    let body = json!({"email": "ann@example.org", "password": WRONG});
    let tried = send(&app.anonymous(), "/v1/auth/login", &headers, body).await;
    assert_problem!(tried, 401, "bad_credentials");
    let records = records(&admin, "&event=login").await;
    assert_eq!(records[0]["details"]["address"], "203.0.113.9");
}

/// ASVS 16.3.2.
async fn who_is_refused_is_recorded_with_what_they_asked_for(database: Database) {
    let mut setup = Setup::default();
    setup.admin.step_up = Span::minutes(5);
    let app = App::with(database, setup).await;
    let admin = app.admin("admin@example.org").await;
    let ann = app.user("ann@example.org").await;
    let ann_id = id_of(&ann).await;
    assert_problem!(ann.get("/v1/admin/users").await, 403, "permission_required");
    let path = format!("/v1/admin/users/{ann_id}/revoke");
    assert_problem!(ann.post(&path, json!({})).await, 403, "permission_required");
    let refused = records(&admin, "&event=permission_refused").await;
    let operations: Vec<_> = refused.iter().map(|r| &r["facts"]["operation"]).collect();
    assert_eq!(operations.len(), 2);
    assert!(
        operations.contains(&&json!("GET /v1/admin/users")),
        "{operations:?}"
    );
    for record in &refused {
        assert_eq!(record["actor_id"], json!(ann_id));
        assert_eq!(record["reason"], "permission_required");
        assert!(
            !record["facts"].to_string().contains(&ann_id),
            "the route only"
        );
    }
    app.clock.advance(Span::minutes(6));
    let path = format!("/v1/admin/users/{ann_id}/deactivate");
    assert_problem!(admin.post(&path, json!({})).await, 403, "reauth_required");
    let refused = records(&admin, "&event=permission_refused").await;
    assert_eq!(refused[0]["reason"], "reauth_required");
}

/// ASVS 16.3.3.
async fn what_a_limit_refuses_is_counted_in_one_record(database: Database) {
    let setup = Setup {
        limits: LimitSettings {
            login_address: Limit::of(3, Span::minutes(15)),
            ..Setup::default().limits
        },
        ..Setup::default()
    };
    let app = App::with(database, setup).await;
    let admin = app.admin("admin@example.org").await;
    for n in 0..7 {
        let body = json!({"email": format!("user{n}@example.org"), "password": WRONG});
        let tried = app.anonymous().post("/v1/auth/login", body).await;
        assert_eq!(tried.status, if n < 2 { 401 } else { 429 });
    }
    assert_eq!(
        records(&admin, "&event=limit_reached").await,
        [] as [Value; 0]
    );
    app.nodes[0].auth.flush().await.expect("written");
    app.nodes[0].auth.flush().await.expect("nothing to write");
    let reached = records(&admin, "&event=limit_reached").await;
    assert_eq!(reached.len(), 1);
    assert_eq!(
        told(&reached[0]),
        ["limit_reached", "refused", "login_address"]
    );
    assert_eq!(reached[0]["facts"], json!({"count": 5}));
}

/// ASVS 16.3.3.
async fn a_used_refresh_token_leaves_records(database: Database) {
    let app = App::start(database).await;
    let admin = app.admin("admin@example.org").await;
    let ann = app.user("ann@example.org").await;
    let first = ann.refresh.clone().expect("a token");
    let refresh = async |token: &str| {
        let body = json!({"refresh_token": token});
        app.anonymous().post("/v1/auth/refresh", body).await
    };
    refresh(&first).await.expect(200);
    let again = refresh(&first).await.expect(200);
    let repeated = records(&admin, "&event=refresh_repeated").await;
    assert_eq!(repeated.len(), 1);
    // Its successor is used, so the first one is a copy from now on.
    let token = again["access_token"].as_str().expect("a token").to_owned();
    let ann = Client {
        token: Some(token),
        ..ann
    };
    ann.me().await.expect(200);
    app.clock.advance(Span::minutes(1));
    assert_problem!(refresh(&first).await, 401, "refresh_reused");
    let ended = records(&admin, "&event=session_ended").await;
    assert_eq!(told(&ended[0]), ["session_ended", "done", "refresh_reused"]);
    assert_eq!(ended[0]["actor"], "nobody");
}

/// ASVS 16.5.3.
async fn what_cannot_be_recorded_is_not_answered(database: Database) {
    let app = App::start(database).await;
    app.register("ann@example.org").await;
    app.nodes[0].store.fail_at("record");
    for email in ["ann@example.org", "nobody@example.org"] {
        let body = json!({"email": email, "password": WRONG});
        let tried = app.anonymous().post("/v1/auth/login", body).await;
        assert_eq!(tried.status, 503);
    }
}

async fn a_trail_that_is_off_records_nothing(database: Database) {
    let mut setup = Setup::default();
    setup.audit.enabled = false;
    let app = App::with(database, setup).await;
    let admin = app.admin("admin@example.org").await;
    app.user("ann@example.org").await;
    let body = json!({"email": "ann@example.org", "password": WRONG});
    app.anonymous()
        .post("/v1/auth/login", body)
        .await
        .expect(401);
    assert_eq!(records(&admin, "").await, [] as [Value; 0]);
}

//! What administrators do.

use doorward::roles::Actor;
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, PASSWORD},
        backend::Database,
        race, rounds,
    },
};

for_each_store! {
    an_administrator_makes_a_user_who_sets_a_password_by_the_link,
    users_are_listed_searched_and_paged,
    a_user_is_read_and_changed,
    nobody_is_not_found,
    one_session_or_all_of_a_user_are_revoked,
    roles_count_from_the_next_request_on,
    two_administrators_demoting_each_other_leave_one,
    the_last_administrator_cannot_leave,
    a_lowered_override_ends_the_surplus_at_once,
}

fn id_of(user: &Value) -> &str {
    user["id"].as_str().expect("an id")
}

/// The secret in the link of a user who was just made.
fn token_of(made: &Value) -> &str {
    let url = made["password_link"]["url"].as_str().expect("a link");
    let (page, token) = url.split_once("#token=").expect("a secret in the fragment");
    assert!(page.ends_with("/set-password"), "{page}");
    token
}

/// ASVS 6.4.1, 6.4.6.
async fn an_administrator_makes_a_user_who_sets_a_password_by_the_link(database: Database) {
    let app = App::two_nodes(database).await;
    let admin = app.admin("root@example.org").await;
    let body = json!({
        "email": "ben@example.org", "username": "ben", "attributes": {"team": "red"}, "roles": ["editor", "writer"],
        "email_verified": true, "max_sessions": 2, "on_session_limit": "reject",
    });
    let made = admin
        .post("/v1/admin/users", body.clone())
        .await
        .expect(201);
    let user = &made["user"];
    assert_eq!(user["email_verified"], true);
    assert_eq!(user["roles"], json!(["editor", "writer"]));
    assert_eq!(
        (&user["max_sessions"], &user["on_session_limit"]),
        (&json!(2), &json!("reject"))
    );
    assert_problem!(
        admin.post("/v1/admin/users", body).await,
        409,
        "email_taken"
    );

    let nobody = app.anonymous_on(1);
    assert_problem!(
        nobody.try_log_in("ben@example.org", PASSWORD).await,
        401,
        "bad_credentials"
    );
    let set = async |token: &str, password: &str| {
        nobody
            .post(
                "/v1/auth/password/reset",
                json!({"token": token, "password": password}),
            )
            .await
    };
    let token = token_of(&made);
    assert_problem!(set(token, "short").await, 422, "invalid_input");
    assert_problem!(
        set("dwl_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", PASSWORD).await,
        400,
        "link_invalid"
    );
    assert_problem!(set("junk", PASSWORD).await, 400, "link_invalid");
    let page = nobody.get("/set-password").await;
    assert_eq!(page.status, 200, "looking at the page spends nothing");

    let racers = (0..20).map(|_| {
        let (nobody, token) = (nobody.clone(), token.to_owned());
        async move {
            nobody
                .post(
                    "/v1/auth/password/reset",
                    json!({"token": token, "password": PASSWORD}),
                )
                .await
                .status
        }
    });
    let mut statuses = race(racers).await;
    statuses.sort_unstable();
    assert_eq!((statuses[0], statuses[1]), (204, 400), "spent once");
    let ben = app.log_in("ben@example.org").await;
    assert_eq!(
        ben.me().await.expect(200)["attributes"],
        json!({"team": "red"})
    );
}

/// ASVS 1.2.9.
async fn users_are_listed_searched_and_paged(database: Database) {
    let app = App::start(database).await;
    let admin = app.admin("root@example.org").await;
    for name in ["ann", "ben_1", "ben%2", "benx1", "dr.dot"] {
        let email = format!("{}@example.org", name.replace('%', "+"));
        let username = name.replace('%', "-");
        let body = json!({"email": email, "username": username, "password": PASSWORD});
        app.anonymous()
            .post("/v1/auth/register", body)
            .await
            .expect(201);
        app.clock.advance(doorward::clock::Span::millis(1));
    }
    let emails = async |query: &str| {
        let page = admin
            .get(&format!("/v1/admin/users?{query}"))
            .await
            .expect(200);
        let items = page["items"].as_array().expect("items").clone();
        items
            .iter()
            .map(|user| user["email"].as_str().expect("an address").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(emails("").await.len(), 6);
    assert_eq!(
        emails("q=BEN").await,
        [
            "benx1@example.org",
            "ben+2@example.org",
            "ben_1@example.org"
        ],
        "newest first"
    );
    // ASVS 1.2.9, 1.3.12: taken literally.
    assert_eq!(emails("q=ben_").await, ["ben_1@example.org"]);
    assert_eq!(emails("q=.").await.len(), 6);
    assert_eq!(emails("q=dr.d").await, ["dr.dot@example.org"]);
    for nothing in [
        "q=.*",
        "q=%25",
        "q=(a%2B)%2B$",
        "q=%5C",
        "q=%5Bab%5D",
        "q='%20OR%201=1--",
    ] {
        assert_eq!(emails(nothing).await, Vec::<String>::new(), "{nothing}");
    }
    assert_eq!(emails("role=admin").await, ["root@example.org"]);
    assert_eq!(emails("role=adm_n").await, Vec::<String>::new());
    assert_eq!(emails("status=deactivated").await, Vec::<String>::new());

    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = admin
            .get(&format!("/v1/admin/users?limit=4{cursor}"))
            .await
            .expect(200);
        paged.extend(
            page["items"]
                .as_array()
                .expect("items")
                .iter()
                .map(|u| u["email"].as_str().expect("text").to_owned()),
        );
        let Some(next) = page["next_cursor"].as_str() else {
            break;
        };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, emails("").await);
    for bad in ["limit=0", "limit=201"] {
        assert_problem!(
            admin.get(&format!("/v1/admin/users?{bad}")).await,
            422,
            "invalid_input"
        );
    }
    for bad in [
        "limit=-1",
        "limit=99999999999999999999",
        "cursor=x",
        "status=dead",
    ] {
        assert_problem!(
            admin.get(&format!("/v1/admin/users?{bad}")).await,
            400,
            "wrong_parameter"
        );
    }
}

async fn a_user_is_read_and_changed(database: Database) {
    let app = App::start(database).await;
    let admin = app.admin("root@example.org").await;
    let user = app.register("ann@example.org").await;
    app.register("ben@example.org").await;
    let path = format!("/v1/admin/users/{}", id_of(&user));
    assert_eq!(
        admin.get(&path).await.expect(200)["email"],
        "ann@example.org"
    );
    let changed = admin
        .patch(&path, json!({"email_verified": true, "max_sessions": 5}))
        .await
        .expect(200);
    assert_eq!(
        (&changed["email_verified"], &changed["max_sessions"]),
        (&json!(true), &json!(5))
    );
    let changed = admin
        .patch(
            &path,
            json!({"email": "anna@example.org", "username": "anna"}),
        )
        .await
        .expect(200);
    assert_eq!(
        changed["email_verified"], false,
        "a new address is not verified"
    );
    let changed = admin
        .patch(&path, json!({"max_sessions": null, "attributes": {"a": 1}}))
        .await
        .expect(200);
    assert_eq!(
        (&changed["max_sessions"], &changed["username"]),
        (&Value::Null, &json!("anna"))
    );
    assert_problem!(
        admin
            .patch(&path, json!({"email": "BEN@example.org"}))
            .await,
        409,
        "email_taken"
    );
    assert_problem!(
        admin.patch(&path, json!({"email": "no address"})).await,
        422,
        "invalid_input"
    );
    assert_problem!(
        admin.patch(&path, json!({"max_sessions": 1001})).await,
        422,
        "invalid_input"
    );
    // ASVS 6.4.6: an administrator never sets a password.
    assert_problem!(
        admin.patch(&path, json!({"password": PASSWORD})).await,
        400,
        "unknown_field"
    );
    app.log_in("anna@example.org").await;
    assert_problem!(
        app.anonymous()
            .try_log_in("ann@example.org", PASSWORD)
            .await,
        401,
        "bad_credentials"
    );
    app.register("ann@example.org").await;
}

async fn nobody_is_not_found(database: Database) {
    let app = App::start(database).await;
    let admin = app.admin("root@example.org").await;
    let nobody = "/v1/admin/users/01a1fd04-d80f-78ad-8214-d1b435d1f2f0";
    assert_problem!(admin.get(nobody).await, 404, "not_found");
    assert_problem!(
        admin.patch(nobody, json!({"email_verified": true})).await,
        404,
        "not_found"
    );
    for act in ["deactivate", "activate", "revoke"] {
        assert_problem!(
            admin.call(&format!("{nobody}/{act}")).await,
            404,
            "not_found"
        );
    }
    assert_problem!(
        admin
            .put(&format!("{nobody}/roles"), json!({"roles": []}))
            .await,
        404,
        "not_found"
    );
    assert_problem!(
        admin.get(&format!("{nobody}/sessions")).await,
        404,
        "not_found"
    );
    assert_problem!(
        admin
            .call("/v1/admin/sessions/01a1fd04-d80f-78ad-8214-d1b435d1f2f0/revoke")
            .await,
        404,
        "not_found"
    );
}

/// ASVS 7.4.5.
async fn one_session_or_all_of_a_user_are_revoked(database: Database) {
    let app = App::two_nodes(database).await;
    let admin = app.admin("root@example.org").await;
    let user = app.register("ann@example.org").await;
    let path = format!("/v1/admin/users/{}", id_of(&user));
    admin
        .patch(&path, json!({"max_sessions": 3}))
        .await
        .expect(200);
    let (a, b, c) = (
        app.log_in("ann@example.org").await,
        app.log_in("ann@example.org").await,
        app.log_in("ann@example.org").await,
    );
    let sessions = admin.get(&format!("{path}/sessions")).await.expect(200);
    assert_eq!(sessions["items"].as_array().map(Vec::len), Some(3));
    let one = format!("/v1/admin/sessions/{}/revoke", a.session_id().await);
    admin.call(&one).await.expect(204);
    admin.call(&one).await.expect(204);
    assert_problem!(a.at(&app.nodes[1]).me().await, 401, "session_revoked");
    b.at(&app.nodes[1]).me().await.expect(200);
    assert_eq!(
        admin.call(&format!("{path}/revoke")).await.expect(200),
        json!({"revoked": 2})
    );
    for ended in [&b, &c] {
        assert_problem!(ended.at(&app.nodes[1]).me().await, 401, "session_revoked");
    }
    assert_eq!(
        admin.call(&format!("{path}/revoke")).await.expect(200),
        json!({"revoked": 0})
    );
}

/// ASVS 8.3.2.
async fn roles_count_from_the_next_request_on(database: Database) {
    let app = App::two_nodes(database).await;
    let admin = app.admin("root@example.org").await;
    let user = app.register("ann@example.org").await;
    let ann = app.log_in("ann@example.org").await;
    let there = ann.at(&app.nodes[1]);
    let roles = format!("/v1/admin/users/{}/roles", id_of(&user));
    assert_problem!(
        there.get("/v1/admin/users").await,
        403,
        "permission_required"
    );
    admin
        .put(&roles, json!({"roles": ["admin", "writer"]}))
        .await
        .expect(200);
    there.get("/v1/admin/users").await.expect(200);
    assert_eq!(
        there.me().await.expect(200)["roles"],
        json!(["admin", "writer"])
    );
    admin
        .put(&roles, json!({"roles": ["writer"]}))
        .await
        .expect(200);
    assert_problem!(
        there.get("/v1/admin/users").await,
        403,
        "permission_required"
    );
    for bad in [json!(["Admin"]), json!(["a b"]), json!([""])] {
        assert_problem!(
            admin.put(&roles, json!({"roles": bad})).await,
            422,
            "invalid_input"
        );
    }
}

async fn two_administrators_demoting_each_other_leave_one(database: Database) {
    let app = App::two_nodes(database).await;
    let first = app.admin("one@example.org").await;
    let users = ["one@example.org", "two@example.org"];
    app.admin(users[1]).await;
    let ids: Vec<String> = {
        let found = first.get("/v1/admin/users?role=admin").await.expect(200);
        let of = |email: &str| {
            let items = found["items"].as_array().expect("items");
            id_of(
                items
                    .iter()
                    .find(|u| u["email"] == email)
                    .expect("an administrator"),
            )
            .to_owned()
        };
        users.iter().map(|email| of(email)).collect()
    };
    let mut clients: Vec<Client> = Vec::new();
    for (n, email) in users.iter().enumerate() {
        clients.push(app.anonymous_on(n).log_in(email, PASSWORD).await);
    }
    for round in 0..rounds(100) {
        let racers = (0..2).map(|n| {
            let (client, other) = (clients[n].clone(), ids[1 - n].clone());
            async move {
                if round % 2 == 0 {
                    client
                        .put(
                            &format!("/v1/admin/users/{other}/roles"),
                            json!({"roles": []}),
                        )
                        .await
                        .status
                } else {
                    client
                        .call(&format!("/v1/admin/users/{other}/deactivate"))
                        .await
                        .status
                }
            }
        });
        let statuses = race(racers).await;
        let left = app.nodes[0].auth.admin();
        let filter = doorward::store::UserFilter {
            role: Some("admin".into()),
            active: Some(true),
            limit: 10,
            ..Default::default()
        };
        let (admins, _) = left.list(filter).await.expect("listed");
        assert!(!admins.is_empty(), "round {round}: {statuses:?}");
        // Make both administrators again, by whichever is left.
        for (n, id) in ids.iter().enumerate() {
            let id = id.parse().expect("an id");
            left.activate(Actor::Operator, id).await.expect("activated");
            left.set_roles(Actor::Operator, id, vec!["admin".into()])
                .await
                .expect("promoted");
            if clients[n].me().await.status != 200 {
                clients[n] = app.anonymous_on(n).log_in(users[n], PASSWORD).await;
            }
        }
    }
}

async fn the_last_administrator_cannot_leave(database: Database) {
    let app = App::start(database).await;
    let admin = app.admin("root@example.org").await;
    let me = admin.me().await.expect(200);
    let path = format!("/v1/admin/users/{}", id_of(&me));
    assert_problem!(
        admin
            .put(&format!("{path}/roles"), json!({"roles": ["writer"]}))
            .await,
        409,
        "last_admin"
    );
    assert_problem!(
        admin.call(&format!("{path}/deactivate")).await,
        409,
        "last_admin"
    );
    assert_problem!(
        admin
            .post("/v1/auth/me/deactivate", json!({"password": PASSWORD}))
            .await,
        409,
        "last_admin"
    );
    admin.me().await.expect(200);
    let other = app.register("ann@example.org").await;
    let roles = format!("/v1/admin/users/{}/roles", id_of(&other));
    admin
        .put(&roles, json!({"roles": ["admin"]}))
        .await
        .expect(200);
    admin
        .post("/v1/auth/me/deactivate", json!({"password": PASSWORD}))
        .await
        .expect(204);
    assert_problem!(admin.me().await, 401, "account_deactivated");
}

async fn a_lowered_override_ends_the_surplus_at_once(database: Database) {
    let app = App::two_nodes(database).await;
    let admin = app.admin("root@example.org").await;
    let user = app.register("ann@example.org").await;
    let path = format!("/v1/admin/users/{}", id_of(&user));
    admin
        .patch(&path, json!({"max_sessions": 0}))
        .await
        .expect(200);
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(app.log_in("ann@example.org").await);
        app.clock.advance(doorward::clock::Span::millis(1));
    }
    admin
        .patch(&path, json!({"max_sessions": 2}))
        .await
        .expect(200);
    for (n, client) in clients.iter().enumerate() {
        let reply = client.at(&app.nodes[1]).me().await;
        if n < 4 {
            assert_problem!(reply, 401, "session_revoked");
        } else {
            reply.expect(200);
        }
    }
}

//! Requests frozen at the worst moment.

use doorward::store::Store;
use serde_json::json;

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, PASSWORD},
        backend::Database,
    },
};

for_each_store! {
    a_login_that_was_hashing_while_the_password_changed_opens_nothing,
    a_login_that_was_hashing_while_the_account_was_deactivated_opens_nothing,
    a_read_paused_after_its_snapshot_serves_nobody_who_came_later,
    a_client_that_hangs_up_leaves_nothing_half_done,
}

/// ASVS 2.3.4, 15.4.2.
async fn a_login_that_was_hashing_while_the_password_changed_opens_nothing(database: Database) {
    let app = App::two_nodes(database).await;
    let ann = app.user("ann@example.org").await;
    let gate = app.nodes[1].store.hold_before("open_session");
    let late = tokio::spawn({
        let client = app.anonymous_on(1);
        async move { client.try_log_in("ann@example.org", PASSWORD).await }
    });
    gate.reached().await;
    let body = json!({"current_password": PASSWORD, "new_password": "another horse entirely"});
    ann.post("/v1/auth/me/password", body).await.expect(204);
    gate.release();
    assert_problem!(late.await.expect("no panic"), 401, "bad_credentials");
    let sessions = ann.get("/v1/auth/sessions").await.expect(200);
    assert_eq!(
        sessions["items"].as_array().map(Vec::len),
        Some(1),
        "only the one that changed the password"
    );
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

async fn a_login_that_was_hashing_while_the_account_was_deactivated_opens_nothing(
    database: Database,
) {
    let app = App::two_nodes(database).await;
    let admin = app.admin("root@example.org").await;
    let user = app.register("ann@example.org").await;
    let gate = app.nodes[1].store.hold_before("open_session");
    let late = tokio::spawn({
        let client = app.anonymous_on(1);
        async move { client.try_log_in("ann@example.org", PASSWORD).await }
    });
    gate.reached().await;
    let path = format!("/v1/admin/users/{}", user["id"].as_str().expect("an id"));
    admin.call(&format!("{path}/deactivate")).await.expect(200);
    gate.release();
    assert_problem!(late.await.expect("no panic"), 403, "account_deactivated");
    let sessions = admin.get(&format!("{path}/sessions")).await.expect(200);
    assert_eq!(sessions["items"], json!([]));
}

async fn a_read_paused_after_its_snapshot_serves_nobody_who_came_later(database: Database) {
    let app = App::two_nodes(database).await;
    let ann = app.user("ann@example.org").await;
    let there = ann.at(&app.nodes[1]);
    let gate = app.nodes[1].store.hold_after("live_sessions");
    let early = tokio::spawn({
        let there = there.clone();
        async move { there.me().await }
    });
    gate.reached().await;
    ann.call("/v1/auth/logout").await.expect(204);
    // The frozen statement still holds the old row; this request starts after the 2xx.
    let later = tokio::spawn(async move { there.me().await });
    assert_problem!(later.await.expect("no panic"), 401, "logged_out");
    gate.release();
    early.await.expect("no panic").expect(200);
}

/// A dropped request must not tear a multi-step write apart: whatever the server makes of it, there is
/// one whole session afterwards.
///
/// ASVS 2.3.3.
async fn a_client_that_hangs_up_leaves_nothing_half_done(database: Database) {
    let app = App::start(database).await;
    let user = app.register("ann@example.org").await;
    let id = user["id"].as_str().expect("an id").parse().expect("an id");
    for n in 0..20 {
        let client = app.anonymous();
        let login =
            tokio::spawn(async move { client.try_log_in("ann@example.org", PASSWORD).await });
        tokio::time::sleep(std::time::Duration::from_millis(n % 5)).await;
        login.abort();
    }
    app.log_in("ann@example.org").await;
    let open = app.nodes[0]
        .store
        .open_sessions_of(id)
        .await
        .expect("listed");
    assert_eq!(open.len(), 1);
}

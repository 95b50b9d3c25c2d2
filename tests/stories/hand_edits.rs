//! Rows changed by hand are believed at once: there is no cache.

use doorward::clock::Span;

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client},
        backend::Database,
    },
};

for_each_store! {
    a_row_changed_by_hand_counts_from_the_next_request_on,
    a_nonsensical_row_fails_its_caller_alone,
}

async fn id<T: std::str::FromStr>(text: impl Future<Output = String>) -> T {
    text.await.parse().ok().expect("an id")
}

async fn user_id(client: &Client) -> doorward::ids::UserId {
    id(async {
        client.me().await.expect(200)["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    })
    .await
}

async fn session_id(client: &Client) -> doorward::ids::SessionId {
    id(client.session_id()).await
}

async fn a_row_changed_by_hand_counts_from_the_next_request_on(database: Database) {
    let app = App::two_nodes(database).await;
    let (now, past) = (app.now(), app.now().minus(Span::secs(1)));
    for (n, code) in [
        "session_unknown",
        "session_unknown",
        "session_revoked",
        "session_expired",
        "account_deactivated",
    ]
    .iter()
    .enumerate()
    {
        let client = app.user(&format!("user{n}@example.org")).await;
        let (user, session) = (user_id(&client).await, session_id(&client).await);
        match n {
            0 => app.database.delete_user_row(user).await,
            1 => app.database.delete_session_row(user, session).await,
            2 => app.database.close_session_row(user, session, now).await,
            3 => app.database.expire_session_row(user, session, past).await,
            _ => app.database.deactivate_user_row(user, now).await,
        }
        for node in &app.nodes {
            assert_problem!(client.at(node).me().await, 401, *code);
        }
    }
}

async fn a_nonsensical_row_fails_its_caller_alone(database: Database) {
    let app = App::two_nodes(database).await;
    let (ann, ben, cid) = (
        app.user("ann@example.org").await,
        app.user("ben@example.org").await,
        app.user("cid@example.org").await,
    );
    app.database
        .corrupt_session_row(user_id(&ann).await, session_id(&ann).await, app.now())
        .await;
    app.database.corrupt_user_row(user_id(&cid).await).await;
    // Asked for together, so that they share statements.
    let mut asked = Vec::new();
    for n in 0..60 {
        let client = [&ann, &ben, &cid][n % 3].at(&app.nodes[n % 2]);
        asked.push(tokio::spawn(async move { client.me().await }));
    }
    for (n, reply) in asked.into_iter().enumerate() {
        let reply = reply.await.expect("no panic");
        if n % 3 == 1 {
            reply.expect(200);
        } else {
            assert_problem!(reply, 500, "internal");
        }
    }
}

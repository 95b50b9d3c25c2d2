//! Sessions: seen, ended, run out.

use doorward::{clock::Span, sessions::SessionPolicy, store::Store};
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, PASSWORD, Setup},
        backend::Database,
    },
};

for_each_store! {
    every_login_brings_tokens_of_its_own,
    each_way_out_ends_what_it_says,
    logout_takes_any_genuine_token_and_is_idempotent,
    users_see_and_end_their_own_sessions,
    a_session_ends_when_it_is_not_used,
    a_used_session_still_ends_at_its_absolute_lifetime,
    last_seen_is_written_down_and_counts_on_every_node,
    many_sessions_are_written_down_a_part_at_a_time,
    reauthentication_renews_the_proof_and_opens_nothing,
}

async fn three_sessions(database: Database) -> (App, [Client; 3]) {
    let sessions = SessionPolicy {
        max_per_user: 3,
        ..SessionPolicy::default()
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
    let a = app.user("ann@example.org").await;
    app.clock.advance(Span::millis(1));
    let b = app.log_in("ann@example.org").await;
    app.clock.advance(Span::millis(1));
    let c = app.log_in("ann@example.org").await;
    (app, [a, b, c])
}

/// ASVS 7.2.2: also at the same moment.
async fn every_login_brings_tokens_of_its_own(database: Database) {
    let sessions = SessionPolicy {
        max_per_user: 3,
        ..SessionPolicy::default()
    };
    let setup = Setup {
        sessions,
        ..Setup::default()
    };
    let app = App::with(database, setup).await;
    let first = app.user("ann@example.org").await;
    let second = app.log_in("ann@example.org").await;
    assert_ne!(first.token(), second.token());
    assert_ne!(first.refresh_token(), second.refresh_token());
    assert_ne!(first.session_id().await, second.session_id().await);
    first.call("/v1/auth/logout").await.expect(204);
    assert_problem!(first.me().await, 401, "logged_out");
    second.me().await.expect(200);
}

/// ASVS 7.4.1, 7.4.4.
async fn each_way_out_ends_what_it_says(database: Database) {
    let (app, [a, b, c]) = three_sessions(database).await;
    let there = &app.nodes[1];
    a.call("/v1/auth/logout").await.expect(204);
    assert_problem!(a.at(there).me().await, 401, "logged_out");
    b.at(there).me().await.expect(200);
    b.call("/v1/auth/logout?scope=others").await.expect(204);
    assert_problem!(c.at(there).me().await, 401, "logged_out");
    b.at(there).me().await.expect(200);
    let d = app.log_in("ann@example.org").await;
    d.call("/v1/auth/logout?scope=all").await.expect(204);
    assert_problem!(b.at(there).me().await, 401, "logged_out");
    assert_problem!(d.at(there).me().await, 401, "logged_out");
    assert_problem!(
        d.call("/v1/auth/logout?scope=everything").await,
        400,
        "wrong_parameter"
    );
}

/// ASVS 7.4.4.
async fn logout_takes_any_genuine_token_and_is_idempotent(database: Database) {
    let (app, [a, b, c]) = three_sessions(database).await;
    app.clock.advance(Span::minutes(16));
    assert_problem!(a.me().await, 401, "token_expired");
    a.call("/v1/auth/logout").await.expect(204);
    a.call("/v1/auth/logout").await.expect(204);
    assert_problem!(a.call("/v1/auth/logout?scope=all").await, 401, "logged_out");
    b.call("/v1/auth/logout?scope=others").await.expect(204);
    assert_problem!(
        c.call("/v1/auth/logout?scope=others").await,
        401,
        "logged_out"
    );
    assert_problem!(
        app.anonymous().call("/v1/auth/logout").await,
        401,
        "unauthenticated"
    );
    assert_problem!(
        app.anonymous()
            .with_token("junk")
            .call("/v1/auth/logout")
            .await,
        401,
        "token_invalid"
    );
}

/// ASVS 7.5.2, 8.2.2.
async fn users_see_and_end_their_own_sessions(database: Database) {
    let (app, [a, b, c]) = three_sessions(database).await;
    let body =
        json!({"email": "ben@example.org", "password": PASSWORD, "device_name": "Ben's phone"});
    app.register("ben@example.org").await;
    let answer = app
        .anonymous()
        .post("/v1/auth/login", body)
        .await
        .expect(200);
    let ben = app
        .anonymous()
        .with_token(answer["access_token"].as_str().expect("a token"));
    let bens = ben.get("/v1/auth/sessions").await.expect(200);
    assert_eq!(bens["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(bens["items"][0]["device_name"], "Ben's phone");
    assert_eq!(bens["items"][0]["address"], "127.0.0.1");
    assert_eq!(bens["items"][0]["id"], answer["session"]["id"]);

    let anns = c.get("/v1/auth/sessions").await.expect(200);
    let current: Vec<&Value> = anns["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|s| &s["current"])
        .collect();
    assert_eq!(current, [true, false, false], "newest first");
    let keys: Vec<_> = anns["items"][0]
        .as_object()
        .expect("an object")
        .keys()
        .cloned()
        .collect();
    let documented = [
        "address",
        "auth_methods",
        "authenticated_at",
        "created_at",
        "current",
        "device_name",
        "expires_at",
        "id",
        "last_seen_at",
        "user_agent",
    ];
    assert_eq!(keys, documented, "no token material");

    let path = format!("/v1/auth/sessions/{}", a.session_id().await);
    assert_problem!(ben.delete(&path).await, 404, "not_found");
    a.me().await.expect(200);
    c.delete(&path).await.expect(204);
    c.delete(&path).await.expect(204);
    assert_problem!(a.at(&app.nodes[1]).me().await, 401, "session_revoked");
    b.me().await.expect(200);
    let own = format!("/v1/auth/sessions/{}", c.session_id().await);
    c.delete(&own).await.expect(204);
    assert_problem!(c.me().await, 401, "logged_out");
    assert_problem!(
        b.delete("/v1/auth/sessions/not-an-id").await,
        404,
        "not_found"
    );
}

fn long_access() -> Setup {
    let day = Span::days(1);
    let sessions = SessionPolicy {
        access_ttl: Span::days(29),
        idle_ttl: Span::days(30),
        absolute_ttl: Span::days(60),
        last_seen_flush: day,
        ..SessionPolicy::default()
    };
    Setup {
        nodes: 2,
        sessions,
        ..Setup::default()
    }
}

/// ASVS 7.3.1.
async fn a_session_ends_when_it_is_not_used(database: Database) {
    let mut setup = Setup::default();
    setup.sessions.idle_ttl = Span::minutes(16);
    let app = App::with(database, setup).await;
    let ann = app.user("ann@example.org").await;
    // The token outlives the session here because the flush interval is added to the idle time.
    app.clock.advance(Span::minutes(14));
    ann.me().await.expect(200);
    let mut strict = Setup::default();
    strict.sessions.access_ttl = Span::days(1);
    strict.sessions.idle_ttl = Span::days(2);
    let mut app = app;
    let node = app.add_node(&strict).await;
    app.register("ben@example.org").await;
    let ben = app
        .anonymous_on(node)
        .log_in("ben@example.org", PASSWORD)
        .await;
    app.clock.advance(Span::minutes(20));
    assert_problem!(ben.at(&app.nodes[0]).me().await, 401, "session_idle");
    assert_problem!(ben.at(&app.nodes[node]).me().await, 401, "session_idle");
}

/// ASVS 7.3.2.
async fn a_used_session_still_ends_at_its_absolute_lifetime(database: Database) {
    let mut setup = long_access();
    setup.sessions.access_ttl = Span::days(2);
    setup.sessions.idle_ttl = Span::days(3);
    setup.sessions.absolute_ttl = Span::days(3);
    let app = App::with(database, setup).await;
    let ann = app.user("ann@example.org").await;
    app.clock.advance(Span::days(1));
    ann.me().await.expect(200);
    app.clock.advance(Span::days(2));
    assert_problem!(ann.me().await, 401, "token_expired");
    app.log_in("ann@example.org").await;
    // The older session ran out, so the newer login found nothing to replace.
    assert_problem!(
        ann.call("/v1/auth/logout?scope=all").await,
        401,
        "session_expired"
    );
}

async fn last_seen_is_written_down_and_counts_on_every_node(database: Database) {
    let app = App::with(database, long_access()).await;
    let ann = app.user("ann@example.org").await;
    for _ in 0..2 {
        app.clock.advance(Span::days(14));
        ann.me().await.expect(200);
        app.nodes[0].auth.flush().await.expect("flushed");
    }
    let seen = ann
        .at(&app.nodes[1])
        .get("/v1/auth/sessions")
        .await
        .expect(200);
    let last_seen = seen["items"][0]["last_seen_at"].as_str().expect("a time");
    let expected = app
        .now()
        .to_datetime()
        .to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    assert!(
        last_seen.starts_with(&expected[..19]),
        "{last_seen} is {expected}"
    );
}

async fn reauthentication_renews_the_proof_and_opens_nothing(database: Database) {
    let app = App::two_nodes(database).await;
    let ann = app.user("ann@example.org").await;
    let authenticated_at = async || {
        let sessions = ann.get("/v1/auth/sessions").await.expect(200);
        assert_eq!(sessions["items"].as_array().map(Vec::len), Some(1));
        sessions["items"][0]["authenticated_at"].clone()
    };
    let before = authenticated_at().await;
    app.clock.advance(Span::minutes(5));
    assert_problem!(
        ann.post("/v1/auth/reauthenticate", json!({"password": "wrong"}))
            .await,
        403,
        "wrong_password"
    );
    assert_eq!(authenticated_at().await, before);
    ann.post("/v1/auth/reauthenticate", json!({"password": PASSWORD}))
        .await
        .expect(204);
    assert_ne!(authenticated_at().await, before);
}

/// Each call writes what it has time for, so that a busy node gets through.
async fn many_sessions_are_written_down_a_part_at_a_time(database: Database) {
    let mut setup = Setup::default();
    setup.sessions.max_per_user = 0;
    // Longer than the test takes, however busy the machine is: it flushes by hand.
    setup.sessions.last_seen_flush = Span::minutes(60);
    let app = App::with(database, setup).await;
    app.register("ann@example.org").await;
    let mut users = Vec::new();
    for _ in 0..300 {
        users.push(app.anonymous().log_in("ann@example.org", PASSWORD).await);
    }
    app.clock.advance(Span::minutes(1));
    for user in &users {
        user.me().await.expect(200);
    }
    let node = &app.nodes[0];
    let before = node.store.calls_of("note_seen");
    node.auth.flush().await.expect("written");
    let parts = users.len().div_ceil(node.store.arrange_seen(&mut []));
    assert_eq!(node.store.calls_of("note_seen") - before, parts);
    let listed = users[0].get("/v1/auth/sessions").await.expect(200);
    let sessions = listed["items"].as_array().expect("items");
    assert_eq!(sessions.len(), 300);
    for session in sessions {
        assert_ne!(session["last_seen_at"], session["created_at"]);
    }
}

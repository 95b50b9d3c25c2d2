//! However many logins race, on whatever nodes, the limit holds.

use doorward::{model::user::OnLimit, sessions::SessionPolicy};
use serde_json::json;

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, PASSWORD, Reply, Setup},
        backend::Database,
        rounds,
    },
};

for_each_store! {
    sixty_four_logins_leave_exactly_one_session,
    sixty_four_registrations_of_one_address_make_one_account,
    a_limit_of_three_is_never_four,
    reject_refuses_exactly_the_surplus,
    a_newer_login_replaces_the_older_one,
    a_lowered_limit_takes_hold_at_the_next_login,
    expired_sessions_under_reject_do_not_lock_the_owner_out,
}

const RACERS: usize = 64;

/// All logins at once, spread over the nodes.
async fn race_logins(app: &App, email: &str, racers: usize) -> Vec<Reply> {
    let logins = (0..racers).map(|n| {
        let (client, email) = (app.anonymous_on(n % app.nodes.len()), email.to_owned());
        tokio::spawn(async move { client.try_log_in(&email, PASSWORD).await })
    });
    let mut replies = Vec::new();
    for login in logins.collect::<Vec<_>>() {
        replies.push(login.await.expect("no panic"));
    }
    replies
}

/// How many of the sessions that these replies opened are accepted now.
async fn count_live(app: &App, replies: &[Reply]) -> usize {
    let checks = replies
        .iter()
        .filter(|reply| reply.status == 200)
        .map(|reply| {
            let token = reply.json()["access_token"]
                .as_str()
                .expect("an access token")
                .to_owned();
            let client = app.anonymous_on(app.nodes.len() - 1).with_token(&token);
            tokio::spawn(async move { client.me().await })
        });
    let mut live = 0;
    for check in checks.collect::<Vec<_>>() {
        let reply = check.await.expect("no panic");
        match reply.status {
            200 => live += 1,
            // MongoDB remembers the last 20 closed sessions of a user; older ones are unknown.
            _ => assert!(
                [
                    (401, "session_replaced".to_owned()),
                    (401, "session_unknown".to_owned())
                ]
                .contains(&reply.problem()),
                "{reply:?}"
            ),
        }
    }
    live
}

async fn sixty_four_logins_leave_exactly_one_session(database: Database) {
    let app = App::two_nodes(database).await;
    app.register("ann@example.org").await;
    for round in 0..rounds(200) {
        let replies = race_logins(&app, "ann@example.org", RACERS).await;
        let refused = replies.iter().find(|reply| reply.status != 200);
        assert!(
            refused.is_none(),
            "under eviction every login succeeds: {refused:?}"
        );
        assert_eq!(count_live(&app, &replies).await, 1, "round {round}");
    }
}

async fn sixty_four_registrations_of_one_address_make_one_account(database: Database) {
    let app = App::two_nodes(database).await;
    for round in 0..5 {
        let racers = (0..RACERS).map(|n| {
            let client = app.anonymous_on(n % 2);
            let email = if n % 3 == 0 {
                format!("Ann{round}@Example.org")
            } else {
                format!("ann{round}@example.org")
            };
            tokio::spawn(async move {
                client
                    .post(
                        "/v1/auth/register",
                        json!({"email": email, "password": PASSWORD}),
                    )
                    .await
            })
        });
        let mut made = 0;
        for racer in racers.collect::<Vec<_>>() {
            let reply = racer.await.expect("no panic");
            match reply.status {
                201 => made += 1,
                _ => assert_eq!(reply.problem(), (409, "email_taken".to_owned())),
            }
        }
        assert_eq!(made, 1, "round {round}");
        app.log_in(&format!("ann{round}@example.org")).await;
    }
}

fn policy(max_per_user: u32, on_limit: OnLimit) -> SessionPolicy {
    SessionPolicy {
        max_per_user,
        on_limit,
        ..SessionPolicy::default()
    }
}

async fn a_limit_of_three_is_never_four(database: Database) {
    let app = App::with(
        database,
        Setup {
            nodes: 2,
            sessions: policy(3, OnLimit::EvictOldest),
            ..Setup::default()
        },
    )
    .await;
    app.register("ann@example.org").await;
    for round in 0..rounds(100) {
        // Sessions of the round before are older than those of this one.
        app.clock.advance(doorward::clock::Span::millis(1));
        let replies = race_logins(&app, "ann@example.org", RACERS).await;
        assert_eq!(count_live(&app, &replies).await, 3, "round {round}");
    }
}

/// ASVS 7.1.2.
async fn reject_refuses_exactly_the_surplus(database: Database) {
    let app = App::with(
        database,
        Setup {
            nodes: 2,
            sessions: policy(3, OnLimit::Reject),
            ..Setup::default()
        },
    )
    .await;
    for n in 0..5 {
        let email = format!("ann{n}@example.org");
        app.register(&email).await;
        let replies = race_logins(&app, &email, 20).await;
        let refused = replies
            .iter()
            .filter(|reply| reply.problem() == (409, "session_limit".to_owned()))
            .count();
        assert_eq!((count_live(&app, &replies).await, refused), (3, 17));
    }
}

/// ASVS 7.1.2.
async fn a_newer_login_replaces_the_older_one(database: Database) {
    let app = App::two_nodes(database).await;
    let first = app.user("ann@example.org").await;
    let second = app.log_in("ann@example.org").await;
    assert_problem!(first.at(&app.nodes[1]).me().await, 401, "session_replaced");
    second.at(&app.nodes[1]).me().await.expect(200);
}

async fn a_lowered_limit_takes_hold_at_the_next_login(database: Database) {
    let mut app = App::with(
        database,
        Setup {
            sessions: policy(3, OnLimit::EvictOldest),
            ..Setup::default()
        },
    )
    .await;
    app.register("ann@example.org").await;
    let replies = race_logins(&app, "ann@example.org", 3).await;
    assert_eq!(count_live(&app, &replies).await, 3);
    let strict = app.add_node(&Setup::default()).await;
    let newest = app
        .anonymous_on(strict)
        .log_in("ann@example.org", PASSWORD)
        .await;
    assert_eq!(count_live(&app, &replies).await, 0);
    newest.me().await.expect(200);
}

async fn expired_sessions_under_reject_do_not_lock_the_owner_out(database: Database) {
    let app = App::with(
        database,
        Setup {
            sessions: policy(1, OnLimit::Reject),
            ..Setup::default()
        },
    )
    .await;
    app.user("ann@example.org").await;
    assert_problem!(
        app.anonymous()
            .try_log_in("ann@example.org", PASSWORD)
            .await,
        409,
        "session_limit"
    );
    let idle = SessionPolicy::default();
    app.clock.advance(
        idle.idle_ttl
            .plus(idle.last_seen_flush)
            .plus(doorward::clock::Span::millis(1)),
    );
    app.log_in("ann@example.org").await.me().await.expect(200);
}

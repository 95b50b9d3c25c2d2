//! Staying logged in: refresh tokens, lost replies and stolen copies.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use doorward::{
    clock::Span,
    entropy::SystemEntropy,
    tokens::{KeyAlgorithm, KeyRing, keys::KeyFile},
};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, PASSWORD, Reply, Setup},
        backend::Database,
        race, rounds,
    },
    program::{Place, borrowed, serving},
};

for_each_store! {
    a_client_stays_logged_in_by_refreshing,
    of_fifty_refreshes_at_once_one_rotates_and_nobody_is_logged_out,
    a_stolen_token_that_is_used_after_the_owner_ends_the_session,
    a_stolen_token_that_is_used_before_the_owner_ends_the_session,
    a_lost_reply_is_given_again,
    a_lost_reply_is_given_again_after_a_kill,
    whatever_ends_a_session_ends_its_refresh_token,
    refreshing_does_not_outlast_the_session,
    a_change_of_keys_logs_nobody_out,
    a_dump_holds_nothing_that_opens_the_door,
}

async fn a_client_stays_logged_in_by_refreshing(database: Database) {
    let app = App::two_nodes(database).await;
    let mut ann = app.user("ann@example.org").await;
    let session = ann.session_id().await;
    for round in 0..6 {
        app.clock.advance(Span::minutes(20));
        let node = &app.nodes[round % 2];
        assert_problem!(ann.at(node).me().await, 401, "token_expired");
        let refreshed = ann.at(node).refreshed().await;
        assert_ne!(refreshed.refresh_token(), ann.refresh_token());
        ann = refreshed;
        ann.me().await.expect(200);
        assert_eq!(ann.session_id().await, session);
    }
}

/// ASVS 2.3.4, 15.4.2, 10.4.5.
async fn of_fifty_refreshes_at_once_one_rotates_and_nobody_is_logged_out(database: Database) {
    let app = App::two_nodes(database).await;
    let mut ann = app.user("ann@example.org").await;
    let mut seen = BTreeSet::from([ann.refresh_token().to_owned()]);
    for round in 0..rounds(100) {
        // Half of the rounds long after the one before, the other half within its grace.
        app.clock
            .advance(Span::secs(if round % 2 == 0 { 60 } else { 2 }));
        let refreshes = (0..50).map(|n| {
            let client = ann.at(&app.nodes[n % 2]);
            async move { client.try_refresh().await }
        });
        let replies = race(refreshes).await;
        let successors: BTreeSet<String> = replies
            .into_iter()
            .map(|reply| {
                let answer = reply.expect(200);
                answer["refresh_token"]
                    .as_str()
                    .expect("a token")
                    .to_owned()
            })
            .collect();
        assert_eq!(successors.len(), 1, "one rotation");
        assert!(seen.insert(successors.first().expect("one").clone()));
        ann = ann.refreshed().await;
        seen.insert(ann.refresh_token().to_owned());
        for node in &app.nodes {
            ann.at(node).me().await.expect(200);
        }
    }
}

/// Both are refused from then on, on every node; the owner logs in again.
async fn all_is_over(app: &App, parties: &[&Client]) {
    for node in &app.nodes {
        for client in parties {
            let client = client.at(node);
            for reply in [client.me().await, client.try_refresh().await] {
                assert_problem!(&reply, 401, "refresh_reused");
            }
        }
    }
    let again = app.log_in("ann@example.org").await;
    again.refreshed().await.me().await.expect(200);
}

/// ASVS 10.4.5, RFC 9700 §4.14.2.
async fn a_stolen_token_that_is_used_after_the_owner_ends_the_session(database: Database) {
    let app = App::two_nodes(database).await;
    let owner = app.user("ann@example.org").await;
    let thief = owner.at(&app.nodes[1]);
    let owner = owner.refreshed().await;
    owner.me().await.expect(200);
    app.clock.advance(Span::secs(10));
    assert_problem!(thief.try_refresh().await, 401, "refresh_reused");
    all_is_over(&app, &[&owner, &thief]).await;
}

async fn a_stolen_token_that_is_used_before_the_owner_ends_the_session(database: Database) {
    let app = App::two_nodes(database).await;
    let owner = app.user("ann@example.org").await;
    let thief = owner.at(&app.nodes[1]).refreshed().await;
    thief.me().await.expect(200);
    app.clock.advance(Span::secs(10));
    assert_problem!(owner.try_refresh().await, 401, "refresh_reused");
    all_is_over(&app, &[&owner, &thief]).await;
}

/// The refresh token of an answer.
fn successor(reply: Reply) -> String {
    let answer = reply.expect(200);
    answer["refresh_token"]
        .as_str()
        .expect("a token")
        .to_owned()
}

async fn a_lost_reply_is_given_again(database: Database) {
    let app = App::two_nodes(database).await;
    let ann = app.user("ann@example.org").await;
    ann.me().await.expect(200);
    let lost = successor(ann.try_refresh().await);
    for node in &app.nodes {
        assert_eq!(successor(ann.at(node).try_refresh().await), lost);
    }
    // Also long after the grace, as long as nobody has used what the reply held.
    app.clock.advance(Span::days(2));
    for node in &app.nodes {
        assert_eq!(successor(ann.at(node).try_refresh().await), lost);
    }
    let found = ann.refreshed().await;
    found.at(&app.nodes[1]).me().await.expect(200);
    assert_problem!(ann.try_refresh().await, 401, "refresh_reused");
    assert_problem!(found.me().await, 401, "refresh_reused");
}

async fn a_lost_reply_is_given_again_after_a_kill(database: Database) {
    let place = Place::new();
    let mut variables = serving(&database);
    variables.push(("DOORWARD__SESSIONS__REFRESH_GRACE", "0s".to_owned()));
    let mut server = place.serve(&borrowed(&variables));
    let client = Client::anonymous(&format!("http://{}", server.address));
    let account = json!({"email": "ann@example.org", "password": PASSWORD});
    client.post("/v1/auth/register", account).await.expect(201);
    let ann = client.log_in("ann@example.org", PASSWORD).await;
    let lost = successor(ann.try_refresh().await);
    server.signal(Signal::KILL);
    server.wait();

    let server = place.serve(&borrowed(&variables));
    let ann = Client {
        url: format!("http://{}", server.address),
        ..ann
    };
    for _ in 0..2 {
        assert_eq!(successor(ann.try_refresh().await), lost);
    }
    let found = ann.refreshed().await;
    found.me().await.expect(200);
    assert_problem!(ann.try_refresh().await, 401, "refresh_reused");
}

/// ASVS 7.4.1, 7.4.2, 7.4.3, RFC 9700 §4.14.2.
async fn whatever_ends_a_session_ends_its_refresh_token(database: Database) {
    let app = App::two_nodes(database).await;
    let root = app.admin("root@example.org").await;
    for end in [
        "logged_out",
        "session_replaced",
        "session_revoked",
        "password_changed",
        "account_deactivated",
    ] {
        let email = format!("{end}@example.org");
        let ann = app.user(&email).await;
        let id = ann.me().await.expect(200)["id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let changed =
            json!({"current_password": PASSWORD, "new_password": "another horse entirely"});
        match end {
            "logged_out" => ann.call("/v1/auth/logout").await.expect(204),
            "session_replaced" => ann.try_log_in(&email, PASSWORD).await.expect(200),
            "session_revoked" => root
                .call(&format!("/v1/admin/users/{id}/revoke"))
                .await
                .expect(200),
            "password_changed" => {
                let sessions = json!({"max_sessions": 2});
                root.patch(&format!("/v1/admin/users/{id}"), sessions)
                    .await
                    .expect(200);
                let other = app.log_in(&email).await;
                other
                    .post("/v1/auth/me/password", changed)
                    .await
                    .expect(204)
            }
            _ => root
                .call(&format!("/v1/admin/users/{id}/deactivate"))
                .await
                .expect(200),
        };
        assert_problem!(ann.at(&app.nodes[1]).try_refresh().await, 401, end);
    }
}

/// ASVS 7.3.1, 7.3.2, 10.4.8.
async fn refreshing_does_not_outlast_the_session(database: Database) {
    let app = App::two_nodes(database).await;
    let idle = app.user("idle@example.org").await;
    let mut busy = app.user("busy@example.org").await;
    for day in 0..29 {
        app.clock.advance(Span::days(1));
        let node = &app.nodes[day % 2];
        busy = busy.at(node).refreshed().await;
        node.auth.flush().await.expect("written");
    }
    assert_problem!(idle.try_refresh().await, 401, "session_idle");
    app.clock.advance(Span::secs(86_399));
    let last = busy.try_refresh().await.expect(200);
    assert_eq!(last["expires_in"], 1, "no token outlives its session");
    app.clock.advance(Span::secs(1));
    assert_problem!(
        busy.with_pair(&last).try_refresh().await,
        401,
        "session_expired"
    );
}

/// ASVS 11.2.2.
async fn a_change_of_keys_logs_nobody_out(database: Database) {
    let start = Setup::default().start;
    let mut file = KeyFile::default();
    let old = file.add(KeyAlgorithm::Hs256, start, start, &SystemEntropy);
    let old = old.expect("a key");
    let later = start.plus(Span::minutes(10));
    file.add(KeyAlgorithm::EdDsa, start, later, &SystemEntropy)
        .expect("a key");
    let with = |file: &KeyFile| {
        let file = file.clone();
        Setup {
            keys: std::sync::Arc::new(move || KeyRing::from_file(&file).expect("a ring")),
            ..Setup::default()
        }
    };
    let mut app = App::with(database, with(&file)).await;
    let ann = app.user("ann@example.org").await;
    let lost = successor(ann.try_refresh().await);
    app.clock.advance(Span::minutes(15));
    assert_eq!(
        successor(ann.try_refresh().await),
        lost,
        "made with the old key"
    );
    let ann = ann.refreshed().await.refreshed().await;
    ann.me().await.expect(200);
    file.retire(&old);
    let node = app.add_node(&with(&file)).await;
    ann.at(&app.nodes[node])
        .refreshed()
        .await
        .me()
        .await
        .expect(200);
}

/// A text that was handed out, and what of it is secret.
fn parts(token: &str) -> Vec<Vec<u8>> {
    let mut parts = vec![token.as_bytes().to_vec()];
    if let Some(body) = token.strip_prefix("dwr_") {
        let bytes = URL_SAFE_NO_PAD.decode(body).expect("base64url");
        parts.push(body.as_bytes().to_vec());
        // Behind version, key, user, session and generation stand the secret and the tag.
        parts.push(bytes[45..77].to_vec());
        parts.push(bytes[77..].to_vec());
    } else {
        let signature = token.rsplit('.').next().expect("a signature");
        parts.push(signature.as_bytes().to_vec());
        parts.push(URL_SAFE_NO_PAD.decode(signature).expect("base64url"));
    }
    parts
}

fn hexadecimal(bytes: &[u8]) -> Vec<u8> {
    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

fn holds(dump: &[u8], part: &[u8]) -> bool {
    let within = |part: &[u8]| dump.windows(part.len()).any(|window| window == part);
    within(part) || within(&hexadecimal(part))
}

/// ASVS 7.2.3, 11.3.3, 14.2.4.
async fn a_dump_holds_nothing_that_opens_the_door(database: Database) {
    let mut setup = Setup::default();
    setup.sessions.max_per_user = 5;
    let app = App::with(database, setup).await;
    let mut given = Vec::new();
    let mut remember = |client: &Client| {
        given.push(client.token().to_owned());
        given.push(client.refresh_token().to_owned());
    };
    let first = app.user("ann@example.org").await;
    remember(&first);
    let second = first.refreshed().await;
    remember(&second);
    second.me().await.expect(200);
    let third = second.refreshed().await;
    remember(&third);
    let ended = app.log_in("ann@example.org").await;
    remember(&ended);
    ended.call("/v1/auth/logout").await.expect(204);
    given.push(app.cookie("ann@example.org").await);
    app.nodes[0].auth.flush().await.expect("written");

    let dump = app.database.dump().await;
    let hash = doorward::model::token::SecretHash::of(third.refresh_token());
    assert!(
        holds(&dump, hash.as_bytes()),
        "the search finds what is there"
    );
    assert!(holds(&dump, b"ann@example.org"));
    for token in given {
        for part in parts(&token) {
            assert!(!holds(&dump, &part), "{token}");
        }
    }
}

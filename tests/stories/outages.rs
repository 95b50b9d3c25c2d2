//! Promise 5: a database that is away means 503 with Retry-After, never a 200 and never a 401.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use doorward::{
    clock::{ManualClock, Timestamp},
    entropy::SystemEntropy,
    http::ApiOptions,
    mail::memory::MemoryMailer,
    model::client::{Clients, fresh_client},
    store::{open::open, settings::Backend},
};
use reqwest::Method;
use serde_json::json;

use crate::{
    assert_problem,
    harness::{
        app::{App, Client, PASSWORD, Reply, Setup, serve},
        backend::Database,
        browser::Browser,
        mailbox::posting,
        servers::PrivateServer,
        smtp::link_token,
        sqlite::WriteLock,
        until,
    },
};

/// ASVS 16.5.2.
#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_is_away_every_answer_is_503() {
    while_the_database_is_away_every_answer_is_503(Backend::Postgres, Away::Killed).await;
}

/// Its kernel still takes what is sent, so that no connection breaks.
///
/// ASVS 16.5.3.
#[tokio::test(flavor = "multi_thread")]
async fn while_postgres_does_not_answer_every_answer_is_503() {
    while_the_database_is_away_every_answer_is_503(Backend::Postgres, Away::Frozen).await;
}

/// ASVS 16.5.2.
#[tokio::test(flavor = "multi_thread")]
async fn while_mongodb_is_away_every_answer_is_503() {
    while_the_database_is_away_every_answer_is_503(Backend::Mongodb, Away::Killed).await;
}

/// ASVS 16.5.3.
#[tokio::test(flavor = "multi_thread")]
async fn while_mongodb_does_not_answer_every_answer_is_503() {
    while_the_database_is_away_every_answer_is_503(Backend::Mongodb, Away::Frozen).await;
}

/// How a database is away.
#[derive(Debug, Clone, Copy)]
enum Away {
    Killed,
    Frozen,
}

const CLIENTS: usize = 16;
/// Answers that must come while the database is away.
const ANSWERS: usize = 60;
/// The promise: service again, without a restart of the node.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// What the load saw. A request counts as sent while away if it began after the database was gone and
/// was answered before it came back.
#[derive(Default)]
struct Seen {
    away: AtomicBool,
    stop: AtomicBool,
    refused: AtomicUsize,
    wrong: std::sync::Mutex<Vec<String>>,
}

impl Seen {
    fn judge(&self, reply: &Reply, began_away: bool) {
        let away = began_away && self.away.load(Ordering::SeqCst);
        let is_503 = reply.status == 503 && reply.header("retry-after") == Some("1");
        // In between both answers are right, but never that the session or the account is gone.
        let right = if away {
            is_503
        } else {
            is_503 || [200, 201, 204].contains(&reply.status)
        };
        if !right {
            self.wrong
                .lock()
                .expect("no panic")
                .push(format!("away: {away}: {reply:?}"));
        } else if away {
            self.refused.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn load(client: Client, n: usize, seen: Arc<Seen>) {
    for round in 0.. {
        if seen.stop.load(Ordering::SeqCst) {
            return;
        }
        let began_away = seen.away.load(Ordering::SeqCst);
        let reply = match (n + round) % 4 {
            0 => {
                let body =
                    json!({"email": format!("user{n}x{round}@example.org"), "password": PASSWORD});
                client.post("/v1/auth/register", body).await
            }
            1 => client.get("/v1/auth/sessions").await,
            2 => client.get("/health/ready").await,
            _ => client.me().await,
        };
        seen.judge(&reply, began_away);
    }
}

/// And a refresh token is not lost by asking.
async fn nothing_says_that_somebody_is_logged_out(ann: &Client, browser: &Browser, secret: &str) {
    let form = async |path: &str, body: &str| {
        let request = browser.request(Method::POST, &format!("/v1/oauth/{path}"));
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        browser.send(request.body(body.to_owned())).await
    };
    let client = format!("client_id=notes&client_secret={secret}");
    for reply in [
        ann.try_refresh().await,
        ann.get("/v1/auth/check").await,
        ann.get("/v1/auth/check?redirect=/notes").await,
        browser.me().await,
        browser.call("/v1/auth/logout").await,
        form(
            "token",
            &format!(
                "grant_type=refresh_token&refresh_token={}",
                ann.refresh_token()
            ),
        )
        .await,
        form("introspect", &format!("{client}&token={}", ann.token())).await,
        form(
            "introspect",
            &format!("{client}&token={}", ann.refresh_token()),
        )
        .await,
        form("revoke", &format!("{client}&token={}", ann.refresh_token())).await,
    ] {
        assert_eq!(
            (reply.status, reply.header("retry-after")),
            (503, Some("1")),
            "{reply:?}"
        );
    }
}

/// Nor is anything told or done for those who are known.
async fn nothing_is_done_for_anybody(ann: &Client) {
    let password = json!({"password": PASSWORD});
    for (method, path, body) in [
        (Method::GET, "/v1/auth/me/events", None),
        (
            Method::PATCH,
            "/v1/auth/me",
            Some(json!({"username": "ann"})),
        ),
        (
            Method::POST,
            "/v1/auth/reauthenticate",
            Some(password.clone()),
        ),
        (Method::POST, "/v1/auth/me/deactivate", Some(password)),
        (Method::POST, "/v1/auth/logout", None),
        (Method::GET, "/v1/admin/users", None),
        (Method::GET, "/v1/admin/audit", None),
        (Method::GET, "/v1/admin/outbox", None),
    ] {
        let reply = ann.send(method, path, body).await;
        assert_problem!(&reply, 503, "database_unavailable");
        assert_eq!(reply.header("retry-after"), Some("1"), "{path}");
    }
}

/// And a link is not lost by pressing its button; nor does asking for a letter pretend that one will come.
async fn nothing_says_that_a_link_is_spent(anonymous: &Client, link: &str) {
    let (token, email) = (json!({"token": link}), json!({"email": "ann@example.org"}));
    let with_password = json!({"token": link, "password": PASSWORD});
    for (path, body) in [
        ("/v1/auth/email/verify", &token),
        ("/v1/auth/email/confirm", &token),
        ("/v1/auth/not-me", &token),
        ("/v1/auth/password/reset", &with_password),
        ("/v1/auth/register/confirm", &with_password),
        ("/v1/auth/password/forgot", &email),
        ("/v1/auth/email/resend", &email),
    ] {
        let reply = anonymous.post(path, body.clone()).await;
        assert_problem!(&reply, 503, "database_unavailable");
        assert_eq!(reply.header("retry-after"), Some("1"), "{path}");
    }
}

async fn while_the_database_is_away_every_answer_is_503(backend: Backend, away: Away) {
    let mut server = PrivateServer::start(backend).await;
    let store = open(&server.settings()).await.expect("open").store;
    // Readiness compares clocks, so this node's stands at the database's time.
    let now = store.time().await.expect("the time");
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(now.as_millis())));
    let (secret, entry) = fresh_client("notes", &SystemEntropy);
    let mut setup = Setup {
        api: ApiOptions {
            clients: Clients::parse(&[entry]).expect("a client"),
            ..ApiOptions::default()
        },
        ..Setup::default()
    };
    setup.sessions.max_per_user = 3;
    let mailer = MemoryMailer::new();
    let setup = posting(setup, Arc::new(mailer.clone()));
    let node = serve(store, &setup, Arc::clone(&clock)).await;
    let anonymous = Client::anonymous(&node.url);
    let account = json!({"email": "ann@example.org", "password": PASSWORD});
    anonymous
        .post("/v1/auth/register", account)
        .await
        .expect(201);
    let ann = anonymous.log_in("ann@example.org", PASSWORD).await;
    until("the letter is sent", async || !mailer.letters().is_empty()).await;
    let letters = mailer.letters();
    let link = link_token(&letters[0].text).expect("a link");

    let browser = Browser::at(&node).log_in("ann@example.org").await;

    let seen = Arc::new(Seen::default());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| tokio::spawn(load(ann.clone(), n, Arc::clone(&seen))))
        .collect();
    match away {
        Away::Killed => server.kill(),
        Away::Frozen => server.freeze().await,
    }
    seen.away.store(true, Ordering::SeqCst);
    until("enough answers came", async || {
        seen.refused.load(Ordering::SeqCst) >= ANSWERS
    })
    .await;
    let login = anonymous.try_log_in("ann@example.org", PASSWORD).await;
    assert_eq!(
        (login.status, login.header("retry-after")),
        (503, Some("1")),
        "{login:?}"
    );
    nothing_says_that_somebody_is_logged_out(&ann, &browser, secret.expose()).await;
    nothing_says_that_a_link_is_spent(&anonymous, link).await;
    nothing_is_done_for_anybody(&ann).await;
    anonymous.get("/health/live").await.expect(200);
    assert_eq!(anonymous.get("/health/ready").await.status, 503);

    seen.away.store(false, Ordering::SeqCst);
    match away {
        Away::Killed => server.start_again().await,
        Away::Frozen => server.thaw(),
    }
    let back = until("it answers", async || ann.me().await.status == 200);
    tokio::time::timeout(BACK_WITHIN, back)
        .await
        .expect("service within five seconds");
    ann.refreshed().await.me().await.expect(200);
    browser.me().await.expect(200);
    let body = json!({"token": link});
    let verified = anonymous.post("/v1/auth/email/verify", body).await;
    verified.expect(204);
    anonymous
        .log_in("ann@example.org", PASSWORD)
        .await
        .me()
        .await
        .expect(200);
    seen.stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("no panic");
    }
    assert_eq!(*seen.wrong.lock().expect("no panic"), Vec::<String>::new());
}

/// SQLite has no server to be away; what can happen is that somebody else has the file for writing.
#[tokio::test(flavor = "multi_thread")]
async fn while_somebody_else_writes_to_sqlite_reads_go_on_and_writes_are_503() {
    let app = App::start(Database::fresh(Backend::Sqlite).await).await;
    let ann = app.user("ann@example.org").await;
    let lock = WriteLock::on(&app.database.settings().sqlite.path);
    let writes = {
        let ann = ann.clone();
        tokio::spawn(async move {
            let body = json!({"email": "bob@example.org", "password": PASSWORD});
            let answers = futures_util::join!(
                ann.post("/v1/auth/register", body),
                ann.try_log_in("ann@example.org", PASSWORD),
                ann.call("/v1/auth/logout"),
            );
            [answers.0, answers.1, answers.2]
        })
    };
    let mut reads = 0;
    while !writes.is_finished() {
        ann.me().await.expect(200);
        reads += 1;
    }
    for answer in writes.await.expect("no panic") {
        assert_problem!(&answer, 503, "database_unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert!(reads > 100, "{reads}");
    drop(lock);
    let logout = ann.call("/v1/auth/logout").await;
    assert_eq!(logout.status, 204, "{logout:?}");
    app.register("bob@example.org").await;
}

//! Promise 4: what got a 2xx survives `kill -9`, and nothing is half made: no change without its record in the
//! audit trail, and no record without its change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use doorward::{
    ids::{SessionId, UserId},
    model::audit::{AuditFilter, AuditRecord},
    store::{Store, UserFilter},
};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    for_each_store,
    harness::{
        app::{Client, PASSWORD},
        backend::Database,
        rounds, until,
    },
    program::{Place, borrowed, serving},
};

for_each_store! {
    what_was_acknowledged_survives_a_kill,
}

const CLIENTS: usize = 8;
/// Acknowledged registrations after which the server is killed.
const ACKNOWLEDGED: usize = 30;

/// What the clients of one round know.
#[derive(Default)]
struct Known {
    acknowledged: Vec<String>,
    /// Sent, and never answered.
    in_doubt: Vec<String>,
}

/// Registers and logs in until the server is gone.
async fn work(client: Client, round: usize, n: usize, known: Arc<Mutex<Known>>) {
    for account in 0.. {
        let email = format!("user{round}x{n}x{account}@example.org");
        let send = async |path: &str| {
            let body = json!({"email": email, "password": PASSWORD});
            let sent = client
                .http
                .post(format!("{}{path}", client.url))
                .json(&body)
                .send()
                .await;
            sent.ok().map(|reply| reply.status().as_u16())
        };
        let Some(status) = send("/v1/auth/register").await else {
            known.lock().expect("no panic").in_doubt.push(email);
            return;
        };
        assert_eq!(status, 201);
        known
            .lock()
            .expect("no panic")
            .acknowledged
            .push(email.clone());
        // The second login ends the session of the first.
        for _ in 0..2 {
            let Some(status) = send("/v1/auth/login").await else {
                return;
            };
            assert_eq!(status, 200);
        }
    }
}

/// Every record, a page at a time.
async fn all_records(store: &dyn Store) -> Vec<AuditRecord> {
    let mut all: Vec<AuditRecord> = Vec::new();
    loop {
        let filter = AuditFilter {
            before: all.last().map(|record| record.id),
            limit: 1000,
            ..AuditFilter::default()
        };
        let page = store.list_audit(&filter).await.expect("an answer");
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

async fn all_users(store: &dyn Store) -> BTreeSet<UserId> {
    let mut all = BTreeSet::new();
    loop {
        let filter = UserFilter {
            before: all.first().copied(),
            limit: 1000,
            ..UserFilter::default()
        };
        let page = store.list_users(&filter).await.expect("an answer");
        if page.is_empty() {
            return all;
        }
        all.extend(page.iter().map(|user| user.id));
    }
}

/// Every account and session has the records of what became of it, once, and every record its account or
/// session (ASVS 16.2.1).
pub(super) async fn the_trail_is_as_the_rows_are(store: &dyn Store) {
    let records = all_records(store).await;
    let done = |event: &'static str| {
        let of_kind = records.iter();
        of_kind.filter(move |record| record.event == event && record.outcome == "done")
    };
    let users = all_users(store).await;
    let made: Vec<UserId> = done("account_created").filter_map(|r| r.subject).collect();
    assert_eq!(made.len(), users.len(), "one record for each account");
    assert_eq!(made.into_iter().collect::<BTreeSet<_>>(), users);

    let mut opened: BTreeMap<SessionId, UserId> = BTreeMap::new();
    for login in done("login") {
        let (session, user) = (login.session.expect("one"), login.subject.expect("one"));
        assert_eq!(opened.insert(session, user), None, "recorded once");
        let owner = store.owner_of_session(session).await.expect("an answer");
        assert_eq!(owner, Some(user), "a login is recorded that never was");
    }
    let mut ended = BTreeSet::new();
    for end in done("session_ended") {
        let session = end.session.expect("one");
        assert!(ended.insert(session), "recorded once");
        assert!(opened.contains_key(&session), "it was opened");
    }
    let mut still_open = BTreeSet::new();
    for user in users {
        let open = store.open_sessions_of(user).await.expect("an answer");
        still_open.extend(open.iter().map(|session| session.id));
    }
    for session in opened.keys() {
        let (is_open, has_ended) = (still_open.contains(session), ended.contains(session));
        assert_ne!(is_open, has_ended, "{session}");
    }
    assert!(
        still_open
            .iter()
            .all(|session| opened.contains_key(session))
    );
}

/// ASVS 2.3.3, 16.2.1.
async fn what_was_acknowledged_survives_a_kill(database: Database) {
    let place = Place::new();
    let variables = serving(&database);
    let mut checked = 0;
    for round in 0..rounds(20) {
        let mut server = place.serve(&borrowed(&variables));
        let client = Client::anonymous(&format!("http://{}", server.address));
        let known = Arc::new(Mutex::new(Known::default()));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| tokio::spawn(work(client.clone(), round, n, Arc::clone(&known))))
            .collect();
        until("enough was acknowledged", async || {
            known.lock().expect("no panic").acknowledged.len() >= ACKNOWLEDGED
        })
        .await;
        server.signal(Signal::KILL);
        server.wait();
        for client in clients {
            client.await.expect("no panic");
        }

        let server = place.serve(&borrowed(&variables));
        let client = Client::anonymous(&format!("http://{}", server.address));
        let known = std::mem::take(&mut *known.lock().expect("no panic"));
        for email in &known.acknowledged {
            client.log_in(email, PASSWORD).await.me().await.expect(200);
            checked += 1;
        }
        for email in &known.in_doubt {
            settle(&client, email).await;
        }
        the_trail_is_as_the_rows_are(&*database.open().await).await;
    }
    assert!(checked >= ACKNOWLEDGED, "{checked}");
}

/// An account in doubt was made whole or not at all: who cannot log in can register.
///
/// A transaction that the killed server left open on MongoDB holds the address until the database gives
/// it up, after a minute; until then the answer is "try again".
async fn settle(client: &Client, email: &str) {
    let settled = async {
        loop {
            if client.try_log_in(email, PASSWORD).await.status == 200 {
                return;
            }
            let body = json!({"email": email, "password": PASSWORD});
            match client.post("/v1/auth/register", body).await {
                reply if reply.status == 503 => tokio::time::sleep(Duration::from_secs(1)).await,
                reply => return drop(reply.expect(201)),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(90), settled)
        .await
        .expect("settled");
    client.log_in(email, PASSWORD).await.me().await.expect(200);
}

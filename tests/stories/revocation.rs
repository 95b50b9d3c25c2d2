//! Promise 1: after the 2xx to a change, no request that starts later is judged by the old state, on
//! any node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use doorward::{model::user::OnLimit, sessions::SessionPolicy};
use serde_json::json;

use crate::{
    for_each_store,
    harness::{
        app::{App, Client, PASSWORD, Reply, Setup},
        backend::Database,
    },
};

for_each_store! {
    no_request_after_a_change_sees_the_old_state,
}

/// Requests per kind of change and database; five kinds make more than ten thousand.
const REQUESTS: usize = 2_100;
const HAMMERS: usize = 8;
/// Requests that the second node answers before a change is made.
const BEFORE_THE_CHANGE: usize = 40;
/// Requests that must be refused after it.
const AFTER_THE_CHANGE: usize = 100;

/// Clients that hammer one path at the second node, and what they saw.
struct Hammer {
    changed: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    wrongly_accepted: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Hammer {
    fn start(client: &Client, path: &'static str) -> Self {
        let hammer = Self {
            changed: Arc::default(),
            accepted: Arc::default(),
            refused: Arc::default(),
            wrongly_accepted: Arc::default(),
            stop: Arc::default(),
            clients: Vec::new(),
        };
        let clients = (0..HAMMERS).map(|_| {
            let client = client.clone();
            let (changed, stop) = (Arc::clone(&hammer.changed), Arc::clone(&hammer.stop));
            let (accepted, refused) = (Arc::clone(&hammer.accepted), Arc::clone(&hammer.refused));
            let wrongly_accepted = Arc::clone(&hammer.wrongly_accepted);
            tokio::spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    let started_after_the_change = changed.load(Ordering::SeqCst);
                    let reply: Reply = client.get(path).await;
                    match reply.status {
                        200 if started_after_the_change => {
                            wrongly_accepted.fetch_add(1, Ordering::SeqCst)
                        }
                        200 => accepted.fetch_add(1, Ordering::SeqCst),
                        401 | 403 => refused.fetch_add(1, Ordering::SeqCst),
                        other => panic!("{other}: {}", reply.text),
                    };
                }
            })
        });
        Self {
            clients: clients.collect(),
            ..hammer
        }
    }

    async fn until(&self, count: &AtomicUsize, more_than: usize) {
        while count.load(Ordering::SeqCst) < more_than {
            assert!(
                self.clients.iter().all(|client| !client.is_finished()),
                "a client failed"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends the hammering and says how many requests there were.
    async fn finish(self) -> usize {
        self.changed.store(true, Ordering::SeqCst);
        let already = self.refused.load(Ordering::SeqCst);
        self.until(&self.refused, already + AFTER_THE_CHANGE).await;
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.expect("no panic");
        }
        let wrong = self.wrongly_accepted.load(Ordering::SeqCst);
        assert_eq!(
            wrong, 0,
            "requests that started after the 2xx were judged by the old state"
        );
        self.accepted.load(Ordering::SeqCst) + self.refused.load(Ordering::SeqCst)
    }
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Logout,
    Revoke,
    Deactivate,
    NewPassword,
    NewRoles,
}

/// ASVS 7.2.1, 7.4.1.
async fn no_request_after_a_change_sees_the_old_state(database: Database) {
    let sessions = SessionPolicy {
        max_per_user: 2,
        on_limit: OnLimit::EvictOldest,
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
    let admin = app.admin("root@example.org").await;
    let mut requests = 0;
    for change in [
        Change::Logout,
        Change::Revoke,
        Change::Deactivate,
        Change::NewPassword,
        Change::NewRoles,
    ] {
        let mut of_this_kind = 0;
        for round in 0.. {
            if of_this_kind >= REQUESTS {
                break;
            }
            of_this_kind += one_round(&app, &admin, change, round).await;
        }
        requests += of_this_kind;
    }
    assert!(requests >= 10_000, "{requests}");
}

async fn one_round(app: &App, admin: &Client, change: Change, round: usize) -> usize {
    let email = format!("{change:?}{round}@example.org").to_lowercase();
    let user = app.register(&email).await;
    let id = user["id"].as_str().expect("an id");
    let path = if matches!(change, Change::NewRoles) {
        admin
            .put(
                &format!("/v1/admin/users/{id}/roles"),
                json!({"roles": ["admin"]}),
            )
            .await
            .expect(200);
        "/v1/admin/users?limit=1"
    } else {
        "/v1/auth/me"
    };
    let victim = app.log_in(&email).await;
    let hammer = Hammer::start(&victim.at(&app.nodes[1]), path);
    hammer.until(&hammer.accepted, BEFORE_THE_CHANGE).await;
    match change {
        Change::Logout => victim.call("/v1/auth/logout").await.expect(204),
        Change::Revoke => admin
            .call(&format!("/v1/admin/users/{id}/revoke"))
            .await
            .expect(200),
        Change::Deactivate => admin
            .call(&format!("/v1/admin/users/{id}/deactivate"))
            .await
            .expect(200),
        Change::NewPassword => {
            let other = app.log_in(&email).await;
            let body =
                json!({"current_password": PASSWORD, "new_password": "another horse entirely"});
            other.post("/v1/auth/me/password", body).await.expect(204)
        }
        Change::NewRoles => admin
            .put(&format!("/v1/admin/users/{id}/roles"), json!({"roles": []}))
            .await
            .expect(200),
    };
    hammer.finish().await
}

//! Promise 4: what got a 2xx survives `kill -9`, and nothing is half made.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
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
        let Some(status) = send("/v1/auth/login").await else {
            return;
        };
        assert_eq!(status, 200);
    }
}

/// ASVS 2.3.3.
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

//! What the audit trail costs a storm of logins: the same storm with the trail and without it, in turn, on one
//! database.

use doorward::{
    Auth,
    audit::AuditPolicy,
    clock::{Span, Stopwatch},
    model::{account::NewAccount, user::Roles},
    passwords::PasswordPolicy,
    store::settings::Backend,
    tokens::KeyRing,
};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::{
    Outcome,
    client::{Connection, post},
    database::Database,
    per_second,
    report::median,
    service::{Running, key},
};

/// Logins at the same time, each of a user of its own.
const AT_ONCE: usize = 64;

/// Logins a second, medians of the rounds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Storm {
    pub(crate) backend: Backend,
    pub(crate) scrypt: String,
    pub(crate) rounds: usize,
    pub(crate) with_trail: f64,
    pub(crate) without: f64,
    /// Of each round, with the trail against without it.
    pub(crate) ratio: f64,
}

/// Measures `rounds` pairs of storms, in each of which every user logs in `each` times.
pub(crate) async fn measure(
    database: &Database,
    policy: PasswordPolicy,
    rounds: usize,
    each: usize,
) -> Outcome<Option<Storm>> {
    if rounds == 0 {
        return Ok(None);
    }
    let backend = database.backend();
    let scrypt = format!("N=2^{}", policy.scrypt_log_n);
    eprintln!("{backend}: storms of {AT_ONCE} logins, scrypt {scrypt}");
    let keys = key();
    let mut sides = Vec::new();
    for enabled in [true, false] {
        let ring = KeyRing::single(&keys).map_err(|e| e.to_string())?;
        let store = database.open().await?.store;
        let audit = AuditPolicy {
            enabled,
            seal_every: Span::secs(10),
            ..AuditPolicy::default()
        };
        let builder = Auth::builder(store, ring).passwords(policy.clone());
        sides.push(Running::serve(builder.audit(audit)).await?);
    }
    let name = format!("storm{}", policy.scrypt_log_n);
    for n in 0..AT_ONCE {
        let account = NewAccount {
            email: format!("{name}.{n}@example.org"),
            username: None,
            attributes: None,
        };
        let made = sides[0].auth.accounts();
        made.create(account, &PASSWORD.into(), Roles::default())
            .await?;
    }
    let (mut on, mut off, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=rounds {
        // Which of the two comes first changes, and the first round warms up.
        let mut speeds = [0.0; 2];
        for turn in 0..2 {
            let side = (round + turn) % 2;
            speeds[side] = storm(&sides[side].address, &name, each).await?;
        }
        if round > 0 {
            on.push(speeds[0]);
            off.push(speeds[1]);
            ratios.push(speeds[0] / speeds[1]);
        }
    }
    for side in sides {
        side.stop().await;
    }
    Ok(Some(Storm {
        backend,
        scrypt,
        rounds,
        with_trail: median(&mut on),
        without: median(&mut off),
        ratio: median(&mut ratios),
    }))
}

const PASSWORD: &str = "correct horse battery staple";

/// Logins a second.
async fn storm(server: &str, name: &str, each: usize) -> Outcome<f64> {
    let mut connections = Vec::new();
    for _ in 0..AT_ONCE {
        connections.push(Connection::open(server).await?);
    }
    let watch = Stopwatch::start();
    let mut logins = JoinSet::new();
    for (n, mut connection) in connections.into_iter().enumerate() {
        let body = format!(r#"{{"email":"{name}.{n}@example.org","password":"{PASSWORD}"}}"#);
        let request = post("/v1/auth/login", &body);
        logins.spawn(async move {
            let mut done = 0;
            while done < each {
                match connection.ask(&request).await? {
                    200 => done += 1,
                    // The hashing queue is full: as a client would, it asks again.
                    503 => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                    status => {
                        let answer = connection.answer();
                        return Err(format!("not expected: {status}: {answer}").into());
                    }
                }
            }
            Outcome::Ok(())
        });
    }
    while let Some(done) = logins.join_next().await {
        done??;
    }
    Ok(per_second(AT_ONCE * each, watch.elapsed()))
}

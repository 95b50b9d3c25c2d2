//! Whether the time of a failed login tells if there is an account: wrong passwords of known addresses
//! against unknown addresses, in pairs, the first of each pair left to chance.

use doorward::{
    clock::Stopwatch, model::account::NewAccount, passwords::PasswordPolicy,
    store::settings::Backend, tokens::KeyRing,
};
use serde::Serialize;

use crate::{
    Outcome,
    client::{Connection, SplitMix},
    count,
    database::Database,
    service::{Running, key},
};

/// Known addresses in turn, so that no single row is measured.
const KNOWN: usize = 20;

/// What one kind of failed login took.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Group {
    pub(crate) median_micros: f64,
    pub(crate) mean_micros: f64,
    variance: f64,
}

/// Both kinds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Comparison {
    pub(crate) backend: Backend,
    pub(crate) scrypt: String,
    pub(crate) samples: usize,
    pub(crate) known: Group,
    pub(crate) unknown: Group,
    /// Of the means, known less unknown.
    pub(crate) difference_micros: f64,
    pub(crate) standard_error_micros: f64,
}

/// Times `samples` failed logins of each kind.
pub(crate) async fn compare(
    database: &Database,
    policy: PasswordPolicy,
    samples: usize,
) -> Outcome<Option<Comparison>> {
    if samples == 0 {
        return Ok(None);
    }
    let scrypt = format!(
        "N=2^{} r={} p={}",
        policy.scrypt_log_n, policy.scrypt_r, policy.scrypt_p
    );
    eprintln!("{}: failed logins, scrypt {scrypt}", database.backend());
    let kind = policy.scrypt_log_n;
    let store = database.open().await?.store;
    let keys = KeyRing::single(&key()).map_err(|e| e.to_string())?;
    let running = Running::start(store, keys, policy).await?;

    for n in 0..KNOWN {
        let account = NewAccount {
            email: address(&format!("known{kind}"), n),
            username: None,
            attributes: None,
        };
        let password = "correct horse battery staple".into();
        running.auth.accounts().register(account, &password).await?;
    }
    let timed = time(&running.address, kind, samples).await;
    running.stop().await;
    let (known, unknown) = timed?;
    let (known, unknown) = (group(known), group(unknown));
    Ok(Some(Comparison {
        backend: database.backend(),
        scrypt,
        samples,
        known,
        unknown,
        difference_micros: known.mean_micros - unknown.mean_micros,
        standard_error_micros: ((known.variance + unknown.variance) / count(samples)).sqrt(),
    }))
}

async fn time(server: &str, kind: u8, samples: usize) -> Outcome<(Vec<f64>, Vec<f64>)> {
    let mut connection = Connection::open(server).await?;
    let mut random = SplitMix(0);
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let warm_up = samples / 10;
    for n in 0..warm_up + samples {
        let here = login(&address(&format!("known{kind}"), n % KNOWN));
        let nowhere = login(&address(&format!("other{kind}"), n));
        let mut pair = [(&here, &mut known), (&nowhere, &mut unknown)];
        if random.below(2) == 0 {
            pair.reverse();
        }
        for (request, times) in pair {
            let watch = Stopwatch::start();
            let status = connection.ask(request).await?;
            let took = watch.elapsed();
            if status != 401 {
                return Err(format!("{status} instead of 401: {}", connection.answer()).into());
            }
            if n >= warm_up {
                times.push(took.as_secs_f64() * 1e6);
            }
        }
    }
    Ok((known, unknown))
}

/// All of one length.
fn address(name: &str, n: usize) -> String {
    format!("{name}.{n:08}@example.org")
}

fn login(address: &str) -> Vec<u8> {
    let body = format!(r#"{{"email":"{address}","password":"wrong horse battery staple"}}"#);
    format!(
        "POST /v1/auth/login HTTP/1.1\r\nHost: doorward\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn group(mut micros: Vec<f64>) -> Group {
    let n = count(micros.len());
    let mean = micros.iter().sum::<f64>() / n;
    let squares: f64 = micros.iter().map(|m| (m - mean).powi(2)).sum();
    Group {
        median_micros: crate::report::median(&mut micros),
        mean_micros: mean,
        variance: squares / (n - 1.0).max(1.0),
    }
}

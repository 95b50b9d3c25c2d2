//! Whether the time of an answer tells if there is an account: failed logins, and everything that is answered
//! alike whether an address is known or not. Known addresses against unknown ones, in pairs, the first of each
//! pair left to chance.

use doorward::{
    clock::Stopwatch,
    model::{account::NewAccount, user::Roles},
    passwords::PasswordPolicy,
    store::settings::Backend,
    tokens::KeyRing,
};
use serde::Serialize;

use crate::{
    Outcome,
    client::{Connection, post},
    count,
    database::Database,
    random::SplitMix,
    service::{Running, key},
};

/// Known addresses in turn, so that no single row is measured.
const KNOWN: usize = 20;

/// What is asked about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Question {
    Login,
    Forgot,
    Resend,
    /// Where it is concealed which addresses have accounts.
    Register,
}

impl Question {
    /// What light hashing does not hide.
    pub(crate) const ALL: [Self; 4] = [Self::Login, Self::Forgot, Self::Resend, Self::Register];

    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Login => "/v1/auth/login",
            Self::Forgot => "/v1/auth/password/forgot",
            Self::Resend => "/v1/auth/email/resend",
            Self::Register => "/v1/auth/register",
        }
    }

    const fn status(self) -> u16 {
        match self {
            Self::Login => 401,
            Self::Forgot | Self::Resend | Self::Register => 202,
        }
    }

    /// How many addresses are known: a letter to one that has just had one is not written.
    const fn known(self, samples: usize) -> usize {
        match self {
            Self::Login => KNOWN,
            Self::Forgot | Self::Resend | Self::Register => samples + samples / 10,
        }
    }

    fn request(self, address: &str) -> Vec<u8> {
        let body = match self {
            Self::Forgot | Self::Resend => format!(r#"{{"email":"{address}"}}"#),
            Self::Login | Self::Register => {
                format!(r#"{{"email":"{address}","password":"wrong horse battery staple"}}"#)
            }
        };
        post(self.path(), &body)
    }
}

/// What one kind of address took.
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
    pub(crate) question: Question,
    pub(crate) scrypt: String,
    pub(crate) samples: usize,
    pub(crate) known: Group,
    pub(crate) unknown: Group,
    /// Of the means, known less unknown.
    pub(crate) difference_micros: f64,
    pub(crate) standard_error_micros: f64,
}

/// Times `samples` answers of each kind.
pub(crate) async fn compare(
    database: &Database,
    question: Question,
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
    let backend = database.backend();
    eprintln!("{backend}: {}, scrypt {scrypt}", question.path());
    let kind = format!("{question:?}{}", policy.scrypt_log_n).to_lowercase();
    let store = database.open().await?.store;
    let keys = KeyRing::single(&key()).map_err(|e| e.to_string())?;
    let running = match question {
        Question::Login => Running::start(store, keys, policy).await?,
        _ => Running::start_with_mail(store, keys, policy).await?,
    };

    for n in 0..question.known(samples) {
        let account = NewAccount {
            email: address(&format!("known{kind}"), n),
            username: None,
            attributes: None,
        };
        let password = "correct horse battery staple".into();
        running
            .auth
            .accounts()
            .create(account, &password, Roles::default())
            .await?;
    }
    let timed = time(&running.address, question, &kind, samples).await;
    running.stop().await;
    let (known, unknown) = timed?;
    let (known, unknown) = (group(known), group(unknown));
    Ok(Some(Comparison {
        backend,
        question,
        scrypt,
        samples,
        known,
        unknown,
        difference_micros: known.mean_micros - unknown.mean_micros,
        standard_error_micros: ((known.variance + unknown.variance) / count(samples)).sqrt(),
    }))
}

async fn time(
    server: &str,
    question: Question,
    kind: &str,
    samples: usize,
) -> Outcome<(Vec<f64>, Vec<f64>)> {
    let mut connection = Connection::open(server).await?;
    let mut random = SplitMix(0);
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let warm_up = samples / 10;
    let known_ones = question.known(samples);
    for n in 0..warm_up + samples {
        let here = question.request(&address(&format!("known{kind}"), n % known_ones));
        let nowhere = question.request(&address(&format!("other{kind}"), n));
        let mut pair = [(&here, &mut known), (&nowhere, &mut unknown)];
        if random.below(2) == 0 {
            pair.reverse();
        }
        for (request, times) in pair {
            let watch = Stopwatch::start();
            let status = connection.ask(request).await?;
            let took = watch.elapsed();
            if status != question.status() {
                return Err(format!("not expected: {status}: {}", connection.answer()).into());
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

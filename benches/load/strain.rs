//! What strains a server: storms of logins beside other requests, and a million requests against its memory.

use std::{fs, sync::Arc, time::Duration};

use doorward::{
    clock::Stopwatch,
    model::{account::NewAccount, user::Roles},
    passwords::PasswordPolicy,
    sessions::SessionPolicy,
    tokens::KeyRing,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    Options, Outcome,
    client::{self, Connection, post},
    cores::Weight,
    count, openloop,
    report::{LoginRate, Memory, Report, Stormy},
    requests::{ME, Side},
    served::Served,
    service::Running,
    wrk,
};

/// Clients that log in at the same time.
const CLIENTS: usize = 200;
/// Requests a second beside them.
const RATE: usize = 500;
/// Connections that these come on.
const CONNECTIONS: usize = 64;
/// Requests after which memory is compared.
const MANY_REQUESTS: f64 = 1e6;
/// What a client waits that was refused; `Retry-After` would be a second.
const PATIENCE: Duration = Duration::from_secs(1);
const PASSWORD: &str = "correct horse battery staple";

/// No limit but that of the machine.
const UNLIMITED: [(&str, &str); 3] = [
    ("DOORWARD__LIMITS__LOGIN_ACCOUNT", "off"),
    ("DOORWARD__LIMITS__LOGIN_ADDRESS", "off"),
    ("DOORWARD__LIMITS__NODE_ADDRESS", "off"),
];

/// Memory of a server that idles, and of the same after many requests.
pub(crate) async fn memory(
    options: &Options,
    sides: &[Side<'_>],
    report: &mut Report,
) -> Outcome<()> {
    for side in sides {
        eprintln!("{}: memory", side.backend());
        let served = side.serve(&[]).await?;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let idle_kib = served.resident()?;
        let (mut requests, mut since_warm, mut warm_kib) = (0.0, 0.0, 0);
        // What is kept of each user is kept once, and what it takes to write that down is taken then.
        let all_seen = f64::from(side.users);
        let (clock, written_down) = (Stopwatch::start(), SessionPolicy::default().last_seen_flush);
        while since_warm < MANY_REQUESTS {
            let load = wrk::run(
                &served.address,
                ME,
                &side.tokens,
                CONNECTIONS,
                options.seconds,
            )?;
            let answered = load.per_second * f64::from(u32::try_from(options.seconds)?);
            requests += answered;
            if warm_kib > 0 {
                since_warm += answered;
            } else if requests >= all_seen && clock.elapsed() >= written_down.to_duration() {
                warm_kib = served.resident()?;
            }
        }
        report.memory.push(Memory {
            backend: side.backend(),
            start_millis: served.started_in.as_secs_f64() * 1e3,
            idle_kib,
            warm_kib,
            requests,
            then_kib: served.resident()?,
        });
    }
    Ok(())
}

/// Logins by many clients at once: what they do to other requests, and how many there are a second.
pub(crate) async fn logins(
    options: &Options,
    sides: &[Side<'_>],
    report: &mut Report,
) -> Outcome<()> {
    let hash = cpu_time_of_a_hash()?;
    for side in sides {
        eprintln!("{}: {CLIENTS} clients that log in", side.backend());
        make_accounts(side).await?;
        let time = Duration::from_secs(options.seconds * 4);
        Weight::AsOthers.ask_for();
        let stormy = storm_beside(side, Weight::AsOthers, time).await?;
        report.stormy.push(stormy);
        if Weight::AThirtieth.ask_for() {
            let stormy = storm_beside(side, Weight::AThirtieth, time).await;
            Weight::AsOthers.ask_for();
            report.stormy.push(stormy?);
        }
        let served = side.serve(&UNLIMITED).await?;
        let (stop, told) = watch::channel(false);
        let (alone, clock) = (storm_of(&served, told), Stopwatch::start());
        tokio::time::sleep(time).await;
        stop.send_replace(true);
        let found = alone.await??;
        let cores = std::thread::available_parallelism()?.get();
        let per_second = count(found.logins) / clock.elapsed().as_secs_f64();
        let limit = count(cores) / hash.as_secs_f64();
        report.login_rates.push(LoginRate {
            backend: side.backend(),
            per_second,
            cores,
            hash_millis: hash.as_secs_f64() * 1e3,
            limit,
            ratio: per_second / limit,
        });
    }
    Ok(())
}

/// Requests at a fixed rate, without a storm and beside one.
async fn storm_beside(side: &Side<'_>, weight: Weight, time: Duration) -> Outcome<Stormy> {
    let served = side.serve(&UNLIMITED).await?;
    let calm = steady(side, &served, time).await?;
    let (stop, told) = watch::channel(false);
    let storm = tokio::spawn(storm(served.address.clone(), CLIENTS, told));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let meanwhile = steady(side, &served, time).await?;
    stop.send_replace(true);
    let mut found = storm.await??;
    Ok(Stormy {
        backend: side.backend(),
        weight,
        calm,
        meanwhile,
        logins: found.logins,
        refused: found.refusals.len(),
        refused_p99_micros: percentile(&mut found.refusals, 99),
        resident_kib: served.resident()?,
        peak_kib: served.peak()?,
    })
}

fn storm_of(
    served: &Served,
    told: watch::Receiver<bool>,
) -> tokio::task::JoinHandle<Outcome<Storm>> {
    // Enough that no thread ever waits for work, too few to be refused.
    tokio::spawn(storm(served.address.clone(), 16, told))
}

async fn steady(side: &Side<'_>, served: &Served, time: Duration) -> Outcome<openloop::Steady> {
    let requests: Arc<[Vec<u8>]> = fs::read_to_string(&side.tokens)?
        .lines()
        .map(|token| client::get(ME, token))
        .collect();
    openloop::run(&served.address, requests, CONNECTIONS, RATE, time).await
}

fn address(n: usize) -> String {
    format!("storm.{n}@example.org")
}

async fn make_accounts(side: &Side<'_>) -> Outcome<()> {
    let store = side.database.open().await?.store;
    let keys = KeyRing::single(&side.key).map_err(|e| e.to_string())?;
    let running = Running::start(store, keys, PasswordPolicy::default()).await?;
    let mut making = JoinSet::new();
    for n in 0..CLIENTS {
        let auth = running.auth.clone();
        making.spawn(async move {
            let account = NewAccount {
                email: address(n),
                username: None,
                attributes: None,
            };
            let accounts = auth.accounts();
            accounts
                .create(account, &PASSWORD.into(), Roles::default())
                .await
        });
        // The queue for hashing is bounded.
        if making.len() >= 16
            && let Some(made) = making.join_next().await
        {
            made??;
        }
    }
    while let Some(made) = making.join_next().await {
        made??;
    }
    running.stop().await;
    Ok(())
}

/// What a storm did.
#[derive(Default)]
struct Storm {
    logins: usize,
    /// What each refusal took, in microseconds.
    refusals: Vec<f64>,
}

/// Clients that log in again and again until they are told to stop.
async fn storm(server: String, clients: usize, told: watch::Receiver<bool>) -> Outcome<Storm> {
    let mut running = JoinSet::new();
    for n in 0..clients {
        let mut connection = Connection::open(&server).await?;
        let told = told.clone();
        let body = format!(r#"{{"email":"{}","password":"{PASSWORD}"}}"#, address(n));
        let request = post("/v1/auth/login", &body);
        running.spawn(async move {
            let mut found = Storm::default();
            while !*told.borrow() {
                let asked = Stopwatch::start();
                match connection.ask(&request).await? {
                    200 => found.logins += 1,
                    503 if connection.answer().contains("retry-after: ") => {
                        found.refusals.push(asked.elapsed().as_secs_f64() * 1e6);
                        tokio::time::sleep(PATIENCE).await;
                    }
                    status => {
                        let answer = connection.answer();
                        return Err(format!("not expected: {status}: {answer}").into());
                    }
                }
            }
            Outcome::Ok(found)
        });
    }
    let mut all = Storm::default();
    while let Some(found) = running.join_next().await {
        let mut found = found??;
        all.logins += found.logins;
        all.refusals.append(&mut found.refusals);
    }
    Ok(all)
}

/// The processor time of one hash with the default parameters: the least of some.
fn cpu_time_of_a_hash() -> Outcome<Duration> {
    let policy = PasswordPolicy::default();
    let parameters = scrypt::Params::new(policy.scrypt_log_n, policy.scrypt_r, policy.scrypt_p)?;
    let mut least = Duration::MAX;
    for _ in 0..8 {
        let (before, mut out) = (clock_gettime(ClockId::ThreadCPUTime), [0; 32]);
        scrypt::scrypt(
            PASSWORD.as_bytes(),
            b"sixteen bytes of",
            &parameters,
            &mut out,
        )?;
        let after = clock_gettime(ClockId::ThreadCPUTime);
        least = least.min(Duration::try_from(after - before)?);
    }
    Ok(least)
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let at = values.len().saturating_sub(1) * percent / 100;
    values.get(at).copied().unwrap_or(0.0)
}

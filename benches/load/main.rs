//! What a checked request costs on each backend, and whether a login tells known addresses from
//! unknown ones. `./benches/run` starts the servers that this needs.
//!
//! Doorward listens on a real port of this process; the load comes from a process of its own (`client`).
//! Rounds are interleaved, so that a noisy minute of the machine hits everything alike, and medians of
//! the rounds are reported: `report` as a table and one line of JSON.

mod client;
mod database;
mod logins;
mod pgbench;
mod report;
mod service;
mod storms;

use std::{
    env,
    process::{Command, ExitCode},
    time::Duration,
};

use clap::Parser;
use doorward::store::settings::Backend;

use self::{
    database::Database,
    logins::Question,
    pgbench::PgBench,
    report::{Cell, Report},
    service::Service,
};

/// What went wrong, in one sentence.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
/// What it gave, or what went wrong.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// Measures `GET /v1/auth/me` on each backend beside `pgbench`, and the timings of failed logins
/// and of requests for letters.
#[derive(Debug, Clone, Parser)]
#[command(name = "./benches/run", no_binary_name = true)]
pub(crate) struct Options {
    /// Users, each with one open session
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    users: u32,
    /// Seconds that each measurement lasts, after one of warming up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Interleaved rounds, of which the medians are reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Numbers of connections
    #[arg(long, value_delimiter = ',', default_values_t = [16, 64])]
    connections: Vec<usize>,
    /// Of sqlite, postgres and mongodb
    #[arg(long, value_delimiter = ',', value_parser = backend,
          default_values_t = [Backend::Sqlite, Backend::Postgres, Backend::Mongodb])]
    backends: Vec<Backend>,
    /// Failed logins, and requests for letters, of each kind with light scrypt, on each backend; 0 for none
    #[arg(long, default_value_t = 2_000)]
    logins: usize,
    /// Failed logins of each kind with the default scrypt, on the last backend; 0 for none
    #[arg(long, default_value_t = 200)]
    full_logins: usize,
    /// Pairs of storms of 64 logins at once, with the audit trail and without it, on each backend; 0 for none
    #[arg(long, default_value_t = 8)]
    storms: usize,
    /// Format a JSON log line for each request, as a server in production does, and throw it away
    #[arg(long)]
    log: bool,
    /// What cargo hands to every benchmark
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

fn backend(name: &str) -> Result<Backend, String> {
    let all = [Backend::Sqlite, Backend::Postgres, Backend::Mongodb];
    all.into_iter()
        .find(|backend| backend.to_string() == name)
        .ok_or_else(|| "choose of sqlite, postgres and mongodb".to_owned())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let ran = match arguments.split_first() {
        Some((role, rest)) if role == client::ROLE => client::run(rest),
        _ => measure(&Options::parse_from(arguments)),
    };
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Outcome<()> {
    if options.log {
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_writer(std::io::sink)
            .init();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut databases = Vec::new();
        let mut report = Report::default();
        let measured = measure_all(options, &mut databases, &mut report).await;
        // Whatever happened, nothing stays behind on somebody's server.
        for database in databases {
            database.drop().await?;
        }
        measured?;
        report.print(options);
        Ok(())
    })
}

async fn measure_all(
    options: &Options,
    databases: &mut Vec<Database>,
    report: &mut Report,
) -> Outcome<()> {
    let mut services = Vec::new();
    for &backend in &options.backends {
        databases.push(Database::create(backend).await?);
        let database = databases.last().ok_or("no database")?;
        eprintln!("{backend}: {} users and sessions", options.users);
        services.push(Service::start(database, options.users).await?);
    }
    let postgres = databases.iter().find(|d| d.backend() == Backend::Postgres);
    let pgbench = postgres.map(|d| PgBench::prepare(d, options.users));
    let pgbench = pgbench.transpose()?;
    for round in 1..=options.rounds {
        eprintln!(
            "round {round} of {}, load average {}",
            options.rounds,
            load_average()
        );
        for &connections in &options.connections {
            for service in &services {
                let load = service.load(connections, options.seconds)?;
                report.add(Cell::Doorward(service.backend()), connections, load);
                if let (Backend::Postgres, Some(pgbench)) = (service.backend(), &pgbench) {
                    let load = pgbench.run(connections, options.seconds)?;
                    report.add(Cell::PgBench, connections, load);
                }
            }
        }
    }
    for service in services {
        service.stop().await;
    }
    for database in &*databases {
        let full = doorward::passwords::PasswordPolicy::default();
        let light = doorward::passwords::PasswordPolicy::light();
        let rounds = options.storms;
        for (policy, rounds, each) in [(full, rounds.div_ceil(2), 1), (light, rounds, 20)] {
            let storm = storms::measure(database, policy, rounds, each);
            report.storms.extend(storm.await?);
        }
        for question in Question::ALL {
            let light = doorward::passwords::PasswordPolicy::light();
            let compared = logins::compare(database, question, light, options.logins);
            report.logins.extend(compared.await?);
        }
    }
    if let Some(database) = databases.last() {
        let full = doorward::passwords::PasswordPolicy::default();
        let compared = logins::compare(database, Question::Login, full, options.full_logins);
        report.logins.extend(compared.await?);
    }
    Ok(())
}

/// Runs a program and gives what it wrote.
pub(crate) fn output_of(command: &mut Command) -> Outcome<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(|e| format!("{program} does not run: {e}"))?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{program} failed: {}", why.trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// How busy the machine is, where it says so.
fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or("unknown").to_owned()
}

/// A load of so many requests a second.
pub(crate) fn per_second(requests: usize, time: Duration) -> f64 {
    count(requests) / time.as_secs_f64()
}

/// A count as a number to reckon with.
pub(crate) fn count(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::INFINITY, f64::from)
}

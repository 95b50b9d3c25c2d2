//! What Doorward costs and holds out, always beside the limit measured in the same run. `./benches/run` starts the
//! servers that this needs.
//!
//! Doorward is the program itself in a process of its own, the load is `wrk` or a client of this process, the
//! limits are `pgbench`, the driver's own lookups and a bare endpoint. Rounds are interleaved, so that a noisy
//! minute of the machine hits everything alike, and medians of the rounds are reported: `report` as tables and as
//! a file of JSON.

mod baselines;
mod client;
mod cores;
mod database;
mod logins;
mod moving;
mod openloop;
mod pgbench;
mod random;
mod report;
mod requests;
mod seed;
mod served;
mod service;
mod storms;
mod strain;
mod trips;
#[path = "../../tests/harness/urls.rs"]
mod urls;
mod wrk;

use std::{
    env,
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use clap::{Parser, ValueEnum};
use doorward::{passwords::PasswordPolicy, store::settings::Backend};

use self::{database::Database, logins::Question, report::Report};

/// What went wrong, in one sentence.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
/// What it gave, or what went wrong.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// `/v1/auth/me` and `/v1/auth/check` beside the databases' own lookups
    Requests,
    /// The same with millions of sessions
    Growth,
    /// Requests at a fixed rate during a storm of logins, and logins a second
    Logins,
    /// Memory when idle and after a million requests, and how long a start takes
    Memory,
    /// What the audit trail costs logins
    Trail,
    /// Whether the time of an answer tells known addresses from unknown ones
    Timing,
    /// `doorward transfer` from SQLite to PostgreSQL, to MongoDB and back
    Transfer,
}

/// Measures Doorward on real databases.
#[derive(Debug, Clone, Parser)]
#[command(name = "./benches/run", no_binary_name = true)]
pub(crate) struct Options {
    /// What to measure; growth only when it is asked for
    #[arg(long, value_enum, value_delimiter = ',',
          default_values_t = [
              Part::Requests, Part::Logins, Part::Memory, Part::Trail, Part::Timing, Part::Transfer,
          ])]
    only: Vec<Part>,
    /// Users, each with one open session
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    users: u32,
    /// Users for growth
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    many: u32,
    /// Users that are moved
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    moved: u32,
    /// Seconds that each measurement lasts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Interleaved rounds, of which the medians are reported
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Numbers of connections
    #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64])]
    connections: Vec<usize>,
    /// Of sqlite, postgres and mongodb
    #[arg(long, value_delimiter = ',', value_parser = backend,
          default_values_t = [Backend::Sqlite, Backend::Postgres, Backend::Mongodb])]
    backends: Vec<Backend>,
    /// Where the figures are written to as JSON
    #[arg(long, default_value = "target/load.json")]
    json: PathBuf,
    /// Failed logins, and requests for letters, of each kind with light scrypt, on each backend
    #[arg(long, default_value_t = 2_000)]
    samples: usize,
    /// Failed logins of each kind with the default scrypt, on the last backend
    #[arg(long, default_value_t = 200)]
    full_samples: usize,
    /// Pairs of storms of 64 logins at once, with the audit trail and without it, on each backend
    #[arg(long, default_value_t = 8)]
    storms: usize,
    /// What cargo hands to every benchmark
    #[arg(long = "bench", hide = true)]
    _bench: bool,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        self.only.contains(&part)
    }
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
        Some((role, rest)) if role == baselines::ROLE => baselines::serve(rest),
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut report = Report::default();
        let mut databases = Vec::new();
        let measured = measure_all(options, &mut databases, &mut report).await;
        // Whatever happened, nothing stays behind on somebody's server.
        for database in databases {
            database.drop().await?;
        }
        measured?;
        report.print(options)
    })
}

async fn measure_all(
    options: &Options,
    databases: &mut Vec<Database>,
    report: &mut Report,
) -> Outcome<()> {
    for &backend in &options.backends {
        databases.push(Database::create(backend, "few").await?);
    }
    let seeded = [Part::Requests, Part::Growth, Part::Memory, Part::Logins];
    if seeded.into_iter().any(|part| options.wants(part)) {
        let mut sides = Vec::new();
        for database in &*databases {
            sides.push(requests::Side::prepare(database, options.users).await?);
        }
        if options.wants(Part::Requests) {
            requests::measure(options, &sides, report).await?;
        }
        if options.wants(Part::Memory) {
            strain::memory(options, &sides, report).await?;
        }
        if options.wants(Part::Logins) {
            strain::logins(options, &sides, report).await?;
        }
        if options.wants(Part::Growth) {
            requests::growth(options, &sides, report).await?;
        }
    }
    if options.wants(Part::Trail) {
        trail(options, databases, report).await?;
    }
    if options.wants(Part::Timing) {
        timing(options, databases, report).await?;
    }
    if options.wants(Part::Transfer) {
        moving::measure(options, report).await?;
    }
    Ok(())
}

async fn trail(options: &Options, databases: &[Database], report: &mut Report) -> Outcome<()> {
    for database in databases {
        let (full, light) = (PasswordPolicy::default(), PasswordPolicy::light());
        let rounds = options.storms;
        for (policy, rounds, each) in [(full, rounds.div_ceil(2), 1), (light, rounds, 20)] {
            let storm = storms::measure(database, policy, rounds, each);
            report.storms.extend(storm.await?);
        }
    }
    Ok(())
}

async fn timing(options: &Options, databases: &[Database], report: &mut Report) -> Outcome<()> {
    for database in databases {
        for question in Question::ALL {
            let light = PasswordPolicy::light();
            let compared = logins::compare(database, question, light, options.samples);
            report.timings.extend(compared.await?);
        }
    }
    if let Some(database) = databases.last() {
        let (full, samples) = (PasswordPolicy::default(), options.full_samples);
        let compared = logins::compare(database, Question::Login, full, samples);
        report.timings.extend(compared.await?);
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
pub(crate) fn load_average() -> String {
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

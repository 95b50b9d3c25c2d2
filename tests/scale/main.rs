//! What becomes of the promises when nodes are restarted, primaries die and networks break.
//!
//! Everything is real: nodes are the program itself, PostgreSQL has a streaming standby, MongoDB three members, nginx
//! spreads the requests, and networks are cut between network namespaces. While all that happens, `load` opens and
//! ends sessions and shows them to every node, and `history` judges whether one was accepted after its end had been
//! acknowledged. `tests/scale/run` finds the programs and starts this.

mod history;
mod http;
mod load;
mod machines;
mod mongodb;
mod nodes;
mod partitions;
mod persons;
mod postgres;
mod probes;
#[path = "../harness/processes.rs"]
mod processes;
mod programs;
#[path = "../../benches/load/random.rs"]
mod random;
mod report;
mod rolling;
mod settling;
mod takeovers;
mod unkept;
mod world;

use std::{env, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};

use self::report::Report;

/// What went wrong, in one sentence.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;
/// What it gave, or what went wrong.
pub(crate) type Outcome<T> = Result<T, Failure>;

/// What can be played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Three nodes behind nginx, restarted one after the other
    Rolling,
    /// PostgreSQL: the primary killed, the standby promoted
    Postgres,
    /// MongoDB: the primary stepped down, then killed
    Mongodb,
    /// PostgreSQL: the primary and a node cut off from the standby and the others
    PostgresCut,
    /// MongoDB: the same, with linearizable lookups
    MongodbCut,
    /// What is not promised: an asynchronous standby, an unfenced primary, MongoDB without linearizable lookups
    Unkept,
}

/// Plays failures under load and says what they did.
#[derive(Debug, Clone, Parser)]
#[command(name = "tests/scale/run", no_binary_name = true)]
pub(crate) struct Options {
    /// What to play, if not all; the parts that cut networks need root
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Part>,
    /// For a moment each, and if nothing else is named only what takes seconds
    #[arg(long)]
    short: bool,
    /// Seconds of load before a failure, and after it once all is well again
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Connections to each node that sessions are shown on
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Persons who log in and out
    #[arg(long, default_value_t = 240, value_parser = clap::value_parser!(u32).range(24..=100_000))]
    persons: u32,
    /// How many requests have to be judged in all, or it has failed
    #[arg(long, default_value_t = 0)]
    at_least: u64,
    /// The program to test, if not the one that was built with this
    #[arg(long, default_value = env!("CARGO_BIN_EXE_doorward"))]
    program: PathBuf,
    /// Where the figures are written to as JSON
    #[arg(long, default_value = "target/scale.json")]
    json: PathBuf,
}

impl Options {
    fn parts(&self) -> &[Part] {
        const ALL: [Part; 6] = [
            Part::Rolling,
            Part::Postgres,
            Part::Mongodb,
            Part::PostgresCut,
            Part::MongodbCut,
            Part::Unkept,
        ];
        match (self.only.is_empty(), self.short) {
            (false, _) => &self.only,
            (true, true) => &ALL[..2],
            (true, false) => &ALL,
        }
    }

    /// How long the load runs before a failure.
    pub(crate) fn calm(&self) -> Duration {
        Duration::from_secs(if self.short { 1 } else { self.seconds })
    }

    /// How long it runs afterwards, if not for longer than any election.
    pub(crate) fn recovering(&self) -> Duration {
        Duration::from_secs(if self.short { 4 } else { self.seconds.max(15) })
    }

    /// How often all nodes are restarted.
    pub(crate) fn rounds(&self) -> usize {
        if self.short { 1 } else { 2 }
    }
}

fn main() -> ExitCode {
    let options = Options::parse_from(env::args().skip(1));
    match play(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn play(options: &Options) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let mut report = Report::default();
    let played = runtime.block_on(async {
        for part in options.parts() {
            match part {
                Part::Rolling => rolling::play(options, &mut report).await?,
                Part::Postgres => takeovers::postgres(options, &mut report).await?,
                Part::Mongodb => takeovers::mongodb(options, &mut report).await?,
                Part::PostgresCut => partitions::postgres(options, &mut report).await?,
                Part::MongodbCut => partitions::mongodb(options, &mut report).await?,
                Part::Unkept => unkept::play(options, &mut report).await?,
            }
        }
        Outcome::Ok(())
    });
    // What was found until then is worth seeing.
    report.print(options)?;
    played?;
    report.judge(options)
}

//! What was found: tables for people, a file of JSON for machines.

use std::fs;

use doorward::store::settings::Backend;
use serde::Serialize;
use serde_json::json;

use crate::{
    Options, Outcome, cores::Weight, logins::Comparison, openloop::Steady, storms::Storm, wrk::Load,
};

/// Whose load it was: backend, path, connections.
pub(crate) type Cell = (Backend, &'static str, usize);

/// A load, and what it is compared with, of one round.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Measured {
    pub(crate) load: Load,
    pub(crate) limit: Option<Load>,
}

#[derive(Debug, Serialize)]
struct Row {
    backend: Backend,
    path: &'static str,
    connections: usize,
    rounds: Vec<Measured>,
}

/// What a storm of logins does to other requests.
#[derive(Debug, Serialize)]
pub(crate) struct Stormy {
    pub(crate) backend: Backend,
    pub(crate) weight: Weight,
    pub(crate) calm: Steady,
    pub(crate) meanwhile: Steady,
    pub(crate) logins: usize,
    pub(crate) refused: usize,
    /// What a refusal took.
    pub(crate) refused_p99_micros: f64,
    pub(crate) resident_kib: u64,
    pub(crate) peak_kib: u64,
}

/// How many logins a second there are, and could be at most.
#[derive(Debug, Serialize)]
pub(crate) struct LoginRate {
    pub(crate) backend: Backend,
    pub(crate) per_second: f64,
    pub(crate) cores: usize,
    pub(crate) hash_millis: f64,
    pub(crate) limit: f64,
    pub(crate) ratio: f64,
}

/// What a server takes of memory and time.
#[derive(Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) backend: Backend,
    pub(crate) start_millis: f64,
    pub(crate) idle_kib: u64,
    /// Once every user was asked for, and that was written down.
    pub(crate) warm_kib: u64,
    pub(crate) requests: f64,
    pub(crate) then_kib: u64,
}

impl Memory {
    fn print(&self) {
        let mib = |kib: u64| u32::try_from(kib).map_or(f64::INFINITY, f64::from) / 1024.0;
        println!(
            "| {} | {:.0} | {:.1} | {:.1} | {:.0} | {:.1} | {:+.1} % |",
            self.backend,
            self.start_millis,
            mib(self.idle_kib),
            mib(self.warm_kib),
            self.requests,
            mib(self.then_kib),
            (mib(self.then_kib) / mib(self.warm_kib) - 1.0) * 100.0,
        );
    }
}

/// One way of a transfer.
#[derive(Debug, Serialize)]
pub(crate) struct Leg {
    pub(crate) from: Backend,
    pub(crate) to: Backend,
    pub(crate) records: u64,
    pub(crate) seconds: f64,
}

/// Every measurement.
#[derive(Default)]
pub(crate) struct Report {
    requests: Vec<Row>,
    growth: Vec<Row>,
    pub(crate) stormy: Vec<Stormy>,
    pub(crate) login_rates: Vec<LoginRate>,
    pub(crate) memory: Vec<Memory>,
    pub(crate) timings: Vec<Comparison>,
    pub(crate) storms: Vec<Storm>,
    pub(crate) legs: Vec<Leg>,
}

fn enter(rows: &mut Vec<Row>, (backend, path, connections): Cell, measured: Measured) {
    let is_it =
        |row: &&mut Row| (row.backend, row.path, row.connections) == (backend, path, connections);
    match rows.iter_mut().find(is_it) {
        Some(row) => row.rounds.push(measured),
        None => rows.push(Row {
            backend,
            path,
            connections,
            rounds: vec![measured],
        }),
    }
}

impl Row {
    fn median(&self, figure: impl Fn(&Measured) -> Option<f64>) -> Option<f64> {
        let mut figures: Vec<f64> = self.rounds.iter().filter_map(figure).collect();
        (!figures.is_empty()).then(|| median(&mut figures))
    }

    /// Of requests a second, or of times where there is one connection.
    fn ratio(&self) -> Option<f64> {
        self.median(|round| {
            let limit = round.limit?;
            Some(if self.connections == 1 {
                round.load.p50_micros / limit.p50_micros
            } else {
                round.load.per_second / limit.per_second
            })
        })
    }

    fn print(&self) {
        let figure = |value: Option<f64>, digits: usize| {
            value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
        };
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            self.backend,
            self.path,
            self.connections,
            figure(self.median(|round| Some(round.load.per_second)), 0),
            figure(self.median(|round| Some(round.load.p50_micros / 1e3)), 3),
            figure(self.median(|round| Some(round.load.p99_micros? / 1e3)), 2),
            figure(self.median(|round| Some(round.limit?.per_second)), 0),
            figure(self.ratio(), 2),
        );
    }
}

const COLUMNS: &str =
    "| backend | path | connections | requests/s | p50 ms | p99 ms | limit/s | ratio |
|---|---|--:|--:|--:|--:|--:|--:|";

impl Report {
    pub(crate) fn add(&mut self, cell: Cell, measured: Measured) {
        enter(&mut self.requests, cell, measured);
    }

    pub(crate) fn grow(&mut self, cell: Cell, measured: Measured) {
        enter(&mut self.growth, cell, measured);
    }

    pub(crate) fn print(&self, options: &Options) -> Outcome<()> {
        if !self.requests.is_empty() {
            println!(
                "\n{} users and sessions, {} s, medians of {} rounds. The limit: pgbench (PostgreSQL), find_one of the driver (MongoDB), the lookup replaced by a constant (SQLite); for one connection a bare endpoint that makes one round trip, and the ratio is that of the times",
                options.users, options.seconds, options.rounds
            );
            println!("{COLUMNS}");
            self.requests.iter().for_each(Row::print);
        }
        if !self.growth.is_empty() {
            println!(
                "\n{} users and sessions; the limit: {}",
                options.many, options.users
            );
            println!("{COLUMNS}");
            self.growth.iter().for_each(Row::print);
        }
        self.print_strain();
        self.print_timings();
        self.print_storms();
        self.print_legs(options);
        let all = json!({
            "users": options.users, "seconds": options.seconds, "rounds": options.rounds,
            "requests": self.requests, "growth": self.growth, "stormy": self.stormy,
            "login_rates": self.login_rates, "memory": self.memory, "timings": self.timings,
            "storms": self.storms, "legs": self.legs,
        });
        fs::write(&options.json, serde_json::to_vec_pretty(&all)?)?;
        println!("\nwritten to {}", options.json.display());
        Ok(())
    }

    fn print_strain(&self) {
        if !self.memory.is_empty() {
            println!("\nMemory and start");
            println!(
                "| backend | start ms | idle MiB | warm MiB | after requests | then MiB | growth |"
            );
            println!("|---|--:|--:|--:|--:|--:|--:|");
            for m in &self.memory {
                m.print();
            }
        }
        if !self.stormy.is_empty() {
            println!("\n/v1/auth/me at a fixed rate, while 200 clients log in");
            println!(
                "| backend | weight | rate/s | calm p99 ms | stormy p50 ms | stormy p99 ms | logins | refused | refused p99 ms | resident MiB | peak MiB |"
            );
            println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
            for s in &self.stormy {
                println!(
                    "| {} | {} | {} | {:.2} | {:.2} | {:.2} | {} | {} | {:.2} | {} | {} |",
                    s.backend,
                    s.weight.name(),
                    s.meanwhile.rate,
                    s.calm.p99_micros / 1e3,
                    s.meanwhile.p50_micros / 1e3,
                    s.meanwhile.p99_micros / 1e3,
                    s.logins,
                    s.refused,
                    s.refused_p99_micros / 1e3,
                    s.resident_kib / 1024,
                    s.peak_kib / 1024,
                );
            }
        }
        if !self.login_rates.is_empty() {
            println!("\nLogins a second, and what the cores could hash");
            println!("| backend | logins/s | cores | ms of one hash | limit/s | ratio |");
            println!("|---|--:|--:|--:|--:|--:|");
            for rate in &self.login_rates {
                println!(
                    "| {} | {:.2} | {} | {:.1} | {:.2} | {:.2} |",
                    rate.backend,
                    rate.per_second,
                    rate.cores,
                    rate.hash_millis,
                    rate.limit,
                    rate.ratio
                );
            }
        }
    }

    fn print_storms(&self) {
        if self.storms.is_empty() {
            return;
        }
        println!("\n64 logins at once: a second, with the audit trail and without it");
        println!("| backend | scrypt | rounds | with | without | ratio |");
        println!("|---|---|--:|--:|--:|--:|");
        for s in &self.storms {
            println!(
                "| {} | {} | {} | {:.1} | {:.1} | {:.2} |",
                s.backend, s.scrypt, s.rounds, s.with_trail, s.without, s.ratio
            );
        }
    }

    fn print_legs(&self, options: &Options) {
        if self.legs.is_empty() {
            return;
        }
        println!(
            "\n`doorward transfer` of {} users; what came back was what was sent, and the first token was still good",
            options.moved
        );
        println!("| from | to | records | s |");
        println!("|---|---|--:|--:|");
        for leg in &self.legs {
            println!(
                "| {} | {} | {} | {:.1} |",
                leg.from, leg.to, leg.records, leg.seconds
            );
        }
    }

    fn print_timings(&self) {
        if self.timings.is_empty() {
            return;
        }
        println!("\nPOST: a known address against an unknown one, in µs");
        println!(
            "| backend | path | scrypt | samples each | known: median, mean | unknown: median, mean | difference of means ± standard error |"
        );
        println!("|---|---|---|--:|--:|--:|--:|");
        for c in &self.timings {
            println!(
                "| {} | {} | {} | {} | {:.1}, {:.1} | {:.1}, {:.1} | {:+.1} ± {:.1} |",
                c.backend,
                c.question.path(),
                c.scrypt,
                c.samples,
                c.known.median_micros,
                c.known.mean_micros,
                c.unknown.median_micros,
                c.unknown.mean_micros,
                c.difference_micros,
                c.standard_error_micros,
            );
        }
    }
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}

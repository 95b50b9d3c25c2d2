//! What was found: a table for people, one line of JSON for machines.

use doorward::store::settings::Backend;
use serde_json::{Value, json};

use crate::{Options, client::Load, logins::Comparison, storms::Storm};

/// Whose load it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cell {
    Doorward(Backend),
    PgBench,
}

impl Cell {
    fn name(self) -> String {
        match self {
            Self::Doorward(backend) => backend.to_string(),
            Self::PgBench => "pgbench".to_owned(),
        }
    }
}

/// Every measurement.
#[derive(Default)]
pub(crate) struct Report {
    loads: Vec<(Cell, usize, Vec<Load>)>,
    pub(crate) logins: Vec<Comparison>,
    pub(crate) storms: Vec<Storm>,
}

impl Report {
    pub(crate) fn add(&mut self, cell: Cell, connections: usize, load: Load) {
        let found = self
            .loads
            .iter_mut()
            .find(|(c, n, _)| (*c, *n) == (cell, connections));
        match found {
            Some((_, _, rounds)) => rounds.push(load),
            None => self.loads.push((cell, connections, vec![load])),
        }
    }

    /// Doorward on PostgreSQL as a part of `pgbench` in the same round: the median of the rounds.
    fn ratio(&self, connections: usize) -> Option<f64> {
        let rounds = |cell| {
            let found = self
                .loads
                .iter()
                .find(|(c, n, _)| (*c, *n) == (cell, connections));
            found.map(|(_, _, rounds)| rounds)
        };
        let (ours, theirs) = (
            rounds(Cell::Doorward(Backend::Postgres))?,
            rounds(Cell::PgBench)?,
        );
        let mut ratios: Vec<f64> = ours
            .iter()
            .zip(theirs)
            .map(|(ours, theirs)| ours.per_second / theirs.per_second)
            .collect();
        Some(median(&mut ratios))
    }

    pub(crate) fn print(&self, options: &Options) {
        println!(
            "GET /v1/auth/me: {} users and sessions, {} s, medians of {} rounds",
            options.users, options.seconds, options.rounds
        );
        println!("| backend | connections | requests/s | p50 | p99 | of pgbench |");
        println!("|---|--:|--:|--:|--:|--:|");
        let mut loads = Vec::new();
        for (cell, connections, rounds) in &self.loads {
            let middle = middle(rounds);
            let ratio = match cell {
                Cell::Doorward(Backend::Postgres) => self.ratio(*connections),
                _ => None,
            };
            let mean = if *cell == Cell::PgBench {
                " (mean)"
            } else {
                ""
            };
            println!(
                "| {} | {connections} | {:.0} | {:.2} ms{mean} | {} | {} |",
                cell.name(),
                middle.per_second,
                middle.p50_micros / 1000.0,
                middle
                    .p99_micros
                    .map_or("–".to_owned(), |p99| format!("{:.2} ms", p99 / 1000.0)),
                ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}")),
            );
            loads.push(json!({
                "backend": cell.name(), "connections": connections, "median": middle,
                "rounds": rounds, "of_pgbench": ratio,
            }));
        }
        self.print_logins();
        self.print_storms();
        let line = json!({
            "users": options.users, "seconds": options.seconds, "rounds": options.rounds,
            "log": options.log, "loads": Value::Array(loads), "logins": self.logins,
            "storms": self.storms,
        });
        println!("{line}");
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

    fn print_logins(&self) {
        if self.logins.is_empty() {
            return;
        }
        println!("\nPOST: a known address against an unknown one, in µs");
        println!(
            "| backend | path | scrypt | samples each | known: median, mean | unknown: median, mean | difference of means ± standard error |"
        );
        println!("|---|---|---|--:|--:|--:|--:|");
        for c in &self.logins {
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

/// The median of each figure.
fn middle(rounds: &[Load]) -> Load {
    let of = |figure: fn(&Load) -> f64| median(&mut rounds.iter().map(figure).collect::<Vec<_>>());
    let mut p99: Vec<f64> = rounds.iter().filter_map(|load| load.p99_micros).collect();
    Load {
        per_second: of(|load| load.per_second),
        p50_micros: of(|load| load.p50_micros),
        p99_micros: (!p99.is_empty()).then(|| median(&mut p99)),
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

//! What was found: a table for people, a file of JSON for machines, and whether every promise was kept.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{Options, Outcome, settling::Settled};

/// How long something took.
pub(crate) struct Time {
    what: String,
    took: Duration,
}

impl Time {
    pub(crate) fn new(what: &str, took: Duration) -> Self {
        Self {
            what: what.to_owned(),
            took,
        }
    }
}

impl Display for Time {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.took {
            Duration::ZERO => write!(f, "{} under 0.5 s", self.what),
            took => write!(f, "{} {}", self.what, seconds(took)),
        }
    }
}

/// What was played, and what came of it.
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) setting: String,
    /// Whether the promises have to be kept.
    pub(crate) kept: bool,
    pub(crate) times: Vec<Time>,
    pub(crate) settled: Settled,
}

/// All that was played.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn add(&mut self, row: Row) {
        let found = &row.settled;
        for told in &found.told {
            eprintln!("fault: {told}");
        }
        eprintln!("{}", line(&row));
        self.rows.push(row);
    }

    /// Prints the table and writes the file.
    pub(crate) fn print(&self, options: &Options) -> Outcome<()> {
        println!(
            "| setting | what happened | checks/s before | requests judged | ends acknowledged | accepted afterwards \
             | acknowledged and lost | recovery |"
        );
        println!("|---|---|--:|--:|--:|--:|--:|---|");
        for row in &self.rows {
            println!("{}", line(row));
        }
        for row in &self.rows {
            println!("{}, {}: {}", row.setting, row.what, details(row));
        }
        println!("requests judged in all: {}", grouped(self.judged()));
        if let Some(folder) = options.json.parent() {
            fs::create_dir_all(folder)?;
        }
        let rows: Vec<Value> = self.rows.iter().map(record).collect();
        let text = serde_json::to_string_pretty(&json!({"judged": self.judged(), "rows": rows}))?;
        Ok(fs::write(&options.json, text + "\n")?)
    }

    /// Where the promises have to be kept.
    fn judged(&self) -> u64 {
        let kept = self.rows.iter().filter(|row| row.kept);
        kept.map(|row| row.settled.judged).sum()
    }

    /// # Errors
    /// Where a promise was not kept, or too few requests were judged.
    pub(crate) fn judge(&self, options: &Options) -> Outcome<()> {
        for row in self.rows.iter().filter(|row| row.kept) {
            if !row.settled.is_right() {
                let (setting, what) = (&row.setting, &row.what);
                return Err(format!("a promise was not kept: {setting}: {what}").into());
            }
        }
        if self.judged() < options.at_least {
            return Err(
                "too few requests were judged: let it run for longer, with --seconds".into(),
            );
        }
        Ok(())
    }
}

fn line(row: &Row) -> String {
    let found = &row.settled;
    let after = if found.accepted_after == 0 {
        "0".to_owned()
    } else {
        let latest = Duration::from_nanos(found.longest_after);
        format!("{} (up to {})", found.accepted_after, seconds(latest))
    };
    let mut times: Vec<String> = row.times.iter().map(Time::to_string).collect();
    if times.is_empty() {
        let (retried, failed) = (found.retried, found.failed);
        times.push(format!("{retried} sent again, {failed} of them in vain"));
    }
    format!(
        "| {} | {} | {:.0} | {} | {} | {after} | {} | {} |",
        row.setting,
        row.what,
        found.calm.per_second,
        grouped(found.judged),
        grouped(found.ended),
        found.lost,
        times.join(", ")
    )
}

fn details(row: &Row) -> String {
    let found = &row.settled;
    format!(
        "{:.0} acknowledged acts/s before, {} in all; {} requests answered 503 or not at all; {} sent again, {} of them \
         in vain; {} wrongly refused; {} other faults",
        found.calm.acts_per_second,
        grouped(found.acknowledged),
        grouped(found.unavailable),
        found.retried,
        found.failed,
        found.wrongly_refused,
        found.odd
    )
}

fn record(row: &Row) -> Value {
    let found = &row.settled;
    let times = row.times.iter();
    let times: Vec<Value> = times
        .map(|time| json!({"what": time.what, "seconds": time.took.as_secs_f64()}))
        .collect();
    json!({
        "setting": row.setting, "what": row.what, "kept": row.kept, "times": times,
        "judged": found.judged, "unavailable": found.unavailable,
        "retried": found.retried, "failed": found.failed,
        "acknowledged": found.acknowledged, "ended": found.ended,
        "accepted_after": found.accepted_after,
        "longest_after_seconds": Duration::from_nanos(found.longest_after).as_secs_f64(),
        "wrongly_refused": found.wrongly_refused, "lost": found.lost, "odd": found.odd,
        "checks_per_second": found.calm.per_second, "acts_per_second": found.calm.acts_per_second,
    })
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

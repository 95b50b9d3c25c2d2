//! The command that moves everything from one database to another.
//!
//! Decides how the two are named, so that no password stands on a command line or in an answer, and when the
//! source counts as stopped. How records are moved is for `transfer`.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use serde_json::{Value, json};

use super::{Failure, Say};
use crate::{
    clock::{Span, Timestamp},
    config::{Settings, Sources, read_secret},
    store::{
        open::{Opened, open, unusable},
        settings::{Backend, DatabaseSettings},
    },
    transfer::{Fit, Survey, Tally, Transfer, TransferError, contents, survey},
};

/// How long one statement may take: a page, or counting a table.
const STATEMENT: Span = Span::minutes(10);
/// How long to wait for a connection.
const ACQUIRE: Span = Span::secs(30);

#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("source").required(true),
    group = clap::ArgGroup::new("target").required(true)
)]
pub(super) struct TransferArgs {
    /// The database to move from: sqlite:PATH, postgres://… or mongodb://…/DATABASE, without a password
    #[arg(long, group = "source", value_name = "URL")]
    from: Option<String>,
    /// A file that holds the URL of the database to move from
    #[arg(long, group = "source", value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// A file of settings that names the database to move from
    #[arg(long, group = "source", value_name = "FILE")]
    from_config: Option<PathBuf>,
    /// The database to move to, as --from; it has to be new, or that of the same transfer, interrupted
    #[arg(long, group = "target", value_name = "URL")]
    to: Option<String>,
    /// A file that holds the URL of the database to move to
    #[arg(long, group = "target", value_name = "FILE")]
    to_file: Option<PathBuf>,
    /// A file of settings that names the database to move to
    #[arg(long, group = "target", value_name = "FILE")]
    to_config: Option<PathBuf>,
    /// Only read: say what would be moved and what cannot be; exit code 1 if anything cannot
    #[arg(long)]
    dry_run: bool,
    /// No node serves the source: needed where something happened in it within the last minute
    #[arg(long)]
    source_is_stopped: bool,
    /// Records in one transaction
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=5000))]
    batch: u32,
}

impl TransferArgs {
    fn source(&self) -> Side<'_> {
        Side {
            option: "--from",
            url: self.from.as_deref(),
            file: self.from_file.as_deref(),
            config: self.from_config.as_deref(),
        }
    }

    fn target(&self) -> Side<'_> {
        Side {
            option: "--to",
            url: self.to.as_deref(),
            file: self.to_file.as_deref(),
            config: self.to_config.as_deref(),
        }
    }
}

pub(super) async fn obey(args: &TransferArgs, say: Say) -> Result<(), Failure> {
    let from = args.source().settings()?;
    let to = args.target().settings()?;
    if is_missing(&from) {
        let path = from.sqlite.path.display();
        return Err(Failure(format!("--from: there is no file {path}")));
    }
    let source = open(&from).await?;
    let done = between(&from, &source, &to, args, say).await;
    source.store.close().await;
    done
}

/// What the source is asked before anything else.
async fn between(
    from: &DatabaseSettings,
    source: &Opened,
    to: &DatabaseSettings,
    args: &TransferArgs,
    say: Say,
) -> Result<(), Failure> {
    let failed = |error| Failure(format!("--from: {}", unusable(from, error)));
    let pending = source.migrations.pending().await.map_err(failed)?;
    if !pending.is_empty() {
        let what = "the source lacks migrations";
        return Err(Failure(format!(
            "{what} ({}); run `doorward migrate` on it with this version",
            pending.join(", ")
        )));
    }
    if source.moving.unfinished().await.map_err(failed)?.is_some() {
        let what = "the source is itself the target of a transfer that has not ended";
        return Err(Failure(what.to_owned()));
    }
    if args.dry_run && is_missing(to) {
        // Opening it would make it.
        let fit = Fit {
            closed_kept: None,
            misfit: &|_| None,
        };
        let survey = survey(&*source.moving, fit, args.batch).await?;
        return report_dry_run(&survey, &[], say);
    }
    let target = open(to).await?;
    let transfer = Transfer {
        from: Arc::clone(&source.moving),
        source: from.backend.to_string(),
        to: Arc::clone(&target.moving),
        batch: args.batch,
    };
    let done = if args.dry_run {
        dry_run(&transfer, &target, to, say).await
    } else {
        let now = source.store.time().await.map_err(failed)?;
        run(&transfer, &target, to, args, now, say).await
    };
    target.store.close().await;
    done
}

async fn dry_run(
    transfer: &Transfer,
    target: &Opened,
    to: &DatabaseSettings,
    say: Say,
) -> Result<(), Failure> {
    let survey = transfer.survey().await?;
    let failed = |error| Failure(format!("--to: {}", unusable(to, error)));
    // Without tables there is nothing to count.
    let pending = target.migrations.pending().await.map_err(failed)?;
    let is_begun = target.moving.unfinished().await.map_err(failed)?.is_some();
    let there = if pending.is_empty() && !is_begun {
        contents(&*target.moving).await.map_err(failed)?
    } else {
        Vec::new()
    };
    report_dry_run(&survey, &there, say)
}

async fn run(
    transfer: &Transfer,
    target: &Opened,
    to: &DatabaseSettings,
    args: &TransferArgs,
    now: Timestamp,
    say: Say,
) -> Result<(), Failure> {
    let survey = transfer.survey().await?;
    if survey.is_busy(now) && !args.source_is_stopped {
        let what = "something happened in the source within the last minute";
        return Err(Failure(format!(
            "{what}; stop every node that serves it, and say so with --source-is-stopped"
        )));
    }
    if survey.faults.is_empty() {
        let applied = target.migrations.apply().await;
        applied.map_err(|error| Failure(format!("--to: {}", unusable(to, error))))?;
    }
    let mut tell = |tally: &Tally| {
        if !say.json {
            // Nobody may be reading.
            let (records, kind) = (tally.sum.records, tally.kind.as_str());
            let _ = writeln!(io::stderr(), "moved {records} {kind}");
        }
    };
    transfer.run(&survey, &mut tell).await?;
    let words = format!(
        "{}both databases have been read again and are the same\n",
        table(&survey)
    );
    say.text(words, as_json(&survey, false, &[]))
}

fn report_dry_run(survey: &Survey, there: &[String], say: Say) -> Result<(), Failure> {
    let mut words = table(survey);
    for fault in &survey.faults {
        let _ = writeln!(words, "cannot be moved: {fault}");
    }
    if !there.is_empty() {
        let _ = writeln!(words, "the target is not empty: {}", there.join(", "));
    }
    words.push_str("nothing was written\n");
    say.text(words, as_json(survey, true, there))?;
    if survey.faults.is_empty() && there.is_empty() {
        Ok(())
    } else {
        Err(Failure("the transfer would be refused".to_owned()))
    }
}

fn table(survey: &Survey) -> String {
    let mut words = String::new();
    for tally in &survey.tallies {
        let (kind, sum) = (tally.kind.as_str(), &tally.sum);
        let _ = writeln!(words, "{:>9}  {kind:<24}{}", sum.records, sum.to_hex());
        if tally.left_behind > 0 {
            let left = tally.left_behind;
            let what = "closed sessions stay behind: MongoDB keeps the last 20 of each user";
            let _ = writeln!(words, "{left:>9}  {what}");
        }
    }
    words
}

fn as_json(survey: &Survey, dry_run: bool, there: &[String]) -> Value {
    let kinds: Vec<Value> = survey
        .tallies
        .iter()
        .map(|tally| {
            json!({
                "kind": tally.kind.as_str(),
                "records": tally.sum.records,
                "left_behind": tally.left_behind,
                "checksum": tally.sum.to_hex(),
            })
        })
        .collect();
    json!({
        "dry_run": dry_run,
        "verified": !dry_run,
        "kinds": kinds,
        "faults": survey.faults,
        "target_has": there,
    })
}

impl From<TransferError> for Failure {
    fn from(error: TransferError) -> Self {
        Self(error.to_string())
    }
}

/// Whether the database is a file that is not there.
fn is_missing(settings: &DatabaseSettings) -> bool {
    settings.backend == Backend::Sqlite && !settings.sqlite.path.exists()
}

/// What one side's options say.
struct Side<'a> {
    option: &'static str,
    url: Option<&'a str>,
    file: Option<&'a Path>,
    config: Option<&'a Path>,
}

impl Side<'_> {
    /// The database that they name; the command line sees to it that one of them does.
    fn settings(&self) -> Result<DatabaseSettings, Failure> {
        let option = self.option;
        let mut settings = match (self.url, self.file, self.config) {
            (Some(url), _, _) if has_password(url) => {
                return Err(Failure(format!(
                    "{option}: every user of this machine can see the password; write the URL into a file \
                     and name that with {option}-file"
                )));
            }
            (Some(url), _, _) => of_url(option, url)?,
            (None, Some(path), _) => {
                let option = format!("{option}-file");
                let text = read_secret(&option, path)?;
                of_url(&option, text.expose().trim())?
            }
            (None, None, Some(path)) => {
                let sources = Sources {
                    folder: PathBuf::from("config"),
                    file: Some(path.to_owned()),
                    // Those of this process name one database, and there are two.
                    variables: Vec::new(),
                };
                Settings::load(&sources)?.database
            }
            (None, None, None) => return Err(Failure(format!("{option} is missing"))),
        };
        settings.postgres.acquire_timeout = ACQUIRE;
        settings.postgres.statement_timeout = STATEMENT;
        settings.mongodb.acquire_timeout = ACQUIRE;
        settings.mongodb.statement_timeout = STATEMENT;
        Ok(settings)
    }
}

/// The part of a URL behind its scheme: before and behind the first `/`.
fn parts(url: &str) -> (&str, &str) {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let from = rest.rfind('@').map_or(0, |at| at + 1);
    let end = rest[from..]
        .find(['/', '?'])
        .map_or(rest.len(), |n| from + n);
    rest.split_at(end)
}

fn has_password(url: &str) -> bool {
    let (authority, rest) = parts(url);
    let user = authority.rsplit_once('@').map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':')) || rest.contains("password=")
}

fn of_url(option: &str, url: &str) -> Result<DatabaseSettings, Failure> {
    let mut settings = DatabaseSettings::default();
    if let Some(path) = url.strip_prefix("sqlite:") {
        settings.sqlite.path = PathBuf::from(path);
    } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        settings.backend = Backend::Postgres;
        settings.postgres.url = url.into();
    } else if url.starts_with("mongodb://") || url.starts_with("mongodb+srv://") {
        settings.backend = Backend::Mongodb;
        settings.mongodb.url = url.into();
        let path = parts(url).1.split('?').next().unwrap_or_default();
        path.trim_start_matches('/')
            .clone_into(&mut settings.mongodb.database);
    } else {
        return Err(Failure(format!(
            "{option}: write sqlite:PATH, postgres://…/DATABASE or mongodb://…/DATABASE"
        )));
    }
    settings
        .check()
        .map_err(|bad| Failure(format!("{option}: {}; {}", bad.problem, bad.remedy)))?;
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_databases_and_passwords_are_seen() {
        let mongo = "mongodb://a.example:1,b.example:2/doorward?replicaSet=rs0";
        assert_eq!(
            of_url("--to", mongo).expect("valid").mongodb.database,
            "doorward"
        );
        assert!(of_url("--to", "mongodb://a.example/?replicaSet=rs0").is_err());
        assert!(of_url("--to", "mysql://a.example/doorward").is_err());
        for (url, expected) in [
            ("postgres://doorward:hunter2@db/doorward", true),
            ("postgres://db/doorward?user=a&password=hunter2", true),
            ("postgres://a:p/w@db/doorward", true),
            ("postgres://doorward@db:5432/doorward", false),
            (mongo, false),
            ("sqlite:./data/a:b@c.db", false),
        ] {
            assert_eq!(has_password(url), expected, "{url}");
        }
    }
}

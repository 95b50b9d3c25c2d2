//! `doorward user import`: accounts of another system, a line each.
//!
//! Decides in which order lines are taken and what is said of them. Each account is written by itself, with its
//! record, so an import that was broken off is done again: what is there already is skipped. Which system calls
//! what how is for `sources`, how files are read for `reading`.

mod reading;
mod sources;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::File,
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

use aws_lc_rs::digest::{SHA256, digest};
use clap::{Args, ValueEnum};
use futures_util::{StreamExt, stream::FuturesOrdered};
use serde_json::{Value, json};

use self::{
    reading::{Line, Lines},
    sources::{Mapping, Source},
};
use super::{Failure, Say};
use crate::{
    accounts::{Imported, ImportedUser},
    auth::Auth,
    error::{AuthError, AuthResult},
    model::user::Roles,
};

/// Accounts that are written at once.
const AT_ONCE: usize = 4;
/// Faults that a report in JSON tells one by one.
const MOST_FAULTS: usize = 1000;
/// Costs of hashes that a report names; an export has one or two.
const MOST_COSTS: usize = 16;

#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The export; `-` for standard input
    file: PathBuf,
    /// JSON Lines or CSV with a header; without it the ending of the file decides, and standard input is jsonl
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Which system's names and flags are meant
    #[arg(long, value_enum, default_value = "doorward")]
    from: Source,
    /// Only say what would become of each line; nothing is written
    #[arg(long)]
    dry_run: bool,
    /// What becomes of a line whose address has an account already, which stays as it is in any case
    #[arg(long, value_enum, default_value = "skip")]
    on_conflict: OnConflict,
    /// Leave out fields that are not known instead of refusing their lines
    #[arg(long)]
    ignore_unknown: bool,
    /// Keep this field in `attributes`, under its name; may be repeated
    #[arg(long, value_name = "FIELD")]
    attribute: Vec<String>,
    /// The role of those whom the other system calls superuser or admin; without it they get none
    #[arg(long, value_name = "ROLE")]
    admins_role: Option<String>,
    /// Count every address as verified
    #[arg(long)]
    verified: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Jsonl,
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnConflict {
    Skip,
    Fail,
}

/// An export that can be read.
pub(super) struct Import {
    lines: Lines,
    mapping: Mapping,
    report: Report,
}

impl Import {
    pub(super) fn open(args: &ImportArgs, say: Say) -> Result<Self, Failure> {
        Ok(Self {
            lines: args.lines()?,
            mapping: args.mapping()?,
            report: Report::new(args, say),
        })
    }

    /// Imports every line, and answers what became of them.
    pub(super) async fn run(self, auth: &Auth) -> Result<(), Failure> {
        let Self {
            lines,
            mapping,
            mut report,
        } = self;
        each(auth, lines, &mapping, &mut report).await?;
        report.finish()
    }
}

impl ImportArgs {
    fn lines(&self) -> Result<Lines, Failure> {
        let format = self.format.unwrap_or_else(|| format_of(&self.file));
        let input: Box<dyn Read + Send> = if self.file == Path::new("-") {
            Box::new(io::stdin())
        } else {
            let file = File::open(&self.file);
            Box::new(file.map_err(|e| Failure(format!("{}: {e}", self.file.display())))?)
        };
        match format {
            Format::Jsonl => Ok(reading::json_lines(input)),
            Format::Csv => reading::csv(input),
        }
    }

    fn mapping(&self) -> Result<Mapping, Failure> {
        let role = self.admins_role.clone();
        Roles::parse(role.clone()).map_err(|e| Failure(format!("--admins-role: {e}")))?;
        Ok(Mapping {
            source: self.from,
            ignore_unknown: self.ignore_unknown,
            attributes: self.attribute.iter().cloned().collect(),
            admins_role: role,
            verified: self.verified,
        })
    }
}

fn format_of(file: &Path) -> Format {
    let ending = file.extension().and_then(|ending| ending.to_str());
    if ending.is_some_and(|ending| ending.eq_ignore_ascii_case("csv")) {
        Format::Csv
    } else {
        Format::Jsonl
    }
}

async fn each(
    auth: &Auth,
    lines: Lines,
    mapping: &Mapping,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut seen = Seen::default();
    let mut running = FuturesOrdered::new();
    let really = !report.dry_run;
    for line in lines {
        let Line { number, fields } = line?;
        let user = fields.and_then(|fields| mapping.user(fields));
        let user = match user.and_then(|user| seen.note(user)) {
            Ok(user) => user,
            Err(fault) => {
                report.fault(number, &fault);
                continue;
            }
        };
        if running.len() == AT_ONCE
            && let Some((number, done)) = running.next().await
        {
            report.settle(number, done)?;
        }
        let accounts = auth.accounts();
        running.push_back(async move { (number, accounts.import(user, really).await) });
    }
    while let Some((number, done)) = running.next().await {
        report.settle(number, done)?;
    }
    Ok(())
}

/// What stood in earlier lines, as hashes: some 30 bytes for each address, name and id.
#[derive(Default)]
struct Seen(BTreeSet<[u8; 16]>);

impl Seen {
    /// Refuses what can be only one user's and was another line's: only one of them could log in.
    fn note(&mut self, user: ImportedUser) -> Result<ImportedUser, String> {
        let names = [
            ("email", Some(user.account.email.to_ascii_lowercase())),
            (
                "username",
                user.account
                    .username
                    .as_ref()
                    .map(|name| name.to_ascii_lowercase()),
            ),
            ("id", user.id.map(|id| id.to_string())),
        ];
        for (kind, name) in names {
            let Some(name) = name else { continue };
            let hash = digest(&SHA256, format!("{kind}:{name}").as_bytes());
            let (short, _) = hash.as_ref().split_at(16);
            let is_new = short.try_into().is_ok_and(|short| self.0.insert(short));
            if !is_new {
                return Err(format!("{kind}: stands in an earlier line, too"));
            }
        }
        Ok(user)
    }
}

/// What became of the lines.
struct Report {
    say: Say,
    dry_run: bool,
    on_conflict: OnConflict,
    created: u64,
    skipped: u64,
    failed: u64,
    /// For a report in JSON; people are told at once.
    faults: Vec<Value>,
    /// What hashes cost to check that no check cost so far, and how many there are.
    costs: BTreeMap<String, u64>,
}

impl Report {
    fn new(args: &ImportArgs, say: Say) -> Self {
        Self {
            say,
            dry_run: args.dry_run,
            on_conflict: args.on_conflict,
            created: 0,
            skipped: 0,
            failed: 0,
            faults: Vec::new(),
            costs: BTreeMap::new(),
        }
    }

    fn settle(&mut self, number: u64, done: AuthResult<Imported>) -> Result<(), Failure> {
        match done {
            Ok(Imported::Created { unexpected }) => {
                self.created += 1;
                if let Some(cost) = unexpected.map(|cost| cost.to_string())
                    && (self.costs.len() < MOST_COSTS || self.costs.contains_key(&cost))
                {
                    *self.costs.entry(cost).or_default() += 1;
                }
            }
            Ok(Imported::Exists) if self.on_conflict == OnConflict::Skip => self.skipped += 1,
            Ok(Imported::Exists) => self.fault(number, "email: has an account already"),
            Err(error @ (AuthError::Store(_) | AuthError::Internal(_))) => {
                return Err(Failure(format!(
                    "line {number}: {error}; nothing is half imported: run it again, and what is there is skipped"
                )));
            }
            Err(error) => self.fault(number, &Failure::from(error).0),
        }
        Ok(())
    }

    fn fault(&mut self, number: u64, fault: &str) {
        self.failed += 1;
        if !self.say.json {
            // Nobody may be reading.
            let _ = writeln!(io::stderr(), "line {number}: {fault}");
        } else if self.faults.len() < MOST_FAULTS {
            self.faults.push(json!({ "line": number, "fault": fault }));
        }
    }

    fn finish(self) -> Result<(), Failure> {
        let all = self.created + self.skipped + self.failed;
        self.say.text(self.in_words(), self.as_json())?;
        match self.failed {
            0 => Ok(()),
            failed if self.dry_run => Err(Failure(format!("{failed} of {all} would fail"))),
            failed => Err(Failure(format!(
                "{failed} of {all} failed; the others are imported"
            ))),
        }
    }

    fn in_words(&self) -> String {
        let created = if self.dry_run {
            "would be created"
        } else {
            "created"
        };
        let mut text = format!(
            "{created}  {}\nskipped  {}\nfailed   {}\n",
            self.created, self.skipped, self.failed
        );
        if !self.costs.is_empty() {
            let costs: Vec<&String> = self.costs.keys().collect();
            // A string takes everything.
            let _ = writeln!(
                text,
                "Set passwords.imported = {costs:?}, so that no login tells by its time whose account was imported."
            );
        }
        text
    }

    fn as_json(&self) -> Value {
        json!({
            "dry_run": self.dry_run,
            "created": self.created,
            "skipped": self.skipped,
            "failed": self.failed,
            "faults": self.faults,
            "costs": self.costs,
        })
    }
}

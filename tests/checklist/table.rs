//! The form of `table.toml`, and of the list that its rows come from.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use serde::Deserialize;

/// The chapters that the table goes through.
const CHAPTERS: [u8; 12] = [1, 2, 3, 4, 6, 7, 8, 9, 11, 13, 14, 16];

/// The number of a requirement, such as `6.2.4`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id([u8; 3]);

impl Id {
    pub fn chapter(self) -> u8 {
        self.0[0]
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Result<Vec<u8>, _> = text.split('.').map(str::parse).collect();
        let parts = parts.ok().and_then(|parts| parts.try_into().ok());
        parts
            .map(Self)
            .ok_or_else(|| format!("{text} is no requirement"))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0[0], self.0[1], self.0[2])
    }
}

/// What became of one requirement: exactly one of the four, where tests may stand beside a document or a
/// note on the deployment.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub level: u8,
    /// The tests that prove it, as `cargo test` names them without the name of the database; those
    /// inside of `src/` begin with `src::`.
    #[serde(default)]
    pub tests: Vec<String>,
    /// The part of the README that says what has to be written down.
    pub document: Option<String>,
    /// What the server does for it, and what is left to the operator.
    pub deployment: Option<String>,
    /// What is missing.
    pub not_yet: Option<String>,
}

impl Entry {
    fn fault(&self) -> Option<&'static str> {
        let said = [&self.document, &self.deployment, &self.not_yet];
        let texts: Vec<&String> = said.into_iter().flatten().collect();
        if ![1, 2].contains(&self.level) {
            return Some("has no level of the table");
        }
        if texts.iter().any(|text| text.trim().is_empty()) {
            return Some("says nothing");
        }
        match (texts.len(), self.tests.len()) {
            (0, 0) => Some("is neither proved nor explained"),
            (0 | 1, _) if self.not_yet.is_none() => None,
            (1, 0) => None,
            _ => Some("says two things"),
        }
    }
}

/// Where Doorward does otherwise than a requirement says, on purpose.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deviation {
    pub id: String,
    pub instead: String,
    pub why: String,
}

/// Several requirements by their numbers.
type Rows = BTreeMap<Id, Entry>;

/// The whole table.
#[derive(Debug)]
pub struct Table(Rows);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    deviations: Vec<Deviation>,
    requirements: BTreeMap<String, BTreeMap<String, Entry>>,
}

impl Table {
    /// Reads the table, or says what is wrong with its form, a line each.
    pub fn parse(text: &str) -> Result<Self, String> {
        let written: Written = toml::from_str(text).map_err(|error| error.to_string())?;
        let mut rows = Rows::new();
        let mut faults = Vec::new();
        for (chapter, entries) in written.requirements {
            for (name, entry) in entries {
                match name.parse::<Id>() {
                    Ok(id) if chapter == format!("V{}", id.chapter()) => {
                        faults.extend(entry.fault().map(|fault| format!("{id} {fault}")));
                        rows.insert(id, entry);
                    }
                    Ok(id) => faults.push(format!("{id} stands in {chapter}")),
                    Err(fault) => faults.push(fault),
                }
            }
        }
        for Deviation { id, instead, why } in written.deviations {
            if id.parse::<Id>().is_err() || instead.is_empty() || why.is_empty() {
                faults.push(format!("the deviation {id} is not whole"));
            }
        }
        if faults.is_empty() {
            Ok(Self(rows))
        } else {
            Err(faults.join("\n"))
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = (Id, &Entry)> {
        self.0.iter().map(|(id, entry)| (*id, entry))
    }

    pub fn chapters(&self) -> BTreeSet<u8> {
        self.0.keys().map(|id| id.chapter()).collect()
    }
}

/// How many requirements are met in which way.
#[derive(Default)]
pub struct Counts {
    tests: usize,
    documented: usize,
    deployment: usize,
    not_yet: usize,
}

impl Counts {
    pub fn of<'a>(
        entries: impl Iterator<Item = (Id, &'a Entry)>,
        counted: impl Fn(&Entry) -> bool,
    ) -> Self {
        let mut counts = Self::default();
        for (_, entry) in entries.filter(|(_, entry)| counted(entry)) {
            *if entry.not_yet.is_some() {
                &mut counts.not_yet
            } else if entry.deployment.is_some() {
                &mut counts.deployment
            } else if entry.document.is_some() {
                &mut counts.documented
            } else {
                &mut counts.tests
            } += 1;
        }
        counts
    }

    pub fn met(&self) -> usize {
        self.tests + self.documented + self.deployment
    }

    pub fn all(&self) -> usize {
        self.met() + self.not_yet
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tests, documented, deployment) = (self.tests, self.documented, self.deployment);
        let (not_yet, all) = (self.not_yet, self.all());
        write!(
            f,
            "{tests} | {documented} | {deployment} | {not_yet} | {all}"
        )
    }
}

/// The rows of the list that the table has to have: levels 1 and 2 of its chapters. A row of the list may
/// join several numbers, with their levels in the same order.
pub fn applicable(list: &str) -> BTreeSet<(Id, u8)> {
    let (_, table) = list
        .split_once("## Applicable requirements")
        .expect("the table");
    let table = table.split("\n## ").next().expect("a part");
    let mut rows = BTreeSet::new();
    for line in table.lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(ids), Some(levels)) = (cells.next(), cells.next()) else {
            continue;
        };
        let ids: Vec<Id> = ids.split(", ").filter_map(|id| id.parse().ok()).collect();
        let levels = levels.split(',').map(|level| level.trim_start_matches('L'));
        for (id, level) in ids.into_iter().zip(levels) {
            let level = level.parse().expect("a level");
            if CHAPTERS.contains(&id.chapter()) && level < 3 {
                rows.insert((id, level));
            }
        }
    }
    rows
}

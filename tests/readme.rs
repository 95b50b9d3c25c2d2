//! The README is true: its walk is walked, its table of settings is compared with the defaults.

use std::{collections::BTreeMap, process::Command};

use doorward::{finding::Check, model::audit::EventKind};
use serde_json::Value;

use crate::program::Place;

const README: &str = include_str!("../README.md");
const DEFAULTS: &str = include_str!("../config/default.toml");

/// The fenced blocks between two headings, as (language, text).
fn blocks(from: &str, to: &str) -> Vec<(&'static str, String)> {
    let start = README.find(from).expect("the heading");
    let end = start + README[start..].find(to).expect("the next heading");
    let mut blocks = Vec::new();
    let mut lines = README[start..end].lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            blocks.push((language, text.join("\n")));
        }
    }
    blocks
}

/// What differs from run to run, by kind.
fn anonymised(value: Value) -> Value {
    match value {
        Value::String(text) => {
            let kind = if text.parse::<uuid::Uuid>().is_ok() {
                "an id"
            } else if chrono::DateTime::parse_from_rfc3339(&text).is_ok() {
                "a time"
            } else if text.starts_with("eyJ") {
                "a token"
            } else if text.starts_with("dwr_") {
                "a refresh token"
            } else if text.starts_with("dwd_") {
                "a device token"
            } else if text.starts_with("curl/") {
                "an agent"
            } else {
                return text.into();
            };
            kind.into()
        }
        Value::Array(items) => items.into_iter().map(anonymised).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(key, value)| (key, anonymised(value)))
            .collect(),
        other => other,
    }
}

#[test]
fn the_walk_gives_what_it_says() {
    let place = Place::new();
    let serving = place.serve(&[]);
    let walk = blocks("## A walk", "## How it works");
    let (commands, answers): (Vec<_>, Vec<_>) = walk
        .into_iter()
        .partition(|(language, _)| *language == "sh");
    assert_eq!((commands.len(), answers.len()), (6, 6));
    // One shell for all of it, since variables are carried along.
    let marked: Vec<String> = commands
        .into_iter()
        .map(|(_, text)| format!("{text}\nprintf '\\n@@@\\n'"))
        .collect();
    let script = marked
        .join("\n")
        .replace("localhost:8080", &serving.address)
        .replace("./target/release/doorward", env!("CARGO_BIN_EXE_doorward"));
    let done = Command::new("bash")
        .args(["-euo", "pipefail", "-c", &script])
        .current_dir(place.path(""))
        .output();
    let done = done.expect("bash runs");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let out = String::from_utf8(done.stdout).expect("UTF-8");
    let given: Vec<&str> = out
        .split("@@@")
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .collect();
    assert_eq!(given.len(), answers.len(), "{out}");
    for (given, (_, written)) in given.iter().zip(answers) {
        let parse = |text: &str| anonymised(serde_json::from_str(text).expect(text));
        assert_eq!(parse(given), parse(&written));
    }
}

/// Keys with their defaults as the file of defaults writes them.
fn defaults() -> BTreeMap<String, String> {
    let mut section = String::new();
    let mut defaults = BTreeMap::new();
    for line in DEFAULTS.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((key, value)) = line.split_once(" = ").filter(|_| !line.starts_with('#'))
        {
            defaults.insert(format!("{section}{key}"), value.to_owned());
        }
    }
    defaults
}

/// ASVS 2.1.3.
#[test]
fn every_setting_stands_in_the_table_with_its_default() {
    let start = README.find("| key | default |").expect("the table");
    let rows = README[start..]
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let table: BTreeMap<String, String> = rows
        .map(|row| {
            let cells: Vec<&str> = row
                .split('|')
                .map(|cell| cell.trim().trim_matches('`'))
                .collect();
            (cells[1].to_owned(), cells[2].to_owned())
        })
        .collect();
    assert_eq!(table, defaults());
}

/// ASVS 16.1.1: the inventory of what is recorded is whole.
#[test]
fn every_event_of_the_audit_trail_stands_in_the_table() {
    let start = README.find("| event | what happened |").expect("the table");
    let rows = README[start..]
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let named = rows.flat_map(|row| row.split('|').nth(1).expect("a cell").split('·'));
    let named: Vec<&str> = named.map(|name| name.trim().trim_matches('`')).collect();
    let kinds: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(named, kinds);
}

#[test]
fn every_finding_of_the_doctor_stands_in_the_table() {
    let start = README
        .find("| finding | red | yellow |")
        .expect("the table");
    let rows = README[start..]
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').nth(1).expect("a cell").trim());
    let named: Vec<(&str, bool)> = cells
        .map(|cell| {
            let name = cell.trim_end_matches(" *");
            (name.trim_matches('`'), name != cell)
        })
        .collect();
    let checks = Check::ALL.iter();
    let checks: Vec<(&str, bool)> = checks
        .map(|check| (check.as_str(), check.is_lasting()))
        .collect();
    assert_eq!(named, checks);
}

//! `doorward doctor`: each finding is provoked on real servers, and what is red stops `serve`.
//!
//! What no test can provoke (a network disk, clocks that differ, an old server) is tested beside its code.

mod databases;
mod deployment;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::program::{KEY, Place};

/// Everything that stands in URLs and settings here and must not be repeated.
const SECRET: &str = "hunter2";

/// Variables with which the program runs in a folder of its own.
const BASE: [(&str, &str); 3] = [
    ("DOORWARD__TOKENS__KEY", KEY),
    ("DOORWARD__PASSWORDS__SCRYPT_LOG_N", "15"),
    ("DOORWARD__DATABASE__AUTO_MIGRATE", "true"),
];

/// What the doctor said: its exit code, and level and sentence of each finding by name.
struct Report {
    code: i32,
    found: BTreeMap<String, (String, String)>,
    value: Value,
}

impl Report {
    #[track_caller]
    fn level(&self, name: &str) -> &str {
        let found = self.found.get(name);
        &found
            .unwrap_or_else(|| panic!("{name} in {:#}", self.value))
            .0
    }

    #[track_caller]
    fn says(&self, name: &str, level: &str, words: &str) {
        let (found, sentence) = &self.found[name];
        assert_eq!(found, level, "{name}: {sentence}");
        assert!(sentence.contains(words), "{name}: {sentence}");
    }

    /// The names that are not green.
    fn faults(&self) -> Vec<&str> {
        let faults = self.found.iter().filter(|(_, (level, _))| level != "green");
        faults.map(|(name, _)| name.as_str()).collect()
    }
}

#[track_caller]
fn doctor(place: &Place, more: &[(&str, &str)]) -> Report {
    let variables = [&BASE[..], more].concat();
    let done = place.run(&["doctor", "--json"], &variables);
    assert!(!done.out.contains(SECRET) && !done.err.contains(SECRET));
    let value: Value = serde_json::from_str(&done.out)
        .unwrap_or_else(|e| panic!("{e}: {} {}", done.out, done.err));
    let text = |one: &Value, name: &str| one[name].as_str().expect(name).to_owned();
    let found = value["findings"].as_array().expect("a list").iter();
    let found = found.map(|one| (text(one, "name"), (text(one, "level"), text(one, "says"))));
    Report {
        code: done.code,
        found: found.collect(),
        value,
    }
}

/// The sentence with which `serve` refuses to start.
#[track_caller]
fn refused(place: &Place, more: &[(&str, &str)]) -> String {
    let variables = [&BASE[..], more].concat();
    let refusal = place.run(&["serve"], &variables).refusal();
    assert!(!refusal.contains(SECRET), "{refusal}");
    refusal
}

/// `serve` starts with this set aside, and warns of it.
#[track_caller]
fn starts_without(name: &str, place: &Place, more: &[(&str, &str)]) {
    let ignoring = [("DOORWARD__DOCTOR__IGNORE", name)];
    let server = place.serve(&[&BASE[..], more, &ignoring].concat());
    let line = server.logs("doctor.ignore sets aside what is red");
    assert!(line.contains(name) && !line.contains(SECRET), "{line}");
}

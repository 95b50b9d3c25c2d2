//! The table of security requirements: `table.toml` beside this file goes through the rows of OWASP ASVS 5.0
//! that apply, and this compares it with the tests that it names, with the README and with the list of rows.
//!
//! `cargo test --test doorward -- checklist --nocapture` prints the counts. Which rows apply is decided by
//! the list; `source` proves those that only the source can show.

mod named;
mod source;
mod table;

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

use self::{
    named::Named,
    table::{Counts, Entry, Id, Table, applicable},
};

const TABLE: &str = include_str!("table.toml");
const README: &str = include_str!("../../README.md");
/// The list of rows, where it is at hand; the table stands by itself elsewhere.
const LIST: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../shared/security-checklist.md"
);
/// Of a hundred requirements of level 2, how many are met at the least.
const MET_OF_LEVEL_2: usize = 90;

fn table() -> Table {
    Table::parse(TABLE).unwrap_or_else(|faults| panic!("\n{faults}"))
}

/// Everything in which the table says what is not so, one sentence each.
fn faults(table: &Table, tests: &Named, readme: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (id, entry) in table.entries() {
        for test in &entry.tests {
            match tests.ids_of(test) {
                None => found.push(format!("{id}: there is no test {test}")),
                Some(ids) if !ids.contains(&id) => {
                    found.push(format!("{id}: {test} does not name it"));
                }
                Some(_) => {}
            }
        }
        let part = entry.document.as_deref();
        if let Some(part) = part.filter(|part| !has_part(readme, part)) {
            found.push(format!("{id}: the README has no part \"{part}\""));
        }
    }
    found
}

/// Whether a text has a heading or a paragraph of this name.
fn has_part(text: &str, name: &str) -> bool {
    text.lines().any(|line| {
        line.trim_start_matches('#').trim() == name && line.starts_with('#')
            || line.starts_with(&format!("**{name}.**"))
    })
}

#[test]
fn what_the_table_names_is_there() {
    let found = faults(&table(), &Named::read(), README);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_rows_are_those_of_the_list() {
    if !Path::new(LIST).exists() {
        return;
    }
    let list = applicable(&fs::read_to_string(LIST).expect("readable"));
    let table = table();
    let rows: BTreeSet<(Id, u8)> = table.entries().map(|(id, e)| (id, e.level)).collect();
    assert!(list.len() > 100, "{list:?}");
    let missing: Vec<_> = list.difference(&rows).collect();
    let surplus: Vec<_> = rows.difference(&list).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "missing {missing:?}, surplus {surplus:?}"
    );
}

/// How the README shows the counts.
fn shown(table: &Table) -> String {
    let mut rows = String::new();
    for level in [1, 2] {
        let counts = Counts::of(table.entries(), |entry| entry.level == level);
        writeln!(rows, "| L{level} | {counts} |").expect("written");
    }
    rows
}

#[test]
fn the_counts_are_printed_and_those_of_the_readme() {
    let table = table();
    println!("| | by tests | documented | by deployment | not yet | of |");
    for chapter in table.chapters() {
        for level in [1, 2] {
            let own = table.entries().filter(|(id, _)| id.chapter() == chapter);
            let counts = Counts::of(own, |entry| entry.level == level);
            println!("| V{chapter} L{level} | {counts} |");
        }
    }
    let rows = shown(&table);
    print!("{rows}");
    assert!(README.contains(&rows), "the README should say\n{rows}");
}

#[test]
fn as_much_is_met_as_is_promised() {
    let table = table();
    let counts = Counts::of(table.entries(), |entry| entry.level == 2);
    let met = counts.met() * 100;
    assert!(met >= counts.all() * MET_OF_LEVEL_2, "{counts}");
}

/// A table with one entry, and what is found in it.
fn found_in(entry: &str) -> Vec<String> {
    let text = format!("[requirements.V6]\n\"6.2.4\" = {{ level = 1, {entry} }}\n");
    let tests = Named::of("a::proves", &["6.2.4".parse::<Id>().expect("an id")]);
    match Table::parse(&text) {
        Ok(table) => faults(&table, &tests, "# Ways\n**Keys.** One.\n"),
        Err(faults) => vec![faults],
    }
}

#[test]
fn planted_faults_are_found() {
    for sound in [
        "tests = [\"a::proves\"]",
        "document = \"Ways\"",
        "document = \"Keys\", tests = [\"a::proves\"]",
        "not_yet = \"There is none.\"",
    ] {
        assert_eq!(found_in(sound), Vec::<String>::new(), "{sound}");
    }
    for unsound in [
        "tests = [\"a::other\"]",
        "tests = []",
        "document = \"Way\"",
        "not_yet = \"\"",
        "not_yet = \"x\", tests = [\"a::proves\"]",
        "document = \"Ways\", deployment = \"x\"",
        "test = \"a::proves\"",
        "not_yet = \"x\" }\n\"6.2.4\" = { level = 1, not_yet = \"x\"",
        "not_yet = \"x\" }\n\"7.2.4\" = { level = 1, not_yet = \"x\"",
        "not_yet = \"x\" }\n\"6.2\" = { level = 1, not_yet = \"x\"",
        "not_yet = \"x\" }\n\"6.2.5\" = { level = 3, not_yet = \"x\"",
    ] {
        assert_ne!(found_in(unsound), Vec::<String>::new(), "{unsound}");
    }
    let unnamed = Named::of("a::proves", &[]);
    let text = "[requirements.V6]\n\"6.2.4\" = { level = 1, tests = [\"a::proves\"] }";
    let table = Table::parse(text).expect("well formed");
    assert_eq!(
        faults(&table, &unnamed, ""),
        ["6.2.4: a::proves does not name it"]
    );
    let entries: Vec<&Entry> = table.entries().map(|(_, entry)| entry).collect();
    assert_eq!((entries.len(), entries[0].level), (1, 1));
}

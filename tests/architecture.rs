//! The layout that `src/` keeps: layers, no cycles, no ambient clock or chance.
//!
//! The rules stand here; how a path in the source becomes a module is for `architecture/paths.rs`.
//! That the checker finds what is planted is tested at the end.

mod paths;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use self::paths::{Reference, references};

/// Which module belongs to which layer; the longest name that fits decides. A module imports from its
/// own layer and from those above it in this list.
const LAYERS: [&[&str]; 9] = [
    &[
        "metrics",
        "clock",
        "entropy",
        "secret",
        "ids",
        "email",
        "username",
        "setting",
        "finding",
        "certificates",
        "outbound",
        "restarting",
        "spans",
    ],
    &["model"],
    &[
        "store",
        "store::error",
        "store::measured",
        "store::moving",
        "mail",
        "mail::settings",
        "letters",
        "error",
    ],
    &[
        "passwords",
        "tokens",
        "throttle",
        "lookup",
        "accounts",
        "sessions",
        "verification",
        "recovery",
        "roles",
        "admin",
        "audit",
        "outbox",
        "presence",
        "sweep",
        "paging",
        "lease",
        "transfer",
    ],
    &["auth"],
    &[
        "store::sql",
        "store::postgres",
        "store::sqlite",
        "store::mongodb",
        "store::circuit",
        "store::queue",
        "store::open",
        "store::settings",
        "mail::open",
        "mail::message",
        "mail::smtp",
        "mail::sendgrid",
        "mail::file",
        "mail::memory",
        "reporting",
    ],
    &["http"],
    &["config", "telemetry"],
    &["doctor", "server", "cli", "main"],
];
const USE_CASES: usize = 3;
/// The use cases that other use cases may import: each is a means, not an end. `roles` tells who may act on
/// whom, which is asked wherever somebody acts on users.
const SHARED_USE_CASES: [&str; 10] = [
    "audit",
    "lease",
    "passwords",
    "tokens",
    "throttle",
    "lookup",
    "presence",
    "paging",
    "outbox",
    "roles",
];
/// The real clock and the real chance, and who may bring them in: those who put things together.
const SYSTEM: [&str; 2] = ["SystemClock", "SystemEntropy"];
const COMPOSERS: [&str; 5] = [
    "src/auth.rs",
    "src/server.rs",
    "src/cli/keys.rs",
    "src/clock.rs",
    "src/entropy.rs",
];
/// Modules whose children have layers of their own: each child must be named above.
const SPLIT: [&str; 2] = ["store", "mail"];

/// Names that bring in the time, chance or other programs, and the one file that may use them.
const BANS: [(&[&str], &str); 13] = [
    (&["Utc", "now"], "src/clock.rs"),
    (&["Local", "now"], "src/clock.rs"),
    (&["SystemTime", "now"], "src/clock.rs"),
    (&["Instant", "now"], "src/clock.rs"),
    (&["clock_gettime"], "src/clock.rs"),
    (&["rand"], "src/entropy.rs"),
    (&["fastrand"], "src/entropy.rs"),
    (&["getrandom"], "src/entropy.rs"),
    (&["OsRng"], "src/entropy.rs"),
    (&["Uuid", "now_v7"], "src/entropy.rs"),
    (&["Uuid", "new_v4"], "src/entropy.rs"),
    (&["std", "process", "Command"], "no file"),
    (&["tokio", "process"], "no file"),
];
/// Types that must keep their names, or the bans above would miss them.
const NEVER_RENAMED: [&str; 6] = ["Utc", "Local", "SystemTime", "Instant", "Command", "Uuid"];

/// Source files by their path from the root of the repository.
type Sources = BTreeMap<String, String>;

/// ASVS 1.2.5.
#[test]
fn the_source_keeps_its_layout() {
    let mut sources = Sources::new();
    read_folder(Path::new(env!("CARGO_MANIFEST_DIR")), "src", &mut sources);
    assert!(sources.contains_key("src/lib.rs") && sources.len() > 20);
    let found = violations(&sources);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn read_folder(root: &Path, folder: &str, sources: &mut Sources) {
    for entry in fs::read_dir(root.join(folder)).expect("a folder") {
        let entry = entry.expect("an entry");
        let path = format!(
            "{folder}/{}",
            entry.file_name().to_str().expect("a plain name")
        );
        if entry.file_type().expect("a type").is_dir() {
            read_folder(root, &path, sources);
        } else if path.to_ascii_lowercase().ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).expect("UTF-8");
            sources.insert(path, text);
        }
    }
}

/// Everything in which the sources depart from the rules, one sentence each.
fn violations(sources: &Sources) -> Vec<String> {
    let modules: BTreeSet<String> = sources.keys().map(|path| module_of(path)).collect();
    let root = re_exports(sources, &modules);
    let mut found = Vec::new();
    let mut edges = BTreeSet::new();
    for (path, text) in sources {
        if !text.starts_with("//!") {
            found.push(format!("{path} does not begin with //!"));
        }
        found.extend(composed(path, text));
        let module = module_of(path);
        let (inside, outside) = references(text, &module, &modules);
        found.extend(
            outside
                .iter()
                .filter_map(|reference| banned(path, reference)),
        );
        if path == "src/lib.rs" {
            continue;
        }
        let Some(from) = unit_of_file(&module) else {
            found.push(format!("{path} belongs to no layer"));
            continue;
        };
        for name in inside {
            let name = root.get(&name.path[0]).unwrap_or(&name.path).join("::");
            match unit_of(&name) {
                Some(to) => {
                    found.extend(layering(path, from, to));
                    edges.insert((module.clone(), name));
                }
                None => found.push(format!(
                    "{path} uses crate::{name}, which belongs to no layer"
                )),
            }
        }
    }
    found.extend(cycles(&edges));
    found
}

/// What the root gives a name of its own: whoever uses the name uses the module behind it.
fn re_exports(sources: &Sources, modules: &BTreeSet<String>) -> BTreeMap<String, Vec<String>> {
    let text = sources.get("src/lib.rs").map_or("", String::as_str);
    let named = references(text, "", modules)
        .0
        .into_iter()
        .filter_map(|reference| {
            let last = reference.path.last()?.clone();
            let name = reference.alias.unwrap_or(last);
            (!modules.contains(&name)).then_some((name, reference.path))
        });
    named.collect()
}

/// `src/store/mod.rs` is `store`, `src/lib.rs` is the empty name.
fn module_of(path: &str) -> String {
    let name = path.trim_start_matches("src/").trim_end_matches(".rs");
    let name = name.strip_suffix("/mod").unwrap_or(name);
    if name == "lib" {
        String::new()
    } else {
        name.replace('/', "::")
    }
}

/// The entry of [`LAYERS`] that decides about a module or about something in it.
fn unit_of(name: &str) -> Option<(usize, &'static str)> {
    let fits = |unit: &&&str| name == **unit || name.starts_with(&format!("{unit}::"));
    let layers = LAYERS.iter().enumerate();
    let units = layers.flat_map(|(n, units)| units.iter().filter(fits).map(move |unit| (n, *unit)));
    let (layer, unit) = units.max_by_key(|(_, unit)| unit.len())?;
    // Below a split module a child module must be named; types and functions begin otherwise.
    let rest = name[unit.len()..].trim_start_matches("::");
    let is_child = rest.starts_with(|c: char| c.is_ascii_lowercase()) && rest.contains("::");
    (!(SPLIT.contains(&unit) && is_child)).then_some((layer, unit))
}

/// As [`unit_of`], for a module that has a file: below a split module it must be named.
fn unit_of_file(module: &str) -> Option<(usize, &'static str)> {
    unit_of(module).filter(|(_, unit)| module == *unit || !SPLIT.contains(unit))
}

fn layering(path: &str, from: (usize, &str), to: (usize, &str)) -> Option<String> {
    if to.0 > from.0 {
        return Some(format!(
            "{path} (layer {}) uses {} of layer {}",
            from.0, to.1, to.0
        ));
    }
    let both_use_cases = from.0 == USE_CASES && to.0 == USE_CASES;
    (both_use_cases && from.1 != to.1 && !SHARED_USE_CASES.contains(&to.1)).then(|| {
        format!(
            "{path} uses the use case {}, which is not a shared one",
            to.1
        )
    })
}

fn banned(path: &str, reference: &Reference) -> Option<String> {
    let names = &reference.path;
    if let Some(alias) = &reference.alias {
        let last = names.last().map_or("", String::as_str);
        if NEVER_RENAMED.contains(&last) {
            return Some(format!("{path} renames {last} to {alias}"));
        }
    }
    let (ban, _) = BANS.iter().find(|(ban, allowed)| {
        *allowed != path
            && names.len() > 1
            && names
                .windows(ban.len())
                .any(|part| part.iter().eq(ban.iter()))
    })?;
    Some(format!("{path} uses {}", ban.join("::")))
}

/// Clock and chance are handed to whoever needs them; tests inside a module may take the real ones.
fn composed(path: &str, text: &str) -> Option<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let name = lines.find_map(|line| SYSTEM.into_iter().find(|name| line.contains(name)))?;
    (!COMPOSERS.contains(&path)).then(|| format!("{path} brings in {name} by itself"))
}

/// Cycles between units of one layer, and between the children of one module. What a module and its
/// own children know of each other is their own affair.
fn cycles(edges: &BTreeSet<(String, String)>) -> Vec<String> {
    let mut graphs: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let mut add = |graph: String, from: &str, to: &str| {
        let graph = graphs.entry(graph).or_default();
        graph
            .entry(from.to_owned())
            .or_default()
            .insert(to.to_owned());
    };
    for (from, to) in edges {
        let (Some((_, from_unit)), Some((_, to_unit))) = (unit_of(from), unit_of(to)) else {
            continue;
        };
        if from_unit != to_unit {
            add(String::new(), from_unit, to_unit);
            continue;
        }
        let mut parent = String::new();
        for (a, b) in from.split("::").zip(to.split("::")) {
            if a != b {
                add(parent.clone(), a, b);
                break;
            }
            parent = if parent.is_empty() {
                a.to_owned()
            } else {
                format!("{parent}::{a}")
            };
        }
    }
    let found = graphs.iter().filter_map(|(parent, graph)| {
        let cycle = graph.keys().find_map(|start| path_back(graph, start))?;
        let of = if parent.is_empty() {
            String::new()
        } else {
            format!(" in {parent}")
        };
        Some(format!("a cycle{of}: {}", cycle.join(" -> ")))
    });
    found.collect()
}

/// A way from `start` back to it.
fn path_back(graph: &BTreeMap<String, BTreeSet<String>>, start: &str) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut ways = vec![vec![start.to_owned()]];
    while let Some(way) = ways.pop() {
        let last = way.last().expect("ways are not empty");
        for next in graph.get(last).into_iter().flatten() {
            let longer = || way.iter().cloned().chain([next.clone()]).collect();
            if next == start {
                return Some(longer());
            }
            if seen.insert(next.clone()) {
                ways.push(longer());
            }
        }
    }
    None
}

/// What the checker says about these files, together with a sound crate around them.
fn said_about(files: &[(&str, &str)]) -> Vec<String> {
    let sound = [
        (
            "src/lib.rs",
            "pub mod a; pub use crate::{auth::{Auth, Builder as Maker}, sessions::Sessions};",
        ),
        (
            "src/clock.rs",
            "use std::time::{Instant, SystemTime}; fn f() { Instant::now(); SystemTime::now(); }",
        ),
        ("src/entropy.rs", "fn f() { aws_lc_rs::rand::fill(); }"),
        (
            "src/store/mod.rs",
            "pub mod open; pub mod error; use crate::model::user::User;",
        ),
        ("src/model/user.rs", "use crate::clock::Timestamp;"),
        (
            "src/sessions.rs",
            "use crate::{lookup::Lookup, store::{Store, error::StoreError}};",
        ),
    ];
    let mut sources: Sources = sound
        .iter()
        .map(|(path, text)| ((*path).to_owned(), format!("//! Head.\n{text}")))
        .collect();
    assert_eq!(
        violations(&sources),
        Vec::<String>::new(),
        "the frame is sound"
    );
    for (path, text) in files {
        sources.insert((*path).to_owned(), format!("//! Head.\n{text}"));
    }
    violations(&sources)
}

#[test]
fn planted_upward_imports_are_found_wherever_they_stand() {
    for (path, text, expected) in [
        ("src/ids.rs", "use crate::auth::Auth;", "auth of layer 4"),
        (
            "src/ids.rs",
            "use crate::{clock::Clock, http};",
            "http of layer 6",
        ),
        (
            "src/ids.rs",
            "use crate::{clock::{self, Clock}, store::open::{open}};",
            "store::open of layer 5",
        ),
        (
            "src/ids.rs",
            "fn f() -> crate::store::StoreResult<()> { g() }",
            "store of layer 2",
        ),
        (
            "src/ids.rs",
            "fn f() { let x = vec![crate::http::guard::check(1)]; }",
            "http of layer 6",
        ),
        ("src/ids.rs", "use super::server::run;", "server of layer 8"),
        (
            "src/ids.rs",
            "mod tests { use super::super::cli::Cli; }",
            "cli of layer 8",
        ),
        (
            "src/ids.rs",
            "macro_rules! m { () => { $crate::config::load() } }",
            "config of layer 7",
        ),
        ("src/ids.rs", "use crate::Auth;", "auth of layer 4"),
        ("src/ids.rs", "use crate::Maker;", "auth of layer 4"),
        (
            "src/store/error.rs",
            "use super::open::open;",
            "store::open of layer 5",
        ),
        (
            "src/store/mod.rs",
            "mod open; fn f() { open::open() }",
            "store::open of layer 5",
        ),
        (
            "src/store/mod.rs",
            "use self::sqlite::Conn;",
            "store::sqlite of layer 5",
        ),
        (
            "src/auth.rs",
            "use crate::store::postgres::PostgresStore as P;",
            "store::postgres of layer 5",
        ),
        (
            "src/http/guard.rs",
            "pub(in crate::server) fn f() {}",
            "server of layer 8",
        ),
        (
            "src/sessions/login.rs",
            "use crate::auth::*;",
            "auth of layer 4",
        ),
    ] {
        let mut files = vec![(path, text)];
        if path != "src/store/open.rs" {
            files.push(("src/store/open.rs", "fn open() {}"));
        }
        let said = said_about(&files);
        assert_eq!(said.len(), 1, "{text}: {said:?}");
        assert!(
            said[0].starts_with(path) && said[0].ends_with(expected),
            "{text}: {said:?}"
        );
    }
}

#[test]
fn planted_use_case_imports_cycles_and_strays_are_found() {
    for (files, expected) in [
        (
            vec![("src/accounts.rs", "use crate::sessions::Sessions;")],
            "src/accounts.rs uses the use case sessions, which is not a shared one",
        ),
        (
            vec![
                ("src/email.rs", "use crate::ids::X;"),
                ("src/ids.rs", "use crate::email::Y;"),
            ],
            "a cycle: email -> ids -> email",
        ),
        (
            vec![
                ("src/passwords.rs", "use crate::tokens::T;"),
                ("src/tokens.rs", "use crate::lookup::L;"),
                ("src/lookup.rs", "use crate::passwords::P;"),
            ],
            "a cycle: lookup -> passwords -> tokens -> lookup",
        ),
        (
            vec![
                ("src/model/user.rs", "use super::session::S;"),
                ("src/model/session.rs", "use crate::model::user::U;"),
            ],
            "a cycle in model: session -> user -> session",
        ),
        (vec![("src/util.rs", "")], "src/util.rs belongs to no layer"),
        (
            vec![("src/store/cache.rs", "")],
            "src/store/cache.rs belongs to no layer",
        ),
        (
            vec![("src/auth.rs", "use crate::util::trim;")],
            "src/auth.rs uses crate::util::trim, which belongs to no layer",
        ),
    ] {
        assert_eq!(said_about(&files), [expected], "{files:?}");
    }
    let headless = Sources::from([("src/ids.rs".to_owned(), "use std::fmt;".to_owned())]);
    assert_eq!(
        violations(&headless),
        ["src/ids.rs does not begin with //!"]
    );
}

/// ASVS 1.2.5.
#[test]
fn planted_clocks_chance_and_programs_are_found() {
    for (text, expected) in [
        ("fn f() { chrono::Utc::now(); }", "uses Utc::now"),
        (
            "use chrono::Utc; fn f() { Utc :: now ( ) ; }",
            "uses Utc::now",
        ),
        (
            "fn f() { std::time::SystemTime::now(); }",
            "uses SystemTime::now",
        ),
        (
            "fn f() { tokio::time::Instant::now(); }",
            "uses Instant::now",
        ),
        (
            "const F: fn() -> Instant = Instant::now;",
            "uses Instant::now",
        ),
        (
            "use std::time::Instant as Stopwatch;",
            "renames Instant to Stopwatch",
        ),
        (
            "use std::{fmt, time::{Duration, SystemTime as T}};",
            "renames SystemTime to T",
        ),
        ("use rand::Rng;", "uses rand"),
        ("fn f() { aws_lc_rs::rand::fill(&mut b); }", "uses rand"),
        ("use rand_core::OsRng;", "uses OsRng"),
        (
            "fn f() { let id = uuid::Uuid::new_v4(); }",
            "uses Uuid::new_v4",
        ),
        ("use std::process::Command;", "uses std::process::Command"),
        (
            "use std::{io, process::{Command, ExitCode}};",
            "uses std::process::Command",
        ),
        (
            "fn f() { std::process::Command::new(\"ls\"); }",
            "uses std::process::Command",
        ),
        ("use tokio::process::Command;", "uses tokio::process"),
    ] {
        let said = said_about(&[("src/http/mod.rs", text)]);
        assert_eq!(said, [format!("src/http/mod.rs {expected}")], "{text}");
    }
}

#[test]
fn planted_real_clocks_and_chance_are_found() {
    let planted = "use crate::entropy::SystemEntropy;";
    assert_eq!(
        said_about(&[("src/sessions.rs", planted)]),
        ["src/sessions.rs brings in SystemEntropy by itself"]
    );
    let in_tests = "#[cfg(test)] mod tests { use crate::entropy::SystemEntropy; }";
    for (path, text) in [("src/server.rs", planted), ("src/sessions.rs", in_tests)] {
        assert_eq!(said_about(&[(path, text)]), Vec::<String>::new());
    }
}

#[test]
fn what_only_looks_like_a_violation_is_left_alone() {
    let text = r##"
        // use crate::server::run;
        /* use crate::server; /* Utc::now() */ use crate::cli; */
        /// [`crate::server`] and `Instant::now()`
        const A: &str = "use crate::server::run; \" Utc::now()";
        const B: &str = r#"crate::server::run() "quoted" "#;
        const C: &[u8] = br"crate::cli::x";
        const D: char = '"'; const E: char = '\''; const F: u8 = b'"';
        fn f<'a>(x: &'a str) -> &'a str { self::g(); Self::h(); x }
        fn operand(rand: u8) -> u8 { rand }
        pub(crate) fn g() {}
        use crate::clock::{self, Clock as Time};
        use std::process::{ExitCode, exit};
        impl crate::secret::Secret for X { type Y = <Self as crate::email::Z>::Y; }
    "##;
    assert_eq!(said_about(&[("src/ids.rs", text)]), Vec::<String>::new());
}

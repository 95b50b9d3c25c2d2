//! Prometheus beside Doorward: what `/metrics` shows is what it reads, and `examples/monitoring` and the README name no
//! metric that there is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    process::{Command, Stdio},
};

use doorward::{auth::canary::CanaryPolicy, http::ApiOptions};
use serde_json::Value;

use super::{installed, repository, run};
use crate::harness::{
    app::{App, Setup},
    backend::{Backend, Database},
};

/// What a node shows that has done a little of everything.
async fn live() -> String {
    let setup = Setup {
        api: ApiOptions {
            metrics: true,
            ..ApiOptions::default()
        },
        canary: CanaryPolicy::off(),
        ..Setup::default()
    };
    let app = App::with(Database::fresh(Backend::Sqlite).await, setup).await;
    let ann = app.user("ann@example.org").await;
    ann.me().await.expect(200);
    let auth = &app.nodes[0].auth;
    auth.observe().await.expect("observed");
    auth.release_canary().await;
    ann.get("/metrics").await.text
}

/// The metrics by name, with their type.
fn types(text: &str) -> BTreeMap<&str, &str> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types
        .map(|line| line.split_once(' ').expect("a name and a type"))
        .collect()
}

/// The names that samples have: those of a histogram are three.
fn samples(text: &str) -> BTreeSet<String> {
    let names = types(text).into_iter().flat_map(|(name, kind)| {
        let endings: &[&str] = if kind == "histogram" {
            &["_bucket", "_sum", "_count"]
        } else {
            &[""]
        };
        endings.iter().map(move |ending| format!("{name}{ending}"))
    });
    names.collect()
}

/// The words of a text that look like metrics of ours.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("doorward_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

fn example(name: &str) -> String {
    fs::read_to_string(repository("examples/monitoring").join(name)).expect(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_no_fault_with_what_is_shown() {
    let text = live().await;
    let mut child = Command::new(installed("DOORWARD_TEST_PROMTOOL"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("read");
    drop(input);
    let done = child.wait_with_output().expect("ended");
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        done.status.success() && said.trim().is_empty(),
        "{said}\n{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_alerts_are_rules_and_fire_when_they_should() {
    for arguments in [
        ["check", "rules", "alerts.yaml"],
        ["test", "rules", "alerts_test.yaml"],
        ["check", "config", "prometheus.yaml"],
    ] {
        let mut command = Command::new(installed("DOORWARD_TEST_PROMTOOL"));
        command
            .args(arguments)
            .current_dir(repository("examples/monitoring"));
        run(command).await;
    }
    // Each says what to do, and each is tried.
    let alerts = example("alerts.yaml");
    let tests = example("alerts_test.yaml");
    let names = alerts
        .lines()
        .filter_map(|l| l.trim().strip_prefix("- alert: "));
    let names: Vec<&str> = names.collect();
    assert_eq!(alerts.matches("runbook:").count(), names.len());
    for name in names {
        assert!(tests.contains(&format!("alertname: {name}")), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dashboard_alerts_and_readme_name_what_there_is() {
    let text = live().await;
    let there = samples(&text);
    for file in ["dashboard.json", "alerts.yaml", "alerts_test.yaml"] {
        let named = named(&example(file));
        let missing: Vec<_> = named.difference(&there).collect();
        assert!(
            !named.is_empty() && missing.is_empty(),
            "{file}: {missing:?}"
        );
    }
    let dashboard: Value = serde_json::from_str(&example("dashboard.json")).expect("JSON");
    assert!(
        dashboard["schemaVersion"].as_u64() >= Some(38),
        "Grafana 10"
    );
    let readme = include_str!("../../README.md");
    let start = readme.find("| metric | type |").expect("the table");
    let rows = readme[start..].lines().skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let table: BTreeMap<&str, &str> = rows
        .map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
            cells.next();
            let name = cells.next().expect("a name");
            (
                name.split('{').next().unwrap_or(name),
                cells.next().expect("a type"),
            )
        })
        .collect();
    assert_eq!(table, types(&text));
}

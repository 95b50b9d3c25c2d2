//! `doorward doctor`: what in this deployment breaks or weakens the promises, one sentence each.
//!
//! Decides the order in which things are looked at, how they are told, and the exit code: 1 where something is red that
//! `doctor.ignore` does not name. What is looked at is for [`crate::doctor`].

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Failure, Say};
use crate::{
    config::Settings,
    doctor,
    finding::{Check, Finding, Level},
    server,
    store::{open::open, settings::Backend},
};

/// Looks at everything. Nothing is changed but that SQLite may tidy up its log.
pub(super) async fn examine(settings: &Settings, say: Say) -> Result<(), Failure> {
    let mut found = doctor::of_settings(settings);
    found.extend(server::certificate(settings));
    let told = doctor::of_database(settings).await;
    found.extend(contents(settings, told.is_some()).await);
    found.extend(told.into_iter().flatten());
    found.extend(doctor::of_others(settings).await);
    found.sort_by_key(|one| one.name);
    say.text(words(settings, &found), value(settings, &found))?;
    let red: Vec<&str> = found
        .iter()
        .filter(|one| one.level == Level::Red && !settings.doctor.ignores(one))
        .map(|one| one.name.as_str())
        .collect();
    if red.is_empty() {
        return Ok(());
    }
    Err(Failure(format!("red: {}", red.join(", "))))
}

/// What can be said once the database is open. A file that is not there yet is not made.
async fn contents(settings: &Settings, told: bool) -> Vec<Finding> {
    let name = Check::Reachable;
    let database = &settings.database;
    if database.backend == Backend::Sqlite && !database.sqlite.path.exists() {
        let says = "there is no database file yet; `serve` or `doorward migrate` makes it";
        return vec![Finding::yellow(name, says)];
    }
    let opened = match open(database).await {
        Ok(opened) => opened,
        Err(why) => return vec![doctor::unreachable(&why)],
    };
    let clocks = server::compare_clocks(opened.store.time()).await;
    let mut found = doctor::of_contents(settings, &opened, clocks).await;
    let backend = database.backend;
    found.push(if told {
        Finding::green(name, format!("{backend} answers"))
    } else {
        let says = format!(
            "{backend} answers, but not when asked about its settings; check the rights of its user"
        );
        Finding::yellow(name, says)
    });
    opened.store.close().await;
    found
}

fn words(settings: &Settings, found: &[Finding]) -> String {
    let width = found.iter().map(|one| one.name.as_str().len()).max();
    let width = width.unwrap_or_default();
    let mut text = String::new();
    for one in found {
        let (level, name) = (one.level.as_str(), one.name.as_str());
        let ignored = if settings.doctor.ignores(one) && one.level != Level::Green {
            " (ignored)"
        } else {
            ""
        };
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{level:<6}  {name:<width$}  {}{ignored}", one.says);
    }
    let [green, yellow, red] = counted(found);
    let _ = write!(text, "{red} red, {yellow} yellow, {green} green");
    text
}

fn value(settings: &Settings, found: &[Finding]) -> Value {
    let [green, yellow, red] = counted(found);
    let told = found.iter().map(|one| {
        let ignored = settings.doctor.ignores(one);
        json!({ "name": one.name, "level": one.level, "says": one.says, "ignored": ignored })
    });
    let findings: Vec<Value> = told.collect();
    json!({ "red": red, "yellow": yellow, "green": green, "findings": findings })
}

fn counted(found: &[Finding]) -> [usize; 3] {
    let of = |level| found.iter().filter(|one| one.level == level).count();
    [Level::Green, Level::Yellow, Level::Red].map(of)
}

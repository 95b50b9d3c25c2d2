//! `doorward doctor`: proves that a deployment keeps the promises of the README, or says which it does not and why.
//!
//! Decides what is looked at besides what each database tells of itself, and how bad it is in which environment. What is
//! cheap is looked at by `serve` as well, before it serves; what asks others (mail server, breach service) only on
//! demand. Looking changes nothing. What a finding is, and which of them stop a start, is for [`crate::finding`].

mod network;
mod others;
mod secrets;

use std::time::Duration;

use tokio::time::timeout;

pub use self::others::of_others;
use crate::{
    clock::Timestamp,
    config::{Environment, Settings},
    finding::{Check, Finding, Level},
    model::user::ADMIN,
    setting::BadSetting,
    store::{
        Migrations, Store, StoreResult, UserFilter,
        moving::Moving,
        open::{Opened, examine},
        settings::Backend,
    },
};

/// How long a start waits for what the database tells of itself.
const PATIENCE: Duration = Duration::from_secs(5);
/// Milliseconds between two clocks from which on it is worth a word, and too much.
const NOTICEABLE: i64 = 500;
const TOO_MUCH: i64 = 2000;

/// What the settings and the files that they name say. Nobody is asked.
#[must_use]
pub fn of_settings(settings: &Settings) -> Vec<Finding> {
    let mut found = vec![match settings.check() {
        Ok(()) => Finding::green(Check::Settings, "they hold together"),
        Err(bad) => Finding::red(Check::Settings, bad.to_string()),
    }];
    found.extend(secrets::findings(settings));
    found.extend(network::findings(settings));
    found.push(others::transport(settings));
    found
}

/// What the database tells of itself, before it is opened; none where it does not answer in time. Why, whoever opens it
/// is told.
pub async fn of_database(settings: &Settings) -> Option<Vec<Finding>> {
    let asked = timeout(PATIENCE, examine(&settings.database)).await;
    asked.ok()?.ok()
}

/// What is to be said of an open database: its schema, its clock, its people. `clocks` are this machine's time and the
/// database's, and how long it took to ask.
pub async fn of_contents(
    settings: &Settings,
    opened: &Opened,
    clocks: StoreResult<(Timestamp, Timestamp, Duration)>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Ok((here, there, took)) = clocks {
        found.push(clock(here, there, took));
    }
    found.push(transfer(&*opened.moving).await);
    let schema = migrations(settings, &*opened.migrations).await;
    let current = schema.level == Level::Green;
    found.push(schema);
    if current {
        found.push(administrator(&*opened.store).await);
    }
    found
}

/// The database did not open.
#[must_use]
pub fn unreachable(why: &BadSetting) -> Finding {
    Finding::red(Check::Reachable, why.to_string())
}

/// How far this machine's clock is from the database's. Half of the time that asking took may be on either way.
#[must_use]
pub fn clock(here: Timestamp, there: Timestamp, took: Duration) -> Finding {
    let took = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
    let apart = (here.as_millis() - there.as_millis()).abs();
    let surely = (apart - took).max(0);
    let name = Check::Clock;
    if surely <= NOTICEABLE {
        return Finding::green(name, "this machine's clock agrees with the database's");
    }
    let says = format!(
        "this machine's clock is {apart} ms from the database's; Doorward goes by the database's, but certificates, cookies \
         and logs do not; let NTP set both"
    );
    let level = if surely > TOO_MUCH {
        Level::Red
    } else {
        Level::Yellow
    };
    Finding::new(name, level, says)
}

async fn transfer(moving: &dyn Moving) -> Finding {
    let name = Check::Transfer;
    match moving.unfinished().await {
        Ok(None) => Finding::green(name, "nothing was left half moved"),
        Ok(Some(_)) => Finding::red(
            name,
            "the database is the target of a transfer that has not ended; run the same `doorward transfer` again, or name \
             another database",
        ),
        Err(_) => Finding::red(
            name,
            "the database cannot be read; check the rights of its user",
        ),
    }
}

async fn migrations(settings: &Settings, migrations: &dyn Migrations) -> Finding {
    let name = Check::Migrations;
    let Ok(pending) = migrations.pending().await else {
        let says = "the schema cannot be read; check the rights of the database's user";
        return Finding::red(name, says);
    };
    if pending.is_empty() {
        return Finding::green(name, "the schema is that of this version");
    }
    let lacks = format!("the database lacks {}", pending.join(", "));
    if applied_by_serve(settings) {
        return Finding::yellow(name, format!("{lacks}; `serve` applies what is missing"));
    }
    let says = format!("{lacks}: `serve` does not start; run `doorward migrate`");
    Finding::red(name, says)
}

/// Whether `serve` brings the schema up to date by itself.
#[must_use]
pub fn applied_by_serve(settings: &Settings) -> bool {
    let by_itself = settings.environment == Environment::Development
        && settings.database.backend == Backend::Sqlite;
    by_itself || settings.database.auto_migrate
}

async fn administrator(store: &dyn Store) -> Finding {
    let name = Check::Administrator;
    let filter = UserFilter {
        active: Some(true),
        role: Some(ADMIN.to_owned()),
        limit: 1,
        ..UserFilter::default()
    };
    match store.list_users(&filter).await {
        Ok(found) if !found.is_empty() => Finding::green(name, "somebody has the role admin"),
        Ok(_) => Finding::yellow(
            name,
            "nobody active has the role admin, so nobody may be able to revoke from outside; run `doorward admin create`",
        ),
        Err(_) => Finding::red(
            name,
            "users cannot be read; check the rights of the database's user",
        ),
    }
}

/// Nobody is served in earnest elsewhere than in production.
fn in_earnest(settings: &Settings) -> bool {
    settings.environment == Environment::Production
}

/// Red in production, yellow elsewhere.
fn grave(settings: &Settings) -> Level {
    if in_earnest(settings) {
        Level::Red
    } else {
        Level::Yellow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_told_by_how_much_is_sure() {
        let at = Timestamp::from_millis;
        for (here, there, took, level) in [
            (0, 0, 0, Level::Green),
            (500, 0, 0, Level::Green),
            (501, 0, 0, Level::Yellow),
            (0, 501, 0, Level::Yellow),
            (2000, 0, 0, Level::Yellow),
            (2001, 0, 0, Level::Red),
            (0, 2001, 0, Level::Red),
            // An answer that took long says little.
            (2001, 0, 1501, Level::Green),
            (4000, 0, 1501, Level::Red),
        ] {
            let found = clock(at(here), at(there), Duration::from_millis(took));
            assert_eq!(found.level, level, "{here} {there} {took}");
        }
    }
}

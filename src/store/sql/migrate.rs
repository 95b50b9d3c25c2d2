//! Schema changes, by diesel's own harness.

use std::{collections::HashSet, time::Duration};

use diesel::migration::MigrationSource;
use diesel_migrations::MigrationHarness;

use super::{Backend, MIGRATIONS};
use crate::store::{StoreError, StoreResult};

/// How long one waits for another process that migrates, and for whoever else holds a lock.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(90);

type Trouble = Box<dyn std::error::Error + Send + Sync>;

#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that map_err wants"
)]
fn failed(error: Trouble) -> StoreError {
    StoreError::Driver(format!("migration: {error}"))
}

pub(super) fn pending(harness: &mut impl MigrationHarness<Backend>) -> StoreResult<Vec<String>> {
    let applied = harness.applied_migrations().map_err(|error| {
        // The first question that a fresh start asks: most likely the database is not there.
        StoreError::Unavailable(error.to_string())
    })?;
    missing(&applied.iter().map(ToString::to_string).collect())
}

/// The changes that are not among these versions, in the order in which they are to be made.
pub(super) fn missing(applied: &HashSet<String>) -> StoreResult<Vec<String>> {
    let known = MigrationSource::<Backend>::migrations(&MIGRATIONS).map_err(failed)?;
    let names = known.iter().map(|migration| migration.name());
    let mut missing: Vec<String> = names
        .filter(|name| !applied.contains(&name.version().to_string()))
        .map(ToString::to_string)
        .collect();
    missing.sort();
    Ok(missing)
}

pub(super) fn apply(harness: &mut impl MigrationHarness<Backend>) -> StoreResult<Vec<String>> {
    let names = pending(harness)?;
    harness.run_pending_migrations(MIGRATIONS).map_err(failed)?;
    Ok(names)
}

pub(super) fn revert(
    harness: &mut impl MigrationHarness<Backend>,
    n: usize,
) -> StoreResult<Vec<String>> {
    let known = MigrationSource::<Backend>::migrations(&MIGRATIONS).map_err(failed)?;
    let named: Vec<_> = known
        .iter()
        .map(|migration| (migration.name().version(), migration.name().to_string()))
        .collect();
    let mut reverted = Vec::new();
    for _ in 0..n {
        if harness.applied_migrations().map_err(failed)?.is_empty() {
            break;
        }
        let version = harness.revert_last_migration(MIGRATIONS).map_err(failed)?;
        let name = named
            .iter()
            .find(|(known, _)| *known == version)
            .map(|(_, name)| name.clone());
        reverted.push(name.unwrap_or_else(|| version.to_string()));
    }
    Ok(reverted)
}

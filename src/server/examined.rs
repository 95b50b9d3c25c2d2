//! What `serve` looks at before it serves.
//!
//! Decides nothing but that what is red stops the start, that what an operator has set aside is warned of each time, and
//! that production hears of what is yellow. What is looked at is for [`crate::doctor`]; what the start itself refuses,
//! settings first of all, it says in its own words.

use crate::{
    auth::Auth,
    config::{Environment, Settings},
    doctor,
    finding::{Finding, Level},
    setting::BadSetting,
};

/// What was seen before the database was opened.
pub(super) struct Seen {
    found: Vec<Finding>,
    /// Whether the database gave its own word.
    answered: bool,
}

/// Settings and the database's own word, before it is opened.
pub(super) async fn before_opening(settings: &Settings) -> Result<Seen, BadSetting> {
    let mut found = doctor::of_settings(settings);
    found.retain(|one| !one.name.is_lasting());
    let told = doctor::of_database(settings).await;
    let answered = told.is_some();
    found.extend(told.into_iter().flatten());
    settings.doctor.judge(&found)?;
    Ok(Seen { found, answered })
}

/// This machine's clock by that of the database, which is open by now; then the log hears of everything.
pub(super) async fn after_opening(
    settings: &Settings,
    auth: &Auth,
    seen: Seen,
) -> Result<(), BadSetting> {
    let mut found = seen.found;
    // A database that has gone away meanwhile stops no node.
    if let Ok((here, there, took)) = super::compare_clocks(auth.database_time()).await {
        found.push(doctor::clock(here, there, took));
    }
    settings.doctor.judge(&found)?;
    if !seen.answered {
        tracing::warn!("the database did not answer when it was asked about its settings");
    }
    for one in &found {
        warn(settings, one);
    }
    Ok(())
}

fn warn(settings: &Settings, one: &Finding) {
    let in_earnest = settings.environment == Environment::Production;
    let (finding, says) = (one.name.as_str(), one.says.as_str());
    match (one.level, settings.doctor.ignores(one)) {
        (Level::Red, _) => {
            tracing::warn!(finding, says, "doctor.ignore sets aside what is red");
        }
        (Level::Yellow, false) if in_earnest => {
            tracing::warn!(finding, says, "the doctor says");
        }
        _ => {}
    }
}

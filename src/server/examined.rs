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

/// Settings and the database's own word, before it is opened. Answers whether it gave that.
pub(super) async fn before_opening(settings: &Settings) -> Result<bool, BadSetting> {
    let mut found = doctor::of_settings(settings);
    found.retain(|one| !one.name.is_lasting());
    let told = doctor::of_database(settings).await;
    let answered = told.is_some();
    found.extend(told.into_iter().flatten());
    judge(settings, &found)?;
    Ok(answered)
}

/// This machine's clock by that of the database, which is open by now.
pub(super) async fn after_opening(
    settings: &Settings,
    auth: &Auth,
    answered: bool,
) -> Result<(), BadSetting> {
    if !answered {
        tracing::warn!("the database did not answer when it was asked about its settings");
    }
    let compared = super::compare_clocks(auth.database_time()).await;
    // A database that has gone away meanwhile stops no node.
    let Ok((here, there, took)) = compared else {
        return Ok(());
    };
    judge(settings, &[doctor::clock(here, there, took)])
}

fn judge(settings: &Settings, found: &[Finding]) -> Result<(), BadSetting> {
    settings.doctor.judge(found)?;
    let in_earnest = settings.environment == Environment::Production;
    for one in found {
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
    Ok(())
}

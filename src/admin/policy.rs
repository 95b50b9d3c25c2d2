//! How fresh a login has to be for the gravest acts.
//!
//! Decides whether one is; which acts are as grave is decided where they are made, and at the edge by type.

use serde::{Deserialize, Serialize};

use super::Admin;
use crate::{
    clock::{Span, Timestamp},
    error::{AuthError, AuthResult},
    roles::Actor,
    setting::BadSetting,
};

/// `[admin]`: what administrators' acts take.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminPolicy {
    /// How long after a login, or after giving the password again, the gravest acts are allowed; 0 for as
    /// long as the session lasts. Default 15 min.
    pub step_up: Span,
}

impl Default for AdminPolicy {
    fn default() -> Self {
        Self {
            step_up: Span::minutes(15),
        }
    }
}

impl AdminPolicy {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        let is_off = self.step_up == Span::secs(0);
        if is_off || (Span::minutes(1)..=Span::days(365)).contains(&self.step_up) {
            return Ok(());
        }
        Err(BadSetting::new(
            "admin.step_up",
            format!("{} is neither 0s nor 1m to 365d", self.step_up),
            "set it to 15m",
        ))
    }
}

impl Admin {
    /// Refuses whoever proved who they are longer ago than `admin.step_up` (ASVS 7.5.3).
    ///
    /// # Errors
    /// [`AuthError::ReauthRequired`].
    pub fn require_fresh(&self, by: Actor<'_>) -> AuthResult<()> {
        let is_fresh = |at: Timestamp| self.clock.now() <= at.plus(self.policy.step_up);
        match by {
            Actor::User {
                authenticated_at, ..
            } if self.policy.step_up != Span::secs(0) && !is_fresh(authenticated_at) => {
                Err(AuthError::ReauthRequired)
            }
            _ => Ok(()),
        }
    }
}

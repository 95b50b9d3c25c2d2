//! `[audit]`.

use serde::{Deserialize, Serialize};

use crate::{
    clock::Span, model::audit::keys::AuditSecret, secret::SecretString, setting::BadSetting,
};

/// `[audit]`: what is recorded, with which key, and for how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditPolicy {
    /// Whether security events are recorded. Default true.
    pub enabled: bool,
    /// 32 random bytes in base64 that seals and the encryption of personal details are derived from; empty
    /// (default) for those of the key file.
    pub key: SecretString,
    /// A file that holds `key`, in its place.
    pub key_file: String,
    /// How long records are kept; only sealed ones are removed. Default 365d.
    pub keep: Span,
    /// How often new records are sealed; `0s` for never by this node. Default 10s.
    pub seal_every: Span,
}

impl Default for AuditPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            key: SecretString::default(),
            key_file: String::new(),
            keep: Span::days(365),
            seal_every: Span::secs(10),
        }
    }
}

impl AuditPolicy {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        self.secret()?;
        if self.keep < Span::days(1) || self.keep > Span::days(36_500) {
            return Err(BadSetting::new(
                "audit.keep",
                format!("{} is not between 1d and a hundred years", self.keep),
                "set it to 365d",
            ));
        }
        let never = self.seal_every == Span::ZERO;
        if !never && (self.seal_every < Span::secs(1) || self.seal_every > Span::minutes(60)) {
            return Err(BadSetting::new(
                "audit.seal_every",
                format!("{} is not between 1s and 1h", self.seal_every),
                "set it to 10s; what is not sealed yet can be changed unnoticed by whoever holds the database",
            ));
        }
        Ok(())
    }

    /// The secret of [`Self::key`], if there is one.
    ///
    /// # Errors
    /// [`BadSetting`] when it is not 32 bytes in base64 (ASVS 11.2.3).
    pub fn secret(&self) -> Result<Option<AuditSecret>, BadSetting> {
        if self.key.is_empty() {
            return Ok(None);
        }
        let bytes = self.key.base64_bytes();
        let secret = bytes.and_then(|bytes| AuditSecret::new(&bytes));
        secret.map(Some).ok_or_else(|| {
            let remedy = "set 32 random bytes in base64, e.g. from `openssl rand -base64 32`";
            BadSetting::new("audit.key", "is not 32 bytes in base64", remedy)
        })
    }
}

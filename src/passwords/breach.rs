//! Passwords known from breaches elsewhere, asked of a service that does not learn which was asked about.
//!
//! Decides what the service is told (the first five hexadecimal digits of a hash, which about one in a million
//! passwords share) and what its silence means: nothing, since the compiled-in list was asked before
//! (ASVS 6.2.12, 14.2.3, 16.5.2). Off unless `passwords.breach.base_url` is set.

#[cfg(feature = "breach")]
mod service;

use serde::{Deserialize, Serialize};
use url::Url;

use super::rules::BrokenRule;
use crate::{
    clock::Span,
    secret::SecretString,
    setting::{BadSetting, is_plain_text_abroad, service_url},
};

const BASE_URL: &str = "passwords.breach.base_url";

/// `[passwords.breach]`: who is asked whether a password is known from a breach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreachSettings {
    /// What stands before the five digits in the address that is asked, e.g. `https://breaches.example/range/`;
    /// empty (default) for nobody. The answer is that of the k-anonymity range services: a line for each hash
    /// with these first digits, the rest of it in hexadecimal, a colon and how often it was seen.
    pub base_url: String,
    /// How long an answer may take, 100ms to 10s. Default 1s.
    pub timeout: Span,
}

impl Default for BreachSettings {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            timeout: Span::secs(1),
        }
    }
}

impl BreachSettings {
    /// Checks the section.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        if !(Span::millis(100)..=Span::secs(10)).contains(&self.timeout) {
            let problem = format!("{} is outside 100ms to 10s", self.timeout);
            return Err(BadSetting::new(
                "passwords.breach.timeout",
                problem,
                "set it to 1s",
            ));
        }
        if self.base_url.is_empty() {
            return Ok(());
        }
        let Some(root) = self.root() else {
            return Err(BadSetting::new(
                BASE_URL,
                "is not the URL of a service",
                "write it as https://breaches.example/range/, or leave it empty",
            ));
        };
        if is_plain_text_abroad(&root) {
            return Err(BadSetting::new(BASE_URL, "is plain text", "use https://"));
        }
        Ok(())
    }

    /// The address without the digits, if there is a plain one.
    fn root(&self) -> Option<Url> {
        service_url(&self.base_url)
    }
}

/// What is known from breaches.
#[derive(Clone)]
pub(super) struct Breaches {
    #[cfg(feature = "breach")]
    service: Option<std::sync::Arc<service::Service>>,
}

impl Breaches {
    /// A client of the service. Nobody is asked yet.
    #[cfg(feature = "breach")]
    pub(super) fn open(settings: &BreachSettings) -> Result<Self, BadSetting> {
        settings.check()?;
        let service = settings.root().map(|root| {
            let service = service::Service::new(&root, settings.timeout.to_duration());
            service.map(std::sync::Arc::new)
        });
        let service = service.transpose()?;
        Ok(Self { service })
    }

    /// Nobody to ask in this build.
    #[cfg(not(feature = "breach"))]
    pub(super) fn open(settings: &BreachSettings) -> Result<Self, BadSetting> {
        settings.check()?;
        match settings.root() {
            Some(_) => Err(BadSetting::new(
                BASE_URL,
                "is set, but this build cannot ask",
                "leave it empty, or build it with the feature `breach`",
            )),
            None => Ok(Self {}),
        }
    }

    /// Whether a password in NFC is known. No, if nobody can tell.
    pub(super) async fn know(&self, normal: &SecretString) -> bool {
        #[cfg(feature = "breach")]
        if let Some(service) = &self.service {
            return service.knows(normal).await;
        }
        let _ = normal;
        false
    }
}

/// Asks the service for any range, whether it answers; nothing where none is named.
///
/// # Errors
/// Why it does not, in a few words.
pub async fn reach(settings: &BreachSettings) -> Option<Result<(), String>> {
    #[cfg(feature = "breach")]
    match Breaches::open(settings) {
        Ok(Breaches { service }) => Some(service?.reach().await.map_err(ToOwned::to_owned)),
        Err(bad) => Some(Err(bad.to_string())),
    }
    #[cfg(not(feature = "breach"))]
    match Breaches::open(settings) {
        Ok(Breaches {}) => None,
        Err(bad) => Some(Err(bad.to_string())),
    }
}

/// The rule that a known password breaks.
pub(super) fn known() -> BrokenRule {
    let what = "is known from a breach somewhere and tried early";
    BrokenRule::new(
        "breached",
        format!("{what}; choose several unrelated words that you use nowhere else"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ASVS 12.3.1.
    #[test]
    fn a_service_is_named_by_a_plain_address_and_asked_in_secret() {
        let refused = |base_url: &str, timeout| {
            let base_url = base_url.to_owned();
            let settings = BreachSettings { base_url, timeout };
            settings.check().err().map(|bad| bad.key)
        };
        let second = Span::secs(1);
        for fine in [
            "",
            "https://breaches.example/range/",
            "https://breaches.example",
            "http://127.0.0.1:8099/range/",
            "http://[::1]:8099/",
            "http://localhost/range",
        ] {
            assert_eq!(refused(fine, second), None, "{fine}");
        }
        for bad in [
            "breaches.example",
            "ftp://breaches.example/",
            "http://breaches.example/",
            "http://10.0.0.1/range/",
            "https://user:secret@breaches.example/",
            "https://breaches.example/range?x=",
            "https://breaches.example/#range",
        ] {
            assert_eq!(refused(bad, second).as_deref(), Some(BASE_URL), "{bad}");
        }
        for timeout in [Span::millis(99), Span::secs(11)] {
            let key = refused("", timeout);
            assert_eq!(key.as_deref(), Some("passwords.breach.timeout"));
        }
    }
}

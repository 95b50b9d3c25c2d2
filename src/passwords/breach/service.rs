//! The service that knows passwords from breaches, as it is spoken to.
//!
//! Decides what is sent and what counts as an answer. Whatever else comes back, or nothing in time, is an
//! outage: it is logged when it begins and when it ends, without what was asked.

use std::{
    fmt::Write,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use reqwest::{Client, StatusCode};
use tokio::{sync::Semaphore, time::timeout};
use tracing::Instrument;
use url::Url;

use super::BASE_URL;
use crate::{
    outbound::{self, Trusted},
    secret::SecretString,
    setting::BadSetting,
    spans,
};

/// How much of the hash the service is told.
const PREFIX: usize = 5;
/// The rest of it.
const SUFFIX: usize = 35;
/// Largest answer; those of padded ranges have about 40 kB.
const LARGEST: usize = 1 << 20;
/// Questions at once; more wait, within the time that an answer may take.
const AT_ONCE: usize = 16;

/// Why there is no answer.
type Outage = &'static str;

/// A client of one service.
pub(super) struct Service {
    http: Client,
    root: String,
    limit: Duration,
    slots: Semaphore,
    is_away: AtomicBool,
}

impl Service {
    pub(super) fn new(root: &Url, limit: Duration) -> Result<Self, BadSetting> {
        let http = outbound::client(BASE_URL, root, Trusted::Public)?
            .build()
            .map_err(|_| BadSetting::new(BASE_URL, "cannot be used", "correct it"))?;
        Ok(Self {
            http,
            root: format!("{}/", root.as_str().trim_end_matches('/')),
            limit,
            slots: Semaphore::new(AT_ONCE),
            is_away: AtomicBool::new(false),
        })
    }

    /// Whether the service knows a password in NFC; no while it cannot answer.
    pub(super) async fn knows(&self, normal: &SecretString) -> bool {
        // The services are built on SHA-1 of the password. Nothing is protected by it: the hash is neither
        // stored nor sent, and no password is checked against it.
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, normal.expose().as_bytes());
        let hex = hash.as_ref().iter().fold(String::new(), |mut hex, byte| {
            // Writing to a text cannot fail.
            let _ = write!(hex, "{byte:02X}");
            hex
        });
        let (prefix, suffix) = hex.split_at(PREFIX);
        let asked = timeout(self.limit, self.ask(prefix));
        let asked = asked.instrument(spans::breach()).await;
        let answered = asked.unwrap_or(Err("no answer in time"));
        let found = answered.and_then(|range| is_in(&range, suffix));
        self.note(found.as_ref().err().copied());
        found.unwrap_or(false)
    }

    /// Whether the service answers as such services do; any range will do.
    pub(super) async fn reach(&self) -> Result<(), Outage> {
        let asked = timeout(self.limit, self.ask("00000")).await;
        let range = asked.unwrap_or(Err("no answer in time"))?;
        is_in(&range, "").map(drop)
    }

    async fn ask(&self, prefix: &str) -> Result<String, Outage> {
        let _slot = self.slots.acquire().await;
        // Padding makes ranges of one size: what was asked cannot be told from how much was answered.
        let request = self.http.get(format!("{}{prefix}", self.root));
        let request = request.header("Add-Padding", "true");
        let mut answer = request.send().await.map_err(|_| "no connection")?;
        if answer.status() != StatusCode::OK {
            return Err("another status than 200");
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|_| "the connection broke")? {
            body.extend_from_slice(&chunk);
            if body.len() > LARGEST {
                return Err("too large an answer");
            }
        }
        String::from_utf8(body).map_err(|_| "an answer of another kind")
    }

    /// Logs an outage when it begins and when it ends.
    fn note(&self, outage: Option<Outage>) {
        let is_away = outage.is_some();
        if self.is_away.swap(is_away, Ordering::Relaxed) == is_away {
            return;
        }
        if let Some(why) = outage {
            tracing::warn!(
                why,
                "the breach service cannot be asked; the built-in list has to do"
            );
        } else {
            tracing::info!("the breach service answers again");
        }
    }
}

/// Whether a range holds the rest of a hash. Lines that say "seen 0 times" are padding.
fn is_in(range: &str, suffix: &str) -> Result<bool, Outage> {
    let mut is_found = false;
    for line in range.lines() {
        let entry = line.trim_end().split_once(':');
        let entry = entry.filter(|(rest, _)| {
            rest.len() == SUFFIX && rest.bytes().all(|b| b.is_ascii_hexdigit())
        });
        let count = entry.and_then(|(rest, count)| Some((rest, count.parse::<u64>().ok()?)));
        let (rest, count) = count.ok_or("an answer of another kind")?;
        is_found |= count > 0 && rest.eq_ignore_ascii_case(suffix);
    }
    Ok(is_found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUFFIX_OF_PASSWORD: &str = "1E4C9B93F3F0682250B6CF8331B7EE68FD8";

    #[test]
    fn a_range_is_read_strictly_and_padding_is_nothing() {
        let line = |suffix: &str, count: &str| format!("{suffix}:{count}\r\n");
        let other = line(&"0".repeat(SUFFIX), "7");
        let hit = line(SUFFIX_OF_PASSWORD, "3");
        let lower = hit.to_ascii_lowercase();
        let padding = line(SUFFIX_OF_PASSWORD, "0");
        for (range, expected) in [
            (String::new(), Ok(false)),
            (other.clone(), Ok(false)),
            (format!("{other}{hit}"), Ok(true)),
            (lower, Ok(true)),
            (format!("{padding}{other}"), Ok(false)),
        ] {
            assert_eq!(is_in(&range, SUFFIX_OF_PASSWORD), expected, "{range}");
        }
        for junk in [
            "<html>",
            "1E4C:3",
            &format!("{hit}and so on"),
            &line(SUFFIX_OF_PASSWORD, "-1"),
        ] {
            assert!(is_in(junk, SUFFIX_OF_PASSWORD).is_err(), "{junk}");
        }
    }
}

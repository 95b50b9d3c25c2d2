//! Whether secrets can be guessed, read by others, or may change under what was made with them.
//!
//! Decides nothing that `serve` refuses in production by itself; here the same is said where it is let pass.

use super::grave;
use crate::{
    config::Settings,
    finding::{Check, Finding},
};

pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    let mut found = vec![token_key(settings), scrypt(settings)];
    found.extend(audit_key(settings));
    found.extend(password(settings));
    found
}

fn token_key(settings: &Settings) -> Finding {
    let name = Check::TokenKey;
    let made_later = settings.tokens.key_file.is_empty()
        && settings.key_file().is_some_and(|path| !path.exists());
    if made_later {
        return Finding::green(name, "`serve` makes a key file beside the database");
    }
    match settings.guessable_key() {
        Ok(None) => match settings.key_ring() {
            Ok(_) => Finding::green(name, "the keys of tokens are random and kept from others"),
            Err(bad) => Finding::red(name, bad.to_string()),
        },
        Ok(Some(bad)) => Finding::new(name, grave(settings), bad.to_string()),
        Err(bad) => Finding::red(name, bad.to_string()),
    }
}

/// The test environment takes lighter hashes than the other two.
fn scrypt(settings: &Settings) -> Finding {
    match settings.passwords.check(false) {
        Ok(()) => Finding::green(Check::Scrypt, "a hash costs a thief what it should"),
        Err(bad) => Finding::yellow(Check::Scrypt, bad.to_string()),
    }
}

fn audit_key(settings: &Settings) -> Option<Finding> {
    if !settings.audit.enabled {
        return None;
    }
    let name = Check::AuditKey;
    if settings.audit.key.is_empty() && !settings.tokens.key.is_empty() {
        let says = "the audit trail's keys are derived from tokens.key: once that changes, older records can be neither checked \
             nor read; set audit.key";
        return Some(Finding::yellow(name, says));
    }
    let says = "the audit trail's keys stay when those of tokens change";
    Some(Finding::green(name, says))
}

fn password(settings: &Settings) -> Option<Finding> {
    let name = Check::DatabasePassword;
    if !settings.has_sample_password()? {
        let says = "the database's password stands in no example";
        return Some(Finding::green(name, says));
    }
    let says = format!(
        "{} has a password that stands in examples; give the database's user another one, e.g. from `openssl rand -hex 24`",
        settings.database.address_key()
    );
    Some(Finding::new(name, grave(settings), says))
}

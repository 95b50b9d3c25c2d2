//! Commands on key files. A running server reads its file once: keys take effect at its next start.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Say, system::no_key_file};
use crate::{
    clock::{Clock, Span, SystemClock, Timestamp},
    config::{Settings, Sources, lock_folder_of, read_secret, replace_secret},
    entropy::SystemEntropy,
    model::client::{fresh_client, is_client_id},
    tokens::{KeyAlgorithm, keys::KeyFile},
};

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Add a fresh key; the file is made if it is missing
    New {
        /// HS256 (only Doorward checks tokens), EdDSA or ES256 (anybody can, with the public key)
        #[arg(long, default_value = "HS256", value_parser = algorithm)]
        alg: KeyAlgorithm,
        /// How long the key only checks tokens before it signs: the time to restart all nodes
        #[arg(long, value_name = "TIME", default_value = "0s")]
        sign_after: Span,
        #[command(flatten)]
        file: WhichFile,
    },
    /// Take a key out: tokens signed by it are refused from the next start on
    Retire {
        /// The key's name, as `key list` shows it
        kid: String,
        #[command(flatten)]
        file: WhichFile,
    },
    /// Make a secret for a service that may introspect and revoke tokens
    Client {
        /// How the service is called: letters, digits, `.`, `_` and `-`
        #[arg(value_parser = client_id)]
        id: String,
    },
    /// Name the keys of a file
    List {
        #[command(flatten)]
        file: WhichFile,
    },
}

#[derive(Debug, Args)]
pub(super) struct WhichFile {
    /// The key file; `tokens.key_file` by default
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl WhichFile {
    /// A file that is named needs no settings, which may not hold before there is a key.
    fn path(self, sources: &Sources) -> Result<PathBuf, Failure> {
        match self.file {
            Some(path) => Ok(path),
            None => Ok(Settings::load(sources)?
                .key_file()
                .ok_or_else(no_key_file)?),
        }
    }
}

fn client_id(text: &str) -> Result<String, String> {
    if is_client_id(text) {
        Ok(text.to_owned())
    } else {
        Err("must be 1 to 64 letters, digits, `.`, `_` or `-`".to_owned())
    }
}

fn algorithm(text: &str) -> Result<KeyAlgorithm, String> {
    KeyAlgorithm::parse(text).ok_or_else(|| "must be HS256, EdDSA or ES256".to_owned())
}

pub(super) fn obey(command: KeyCommand, sources: &Sources, say: Say) -> Result<(), Failure> {
    let now = SystemClock::new().now();
    match command {
        KeyCommand::New {
            alg,
            sign_after,
            file,
        } => new(&file.path(sources)?, alg, now, sign_after, say),
        KeyCommand::Retire { kid, file } => retire(&file.path(sources)?, &kid, now, say),
        KeyCommand::Client { id } => client(&id, say),
        KeyCommand::List { file } => list(&file.path(sources)?, now, say),
    }
}

fn new(
    path: &Path,
    alg: KeyAlgorithm,
    now: Timestamp,
    sign_after: Span,
    say: Say,
) -> Result<(), Failure> {
    let _lock = lock_folder_of(path).map_err(|e| unwritable(path, &e))?;
    let mut keys = if path.exists() {
        read(path)?
    } else {
        KeyFile::default()
    };
    // A file in which no key may sign yet would stop every login.
    let sign_from = if keys.signing(now).is_some() {
        now.plus(sign_after)
    } else {
        now
    };
    let kid = keys.add(alg, now, sign_from, &SystemEntropy)?;
    write(path, &keys)?;
    let words = format!(
        "key {kid} ({}) is in {} and signs from {sign_from}; restart every node to take it in",
        alg.as_str(),
        path.display()
    );
    let value = json!({
        "kid": kid, "alg": alg.as_str(), "sign_from": sign_from.to_string(), "file": path,
    });
    say.text(words, value)
}

/// Nothing is written down: the entry goes into the configuration, the secret to the service.
fn client(id: &str, say: Say) -> Result<(), Failure> {
    let (secret, entry) = fresh_client(id, &SystemEntropy);
    let secret = secret.expose();
    let words = format!(
        "secret of {id}, shown only now: {secret}\nfor `clients` in the configuration: \"{entry}\""
    );
    say.text(words, json!({ "id": id, "secret": secret, "entry": entry }))
}

fn retire(path: &Path, kid: &str, now: Timestamp, say: Say) -> Result<(), Failure> {
    let _lock = lock_folder_of(path).map_err(|e| unwritable(path, &e))?;
    let mut keys = read(path)?;
    if !keys.retire(kid) {
        let shown = path.display();
        return Err(Failure(format!(
            "{shown} has no key `{kid}`; `doorward key list` names them"
        )));
    }
    if keys.signing(now).is_none() {
        return Err(Failure(format!(
            "key `{kid}` is the last one that may sign; make another with `doorward key new` first"
        )));
    }
    write(path, &keys)?;
    let words = format!(
        "key {kid} is retired; tokens signed by it are refused once every node is restarted"
    );
    say.text(words, json!({ "kid": kid, "file": path }))
}

fn list(path: &Path, now: Timestamp, say: Say) -> Result<(), Failure> {
    let keys = read(path)?;
    let signing = keys.signing(now);
    let mut lines = Vec::new();
    let mut values = Vec::new();
    for key in &keys.keys {
        let sign_from = Timestamp::from(key.sign_from);
        let state = if signing == Some(key.kid.as_str()) {
            "signs"
        } else if sign_from > now {
            "waits"
        } else {
            "checks"
        };
        lines.push(format!(
            "{}  {:5}  {state:6}  from {sign_from}",
            key.kid,
            key.alg.as_str()
        ));
        values.push(json!({
            "kid": key.kid, "alg": key.alg.as_str(), "sign_from": sign_from.to_string(), "state": state,
        }));
    }
    say.text(lines.join("\n"), json!({ "keys": values }))
}

fn read(path: &Path) -> Result<KeyFile, Failure> {
    Ok(KeyFile::parse(
        read_secret("tokens.key_file", path)?.expose(),
    )?)
}

fn write(path: &Path, keys: &KeyFile) -> Result<(), Failure> {
    replace_secret(path, &keys.to_text(), &SystemEntropy).map_err(|e| unwritable(path, &e))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure(format!(
        "{} cannot be written: {error}; check its folder",
        path.display()
    ))
}

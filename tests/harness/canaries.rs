//! Every secret that a test sends or is given is a canary: it must show in no error, in no log line and in
//! nothing that is stored (ASVS 14.2.4, 16.2.5).
//!
//! Clients note what they send and get; errors are searched as they come, the database when its test is
//! over. Log lines are searched for what all secrets of a kind have in common, since they are written on
//! behalf of nobody in particular.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io,
    sync::{Arc, Mutex, Once, PoisonError},
};

use aho_corasick::AhoCorasick;
use serde_json::Value;

use super::app::PASSWORD;

/// Shorter texts may stand anywhere by chance.
const SHORTEST: usize = 12;
/// So much of a secret's end is looked for: access tokens all begin alike.
const TAIL: usize = 24;
/// Fields whose texts are secrets, wherever they stand.
const FIELDS: [&str; 8] = [
    "password",
    "current_password",
    "new_password",
    "token",
    "access_token",
    "refresh_token",
    "client_secret",
    "device_token",
];
/// How secrets begin that Doorward makes; an access token begins with its header.
const BEGINNINGS: [&str; 5] = ["dwr_", "dwl_", "dwc_", "dwd_", "eyJ0eXAi"];
/// So much of a secret follows its beginning; in prose nothing does.
const FOLLOWING: usize = 16;

/// The secrets of one test's database.
#[derive(Clone, Default)]
pub struct Canaries(Arc<Mutex<BTreeSet<String>>>);

impl Canaries {
    /// Notes all secrets in a body.
    pub fn note(&self, body: &Value) {
        let mut found = BTreeSet::new();
        collect(body, &mut found);
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.extend(found);
    }

    /// The first secret that stands in what is stored, as text or in hexadecimal.
    pub fn found_in(&self, stored: &[u8]) -> Option<String> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let secrets: Vec<&String> = noted.iter().collect();
        let tails: Vec<Vec<u8>> = secrets
            .iter()
            .flat_map(|secret| {
                let tail = &secret.as_bytes()[secret.len().saturating_sub(TAIL)..];
                [tail.to_vec(), hexadecimal(tail).into_bytes()]
            })
            .collect();
        let all = AhoCorasick::new(tails).expect("few enough secrets");
        let found = all.find(stored)?;
        Some(secrets[found.pattern().as_usize() / 2].clone())
    }

    pub fn is_empty(&self) -> bool {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.is_empty()
    }
}

fn hexadecimal(text: &[u8]) -> String {
    text.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String cannot fail");
        hex
    })
}

/// Fails if an error tells a secret of the request that it answers.
#[track_caller]
pub fn assert_not_echoed(request: &Value, status: u16, answer: &str) {
    if status < 400 {
        return;
    }
    let mut secrets = BTreeSet::new();
    collect(request, &mut secrets);
    for secret in secrets {
        assert!(
            !answer.contains(&secret),
            "{status} echoes {secret}: {answer}"
        );
    }
}

fn collect(body: &Value, found: &mut BTreeSet<String>) {
    match body {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if FIELDS.contains(&name.as_str()) => {
                        found.extend((text.len() >= SHORTEST).then(|| text.to_owned()));
                    }
                    Some(text) if name == "url" => {
                        found.extend(text.split_once("#token=").map(|(_, t)| t.to_owned()));
                    }
                    _ => collect(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

/// Lines of the log that give something away.
static LEAKS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Searches whatever the nodes of this process log from now on.
pub fn watch_logs() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = tracing_subscriber::EnvFilter::new("doorward=trace,poem=debug,warn");
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(false)
            .with_writer(|| Searching);
        // A test that watches for itself has set another one.
        let _ = tracing::subscriber::set_global_default(subscriber.finish());
    });
}

/// Fails if a secret was logged; any test's.
pub fn assert_nothing_logged() {
    let leaks = LEAKS.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(leaks.is_empty(), "secrets were logged: {leaks:#?}");
}

struct Searching;

impl io::Write for Searching {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if gives_away(&text) {
            let mut leaks = LEAKS.lock().unwrap_or_else(PoisonError::into_inner);
            leaks.push(text.into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn gives_away(line: &str) -> bool {
    let of_a_secret = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins = |beginning: &str| {
        let rest = line.split(beginning).skip(1);
        rest.into_iter()
            .any(|rest| rest.chars().take_while(|c| of_a_secret(*c)).count() >= FOLLOWING)
    };
    line.contains(PASSWORD) || line.contains("$scrypt$") || BEGINNINGS.into_iter().any(begins)
}

#[test]
fn a_secret_is_known_wherever_it_stands() {
    assert!(gives_away(
        "a login with correct horse battery staple failed"
    ));
    assert!(gives_away("refused dwr_AVN2abcdefghijklmnopqrst"));
    assert!(gives_away("hash $scrypt$ln=15"));
    assert!(!gives_away("a refresh token begins with dwr_ and so on"));
    let canaries = Canaries::default();
    let body = serde_json::json!({
        "session": {"refresh_token": "dwr_AVN2abcdefgh"},
        "link": {"url": "https://auth.example.org/set-password#token=dwl_abcdefgh"},
        "email": "ann@example.org",
    });
    canaries.note(&body);
    assert_eq!(canaries.found_in(b"nothing, ann@example.org"), None);
    let found = canaries.found_in(b"row: dwl_abcdefgh");
    assert_eq!(found.as_deref(), Some("dwl_abcdefgh"));
    assert!(
        canaries
            .found_in(b"\\x6477725f41564e326162636465666768")
            .is_some()
    );
}

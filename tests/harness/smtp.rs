//! A mail server of a test's own, which takes letters over or misbehaves as it is told.
//!
//! The server is aiosmtpd, driven by `smtp_sink.py`, which also takes the letters apart: nothing of it is
//! ours. The Python that it needs is the one that `./tests/run` has filled.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use doorward::mail::settings::{MailSettings, SmtpSettings, SmtpTls, Transport};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{authority::Authority, until};

/// How a server listens and whom it lets in.
pub struct Options {
    pub tls: SmtpTls,
    /// The name in its certificate.
    pub certificate_for: &'static str,
    /// Whether clients have to show a certificate of the same authority.
    pub wants_certificate: bool,
    /// The one user and password that may send; everybody where it is none.
    pub auth: Option<(&'static str, &'static str)>,
    /// Whether LOGIN is the only way to log in, as with Office 365.
    pub login_only: bool,
    pub rules: Vec<Rule>,
    /// What chance begins with.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: SmtpTls::None,
            certificate_for: "localhost",
            wants_certificate: false,
            auth: None,
            login_only: false,
            rules: Vec::new(),
            seed: 0,
        }
    }
}

/// When the server misbehaves.
#[derive(Debug, Clone, Copy)]
pub enum Stage {
    Connect,
    Mail,
    Rcpt,
    Data,
    /// After the whole letter.
    Content,
    Quit,
}

/// How it misbehaves.
#[derive(Debug, Clone, Copy)]
pub enum Misbehaviour {
    /// 550, or 554 to a connection.
    Refuse,
    /// 553 5.7.1, as servers say that do not like the sender.
    Policy,
    /// 451, or 421 to a connection.
    Later,
    /// Never answers. A letter at [`Stage::Content`] is taken over all the same.
    Stall,
    /// Hangs up. A letter at [`Stage::Content`] is taken over all the same.
    Drop,
    /// Takes the letter over a second later; at [`Stage::Content`] only.
    Wait,
}

impl Misbehaviour {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::Policy => "policy",
            Self::Later => "later",
            Self::Stall => "stall",
            Self::Drop => "drop",
            Self::Wait => "wait",
        }
    }
}

/// One way to misbehave; of several, the first that fits.
#[derive(Debug, Clone)]
pub struct Rule {
    stage: Stage,
    action: Misbehaviour,
    recipient: Option<String>,
    probability: f64,
}

impl Rule {
    pub fn always(stage: Stage, action: Misbehaviour) -> Self {
        Self {
            stage,
            action,
            recipient: None,
            probability: 1.0,
        }
    }

    /// Only for letters to this address; not known before [`Stage::Rcpt`].
    pub fn to(mut self, recipient: &str) -> Self {
        self.recipient = Some(recipient.to_owned());
        self
    }

    /// Only so often.
    pub fn sometimes(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    fn to_json(&self) -> Value {
        json!({
            "stage": format!("{:?}", self.stage).to_lowercase(),
            "action": self.action.as_str(),
            "recipient": self.recipient,
            "probability": self.probability,
        })
    }
}

/// A letter as it arrived.
#[derive(Debug, Clone)]
pub struct Received {
    pub to: Vec<String>,
    pub subject: String,
    pub text: String,
    pub html: String,
    /// In their order, decoded.
    pub headers: Vec<(String, String)>,
    pub message_id: String,
    /// The message, byte by byte.
    pub raw: Vec<u8>,
    /// The addresses in its `From`.
    pub from: Vec<String>,
    /// The envelope's sender.
    pub mail_from: String,
    /// What its sender calls itself.
    pub hello: String,
    pub encrypted: bool,
    /// Who was logged in.
    pub user: Option<String>,
}

impl Received {
    /// The one header of a name.
    pub fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => value,
            _ => panic!("not exactly one {name} in {:?}", self.headers),
        }
    }

    fn of(event: &Value) -> Self {
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let pair = |pair: &Value| {
            let text = |i: usize| pair[i].as_str().unwrap_or_default().to_owned();
            (text(0), text(1))
        };
        let list = |name: &str| event[name].as_array().cloned().unwrap_or_default();
        let texts = |name: &str| {
            let texts = list(name).into_iter();
            texts
                .filter_map(|t| t.as_str().map(str::to_owned))
                .collect()
        };
        let mut letter = Self {
            to: texts("rcpt_tos"),
            from: texts("sender"),
            subject: String::new(),
            text: text("text"),
            html: text("html"),
            headers: list("headers").iter().map(pair).collect(),
            message_id: String::new(),
            raw: STANDARD.decode(text("raw")).expect("base64"),
            mail_from: text("mail_from"),
            hello: text("hello"),
            encrypted: event["encrypted"] == true,
            user: event["user"].as_str().map(str::to_owned),
        };
        letter.subject = letter.header("Subject").to_owned();
        letter.message_id = letter.header("Message-ID").to_owned();
        letter
    }
}

/// The token in the link of a letter's text.
pub fn link_token(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("#token=")?;
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-_.~".contains(c);
    rest.split(|c| !is_token(c)).next()
}

/// The code of six digits in a letter's text.
pub fn code(text: &str) -> Option<&str> {
    let words = text.split(|c: char| !(c.is_alphanumeric() || "-_./=#".contains(c)));
    let words = words.map(|word| word.trim_end_matches('.'));
    let is_code = |word: &&str| word.len() == 6 && word.bytes().all(|b| b.is_ascii_digit());
    words.into_iter().find(is_code)
}

/// A mail server that runs until this is dropped.
pub struct SmtpSink {
    folder: TempDir,
    options: Options,
    port: u16,
    running: Option<Child>,
}

impl SmtpSink {
    pub fn start(options: Options) -> Self {
        let mut sink = Self {
            folder: tempfile::tempdir().expect("a temporary folder"),
            options,
            port: 0,
            running: None,
        };
        sink.write_certificates();
        sink.behave(&sink.options.rules);
        fs::write(sink.folder.path().join("events.jsonl"), "").expect("written");
        sink.start_again();
        sink
    }

    /// Starts a stopped server on the port it had.
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "the server runs");
        let options = json!({
            "tls": format!("{:?}", self.options.tls).to_lowercase(),
            "auth": self.options.auth.map(|(user, password)| [user, password]),
            "login_only": self.options.login_only,
            "wants_certificate": self.options.wants_certificate,
            "seed": self.options.seed,
            "port": self.port,
        });
        self.write("options.json", &options.to_string());
        let python = env::var("DOORWARD_TEST_PYTHON").unwrap_or_else(|_| {
            panic!("DOORWARD_TEST_PYTHON is not set: run ./tests/run, which installs aiosmtpd")
        });
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/smtp_sink.py");
        let mut child = Command::new(python)
            .arg(script)
            .arg(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("read");
        self.port = line.trim().parse().expect("a port; is aiosmtpd there?");
        self.running = Some(child);
    }

    /// Ends the server at once; its connections break.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.running.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The PEM file of the authority that its certificate comes from.
    pub fn ca_file(&self) -> String {
        self.file("ca.pem")
    }

    /// `[mail.smtp]` for this server.
    pub fn settings(&self) -> SmtpSettings {
        let (username, password) = self.options.auth.unwrap_or_default();
        let plain = self.options.tls == SmtpTls::None;
        SmtpSettings {
            host: "localhost".to_owned(),
            port: self.port,
            tls: self.options.tls,
            username: username.to_owned(),
            password: password.into(),
            ca_file: if plain { String::new() } else { self.ca_file() },
            allow_plain: plain,
            ..SmtpSettings::default()
        }
    }

    /// `[mail]` for this server.
    pub fn mail_settings(&self) -> MailSettings {
        MailSettings {
            transport: Transport::Smtp,
            from: "Doorward <no-reply@example.org>".to_owned(),
            smtp: self.settings(),
            ..MailSettings::default()
        }
    }

    /// Changes the rules from now on.
    pub fn behave(&self, rules: &[Rule]) {
        let rules: Vec<Value> = rules.iter().map(Rule::to_json).collect();
        self.write("rules.json", &Value::Array(rules).to_string());
    }

    /// What was taken over, in order.
    pub async fn letters(&self) -> Vec<Received> {
        let events = self.events();
        let letters = events.iter().filter(|event| event["event"] == "letter");
        letters.map(Received::of).collect()
    }

    /// Waits until so many letters have been taken over.
    pub async fn wait_for(&self, n: usize) -> Vec<Received> {
        let what = format!("{n} letters have arrived");
        until(&what, async || self.letters().await.len() >= n).await;
        self.letters().await
    }

    /// How often it hung up as it was told.
    pub fn drops(&self) -> usize {
        self.count("drop")
    }

    /// How often something happened: `connection`, `auth`, `mail`, `letter`, `quit`, or a misbehaviour.
    pub fn count(&self, event: &str) -> usize {
        let events = self.events();
        events.iter().filter(|e| e["event"] == event).count()
    }

    /// How often it misbehaved so at a stage.
    pub fn count_at(&self, event: &str, stage: &str) -> usize {
        let events = self.events();
        let those = |e: &&Value| e["event"] == event && e["stage"] == stage;
        events.iter().filter(those).count()
    }

    fn events(&self) -> Vec<Value> {
        let path = self.folder.path().join("events.jsonl");
        let text = fs::read_to_string(path).expect("read");
        // The last line may be in the making.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// In one step: the server reads its rules at any time.
    fn write(&self, name: &str, text: &str) {
        let draft = self.folder.path().join(format!("{name}.draft"));
        fs::write(&draft, text).expect("written");
        fs::rename(&draft, self.folder.path().join(name)).expect("renamed");
    }

    fn write_certificates(&self) {
        let authority = Authority::new();
        let server = authority.certify(&[self.options.certificate_for]);
        self.write("ca.pem", &authority.certificate);
        self.write(
            "certificate.pem",
            &(server.certificate + &authority.certificate),
        );
        self.write("key.pem", &server.key);
        let client = authority.certify(&["doorward"]);
        self.write("client.pem", &client.certificate);
        self.write("client-key.pem", &client.key);
    }

    /// A file beside the server: `client.pem` and `client-key.pem` are what it wants to be shown.
    pub fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }
}

impl Drop for SmtpSink {
    fn drop(&mut self) {
        self.stop();
    }
}

//! `[mail]`: which transport carries letters, who they come from, and how long they are tried.
//!
//! Decides what can be decided without reading files or asking a server. The transports obey their own
//! sections; the rest is for those who make letters ([`crate::letters`]) and those who send them. Files
//! that hold secrets are read by whoever reads the settings.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    clock::Span,
    email::EmailAddress,
    mail::Sender,
    model::user::Attributes,
    secret::SecretString,
    setting::{
        BadSetting, is_own_machine, is_plain_text_abroad, service_url, shown, shown_address,
    },
};

/// Who letters come from that never leave the process.
const SENDER_IN_MEMORY: &str = "Doorward <doorward@localhost.example>";
/// Longest name of a sender, in bytes.
const LONGEST_NAME: usize = 100;

/// What carries letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Nothing: no letters are written.
    None,
    /// A mail server.
    Smtp,
    /// The API of SendGrid, or of something that speaks as it does.
    Sendgrid,
    /// A folder that something else empties.
    File,
    /// This process, until it ends: for development and tests.
    Memory,
}

/// `[mail]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailSettings {
    /// `none` (default), `smtp`, `sendgrid`, `file` or `memory`.
    pub transport: Transport,
    /// Who letters come from: `Name <no-reply@example.org>`, or the address alone. No default; `memory`
    /// does without.
    pub from: String,
    /// The name of the product in letters. Default `Doorward`.
    pub product: String,
    /// The language of people who asked for no other. Default `en`.
    pub language: String,
    /// Which of a user's attributes holds their language, e.g. `locale`; empty (default) is none.
    pub language_attribute: String,
    /// A folder whose files replace the built-in texts; empty (default) is none.
    pub templates: String,
    /// Whether a login from a device that was not seen before is told by letter. Default true.
    pub notify_new_device: bool,
    /// How many letters a node sends at once, 1 to 64. Default 4.
    pub concurrency: u32,
    /// How long the sending of one letter may take, 1s to 15m. Default 2m.
    pub send_timeout: Span,
    /// How long a letter is tried again, 1m to 30d. Default 2d.
    pub give_up_after: Span,
    /// Obeyed when the transport is `smtp`.
    pub smtp: SmtpSettings,
    /// Obeyed when the transport is `sendgrid`.
    pub sendgrid: SendGridSettings,
    /// Obeyed when the transport is `file`.
    pub file: FileSettings,
}

impl Default for MailSettings {
    fn default() -> Self {
        Self {
            transport: Transport::None,
            from: String::new(),
            product: "Doorward".to_owned(),
            language: "en".to_owned(),
            language_attribute: String::new(),
            templates: String::new(),
            notify_new_device: true,
            concurrency: 4,
            send_timeout: Span::minutes(2),
            give_up_after: Span::days(2),
            smtp: SmtpSettings::default(),
            sendgrid: SendGridSettings::default(),
            file: FileSettings::default(),
        }
    }
}

/// How letters are sent.
#[derive(Debug, Clone)]
pub struct MailPolicy {
    /// How many at once on each node, 1 to 64. Default 4.
    pub concurrency: u32,
    /// How long one may take, all told, 1s to 15m. Default 2m.
    pub send_timeout: Span,
    /// How long to keep trying, 1m to 30d. Default 2d.
    pub give_up_after: Span,
    /// Which of a user's attributes names their language; empty (default) for none.
    pub language_attribute: String,
    /// Whether users are told of logins from devices that were not seen before. Default true.
    pub notify_new_device: bool,
}

impl Default for MailPolicy {
    fn default() -> Self {
        MailSettings::default().policy()
    }
}

impl MailPolicy {
    /// Checks the policy.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        if !(1..=64).contains(&self.concurrency) {
            let problem = format!("{} is outside 1 to 64", self.concurrency);
            return Err(BadSetting::new("mail.concurrency", problem, "set it to 4"));
        }
        check_span(
            "mail.send_timeout",
            self.send_timeout,
            (Span::secs(1), Span::minutes(15)),
            "1s to 15m",
        )?;
        check_span(
            "mail.give_up_after",
            self.give_up_after,
            (Span::minutes(1), Span::days(30)),
            "1m to 30d",
        )
    }
}

impl MailSettings {
    /// Checks what all transports share and the section of the chosen one; the others may say anything.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self, production: bool) -> Result<(), BadSetting> {
        if self.transport != Transport::None || !self.from.is_empty() {
            self.sender()?;
        }
        self.check_languages()?;
        self.policy().check()?;
        match self.transport {
            Transport::Smtp => self.smtp.check(),
            Transport::Sendgrid => self.sendgrid.check(production),
            Transport::File => self.file.check(),
            Transport::Memory if production => Err(BadSetting::new(
                "mail.transport",
                "memory delivers nothing to anybody",
                "choose smtp, sendgrid or file in production",
            )),
            Transport::None | Transport::Memory => Ok(()),
        }
    }

    /// How letters are sent.
    #[must_use]
    pub fn policy(&self) -> MailPolicy {
        MailPolicy {
            concurrency: self.concurrency,
            send_timeout: self.send_timeout,
            give_up_after: self.give_up_after,
            language_attribute: self.language_attribute.clone(),
            notify_new_device: self.notify_new_device,
        }
    }

    /// Who letters come from.
    ///
    /// # Errors
    /// [`BadSetting`] for `mail.from`.
    pub fn sender(&self) -> Result<Sender, BadSetting> {
        let without = matches!(self.transport, Transport::None | Transport::Memory);
        let from = match self.from.trim() {
            "" if without => SENDER_IN_MEMORY,
            from => from,
        };
        let bad = |problem: &str| {
            let remedy = "write it as Name <no-reply@example.org>";
            BadSetting::new("mail.from", problem, remedy)
        };
        if from.is_empty() {
            return Err(bad("is empty"));
        }
        let (name, address) = match from.strip_suffix('>').and_then(|f| f.rsplit_once('<')) {
            Some((name, address)) => (name.trim(), address),
            None => ("", from),
        };
        let name = unquoted(name);
        check_name("mail.from", name)?;
        if name.contains(['<', '>', '"']) {
            return Err(bad("has brackets or quotes in its name"));
        }
        let address = EmailAddress::parse(address).map_err(|_| bad("has no e-mail address"))?;
        let name = name.to_owned();
        Ok(Sender { name, address })
    }

    fn check_languages(&self) -> Result<(), BadSetting> {
        let is_tag = (1..=35).contains(&self.language.len())
            && self
                .language
                .split('-')
                .all(|part| (1..=8).contains(&part.len()) && part.bytes().all(is_alphanumeric));
        if !is_tag {
            return Err(BadSetting::new(
                "mail.language",
                format!("{} does not name a language", shown(&self.language)),
                "write it as en or pt-BR",
            ));
        }
        let attribute = &self.language_attribute;
        if !attribute.is_empty() && !can_name_attribute(attribute) {
            return Err(BadSetting::new(
                "mail.language_attribute",
                format!("{} cannot be the name of an attribute", shown(attribute)),
                "use letters, digits and _, e.g. locale",
            ));
        }
        Ok(())
    }
}

/// How the connection to a mail server is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// TLS begins after the server was asked for it; a server that has none gets no letter (RFC 3207).
    Starttls,
    /// TLS from the first byte (RFC 8314).
    Implicit,
    /// None.
    None,
}

/// `[mail.smtp]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpSettings {
    /// The mail server's host name or address. No default.
    pub host: String,
    /// Its port; 0 (default) is 587 for `starttls`, 465 for `implicit` and 25 for `none`.
    pub port: u16,
    /// `starttls` (default), `implicit` or `none`.
    pub tls: SmtpTls,
    /// Whom to log in as; empty (default) is nobody.
    pub username: String,
    /// The password that belongs to it.
    pub password: SecretString,
    /// A file that holds the password.
    pub password_file: String,
    /// A PEM file of the authorities to trust instead of the public ones; empty (default) is none.
    pub ca_file: String,
    /// A PEM file with the certificate to show to a server that asks for one; empty (default) is none.
    pub cert_file: String,
    /// A PEM file with the key that belongs to it, without a passphrase.
    pub key_file: String,
    /// Whether `tls = "none"` may leave this machine, and carry a password. Default false.
    pub allow_plain: bool,
}

impl Default for SmtpSettings {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: 0,
            tls: SmtpTls::Starttls,
            username: String::new(),
            password: SecretString::default(),
            password_file: String::new(),
            ca_file: String::new(),
            cert_file: String::new(),
            key_file: String::new(),
            allow_plain: false,
        }
    }
}

impl SmtpSettings {
    /// The port to connect to.
    #[must_use]
    pub const fn effective_port(&self) -> u16 {
        match (self.port, self.tls) {
            (0, SmtpTls::Starttls) => 587,
            (0, SmtpTls::Implicit) => 465,
            (0, SmtpTls::None) => 25,
            (port, _) => port,
        }
    }

    /// Checks the section without reading the files of certificates.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        let remedy = "name the mail server, e.g. smtp.example.org, and its port in mail.smtp.port";
        if self.host.is_empty() {
            return Err(BadSetting::new("mail.smtp.host", "is empty", remedy));
        }
        if !is_host(&self.host) {
            let problem = format!("{} is not a host name", shown(&self.host));
            return Err(BadSetting::new("mail.smtp.host", problem, remedy));
        }
        self.check_credentials()?;
        self.check_certificate()?;
        if self.tls == SmtpTls::None && !self.allow_plain {
            self.check_plain()?;
        }
        Ok(())
    }

    fn check_credentials(&self) -> Result<(), BadSetting> {
        let bad =
            |key: &str, problem: &str, remedy: &str| Err(BadSetting::new(key, problem, remedy));
        match (self.username.is_empty(), self.password.is_empty()) {
            (false, true) => bad(
                "mail.smtp.password",
                "is missing, but there is a mail.smtp.username",
                "set it, or name a file that holds it in mail.smtp.password_file",
            ),
            (true, false) => bad(
                "mail.smtp.username",
                "is missing, but there is a mail.smtp.password",
                "set it, or leave both empty",
            ),
            // What separates the two on the wire must stand in neither (RFC 4616 §2).
            _ if self.username.contains(char::is_control) => bad(
                "mail.smtp.username",
                "has a control character",
                "take it away",
            ),
            _ if self.password.expose().contains(char::is_control) => bad(
                "mail.smtp.password",
                "has a control character",
                "take it away",
            ),
            _ => Ok(()),
        }
    }

    fn check_certificate(&self) -> Result<(), BadSetting> {
        let bad =
            |key: &str, problem: &str, remedy: &str| Err(BadSetting::new(key, problem, remedy));
        match (self.cert_file.is_empty(), self.key_file.is_empty()) {
            (true, true) => Ok(()),
            (false, true) => bad(
                "mail.smtp.key_file",
                "is missing, but there is a mail.smtp.cert_file",
                "name the file of its key",
            ),
            (true, false) => bad(
                "mail.smtp.cert_file",
                "is missing, but there is a mail.smtp.key_file",
                "name the file of its certificate",
            ),
            _ if self.tls == SmtpTls::None => bad(
                "mail.smtp.cert_file",
                "is shown to nobody without TLS",
                "set mail.smtp.tls to starttls or implicit, or leave it empty",
            ),
            _ => Ok(()),
        }
    }

    fn check_plain(&self) -> Result<(), BadSetting> {
        let problem = if !is_own_machine(&self.host) {
            "none sends one-time secrets over the network in plain text"
        } else if !self.username.is_empty() {
            "none sends the password in plain text"
        } else {
            return Ok(());
        };
        Err(BadSetting::new(
            "mail.smtp.tls",
            problem,
            "use starttls or implicit; mail.smtp.allow_plain = true allows it all the same",
        ))
    }
}

/// `[mail.sendgrid]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendGridSettings {
    /// A key that may send mail. No default.
    pub api_key: SecretString,
    /// A file that holds the key.
    pub api_key_file: String,
    /// Where the API is. Default `https://api.sendgrid.com`; in Europe `https://api.eu.sendgrid.com`.
    pub base_url: String,
}

impl Default for SendGridSettings {
    fn default() -> Self {
        Self {
            api_key: SecretString::default(),
            api_key_file: String::new(),
            base_url: "https://api.sendgrid.com".to_owned(),
        }
    }
}

impl SendGridSettings {
    /// Checks the section.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self, production: bool) -> Result<(), BadSetting> {
        let remedy = "set it, or name a file that holds it in mail.sendgrid.api_key_file";
        if self.api_key.is_empty() {
            return Err(BadSetting::new("mail.sendgrid.api_key", "is empty", remedy));
        }
        if !self.api_key.expose().bytes().all(|b| b.is_ascii_graphic()) {
            let problem = "has characters that no key has";
            return Err(BadSetting::new("mail.sendgrid.api_key", problem, remedy));
        }
        let bad = |problem: &str, remedy: &str| {
            let problem = format!("{} {problem}", shown_address(&self.base_url));
            BadSetting::new("mail.sendgrid.base_url", problem, remedy)
        };
        let url = self.api_root().ok_or_else(|| {
            bad(
                "is not the URL of an API",
                "write it as https://api.sendgrid.com",
            )
        })?;
        if production && is_plain_text_abroad(&url) {
            return Err(bad("is plain text", "use https:// in production"));
        }
        Ok(())
    }

    /// `base_url`, if it is a plain http or https URL.
    pub(super) fn api_root(&self) -> Option<Url> {
        service_url(&self.base_url)
    }
}

/// `[mail.file]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSettings {
    /// The folder that letters are put into; it is made if it is not there. Default `./data/mail`.
    pub folder: PathBuf,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self {
            folder: PathBuf::from("./data/mail"),
        }
    }
}

impl FileSettings {
    /// Checks the section.
    ///
    /// # Errors
    /// [`BadSetting`] for `mail.file.folder`.
    pub fn check(&self) -> Result<(), BadSetting> {
        if self.folder.as_os_str().is_empty() {
            let remedy = "name a folder, e.g. ./data/mail";
            return Err(BadSetting::new("mail.file.folder", "is empty", remedy));
        }
        Ok(())
    }
}

fn can_name_attribute(name: &str) -> bool {
    let object = serde_json::Map::from_iter([(name.to_owned(), serde_json::Value::Bool(true))]);
    Attributes::parse(object).is_ok()
}

fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
}

/// Whether a text is an IP address, or could be a host's name.
fn is_host(text: &str) -> bool {
    let is_name = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    is_name || text.parse::<std::net::IpAddr>().is_ok()
}

/// A name without the quotes that it may be written in.
fn unquoted(name: &str) -> &str {
    name.strip_prefix('"')
        .and_then(|n| n.strip_suffix('"'))
        .unwrap_or(name)
}

fn check_name(key: &str, name: &str) -> Result<(), BadSetting> {
    if name.contains(char::is_control) {
        let problem = "has a line break or another control character in its name";
        return Err(BadSetting::new(key, problem, "take it away"));
    }
    if name.len() > LONGEST_NAME {
        let problem = format!("has a name longer than {LONGEST_NAME} bytes");
        return Err(BadSetting::new(key, problem, "shorten it"));
    }
    Ok(())
}

fn check_span(
    key: &str,
    span: Span,
    (least, most): (Span, Span),
    range: &str,
) -> Result<(), BadSetting> {
    if (least..=most).contains(&span) {
        return Ok(());
    }
    let problem = format!("{span} is outside {range}");
    Err(BadSetting::new(key, problem, "choose a time within"))
}

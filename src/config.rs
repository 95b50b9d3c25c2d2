//! The settings of the server: read from layers, composed of the sections that the modules own.
//!
//! Each knob is a field of the module that obeys it; here stand only those that belong to the process
//! as a whole, what the environments allow, and where secrets are read from.

mod files;
mod layer;
mod layers;
mod print;
mod shape;

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub(crate) use self::files::{lock_folder_of, make_secret, read_secret, replace_secret};
pub use self::{layer::DEFAULTS, layers::Sources, shape::variable};
use crate::{
    accounts::AccountPolicy,
    admin::AdminPolicy,
    audit::AuditPolicy,
    auth::canary::CanaryPolicy,
    clock::Timestamp,
    entropy::Entropy,
    finding::DoctorSettings,
    http::HttpSettings,
    mail::settings::{MailSettings, Transport},
    metrics::MetricsSettings,
    model::{account::AttributeRules, client::Clients},
    passwords::PasswordPolicy,
    reporting::settings::{SentrySettings, TracingSettings},
    roles::RoleSettings,
    secret::SecretString,
    sessions::SessionPolicy,
    setting::{BadSetting, is_own_machine, shown_address},
    store::settings::{Backend, DatabaseSettings, Synchronous},
    sweep::SweepPolicy,
    throttle::settings::LimitSettings,
    tokens::{KeyAlgorithm, KeyRing, TokenSettings, keys::KeyFile},
};

/// Where the server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Environment {
    /// Makes what is missing by itself.
    Development,
    /// Allows weak password hashing.
    Test,
    /// Refuses weak and missing secrets.
    Production,
}

impl Environment {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Test => "test",
            Self::Production => "production",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Development, Self::Test, Self::Production]
            .into_iter()
            .find(|e| e.as_str() == name)
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// `[log]`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    /// For whom log lines are written.
    pub format: LogFormat,
    /// The least important lines written.
    pub level: LogLevel,
}

/// For whom log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// People in development and at a terminal, machines otherwise.
    Auto,
    /// People.
    Pretty,
    /// Machines.
    Json,
}

/// How important a log line must be to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// All settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the server stands.
    pub environment: Environment,
    /// The address under which clients reach it.
    pub public_url: String,
    /// Who may introspect and revoke tokens, as `id:hash`.
    pub clients: Vec<String>,
    /// `[http]`.
    pub http: HttpSettings,
    /// `[database]`.
    pub database: DatabaseSettings,
    /// `[sessions]`.
    pub sessions: SessionPolicy,
    /// `[tokens]`.
    pub tokens: TokenSettings,
    /// `[passwords]`.
    pub passwords: PasswordPolicy,
    /// `[accounts]`.
    pub accounts: AccountPolicy,
    /// `[roles]`.
    #[serde(default)]
    pub roles: RoleSettings,
    /// `[admin]`.
    pub admin: AdminPolicy,
    /// `[limits]`.
    pub limits: LimitSettings,
    /// `[mail]`.
    pub mail: MailSettings,
    /// `[sweep]`.
    pub sweep: SweepPolicy,
    /// `[audit]`.
    pub audit: AuditPolicy,
    /// `[metrics]`.
    pub metrics: MetricsSettings,
    /// `[canary]`.
    pub canary: CanaryPolicy,
    /// `[doctor]`.
    pub doctor: DoctorSettings,
    /// `[log]`.
    pub log: LogSettings,
    /// `[tracing]`.
    pub tracing: TracingSettings,
    /// `[sentry]`.
    pub sentry: SentrySettings,
}

impl Settings {
    /// Reads the layers and the files that hold secrets, without judging what the settings say:
    /// that is [`Self::check`].
    ///
    /// # Errors
    /// [`BadSetting`] for what cannot be read, is not known or is of a wrong type.
    pub fn load(sources: &Sources) -> Result<Self, BadSetting> {
        let mut settings: Self = sources.read()?;
        let (database, mail) = (&mut settings.database, &mut settings.mail);
        let audit = &mut settings.audit;
        let (otlp, sentry) = (&mut settings.tracing.otlp, &mut settings.sentry);
        let secrets = [
            (
                "database.postgres.url",
                &mut database.postgres.url,
                &database.postgres.url_file,
            ),
            (
                "database.mongodb.url",
                &mut database.mongodb.url,
                &database.mongodb.url_file,
            ),
            (
                "mail.smtp.password",
                &mut mail.smtp.password,
                &mail.smtp.password_file,
            ),
            (
                "mail.sendgrid.api_key",
                &mut mail.sendgrid.api_key,
                &mail.sendgrid.api_key_file,
            ),
            ("audit.key", &mut audit.key, &audit.key_file),
            (
                "tracing.otlp.headers",
                &mut otlp.headers,
                &otlp.headers_file,
            ),
            ("sentry.dsn", &mut sentry.dsn, &sentry.dsn_file),
        ];
        let named = secrets.into_iter().filter(|(_, _, file)| !file.is_empty());
        for (key, secret, file) in named {
            if !secret.is_empty() {
                let problem = format!("is set together with {key}_file");
                return Err(BadSetting::new(key, problem, "set only one of the two"));
            }
            let text = read_secret(&format!("{key}_file"), Path::new(file))?;
            *secret = SecretString::from(text.expose().trim_end_matches(['\r', '\n']));
        }
        Ok(settings)
    }

    /// Judges the settings, each and together, without touching anything but them.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        self.check_public_url()?;
        self.http.check()?;
        self.check_scheme()?;
        self.check_cookie_domain()?;
        self.database.check()?;
        self.sessions.check()?;
        self.tokens.check()?;
        Clients::parse(&self.clients)?;
        self.passwords
            .check(self.environment == Environment::Test)?;
        self.limits.check()?;
        self.mail
            .check(self.environment == Environment::Production)?;
        self.accounts
            .check(self.mail.transport != Transport::None)?;
        self.roles.fixed()?;
        self.admin.check()?;
        self.sweep.check()?;
        self.audit.check()?;
        self.metrics.check()?;
        self.canary.check()?;
        self.doctor.check()?;
        self.tracing.check()?;
        self.sentry.check()?;
        if self.environment == Environment::Production {
            self.check_production()?;
        }
        Ok(())
    }

    fn check_public_url(&self) -> Result<(), BadSetting> {
        let bad = |problem: &str, remedy: &str| {
            let shown = shown_address(&self.public_url);
            Err(BadSetting::new(
                "public_url",
                format!("{shown} {problem}"),
                remedy,
            ))
        };
        let example = "write it as https://auth.example.org";
        let parsed: Option<poem::http::Uri> = self.public_url.parse().ok();
        let Some(uri) = parsed else {
            return bad("is not a URL", example);
        };
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return bad("is not an http or https URL", example);
        };
        if !["http", "https"].contains(&scheme) {
            return bad("is not an http or https URL", example);
        }
        if authority.as_str().contains('@')
            || uri.query().is_some()
            || self.public_url.contains('#')
        {
            return bad("has a user name, a query or a fragment", example);
        }
        if self.public_url.ends_with('/') {
            return bad("ends with a slash", "take the slash away");
        }
        if uri.path() != "/" {
            return bad(
                "has a path",
                "give Doorward a host name of its own, e.g. https://auth.example.org",
            );
        }
        if self.environment == Environment::Production
            && scheme == "http"
            && !is_own_machine(authority.host())
        {
            return bad("is plain text", "use https:// in production");
        }
        Ok(())
    }

    /// Cookies are marked as the address says that they travel.
    fn check_scheme(&self) -> Result<(), BadSetting> {
        if self.http.tls.is_on() && self.public_url.starts_with("http:") {
            let problem = "is plain text, and http.tls is on";
            return Err(BadSetting::new(
                "public_url",
                problem,
                "write it with https://",
            ));
        }
        Ok(())
    }

    /// Browsers drop a cookie for a domain that is not the host's own.
    fn check_cookie_domain(&self) -> Result<(), BadSetting> {
        let domain = self.http.cookie_domain.as_str();
        let uri: poem::http::Uri = self.public_url.parse().unwrap_or_default();
        let host = uri.host().unwrap_or_default();
        let rest = host.strip_suffix(domain);
        if domain.is_empty() || rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.')) {
            return Ok(());
        }
        Err(BadSetting::new(
            "http.cookie_domain",
            format!("`{domain}` is not a domain of {host}"),
            "browsers would not take the cookie; correct it, or leave it empty",
        ))
    }

    fn check_production(&self) -> Result<(), BadSetting> {
        self.http.check_production()?;
        let addresses = [
            ("http.listen", &self.http.listen),
            ("http.admin_listen", &self.http.admin_listen),
            ("metrics.listen", &self.metrics.listen),
        ];
        let tls = [self.http.tls.is_on(), self.http.admin_tls()];
        for ((key, address), tls) in addresses.into_iter().zip(tls) {
            let host = address.rsplit_once(':').map(|(host, _)| host);
            let public = host.is_some_and(|host| !is_own_machine(host));
            if public && !tls && !self.http.behind_proxy {
                return Err(BadSetting::new(
                    key,
                    format!("{address} takes plain text from other machines"),
                    "listen on 127.0.0.1, set http.tls.cert_file, or put a TLS proxy in front and set http.behind_proxy = true",
                ));
            }
        }
        let everybody = |network: &&ipnet::IpNet| network.prefix_len() == 0;
        if let Some(network) = self.http.trusted_proxies.iter().find(everybody) {
            return Err(BadSetting::new(
                "http.trusted_proxies",
                format!("{network} believes everybody's word about who they are"),
                "name the networks of your proxies",
            ));
        }
        if self.database.backend == Backend::Sqlite
            && self.database.sqlite.synchronous != Synchronous::Full
        {
            return Err(BadSetting::new(
                "database.sqlite.synchronous",
                "may lose acknowledged changes in a power cut",
                "set it to full in production",
            ));
        }
        if self.tokens.key.is_empty() && self.tokens.key_file.is_empty() {
            return Err(Self::no_key());
        }
        if self.has_sample_password() == Some(true) {
            return Err(BadSetting::new(
                self.database.address_key(),
                "has a password that stands in examples",
                "give the database's user another one, e.g. from `openssl rand -hex 24`",
            ));
        }
        Ok(())
    }

    /// Whether the database's password stands in examples; none where there is no password.
    #[must_use]
    pub fn has_sample_password(&self) -> Option<bool> {
        let url = match self.database.backend {
            Backend::Sqlite => return None,
            Backend::Postgres => &self.database.postgres.url,
            Backend::Mongodb => &self.database.mongodb.url,
        };
        password_in(url.expose()).map(|password| SAMPLE_PASSWORDS.contains(&password))
    }

    fn no_key() -> BadSetting {
        BadSetting::new(
            "tokens.key",
            "is missing, and so is tokens.key_file",
            "run `doorward key new --file token-keys.json` and set tokens.key_file to that file",
        )
    }

    /// The key file that is used, or would be made: the one named, or the one beside the SQLite file
    /// in development. None where a single key is set, or none at all.
    #[must_use]
    pub fn key_file(&self) -> Option<PathBuf> {
        if !self.tokens.key_file.is_empty() {
            return Some(PathBuf::from(&self.tokens.key_file));
        }
        let beside = self.tokens.key.is_empty()
            && self.environment == Environment::Development
            && self.database.backend == Backend::Sqlite;
        beside.then(|| self.database.sqlite.path.with_file_name("token-keys.json"))
    }

    /// The keys of tokens. Production refuses guessable ones.
    ///
    /// # Errors
    /// [`BadSetting`] for `tokens.key` or `tokens.key_file`.
    pub fn key_ring(&self) -> Result<KeyRing, BadSetting> {
        let (key, keys) = self.keys()?;
        let guessable = guessable(key, &keys);
        if let Some(bad) = guessable.filter(|_| self.environment == Environment::Production) {
            return Err(bad);
        }
        match key {
            "tokens.key" => KeyRing::single(&self.tokens.key),
            _ => KeyRing::from_file(&keys),
        }
    }

    /// What is wrong with a key of tokens that somebody could guess, if there is one.
    ///
    /// # Errors
    /// [`BadSetting`] where the keys cannot be read.
    pub fn guessable_key(&self) -> Result<Option<BadSetting>, BadSetting> {
        let (key, keys) = self.keys()?;
        Ok(guessable(key, &keys))
    }

    fn keys(&self) -> Result<(&'static str, KeyFile), BadSetting> {
        if !self.tokens.key.is_empty() {
            return Ok(("tokens.key", KeyFile::single(&self.tokens.key)?));
        }
        let path = self.key_file().ok_or_else(Self::no_key)?;
        let text = read_secret("tokens.key_file", &path)?;
        Ok(("tokens.key_file", KeyFile::parse(text.expose())?))
    }

    /// Makes the key file beside the SQLite file in development, if it is not there.
    ///
    /// # Errors
    /// [`BadSetting`] for `tokens.key_file` when it cannot be made.
    pub fn make_missing_key(
        &self,
        now: Timestamp,
        entropy: &dyn Entropy,
    ) -> Result<(), BadSetting> {
        let path = match self.key_file() {
            Some(path) if self.tokens.key_file.is_empty() && !path.exists() => path,
            _ => return Ok(()),
        };
        let bad = |problem: String| {
            let problem = format!("{} cannot be made: {problem}", path.display());
            BadSetting::new("tokens.key_file", problem, "check the folder's permissions")
        };
        let mut keys = KeyFile::default();
        keys.add(KeyAlgorithm::Hs256, now, now, entropy)
            .map_err(|e| bad(e.to_string()))?;
        make_secret(&path, &keys.to_text(), entropy).map_err(|e| bad(e.to_string()))
    }

    /// The application's rules for attributes.
    ///
    /// # Errors
    /// [`BadSetting`] for `accounts.attributes_schema`.
    pub fn attribute_rules(&self) -> Result<AttributeRules, BadSetting> {
        let path = &self.accounts.attributes_schema;
        if path.is_empty() {
            return Ok(AttributeRules::default());
        }
        let text = std::fs::read_to_string(path).map_err(|e| {
            let problem = format!("{path} cannot be read: {e}");
            BadSetting::new(
                "accounts.attributes_schema",
                problem,
                "check its name and permissions",
            )
        })?;
        AttributeRules::from_schema(&text)
    }

    /// The `iss` of tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        if self.tokens.issuer.is_empty() {
            &self.public_url
        } else {
            &self.tokens.issuer
        }
    }

    /// All settings as TOML, secrets as `***`.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::to_toml(self)
    }
}

fn guessable(key: &str, keys: &KeyFile) -> Option<BadSetting> {
    let (kid, why) = keys.guessable()?;
    Some(BadSetting::new(
        key,
        format!("key `{kid}` can be guessed: {why}"),
        "make one with `doorward key new` or `openssl rand -base64 32`",
    ))
}

/// Passwords of README files, ours among them.
const SAMPLE_PASSWORDS: [&str; 8] = [
    "changeme",
    "change-me",
    "doorward",
    "example",
    "password",
    "postgres",
    "secret",
    "test",
];

/// The password in a database's URL.
fn password_in(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let (user, _) = authority.rsplit_once('@')?;
    user.split_once(':').map(|(_, password)| password)
}

//! `[tracing.otlp]` and `[sentry]`: who is told what happens here, and how much of it.

use poem::http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    secret::SecretString,
    setting::{BadSetting, is_plain_text_abroad, service_url},
};

const ENDPOINT: &str = "tracing.otlp.endpoint";
const HEADERS: &str = "tracing.otlp.headers";
const DSN: &str = "sentry.dsn";

/// `[tracing]`: who is told how long what took.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TracingSettings {
    /// `[tracing.otlp]`.
    pub otlp: OtlpSettings,
}

impl TracingSettings {
    /// Checks the section.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        self.otlp.check()
    }
}

/// `[tracing.otlp]`: a collector that takes OTLP over HTTP, in protobuf.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OtlpSettings {
    /// Its address, e.g. `http://127.0.0.1:4318`; traces go to `/v1/traces` below it. Empty (default) for none.
    pub endpoint: String,
    /// Headers that it wants, as `name=value` with commas between them.
    pub headers: SecretString,
    /// A file that holds [`Self::headers`] in its place.
    pub headers_file: String,
    /// A file with the authorities that its certificate may come from, in PEM; empty (default) for the public ones.
    pub ca_file: String,
    /// How many of the traces that begin here are kept, from 0 to 1. Default 1.
    pub sample: f64,
    /// What this service is called there. Default `doorward`.
    pub service_name: String,
}

impl Default for OtlpSettings {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            headers: SecretString::default(),
            headers_file: String::new(),
            ca_file: String::new(),
            sample: 1.0,
            service_name: "doorward".to_owned(),
        }
    }
}

impl OtlpSettings {
    /// Whether a collector is named.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.endpoint.is_empty()
    }

    fn check(&self) -> Result<(), BadSetting> {
        check_sample("tracing.otlp.sample", self.sample)?;
        if self.service_name.is_empty() {
            return Err(BadSetting::new(
                "tracing.otlp.service_name",
                "is empty",
                "name this service, e.g. doorward",
            ));
        }
        self.header_map()?;
        if !self.is_on() {
            return Ok(());
        }
        let Some(url) = self.traces_url() else {
            return Err(BadSetting::new(
                ENDPOINT,
                "is not the address of a collector",
                "write it as http://127.0.0.1:4318 or https://otlp.example.org, or leave it empty",
            ));
        };
        check_transport(ENDPOINT, &url)?;
        check_build(ENDPOINT, cfg!(feature = "otlp"), "otlp")
    }

    /// Where traces go, if the endpoint is a plain address.
    pub(super) fn traces_url(&self) -> Option<Url> {
        let root = self.endpoint.trim_end_matches('/');
        service_url(&format!("{root}/v1/traces"))
    }

    /// The headers, each marked as secret.
    pub(super) fn header_map(&self) -> Result<HeaderMap, BadSetting> {
        let entries = self.headers.expose().split(',').map(str::trim);
        let pairs = entries.filter(|entry| !entry.is_empty()).map(|entry| {
            let (name, value) = entry.split_once('=')?;
            let name: HeaderName = name.trim().parse().ok()?;
            let mut value: HeaderValue = value.trim().parse().ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        // What is wrong may be next to a secret, so it is not repeated.
        pairs.collect::<Option<_>>().ok_or_else(|| {
            BadSetting::new(
                HEADERS,
                "are not headers",
                "write them as name=value, with commas between them, as they are sent",
            )
        })
    }
}

/// `[sentry]`: who is told of panics and errors.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SentrySettings {
    /// The DSN of a project of Sentry, or of what speaks as it does; empty (default) for none.
    pub dsn: SecretString,
    /// A file that holds [`Self::dsn`] in its place.
    pub dsn_file: String,
    /// A file with the authorities that its certificate may come from, in PEM; empty (default) for the public ones.
    pub ca_file: String,
    /// What this environment is called there; empty (default) for the name of the server's own.
    pub environment: String,
    /// How many errors are sent, from 0 to 1. Default 1.
    pub sample: f64,
}

impl Default for SentrySettings {
    fn default() -> Self {
        Self {
            dsn: SecretString::default(),
            dsn_file: String::new(),
            ca_file: String::new(),
            environment: String::new(),
            sample: 1.0,
        }
    }
}

impl SentrySettings {
    /// Whether a project is named.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.dsn.is_empty()
    }

    /// Checks the section.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        check_sample("sentry.sample", self.sample)?;
        if !self.is_on() {
            return Ok(());
        }
        let url = Url::parse(self.dsn.expose()).ok().filter(|url| {
            let project = url.path_segments().and_then(Iterator::last);
            ["http", "https"].contains(&url.scheme())
                && !url.username().is_empty()
                && project.is_some_and(|project| !project.is_empty())
        });
        let url = url.ok_or_else(bad_dsn)?;
        check_transport(DSN, &url)?;
        check_build(DSN, cfg!(feature = "sentry"), "sentry")
    }
}

/// A DSN is not repeated: whoever has it can write to the project.
pub(super) fn bad_dsn() -> BadSetting {
    BadSetting::new(
        DSN,
        "is not a DSN",
        "copy it from the project's settings: https://KEY@HOST/PROJECT",
    )
}

fn check_sample(key: &str, sample: f64) -> Result<(), BadSetting> {
    if (0.0..=1.0).contains(&sample) {
        return Ok(());
    }
    Err(BadSetting::new(
        key,
        format!("{sample} is not from 0 to 1"),
        "set it to 1 for all, or e.g. to 0.1 for every tenth",
    ))
}

/// Monitoring is told nothing in plain text across a network (ASVS 12.3.1).
fn check_transport(key: &str, url: &Url) -> Result<(), BadSetting> {
    if is_plain_text_abroad(url) {
        let remedy = "use https://, or a collector on this machine";
        return Err(BadSetting::new(key, "is plain text", remedy));
    }
    Ok(())
}

fn check_build(key: &str, is_built: bool, feature: &str) -> Result<(), BadSetting> {
    if is_built {
        return Ok(());
    }
    Err(BadSetting::new(
        key,
        "is set, but this build tells nobody",
        format!("leave it empty, or build it with the feature `{feature}`"),
    ))
}

//! What one process measures of itself, that anyone may bump.
//!
//! Decides which metrics there are, what they are called (the conventions of Prometheus: base units,
//! `_total`) and which values their labels have: none is ever what a client sent. One [`Metrics`] belongs to one
//! service; there is no global state. The hot path only adds to atomics. How it gets out is for
//! [`crate::http`].

mod groups;
mod parts;
mod process;

use std::sync::{Mutex, PoisonError};

use prometheus::{Registry, TextEncoder};
use serde::{Deserialize, Serialize};

pub use self::groups::{CanaryMetrics, CircuitUse, DatabaseGauges, PoolUse, Reported};
pub use self::parts::{Counter, Distribution, Family, Gauge, Held, Level};
use self::{
    groups::{CircuitMetrics, HttpMetrics, Pools},
    parts::Maker,
    process::Process,
};
use crate::{
    clock::Span,
    setting::{BadSetting, shown},
};

/// `[metrics]`: where they are served, and how old what is read from the database may be.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsSettings {
    /// Address and port of `/metrics` alone; empty (default) for where `/version` is served.
    pub listen: String,
    /// How often the database is asked for what only it knows; `0s` for never. Default 30s.
    pub every: Span,
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self {
            listen: String::new(),
            every: Span::secs(30),
        }
    }
}

impl MetricsSettings {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        let is_address = match self.listen.rsplit_once(':') {
            Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok(),
            None => self.listen.is_empty(),
        };
        if !is_address {
            return Err(BadSetting::new(
                "metrics.listen",
                format!("{} is not an address and a port", shown(&self.listen)),
                "write e.g. 127.0.0.1:9464, or leave it empty",
            ));
        }
        let never = self.every == Span::ZERO;
        if !never && (self.every < Span::secs(1) || self.every > Span::minutes(60)) {
            return Err(BadSetting::new(
                "metrics.every",
                format!("{} is not between 1s and 1h", self.every),
                "set it to 30s, or to 0s for never",
            ));
        }
        Ok(())
    }
}

const LOOKUP_SECONDS: [f64; 12] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5,
];
const BATCH_SESSIONS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];
const SCRYPT_SECONDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// What one process has done since it started, and how it is.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    process: Option<Process>,
    /// Held while a text is made: what is copied from elsewhere is copied once.
    exporting: Mutex<()>,
    /// Requests and their answers.
    pub(crate) http: HttpMetrics,
    /// What was presented to prove who is asking, by what it was worth; see [`Self::authenticated`].
    pub authentications: Family,
    authenticated: Counter,
    /// Logins by how they ended.
    pub logins: Family,
    /// Acts that ended sessions, by reason; one act may end several.
    pub revocations: Family,
    /// Requests that a limit refused, by limit.
    pub limit_refusals: Family,
    /// Attempts at letters by how they ended.
    pub letters: Family,
    /// Sessions asked for by authenticated requests.
    pub lookups: Counter,
    /// How many of them one statement answered.
    pub lookups_per_batch: Distribution,
    /// How long such a statement took.
    pub lookup_seconds: Distribution,
    /// Runs of scrypt, for right, wrong and unknown accounts alike.
    pub scrypt_runs: Counter,
    /// Password operations refused because the queue was full.
    pub scrypt_refused: Counter,
    /// Password operations that wait for a thread.
    pub scrypt_waiting: Level,
    /// How long they waited.
    pub scrypt_wait_seconds: Distribution,
    /// How long they then took.
    pub scrypt_run_seconds: Distribution,
    /// Calls of the database that failed, by class.
    pub store_errors: Family,
    /// What only the database knows.
    pub database: DatabaseGauges,
    pools: Pools,
    circuit: CircuitMetrics,
    /// What the canary found.
    pub canary: CanaryMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::with(&Reported::default())
    }
}

impl Metrics {
    /// Nothing yet, but for what others were told already.
    #[must_use]
    pub fn with(reported: &Reported) -> Self {
        let registry = Registry::new();
        let make = Maker(&registry);
        make.include(&reported.sent);
        make.include(&reported.dropped);
        let build = make.gauges(
            "doorward_build_info",
            "Always 1; the version that runs.",
            &["version"],
        );
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        let authentications = make.family(
            ("doorward_authentications_total", "outcome"),
            "Access tokens and cookies that were judged, by the code of the answer; ok is accepted.",
            &["ok", "token_invalid", "token_expired", "session_revoked"],
        );
        Self {
            process: Process::new(&registry),
            exporting: Mutex::default(),
            http: HttpMetrics::new(&make),
            authenticated: authentications.of("ok"),
            authentications,
            logins: make.family(
                ("doorward_logins_total", "outcome"),
                "Logins by the code of the answer; ok is a session opened.",
                &["ok", "bad_credentials", "rate_limited"],
            ),
            revocations: make.family(
                ("doorward_revocations_total", "reason"),
                "Acts after which sessions are refused, by reason; one act may end several sessions.",
                &["logged_out", "revoked", "replaced"],
            ),
            limit_refusals: make.family(
                ("doorward_limit_refusals_total", "limit"),
                "Requests that a limit refused, by limit.",
                &["login_account", "login_address", "requests"],
            ),
            letters: make.family(
                ("doorward_letters_total", "outcome"),
                "Attempts at letters: sent, again (will be tried again), dropped (not needed any more) or dead (given up).",
                &["sent", "again", "dropped", "dead"],
            ),
            lookups: make.counter(
                "doorward_lookups_total",
                "Sessions asked for by authenticated requests.",
            ),
            lookups_per_batch: make.distribution(
                "doorward_lookups_per_batch",
                "Sessions that one statement of the database answered.",
                &BATCH_SESSIONS,
            ),
            lookup_seconds: make.distribution(
                "doorward_lookup_batch_duration_seconds",
                "How long a statement that looks sessions up took.",
                &LOOKUP_SECONDS,
            ),
            scrypt_runs: make.counter(
                "doorward_scrypt_runs_total",
                "Runs of scrypt, for right, wrong and unknown accounts alike.",
            ),
            scrypt_refused: make.counter(
                "doorward_scrypt_refused_total",
                "Password operations refused because the queue was full.",
            ),
            scrypt_waiting: make.level(
                "doorward_scrypt_waiting",
                "Password operations that wait for a thread.",
            ),
            scrypt_wait_seconds: make.distribution(
                "doorward_scrypt_wait_seconds",
                "How long password operations waited for a thread.",
                &SCRYPT_SECONDS,
            ),
            scrypt_run_seconds: make.distribution(
                "doorward_scrypt_run_seconds",
                "How long password operations took on their thread.",
                &SCRYPT_SECONDS,
            ),
            store_errors: make.family(
                ("doorward_store_errors_total", "class"),
                "Calls of the database that failed: unavailable (away or too slow), corrupt (a row that makes no sense) or refused (a statement it does not take).",
                &["unavailable", "corrupt", "refused"],
            ),
            database: DatabaseGauges::new(&make),
            pools: Pools::new(&make),
            circuit: CircuitMetrics::new(&make),
            canary: CanaryMetrics::new(&make),
            registry,
        }
    }

    /// Notes what a token or a cookie was worth: nothing for one that was accepted, or the code of the refusal.
    pub fn authenticated(&self, refusal: Option<&'static str>) {
        match refusal {
            None => self.authenticated.bump(),
            Some(code) => self.authentications.bump(code),
        }
    }

    /// Everything in the text format of Prometheus (version 0.0.4), with how these pools and this circuit
    /// are now.
    #[must_use]
    pub fn text(&self, pools: &[PoolUse], circuit: CircuitUse) -> String {
        let _alone = self
            .exporting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for pool in pools {
            self.pools.note(pool);
        }
        self.circuit.note(circuit);
        if let Some(process) = &self.process {
            process.read();
        }
        let written = TextEncoder::new().encode_to_string(&self.registry.gather());
        // Only what has neither a name nor a sample cannot be written.
        written.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_metric_can_be_made_and_written() {
        let metrics = Metrics::default();
        let pool = PoolUse {
            name: "main",
            in_use: 2,
            waits: 7,
            waited: Duration::from_millis(1500),
            ..PoolUse::default()
        };
        let circuit = CircuitUse {
            is_open: true,
            opened: 3,
            rejected: 40,
        };
        let _ = metrics.text(&[pool], circuit);
        let text = metrics.text(&[pool], circuit);
        for line in [
            "doorward_pool_connections{pool=\"main\",state=\"in_use\"} 2",
            "doorward_pool_waits_total{pool=\"main\"} 7",
            "doorward_pool_wait_seconds_total{pool=\"main\"} 1.5",
            "doorward_circuit_open 1",
            "doorward_circuit_opened_total 3",
            "doorward_circuit_rejected_total 40",
            "doorward_authentications_total{outcome=\"ok\"} 0",
        ] {
            assert!(
                text.lines().any(|written| written == line),
                "{line}\n{text}"
            );
        }
    }
}

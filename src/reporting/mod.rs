//! What others are told of this process: traces by OTLP, panics and errors by Sentry's protocol.
//!
//! Decides that nobody is told anything unless the configuration names them, and that nothing ever waits for them:
//! what finds no room in a queue is dropped and counted. What leaves is made of what [`crate::metrics`] and the log may
//! say and of less; which spans and which fields, is for the modules below.

#[cfg(any(feature = "otlp", feature = "sentry"))]
mod forwarding;
#[cfg(feature = "otlp")]
mod otlp;
#[cfg(feature = "sentry")]
mod sentry;
pub mod settings;

use std::time::Duration;

use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tracing_subscriber::{Layer, Registry};

use self::settings::{SentrySettings, TracingSettings};
use crate::{metrics::Reported, setting::BadSetting};

/// How long the last reports may take when the process ends.
const LAST_REPORTS: Duration = Duration::from_secs(3);

/// Listens to spans or events beside the log.
pub type Listening = Box<dyn Layer<Registry> + Send + Sync>;

/// Everybody who is told something.
pub struct Reporting {
    layers: Vec<Listening>,
    reported: Reported,
    over: watch::Sender<bool>,
    workers: Vec<JoinHandle<()>>,
}

impl Default for Reporting {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            reported: Reported::default(),
            over: watch::Sender::new(false),
            workers: Vec::new(),
        }
    }
}

impl Reporting {
    /// Begins to tell those whom the settings name; nobody is asked anything yet. `environment` is where this
    /// server stands, in a word. Call it on a tokio runtime.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn open(
        tracing: &TracingSettings,
        sentry: &SentrySettings,
        environment: &str,
    ) -> Result<Self, BadSetting> {
        tracing.check()?;
        sentry.check()?;
        #[cfg_attr(
            not(any(feature = "otlp", feature = "sentry")),
            expect(unused_mut, reason = "nobody is told anything in this build")
        )]
        let mut reporting = Self::default();
        #[cfg(feature = "otlp")]
        if tracing.otlp.is_on() {
            let outlet = reporting.outlet();
            let (layer, worker) = otlp::open(&tracing.otlp, environment, outlet)?;
            reporting.layers.push(layer);
            reporting.workers.push(worker);
        }
        #[cfg(feature = "sentry")]
        if sentry.is_on() {
            let outlet = reporting.outlet();
            let (layer, worker) = sentry::open(sentry, environment, outlet)?;
            reporting.layers.push(layer);
            reporting.workers.push(worker);
        }
        let _ = environment;
        Ok(reporting)
    }

    #[cfg(any(feature = "otlp", feature = "sentry"))]
    fn outlet(&self) -> forwarding::Outlet {
        forwarding::Outlet {
            reported: self.reported.clone(),
            over: self.over.subscribe(),
        }
    }

    /// What has to be told of spans and events; empty where nobody listens.
    pub fn layers(&mut self) -> Vec<Listening> {
        std::mem::take(&mut self.layers)
    }

    /// Counts of what was told.
    #[must_use]
    pub fn reported(&self) -> Reported {
        self.reported.clone()
    }

    /// Sends what waits, for three seconds at the most.
    pub async fn finish(self) {
        self.over.send_replace(true);
        let last = futures_util::future::join_all(self.workers);
        // Whoever does not take them now misses them.
        let _ = timeout(LAST_REPORTS, last).await;
    }
}

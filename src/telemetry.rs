//! Logs: for people or for machines, always to standard error, in UTC.
//!
//! What is logged is decided where it happens; no address, password or token is ever passed here
//! (ASVS 16.2.5). Libraries that log through the `log` crate are not listened to: the PostgreSQL driver
//! writes down every parameter of every statement there.

use std::{
    io::{self, IsTerminal},
    panic,
};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, filter::filter_fn, layer::SubscriberExt, util::SubscriberInitExt,
};

use crate::config::{Environment, LogFormat, LogLevel, LogSettings};

/// Starts writing log lines. `RUST_LOG` overrides the level for single modules.
///
/// A second call changes nothing: the process has one log.
pub fn start(settings: &LogSettings, environment: Environment) {
    let level = match settings.level {
        LogLevel::Off => "off",
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV) {
        Ok(finer) if !finer.is_empty() => EnvFilter::new(format!("{level},{finer}")),
        _ => EnvFilter::new(level),
    };
    let for_people = match settings.format {
        LogFormat::Pretty => true,
        LogFormat::Json => false,
        LogFormat::Auto => environment == Environment::Development || io::stderr().is_terminal(),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines = if for_people {
        lines.with_ansi(io::stderr().is_terminal()).boxed()
    } else {
        lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed()
    };
    let log = tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .with(filter_fn(may_be_logged));
    // An error here means that a log was started before; it goes on.
    if log.try_init().is_ok() {
        panic::set_hook(Box::new(|panic| {
            // The message may repeat a value, and would break a log of JSON lines.
            let place = panic.location().map(ToString::to_string);
            tracing::error!(place, "panicked");
        }));
    }
}

/// The web framework names its clients' addresses when it closes idle connections.
fn may_be_logged(about: &Metadata<'_>) -> bool {
    !about.target().starts_with("poem") || *about.level() <= Level::WARN
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn what_names_clients_is_not_written() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&written);
        let log = tracing_subscriber::registry()
            .with(tracing_subscriber::fmt::layer().with_writer(move || Sink(Arc::clone(&sink))))
            .with(filter_fn(may_be_logged));
        tracing::subscriber::with_default(log, || {
            tracing::info!(target: "poem::server", remote_addr = "203.0.113.77", "closing");
            tracing::warn!(target: "poem::server", "a warning");
            tracing::info!("answered");
        });
        let written = String::from_utf8(written.lock().expect("no panic").clone()).expect("text");
        assert!(!written.contains("203.0.113.77"), "{written}");
        assert!(
            written.contains("a warning") && written.contains("answered"),
            "{written}"
        );
    }

    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

//! Logs: for people or for machines, always to standard error, in UTC.
//!
//! What is logged is decided where it happens; no address, password or token is ever passed here.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

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
    let lines = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(filter);
    // An error here means that a log was started before; it goes on.
    let _ = if for_people {
        lines.with_ansi(io::stderr().is_terminal()).try_init()
    } else {
        lines
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .try_init()
    };
}

//! Logs: for people or for machines, always to standard error, in UTC; and who else listens to what happens.
//!
//! What is logged is decided where it happens; no address, password or token is ever passed here
//! (ASVS 16.2.5). Libraries that log through the `log` crate are not listened to: the PostgreSQL driver
//! writes down every parameter of every statement there.

use std::{
    io::{self, IsTerminal},
    panic::{self, PanicHookInfo},
};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::{
    config::{Environment, LogFormat, LogLevel, LogSettings},
    reporting::Listening,
    spans,
};

/// Starts writing log lines, and lets `others` listen. `RUST_LOG` overrides the level for single modules.
///
/// A second call changes nothing: the process has one log.
pub fn start(settings: &LogSettings, environment: Environment, others: Vec<Listening>) {
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
    let (registry, finer) = (tracing_subscriber::registry(), filter_fn(may_be_logged));
    let started = if others.is_empty() {
        // Filters of all cost less than those of one layer.
        registry.with(lines).with(filter).with(finer).try_init()
    } else {
        let lines = lines.with_filter(filter.and(finer)).boxed();
        let all: Vec<_> = [lines].into_iter().chain(others).collect();
        registry.with(all).try_init()
    };
    // An error here means that a log was started before; it goes on.
    if started.is_ok() {
        panic::set_hook(Box::new(note_panic));
    }
}

/// The message may repeat a value, and would break a log of JSON lines.
fn note_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string);
    tracing::error!(place, "panicked");
}

/// The web framework names its clients' addresses when it closes idle connections; and spans below those of requests
/// are not for the log.
fn may_be_logged(about: &Metadata<'_>) -> bool {
    let from = |target| about.target().starts_with(target);
    match *about.level() {
        Level::TRACE if from(spans::TARGET) => false,
        level => !from("poem") || level <= Level::WARN,
    }
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
            spans::database("open_session").in_scope(|| tracing::warn!("within a call"));
        });
        let written = String::from_utf8(written.lock().expect("no panic").clone()).expect("text");
        assert!(!written.contains("203.0.113.77"), "{written}");
        assert!(
            written.contains("a warning") && written.contains("within a call"),
            "{written}"
        );
        assert!(!written.contains("open_session"), "{written}");
    }

    /// A panic is told with its place and its request, and without its message, which may repeat a value.
    #[cfg(feature = "sentry")]
    #[tokio::test]
    async fn a_panic_is_told_without_what_it_says() {
        use tokio::{
            io::{AsyncReadExt, AsyncWriteExt},
            net::TcpListener,
        };

        use crate::reporting::{
            Reporting,
            settings::{SentrySettings, TracingSettings},
        };

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let sentry = SentrySettings {
            dsn: format!("http://key@{address}/7").into(),
            ..SentrySettings::default()
        };
        let reporting = Reporting::open(&TracingSettings::default(), &sentry, "test");
        let mut reporting = reporting.expect("settings that hold");
        let all = tracing_subscriber::registry().with(reporting.layers());
        tracing::subscriber::with_default(all, || {
            spans::request("request-4711", &"GET").in_scope(|| {
                let before = panic::take_hook();
                panic::set_hook(Box::new(note_panic));
                let panicked = panic::catch_unwind(|| panic!("canary"));
                panic::set_hook(before);
                assert!(panicked.is_err());
            });
        });
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut said = String::new();
        while !said.contains("panicked") {
            let mut piece = vec![0; 4096];
            let read = stream.read(&mut piece).await.expect("a request");
            assert!(read > 0, "{said}");
            said.push_str(&String::from_utf8_lossy(&piece[..read]));
        }
        let taken = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(taken).await.expect("answered");
        let reported = reporting.reported();
        reporting.finish().await;
        assert_eq!(reported.sent.get("errors"), 1);
        for wanted in ["request-4711", "src/telemetry.rs:", "doorward@"] {
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
        assert!(!said.contains("canary"), "{said}");
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

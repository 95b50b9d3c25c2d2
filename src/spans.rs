//! Spans: what became of a request, a letter, a call of the database or a hash, and how long it took.
//!
//! Decides which spans there are and what they say: names that stand in the source, routes as the router writes them,
//! numbers and ids, never what a client sent. They are spans of `tracing`, below the level of any log by default; where
//! nobody follows them none is made. Where they are sent is for `reporting`, or for the subscriber of an app that
//! embeds Doorward.

use std::fmt::Display;

use tracing::{Level, Span, field, info_span, trace_span};

/// The target of all spans.
#[cfg(feature = "server")]
pub(crate) const TARGET: &str = module_path!();
/// Whoever enables this target gets a span of every request, not only of those that log something.
pub(crate) const EVERY_REQUEST: &str = "doorward::spans::every_request";

/// The method of a request, in the words of OpenTelemetry's semantic conventions.
#[cfg(feature = "otlp")]
pub(crate) const METHOD: &str = "http.request.method";
/// The route as it stands in the router.
#[cfg(feature = "otlp")]
pub(crate) const ROUTE: &str = "http.route";
/// The status of the answer.
#[cfg(feature = "otlp")]
pub(crate) const STATUS: &str = "http.response.status_code";

/// Whether anybody wants a span of every request. Where nobody does it costs a load and a comparison.
pub(crate) fn are_followed() -> bool {
    tracing::span_enabled!(target: EVERY_REQUEST, Level::TRACE)
}

/// Whether anybody wants spans of what is done for a request.
pub(crate) fn are_wanted() -> bool {
    tracing::span_enabled!(Level::TRACE)
}

/// A request. Its lines in the log have it, too, so it holds no more than they shall say.
pub(crate) fn request(id: &str, method: &impl Display) -> Span {
    info_span!("request", %id, %method)
}

/// A call of the database by somebody who waits for it.
pub(crate) fn database(operation: &'static str) -> Span {
    trace_span!("database", operation, failure = field::Empty)
}

/// A call that failed, by class.
pub(crate) fn failed(span: &Span, class: &'static str) {
    span.record("failure", class);
}

/// A password that waits for a thread.
pub(crate) fn scrypt_wait() -> Span {
    trace_span!("scrypt_wait")
}

/// A password that a thread works on, for whoever `parent` is about.
pub(crate) fn scrypt_run(parent: &Span) -> Span {
    trace_span!(parent: parent, "scrypt_run")
}

/// One attempt at one letter.
pub(crate) fn letter(id: &impl Display, kind: &'static str) -> Span {
    trace_span!("letter", %id, kind, outcome = field::Empty)
}

/// How an attempt at a letter ended.
pub(crate) fn settled(span: &Span, outcome: &'static str) {
    span.record("outcome", outcome);
}

/// Handing a letter to whoever carries it.
pub(crate) fn sending() -> Span {
    trace_span!("send_letter")
}

/// A question to the breach service.
#[cfg(feature = "breach")]
pub(crate) fn breach() -> Span {
    trace_span!("breach_service")
}

/// Makes a request part of the trace that its `traceparent` (W3C Trace Context §3.2) names. For requests of those
/// whose word counts only: it also says whether the trace is kept. `tracestate` is not looked at, since it may hold
/// anything. The span must not have been entered yet.
#[cfg(feature = "otlp")]
pub(crate) fn continues(span: &Span, traceparent: &str) {
    use opentelemetry::{
        propagation::{Extractor, TextMapPropagator},
        trace::TraceContextExt,
    };
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    struct Only<'a>(&'a str);

    impl Extractor for Only<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            (key == "traceparent").then_some(self.0)
        }

        fn keys(&self) -> Vec<&str> {
            vec!["traceparent"]
        }
    }

    let parent = TraceContextPropagator::new().extract(&Only(traceparent));
    if parent.span().span_context().is_valid() {
        // A span that nobody follows has no parent either.
        let _ = span.set_parent(parent);
    }
}

/// Nobody follows traces in this build.
#[cfg(not(feature = "otlp"))]
pub(crate) fn continues(_span: &Span, _traceparent: &str) {}

/// What a request was answered. It stands in no log line: those have words of their own.
#[cfg(feature = "otlp")]
pub(crate) fn answered(span: &Span, method: &'static str, route: Option<&str>, status: u16) {
    use opentelemetry::trace::Status;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    span.set_attribute(METHOD, method);
    if let Some(route) = route {
        span.set_attribute(ROUTE, route.to_owned());
    }
    span.set_attribute(STATUS, i64::from(status));
    if status >= 500 {
        span.set_status(Status::error(""));
    }
}

/// Nobody is told in this build.
#[cfg(not(feature = "otlp"))]
pub(crate) fn answered(_span: &Span, _method: &'static str, _route: Option<&str>, _status: u16) {}

#[cfg(all(test, feature = "server"))]
mod tests {
    use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, registry};

    use super::*;

    #[test]
    fn where_nobody_follows_no_span_is_made() {
        let log = |filter| {
            registry()
                .with(fmt::layer().with_writer(std::io::sink))
                .with(EnvFilter::new(filter))
        };
        let made = || {
            let below = [database("x"), scrypt_wait(), sending(), letter(&1, "x")];
            let below = below.iter().filter(|span| !span.is_disabled()).count();
            (are_followed(), below, !request("1", &"GET").is_disabled())
        };
        let within = |filter| tracing::subscriber::with_default(log(filter), made);
        assert_eq!(within("info"), (false, 0, true));
        assert_eq!(within("doorward::spans=trace"), (true, 4, true));
    }
}

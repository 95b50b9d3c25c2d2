//! Panics and errors, sent to Sentry or to what speaks as it does.
//!
//! Decides what is an event there (a line that this program logs as an error, panics among them) and what it says: the
//! line's own sentence, where it was logged, the id of the request and a few fields, searched for what could be
//! somebody's. No body, no header, no user, no stack: `send_default_pii` is false, and nothing of it is collected.

use std::{
    fmt::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use poem::http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_TYPE};
use sentry_core::{
    Client, ClientOptions, Envelope, Transport,
    protocol::{Event, Level},
    types::Dsn,
};
use tokio::task::JoinHandle;
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, filter::filter_fn, layer::Context, registry::LookupSpan};

use super::{
    Listening,
    forwarding::{Outlet, Queue, Way},
    settings::{SentrySettings, bad_dsn},
};
use crate::{
    outbound::{self, Trusted},
    setting::BadSetting,
    spans,
};

const DSN: &str = "sentry.dsn";
/// As metrics call them.
const WHAT: &str = "errors";
/// Errors that may wait.
const ROOM: usize = 64;
/// After each: a storm of errors says the same again and again.
const REST: Duration = Duration::from_millis(100);
/// How this program calls itself there.
const AGENT: &str = concat!("doorward/", env!("CARGO_PKG_VERSION"));
/// Fields that are told, beside the sentence. Ids of users, sessions and letters are not.
const FIELDS: [&str; 8] = [
    "place", "what", "status", "code", "cause", "error", "kind", "found",
];
/// Longest text of a field, in characters.
const LONGEST: usize = 500;

/// Listens to errors and sends them.
pub(super) fn open(
    settings: &SentrySettings,
    environment: &str,
    outlet: Outlet,
) -> Result<(Listening, JoinHandle<()>), BadSetting> {
    let dsn: Dsn = settings.dsn.expose().parse().map_err(|_| bad_dsn())?;
    let url = dsn.envelope_api_url();
    let auth = HeaderValue::try_from(dsn.to_auth(Some(AGENT)).to_string());
    let mut auth = auth.map_err(|_| bad_dsn())?;
    auth.set_sensitive(true);
    let envelope = HeaderValue::from_static("application/x-sentry-envelope");
    let headers = HeaderMap::from_iter([
        (HeaderName::from_static("x-sentry-auth"), auth),
        (CONTENT_TYPE, envelope),
    ]);
    let trusted = Trusted::File {
        key: "sentry.ca_file",
        path: &settings.ca_file,
    };
    let client = outbound::client(DSN, &url, trusted)?.build();
    let way = Way {
        what: WHAT,
        client: client.map_err(|_| bad_dsn())?,
        url,
        headers,
        room: ROOM,
        together: 1,
        linger: Duration::ZERO,
        rest: REST,
    };
    let (queue, worker) = way.open(outlet, packed);
    let environment = match settings.environment.as_str() {
        "" => environment,
        named => named,
    };
    let tracker = Tracker::new(dsn, environment, settings.sample, queue);
    Ok((tracker.with_filter(filter_fn(is_told)).boxed(), worker))
}

/// Errors of this program, and the requests they belong to. Those of libraries may say anything.
fn is_told(about: &Metadata<'_>) -> bool {
    if about.is_span() {
        let is_request = about.target() == spans::TARGET && about.name() == "request";
        return is_request || about.target() == spans::EVERY_REQUEST;
    }
    let target = about.target();
    *about.level() == tracing::Level::ERROR
        && (target == "doorward" || target.starts_with("doorward::"))
}

fn packed(envelopes: Vec<Envelope>) -> Vec<u8> {
    let mut body = Vec::new();
    for envelope in envelopes {
        // Writing to memory does not fail.
        let _ = envelope.to_writer(&mut body);
    }
    body
}

struct Waiting(Queue<Envelope>);

impl Transport for Waiting {
    fn send_envelope(&self, envelope: Envelope) {
        self.0.offer(envelope);
    }
}

/// Makes events of errors.
struct Tracker(Client);

/// The id of a request, kept with its span.
struct RequestId(String);

impl Tracker {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a share from 0 to 1 loses nothing that matters"
    )]
    fn new(dsn: Dsn, environment: &str, share: f64, queue: Queue<Envelope>) -> Self {
        let mut options = ClientOptions::new()
            .release(concat!("doorward@", env!("CARGO_PKG_VERSION")))
            .environment(environment.to_owned())
            .sample_rate(share as f32)
            .send_default_pii(false)
            .default_integrations(false)
            .transport(Arc::new(Waiting(queue)));
        options.dsn = Some(dsn);
        Self(Client::with_options(options))
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Tracker {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, all: Context<'_, S>) {
        let mut said = Said::default();
        attributes.record(&mut said);
        if let (Some(id), Some(span)) = (said.take("id"), all.span(id)) {
            span.extensions_mut().insert(RequestId(id));
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, all: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let mut scope = all.event_scope(event).into_iter().flatten();
        let request = scope.find_map(|span| Some(span.extensions().get::<RequestId>()?.0.clone()));
        let mut told = Event {
            level: Level::Error,
            message: said.take("message"),
            logger: Some(event.metadata().target().to_owned()),
            ..Event::default()
        };
        told.tags
            .extend(request.map(|id| ("request_id".into(), id)));
        let fields = said.0.into_iter();
        let fields = fields.filter(|(name, _)| FIELDS.contains(name));
        let fields = fields.map(|(name, text)| (name.to_owned(), text.into()));
        told.extra.extend(fields);
        self.0.capture_event(told, None);
    }
}

/// The fields of an event or a span, each searched.
#[derive(Default)]
struct Said(Vec<(&'static str, String)>);

impl Said {
    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| *found == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a text fails only where the value does.
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // A request's id is ours, or was found to be plain.
        let text = match field.name() {
            "id" => value.to_owned(),
            _ => searched(value),
        };
        self.0.push((field.name(), text));
    }
}

/// A text without what could be somebody's: the log says nothing of the kind, and this is looked at by others.
fn searched(text: &str) -> String {
    let ends = |c: char| c.is_whitespace() || "\"'`()[]{}<>,;=".contains(c);
    let mut told = String::new();
    for piece in text.split_inclusive(ends) {
        let word = piece.trim_end_matches(ends);
        told.push_str(if gives_away(word) { "***" } else { word });
        told.push_str(&piece[word.len()..]);
    }
    match told.char_indices().nth(LONGEST) {
        Some((end, _)) => told[..end].to_owned(),
        None => told,
    }
}

/// Whether a word may be an address, an id or a secret.
fn gives_away(word: &str) -> bool {
    /// Secrets and ids are longer than words.
    const OPAQUE: usize = 20;
    let in_secrets = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let mut runs = word.split(|c: char| !in_secrets(c));
    word.contains('@')
        || word.trim_end_matches(['.', ':']).parse::<IpAddr>().is_ok()
        || word.parse::<SocketAddr>().is_ok()
        || runs.any(|run| run.len() >= OPAQUE && run.contains(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_may_be_somebodys_do_not_leave() {
        for (said, told) in [
            (
                "duplicate key (email)=(ann@example.org)",
                "duplicate key (email)=(***)",
            ),
            ("from 203.0.113.77: refused", "from *** refused"),
            ("[::1]:5432 and 10.0.0.1:5432", "[***]:5432 and ***"),
            ("postgres://ann:hunter2@db/doorward", "***"),
            ("token=eyJ0eXAiOiJhdCtqd3QifQ.e30.abc", "token=***"),
            ("`dwr_AVN2abcdefghijklmnopq`", "`***`"),
            (
                "corrupt row: users.status of 01a1fd23-b0ca-7417-a94c-f87afc9a863a",
                "corrupt row: users.status of ***",
            ),
            ("src/http/edge.rs:215:22", "src/http/edge.rs:215:22"),
            ("a handler panicked", "a handler panicked"),
        ] {
            assert_eq!(searched(said), told);
        }
        assert_eq!(searched(&"ä ".repeat(LONGEST)).chars().count(), LONGEST);
    }
}

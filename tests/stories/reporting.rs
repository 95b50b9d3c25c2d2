//! What others are told of a server: where the time of a request went and what broke, never of whom; and that nobody
//! waits for them.

use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    for_each_store,
    harness::{
        app::{Client, PASSWORD, Reply},
        authority::Authority,
        backend::{Backend, Database},
        collector::{Collector, Spans, attributes},
        until,
    },
    program::{KEY, Place, Serving, borrowed, serving},
};

for_each_store! {
    a_request_is_followed_and_nobody_is_named,
}

const EMAIL: &str = "canary.ann@example.org";
/// The client's, as a proxy tells it.
const ADDRESS: &str = "203.0.113.77";
/// What opens the collector.
const HEADER: &str = "sesame";
/// A trace that a proxy began and keeps.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
/// All attributes that there are.
const ATTRIBUTES: [&str; 9] = [
    "db.operation.name",
    "doorward.letter.id",
    "doorward.letter.kind",
    "doorward.letter.outcome",
    "doorward.request_id",
    "error.type",
    "http.request.method",
    "http.response.status_code",
    "http.route",
];

type Variables = Vec<(&'static str, String)>;

/// A server that tells these two, and trusts its neighbours.
fn telling(database: &Database, traces: &Collector, errors: &Collector) -> Variables {
    let mut variables = serving(database);
    for (name, value) in [
        ("DOORWARD__HTTP__TRUSTED_PROXIES", "127.0.0.0/8".to_owned()),
        ("DOORWARD__CANARY__EVERY", "0s".to_owned()),
        ("DOORWARD__MAIL__TRANSPORT", "memory".to_owned()),
        ("DOORWARD__MAIL__FROM", "no-reply@example.org".to_owned()),
        (
            "DOORWARD__TRACING__OTLP__ENDPOINT",
            format!("http://{}/", traces.address),
        ),
        (
            "DOORWARD__TRACING__OTLP__HEADERS",
            format!("x-key={HEADER}"),
        ),
        (
            "DOORWARD__SENTRY__DSN",
            format!("http://key@{}/7", errors.address),
        ),
    ] {
        variables.push((name, value));
    }
    variables
}

fn client_of(server: &Serving) -> Client {
    let mut client = Client::anonymous(&format!("http://{}", server.address));
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("x-forwarded-for", ADDRESS.parse().expect("a header"));
    headers.insert("user-agent", "canary".parse().expect("a header"));
    let http = reqwest::Client::builder().default_headers(headers);
    client.http = http.build().expect("a client");
    client
}

/// Asks for oneself as a part of somebody's trace.
async fn me_within(client: &Client, traceparent: &str) -> Reply {
    let asked = client.http.get(format!("{}/v1/auth/me", client.url));
    let asked = asked.header("traceparent", traceparent);
    let asked = asked
        .header("tracestate", "canary=1")
        .bearer_auth(client.token());
    Reply::of(asked.send().await.expect("answered")).await
}

fn stop(mut server: Serving) {
    server.signal(Signal::TERM);
    assert_eq!(server.wait(), Some(0));
}

fn id_of(hexadecimal: &str) -> Vec<u8> {
    let digits = (0..hexadecimal.len()).step_by(2);
    let bytes = digits.map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16));
    bytes.map(|byte| byte.expect("digits")).collect()
}

fn kind(span: &Span) -> SpanKind {
    span.kind()
}

fn failed(span: &Span) -> bool {
    span.status.as_ref().expect("a status").code() == StatusCode::Error
}

/// What was lived through: a client, and the ids of an account and of two of its requests.
struct Lived {
    ann: Client,
    id: uuid::Uuid,
    request_id: String,
    broken_id: String,
}

/// ASVS 14.2.3, 16.2.5.
async fn a_request_is_followed_and_nobody_is_named(database: Database) {
    let collector = Collector::answering(Some(200)).await;
    let place = Place::new();
    let server = place.serve(&borrowed(&telling(&database, &collector, &collector)));
    let lived = live(client_of(&server), &database).await;
    // What waits is told before it ends.
    stop(server);
    requests_are_followed(&collector.spans(), &lived);
    logins_and_letters_are_followed(&collector.spans());
    nothing_else_is_said(&collector.spans());
    an_error_names_its_request(&collector.errors(), &lived);
    nobody_is_named(&collector, &lived);
}

async fn live(anonymous: Client, database: &Database) -> Lived {
    let account = json!({"email": EMAIL, "username": "canary_name", "password": PASSWORD});
    let registered = anonymous.post("/v1/auth/register", account).await;
    let id = registered.expect(201)["id"].clone();
    let ann = anonymous.log_in(EMAIL, PASSWORD).await;
    anonymous
        .try_log_in(EMAIL, "canary wrong")
        .await
        .expect(401);
    let me = me_within(&ann, &format!("00-{TRACE}-{PARENT}-01")).await;
    let request_id = me.header("x-request-id").expect("an id").to_owned();
    me.expect(200);
    ann.get("/v1/auth/check").await.expect(200);
    ann.get("/v1/auth/sessions?q=canary").await.expect(200);
    anonymous.get("/canary_path").await.expect(404);
    anonymous.get("/health/live").await.expect(200);
    let strange = Method::from_bytes(b"CANARY").expect("a method");
    assert_eq!(ann.send(strange, "/v1/auth/me", None).await.status, 405);
    until("the letter is sent", async || {
        let shown = anonymous.get("/metrics").await.text;
        !shown.contains("doorward_letters_total{outcome=\"sent\"} 0")
    })
    .await;
    let id: uuid::Uuid = id.as_str().expect("an id").parse().expect("a UUID");
    database.corrupt_user_row(id.into()).await;
    let broken = ann.me().await;
    let broken_id = broken.header("x-request-id").expect("an id").to_owned();
    assert_eq!(broken.status, 500);
    Lived {
        ann,
        id,
        request_id,
        broken_id,
    }
}

fn requests_are_followed(spans: &Spans, lived: &Lived) {
    assert_eq!(spans.resource["service.name"], "doorward");
    assert_eq!(spans.resource["deployment.environment.name"], "test");
    let followed = spans.named("GET /v1/auth/me");
    let of_id = |wanted: &str| {
        let mut found = followed.iter().copied();
        let wanted =
            found.find(|span| attributes(&span.attributes)["doorward.request_id"] == wanted);
        wanted.expect("the span of the request")
    };
    let me = of_id(&lived.request_id);
    assert_eq!(
        (&me.trace_id, &me.parent_span_id),
        (&id_of(TRACE), &id_of(PARENT))
    );
    assert_eq!((kind(me), failed(me)), (SpanKind::Server, false));
    let said = attributes(&me.attributes);
    assert_eq!(said["http.response.status_code"], "200");
    assert_eq!((said.len(), me.trace_state.as_str()), (4, ""));
    assert_eq!(spans.within(me), ["live_sessions"]);
    let broken = of_id(&lived.broken_id);
    assert!(failed(broken) && broken.parent_span_id.is_empty());
    let lookups = spans.named("live_sessions");
    let mut of_broken = lookups
        .iter()
        .filter(|span| span.parent_span_id == broken.span_id);
    let lookup = of_broken.next().expect("the lookup of the session");
    assert_eq!(attributes(&lookup.attributes)["error.type"], "corrupt");
    assert_eq!((kind(lookup), failed(lookup)), (SpanKind::Client, true));
    assert_eq!(
        spans.within(spans.named("GET /v1/auth/check")[0]),
        ["live_sessions"]
    );
    // What the router does not know, and what no client names.
    assert_eq!(
        (
            spans.named("GET").len(),
            spans.named("other /v1/auth/me").len()
        ),
        (1, 1)
    );
    assert!(spans.named("GET /health/live").is_empty());
}

fn logins_and_letters_are_followed(spans: &Spans) {
    let logins = spans.named("POST /v1/auth/login");
    for login in &logins {
        let within = spans.within(login);
        for wanted in ["user_by_login", "scrypt_wait", "scrypt_run"] {
            assert!(within.contains(&wanted), "{wanted}: {within:?}");
        }
    }
    assert_eq!(logins.len(), 2);
    let letter = spans.named("letter")[0];
    assert_eq!(
        attributes(&letter.attributes)["doorward.letter.outcome"],
        "sent"
    );
    let within = spans.within(letter);
    assert!(
        within.contains(&"prepare_letter") && within.contains(&"send_letter"),
        "{within:?}"
    );
}

fn nothing_else_is_said(spans: &Spans) {
    for span in &spans.spans {
        for name in attributes(&span.attributes).keys() {
            assert!(ATTRIBUTES.contains(&name.as_str()), "{name}");
        }
        assert!(span.events.is_empty() && span.links.is_empty(), "{span:?}");
        let begins = span.parent_span_id.is_empty();
        let may_begin = kind(span) == SpanKind::Server || span.name == "letter";
        assert!(!begins || may_begin, "{span:?}");
    }
}

fn an_error_names_its_request(errors: &[Value], lived: &Lived) {
    let error = errors
        .iter()
        .find(|error| error["tags"]["request_id"] == lived.broken_id.as_str());
    let error = error.expect("the error of the request");
    assert_eq!(error["message"], "request failed");
    assert_eq!(error["environment"], "test");
    // Without a level it is an error.
    for absent in [
        "level",
        "user",
        "request",
        "server_name",
        "breadcrumbs",
        "contexts",
    ] {
        assert!(error.get(absent).is_none(), "{absent}: {error}");
    }
}

fn nobody_is_named(collector: &Collector, lived: &Lived) {
    let (ann, id) = (&lived.ann, lived.id.to_string());
    let signature = ann
        .token()
        .rsplit('.')
        .next()
        .expect("a signature")
        .to_owned();
    for sent in collector.sent() {
        match sent.path.as_str() {
            "/v1/traces" => assert_eq!(sent.headers["x-key"], HEADER),
            _ => assert!(sent.headers["x-sentry-auth"].contains("sentry_key=key")),
        }
        let said = format!("{:?} {}", sent.headers, String::from_utf8_lossy(&sent.body));
        for secret in [
            "canary",
            PASSWORD,
            KEY,
            &signature,
            ann.refresh_token(),
            ADDRESS,
            &id,
            "127.0.0.1",
        ] {
            let said = said.replace(&collector.address, "");
            assert!(!said.contains(secret), "{secret}: {said}");
        }
    }
}

/// Whoever keeps a trace pays for it: a stranger's word does not count, and a proxy's does.
#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_have_their_traces_kept() {
    for (trusted, wanted) in [("", 0), ("127.0.0.0/8", 1)] {
        let database = Database::fresh(Backend::Sqlite).await;
        let collector = Collector::answering(Some(200)).await;
        let mut variables = telling(&database, &collector, &collector);
        variables.push(("DOORWARD__HTTP__TRUSTED_PROXIES", trusted.to_owned()));
        variables.push(("DOORWARD__TRACING__OTLP__SAMPLE", "0".to_owned()));
        let place = Place::new();
        let server = place.serve(&borrowed(&variables));
        let client = client_of(&server);
        for flags in ["01", "00"] {
            let asked = client.http.get(format!("{}/canary", client.url));
            let asked = asked.header("traceparent", format!("00-{TRACE}-{PARENT}-{flags}"));
            assert_eq!(asked.send().await.expect("answered").status(), 404);
        }
        stop(server);
        let spans = collector.spans();
        assert_eq!(spans.named("GET").len(), wanted, "{trusted}");
        assert_eq!(spans.spans.len(), wanted, "{trusted}");
    }
}

/// One refuses and the other never answers: nobody notices but whoever reads the metrics.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_those_who_are_told() {
    let database = Database::fresh(Backend::Sqlite).await;
    let refusing = Collector::answering(Some(400)).await;
    let silent = Collector::answering(None).await;
    let place = Place::new();
    let server = place.serve(&borrowed(&telling(&database, &refusing, &silent)));
    let client = client_of(&server);
    let account = json!({"email": EMAIL, "password": PASSWORD});
    let registered = client.post("/v1/auth/register", account).await.expect(201);
    let ann = client.log_in(EMAIL, PASSWORD).await;
    let id = registered["id"].as_str().expect("an id");
    let id: uuid::Uuid = id.parse().expect("a UUID");
    database.corrupt_user_row(id.into()).await;
    assert_eq!(ann.me().await.status, 500);
    until("the loss is counted", async || {
        let shown = client.get("/metrics").await.text;
        let mut dropped = shown.lines().filter_map(|line| {
            line.strip_prefix("doorward_reports_dropped_total{what=\"spans\"} ")
        });
        dropped.next().is_some_and(|count| count != "0")
    })
    .await;
    until("the other was asked", async || !silent.sent().is_empty()).await;
    assert!(!refusing.sent().is_empty());
    stop(server);
}

/// ASVS 12.3.2: one's own collector shows what one's own authority certified, and nobody else is told anything.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_told_is_known_by_an_authority_of_ones_own() {
    let authority = Authority::new();
    let collector = Collector::certified(&authority.certify(&["127.0.0.1"])).await;
    for (trusted, told) in [(&Authority::new(), 0), (&authority, 1)] {
        let database = Database::fresh(Backend::Sqlite).await;
        let place = Place::new();
        let ca_file = place.write("ca.pem", &trusted.certificate);
        let ca_file = ca_file.display().to_string();
        let mut variables = telling(&database, &collector, &collector);
        for (name, value) in [
            (
                "DOORWARD__TRACING__OTLP__ENDPOINT",
                format!("https://{}", collector.address),
            ),
            ("DOORWARD__TRACING__OTLP__CA_FILE", ca_file.clone()),
            (
                "DOORWARD__SENTRY__DSN",
                format!("https://key@{}/7", collector.address),
            ),
            ("DOORWARD__SENTRY__CA_FILE", ca_file),
        ] {
            variables.push((name, value));
        }
        let server = place.serve(&borrowed(&variables));
        let client = client_of(&server);
        let account = json!({"email": EMAIL, "password": PASSWORD});
        let registered = client.post("/v1/auth/register", account).await.expect(201);
        let ann = client.log_in(EMAIL, PASSWORD).await;
        let id = registered["id"].as_str().expect("an id");
        let id: uuid::Uuid = id.parse().expect("a UUID");
        database.corrupt_user_row(id.into()).await;
        assert_eq!(ann.me().await.status, 500);
        // What waits is told before it ends.
        stop(server);
        let spans = collector.spans();
        assert_eq!(spans.named("GET /v1/auth/me").len(), told);
        assert_eq!(collector.errors().len(), told);
    }
}

//! Whoever is told by OTLP and by Sentry's protocol, played by a small server that remembers what it was sent.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use doorward::{
    clock::SystemClock,
    http::{HttpSettings, TlsSettings},
    server::{listener::Listener, tls::Tls},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value as Known,
    trace::v1::Span,
};
use poem::{Endpoint, Request, Response, http::StatusCode};
use prost::Message;
use serde_json::Value;

use super::authority::Certificate;
use crate::program::Place;

/// One thing that it was sent.
#[derive(Debug, Clone)]
pub struct Sent {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// Takes everything with one status, or nothing at all.
#[derive(Clone)]
pub struct Collector {
    status: Option<StatusCode>,
    sent: Arc<Mutex<Vec<Sent>>>,
    pub address: String,
}

impl Collector {
    /// Answers with this status; without one, never.
    pub async fn answering(status: Option<u16>) -> Self {
        Self::listening(status, None).await
    }

    /// Takes everything over TLS, and shows this.
    pub async fn certified(certificate: &Certificate) -> Self {
        // An error means that there is a provider already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let place = Place::new();
        let file = |name, text| place.write(name, text).display().to_string();
        let settings = TlsSettings {
            cert_file: file("cert.pem", &certificate.certificate),
            key_file: file("key.pem", &certificate.key),
            ..TlsSettings::default()
        };
        let tls = Tls::open(&settings, Arc::new(SystemClock::new())).expect("a pair");
        Self::listening(Some(200), tls).await
    }

    async fn listening(status: Option<u16>, tls: Option<Arc<Tls>>) -> Self {
        let http = HttpSettings::default();
        let listener = Listener::bind(("", "127.0.0.1:0"), &http, tls).await;
        let listener = listener.expect("a free port");
        let collector = Self {
            status: status.map(|status| StatusCode::from_u16(status).expect("a status")),
            sent: Arc::default(),
            address: listener.address().to_string(),
        };
        tokio::spawn(listener.serve(collector.clone(), pending(), Duration::ZERO));
        collector
    }

    pub fn sent(&self) -> Vec<Sent> {
        self.sent.lock().expect("whole").clone()
    }

    /// All spans, with the attributes of what sent them.
    pub fn spans(&self) -> Spans {
        let traces = self.sent().into_iter();
        let traces = traces.filter(|sent| sent.path == "/v1/traces");
        let traces = traces.map(|sent| {
            assert_eq!(sent.headers["content-type"], "application/x-protobuf");
            ExportTraceServiceRequest::decode(&*sent.body).expect("OTLP")
        });
        let resources = traces.flat_map(|request| request.resource_spans);
        let mut all = Spans::default();
        for of_one in resources {
            let resource = of_one.resource.expect("a resource");
            all.resource = attributes(&resource.attributes);
            let spans = of_one.scope_spans.into_iter();
            all.spans.extend(spans.flat_map(|scope| scope.spans));
        }
        all
    }

    /// All events of Sentry's.
    pub fn errors(&self) -> Vec<Value> {
        let sent = self.sent().into_iter();
        let envelopes = sent.filter(|sent| sent.path == "/api/7/envelope/");
        let events = envelopes.map(|sent| {
            let text = String::from_utf8(sent.body).expect("text");
            let lines: Vec<Value> = text
                .lines()
                .map(|line| serde_json::from_str(line).expect("JSON"))
                .collect();
            assert_eq!((lines.len(), &lines[1]["type"]), (3, &"event".into()));
            lines[2].clone()
        });
        events.collect()
    }
}

impl Endpoint for Collector {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let path = request.uri().path().to_owned();
        let headers = request.headers().iter();
        let headers = headers.map(|(name, value)| {
            let value = value.to_str().unwrap_or_default();
            (name.as_str().to_owned(), value.to_owned())
        });
        let headers = headers.collect();
        let body = request.take_body().into_vec().await?;
        self.sent.lock().expect("whole").push(Sent {
            path,
            headers,
            body,
        });
        match self.status {
            Some(status) => Ok(Response::from(status)),
            None => pending().await,
        }
    }
}

/// What is known of spans.
#[derive(Debug, Default)]
pub struct Spans {
    pub resource: BTreeMap<String, String>,
    pub spans: Vec<Span>,
}

impl Spans {
    /// The spans of this name.
    pub fn named(&self, name: &str) -> Vec<&Span> {
        let spans = self.spans.iter();
        spans.filter(|span| span.name == name).collect()
    }

    /// The names of what was done for this one.
    pub fn within(&self, parent: &Span) -> Vec<&str> {
        let children = self.spans.iter().filter(|span| {
            span.parent_span_id == parent.span_id && span.trace_id == parent.trace_id
        });
        children.map(|span| span.name.as_str()).collect()
    }
}

/// The attributes of a span, as texts.
pub fn attributes(
    all: &[opentelemetry_proto::tonic::common::v1::KeyValue],
) -> BTreeMap<String, String> {
    let texts = all.iter().map(|attribute| {
        let value = attribute.value.as_ref().and_then(|any| any.value.as_ref());
        let text = match value.expect("a value") {
            Known::StringValue(text) => text.clone(),
            Known::IntValue(number) => number.to_string(),
            other => panic!("{other:?}"),
        };
        (attribute.key.clone(), text)
    });
    texts.collect()
}

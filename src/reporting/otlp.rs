//! Traces, sent to a collector by OTLP over HTTP (OpenTelemetry Protocol 1.9, binary protobuf).
//!
//! Decides which traces are kept and what of a span leaves the process: a span that stands in the table here, with the
//! attributes that stand there, and nothing else: no events, no links, no words of a client. Traces begin with a
//! request or a letter; what belongs to neither is not followed.

use std::{borrow::Cow, time::Duration};

use opentelemetry::{
    Context, InstrumentationScope, Key, KeyValue,
    trace::{Link, SpanKind, Status, TraceId, TracerProvider},
};
use opentelemetry_proto::{
    tonic::collector::trace::v1::ExportTraceServiceRequest,
    transform::{
        common::tonic::ResourceAttributesWithSchema,
        trace::tonic::group_spans_by_resource_and_scope,
    },
};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        Sampler, SamplingDecision, SamplingResult, SdkTracerProvider, ShouldSample, Span, SpanData,
        SpanEvents, SpanLinks, SpanProcessor,
    },
};
use poem::http::{HeaderValue, header::CONTENT_TYPE};
use prost::Message;
use tokio::task::JoinHandle;
use tracing_subscriber::{Layer, filter::filter_fn};

use super::{
    Listening,
    forwarding::{Outlet, Queue, Way},
    settings::OtlpSettings,
};
use crate::{
    outbound::{self, Trusted},
    setting::BadSetting,
    spans,
};

const ENDPOINT: &str = "tracing.otlp.endpoint";
/// As metrics call them.
const WHAT: &str = "spans";
/// Spans that may wait: some megabytes.
const ROOM: usize = 8192;
/// Spans in one request.
const TOGETHER: usize = 512;
/// How long the first of them waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// The spans that traces begin with.
const ROOTS: [&str; 2] = ["request", "letter"];

/// What is told of a kind of span.
struct Told {
    /// What it is called in the source.
    name: &'static str,
    kind: SpanKind,
    /// Its attributes, as they are called in the source and there.
    attributes: &'static [(&'static str, &'static str)],
}

/// All that is told.
const TOLD: [Told; 7] = [
    Told {
        name: "request",
        kind: SpanKind::Server,
        attributes: &[
            ("id", "doorward.request_id"),
            (spans::METHOD, spans::METHOD),
            (spans::ROUTE, spans::ROUTE),
            (spans::STATUS, spans::STATUS),
        ],
    },
    Told {
        name: "database",
        kind: SpanKind::Client,
        attributes: &[
            ("operation", "db.operation.name"),
            ("failure", "error.type"),
        ],
    },
    Told {
        name: "scrypt_wait",
        kind: SpanKind::Internal,
        attributes: &[],
    },
    Told {
        name: "scrypt_run",
        kind: SpanKind::Internal,
        attributes: &[],
    },
    Told {
        name: "letter",
        kind: SpanKind::Internal,
        attributes: &[
            ("id", "doorward.letter.id"),
            ("kind", "doorward.letter.kind"),
            ("outcome", "doorward.letter.outcome"),
        ],
    },
    Told {
        name: "send_letter",
        kind: SpanKind::Client,
        attributes: &[],
    },
    Told {
        name: "breach_service",
        kind: SpanKind::Client,
        attributes: &[],
    },
];

/// Listens to spans and sends them.
pub(super) fn open(
    settings: &OtlpSettings,
    environment: &str,
    outlet: Outlet,
) -> Result<(Listening, JoinHandle<()>), BadSetting> {
    let bad = || BadSetting::new(ENDPOINT, "cannot be used", "correct it");
    let url = settings.traces_url().ok_or_else(bad)?;
    let mut headers = settings.header_map()?;
    let protobuf = HeaderValue::from_static("application/x-protobuf");
    headers.insert(CONTENT_TYPE, protobuf);
    let trusted = Trusted::File {
        key: "tracing.otlp.ca_file",
        path: &settings.ca_file,
    };
    let client = outbound::client(ENDPOINT, &url, trusted)?.build();
    let way = Way {
        what: WHAT,
        client: client.map_err(|_| bad())?,
        url,
        headers,
        room: ROOM,
        together: TOGETHER,
        linger: LINGER,
        rest: Duration::ZERO,
    };
    let resource = Resource::builder_empty()
        .with_service_name(settings.service_name.clone())
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new(
            "deployment.environment.name",
            environment.to_owned(),
        ))
        .build();
    let attributes = ResourceAttributesWithSchema::from(&resource);
    let (queue, worker) = way.open(outlet, move |spans| packed(spans, &attributes));
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(sampler(settings.sample))
        .with_span_processor(Telling(queue))
        .build();
    let scope = InstrumentationScope::builder("doorward")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build();
    let layer = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer_with_scope(scope))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        // Nothing else in this process asks for the current span in that way.
        .with_context_activation(false);
    let ours = filter_fn(|about| about.is_span() && about.target().starts_with(spans::TARGET));
    Ok((layer.with_filter(ours).boxed(), worker))
}

fn packed(spans: Vec<SpanData>, resource: &ResourceAttributesWithSchema) -> Vec<u8> {
    let request = ExportTraceServiceRequest {
        resource_spans: group_spans_by_resource_and_scope(spans, resource),
    };
    request.encode_to_vec()
}

/// Traces that begin elsewhere are kept as it was decided there; of those that begin here, a share.
fn sampler(share: f64) -> Sampler {
    Sampler::ParentBased(Box::new(Beginning(Sampler::TraceIdRatioBased(share))))
}

/// Lets a trace begin with a request or a letter only.
#[derive(Debug, Clone)]
struct Beginning(Sampler);

impl ShouldSample for Beginning {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut chosen = self
            .0
            .should_sample(parent, trace, name, kind, attributes, links);
        if !ROOTS.contains(&name) {
            chosen.decision = SamplingDecision::Drop;
        }
        chosen
    }
}

/// Hands spans that have ended to the queue.
#[derive(Debug)]
struct Telling(Queue<SpanData>);

impl SpanProcessor for Telling {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if let Some(span) = told(span) {
            self.0.offer(span);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// What of a span leaves the process; nothing of one that stands in no table.
fn told(mut span: SpanData) -> Option<SpanData> {
    let rule = TOLD.iter().find(|rule| rule.name == span.name)?;
    let mut failed = matches!(span.status, Status::Error { .. });
    let attributes = std::mem::take(&mut span.attributes).into_iter();
    let kept = attributes.filter_map(|attribute| {
        let mut rules = rule.attributes.iter();
        let (_, name) = rules.find(|(own, _)| *own == attribute.key.as_str())?;
        Some(KeyValue::new(Key::from_static_str(name), attribute.value))
    });
    span.attributes = kept.collect();
    let value = |name: &str| {
        let mut attributes = span.attributes.iter();
        let found = attributes.find(|attribute| attribute.key.as_str() == name)?;
        Some(found.value.as_str().into_owned())
    };
    failed |= value("error.type").is_some();
    let name = match rule.name {
        "request" => match (value(spans::METHOD), value(spans::ROUTE)) {
            (Some(method), Some(route)) => Some(format!("{method} {route}")),
            (method, _) => method,
        },
        "database" => value("db.operation.name"),
        _ => None,
    };
    if let Some(name) = name {
        span.name = Cow::Owned(name);
    }
    span.span_kind = rule.kind.clone();
    span.status = if failed {
        Status::error("")
    } else {
        Status::Unset
    };
    span.events = SpanEvents::default();
    span.links = SpanLinks::default();
    Some(span)
}

//! What requests are counted under, and `/metrics`, where everything that is counted is read.
//!
//! Decides the labels: the route as it stands in the router, a method and a status that exist. Whatever matches no
//! route is `other`. Counters are found by the route when its first request is answered, and only added to from then
//! on.

use std::{collections::HashMap, sync::OnceLock, time::Duration};

use poem::{
    Endpoint, IntoResponse, Request, Response,
    http::{Method, StatusCode},
};
use prometheus::{Histogram, IntCounter};

use super::Context;
use crate::{
    auth::Auth,
    metrics::{Held, Metrics},
};

/// Where the metrics are served, if they are.
pub(super) const PATH: &str = "/metrics";
/// The text format of Prometheus.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

const OTHER: &str = "other";
const METHODS: [&str; 8] = [
    "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", OTHER,
];
/// What is answered often enough to be found by its place; the others are looked up.
const STATUSES: [u16; 18] = [
    200, 201, 202, 204, 302, 303, 400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 500, 503,
];

/// Counts the requests of one API.
pub(super) struct Requests {
    auth: Auth,
    routes: HashMap<String, Route>,
    unmatched: Route,
}

/// The counters of one route, by method.
struct Route([OnceLock<Counters>; METHODS.len()]);

struct Counters {
    seconds: Histogram,
    answers: [OnceLock<IntCounter>; STATUSES.len()],
}

impl Requests {
    /// For these routes, written as the router or the documents do.
    pub(super) fn on<'a>(auth: &Auth, paths: impl Iterator<Item = &'a str>) -> Self {
        Self {
            auth: auth.clone(),
            routes: paths.map(|path| (as_routed(path), Route::new())).collect(),
            unmatched: Route::new(),
        }
    }

    /// A request has come in; it has been answered, or given up, when this is dropped.
    pub(super) fn begin(&self) -> Held {
        self.auth.metrics().http.in_flight.hold()
    }

    /// A request has been answered.
    pub(super) fn answered(
        &self,
        route: Option<&str>,
        method: &Method,
        status: StatusCode,
        took: Duration,
    ) {
        let metrics = self.auth.metrics();
        let name = METHODS.iter().position(|name| *name == method.as_str());
        let method = name.unwrap_or(METHODS.len() - 1);
        let (label, known) = match route {
            None => (OTHER, Some(&self.unmatched)),
            Some(route) => (route, self.routes.get(route)),
        };
        match known {
            Some(route) => route.note(metrics, (label, method), status, took),
            // Below a path of an app's own, say: the router's word all the same.
            None => Route::new().note(metrics, (label, method), status, took),
        }
    }
}

impl Route {
    fn new() -> Self {
        Self(std::array::from_fn(|_| OnceLock::new()))
    }

    fn note(
        &self,
        metrics: &Metrics,
        (route, method): (&str, usize),
        status: StatusCode,
        took: Duration,
    ) {
        let method_name = METHODS[method];
        let counters = self.0[method].get_or_init(|| Counters {
            seconds: metrics
                .http
                .seconds
                .with_label_values(&[route, method_name]),
            answers: std::array::from_fn(|_| OnceLock::new()),
        });
        counters.seconds.observe(took.as_secs_f64());
        let counter = || {
            let labels = [route, method_name, status.as_str()];
            metrics.http.requests.with_label_values(&labels)
        };
        match STATUSES.iter().position(|known| *known == status.as_u16()) {
            Some(place) => counters.answers[place].get_or_init(counter).inc(),
            None => counter().inc(),
        }
    }
}

/// A path of the documents as the router has it: `{id}` is `:id`.
fn as_routed(path: &str) -> String {
    let segments = path.split('/').map(|segment| {
        let inner = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
        inner.map_or_else(|| segment.to_owned(), |name| format!(":{name}"))
    });
    segments.collect::<Vec<_>>().join("/")
}

/// Shows the metrics.
pub(super) struct ShowMetrics;

impl Endpoint for ShowMetrics {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let text = Context::of(&request)?.auth.metrics_text();
        Ok(text.with_content_type(CONTENT_TYPE).into_response())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_paths_are_written_as_routes() {
        assert_eq!(as_routed("/v1/users/{id}/roles"), "/v1/users/:id/roles");
        assert_eq!(as_routed("/v1/users/:id"), "/v1/users/:id");
        assert_eq!(as_routed("/"), "/");
    }
}

//! What requests are counted under, and `/metrics`, where everything that is counted is read.
//!
//! Decides the labels: the route as it stands in the router, a method and a status that exist. Whatever matches no
//! route is `other`. Counters are found by the route when its first request is answered, and only added to from then
//! on.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

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
    /// By the pattern that the router answers.
    routes: HashMap<String, Arc<Route>>,
    unmatched: Route,
}

/// The counters of one route, by method.
struct Route {
    label: String,
    counters: [OnceLock<Counters>; METHODS.len()],
}

struct Counters {
    seconds: Histogram,
    answers: [OnceLock<IntCounter>; STATUSES.len()],
}

impl Requests {
    /// For these routes, written as the router or the documents do.
    pub(super) fn on<'a>(auth: &Auth, paths: impl Iterator<Item = &'a str>) -> Self {
        let mut routes = HashMap::new();
        for path in paths {
            let route = Arc::new(Route::new(&as_written(path)));
            // The framework numbers the parameters of operations and leaves those of pages as they are.
            routes.insert(as_numbered(path), Arc::clone(&route));
            routes.insert(route.label.clone(), route);
        }
        Self {
            auth: auth.clone(),
            routes,
            unmatched: Route::new(OTHER),
        }
    }

    /// A request has come in; it has been answered, or given up, when this is dropped.
    pub(super) fn begin(&self) -> Held {
        self.auth.metrics().http.in_flight.hold()
    }

    /// What a route is called; `None` for whatever matches none.
    pub(super) fn label<'a>(&'a self, route: Option<&'a str>) -> Option<&'a str> {
        let pattern = route.filter(|pattern| !pattern.is_empty())?;
        let known = self.routes.get(pattern);
        Some(known.map_or(pattern, |route| route.label.as_str()))
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
        let method = place_of(method);
        let known = match route {
            // What matches nothing has an empty pattern, or none.
            None | Some("") => Some(&self.unmatched),
            Some(pattern) => self.routes.get(pattern).map(Arc::as_ref),
        };
        match (known, route) {
            (Some(route), _) => route.note(metrics, method, status, took),
            // Below a path of an app's own, say: the router's word all the same.
            (None, pattern) => {
                let pattern = Route::new(pattern.unwrap_or(OTHER));
                pattern.note(metrics, method, status, took);
            }
        }
    }
}

/// The place of a method in [`METHODS`].
fn place_of(method: &Method) -> usize {
    let name = METHODS.iter().position(|name| *name == method.as_str());
    name.unwrap_or(METHODS.len() - 1)
}

/// What a method is called: as it is, if it exists.
pub(super) fn method_name(method: &Method) -> &'static str {
    METHODS[place_of(method)]
}

impl Route {
    fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            counters: std::array::from_fn(|_| OnceLock::new()),
        }
    }

    fn note(&self, metrics: &Metrics, method: usize, status: StatusCode, took: Duration) {
        let (route, name) = (self.label.as_str(), METHODS[method]);
        let counters = self.counters[method].get_or_init(|| Counters {
            seconds: metrics.http.seconds.with_label_values(&[route, name]),
            answers: std::array::from_fn(|_| OnceLock::new()),
        });
        counters.seconds.observe(took.as_secs_f64());
        let counter = || {
            let labels = [route, name, status.as_str()];
            metrics.http.requests.with_label_values(&labels)
        };
        match STATUSES.iter().position(|known| *known == status.as_u16()) {
            Some(place) => counters.answers[place].get_or_init(counter).inc(),
            None => counter().inc(),
        }
    }
}

/// The name of a parameter, if a segment of a path is one.
fn parameter(segment: &str) -> Option<&str> {
    let braced = segment.strip_prefix('{').and_then(|s| s.strip_suffix('}'));
    braced.or_else(|| segment.strip_prefix(':'))
}

/// A path as it is written in the source: `{id}` is `:id`.
fn as_written(path: &str) -> String {
    let segments = path.split('/').map(|segment| match parameter(segment) {
        Some(name) => format!(":{name}"),
        None => segment.to_owned(),
    });
    segments.collect::<Vec<_>>().join("/")
}

/// A path with its parameters numbered: `/users/:param0`.
fn as_numbered(path: &str) -> String {
    let mut numbers = 0..;
    let segments = path.split('/').map(|segment| {
        let number = parameter(segment).and_then(|_| numbers.next());
        number.map_or_else(|| segment.to_owned(), |n: u32| format!(":param{n}"))
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
    fn paths_are_found_as_the_router_answers_them() {
        for path in ["/v1/users/{id}/x/{sid}", "/v1/users/:id/x/:sid"] {
            assert_eq!(as_written(path), "/v1/users/:id/x/:sid");
            assert_eq!(as_numbered(path), "/v1/users/:param0/x/:param1");
        }
        assert_eq!(
            (as_written("/"), as_numbered("/")),
            ("/".into(), "/".into())
        );
    }
}

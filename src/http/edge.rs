//! What every request passes first and every answer last: request id, body limit, problems, panics,
//! headers and one line in the log.

use std::{collections::HashSet, panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use ipnet::IpNet;
use poem::{
    Body, Endpoint, Error, IntoResponse, PathPattern, Request, Response,
    error::{MethodNotAllowedError, NotFoundError, ParseFormError, ReadBodyError},
    http::{HeaderName, HeaderValue, StatusCode, header},
};
use poem_openapi::{
    OpenApi,
    error::{ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError},
};
use tracing::Instrument;

use super::{
    ApiOptions, Context,
    auth_api::unsupported_login,
    client_ip::{client_ip, peer_is_trusted},
    methods,
    problem::Problem,
    system_api::not_found,
};
use crate::{auth::Auth, clock::Stopwatch};

static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers of every answer, unless its handler set them itself (ASVS 3.2.1, 3.4, 3.5.8, 14.3.2).
const HEADERS: [(HeaderName, &str); 7] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=()",
    ),
];

/// The outermost layer.
pub(super) struct Edge<E> {
    inner: E,
    auth: Auth,
    trusted_proxies: Arc<[IpNet]>,
    max_body_bytes: usize,
    is_https: bool,
    methods: Methods,
}

impl<E: Endpoint> Edge<E> {
    pub(super) fn around(inner: E, auth: Auth, options: &ApiOptions) -> Self {
        Self {
            inner,
            auth,
            trusted_proxies: options.trusted_proxies.clone().into(),
            max_body_bytes: options.max_body_bytes,
            is_https: options.public_url.starts_with("https://"),
            methods: methods(),
        }
    }

    /// A fresh id, or the one that a trusted proxy has given the request already.
    fn request_id(&self, request: &Request) -> Arc<str> {
        let plain = |id: &&str| {
            (1..=64).contains(&id.len())
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let given = || request.header(&X_REQUEST_ID).filter(plain).map(Arc::from);
        let believed = peer_is_trusted(request, &self.trusted_proxies)
            .then(given)
            .flatten();
        believed.unwrap_or_else(|| self.auth.fresh_request_id().to_string().into())
    }

    async fn answer(&self, mut request: Request) -> Result<Response, Error> {
        if has_repeated_parameter(request.uri().query().unwrap_or_default()) {
            let detail = "Each query parameter may stand there once.";
            return Err(Problem::bad_request("ambiguous_parameter", detail).into());
        }
        // poem reads bodies without limit, so the limit comes before anything that reads.
        let body = request.take_body();
        if !body.is_empty() {
            let bytes = body.into_bytes_limit(self.max_body_bytes).await?;
            request.set_body(Body::from_bytes(bytes));
        }
        let handled = AssertUnwindSafe(self.inner.call(request))
            .catch_unwind()
            .await;
        let Ok(answered) = handled else {
            return Err(Problem::internal("a handler panicked").into());
        };
        answered.map(IntoResponse::into_response)
    }
}

impl<E: Endpoint> Endpoint for Edge<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let watch = Stopwatch::start();
        let context = Context {
            request_id: self.request_id(&request),
            client_ip: client_ip(&request, &self.trusted_proxies),
        };
        request.set_data(context.clone());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let span = tracing::info_span!("request", id = %context.request_id, %method);
        async {
            let answered = self.answer(request).await;
            let pattern = match &answered {
                Ok(response) => response
                    .data::<PathPattern>()
                    .map(|pattern| Arc::clone(&pattern.0)),
                Err(error) => error
                    .data::<PathPattern>()
                    .map(|pattern| Arc::clone(&pattern.0)),
            };
            let mut response = answered.unwrap_or_else(|error| {
                let problem = self.methods.problem_of(&error, &path);
                problem.log();
                problem.render(&context.request_id)
            });
            self.finish(&mut response, &context.request_id);
            // The route, not the path: a path may hold whatever somebody typed.
            let route = pattern.as_deref().unwrap_or("-");
            let (status, ms) = (
                response.status().as_u16(),
                watch.elapsed().as_secs_f64() * 1000.0,
            );
            tracing::info!(status, route, ms, "answered");
            Ok(response)
        }
        .instrument(span)
        .await
    }
}

impl<E> Edge<E> {
    fn finish(&self, response: &mut Response, request_id: &str) {
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert(X_REQUEST_ID.clone(), id);
        }
        for (name, value) in HEADERS {
            headers
                .entry(name)
                .or_insert(HeaderValue::from_static(value));
        }
        if self.is_https {
            let year = HeaderValue::from_static("max-age=31536000; includeSubDomains");
            headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
        }
    }
}

/// Whether a query names a parameter twice: which one counts would be anybody's guess (ASVS 15.3.7).
fn has_repeated_parameter(query: &str) -> bool {
    let mut names = HashSet::new();
    form_urlencoded::parse(query.as_bytes()).any(|(name, _)| !names.insert(name))
}

/// Which methods each path takes: for `Allow`, which poem does not send.
pub(super) struct Methods(Vec<(String, Vec<String>)>);

impl Methods {
    pub(super) fn of<T: OpenApi>() -> Self {
        let paths = T::meta().into_iter().flat_map(|api| api.paths);
        let methods = paths.map(|path| {
            let mut allowed: Vec<String> = path
                .operations
                .iter()
                .map(|o| o.method.to_string())
                .collect();
            allowed.sort();
            (path.path, allowed)
        });
        Self(methods.collect())
    }

    pub(super) fn and(mut self, path: &str, method: &str) -> Self {
        self.0.push((path.to_owned(), vec![method.to_owned()]));
        self
    }

    fn allowed(&self, path: &str) -> String {
        let fits = |pattern: &str| {
            let (mut pattern, mut path) = (pattern.split('/'), path.split('/'));
            loop {
                match (pattern.next(), path.next()) {
                    (None, None) => return true,
                    (Some(p), Some(q)) if p == q || p.starts_with(':') || p.starts_with('{') => {}
                    _ => return false,
                }
            }
        };
        let found = self.0.iter().find(|(pattern, _)| fits(pattern));
        let mut allowed: Vec<&str> = found
            .map(|(_, methods)| methods.iter().map(String::as_str).collect())
            .unwrap_or_default();
        if allowed.contains(&"GET") {
            allowed.push("HEAD");
        }
        allowed.join(", ")
    }

    /// Every error that can reach the edge, as a problem.
    fn problem_of(&self, error: &Error, path: &str) -> Problem {
        if let Some(problem) = error.downcast_ref::<Problem>() {
            return problem.clone();
        }
        if error.is::<NotFoundError>() {
            return not_found();
        }
        if error.is::<MethodNotAllowedError>() {
            let allow = self.allowed(path);
            let detail = format!("This path takes {allow}.");
            let problem = Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method not allowed",
                detail,
            );
            return match HeaderValue::from_str(&allow) {
                Ok(allow) => problem.with_header(header::ALLOW, allow),
                Err(_) => problem,
            };
        }
        if error.is::<ContentTypeError>() {
            return unsupported_login();
        }
        if let Some(ParseParamError { name, .. }) = error.downcast_ref::<ParseParamError>() {
            return Problem::bad_request(
                "wrong_parameter",
                format!("The query parameter `{name}` has a value that it does not take."),
            );
        }
        if error.is::<ParsePathError>() || error.is::<poem::error::ParsePathError>() {
            return not_found();
        }
        match error.downcast_ref::<ReadBodyError>() {
            Some(ReadBodyError::PayloadTooLarge) => {
                return Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "body_too_large",
                    "Body too large",
                    "The body is larger than this server takes.",
                );
            }
            Some(_) => {
                return Problem::bad_request(
                    "malformed_body",
                    "The body could not be read to its end.",
                );
            }
            None => {}
        }
        if error.is::<ParseRequestPayloadError>() || error.is::<ParseFormError>() {
            return Problem::bad_request("malformed_body", "The body could not be read.");
        }
        let status = error.status();
        if status.is_client_error() {
            return Problem::new(
                status,
                "bad_request",
                "Bad request",
                "The request could not be understood.",
            );
        }
        Problem::internal(error.to_string())
    }
}

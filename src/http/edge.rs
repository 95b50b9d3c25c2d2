//! What every request passes first and every answer last: request id, limits on bodies, time and how much is
//! done at once, problems, panics, headers and one line in the log.

use std::{
    cell::OnceCell,
    collections::{BTreeSet, HashSet},
    future::poll_fn,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt;
use poem::{
    Body, Endpoint, Error, IntoResponse, PathPattern, Request, Response,
    error::{MethodNotAllowedError, NotFoundError, ParseFormError, ReadBodyError},
    http::{HeaderName, HeaderValue, Method, StatusCode, Version, header},
};
use poem_openapi::{
    OpenApi,
    error::{ContentTypeError, ParseParamError, ParsePathError, ParseRequestPayloadError},
};
use tracing::{Instrument, Level, Span};

use super::{
    ApiOptions, Context, DOCUMENTS,
    auth_api::unsupported_login,
    check_api::as_asked,
    measured::{self, Requests, method_name},
    methods,
    origins::is_safe,
    problem::Problem,
    shortcut::Shortcut,
    surface::{Surface, X_REQUEST_ID},
    system_api::not_found,
};
use crate::{audit::coming_from, auth::Auth, clock::Stopwatch, spans};

/// Headers of every answer, unless its handler set them itself (ASVS 3.2.1, 3.4, 3.5.8, 14.3.2). What
/// `default-src` says of plugins is said once more, for browsers and scanners that ask for it by name.
static HEADERS: [(HeaderName, HeaderValue); 7] = [
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; sandbox",
        ),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
    ),
];

/// The outermost layer.
pub(super) struct Edge<E> {
    inner: E,
    auth: Auth,
    surface: Arc<Surface>,
    methods: Methods,
    /// Requests that are worked on.
    at_work: AtomicUsize,
    requests: Requests,
    /// Whether what is asked most is answered without `inner`.
    has_shortcuts: bool,
}

impl<E: Endpoint> Edge<E> {
    pub(super) fn around(inner: E, auth: Auth, surface: Arc<Surface>) -> Self {
        let methods = methods(&surface.options);
        Self {
            inner,
            requests: Requests::on(&auth, methods.paths()),
            auth,
            methods,
            surface,
            at_work: AtomicUsize::new(0),
            has_shortcuts: false,
        }
    }

    /// Answers what is asked most without asking `inner`, which answers the same.
    pub(super) fn with_shortcuts(self) -> Self {
        Self {
            has_shortcuts: true,
            ..self
        }
    }

    async fn answer_soon(
        &self,
        shortcut: Shortcut,
        request: &Request,
        context: &Context,
    ) -> Result<Response, Error> {
        let place = self.place(false)?;
        let answered = coming_from(context.origin(request), shortcut.answer(request));
        self.guarded(place, answered).await
    }

    async fn answer(&self, mut request: Request, context: &Context) -> Result<Response, Error> {
        if has_repeated_parameter(request.uri().query().unwrap_or_default()) {
            let detail = "Each query parameter may stand there once.";
            return Err(Problem::bad_request("ambiguous_parameter", detail).into());
        }
        let options = &self.surface.options;
        let is_free = is_free(&request);
        // poem reads bodies without limit, so the limit comes before anything that reads.
        let body = request.take_body();
        if !body.is_empty() {
            // Where there is no room now nobody has to send one; the place itself is taken once it is there, or
            // those who send slowly would hold them all.
            drop(self.place(is_free)?);
            let read = body.into_bytes_limit(options.max_body_bytes);
            let read = tokio::time::timeout(options.body_timeout.to_duration(), read);
            let bytes = read.await.map_err(|_| body_too_slow(request.version()))??;
            request.set_body(Body::from_bytes(bytes));
        }
        let place = self.place(is_free)?;
        let handled = context.recorded(&self.inner, request);
        let answered = self.guarded(place, handled).await;
        answered.map(IntoResponse::into_response)
    }

    /// The answer to whatever is asked; where pages of another site may read it, also whether they may ask.
    async fn answer_any(
        &self,
        request: Request,
        context: &Context,
        is_readable: bool,
    ) -> Result<Response, (Problem, Error)> {
        if is_readable && let Some(allowed) = preflight(&request) {
            return Ok(allowed);
        }
        let path = request.uri().path().to_owned();
        let answered = self.answer(request, context).await;
        answered.map_err(|error| (self.methods.problem_of(&error, &path), error))
    }

    /// What is answered in time and without a panic.
    async fn guarded<T>(
        &self,
        place: Option<Place<'_>>,
        handled: impl Future<Output = poem::Result<T>>,
    ) -> poem::Result<T> {
        let limit = self.surface.options.request_timeout.to_duration();
        let handled = within(limit, AssertUnwindSafe(handled).catch_unwind()).await;
        drop(place);
        let Some(handled) = handled else {
            return Err(Problem::too_late().into());
        };
        handled.unwrap_or_else(|_| Err(Problem::internal("a handler panicked").into()))
    }

    /// A place among the requests that are worked on; whoever asks only whether this node lives needs none.
    fn place(&self, is_free: bool) -> Result<Option<Place<'_>>, Problem> {
        if is_free {
            return Ok(None);
        }
        let place = Place(&self.at_work);
        if self.at_work.fetch_add(1, Ordering::Relaxed) >= self.surface.options.max_in_flight {
            return Err(Problem::overloaded());
        }
        Ok(Some(place))
    }
}

/// Held as long as a request is worked on.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a request costs nothing, so that it is answered whatever else is asked for.
fn is_free(request: &Request) -> bool {
    matches!(request.uri().path(), "/health/live" | "/health")
}

/// Waits no longer than this, as far as it is polled then. What is given up is dropped where it waits; a change
/// that has begun goes on to its end in a task of its own, as when a client goes away.
async fn within<W: Future>(limit: Duration, work: W) -> Option<W::Output> {
    let watch = Stopwatch::start();
    let mut work = pin!(work);
    poll_fn(move |cx| match work.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if watch.elapsed() >= limit => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// What a client hears whose body does not come (RFC 9110 §15.5.9).
fn body_too_slow(version: Version) -> Problem {
    let problem = Problem::new(
        StatusCode::REQUEST_TIMEOUT,
        "body_too_slow",
        "Body too slow",
        "The body did not arrive in time.",
    );
    // The rest of it may still come, which is no request; HTTP/2 knows which is which.
    if version == Version::HTTP_2 {
        problem
    } else {
        problem.with_header(header::CONNECTION, HeaderValue::from_static("close"))
    }
}

impl<E: Endpoint> Endpoint for Edge<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let (watch, _in_flight) = (Stopwatch::start(), self.requests.begin());
        let context = Context::new(&self.auth, &self.surface, &request);
        request.set_data(context.clone());
        let method = request.method().clone();
        // First of all: to a proxy any 2xx means that a request may pass, that of a preflight as well.
        as_asked(&mut request, &context);
        let reader = self.surface.origins.reader(request.headers());
        // What only reads and succeeds is counted, and not worth a line for each.
        let is_quiet = is_safe(request.method());
        let is_followed = spans::are_followed() && !is_free(&request);
        let line = Line {
            watch,
            method,
            span: OnceCell::new(),
        };
        // A trace is to show all of the way.
        let is_short = self.has_shortcuts && !is_followed;
        let shortcut = is_short.then(|| Shortcut::of(&mut request));
        let answered = if let Some(shortcut) = shortcut.flatten() {
            let answered = self.answer_soon(shortcut, &request, &context).await;
            // The path is for what a wrong method is told, and no shortcut has one.
            answered.map_err(|error| (self.methods.problem_of(&error, ""), error))
        } else {
            let span = if is_quiet && !is_followed {
                Span::none()
            } else {
                line.span(&context).clone()
            };
            if is_followed {
                context.continue_trace(&span, &request);
            }
            let answered = self.answer_any(request, &context, reader.is_some());
            // Boxed: what is asked most is not to carry the room that all else needs.
            answered.instrument(span).boxed().await
        };
        let (route, mut response) = match answered {
            Ok(response) => (response.data::<PathPattern>().cloned(), response),
            Err((problem, error)) => {
                line.span(&context).in_scope(|| problem.log());
                let route = error.data::<PathPattern>().cloned();
                (route, problem.render(&context.request_id))
            }
        };
        self.finish(&mut response, &context.request_id, reader);
        let (status, took) = (response.status(), line.watch.elapsed());
        // The route, not the path: a path may hold whatever somebody typed.
        let route = route.as_ref().map(|pattern| pattern.0.as_ref());
        self.requests.answered(route, &line.method, status, took);
        if is_followed {
            let (method, route) = (method_name(&line.method), self.requests.label(route));
            spans::answered(line.span(&context), method, route, status.as_u16());
        }
        let is_quiet = is_quiet && !status.is_client_error() && !status.is_server_error();
        line.write(&context, route, (status, took), is_quiet);
        Ok(response)
    }
}

/// The line that a request has in the log.
struct Line {
    watch: Stopwatch,
    method: Method,
    /// Made when something is logged: most requests log nothing.
    span: OnceCell<Span>,
}

impl Line {
    fn span(&self, context: &Context) -> &Span {
        let (id, method) = (&context.request_id, &self.method);
        self.span.get_or_init(|| spans::request(id, method))
    }

    fn write(
        &self,
        context: &Context,
        route: Option<&str>,
        (status, took): (StatusCode, Duration),
        is_quiet: bool,
    ) {
        if is_quiet && !tracing::enabled!(Level::DEBUG) {
            return;
        }
        let route = route.unwrap_or("-");
        let (status, ms) = (status.as_u16(), took.as_secs_f64() * 1000.0);
        self.span(context).in_scope(|| {
            if is_quiet {
                tracing::debug!(status, route, ms, "answered");
            } else {
                tracing::info!(status, route, ms, "answered");
            }
        });
    }
}

impl<E> Edge<E> {
    fn finish(&self, response: &mut Response, request_id: &str, reader: Option<HeaderValue>) {
        let headers = response.headers_mut();
        if self.surface.origins.has_readers() {
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        if let Some(origin) = reader {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
            headers.insert(
                header::ACCESS_CONTROL_EXPOSE_HEADERS,
                HeaderValue::from_static("retry-after, www-authenticate, x-request-id"),
            );
        }
        if let Ok(id) = HeaderValue::from_str(request_id) {
            headers.insert(X_REQUEST_ID.clone(), id);
        }
        headers.reserve(HEADERS.len());
        for (name, value) in &HEADERS {
            headers.entry(name).or_insert_with(|| value.clone());
        }
        if self.surface.is_https {
            let year = HeaderValue::from_static("max-age=31536000; includeSubDomains");
            headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
        }
    }
}

/// What a browser is told that asks whether a page of another site may send its request. Only an allowed
/// one gets here; the others find no `Access-Control-Allow-Origin` and go no further.
fn preflight(request: &Request) -> Option<Response> {
    let asks = request
        .headers()
        .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    (request.method() == Method::OPTIONS && asks).then(|| {
        let mut response = Response::from(StatusCode::NO_CONTENT);
        let answers = [
            (
                header::ACCESS_CONTROL_ALLOW_METHODS,
                "GET, POST, PUT, PATCH, DELETE",
            ),
            (
                header::ACCESS_CONTROL_ALLOW_HEADERS,
                "authorization, content-type",
            ),
            (header::ACCESS_CONTROL_MAX_AGE, "600"),
        ];
        for (name, value) in answers {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    })
}

/// Whether a query names a parameter twice: which one counts would be anybody's guess (ASVS 15.3.7).
fn has_repeated_parameter(query: &str) -> bool {
    if query.is_empty() {
        return false;
    }
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

    pub(super) fn and(mut self, path: &str, methods: &[&str]) -> Self {
        let methods = methods.iter().map(|&method| method.to_owned());
        self.0.push((path.to_owned(), methods.collect()));
        self
    }

    /// Every path, as the documents write it.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(path, _)| path.as_str())
    }

    /// The first segments of all paths that there are under these options but `/` itself, each once.
    pub(super) fn first_segments(&self, options: &ApiOptions) -> BTreeSet<String> {
        let is_served = |path: &str| match path {
            "/login" => options.login_page.is_empty(),
            "/version" => options.docs,
            measured::PATH => options.metrics,
            path => options.docs || !DOCUMENTS.contains(&path),
        };
        let paths = self.0.iter().map(|(path, _)| path.as_str());
        paths
            .filter(|path| is_served(path))
            .filter_map(|path| path.split('/').nth(1))
            .filter(|first| !first.is_empty())
            .map(|first| format!("/{first}"))
            .collect()
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

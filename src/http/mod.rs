//! The REST API: translates between HTTP and the use cases, and decides nothing else.
//!
//! `Auth::routes` mounts it all, `Auth::middleware` lets an app of one's own use the guards. What every
//! request passes, from the outside in: `edge` (request id, headers, log, problems, panics), the routes,
//! a guard where one is asked for, the handler.

mod admin_api;
mod audit_api;
mod auth_api;
mod body;
mod check_api;
mod client_ip;
mod compat;
mod cookie;
mod dev_mailbox;
mod docs;
mod dto;
mod edge;
mod embed;
mod guard;
mod listening;
mod login_page;
mod mail_pages;
mod matrix;
mod me_api;
mod measured;
mod oauth_api;
mod origins;
mod outbox_api;
mod page;
mod password_api;
mod permission;
mod persons_api;
mod problem;
mod roles_api;
mod shapes;
mod shortcut;
mod story_dto;
mod strength_api;
mod surface;
mod system_api;
mod verification_api;

use std::sync::Arc;

use ipnet::IpNet;
use poem::{EndpointExt, Response, Route, endpoint::BoxEndpoint, get};
use poem_openapi::{OpenApiService, Tags};
use serde::{Deserialize, Serialize};

use self::{
    admin_api::AdminApi,
    audit_api::AuditApi,
    auth_api::AuthApi,
    check_api::CheckApi,
    edge::{Edge, Methods},
    login_page::{LogIn, LoginPage},
    mail_pages::{Place, ShowPage, TakeForm},
    me_api::MeApi,
    measured::ShowMetrics,
    oauth_api::OAuthApi,
    origins::{check_origins, is_plain_text},
    outbox_api::OutboxApi,
    password_api::PasswordApi,
    persons_api::{EventsApi, PersonsApi},
    roles_api::RolesApi,
    strength_api::StrengthApi,
    surface::{Context, Surface},
    system_api::{SystemApi, VersionApi},
    verification_api::VerificationApi,
};
pub use self::{
    docs::openapi_document,
    embed::{AuthMiddleware, Authenticated},
    guard::{AdminRole, Guard, HasRole, RoleName, Secured},
    listening::{ClientAuth, TlsSettings},
    matrix::{Asks, Operation, Verdict, operations},
    permission::{
        AuditRead, Fresh, HasPermission, OutboxManage, PermissionName, RolesGrant, RolesRead,
        SessionsRevoke, StepUp, UsersErase, UsersRead, UsersWrite,
    },
    problem::Problem,
};
use crate::{
    auth::Auth,
    clock::Span,
    letters::Page,
    mail::memory::MemoryMailer,
    model::client::Clients,
    setting::{BadSetting, shown, shown_address},
};

/// `[http]`: where to listen and whom to believe.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// Address and port of the API. Default `127.0.0.1:8080`.
    pub listen: String,
    /// Address and port of the API with `/docs`, `/redoc`, `/scalar`, `/openapi.json`, `/version` and `/metrics` in
    /// production, for operators; empty (default) for nowhere. Elsewhere they are served by `listen`.
    pub admin_listen: String,
    /// Networks of the proxies whose `X-Forwarded-*`, `X-Original-Method` and `X-Request-Id` headers are
    /// believed. Default none.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether a proxy in front of this node does TLS. Default false.
    pub behind_proxy: bool,
    /// TLS of the listener. Default none.
    pub tls: TlsSettings,
    /// Most bytes of a request's body. Default 65536.
    pub max_body_bytes: usize,
    /// How long the head of a request may take, and before the first one the TLS handshake as well; who takes
    /// longer is cut off. Default 10 s.
    pub header_timeout: Span,
    /// How long a body may take; then it is 408. Default 30 s.
    pub body_timeout: Span,
    /// How long a request may take once it is there; then it is 503. Default 30 s.
    pub request_timeout: Span,
    /// How long a client may take nothing of its answer, or less than 16 KiB of it. Default 30 s.
    pub write_timeout: Span,
    /// How long a connection is kept between two requests. Default 75 s.
    pub idle_timeout: Span,
    /// Most connections of a listener. Default 10000.
    pub max_connections: usize,
    /// Most connections of one address, or of one /64 network of IPv6; trusted proxies may have more. Default
    /// 0: any number.
    pub max_connections_per_address: usize,
    /// Most requests that a listener works on at once; more are 503 at once. Default 4096.
    pub max_in_flight: usize,
    /// How long `/health/ready` says 503 before a server that is told to stop takes nothing more. Default 0 s.
    pub drain: Span,
    /// Origins whose pages may use the API from a browser, with cookies. Default none.
    pub allowed_origins: Vec<String>,
    /// Origins that a login may lead back to, besides this server's own. Default none.
    pub redirect_origins: Vec<String>,
    /// The domain whose hosts all get the session cookie; empty (default) for this host alone.
    pub cookie_domain: String,
    /// The page to log in at; empty (default) for `/login` of this server.
    pub login_page: String,
    /// Whether `POST /v1/oauth/token` takes `grant_type=password`. Default false.
    pub password_grant: bool,
    /// Whether the paths of hand-written services, such as `/auth/sign_up` and `/protected`, are served as
    /// well. Default false.
    pub compat: bool,
    /// What these paths begin with; empty (default) for nothing.
    pub compat_prefix: String,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            admin_listen: String::new(),
            trusted_proxies: Vec::new(),
            behind_proxy: false,
            tls: TlsSettings::default(),
            max_body_bytes: 65_536,
            header_timeout: Span::secs(10),
            body_timeout: Span::secs(30),
            request_timeout: Span::secs(30),
            write_timeout: Span::secs(30),
            idle_timeout: Span::secs(75),
            max_connections: 10_000,
            max_connections_per_address: 0,
            max_in_flight: 4096,
            drain: Span::ZERO,
            allowed_origins: Vec::new(),
            redirect_origins: Vec::new(),
            cookie_domain: String::new(),
            login_page: String::new(),
            password_grant: false,
            compat: false,
            compat_prefix: String::new(),
        }
    }
}

impl HttpSettings {
    /// Checks the settings.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        let address = |key: &str, text: &str| match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
            _ => Err(BadSetting::new(
                key,
                format!("{} is not an address and a port", shown(text)),
                "write e.g. 127.0.0.1:8080",
            )),
        };
        address("http.listen", &self.listen)?;
        if !self.admin_listen.is_empty() {
            address("http.admin_listen", &self.admin_listen)?;
        }
        if !(1024..=16 << 20).contains(&self.max_body_bytes) {
            let problem = format!("{} is outside 1024 to 16777216", self.max_body_bytes);
            return Err(BadSetting::new(
                "http.max_body_bytes",
                problem,
                "set it to 65536",
            ));
        }
        self.check_listening()?;
        check_compat(&self.compat_prefix)?;
        let browsers = (&*self.allowed_origins, &*self.redirect_origins);
        check_browsers(browsers, &self.cookie_domain, &self.login_page)
    }

    /// The prefix of the paths of other services, if they are served.
    #[must_use]
    pub fn compat(&self) -> Option<String> {
        self.compat.then(|| self.compat_prefix.clone())
    }

    /// Checks what must hold in production besides: pages of other sites are https.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check_production(&self) -> Result<(), BadSetting> {
        check_origins(ALLOWED, &self.allowed_origins, true)?;
        check_origins(REDIRECT, &self.redirect_origins, true)?;
        if !self.login_page.is_empty() && is_plain_text(&self.login_page) {
            return Err(BadSetting::new(
                "http.login_page",
                format!("{} is plain text", shown_address(&self.login_page)),
                "use https:// in production",
            ));
        }
        Ok(())
    }
}

const ALLOWED: &str = "http.allowed_origins";
const REDIRECT: &str = "http.redirect_origins";

/// What browsers would do otherwise than was meant, or not at all.
fn check_browsers(
    (allowed, redirects): (&[String], &[String]),
    cookie_domain: &str,
    login_page: &str,
) -> Result<(), BadSetting> {
    check_origins(ALLOWED, allowed, false)?;
    check_origins(REDIRECT, redirects, false)?;
    let label = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let is_domain = cookie_domain.contains('.') && cookie_domain.split('.').all(label);
    if !cookie_domain.is_empty() && !is_domain {
        return Err(BadSetting::new(
            "http.cookie_domain",
            format!("{} is not a domain", shown(cookie_domain)),
            "write e.g. example.org, or leave it empty",
        ));
    }
    let is_page = |text: &str| {
        url::Url::parse(text).is_ok_and(|url| {
            ["http", "https"].contains(&url.scheme())
                && url.username().is_empty()
                && url.password().is_none()
        })
    };
    if !login_page.is_empty() && !is_page(login_page) {
        return Err(BadSetting::new(
            "http.login_page",
            format!("{} is not an address", shown_address(login_page)),
            "write e.g. https://app.example.org/login, or leave it empty",
        ));
    }
    Ok(())
}

/// Whether a text can stand before the paths of [`compat`]: plain segments, the first none of ours.
fn is_prefix(prefix: &str) -> bool {
    let plain = |segment: &str| {
        !segment.bytes().all(|b| b == b'.')
            && segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b))
    };
    let Some(segments) = prefix.strip_prefix('/') else {
        return prefix.is_empty();
    };
    segments.split('/').all(plain) && !is_ours(segments)
}

/// Whether the first segment of a path is one of the API's own.
fn is_ours(path: &str) -> bool {
    let first = path.split('/').next().unwrap_or_default();
    let options = ApiOptions {
        mailbox: Some(MemoryMailer::new()),
        metrics: true,
        ..ApiOptions::default()
    };
    let ours = methods(&options).first_segments(&options);
    ours.contains(&format!("/{first}"))
}

fn check_compat(prefix: &str) -> Result<(), BadSetting> {
    if is_prefix(prefix) {
        return Ok(());
    }
    let problem = match prefix.strip_prefix('/') {
        Some(path) if is_ours(path) => format!("{} begins with a path of ours", shown(prefix)),
        _ => format!("{} is not a path without a slash at the end", shown(prefix)),
    };
    let remedy = "write e.g. /balance_hub, or leave it empty";
    Err(BadSetting::new("http.compat_prefix", problem, remedy))
}

/// How the API is mounted.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// Where clients reach this API, without a slash at the end; links begin with it. Where the routes
    /// are nested below a path, it ends with that path.
    pub public_url: String,
    /// Networks of the proxies whose `X-Forwarded-*`, `X-Original-Method` and `X-Request-Id` headers are
    /// believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Most bytes of a request's body.
    pub max_body_bytes: usize,
    /// How long a body may take; then it is 408. Default 30 s.
    pub body_timeout: Span,
    /// How long a request may take once its body is there; then it is 503. Looked at whenever the request's task
    /// is woken, which the server's own listener sees to. Default 30 s.
    pub request_timeout: Span,
    /// Most requests that these routes work on at once; more are 503 at once. Default 4096.
    pub max_in_flight: usize,
    /// Whether `/docs`, `/redoc`, `/scalar`, `/openapi.json` and `/version` are served here too.
    pub docs: bool,
    /// Whether `/metrics` is served here too. Default false: it is for operators.
    pub metrics: bool,
    /// Origins whose pages may use the API from a browser, with cookies (`https://app.example.org`).
    pub allowed_origins: Vec<String>,
    /// Origins that a login may lead back to, besides that of `public_url`.
    pub redirect_origins: Vec<String>,
    /// The domain whose hosts all get the session cookie; empty for one host alone.
    pub cookie_domain: String,
    /// The page to log in at; empty for `/login` of this API.
    pub login_page: String,
    /// Whether `POST /v1/oauth/token` takes `grant_type=password`.
    pub password_grant: bool,
    /// Who may introspect and revoke tokens.
    pub clients: Clients,
    /// What the paths of hand-written services (`/auth/sign_up`, `/protected` and so on) begin with, e.g.
    /// `/balance_hub`, or an empty text; default `None`, which serves none of them.
    pub compat: Option<String>,
    /// Letters to show at `/dev/mail`, to anybody: for development only. Default none.
    pub mailbox: Option<MemoryMailer>,
}

impl Default for ApiOptions {
    fn default() -> Self {
        let settings = HttpSettings::default();
        Self {
            public_url: "http://localhost:8080".to_owned(),
            trusted_proxies: Vec::new(),
            max_body_bytes: settings.max_body_bytes,
            body_timeout: settings.body_timeout,
            request_timeout: settings.request_timeout,
            max_in_flight: settings.max_in_flight,
            docs: true,
            metrics: false,
            allowed_origins: Vec::new(),
            redirect_origins: Vec::new(),
            cookie_domain: String::new(),
            login_page: String::new(),
            password_grant: false,
            clients: Clients::default(),
            compat: None,
            mailbox: None,
        }
    }
}

impl ApiOptions {
    /// Checks the options; the server does so at its start. What does not hold is otherwise obeyed as far
    /// as it can be: an origin with a slash at its end, for one, is never met.
    ///
    /// # Errors
    /// The first [`BadSetting`], under the name that it has in the server's configuration.
    pub fn check(&self) -> Result<(), BadSetting> {
        if self.public_url.ends_with('/') || url::Url::parse(&self.public_url).is_err() {
            return Err(BadSetting::new(
                "public_url",
                format!(
                    "{} is not an address without a slash at the end",
                    shown_address(&self.public_url)
                ),
                "write it as https://app.example.org",
            ));
        }
        check_compat(self.compat.as_deref().unwrap_or_default())?;
        let browsers = (&*self.allowed_origins, &*self.redirect_origins);
        check_browsers(browsers, &self.cookie_domain, &self.login_page)
    }

    /// The prefix of [`compat`], if these paths are served; one that does not hold is not.
    fn compat(&self) -> Option<&str> {
        self.compat.as_deref().filter(|prefix| is_prefix(prefix))
    }
}

#[derive(Tags)]
enum Tag {
    /// Registering, logging in, refreshing and logging out.
    Authentication,
    /// What proxies ask before they pass a request on.
    ForwardAuth,
    /// What OAuth libraries know.
    OAuth,
    /// What letters ask for, and what asks for letters.
    Mail,
    /// What users see and change about themselves.
    Me,
    /// What administrators do. Each operation names the permission that a role of the caller has to grant,
    /// for machines as `x-permission`, and in `x-step-up` whether it takes a fresh login.
    Administration,
    /// What operators and their tools ask.
    System,
}

/// Every operation there is.
type Api = (
    AuthApi,
    CheckApi,
    PasswordApi,
    StrengthApi,
    VerificationApi,
    MeApi,
    EventsApi,
    AdminApi,
    PersonsApi,
    RolesApi,
    OutboxApi,
    AuditApi,
    OAuthApi,
    SystemApi,
    VersionApi,
);

impl Auth {
    /// The whole API, ready to be served or nested.
    #[must_use]
    pub fn routes(&self, options: &ApiOptions) -> BoxEndpoint<'static, Response> {
        let surface = Surface::new(options);
        let api = (
            AuthApi {
                auth: self.clone(),
                surface: Arc::clone(&surface),
            },
            CheckApi,
            PasswordApi(self.clone()),
            StrengthApi(self.clone()),
            VerificationApi(self.clone()),
            MeApi {
                auth: self.clone(),
                surface: Arc::clone(&surface),
            },
            EventsApi(self.clone()),
            AdminApi {
                auth: self.clone(),
                public_url: options.public_url.clone(),
            },
            PersonsApi(self.clone()),
            RolesApi(self.clone()),
            OutboxApi(self.clone()),
            AuditApi(self.clone()),
            OAuthApi {
                auth: self.clone(),
                surface: Arc::clone(&surface),
            },
            SystemApi {
                auth: self.clone(),
                docs: options.docs,
                mailbox: options.mailbox.is_some(),
            },
        );
        let route = if options.docs {
            let service =
                OpenApiService::new((api, VersionApi), "Doorward", env!("CARGO_PKG_VERSION"));
            docs::mount(Route::new().nest("/", service), &options.public_url)
        } else {
            Route::new().nest(
                "/",
                OpenApiService::new(api, "Doorward", env!("CARGO_PKG_VERSION")),
            )
        };
        let routes = with_pages(route, options);
        Edge::around(routes, self.clone(), surface)
            .with_shortcuts()
            .boxed()
    }

    /// `/metrics` and nothing else, for a listener of its own.
    #[must_use]
    pub fn metrics_routes(&self, options: &ApiOptions) -> BoxEndpoint<'static, Response> {
        let options = ApiOptions {
            metrics: true,
            ..options.clone()
        };
        let route = Route::new().at(measured::PATH, get(ShowMetrics));
        Edge::around(route, self.clone(), Surface::new(&options)).boxed()
    }

    /// Adds the API to an app's own routes, at the paths that it has and at no others: `/v1`, `/login`,
    /// `/health` and so on. (`Route::nest` at `/` would take `/` itself from the app.)
    ///
    /// # Panics
    /// When the app has a route at one of these paths.
    #[must_use]
    pub fn mount(&self, route: Route, options: &ApiOptions) -> Route {
        let api = Arc::new(self.routes(options));
        let mut route = route;
        for first in methods(options).first_segments(options) {
            // Not `nest_no_strip`, which panics over a route nested at `/`, as those of the API are.
            let below = format!("{first}/*doorward");
            route = route
                .at(first, Arc::clone(&api))
                .at(below, Arc::clone(&api));
        }
        route
    }
}

/// Where the documents are served, if they are.
const DOCUMENTS: [&str; 4] = ["/openapi.json", "/docs", "/redoc", "/scalar"];

/// Adds what is not in the API document.
fn with_pages(route: Route, options: &ApiOptions) -> Route {
    let mut route = Page::ALL.into_iter().fold(route, |route, page| {
        let place = Place { page, depth: 0 };
        let show = get(ShowPage(place));
        let methods = if page.takes_form() {
            show.post(TakeForm(place))
        } else {
            show
        };
        route.at(page.path(), methods)
    });
    if options.login_page.is_empty() {
        route = route.at("/login", get(LoginPage).post(LogIn));
    }
    if let Some(prefix) = options.compat() {
        route = compat::mount(route, prefix);
    }
    if let Some(mailbox) = &options.mailbox {
        route = dev_mailbox::mount(route, mailbox);
    }
    if options.metrics {
        route = route.at(measured::PATH, get(ShowMetrics));
    }
    route
}

fn methods(options: &ApiOptions) -> Methods {
    let methods = Methods::of::<Api>().and("/login", &["GET", "POST"]);
    let methods = Page::ALL.iter().fold(methods, |methods, page| {
        let allowed: &[&str] = if page.takes_form() {
            &["GET", "POST"]
        } else {
            &["GET"]
        };
        methods.and(page.path(), allowed)
    });
    let shown = options.mailbox.is_some().then_some(dev_mailbox::PATHS);
    let metrics = options.metrics.then_some(measured::PATH);
    let read_only = DOCUMENTS.iter().chain(shown.iter().flatten());
    let read_only = read_only.chain(metrics.iter());
    let methods = read_only.fold(methods, |methods, path| methods.and(path, &["GET"]));
    let compat = options.compat().map(compat::paths);
    compat
        .into_iter()
        .flatten()
        .fold(methods, |methods, (path, allowed)| {
            methods.and(&path, &allowed)
        })
}

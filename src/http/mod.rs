//! The REST API: translates between HTTP and the use cases, and decides nothing else.
//!
//! `Auth::routes` mounts it all. What every request passes, from the outside in: `edge` (request id,
//! headers, log, problems, panics), the routes, a guard where one is asked for, the handler.

mod admin_api;
mod auth_api;
mod body;
mod client_ip;
mod docs;
mod dto;
mod edge;
mod guard;
mod me_api;
mod password_api;
mod problem;
mod system_api;

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use poem::{EndpointExt, Response, Route, endpoint::BoxEndpoint, get};
use poem_openapi::{OpenApiService, Tags};
use serde::{Deserialize, Serialize};

use self::{
    admin_api::AdminApi,
    auth_api::AuthApi,
    edge::{Edge, Methods},
    me_api::MeApi,
    password_api::{PasswordApi, SetPasswordPage},
    system_api::{SystemApi, VersionApi},
};
pub use self::{docs::openapi_document, problem::Problem};
use crate::{
    auth::Auth,
    setting::{BadSetting, shown},
};

/// `[http]`: where to listen and whom to believe.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    /// Address and port of the API. Default `127.0.0.1:8080`.
    pub listen: String,
    /// Address and port of the API with `/docs`, `/redoc`, `/scalar`, `/openapi.json` and `/version` in
    /// production, for operators; empty (default) for nowhere. Elsewhere they are served by `listen`.
    pub admin_listen: String,
    /// Networks of the proxies whose `X-Forwarded-For` and `X-Request-Id` are believed. Default none.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether a proxy in front of this node does TLS. Default false.
    pub behind_proxy: bool,
    /// Most bytes of a request's body. Default 65536.
    pub max_body_bytes: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            admin_listen: String::new(),
            trusted_proxies: Vec::new(),
            behind_proxy: false,
            max_body_bytes: 65_536,
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
        Ok(())
    }
}

/// How the API is mounted.
#[derive(Debug, Clone)]
pub struct ApiOptions {
    /// Where clients reach this API, without a slash at the end; links begin with it.
    pub public_url: String,
    /// Networks of the proxies whose `X-Forwarded-For` and `X-Request-Id` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Most bytes of a request's body.
    pub max_body_bytes: usize,
    /// Whether `/docs`, `/redoc`, `/scalar`, `/openapi.json` and `/version` are served here too.
    pub docs: bool,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            public_url: "http://localhost:8080".to_owned(),
            trusted_proxies: Vec::new(),
            max_body_bytes: HttpSettings::default().max_body_bytes,
            docs: true,
        }
    }
}

#[derive(Tags)]
enum Tag {
    /// Registering, logging in and out.
    Authentication,
    /// What users see and change about themselves.
    Me,
    /// What administrators do. Needs the role `admin`.
    Administration,
    /// What operators and their tools ask.
    System,
}

/// Every operation there is.
type Api = (AuthApi, PasswordApi, MeApi, AdminApi, SystemApi, VersionApi);

/// What is known of a request before it is handled.
#[derive(Debug, Clone)]
struct Context {
    request_id: Arc<str>,
    client_ip: Option<IpAddr>,
}

impl Auth {
    /// The whole API, ready to be served or nested.
    #[must_use]
    pub fn routes(&self, options: &ApiOptions) -> BoxEndpoint<'static, Response> {
        let public_url = options.public_url.clone();
        let api = (
            AuthApi(self.clone()),
            PasswordApi(self.clone()),
            MeApi(self.clone()),
            AdminApi {
                auth: self.clone(),
                public_url,
            },
            SystemApi {
                auth: self.clone(),
                docs: options.docs,
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
        let route = route
            .at("/set-password", get(SetPasswordPage))
            .data(self.clone());
        Edge::around(route, self.clone(), options).boxed()
    }
}

fn methods() -> Methods {
    Methods::of::<Api>()
        .and("/set-password", "GET")
        .and("/openapi.json", "GET")
        .and("/docs", "GET")
        .and("/redoc", "GET")
        .and("/scalar", "GET")
}

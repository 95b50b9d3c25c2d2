//! What this API shows to browsers and proxies, and what it believes of them: made once from the
//! options, asked at every request.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use poem::{
    Endpoint, Error, PathPattern, Request,
    http::{HeaderName, HeaderValue, Method, header::USER_AGENT},
};
use tracing::Span;
use url::Url;
use uuid::Uuid;

use super::{
    ApiOptions,
    client_ip::{client_ip, peer_is_trusted},
    cookie::OwnCookie,
    guard::user_agent,
    origins::{Origins, Target},
    problem::Problem,
};
use crate::{
    audit::coming_from,
    auth::Auth,
    clock::Timestamp,
    model::audit::{Agent, Details, Event, EventKind, Origin},
    sessions::{CurrentUser, Grant},
    spans,
    tokens::SignedToken,
};

pub(super) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The options in the form in which requests need them.
#[derive(Debug)]
pub(super) struct Surface {
    pub(super) options: ApiOptions,
    pub(super) is_https: bool,
    pub(super) cookie: OwnCookie,
    pub(super) device_cookie: OwnCookie,
    pub(super) origins: Origins,
}

impl Surface {
    pub(super) fn new(options: &ApiOptions) -> Arc<Self> {
        let is_https = Url::parse(&options.public_url).is_ok_and(|url| url.scheme() == "https");
        let origins = Origins::new(
            &options.public_url,
            &options.allowed_origins,
            &options.redirect_origins,
        );
        Arc::new(Self {
            is_https,
            cookie: OwnCookie::session(is_https, &options.cookie_domain),
            device_cookie: OwnCookie::device(is_https, &options.cookie_domain),
            origins,
            options: options.clone(),
        })
    }

    /// The header that gives a browser its cookie, which lasts as long as its session.
    pub(super) fn give_cookie(
        &self,
        auth: &Auth,
        token: &SignedToken,
        session_end: Timestamp,
    ) -> Result<(HeaderName, HeaderValue), Problem> {
        self.cookie.set(token, session_end, auth.now())
    }

    /// The headers that give a browser its session cookie, and the other by which its device is known again.
    pub(super) fn give_cookies(
        &self,
        auth: &Auth,
        grant: &Grant<SignedToken>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
        let ends = grant.session.expires_at;
        let mut cookies = vec![self.give_cookie(auth, &grant.carries, ends)?];
        if let Some(device) = &grant.device {
            cookies.push(self.device_cookie.keep(device.secret.expose())?);
        }
        Ok(cookies)
    }

    /// The header that gives a caller another cookie in place of the one that it has, if it has one.
    pub(super) fn renew_cookie(
        &self,
        auth: &Auth,
        caller: &CurrentUser,
        renewed: Option<SignedToken>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
        let cookie = renewed.map(|token| self.give_cookie(auth, &token, caller.expires_at));
        Ok(cookie.transpose()?.into_iter().collect())
    }

    /// Where people log in: the page of the configuration, or our own.
    pub(super) fn login_page(&self, back_to: &Target) -> String {
        let own = format!("{}/login", self.options.public_url);
        let page = match self.options.login_page.as_str() {
            "" => &own,
            page => page,
        };
        let Ok(mut url) = Url::parse(page) else {
            return own;
        };
        url.query_pairs_mut()
            .append_pair("redirect", &back_to.location);
        url.into()
    }

    /// Whether the peer is a proxy whose word counts.
    pub(super) fn trusts_peer_of(&self, request: &Request) -> bool {
        peer_is_trusted(request, &self.options.trusted_proxies)
    }
}

/// What is known of a request before it is handled.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) auth: Auth,
    pub(super) surface: Arc<Surface>,
    pub(super) request_id: Arc<str>,
    pub(super) client_ip: Option<IpAddr>,
    /// Who turned out to be asking.
    pub(super) caller: Arc<OnceLock<Agent>>,
}

/// What is answered to a caller who is known and may not do what they ask for.
const REFUSALS: [&str; 4] = [
    "permission_required",
    "role_required",
    "outranked",
    "reauth_required",
];

impl Context {
    /// What is known of this request, unless an outer layer has found it out already.
    pub(super) fn new(auth: &Auth, surface: &Arc<Surface>, request: &Request) -> Self {
        let (request_id, caller) = match request.data::<Self>() {
            Some(outer) => (Arc::clone(&outer.request_id), Arc::clone(&outer.caller)),
            None => (request_id(auth, surface, request), Arc::default()),
        };
        Self {
            auth: auth.clone(),
            surface: Arc::clone(surface),
            request_id,
            client_ip: client_ip(request, &surface.options.trusted_proxies),
            caller,
        }
    }

    /// Makes a request part of its proxy's trace. What a stranger says of traces counts for nothing, or anybody
    /// could have theirs kept.
    pub(super) fn continue_trace(&self, span: &Span, request: &Request) {
        let given = request.header("traceparent");
        if let Some(parent) = given.filter(|_| self.surface.trusts_peer_of(request)) {
            spans::continues(span, parent);
        }
    }

    /// Where a request comes from, for whoever records what it does.
    pub(super) fn origin(&self, request: &Request) -> impl Fn() -> Origin + Send + Sync + use<> {
        let (request_id, address) = (Arc::clone(&self.request_id), self.client_ip);
        let agent = request.headers().get(USER_AGENT).cloned();
        move || Origin {
            request_id: Some(request_id.as_ref().to_owned()),
            details: Details {
                address,
                user_agent: user_agent(agent.as_ref()),
            },
        }
    }

    /// Handles a request so that the audit trail tells where what is done comes from, and that a caller was
    /// refused who may not do it (ASVS 16.3.2).
    pub(super) async fn recorded<E: Endpoint>(
        &self,
        inner: &E,
        request: Request,
    ) -> poem::Result<E::Output> {
        let origin = self.origin(&request);
        let method = request.method().clone();
        coming_from(origin, async {
            let answered = inner.call(request).await;
            if let Err(error) = &answered {
                self.note_refusal(error, &method).await;
            }
            answered
        })
        .await
    }

    async fn note_refusal(&self, error: &Error, method: &Method) {
        let refused = error.downcast_ref::<Problem>().map(Problem::code);
        let refused = refused.filter(|code| REFUSALS.contains(code));
        let (Some(code), Some(caller)) = (refused, self.caller.get()) else {
            return;
        };
        let route = error.data::<PathPattern>();
        let route = route.map_or("-", |pattern| pattern.0.as_ref());
        let event = Event::refused(EventKind::PermissionRefused, code);
        let event = event.with("operation", format!("{method} {route}"));
        if let Err(error) = self.auth.audit().note(event, *caller).await {
            tracing::error!(%error, "a refusal was not recorded");
        }
    }

    /// What was found out about this request.
    pub(super) fn of(request: &Request) -> Result<&Self, Problem> {
        let missing = "a route was mounted outside of `Auth::routes` and `Auth::middleware`";
        request.data().ok_or_else(|| Problem::internal(missing))
    }
}

/// A fresh id, or the one that a trusted proxy has given the request already.
fn request_id(auth: &Auth, surface: &Surface, request: &Request) -> Arc<str> {
    let plain = |id: &&str| {
        (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    let given = || request.header(&X_REQUEST_ID).filter(plain).map(Arc::from);
    let believed = surface.trusts_peer_of(request).then(given).flatten();
    believed.unwrap_or_else(|| {
        let id = auth.fresh_request_id().as_uuid();
        Arc::from(&*id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
    })
}

//! Who is asking: tokens and cookies become [`CurrentUser`]s, and roles become types.
//!
//! A handler that takes a `CurrentUser` or a [`HasRole`] cannot be reached without one; in a
//! poem-openapi operation they stand in [`Secured`], which documents them. Every check decodes what was
//! presented and then looks session and user up in the database.

use std::{borrow::Cow, fmt, marker::PhantomData, ops::Deref};

use futures_util::FutureExt;
use poem::{
    FromRequest, Request, RequestBody,
    http::{
        HeaderValue, Method,
        header::{ACCEPT_LANGUAGE, AUTHORIZATION, USER_AGENT},
    },
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaOAuthFlow, MetaOAuthFlows, MetaSecurityScheme, Registry},
};

use super::{Context, origins::is_safe, problem::Problem};
use crate::{
    error::{AuthError, FieldError},
    model::{
        session::Device,
        user::{ADMIN, User},
    },
    outbox::Cause,
    secret::SecretString,
    sessions::{CurrentUser, Presented},
    throttle::DeviceProof,
};

const BEARER: &str = "bearer";
const PASSWORD: &str = "password";
const LONGEST_USER_AGENT: usize = 256;
const LONGEST_DEVICE_NAME: usize = 100;

/// The token behind a scheme in the one `Authorization` header of a request; `None` without a header
/// or with another scheme. Tokens in a query are not looked for (ASVS 14.2.1).
pub(super) fn authorization<'a>(
    request: &'a Request,
    wanted: &str,
) -> Result<Option<&'a str>, Problem> {
    let mut headers = request.headers().get_all(AUTHORIZATION).iter();
    let Some(header) = headers.next() else {
        return Ok(None);
    };
    if headers.next().is_some() {
        return Err(Problem::bad_request(
            "ambiguous_credentials",
            "There must be one `Authorization` header, not several.",
        ));
    }
    let text = header.to_str().ok();
    let (scheme, token) = text.and_then(|t| t.split_once(' ')).unwrap_or_default();
    let is_wanted = scheme.eq_ignore_ascii_case(wanted);
    Ok(is_wanted.then(|| token.trim_start_matches(' ')))
}

/// What the request presents: an access token or a cookie, never both (ASVS 15.3.7).
///
/// # Errors
/// Nothing presented, two things presented, or a cookie with an unsafe method that some other site may
/// have sent.
fn presented<'a>(request: &'a Request, method: &Method) -> Result<Presented<'a>, Problem> {
    let surface = &Context::of(request)?.surface;
    let cookie = surface.cookie.find(request.headers())?;
    match (authorization(request, BEARER)?, cookie) {
        (Some(_), Some(_)) => Err(Problem::bad_request(
            "ambiguous_credentials",
            "A request carries an access token or a session cookie, not both.",
        )),
        (Some(token), None) => Ok(Presented::Access(token)),
        (None, Some(cookie)) => {
            if !is_safe(method) || is_websocket(request) {
                surface.origins.check(request.headers())?;
            }
            Ok(Presented::Cookie(cookie))
        }
        (None, None) => Err(AuthError::NoCredentials.into()),
    }
}

/// Whether a page opens a WebSocket: a GET that browsers send with cookies for any page of the same site,
/// and whose answer any of them may read.
fn is_websocket(request: &Request) -> bool {
    let headers = request.headers();
    let mode = headers.get("sec-fetch-mode");
    headers.contains_key("sec-websocket-key") || mode.is_some_and(|mode| mode == "websocket")
}

/// Who sends this request, taken to be of this method.
pub(super) async fn caller_of(request: &Request, method: &Method) -> Result<CurrentUser, Problem> {
    let presented = presented(request, method)?;
    let context = Context::of(request)?;
    let judged = context.auth.authenticate(presented).await;
    let judged = judged.map_err(Problem::from);
    let metrics = context.auth.metrics();
    metrics.authenticated(judged.as_ref().err().map(Problem::code));
    let caller = judged?;
    context.caller.get_or_init(|| caller.actor().agent());
    Ok(caller)
}

impl<'a> FromRequest<'a> for CurrentUser {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        Ok(caller_of(request, request.method()).await?)
    }
}

/// The name of a role, as a type: what a handler asks for cannot be misspelt in one place only.
///
/// ```
/// struct Editor;
///
/// impl doorward::http::RoleName for Editor {
///     const NAME: &'static str = "editor";
/// }
/// ```
pub trait RoleName: Send + Sync + 'static {
    /// As it stands in the user's `roles`.
    const NAME: &'static str;
}

/// The built-in role; whoever has it holds all of Doorward's own permissions.
#[derive(Debug)]
pub struct AdminRole;

impl RoleName for AdminRole {
    const NAME: &'static str = ADMIN;
}

/// A caller with a role, as it is in the database now; anybody else is answered 403.
pub struct HasRole<R: RoleName> {
    caller: CurrentUser,
    role: PhantomData<R>,
}

// By hand, so that the name of a role need be neither.
impl<R: RoleName> Clone for HasRole<R> {
    fn clone(&self) -> Self {
        Self {
            caller: self.caller.clone(),
            role: PhantomData,
        }
    }
}

impl<R: RoleName> fmt::Debug for HasRole<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", R::NAME, self.caller)
    }
}

impl<R: RoleName> HasRole<R> {
    /// The caller.
    #[must_use]
    pub fn into_inner(self) -> CurrentUser {
        self.caller
    }
}

impl<R: RoleName> Deref for HasRole<R> {
    type Target = CurrentUser;

    fn deref(&self) -> &CurrentUser {
        &self.caller
    }
}

impl<R: RoleName> AsRef<CurrentUser> for HasRole<R> {
    fn as_ref(&self) -> &CurrentUser {
        &self.caller
    }
}

impl AsRef<Self> for CurrentUser {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// Refuses a user without this role.
pub(super) fn require_role(
    user: &User,
    role: impl Into<Cow<'static, str>>,
) -> Result<(), AuthError> {
    let role = role.into();
    if user.roles.contains(&role) {
        Ok(())
    } else {
        Err(AuthError::RoleRequired(role))
    }
}

impl<'a, R: RoleName> FromRequest<'a> for HasRole<R> {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        let caller = <CurrentUser as FromRequest>::from_request(request, body).await?;
        require_role(&caller.user, R::NAME).map_err(Problem::from)?;
        Ok(Self {
            caller,
            role: PhantomData,
        })
    }
}

/// Puts an extractor of this module among the security schemes of a poem-openapi operation.
#[derive(Debug, Clone)]
pub struct Secured<T>(pub T);

impl<T> Deref for Secured<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What [`Secured`] can hold.
pub trait Guard: for<'a> FromRequest<'a> + Send {}

impl Guard for CurrentUser {}
impl<R: RoleName> Guard for HasRole<R> {}
impl Guard for PresentedToken {}

impl<'a, T: Guard> ApiExtractor<'a> for Secured<T> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        register_schemes(registry);
    }

    fn security_schemes() -> Vec<&'static str> {
        // Not the cookie, which browsers send by themselves: some generated clients send whatever stands
        // here all at once, and a token together with a cookie is refused.
        vec![BEARER, PASSWORD]
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        // Boxed for https://github.com/rust-lang/rust/issues/100013.
        let guarded = <T as FromRequest>::from_request(request, body).boxed();
        guarded.await.map(Self)
    }
}

fn register_schemes(registry: &mut Registry) {
    let scheme = |ty, description| MetaSecurityScheme {
        ty,
        description: Some(description),
        name: None,
        key_in: None,
        scheme: None,
        bearer_format: None,
        flows: None,
        openid_connect_url: None,
    };
    let bearer = MetaSecurityScheme {
        scheme: Some("bearer"),
        bearer_format: Some("JWT"),
        ..scheme("http", "An access token from `POST /v1/auth/login`.")
    };
    registry.create_security_scheme(BEARER, bearer);
    let flow = MetaOAuthFlow {
        authorization_url: None,
        token_url: Some("/v1/auth/login"),
        refresh_url: None,
        scopes: vec![],
    };
    let password = MetaSecurityScheme {
        flows: Some(MetaOAuthFlows {
            implicit: None,
            password: Some(flow),
            client_credentials: None,
            authorization_code: None,
        }),
        ..scheme(
            "oauth2",
            "Logs in here, with e-mail address or user name and password.",
        )
    };
    registry.create_security_scheme(PASSWORD, password);
}

/// What was presented, taken as it is: what it may do is for the handler to ask.
#[derive(Debug)]
pub(super) struct PresentedToken {
    is_cookie: bool,
    text: SecretString,
}

impl PresentedToken {
    pub(super) fn presented(&self) -> Presented<'_> {
        if self.is_cookie {
            Presented::Cookie(self.text.expose())
        } else {
            Presented::Access(self.text.expose())
        }
    }

    pub(super) fn is_cookie(&self) -> bool {
        self.is_cookie
    }
}

impl<'a> FromRequest<'a> for PresentedToken {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let (is_cookie, text) = match presented(request, request.method())? {
            Presented::Access(text) => (false, text),
            Presented::Cookie(text) => (true, text),
        };
        Ok(Self {
            is_cookie,
            text: text.into(),
        })
    }
}

/// Whether this site or an allowed one has sent the request, for handlers that give cookies.
#[derive(Debug)]
pub(super) struct FromOwnSite(pub(super) Result<(), Problem>);

impl<'a> FromRequest<'a> for FromOwnSite {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let surface = &Context::of(request)?.surface;
        Ok(Self(surface.origins.check(request.headers())))
    }
}

/// The device cookie, for logins that give cookies.
#[derive(Debug)]
pub(super) struct DeviceCookie(Result<Option<SecretString>, Problem>);

impl DeviceCookie {
    /// What it shows.
    ///
    /// # Errors
    /// Two cookies of the name.
    pub(super) fn proof(&self) -> Result<DeviceProof<'_>, Problem> {
        let shown = self.0.as_ref().map_err(Clone::clone)?;
        Ok(shown.as_ref().map_or(DeviceProof::Missing, |text| {
            DeviceProof::Shown(text.expose())
        }))
    }
}

impl<'a> FromRequest<'a> for DeviceCookie {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let surface = &Context::of(request)?.surface;
        let found = surface.device_cookie.find(request.headers());
        Ok(Self(found.map(|value| value.map(Into::into))))
    }
}

/// What a client says that it is, cut to size.
pub(super) fn user_agent(header: Option<&HeaderValue>) -> Option<String> {
    let text = header.and_then(|value| value.to_str().ok())?;
    let printable = text.chars().filter(|c| !c.is_control());
    Some(printable.take(LONGEST_USER_AGENT).collect())
}

/// What a client says about itself, cut to size.
#[derive(Debug)]
pub(super) struct Peer(Device);

impl<'a> FromRequest<'a> for Peer {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        Ok(Self(Device {
            name: None,
            user_agent: user_agent(request.headers().get(USER_AGENT)),
            address: Context::of(request)?.client_ip,
        }))
    }
}

/// What letters tell of whoever causes them.
pub(super) struct Caused(pub(super) Cause);

impl<'a> FromRequest<'a> for Caused {
    async fn from_request(request: &'a Request, body: &mut RequestBody) -> poem::Result<Self> {
        let Peer(device) = <Peer as FromRequest>::from_request(request, body).await?;
        let accept_language = request.header(ACCEPT_LANGUAGE).map(str::to_owned);
        Ok(Self(Cause {
            accept_language,
            device,
        }))
    }
}

impl Peer {
    /// The device, with the name that its user gave it.
    pub(super) fn device(self, name: Option<String>) -> Result<Device, FieldError> {
        if let Some(name) = &name
            && (name.is_empty()
                || name.chars().count() > LONGEST_DEVICE_NAME
                || name.chars().any(char::is_control))
        {
            let detail = format!("must be 1 to {LONGEST_DEVICE_NAME} printable characters");
            return Err(FieldError::new("device_name", "invalid", detail));
        }
        Ok(Device { name, ..self.0 })
    }
}

//! `/v1/auth/check`: a proxy asks whether a request may pass, and who sends it.
//!
//! The proxy sends the request's headers here before it sends the request to the application. It asks
//! with whatever method and below whatever path it likes; [`as_asked`] makes one operation of them.

use poem::{
    FromRequest, IntoResponse, Request, RequestBody, Response,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
};
use poem_openapi::{
    ApiResponse, OpenApi,
    param::Query,
    registry::{MetaHeader, MetaResponse, MetaResponses, Registry},
    types::Type,
};

use super::{
    Context, Tag,
    cookie::OwnCookie,
    guard::{Guard, Secured, caller_of, require_role},
    origins::is_safe,
    problem::{FORBIDDEN, Fails, GUARDED, Problem},
};
use crate::{error::AuthError, sessions::CurrentUser};

pub(super) const PATH: &str = "/v1/auth/check";

pub(super) struct CheckApi;

/// The method of the request that a proxy asks about, where that is known.
#[derive(Clone)]
struct OriginalMethod(Option<Method>);

/// Makes a question of whatever method, at the path of the check or below it, the one operation that
/// there is. The body is the application's and is not read; below the path the query is the
/// application's, too.
pub(super) fn as_asked(request: &mut Request, context: &Context) {
    let path = request.uri().path();
    let is_below = path
        .strip_prefix(PATH)
        .is_some_and(|rest| rest.starts_with('/'));
    if path != PATH && !is_below {
        return;
    }
    let told = || {
        let headers = request.headers();
        let names = ["x-forwarded-method", "x-original-method"];
        let told = names.iter().flat_map(|name| headers.get_all(*name));
        let told: Option<Vec<Method>> = told
            .map(|value| Method::from_bytes(value.as_bytes()).ok())
            .collect();
        // A proxy may set one of them and pass the other on as the client wrote it.
        let told = told?;
        let unsafe_one = told.iter().find(|method| !is_safe(method));
        unsafe_one.or(told.first()).cloned()
    };
    let told = context.surface.trusts_peer_of(request).then(told).flatten();
    drop(request.take_body());
    request.set_data(OriginalMethod(told));
    request.set_method(Method::GET);
    if is_below {
        *request.uri_mut() = Uri::from_static(PATH);
    }
}

/// Who sends the request that the proxy asks about, and what else the answer depends on.
struct Checked {
    caller: Result<CurrentUser, Problem>,
    context: Context,
    headers: HeaderMap,
    /// Whether a proxy asks whose word counts.
    is_trusted: bool,
    /// Whether the method of the original request is known.
    is_method_told: bool,
    /// The address that the proxy was asked for, in its own words.
    address: Option<String>,
}

impl Checked {
    async fn of(request: &Request) -> Result<Self, Problem> {
        let context = Context::of(request)?;
        let told = request.data::<OriginalMethod>();
        let told = told.and_then(|told| told.0.clone());
        let is_method_told = told.is_some();
        // A method that nobody told counts as unsafe.
        let method = told.unwrap_or(Method::POST);
        let trusted = context.surface.trusts_peer_of(request);
        Ok(Self {
            caller: caller_of(request, &method).await,
            context: context.clone(),
            headers: request.headers().clone(),
            is_trusted: trusted,
            is_method_told,
            address: trusted.then(|| address(request.headers())).flatten(),
        })
    }
}

impl<'a> FromRequest<'a> for Checked {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        Ok(Self::of(request).await?)
    }
}

impl Guard for Checked {}

/// Who sends the request, for the application behind the proxy.
#[derive(Debug)]
struct Passed(Vec<(HeaderName, HeaderValue)>);

/// What the application is told, and how each is documented.
const TOLD: [(&str, &str); 5] = [
    ("x-auth-user", "The user's id."),
    ("x-auth-session", "The session's id."),
    (
        "x-auth-roles",
        "The user's roles, separated by commas; empty if there are none.",
    ),
    (
        "x-auth-email",
        "The user's e-mail address if it was verified, else empty.",
    ),
    (
        "cookie",
        "The request's cookies without the session's, for the application; empty if there are no others, or if it \
            is not a trusted proxy that asks.",
    ),
];

impl Passed {
    /// All headers or none: a proxy would leave in their place what the client wrote itself.
    fn new(caller: &CurrentUser, cookies: Vec<u8>) -> Result<Self, Problem> {
        let user = &caller.user;
        let email = match user.email_verified_at {
            Some(_) => user.email.as_str(),
            None => "",
        };
        let values = [
            user.id.to_string().into_bytes(),
            caller.session_id.to_string().into_bytes(),
            user.roles.to_vec().join(",").into_bytes(),
            email.as_bytes().to_vec(),
            cookies,
        ];
        let headers = TOLD.iter().zip(values).map(|((name, _), value)| {
            let value = HeaderValue::from_bytes(&value)
                .map_err(|_| Problem::internal(format!("{name} is no header value")))?;
            Ok((HeaderName::from_static(name), value))
        });
        headers.collect::<Result<_, Problem>>().map(Self)
    }
}

impl IntoResponse for Passed {
    fn into_response(self) -> Response {
        let mut response = Response::from(StatusCode::OK);
        response.headers_mut().extend(self.0);
        response
    }
}

impl ApiResponse for Passed {
    fn meta() -> MetaResponses {
        let headers = TOLD.iter().map(|(name, description)| MetaHeader {
            name: (*name).to_owned(),
            description: Some((*description).to_owned()),
            required: true,
            deprecated: false,
            schema: String::schema_ref(),
        });
        let response = MetaResponse {
            description: "The request may pass; the headers say who sends it.",
            status: Some(200),
            status_range: None,
            content: vec![],
            headers: headers.collect(),
        };
        MetaResponses {
            responses: vec![response],
        }
    }

    fn register(_: &mut Registry) {}
}

/// The request may pass, or whoever sends it has to log in first.
#[derive(Debug)]
enum Decision {
    Pass(Passed),
    LogIn(String),
}

impl IntoResponse for Decision {
    fn into_response(self) -> Response {
        match self {
            Self::Pass(passed) => passed.into_response(),
            Self::LogIn(page) => StatusCode::FOUND
                .with_header(header::LOCATION, page)
                .into_response(),
        }
    }
}

impl ApiResponse for Decision {
    fn meta() -> MetaResponses {
        let mut meta = Passed::meta();
        let location = MetaHeader {
            name: "Location".to_owned(),
            description: Some("The page to log in at.".to_owned()),
            required: true,
            deprecated: false,
            schema: String::schema_ref(),
        };
        meta.responses.push(MetaResponse {
            description: "Not logged in; asked with `redirect` for somebody who reads HTML.",
            status: Some(302),
            status_range: None,
            content: vec![],
            headers: vec![location],
        });
        meta
    }

    fn register(_: &mut Registry) {}
}

fn accepts_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.to_ascii_lowercase().contains("text/html"))
}

/// The address of the original request as a proxy tells it. What a client wrote into its path without
/// encoding it is encoded here.
fn address(headers: &HeaderMap) -> Option<String> {
    let told = |name| headers.get(name)?.to_str().ok();
    let (scheme, host) = (told("x-forwarded-proto")?, told("x-forwarded-host")?);
    let mut address = format!("{scheme}://{host}");
    let path = headers.get("x-forwarded-uri")?.as_bytes();
    let digit = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble)]);
    for byte in path {
        match byte {
            0x21..=0x7e => address.push(char::from(*byte)),
            other => address.extend(['%', digit(other >> 4), digit(other & 15)]),
        }
    }
    path.starts_with(b"/").then_some(address)
}

/// Says the problem's code in a header as well: some proxies show their clients nothing of the body.
fn for_proxies(refused: Problem) -> Problem {
    let code = HeaderValue::from_static(refused.code());
    refused.with_header(HeaderName::from_static("x-auth-problem"), code)
}

#[OpenApi(prefix_path = "/v1/auth", tag = "Tag::ForwardAuth")]
impl CheckApi {
    /// May this request pass
    ///
    /// For nginx, Traefik, Caddy, Envoy and other proxies that ask before they pass a request on. Any
    /// method is taken, here and below this path; **below it (`/v1/auth/check/` included) the query is the
    /// application's, and `role`, `permission` and `redirect` are not looked at**. Who sends the request stands in headers, which are
    /// always all there: a proxy that copies them leaves nothing of what the client may have written
    /// itself. A refusal has its `code` in `X-Auth-Problem`, too. With a cookie the method of the original request counts, from `X-Forwarded-Method` or
    /// `X-Original-Method` of a trusted proxy; without one it is taken for an unsafe method.
    #[oai(path = "/check", method = "get", operation_id = "check")]
    async fn check(
        &self,
        checked: Secured<Checked>,
        /// Only users with this role may pass; others are answered 403.
        role: Query<Option<String>>,
        /// Only users with this permission may pass; others are answered 403.
        permission: Query<Option<String>>,
        /// Where the login page leads back to: a path, or an address of a site in
        /// `http.redirect_origins`. Given but empty, it is what the proxy names in `X-Forwarded-Proto`,
        /// `X-Forwarded-Host` and `X-Forwarded-Uri`.
        redirect: Query<Option<String>>,
    ) -> Result<Decision, Fails<{ GUARDED | FORBIDDEN }>> {
        let asked = Asked {
            role: role.0,
            permission: permission.0,
            redirect: redirect.0,
        };
        Ok(decide(checked.0, asked).await?)
    }
}

/// What the answer is to depend on besides who asks.
#[derive(Default)]
struct Asked {
    role: Option<String>,
    permission: Option<String>,
    redirect: Option<String>,
}

/// The decision about a request that is asked about without more.
pub(super) async fn plain_check(request: &Request) -> poem::Result<Response> {
    let checked = Checked::of(request).await?;
    Ok(decide(checked, Asked::default()).await?.into_response())
}

async fn decide(checked: Checked, asked: Asked) -> Result<Decision, Problem> {
    let Checked {
        caller,
        context,
        headers,
        is_trusted,
        is_method_told,
        address,
    } = checked;
    let surface = &context.surface;
    let caller = match (caller, asked.redirect) {
        (Ok(caller), _) => caller,
        (Err(refused), Some(redirect)) if refused.is_unauthorized() && accepts_html(&headers) => {
            let is_told = redirect.is_empty();
            let back_to = if is_told {
                address.unwrap_or_default()
            } else {
                redirect
            };
            let back_to = surface.origins.target(&back_to).map_err(|refused| {
                let detail = "The address that was asked for is not known, or of a site that is not in \
                    `http.redirect_origins`: name the proxy in `http.trusted_proxies` and let it send \
                    `X-Forwarded-Proto`, `X-Forwarded-Host` and `X-Forwarded-Uri`.";
                for_proxies(if is_told { refused.with_detail(detail) } else { refused })
            })?;
            return Ok(Decision::LogIn(surface.login_page(&back_to)));
        }
        (Err(refused), _) if refused.code() == "cross_site" && !is_method_told => {
            let detail = "With a cookie the method of the original request must be known: name the proxy in \
                `http.trusted_proxies` and let it send `X-Forwarded-Method` or `X-Original-Method`.";
            return Err(for_proxies(refused.with_detail(detail)));
        }
        (Err(refused), _) => return Err(for_proxies(refused)),
    };
    if let Some(role) = asked.role {
        let refused = |error: AuthError| for_proxies(error.into());
        require_role(&caller.user, role).map_err(refused)?;
    }
    if let Some(permission) = asked.permission {
        let roles = context.auth.roles();
        let granted = roles.require(&caller.user, permission).await;
        granted.map_err(|error| for_proxies(error.into()))?;
    }
    // Scripts can read the headers of an answer, and may not read every cookie.
    let cookies = if is_trusted {
        OwnCookie::without([&surface.cookie, &surface.device_cookie], &headers)
    } else {
        Vec::new()
    };
    Ok(Decision::Pass(Passed::new(&caller, cookies)?))
}

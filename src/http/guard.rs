//! Who is asking: access tokens become [`CurrentUser`]s, and roles become types.
//!
//! A handler that takes a `CurrentUser` or an [`Administrator`] cannot be reached without one. Every
//! check decodes the token and then looks session and user up in the database.

use poem::{
    FromRequest, Request, RequestBody,
    http::header::{AUTHORIZATION, USER_AGENT},
};
use poem_openapi::{
    ApiExtractor, ApiExtractorType, ExtractParamOptions,
    registry::{MetaOAuthFlow, MetaOAuthFlows, MetaSecurityScheme, Registry},
};

use super::{Context, problem::Problem};
use crate::{
    auth::Auth,
    error::{AuthError, FieldError},
    model::{session::Device, user::ADMIN},
    sessions::CurrentUser,
};

const BEARER: &str = "bearer";
const PASSWORD: &str = "password";
const LONGEST_USER_AGENT: usize = 256;
const LONGEST_DEVICE_NAME: usize = 100;

/// The access token of a request, not yet looked at.
pub(super) struct BearerToken<'a>(pub(super) &'a str);

/// The one `Authorization` header of a request. Tokens anywhere else are not looked for (ASVS 14.2.1).
fn bearer(request: &Request) -> Result<BearerToken<'_>, Problem> {
    let mut headers = request.headers().get_all(AUTHORIZATION).iter();
    let Some(header) = headers.next() else {
        return Err(AuthError::NoCredentials.into());
    };
    if headers.next().is_some() {
        return Err(Problem::bad_request(
            "ambiguous_credentials",
            "There must be one `Authorization` header, not several.",
        ));
    }
    let (scheme, token) = header
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(AuthError::NoCredentials.into());
    }
    Ok(BearerToken(token.trim_start_matches(' ')))
}

pub(super) fn auth_of(request: &Request) -> Result<&Auth, Problem> {
    request
        .data::<Auth>()
        .ok_or_else(|| Problem::internal("a route was mounted without its Auth"))
}

async fn authenticate(request: &Request) -> Result<CurrentUser, Problem> {
    let token = bearer(request)?;
    Ok(auth_of(request)?.authenticate(token.0).await?)
}

fn register_schemes(registry: &mut Registry) {
    let scheme = MetaSecurityScheme {
        ty: "http",
        description: Some("An access token from `POST /v1/auth/login`."),
        name: None,
        key_in: None,
        scheme: Some("bearer"),
        bearer_format: Some("JWT"),
        flows: None,
        openid_connect_url: None,
    };
    registry.create_security_scheme(BEARER, scheme);
    let flow = MetaOAuthFlow {
        authorization_url: None,
        token_url: Some("/v1/auth/login"),
        refresh_url: None,
        scopes: vec![],
    };
    let scheme = MetaSecurityScheme {
        ty: "oauth2",
        description: Some("Logs in here, with e-mail address or user name and password."),
        name: None,
        key_in: None,
        scheme: None,
        bearer_format: None,
        flows: Some(MetaOAuthFlows {
            implicit: None,
            password: Some(flow),
            client_credentials: None,
            authorization_code: None,
        }),
        openid_connect_url: None,
    };
    registry.create_security_scheme(PASSWORD, scheme);
}

/// Makes a type an argument of operations that need an access token.
macro_rules! guard {
    ($type:ty, $request:ident => $check:expr) => {
        impl<'a> ApiExtractor<'a> for $type {
            const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::SecurityScheme];

            type ParamType = ();
            type ParamRawType = ();

            fn register(registry: &mut Registry) {
                register_schemes(registry);
            }

            fn security_schemes() -> Vec<&'static str> {
                vec![BEARER, PASSWORD]
            }

            async fn from_request(
                $request: &'a Request,
                _: &mut RequestBody,
                _: ExtractParamOptions<()>,
            ) -> poem::Result<Self> {
                Ok($check)
            }
        }
    };
}

guard!(CurrentUser, request => authenticate(request).await?);

/// A caller with the role `admin`, as it is in the database now.
#[derive(Debug)]
pub(super) struct Administrator;

guard!(Administrator, request => {
    if !authenticate(request).await?.user.roles.contains(ADMIN) {
        return Err(Problem::from(AuthError::RoleRequired(ADMIN)).into());
    }
    Administrator
});

/// A token that is taken as it is: what it may do is for the handler to ask.
#[derive(Debug)]
pub(super) struct PresentedToken(pub(super) crate::secret::SecretString);

guard!(PresentedToken, request => PresentedToken(bearer(request)?.0.into()));

/// What a client says about itself, cut to size.
#[derive(Debug)]
pub(super) struct Peer(Device);

impl<'a> FromRequest<'a> for Peer {
    async fn from_request(request: &'a Request, _: &mut RequestBody) -> poem::Result<Self> {
        let user_agent = request
            .headers()
            .get(USER_AGENT)
            .and_then(|value| value.to_str().ok());
        let printable = |text: &str| {
            text.chars()
                .filter(|c| !c.is_control())
                .take(LONGEST_USER_AGENT)
                .collect()
        };
        let address = request
            .data::<Context>()
            .and_then(|context| context.client_ip);
        Ok(Self(Device {
            name: None,
            user_agent: user_agent.map(printable),
            address,
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

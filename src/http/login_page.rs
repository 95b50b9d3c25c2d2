//! `/login`: a page for people whom a proxy or an application has sent to log in.
//!
//! A form and nothing else, so that it works without scripts. It sets the session cookie and leads
//! back to where its visitor came from.

use poem::{
    Endpoint, FromRequest, IntoResponse, Request, Response,
    http::{HeaderValue, StatusCode, header},
    web::{Form, Html},
};
use serde::Deserialize;

use super::{
    Context,
    auth_api::login_name,
    body::malformed_form,
    guard::{DeviceCookie, Peer},
    origins::Target,
    page::{escaped, page_policy},
    problem::Problem,
};
use crate::{sessions::Grant, tokens::SignedToken};

const PAGE: &str = include_str!("login.html");
/// Of no use where no letters are sent.
const FORGOT: &str =
    "\n  <p class=\"aside\"><a href=\"forgot-password\">Forgot your password?</a></p>";

#[derive(Default, Deserialize)]
struct Asked {
    #[serde(default)]
    redirect: Option<String>,
}

#[derive(Deserialize)]
struct Filled {
    username: String,
    password: String,
    #[serde(default)]
    redirect: Option<String>,
}

/// The page.
pub(super) struct LoginPage;

impl Endpoint for LoginPage {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let context = Context::of(&request)?;
        let asked: Asked = request.params().unwrap_or_default();
        let back_to = target(context, asked.redirect.as_deref())?;
        Ok(page(context, &back_to, "", None)?)
    }
}

/// What the page's button posts.
pub(super) struct LogIn;

impl Endpoint for LogIn {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let context = Context::of(&request)?.clone();
        log_in(request, &context).await
    }
}

fn target(context: &Context, redirect: Option<&str>) -> Result<Target, Problem> {
    let redirect = redirect.filter(|text| !text.is_empty()).unwrap_or("/");
    context.surface.origins.target(redirect)
}

async fn log_in(request: Request, context: &Context) -> poem::Result<Response> {
    // A login by a foreign page would put its visitor into somebody else's account.
    context.surface.origins.check(request.headers())?;
    let (request, mut body) = request.split();
    let form = Form::<Filled>::from_request(&request, &mut body).await;
    let Form(filled) = form.map_err(|error| malformed_form(&error))?;
    let back_to = target(context, filled.redirect.as_deref())?;
    let peer = Peer::from_request(&request, &mut body).await?;
    let device_cookie = DeviceCookie::from_request(&request, &mut body).await?;
    match attempt(context, &filled, peer, &device_cookie).await {
        Ok(grant) => Ok(welcome(context, &grant, &back_to)?),
        Err(refused) if refused.is_server_error() => Err(refused.into()),
        Err(refused) => {
            refused.log();
            Ok(page(context, &back_to, &filled.username, Some(&refused))?)
        }
    }
}

async fn attempt(
    context: &Context,
    filled: &Filled,
    peer: Peer,
    device_cookie: &DeviceCookie,
) -> Result<Grant<SignedToken>, Problem> {
    let device = peer.device(None).map_err(crate::error::AuthError::from)?;
    let (name, password) = (
        login_name(&filled.username),
        filled.password.as_str().into(),
    );
    let sessions = context.auth.sessions();
    let proof = device_cookie.proof()?;
    let login = sessions.login_for_cookie(&name, &password, device, proof);
    Ok(login.await?)
}

/// 303: the password is not sent on (RFC 9700 §4.12).
fn welcome(
    context: &Context,
    grant: &Grant<SignedToken>,
    back_to: &Target,
) -> Result<Response, Problem> {
    let mut response = StatusCode::SEE_OTHER
        .with_header(header::LOCATION, back_to.location.as_str())
        .into_response();
    for (name, value) in context.surface.give_cookies(&context.auth, grant)? {
        response.headers_mut().append(name, value);
    }
    Ok(response)
}

fn page(
    context: &Context,
    back_to: &Target,
    name: &str,
    refused: Option<&Problem>,
) -> Result<Response, Problem> {
    let nonce = context.auth.nonce();
    let message = refused.map(|problem| {
        let text = escaped(problem.detail());
        format!("<p role=\"alert\">{text}</p>\n  ")
    });
    let forgot = if context.auth.outbox().is_on() {
        FORGOT
    } else {
        ""
    };
    let focus = " autofocus";
    let (focus_name, focus_password) = if refused.is_some() {
        ("", focus)
    } else {
        (focus, "")
    };
    // What people wrote goes in last, so that nothing in it is taken for a place to fill.
    let html = PAGE
        .replace("{nonce}", &nonce)
        .replace("{focus_name}", focus_name)
        .replace("{focus_password}", focus_password)
        .replace("{message}", &message.unwrap_or_default())
        .replace("{forgot}", forgot)
        .replace("{redirect}", &escaped(&back_to.location))
        .replace("{name}", &escaped(name));
    // The form's answer leads to the other site, which browsers take for a part of the form.
    let form_action = back_to.origin.as_deref().unwrap_or_default();
    let policy = format!("form-action 'self' {form_action}");
    let mut response = Html(html).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        page_policy(&nonce, &policy)?,
    );
    // With `no-referrer` older browsers would send `Origin: null`, which proves nothing.
    let referrer = HeaderValue::from_static("same-origin");
    headers.insert(header::REFERRER_POLICY, referrer);
    if let Some(problem) = refused {
        problem.apply_to(&mut response);
    }
    Ok(response)
}

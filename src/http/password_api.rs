//! Setting a password by a one-time link: the page that the link opens, and what its button posts.

use poem::{Endpoint, IntoResponse, Request, Response, http::header};
use poem_openapi::{
    Object, OpenApi,
    types::{Example, Password},
};

use super::{
    Context, Tag,
    body::JsonBody,
    page::page_policy,
    problem::{ANY, BODY, Done, Fails, INVALID},
};
use crate::auth::Auth;

const PAGE: &str = include_str!("set_password.html");

pub(super) struct PasswordApi(pub(super) Auth);

/// The secret of a one-time link and the password to set.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
struct ResetRequest {
    /// What stands behind `#token=` in the link.
    token: String,
    /// The password to set; the same rules as at registration.
    password: Password,
}

impl Example for ResetRequest {
    fn example() -> Self {
        Self {
            token: "dwl_q83v…".to_owned(),
            password: Password("correct horse battery staple".to_owned()),
        }
    }
}

#[OpenApi(prefix_path = "/v1/auth", tag = "Tag::Authentication")]
impl PasswordApi {
    /// Set a password by a link
    ///
    /// Spends the link, sets the password and ends all sessions of its user, in one step. No session is
    /// opened: log in next. A password that breaks a rule leaves the link unspent.
    #[oai(
        path = "/password/reset",
        method = "post",
        operation_id = "reset_password"
    )]
    async fn reset(
        &self,
        body: JsonBody<ResetRequest>,
    ) -> Result<Done, Fails<{ BODY | INVALID | ANY }>> {
        self.0
            .recovery()
            .set_password(&body.0.token, &body.0.password.0.into())
            .await?;
        Ok(Done)
    }
}

/// The page behind a link. Looking at it consumes nothing: the secret stays in the fragment until the
/// button posts it (ASVS 3.5.3, 14.2.1).
pub(super) struct SetPasswordPage;

impl Endpoint for SetPasswordPage {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let nonce = Context::of(&request)?.auth.nonce();
        let policy = format!("script-src 'nonce-{nonce}'; connect-src 'self'; form-action 'none'");
        let policy = page_policy(&nonce, &policy)?;
        let mut response = poem::web::Html(PAGE.replace("{nonce}", &nonce)).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_SECURITY_POLICY, policy);
        Ok(response)
    }
}

//! Passwords that were forgotten or never set.

use poem_openapi::{
    Object, OpenApi,
    types::{Example, Password},
};

use super::{
    Tag,
    body::JsonBody,
    guard::Caused,
    problem::{ANY, Answer, BODY, CONFLICT, Done, Fails, INVALID, LIMITED},
    verification_api::{Accepted, AddressRequest, evidence},
};
use crate::auth::Auth;

pub(super) struct PasswordApi(pub(super) Auth);

/// What stands in the letter or in a one-time link, and the password to set.
#[derive(Object)]
#[oai(example, deny_unknown_fields, skip_serializing_if_is_none)]
struct ResetRequest {
    /// What stands behind `#token=` in the link; or give `email` and `code`.
    token: Option<String>,
    /// The address that the code was sent to.
    email: Option<String>,
    /// The six digits.
    code: Option<String>,
    /// The password to set; the same rules as at registration.
    password: Password,
}

impl Example for ResetRequest {
    fn example() -> Self {
        Self {
            token: Some("dwl_q83v…".to_owned()),
            email: None,
            code: None,
            password: Password("correct horse battery staple".to_owned()),
        }
    }
}

#[OpenApi(prefix_path = "/v1/auth", tag = "Tag::Mail")]
impl PasswordApi {
    /// Forgot the password
    ///
    /// Sends a letter with a link and a code for setting a new one; at most one a minute. The answer is the
    /// same whether the address has an account or not.
    #[oai(
        path = "/password/forgot",
        method = "post",
        operation_id = "forgot_password"
    )]
    async fn forgot(
        &self,
        caused: Caused,
        body: JsonBody<AddressRequest>,
    ) -> Result<Answer<202, Accepted>, Fails<{ BODY | CONFLICT | INVALID | LIMITED | ANY }>> {
        let recovery = self.0.recovery();
        recovery.forgot(&body.0.email, &caused.0).await?;
        Ok(Answer(Accepted::default()))
    }

    /// Set a password by a link or a code
    ///
    /// Spends it, sets the password, ends all sessions of its user and voids their other links and codes, in
    /// one step. No session is opened: log in next. A password that breaks a rule leaves it unspent. A code
    /// can be tried five times.
    #[oai(
        path = "/password/reset",
        method = "post",
        operation_id = "reset_password"
    )]
    async fn reset(
        &self,
        caused: Caused,
        body: JsonBody<ResetRequest>,
    ) -> Result<Done, Fails<{ BODY | INVALID | LIMITED | ANY }>> {
        let ResetRequest {
            token,
            email,
            code,
            password,
        } = &body.0;
        let evidence = evidence(token.as_deref(), email.as_deref(), code.as_deref())?;
        let password = password.0.as_str().into();
        self.0
            .recovery()
            .set_password(evidence, &password, &caused.0)
            .await?;
        Ok(Done)
    }
}

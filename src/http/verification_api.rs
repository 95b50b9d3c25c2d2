//! What letters ask for: addresses verified and changed, registrations completed, accounts taken back.

use poem_openapi::{
    Object, OpenApi,
    types::{Example, Password},
};

use super::{
    Tag,
    body::JsonBody,
    dto::UserDto,
    guard::Caused,
    problem::{ANY, Answer, BODY, CONFLICT, Done, FORBIDDEN, Fails, INVALID, LIMITED},
};
use crate::{
    auth::Auth,
    error::{AuthError, FieldError},
    tokens::Evidence,
};

pub(super) struct VerificationApi(pub(super) Auth);

/// What stands in the letter: `token`, or `email` and `code`.
#[derive(Object)]
#[oai(example, deny_unknown_fields, skip_serializing_if_is_none)]
struct VerifyRequest {
    /// What stands behind `#token=` in the link.
    token: Option<String>,
    /// The address that the code was sent to.
    email: Option<String>,
    /// The six digits.
    code: Option<String>,
}

impl Example for VerifyRequest {
    fn example() -> Self {
        Self {
            token: None,
            email: Some("ann@example.org".to_owned()),
            code: Some("204816".to_owned()),
        }
    }
}

/// What was sent, as one of its two forms.
pub(super) fn evidence<'a>(
    token: Option<&'a str>,
    email: Option<&'a str>,
    code: Option<&'a str>,
) -> Result<Evidence<'a>, AuthError> {
    match (token, email, code) {
        (Some(token), None, None) => Ok(Evidence::Link(token)),
        (None, Some(email), Some(code)) => Ok(Evidence::Code { email, code }),
        _ => {
            let detail = "give either `token` or `email` and `code`";
            Err(FieldError::new("token", "one_of", detail).into())
        }
    }
}

/// An address.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
pub(super) struct AddressRequest {
    /// The e-mail address.
    pub(super) email: String,
}

impl Example for AddressRequest {
    fn example() -> Self {
        Self {
            email: "ann@example.org".to_owned(),
        }
    }
}

/// The secret of a link.
#[derive(Object)]
#[oai(example, deny_unknown_fields)]
struct LinkRequest {
    /// What stands behind `#token=` in the link.
    token: String,
}

impl Example for LinkRequest {
    fn example() -> Self {
        Self {
            token: "dwl_q83v…".to_owned(),
        }
    }
}

/// What stands in the letter, and the password that was chosen when registering.
#[derive(Object)]
#[oai(example, deny_unknown_fields, skip_serializing_if_is_none)]
struct ConfirmRequest {
    /// What stands behind `#token=` in the link; or give `email` and `code`.
    token: Option<String>,
    /// The address that the code was sent to.
    email: Option<String>,
    /// The six digits.
    code: Option<String>,
    /// The password that was chosen when registering.
    password: Password,
}

impl Example for ConfirmRequest {
    fn example() -> Self {
        Self {
            token: None,
            email: Some("ann@example.org".to_owned()),
            code: Some("204816".to_owned()),
            password: Password("correct horse battery staple".to_owned()),
        }
    }
}

/// Something was asked for; by mail it goes on, if it does.
#[derive(Object)]
#[oai(example)]
pub(super) struct Accepted {
    /// Always `accepted`: whether there is anything to do is not told.
    status: String,
}

impl Default for Accepted {
    fn default() -> Self {
        Self {
            status: "accepted".to_owned(),
        }
    }
}

impl Example for Accepted {
    fn example() -> Self {
        Self::default()
    }
}

#[OpenApi(prefix_path = "/v1/auth", tag = "Tag::Mail")]
impl VerificationApi {
    /// Verify an address
    ///
    /// By the link or the code of the letter. A code can be tried five times. No session is opened.
    #[oai(path = "/email/verify", method = "post", operation_id = "verify_email")]
    async fn verify(
        &self,
        caused: Caused,
        body: JsonBody<VerifyRequest>,
    ) -> Result<Done, Fails<{ BODY | INVALID | LIMITED | ANY }>> {
        let VerifyRequest { token, email, code } = &body.0;
        let evidence = evidence(token.as_deref(), email.as_deref(), code.as_deref())?;
        self.0.verification().verify(evidence, &caused.0).await?;
        Ok(Done)
    }

    /// Send the letter once more
    ///
    /// That for verifying an address or completing a registration; at most one a minute. The answer is the
    /// same whether there is anything to send or not.
    #[oai(
        path = "/email/resend",
        method = "post",
        operation_id = "resend_verification"
    )]
    async fn resend(
        &self,
        caused: Caused,
        body: JsonBody<AddressRequest>,
    ) -> Result<Answer<202, Accepted>, Fails<{ BODY | CONFLICT | INVALID | LIMITED | ANY }>> {
        let verification = self.0.verification();
        verification.resend(&body.0.email, &caused.0).await?;
        Ok(Answer(Accepted::default()))
    }

    /// Complete a registration
    ///
    /// Where registering conceals which addresses have accounts: the account exists from now on, its address
    /// verified. Log in next.
    #[oai(
        path = "/register/confirm",
        method = "post",
        operation_id = "confirm_registration"
    )]
    async fn confirm_registration(
        &self,
        caused: Caused,
        body: JsonBody<ConfirmRequest>,
    ) -> Result<
        Answer<201, UserDto>,
        Fails<{ BODY | FORBIDDEN | CONFLICT | INVALID | LIMITED | ANY }>,
    > {
        let ConfirmRequest {
            token,
            email,
            code,
            password,
        } = &body.0;
        let evidence = evidence(token.as_deref(), email.as_deref(), code.as_deref())?;
        let password = password.0.as_str().into();
        let verification = self.0.verification();
        let confirmed = verification.confirm_account(evidence, &password, &caused.0);
        let user = confirmed.await?;
        Ok(Answer((&user).into()))
    }

    /// Confirm a new address
    ///
    /// By the link of the letter that was sent to it. The account has the address from now on, and the old
    /// one is told.
    #[oai(
        path = "/email/confirm",
        method = "post",
        operation_id = "confirm_email"
    )]
    async fn confirm_email(
        &self,
        caused: Caused,
        body: JsonBody<LinkRequest>,
    ) -> Result<Done, Fails<{ BODY | CONFLICT | LIMITED | ANY }>> {
        let verification = self.0.verification();
        verification
            .confirm_change(&body.0.token, &caused.0)
            .await?;
        Ok(Done)
    }

    /// This was not me
    ///
    /// By the link of a notice: ends all sessions of the account, takes its password away, gives it the
    /// address back that the notice went to, and sends a letter for setting a new password.
    #[oai(path = "/not-me", method = "post", operation_id = "disown")]
    async fn disown(
        &self,
        caused: Caused,
        body: JsonBody<LinkRequest>,
    ) -> Result<Done, Fails<{ BODY | LIMITED | ANY }>> {
        self.0.recovery().disown(&body.0.token, &caused.0).await?;
        Ok(Done)
    }
}

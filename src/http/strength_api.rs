//! `/v1/auth/password/strength`: what sign-up forms ask while somebody types.
//!
//! Needs no login, since whoever registers has none; nothing of the question is stored or logged.

use poem_openapi::{
    Object, OpenApi,
    types::{Example, Password},
};

use super::{
    Tag,
    body::JsonBody,
    problem::{ANY, Answer, BODY, Fails},
};
use crate::{
    auth::Auth,
    passwords::{BrokenRule, Strength},
};

pub(super) struct StrengthApi(pub(super) Auth);

/// A password that somebody thinks of, and for whom.
#[derive(Object)]
#[oai(example, deny_unknown_fields, skip_serializing_if_is_none)]
struct StrengthRequest {
    /// The password.
    password: Password,
    /// The address that the account will have.
    email: Option<String>,
    /// The user name that it will have.
    username: Option<String>,
}

impl Example for StrengthRequest {
    fn example() -> Self {
        Self {
            password: Password("correct horse battery staple".to_owned()),
            email: Some("ann@example.org".to_owned()),
            username: Some("ann".to_owned()),
        }
    }
}

/// A rule that a password breaks.
#[derive(Object)]
#[oai(example)]
struct BrokenRuleDto {
    /// The stable name of the rule, as in the `errors` of a problem.
    code: String,
    /// The rule and what would be better, for people.
    detail: String,
}

impl From<BrokenRule> for BrokenRuleDto {
    fn from(rule: BrokenRule) -> Self {
        Self {
            code: rule.code.to_owned(),
            detail: rule.detail,
        }
    }
}

impl Example for BrokenRuleDto {
    fn example() -> Self {
        Self {
            code: "common".to_owned(),
            detail:
                "is on a list of passwords that are tried first; choose several unrelated words"
                    .to_owned(),
        }
    }
}

/// How well a password would do.
#[derive(Object)]
#[oai(example)]
struct StrengthAnswer {
    /// 0 (guessed at once) to 4 (very hard to guess).
    score: u8,
    /// The decimal logarithm of how many guesses it would take.
    guesses_log10: f64,
    /// How long that takes whoever has stolen its hash, at 10 000 guesses a second; in English.
    crack_time: String,
    /// Whether it would be accepted, as far as this server can tell by itself.
    accepted: bool,
    /// The rules that it breaks, the plainest first.
    errors: Vec<BrokenRuleDto>,
    /// What is weak about it, in English.
    #[oai(skip_serializing_if_is_none)]
    warning: Option<String>,
    /// What would make it better, in English.
    suggestions: Vec<String>,
}

impl From<Strength> for StrengthAnswer {
    fn from(strength: Strength) -> Self {
        Self {
            score: strength.score,
            guesses_log10: strength.guesses_log10,
            crack_time: strength.crack_time,
            accepted: strength.errors.is_empty(),
            errors: strength.errors.into_iter().map(Into::into).collect(),
            warning: strength.warning,
            suggestions: strength.suggestions,
        }
    }
}

impl Example for StrengthAnswer {
    fn example() -> Self {
        Self {
            score: 4,
            guesses_log10: 19.3,
            crack_time: "centuries".to_owned(),
            accepted: true,
            errors: Vec::new(),
            warning: None,
            suggestions: Vec::new(),
        }
    }
}

#[OpenApi(prefix_path = "/v1/auth", tag = "Tag::Authentication")]
impl StrengthApi {
    /// How strong is this password
    ///
    /// For forms in which a password is chosen: an estimate of how hard it is to guess, and whether the rules
    /// would let it pass for an account with this address and user name. It is neither stored nor logged, and
    /// no other service is asked. Needs no login.
    #[oai(
        path = "/password/strength",
        method = "post",
        operation_id = "password_strength"
    )]
    async fn strength(
        &self,
        body: JsonBody<StrengthRequest>,
    ) -> Result<Answer<200, StrengthAnswer>, Fails<{ BODY | ANY }>> {
        let StrengthRequest {
            password,
            email,
            username,
        } = body.0;
        let (accounts, password) = (self.0.accounts(), password.0.into());
        let strength = accounts.password_strength(&password, email.as_deref(), username.as_deref());
        Ok(Answer(strength.await?.into()))
    }
}

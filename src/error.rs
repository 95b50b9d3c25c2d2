//! What a use case can answer when it does not succeed.
//!
//! One vocabulary for the whole library; `http::problem` turns it into answers in one table. Texts
//! here never hold an address, a token or a password.

use std::borrow::Cow;

pub use crate::model::field::FieldError;
use crate::{
    clock::Span,
    model::{quota::LimitName, session::CloseReason},
    store::StoreError,
};

/// Why a use case did not succeed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuthError {
    /// No such account or a wrong password; never says which (ASVS 6.3.8).
    #[error("the name or the password is wrong")]
    BadCredentials,
    /// The current password, asked for once more, is wrong.
    #[error("the current password is wrong")]
    WrongPassword,
    /// Right password, but the account is deactivated.
    #[error("the account is deactivated")]
    AccountDeactivated,
    /// The user holds as many sessions as allowed and the policy is to refuse more.
    #[error("the limit of open sessions is reached: {open}")]
    SessionLimit {
        /// How many sessions are open.
        open: u32,
    },
    /// Another account has the address.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// Another account has the user name.
    #[error("the user name is taken")]
    UsernameTaken,
    /// Input that breaks a rule, field by field.
    #[error("invalid input in {} field(s)", .0.len())]
    Invalid(Vec<FieldError>),
    /// A protected request without credentials.
    #[error("no credentials were presented")]
    NoCredentials,
    /// A token that is not ours or not whole.
    #[error("invalid token: {0}")]
    TokenInvalid(&'static str),
    /// A genuine access token past its time.
    #[error("the access token has expired")]
    TokenExpired,
    /// A genuine access token of a session that has ended.
    #[error("the session has ended: {}", .0.as_str())]
    SessionEnded(CloseReason),
    /// A genuine access token of a session that does not exist any more.
    #[error("the session does not exist")]
    SessionUnknown,
    /// A genuine cookie whose session has a newer one since its user proved who they are.
    #[error("the cookie has been superseded")]
    CookieSuperseded,
    /// The user lacks this role.
    #[error("the role `{0}` is required")]
    RoleRequired(Cow<'static, str>),
    /// The user lacks this permission.
    #[error("the permission `{0}` is required")]
    PermissionRequired(Cow<'static, str>),
    /// The user acts on somebody who may do more than they may.
    #[error("the user acts on somebody who may do more")]
    Outranked,
    /// The user proved who they are too long ago for this.
    #[error("the last login is too old for this")]
    ReauthRequired,
    /// A role that the program or its configuration decides about.
    #[error("the role is fixed by the {0}")]
    RoleFixed(&'static str),
    /// There is no such thing, or it is not the caller's.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The change would leave the system without an active administrator.
    #[error("the last active administrator must stay one")]
    LastAdmin,
    /// Right password, but the address is not verified yet and has to be.
    #[error("the e-mail address is not verified")]
    EmailUnverified,
    /// A mailed code that is wrong, spent, expired, void or tried too often; never says which.
    #[error("the code is not valid")]
    CodeRefused,
    /// No mail can be sent here.
    #[error("this server sends no mail")]
    MailOff,
    /// A letter that was sent or is being sent.
    #[error("the letter {0}")]
    LetterSettled(&'static str),
    /// A one-time link that is unknown, spent, expired or void.
    #[error("the link is not valid any more")]
    LinkRefused,
    /// Asked for too often; nothing was done.
    #[error("the limit {} is reached", .limit.as_str())]
    RateLimited {
        /// Which limit.
        limit: LimitName,
        /// How long to wait at the least.
        after: Span,
    },
    /// Too much is waiting for this; later it may work.
    #[error("overloaded: {0}")]
    Overloaded(&'static str),
    /// The database could not answer, or answered nonsense.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A defect of ours.
    #[error("internal error: {0}")]
    Internal(String),
}

impl From<FieldError> for AuthError {
    fn from(error: FieldError) -> Self {
        Self::Invalid(vec![error])
    }
}

/// What a use case answers.
pub type AuthResult<T> = Result<T, AuthError>;

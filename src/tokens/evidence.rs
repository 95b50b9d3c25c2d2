//! What people show and type, in the form in which the store judges it.
//!
//! Decides nothing: what cannot be right is refused here, everything else by the store, in the same step as
//! its effect.

use super::{CodeScope, Tokens};
use crate::{
    email::EmailAddress,
    error::{AuthError, AuthResult, FieldError},
    model::token::{CodeOwner, LinkSecret, Proof, Purpose},
};

/// What somebody shows who has got a letter.
#[derive(Clone, Copy)]
pub enum Evidence<'a> {
    /// What stands behind `#token=` in the link.
    Link(&'a str),
    /// The code, and the address that it was sent to.
    Code {
        /// The address, unparsed.
        email: &'a str,
        /// Six digits.
        code: &'a str,
    },
}

impl Evidence<'_> {
    /// The error for whatever is not accepted.
    pub(crate) const fn refused(self) -> AuthError {
        match self {
            Self::Link(_) => AuthError::LinkRefused,
            Self::Code { .. } => AuthError::CodeRefused,
        }
    }
}

/// The form in which the store judges what is shown; `None` for what cannot be right.
pub(crate) fn proof(tokens: &Tokens, evidence: Evidence<'_>, purpose: Purpose) -> Option<Proof> {
    match evidence {
        Evidence::Link(token) => LinkSecret::parse(token).map(|secret| Proof::Link(secret.hash())),
        Evidence::Code { email, code } => {
            let address = EmailAddress::parse(email).ok()?;
            let scope = CodeScope::Address(purpose, &address);
            let hashes = tokens.code_hashes(&scope, code)?;
            let owner = CodeOwner::Address(address);
            Some(Proof::Code { owner, hashes })
        }
    }
}

/// An address as typed.
pub(crate) fn parse_address(text: &str) -> AuthResult<EmailAddress> {
    let parsed = EmailAddress::parse(text);
    parsed.map_err(|e| FieldError::new("email", "invalid", e.to_string()).into())
}

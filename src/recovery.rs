//! Setting a password by a one-time link.
//!
//! The link is handed over by whoever made the account; its secret is spent in the same step that sets
//! the password and ends every session of the user.

use std::sync::Arc;

use crate::{
    clock::Clock,
    error::{AuthError, AuthResult},
    model::token::LinkSecret,
    passwords::Passwords,
    secret::SecretString,
    store::{Redeem, Store},
};

/// The recovery use cases.
#[derive(Clone)]
pub struct Recovery {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) passwords: Passwords,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Recovery {
    /// Sets a password with the secret of a one-time link; gives no session (ASVS 6.4.3).
    ///
    /// # Errors
    /// [`AuthError::LinkRefused`], [`AuthError::Invalid`] for the password, which then leaves the link
    /// unspent.
    pub async fn set_password(&self, secret: &str, password: &SecretString) -> AuthResult<()> {
        let secret = LinkSecret::parse(secret).ok_or(AuthError::LinkRefused)?;
        let accepted = self.passwords.accept("password", password)?;
        let hash = self.passwords.hash(&accepted).await?;
        match self
            .store
            .redeem_set_password(&secret.hash(), &hash, self.clock.now())
            .await?
        {
            Redeem::Redeemed(_) => Ok(()),
            Redeem::Refused => Err(AuthError::LinkRefused),
        }
    }
}

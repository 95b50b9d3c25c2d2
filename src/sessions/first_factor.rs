//! The first factor of a login: a password, tried no more often than the limits allow.
//!
//! Decides whose password it is, and that every name, known or not, costs the same work and is answered the
//! same. What the login opens is decided by whoever asks.

use super::Sessions;
use crate::{
    error::{AuthError, AuthResult},
    model::{session::Device, user::UserCredentials},
    passwords,
    secret::SecretString,
    store::{LoginName, StoreError},
    throttle::{Act, DeviceProof, KnownDevice},
};

/// A user whose password was right.
pub(super) struct Passed {
    pub(super) credentials: UserCredentials,
    /// Whether the hash was made with other parameters than those of today.
    pub(super) outdated: bool,
    /// The device, if it is known.
    pub(super) known: Option<KnownDevice>,
}

/// How a login ended, as metrics name it: the code of the answer, as far as a login has one of its own.
pub(super) fn outcome<T>(opened: &AuthResult<T>) -> &'static str {
    match opened {
        Ok(_) => "ok",
        Err(AuthError::BadCredentials) => "bad_credentials",
        Err(AuthError::AccountDeactivated) => "account_deactivated",
        Err(AuthError::EmailUnverified) => "email_unverified",
        Err(AuthError::SessionLimit { .. }) => "session_limit",
        Err(AuthError::RateLimited { .. }) => "rate_limited",
        Err(AuthError::Overloaded(_)) => "overloaded",
        Err(AuthError::Store(StoreError::Unavailable(_))) => "database_unavailable",
        Err(_) => "internal",
    }
}

impl Sessions {
    /// Checks name and password: the address is counted before the account is looked for, so that an attacker whose
    /// address is refused touches none, and the attempt before it is judged, so that of many at once no more are
    /// hashed than the limit allows (ASVS 6.3.1).
    pub(super) async fn first_factor(
        &self,
        name: &LoginName,
        password: &SecretString,
        device: &Device,
        proof: DeviceProof<'_>,
    ) -> AuthResult<Passed> {
        // First of all: one that cannot be judged must not count as failed, nor keep the database from those who are
        // served.
        let place = self.passwords.place()?;
        self.throttle.at_address(Act::LogIn, device.address).await?;
        let found = self.store.user_by_login(name).await?;
        let user = found.as_ref().map(|credentials| credentials.user.id);
        let known = self.throttle.recognise(proof).await?;
        let attempt = self.throttle.login(name, user, known.as_ref()).await?;
        let hash = found
            .as_ref()
            .and_then(|credentials| credentials.password_hash.as_ref());
        let verdict = self.passwords.verify_in(place, password, hash).await?;
        let (Some(credentials), passwords::Verdict::Match { outdated }) = (found, verdict) else {
            let reason = user.map_or("unknown_account", |_| "wrong_password");
            self.refused_login(user, reason).await?;
            return Err(AuthError::BadCredentials);
        };
        self.throttle.succeeded(attempt).await;
        Ok(Passed {
            credentials,
            outdated,
            known,
        })
    }
}

//! Passwords that were forgotten, and accounts that somebody else got into.
//!
//! A password is set by a one-time link or code, which is spent in the same step that sets it and ends every
//! session of the user. No session is opened: whoever has only the mailbox still has to log in.

use std::sync::Arc;

use crate::{
    audit::Trail,
    clock::Clock,
    error::{AuthError, AuthResult},
    model::{
        audit::Agent,
        mail::{LetterKind, NewLetter},
        token::{LinkSecret, Purpose},
    },
    outbox::{Cause, Outbox},
    passwords::{Passwords, Personal},
    secret::SecretString,
    store::{Redeem, Store},
    throttle::{Act, Throttle},
    tokens::{Evidence, Tokens, parse_address, proof},
};

/// The recovery use cases.
#[derive(Clone)]
pub struct Recovery {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) passwords: Passwords,
    pub(crate) tokens: Tokens,
    pub(crate) outbox: Outbox,
    pub(crate) throttle: Throttle,
    pub(crate) trail: Trail,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Recovery {
    /// Sends a letter for setting a new password, if anybody has the address; does the same and says
    /// nothing if nobody has it (ASVS 6.3.8).
    ///
    /// # Errors
    /// [`AuthError::Invalid`] for what is no address, [`AuthError::MailOff`], [`AuthError::RateLimited`].
    pub async fn forgot(&self, email: &str, cause: &Cause) -> AuthResult<()> {
        let letter = self.outbox.needed(LetterKind::ResetPassword, cause)?;
        let to = parse_address(email)?;
        let from = cause.device.address;
        self.throttle.letter(Act::Forgot, from, &to).await?;
        let by = self.trail.by_nobody();
        self.outbox.add(&letter.to(&to), &by).await
    }

    /// Sets a password with what stands in a letter or in a one-time link; gives no session (ASVS 6.4.3).
    /// Whoever can do this is let in again: failed logins are forgotten, and so are known devices, of which
    /// one may be a thief's.
    ///
    /// # Errors
    /// [`AuthError::RateLimited`], [`AuthError::LinkRefused`], [`AuthError::CodeRefused`];
    /// [`AuthError::Invalid`] for the password,
    /// which then leaves the link or code unspent. That it is made of its user's own name is told only to
    /// whoever has shown a good link or code.
    pub async fn set_password(
        &self,
        evidence: Evidence<'_>,
        password: &SecretString,
        cause: &Cause,
    ) -> AuthResult<()> {
        let from = cause.device.address;
        self.throttle.at_address(Act::Try, from).await?;
        let proof = proof(&self.tokens, evidence, Purpose::ResetPassword);
        let proof = proof.ok_or(evidence.refused())?;
        let nobody = Personal::unknown();
        let proposed = self.passwords.propose("password", password, &nobody)?;
        let accepted = self.passwords.accept(proposed).await?;
        // Before anybody's row is read, so that links and codes of nobody take as long.
        let hash = self.passwords.hash(&accepted).await?;
        let owner = self.store.owner_of_proof(&proof, self.clock.now()).await?;
        let Some(owner) = owner else {
            self.trail
                .note_refused_proof(Purpose::ResetPassword, Agent::Nobody)
                .await?;
            return Err(evidence.refused());
        };
        let personal = Personal::of(&owner);
        self.passwords.suits("password", &accepted, &personal)?;
        let notice = self.outbox.letter(LetterKind::PasswordChanged, cause);
        let by = self.trail.by_nobody();
        let redeemed = self
            .store
            .redeem_set_password(&proof, &hash, notice.as_ref(), &by)
            .await?;
        match redeemed {
            Redeem::Redeemed(user) => {
                self.outbox.ring();
                self.throttle.pardon_in_passing(user, &by).await;
                self.throttle.forget_devices(user).await;
                Ok(())
            }
            Redeem::Refused => {
                self.trail
                    .note_refused_proof(Purpose::ResetPassword, Agent::Nobody)
                    .await?;
                Err(evidence.refused())
            }
        }
    }

    /// Says that what a notice tells was somebody else's doing: ends all sessions, takes the password away,
    /// gives the account back the address that the notice went to, and sends a letter for setting a new
    /// password. Known devices are forgotten.
    ///
    /// # Errors
    /// [`AuthError::LinkRefused`], [`AuthError::RateLimited`].
    pub async fn disown(&self, token: &str, cause: &Cause) -> AuthResult<()> {
        let from = cause.device.address;
        self.throttle.at_address(Act::Try, from).await?;
        let secret = LinkSecret::parse(token).ok_or(AuthError::LinkRefused)?;
        let reset = self.outbox.letter(LetterKind::ResetPassword, cause);
        let notice = self.outbox.letter(LetterKind::EmailChanged, cause);
        // Whoever loses the address has no claim to it that a link could bring back.
        let notice = notice.map(NewLetter::only_telling);
        let (link, by) = (secret.hash(), self.trail.by_nobody());
        let disowned = self
            .store
            .disown(&link, reset.as_ref(), notice.as_ref(), &by);
        let disowned = disowned.await?;
        self.outbox.ring();
        let Some(user) = disowned else {
            self.trail
                .note_refused_proof(Purpose::NotMe, Agent::Nobody)
                .await?;
            return Err(AuthError::LinkRefused);
        };
        self.throttle.forget_devices(user).await;
        Ok(())
    }
}

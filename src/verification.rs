//! Addresses shown to be somebody's: verified, changed, and needed before an account exists.
//!
//! Each proof comes as the secret of a link or as a typed code, and is spent by the store in the same step
//! as its effect. What is refused is never said to be wrong, spent, too old or nobody's (ASVS 6.3.8).

use std::sync::Arc;

use crate::{
    audit::Trail,
    clock::{Clock, Span},
    entropy::Entropy,
    error::{AuthError, AuthResult, FieldError},
    ids::{RegistrationId, SessionId, UserId},
    model::{
        account::{AttributeRules, NewAccount, NewRegistration, WaitingRegistration},
        audit::Agent,
        mail::LetterKind,
        token::{CodeOwner, LinkSecret, Proof, Purpose},
        user::User,
    },
    outbox::{Cause, Outbox},
    passwords::{Passwords, Personal, Verdict},
    secret::SecretString,
    store::{ChangeEmail, ConfirmRegistration, LoginName, Store},
    throttle::{Act, Throttle},
    tokens::{CodeScope, Evidence, Tokens, parse_address, proof},
};

/// How long a registration waits for its address.
const REGISTRATION_TTL: Span = Span::days(1);

/// The use cases around addresses.
#[derive(Clone)]
pub struct Verification {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) passwords: Passwords,
    pub(crate) tokens: Tokens,
    pub(crate) outbox: Outbox,
    pub(crate) throttle: Throttle,
    pub(crate) trail: Trail,
    pub(crate) rules: AttributeRules,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
}

impl Verification {
    /// Notes that an address is its user's; gives no session (ASVS 7.6.2).
    ///
    /// # Errors
    /// [`AuthError::LinkRefused`], [`AuthError::CodeRefused`], [`AuthError::RateLimited`].
    pub async fn verify(&self, evidence: Evidence<'_>, cause: &Cause) -> AuthResult<User> {
        self.count_try(cause).await?;
        let proof = proof(&self.tokens, evidence, Purpose::VerifyEmail);
        let proof = proof.ok_or(evidence.refused())?;
        let by = self.trail.by_nobody();
        if let Some(user) = self.store.verify_email(&proof, &by).await? {
            return Ok(user);
        }
        self.trail
            .note_refused_proof(Purpose::VerifyEmail, by.agent)
            .await?;
        Err(evidence.refused())
    }

    /// Counts a code or a link that is tried (ASVS 6.6.3).
    async fn count_try(&self, cause: &Cause) -> AuthResult<()> {
        let from = cause.device.address;
        self.throttle.at_address(Act::Try, from).await
    }

    /// Sends the letter for verifying an address, or for completing a registration, once more, if there is
    /// anything to verify or to complete; does the same and says nothing if there is not.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] for what is no address, [`AuthError::MailOff`], [`AuthError::RateLimited`].
    pub async fn resend(&self, email: &str, cause: &Cause) -> AuthResult<()> {
        let letter = self.outbox.needed(LetterKind::VerifyEmail, cause)?;
        let to = parse_address(email)?;
        let from = cause.device.address;
        self.throttle.letter(Act::Resend, from, &to).await?;
        let by = self.trail.by_nobody();
        self.outbox.add(&letter.to(&to), &by).await
    }

    /// Sends a letter to a new address; the account has it once that is confirmed. An address that
    /// somebody else has is not told: its owner gets a letter instead.
    ///
    /// # Errors
    /// [`AuthError::WrongPassword`], [`AuthError::Invalid`] for what is no address or the one that the
    /// account has, [`AuthError::MailOff`], [`AuthError::RateLimited`].
    pub async fn begin_change(
        &self,
        user: UserId,
        session: SessionId,
        email: &str,
        password: &SecretString,
        cause: &Cause,
    ) -> AuthResult<()> {
        let letter = self.outbox.needed(LetterKind::ConfirmNewEmail, cause)?;
        let to = parse_address(email)?;
        let credentials = self
            .store
            .user_credentials(user)
            .await?
            .ok_or(AuthError::SessionUnknown)?;
        let hash = credentials.password_hash.as_ref();
        let place = self.passwords.place()?;
        let attempt = self.throttle.password_check(user, session).await?;
        let by = self.trail.by_user(user, session);
        if self.passwords.verify_in(place, password, hash).await? == Verdict::Mismatch {
            self.trail.note_wrong_password(user, session).await?;
            return Err(AuthError::WrongPassword);
        }
        self.throttle.succeeded(attempt).await;
        if credentials.user.email == to && credentials.user.email_verified_at.is_some() {
            let detail = "is the address that the account has already";
            return Err(FieldError::new("email", "unchanged", detail).into());
        }
        let mut letter = letter.about(user).to(&to);
        letter.credential_version = Some(credentials.credential_version);
        self.outbox.add(&letter, &by).await
    }

    /// Gives an account its new address by the link that was sent there, and tells the old one
    /// (ASVS 6.3.7).
    ///
    /// # Errors
    /// [`AuthError::LinkRefused`], [`AuthError::EmailTaken`], [`AuthError::RateLimited`].
    pub async fn confirm_change(&self, token: &str, cause: &Cause) -> AuthResult<User> {
        self.count_try(cause).await?;
        let secret = LinkSecret::parse(token).ok_or(AuthError::LinkRefused)?;
        let proof = Proof::Link(secret.hash());
        self.change(&proof, AuthError::LinkRefused, cause, Agent::Nobody)
            .await
    }

    /// As [`Self::confirm_change`], by the code, typed where its user is logged in.
    ///
    /// # Errors
    /// [`AuthError::CodeRefused`], [`AuthError::EmailTaken`], [`AuthError::RateLimited`].
    pub async fn confirm_change_by_code(
        &self,
        user: UserId,
        session: SessionId,
        code: &str,
        cause: &Cause,
    ) -> AuthResult<User> {
        self.count_try(cause).await?;
        let scope = CodeScope::User(Purpose::ChangeEmail, user);
        let hashes = self.tokens.code_hashes(&scope, code);
        let proof = Proof::Code {
            owner: CodeOwner::User(user),
            hashes: hashes.ok_or(AuthError::CodeRefused)?,
        };
        let by = Agent::in_session(user, session);
        self.change(&proof, AuthError::CodeRefused, cause, by).await
    }

    async fn change(
        &self,
        proof: &Proof,
        refused: AuthError,
        cause: &Cause,
        by: Agent,
    ) -> AuthResult<User> {
        let notice = self.outbox.letter(LetterKind::EmailChanged, cause);
        let by = self.trail.by(by);
        match self.store.change_email(proof, notice.as_ref(), &by).await? {
            ChangeEmail::Changed(user) => {
                self.outbox.ring();
                Ok(*user)
            }
            ChangeEmail::Taken => Err(AuthError::EmailTaken),
            ChangeEmail::Refused => {
                self.trail
                    .note_refused_proof(Purpose::ChangeEmail, by.agent)
                    .await?;
                Err(refused)
            }
        }
    }

    /// Asks for an account without anybody learning whether the address has one: its owner gets a letter
    /// either way, and the account exists once that is answered together with the password. A user name
    /// that is taken is said, now or then.
    ///
    /// # Errors
    /// [`AuthError::Invalid`], [`AuthError::UsernameTaken`], [`AuthError::MailOff`],
    /// [`AuthError::RateLimited`].
    pub async fn request_account(
        &self,
        account: NewAccount,
        password: &SecretString,
        cause: &Cause,
    ) -> AuthResult<()> {
        let letter = self.outbox.needed(LetterKind::ConfirmRegistration, cause)?;
        let personal = Personal::new(Some(&account.email), account.username.as_deref());
        let from = cause.device.address;
        self.throttle.at_address(Act::Register, from).await?;
        let mut errors = Vec::new();
        let parsed = account.parse(&self.rules, &mut errors);
        let proposed = self.passwords.propose("password", password, &personal);
        let proposed = proposed.map_err(|e| errors.push(e)).ok();
        let (Some((email, username, attributes)), Some(proposed)) = (parsed, proposed) else {
            return Err(AuthError::Invalid(errors));
        };
        let accepted = self.passwords.accept(proposed).await?;
        if let Some(username) = &username {
            let name = LoginName::Username(username.clone());
            if self.store.user_by_login(&name).await?.is_some() {
                return Err(AuthError::UsernameTaken);
            }
        }
        let password_hash = self.passwords.hash(&accepted).await?;
        let mut letter = letter.to(&email);
        let registration = NewRegistration {
            id: RegistrationId::fresh(letter.created_at, &*self.entropy),
            email,
            username,
            attributes,
            password_hash,
            created_at: letter.created_at,
            expires_at: letter.created_at.plus(REGISTRATION_TTL),
        };
        letter.registration_id = Some(registration.id);
        let by = self.trail.by_nobody();
        let added = self.store.add_registration(&registration, &letter, &by);
        added.await?;
        self.outbox.ring();
        Ok(())
    }

    /// Makes the account of a registration: by what was sent to its address, and the password that was
    /// chosen. So nobody puts a password on the address of somebody else who merely opens a link.
    ///
    /// # Errors
    /// [`AuthError::CodeRefused`], also for a wrong password; by link [`AuthError::LinkRefused`] and
    /// [`AuthError::WrongPassword`], which leaves the link unspent; [`AuthError::EmailTaken`],
    /// [`AuthError::UsernameTaken`], [`AuthError::RateLimited`].
    pub async fn confirm_account(
        &self,
        evidence: Evidence<'_>,
        password: &SecretString,
        cause: &Cause,
    ) -> AuthResult<User> {
        self.count_try(cause).await?;
        let proof = proof(&self.tokens, evidence, Purpose::ConfirmRegistration);
        let proof = proof.ok_or(evidence.refused())?;
        let waiting = self.store.waiting_registration(&proof, self.clock.now());
        let waiting = waiting.await?;
        let hash = waiting.as_ref().map(|waiting| &waiting.password_hash);
        let is_right = match self.passwords.verify(password, hash).await? {
            Verdict::Match { .. } => true,
            Verdict::Mismatch => false,
        };
        // Whoever has the link owns the mailbox, so there is nothing to hide from them.
        if !is_right && waiting.is_some() && matches!(evidence, Evidence::Link(_)) {
            return Err(AuthError::WrongPassword);
        }
        let expected = waiting
            .filter(|_| is_right)
            .map(|WaitingRegistration { id, .. }| id);
        let by = self.trail.by_nobody();
        let user = UserId::fresh(by.at, &*self.entropy);
        let confirmed = self.store.confirm_registration(&proof, expected, user, &by);
        match confirmed.await? {
            ConfirmRegistration::Created(user) => Ok(*user),
            ConfirmRegistration::EmailTaken => Err(AuthError::EmailTaken),
            ConfirmRegistration::UsernameTaken => Err(AuthError::UsernameTaken),
            ConfirmRegistration::Refused => {
                let purpose = Purpose::ConfirmRegistration;
                self.trail.note_refused_proof(purpose, by.agent).await?;
                Err(evidence.refused())
            }
        }
    }
}

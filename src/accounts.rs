//! Accounts: registering, and what users change about themselves.
//!
//! Decides which addresses, names and attributes are accepted; uniqueness is decided by the store.

mod importing;

use std::sync::Arc;

use crate::{
    audit::Trail,
    clock::{Clock, Span, Timestamp},
    entropy::Entropy,
    error::{AuthError, AuthResult},
    ids::{SessionId, UserId},
    model::{
        account::{AttributeRules, NewAccount, ProfileChange},
        audit::Agent,
        mail::{LetterKind, NewLetter},
        role::FixedRoles,
        session::{CloseReason, IdleRule},
        user::{
            NewUser, Roles, SessionLimit, SessionLimitOverride, User, UserCredentials, UserStatus,
        },
    },
    outbox::{Cause, Outbox},
    passwords::{Passwords, Personal, Strength, Verdict},
    secret::SecretString,
    setting::BadSetting,
    store::{ChangeStanding, CreateUser, SetPassword, Store, UpdateUser},
    throttle::{Act, Throttle},
};
use serde::{Deserialize, Serialize};

pub use self::importing::{Imported, ImportedUser};

/// `[accounts]`: what an account may look like.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountPolicy {
    /// A JSON Schema file that every user's `attributes` must satisfy; empty (default) for none.
    pub attributes_schema: String,
    /// Whether a login needs a verified address. Default false.
    pub require_verified_email: bool,
    /// Whether registering hides which addresses have accounts. Default false.
    pub conceal_existence: bool,
    /// How long an account that somebody registered may wait for its address to be verified before it is
    /// removed; `0s` (default) for as long as it likes. Needs `require_verified_email`.
    pub unverified_ttl: Span,
}

impl AccountPolicy {
    /// Checks the settings; `sends_mail` says whether letters can be sent at all.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self, sends_mail: bool) -> Result<(), BadSetting> {
        let needs_mail = |key| {
            let remedy = "choose a mail.transport, or set it to false";
            BadSetting::new(key, "is true, but no mail is sent", remedy)
        };
        if self.require_verified_email && !sends_mail {
            return Err(needs_mail("accounts.require_verified_email"));
        }
        if self.conceal_existence && !sends_mail {
            return Err(needs_mail("accounts.conceal_existence"));
        }
        if self.conceal_existence && !self.require_verified_email {
            return Err(BadSetting::new(
                "accounts.conceal_existence",
                "is true, but accounts.require_verified_email is not",
                "set both: an account then exists once its address is confirmed",
            ));
        }
        let waits = self.unverified_ttl > Span::ZERO;
        if waits && !self.require_verified_email {
            return Err(BadSetting::new(
                "accounts.unverified_ttl",
                "is set, but accounts.require_verified_email is not",
                "set both, or accounts that are in use would be removed",
            ));
        }
        if waits && !(Span::days(1)..=Span::days(3650)).contains(&self.unverified_ttl) {
            return Err(BadSetting::new(
                "accounts.unverified_ttl",
                format!("{} is not between 1d and ten years", self.unverified_ttl),
                "set it to 30d, or to 0s for ever",
            ));
        }
        Ok(())
    }
}

/// The account use cases.
#[derive(Clone)]
pub struct Accounts {
    /// The database.
    pub(crate) store: Arc<dyn Store>,
    /// The password service.
    pub(crate) passwords: Passwords,
    /// The letters.
    pub(crate) outbox: Outbox,
    /// The limits.
    pub(crate) throttle: Throttle,
    /// The audit trail.
    pub(crate) trail: Trail,
    /// The application's rules for attributes.
    pub(crate) rules: AttributeRules,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// The chance.
    pub(crate) entropy: Arc<dyn Entropy>,
    /// The session limit of a user without an override.
    pub(crate) limit: SessionLimit,
    /// When an unused session is over.
    pub(crate) idle: IdleRule,
    /// How long an account may wait for its address to be verified; zero for ever.
    pub(crate) unverified_ttl: Span,
    /// The roles that the database does not decide.
    pub(crate) fixed_roles: Arc<FixedRoles>,
}

/// How an account comes to be.
struct Making {
    by: Agent,
    roles: Roles,
    letter: Option<NewLetter>,
    /// How long it may wait for its address to be verified.
    waits: Option<Span>,
}

impl Accounts {
    /// Registers a user, and sends the letter for verifying the address where mail is sent. Roles,
    /// verification and limits cannot be chosen (ASVS 15.3.3).
    ///
    /// # Errors
    /// [`AuthError::Invalid`] with every field that breaks a rule, [`AuthError::EmailTaken`],
    /// [`AuthError::UsernameTaken`], [`AuthError::RateLimited`], [`AuthError::Overloaded`],
    /// [`AuthError::Store`].
    pub async fn register(
        &self,
        account: NewAccount,
        password: &SecretString,
        cause: &Cause,
    ) -> AuthResult<User> {
        let from = cause.device.address;
        self.throttle.at_address(Act::Register, from).await?;
        let letter = self.outbox.letter(LetterKind::VerifyEmail, cause);
        let waits = (self.unverified_ttl > Span::ZERO).then_some(self.unverified_ttl);
        let how = Making {
            by: Agent::Nobody,
            roles: Roles::default(),
            letter,
            waits,
        };
        let registered = self.store_account(account, password, how);
        let user = registered.await?;
        self.outbox.ring();
        Ok(user)
    }

    /// Makes a user with roles, for operators at the command line; no letter is sent.
    ///
    /// # Errors
    /// As [`Self::register`].
    pub async fn create(
        &self,
        account: NewAccount,
        password: &SecretString,
        roles: Roles,
    ) -> AuthResult<User> {
        let how = Making {
            by: Agent::Operator,
            roles,
            letter: None,
            waits: None,
        };
        self.store_account(account, password, how).await
    }

    async fn store_account(
        &self,
        account: NewAccount,
        password: &SecretString,
        how: Making,
    ) -> AuthResult<User> {
        let personal = Personal::new(Some(&account.email), account.username.as_deref());
        let mut errors = Vec::new();
        let parsed = account.parse(&self.rules, &mut errors);
        let proposed = self.passwords.propose("password", password, &personal);
        let proposed = proposed.map_err(|e| errors.push(e)).ok();
        let (Some((email, username, attributes)), Some(proposed)) = (parsed, proposed) else {
            return Err(AuthError::Invalid(errors));
        };
        let accepted = self.passwords.accept(proposed).await?;
        let hash = self.passwords.hash(&accepted).await?;
        let now = self.clock.now();
        let user = User {
            id: UserId::fresh(now, &*self.entropy),
            email,
            email_verified_at: None,
            username,
            attributes,
            roles: how.roles,
            status: UserStatus::Active,
            session_limit: SessionLimitOverride::default(),
            created_at: now,
            updated_at: now,
        };
        let new = NewUser {
            user: user.clone(),
            password_hash: Some(hash),
            provisional_until: how.waits.map(|span| now.plus(span)),
        };
        let letter = how
            .letter
            .map(|letter| letter.about(user.id).to(&user.email));
        let by = self.trail.by(how.by);
        let created = self.store.create_user(&new, None, letter.as_ref(), &by);
        match created.await? {
            CreateUser::Created => Ok(user),
            CreateUser::EmailTaken => Err(AuthError::EmailTaken),
            CreateUser::UsernameTaken => Err(AuthError::UsernameTaken),
        }
    }

    /// Changes what users may change about themselves.
    ///
    /// # Errors
    /// [`AuthError::Invalid`], [`AuthError::UsernameTaken`], [`AuthError::Store`].
    pub async fn update_profile(
        &self,
        user: &User,
        session: SessionId,
        change: ProfileChange,
    ) -> AuthResult<User> {
        let mut errors = Vec::new();
        let patch = change.parse(&self.rules, &mut errors);
        if !errors.is_empty() {
            return Err(AuthError::Invalid(errors));
        }
        if patch.is_empty() {
            return Ok(user.clone());
        }
        let by = self.trail.by_user(user.id, session);
        match self
            .store
            .update_user(user.id, &patch, None, self.limit, self.idle, &by)
            .await?
        {
            UpdateUser::Updated(user) => Ok(*user),
            UpdateUser::EmailTaken => Err(AuthError::EmailTaken),
            UpdateUser::UsernameTaken => Err(AuthError::UsernameTaken),
            UpdateUser::Gone => Err(AuthError::SessionUnknown),
        }
    }

    /// Changes the password and ends all other sessions in the same step (ASVS 6.2.2, 6.2.3, 7.4.3).
    /// Answers when the user of `session` last proved who they are, which is now. The user is told by mail
    /// (ASVS 6.3.7).
    ///
    /// # Errors
    /// [`AuthError::WrongPassword`], also when the password was changed by somebody else meanwhile;
    /// [`AuthError::RateLimited`];
    /// [`AuthError::Invalid`] for the new one.
    pub async fn change_password(
        &self,
        user: UserId,
        session: SessionId,
        current: &SecretString,
        new: &SecretString,
        cause: &Cause,
    ) -> AuthResult<Timestamp> {
        let known = self.credentials(user).await?;
        let personal = Personal::of(&known.user);
        let proposed = self.passwords.propose("new_password", new, &personal)?;
        let proved = self.prove(known, session, current).await?;
        let accepted = self.passwords.accept(proposed).await?;
        let hash = self.passwords.hash(&accepted).await?;
        let notice = self.outbox.letter(LetterKind::PasswordChanged, cause);
        let notice = notice.map(|notice| notice.about(user).to(&proved.user.email));
        let (version, by) = (proved.credential_version, self.trail.by_user(user, session));
        match self
            .store
            .set_password(user, &hash, version, Some(session), notice.as_ref(), &by)
            .await?
        {
            SetPassword::Changed {
                authenticated_at, ..
            } => {
                self.outbox.ring();
                self.throttle.forget_devices(user).await;
                // Without the session there is nobody to whom it matters.
                Ok(authenticated_at.unwrap_or(by.at))
            }
            SetPassword::CredentialsChanged => Err(AuthError::WrongPassword),
            SetPassword::NotActive => Err(AuthError::SessionEnded(CloseReason::AccountDeactivated)),
            SetPassword::Gone => Err(AuthError::SessionUnknown),
        }
    }

    /// Deactivates the caller's own account: it keeps its data and cannot log in any more.
    ///
    /// # Errors
    /// [`AuthError::WrongPassword`], [`AuthError::RateLimited`], [`AuthError::LastAdmin`].
    pub async fn deactivate_self(
        &self,
        user: UserId,
        session: SessionId,
        password: &SecretString,
    ) -> AuthResult<()> {
        let known = self.credentials(user).await?;
        let version = self
            .prove(known, session, password)
            .await?
            .credential_version;
        let by = self.trail.by_user(user, session);
        match self
            .store
            .deactivate_user(user, Some(version), &self.fixed_roles, &by)
            .await?
        {
            ChangeStanding::Changed(_) => {
                self.throttle.forget_devices(user).await;
                Ok(())
            }
            ChangeStanding::LastAdmin => Err(AuthError::LastAdmin),
            ChangeStanding::CredentialsChanged => Err(AuthError::WrongPassword),
            ChangeStanding::Gone => Err(AuthError::SessionUnknown),
        }
    }

    /// How well a password would do for somebody with this address and this user name, which need not be valid.
    /// Nothing is stored, logged or asked elsewhere.
    ///
    /// # Errors
    /// [`AuthError::Overloaded`].
    pub async fn password_strength(
        &self,
        password: &SecretString,
        email: Option<&str>,
        username: Option<&str>,
    ) -> AuthResult<Strength> {
        let personal = Personal::new(email, username);
        self.passwords.strength(password, personal).await
    }

    async fn credentials(&self, user: UserId) -> AuthResult<UserCredentials> {
        let credentials = self.store.user_credentials(user).await?;
        credentials.ok_or(AuthError::SessionUnknown)
    }

    /// Checks the password of a user who is logged in already; answers whose it is, as they were when read.
    async fn prove(
        &self,
        credentials: UserCredentials,
        session: SessionId,
        password: &SecretString,
    ) -> AuthResult<UserCredentials> {
        let user = credentials.user.id;
        let place = self.passwords.place()?;
        let attempt = self.throttle.password_check(user, session).await?;
        match self
            .passwords
            .verify_in(place, password, credentials.password_hash.as_ref())
            .await?
        {
            Verdict::Match { .. } => {
                self.throttle.succeeded(attempt).await;
                Ok(credentials)
            }
            Verdict::Mismatch => {
                self.trail.note_wrong_password(user, session).await?;
                Err(AuthError::WrongPassword)
            }
        }
    }
}

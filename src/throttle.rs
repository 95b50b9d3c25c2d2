//! Limits: who may try how often, before anything that costs or tells something is done.
//!
//! Decides what is counted and under which key, and what is asked first: the node's own memory, then the
//! address, then the account, so that whoever is refused for their address touches nobody's account
//! (ASVS 6.3.1, 2.4.1). The figures are [`settings`]'s, the arithmetic is [`crate::model::quota`]'s, and that
//! the count is right among many nodes is the store's. Accounts that do not exist are counted like those
//! that do. A limit that cannot be asked for refuses (ASVS 16.5.3).

mod guard;
mod requests;
pub mod settings;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use self::{
    guard::{Guard, Network},
    requests::Requests,
    settings::LimitSettings,
};
use crate::{
    audit::Trail,
    clock::{Clock, Span},
    email::EmailAddress,
    entropy::Entropy,
    error::{AuthError, AuthResult},
    ids::{SessionId, UserId},
    metrics::Metrics,
    model::{
        audit::{Event, EventKind, Occasion},
        device::{DeviceSecret, NewDevice},
        quota::{Draw, FailureRule, Limit, LimitName, Quota, Refusal},
        token::SecretHash,
        user::User,
    },
    setting::BadSetting,
    store::{LoginName, Store, StoreError, StoreResult, Take},
    tokens::Tokens,
};

/// Under what everything of one account is filed, to be cleared together.
const ACCOUNT: &str = "account";
/// Under what failed logins with one name are filed, from all unknown devices together.
const UNKNOWN_DEVICES: &str = "login";
/// Under what failed logins from one known device are filed.
const KNOWN_DEVICE: &str = "device";

/// What somebody without credentials does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    LogIn,
    Register,
    Forgot,
    Resend,
    /// Trying a code or a link.
    Try,
}

/// What a client that logs in shows of an earlier login.
#[derive(Clone, Copy)]
pub enum DeviceProof<'a> {
    /// It keeps nothing, so it is given nothing to keep.
    Unwanted,
    /// It has nothing yet.
    Missing,
    /// The secret that it was given, as it shows it.
    Shown(&'a str),
}

/// What a client keeps, to be known again at its next login.
#[derive(Debug, Clone)]
pub struct KeptDevice {
    /// The secret.
    pub secret: DeviceSecret,
    /// Whether it was made just now, so that the client does not have it yet.
    pub is_new: bool,
}

/// A device that is known.
pub(crate) struct KnownDevice {
    secret: DeviceSecret,
    owner: UserId,
}

/// An attempt that counts as failed until it is said to have succeeded.
#[must_use]
pub(crate) struct Attempt(SecretHash);

/// The limits; clones share everything.
#[derive(Clone)]
pub struct Throttle(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    tokens: Tokens,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    settings: LimitSettings,
    guard: Guard,
    requests: Option<Requests>,
    trail: Trail,
    metrics: Arc<Metrics>,
    /// How many requests each limit has refused that no record tells of yet.
    refused: Mutex<HashMap<LimitName, u64>>,
}

/// What a [`Throttle`] is made of.
pub struct ThrottleParts {
    /// The database.
    pub store: Arc<dyn Store>,
    /// What keys are hashed with.
    pub tokens: Tokens,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The chance.
    pub entropy: Arc<dyn Entropy>,
    /// The figures.
    pub settings: LimitSettings,
    /// The audit trail.
    pub trail: Trail,
    /// What refusals are counted in.
    pub metrics: Arc<Metrics>,
}

impl Throttle {
    /// Limits by these figures.
    ///
    /// # Errors
    /// As [`LimitSettings::check`].
    pub fn new(parts: ThrottleParts) -> Result<Self, BadSetting> {
        let ThrottleParts {
            store,
            tokens,
            clock,
            entropy,
            settings,
            trail,
            metrics,
        } = parts;
        settings.check()?;
        let (free, block) = (settings.requests_free, settings.requests_block);
        let requests = settings.requests.0;
        Ok(Self(Arc::new(Inner {
            store,
            tokens,
            clock,
            entropy,
            guard: Guard::new(),
            requests: requests.map(|quota| Requests::new(quota, free, block)),
            settings,
            trail,
            metrics,
            refused: Mutex::default(),
        })))
    }

    /// Records how often each limit refused since the last time: one record for each, or a flood of refusals
    /// would become one of writes. Done by itself every so often.
    ///
    /// # Errors
    /// As [`Store::record`]; what was not recorded is kept for the next time.
    pub async fn note_refusals(&self) -> StoreResult<()> {
        let refused = std::mem::take(&mut *self.0.lock_refused());
        let events = refused.iter().map(|(limit, count)| {
            Event::refused(EventKind::LimitReached, limit.as_str()).with("count", *count)
        });
        let events: Vec<Event> = events.collect();
        if events.is_empty() {
            return Ok(());
        }
        let by = self.0.trail.by_itself();
        let recorded = self.0.store.record(&events, &by).await;
        if recorded.is_err() {
            let mut kept = self.0.lock_refused();
            for (limit, count) in refused {
                *kept.entry(limit).or_default() += count;
            }
        }
        recorded
    }

    /// Counts what comes from an address without credentials. One that is not known, as in an app that
    /// listens on no socket, is not limited.
    ///
    /// # Errors
    /// [`AuthError::RateLimited`], [`AuthError::Store`].
    pub(crate) async fn at_address(&self, act: Act, from: Option<IpAddr>) -> AuthResult<()> {
        let inner = &*self.0;
        let Some(from) = from.map(Network::of) else {
            return Ok(());
        };
        let now = inner.clock.now();
        if let Some(quota) = inner.settings.node_address.0 {
            let knocked = inner.guard.knock(from, quota, now);
            knocked.map_err(|after| inner.limited(LimitName::NodeAddress, after))?;
        }
        let (name, limit) = inner.of_address(act);
        let Some(quota) = limit.0 else {
            return Ok(());
        };
        let key = inner.tokens.counted(name.as_str(), from.as_bytes())?;
        if let Some(after) = inner.guard.refused(&key, quota, now) {
            return Err(inner.limited(name, after));
        }
        match inner.draw(&simple(key, quota)).await? {
            Take::Admitted => Ok(()),
            Take::Refused(Refusal { after, .. }) => {
                inner.guard.remember(key, now.plus(after));
                Err(inner.limited(name, after))
            }
        }
    }

    /// Counts a letter that is asked for, by where the request comes from and by where the letter goes to;
    /// whether anybody has that address is not looked at (ASVS 2.4.2, 6.3.8).
    ///
    /// # Errors
    /// As [`Self::at_address`].
    pub(crate) async fn letter(
        &self,
        act: Act,
        from: Option<IpAddr>,
        to: &EmailAddress,
    ) -> AuthResult<()> {
        self.at_address(act, from).await?;
        let inner = &*self.0;
        let (name, limit) = if act == Act::Forgot {
            (LimitName::ForgotTarget, inner.settings.forgot_target)
        } else {
            (LimitName::ResendTarget, inner.settings.resend_target)
        };
        let whose = to.canonical().as_bytes();
        inner.take(name, limit, whose).await
    }

    /// Counts a refresh of a session.
    ///
    /// # Errors
    /// As [`Self::at_address`].
    pub(crate) async fn refresh(&self, session: SessionId) -> AuthResult<()> {
        let limit = self.0.settings.refresh_session;
        let id = session.as_uuid();
        let taken = self.0.take(LimitName::RefreshSession, limit, id.as_bytes());
        taken.await
    }

    /// Counts a request of a user who has proved who they are; mostly in the node's memory.
    ///
    /// # Errors
    /// [`AuthError::RateLimited`], [`AuthError::Store`].
    pub async fn request(&self, user: UserId) -> AuthResult<()> {
        let inner = &*self.0;
        let Some(requests) = &inner.requests else {
            return Ok(());
        };
        let name = LimitName::Requests;
        let lease = async |permits| {
            let id = user.as_uuid();
            let key = inner.tokens.counted(name.as_str(), id.as_bytes());
            let key = key.map_err(|error| StoreError::Driver(error.to_string()))?;
            let draw = Draw {
                permits,
                ..simple(key, requests.quota())
            };
            inner.store.take(&draw, inner.clock.now()).await
        };
        let admitted = requests.admit(user, inner.clock.now(), lease).await;
        admitted
            .map_err(broken)?
            .map_err(|after| inner.limited(name, after))
    }

    /// Whose device a client shows.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub(crate) async fn recognise(
        &self,
        proof: DeviceProof<'_>,
    ) -> AuthResult<Option<KnownDevice>> {
        let DeviceProof::Shown(text) = proof else {
            return Ok(None);
        };
        let Some(secret) = DeviceSecret::parse(text) else {
            return Ok(None);
        };
        let (store, now) = (&self.0.store, self.0.clock.now());
        let owner = store.device_owner(&secret.hash(), now).await;
        let owner = owner.map_err(broken)?;
        Ok(owner.map(|owner| KnownDevice { secret, owner }))
    }

    /// Counts a login to an account, as failed until it is said to have succeeded, against the device if it
    /// is one of the account's, and else against all unknown devices together.
    ///
    /// Logins by e-mail address and by user name are counted apart: counted together they would tell which
    /// address belongs to which name.
    ///
    /// # Errors
    /// As [`Self::at_address`].
    pub(crate) async fn login(
        &self,
        name: &LoginName,
        user: Option<UserId>,
        device: Option<&KnownDevice>,
    ) -> AuthResult<Attempt> {
        let inner = &*self.0;
        let device = device.filter(|device| Some(device.owner) == user);
        let key = match device {
            Some(device) => inner
                .tokens
                .counted(KNOWN_DEVICE, device.secret.hash().as_bytes())?,
            None => inner.unknown_devices(name)?,
        };
        let account = user.map(|user| inner.account(user)).transpose()?;
        let limit = inner.settings.login_account;
        let (bucket, failures) = (LimitName::LoginAccount, LimitName::LoginFailures);
        inner.attempt(key, account, limit, bucket, failures).await
    }

    /// Counts a proof of the current password in a session, as failed until it is said to have succeeded
    /// (ASVS 6.2.3).
    ///
    /// # Errors
    /// As [`Self::at_address`].
    pub(crate) async fn password_check(
        &self,
        user: UserId,
        session: SessionId,
    ) -> AuthResult<Attempt> {
        let inner = &*self.0;
        let name = LimitName::PasswordCheck;
        let id = session.as_uuid();
        let key = inner.tokens.counted(name.as_str(), id.as_bytes())?;
        let account = Some(inner.account(user)?);
        let limit = inner.settings.password_check;
        inner.attempt(key, account, limit, name, name).await
    }

    /// Says that an attempt has succeeded: what failed before it is forgotten.
    pub(crate) async fn succeeded(&self, attempt: Attempt) {
        let cleared = self.0.store.clear_counters(&[attempt.0]).await;
        not_cleared(cleared);
    }

    /// What a client is to keep after a login: what it has shown, if that is its user's, or something new.
    /// Without the database it is not known next time, and that is all.
    pub(crate) async fn keep_device(
        &self,
        user: UserId,
        known: Option<KnownDevice>,
    ) -> Option<KeptDevice> {
        let inner = &*self.0;
        let now = inner.clock.now();
        let expires_at = now.plus(inner.settings.device_ttl);
        let (secret, is_new) = match known.filter(|known| known.owner == user) {
            Some(known) => (known.secret, false),
            None => (DeviceSecret::fresh(&*inner.entropy), true),
        };
        let hash = secret.hash();
        let kept = if is_new {
            let new = NewDevice {
                hash,
                user_id: user,
                created_at: now,
                expires_at,
            };
            let most = inner.settings.devices_per_user;
            inner.store.add_device(&new, most).await
        } else {
            inner.store.touch_device(&hash, expires_at, now).await
        };
        if let Err(error) = &kept {
            tracing::warn!(%error, "a device was not noted");
        }
        (kept.is_ok() || !is_new).then_some(KeptDevice { secret, is_new })
    }

    /// Forgets all that was counted for an account.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub(crate) async fn pardon(&self, user: &User, by: &Occasion) -> AuthResult<()> {
        let inner = &*self.0;
        // Failures from before there was an account with the name belong to no account yet.
        let mut keys = vec![inner.unknown_devices(&LoginName::Email(user.email.clone()))?];
        if let Some(username) = &user.username {
            keys.push(inner.unknown_devices(&LoginName::Username(username.clone()))?);
        }
        let account = inner.account(user.id)?;
        inner.store.clear_counters(&keys).await?;
        inner.store.clear_account(&account, user.id, by).await?;
        Ok(())
    }

    /// As [`Self::pardon`], after something that is done already: it must not be said to have failed.
    pub(crate) async fn pardon_in_passing(&self, user: UserId, by: &Occasion) {
        let pardoned = match self.0.store.user(user).await {
            Ok(Some(user)) => self.pardon(&user, by).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error.into()),
        };
        not_cleared(pardoned);
    }

    /// Forgets the devices of a user whose password is another one from now on, or whose account is closed:
    /// one of them may be a thief's.
    pub(crate) async fn forget_devices(&self, user: UserId) {
        if let Err(error) = self.0.store.forget_devices(user).await {
            tracing::warn!(%error, %user, "known devices were not forgotten");
        }
    }
}

fn not_cleared<E: std::fmt::Display>(cleared: Result<(), E>) {
    if let Err(error) = cleared {
        tracing::warn!(%error, "failures were not forgotten");
    }
}

impl Inner {
    fn of_address(&self, act: Act) -> (LimitName, Limit) {
        let settings = &self.settings;
        match act {
            Act::LogIn => (LimitName::LoginAddress, settings.login_address),
            Act::Register => (LimitName::RegisterAddress, settings.register_address),
            Act::Forgot => (LimitName::ForgotAddress, settings.forgot_address),
            Act::Resend => (LimitName::ResendAddress, settings.resend_address),
            Act::Try => (LimitName::CodeAddress, settings.code_address),
        }
    }

    fn account(&self, user: UserId) -> AuthResult<SecretHash> {
        self.tokens.counted(ACCOUNT, user.as_uuid().as_bytes())
    }

    fn unknown_devices(&self, name: &LoginName) -> AuthResult<SecretHash> {
        let text = match name {
            LoginName::Email(email) => format!("email:{}", email.canonical()),
            LoginName::Username(username) => format!("username:{}", username.canonical()),
        };
        self.tokens.counted(UNKNOWN_DEVICES, text.as_bytes())
    }

    async fn take(&self, name: LimitName, limit: Limit, whose: &[u8]) -> AuthResult<()> {
        let Some(quota) = limit.0 else {
            return Ok(());
        };
        let key = self.tokens.counted(name.as_str(), whose)?;
        match self.draw(&simple(key, quota)).await? {
            Take::Admitted => Ok(()),
            Take::Refused(Refusal { after, .. }) => Err(self.limited(name, after)),
        }
    }

    async fn attempt(
        &self,
        key: SecretHash,
        account: Option<SecretHash>,
        limit: Limit,
        bucket: LimitName,
        in_a_row: LimitName,
    ) -> AuthResult<Attempt> {
        let failures: FailureRule = self.settings.failures();
        let draw = Draw {
            key,
            account,
            quota: limit.0,
            permits: 1,
            failures: Some(failures),
        };
        match self.draw(&draw).await? {
            Take::Admitted => Ok(Attempt(key)),
            Take::Refused(Refusal { after, by_failures }) => {
                Err(self.limited(if by_failures { in_a_row } else { bucket }, after))
            }
        }
    }

    /// A refusal, counted for the audit trail and for metrics.
    fn limited(&self, limit: LimitName, after: Span) -> AuthError {
        *self.lock_refused().entry(limit).or_default() += 1;
        self.metrics.limit_refusals.bump(limit.as_str());
        AuthError::RateLimited { limit, after }
    }

    fn lock_refused(&self) -> MutexGuard<'_, HashMap<LimitName, u64>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn draw(&self, draw: &Draw) -> AuthResult<Take> {
        let taken: StoreResult<Take> = self.store.take(draw, self.clock.now()).await;
        taken.map_err(broken)
    }
}

const fn simple(key: SecretHash, quota: Quota) -> Draw {
    Draw {
        key,
        account: None,
        quota: Some(quota),
        permits: 1,
        failures: None,
    }
}

/// Whatever is wrong with a limit, its client is to come back later: nothing was done yet.
fn broken(error: StoreError) -> AuthError {
    if !matches!(error, StoreError::Unavailable(_)) {
        tracing::error!(%error, "a limit cannot be asked for");
        return StoreError::Unavailable("a limit cannot be asked for".into()).into();
    }
    error.into()
}

//! The storage contract: atomic decisions, not rows.
//!
//! Each method of [`Store`] is one step that either happens whole or not at all, named for what it
//! decides, with an outcome for everything that can be found. Who may race and who wins is said with
//! each. `tests/store` runs one list of cases against every implementation.
//!
//! Rules for all methods:
//! - `now` is the caller's time; an implementation never asks for its own.
//! - What is worth a record in the audit trail is done on an [`Occasion`], which says when, by whom and from
//!   where. Its record is written in the same step: neither is ever there without the other.
//! - A change that returned is durable and visible to every later read on every node.
//! - A stored time never goes back: writers store `max(old, now)`.
//! - A method that writes in several statements finishes even if its caller goes away.

#[cfg(any(feature = "sql", feature = "mongodb"))]
pub(crate) mod circuit;
pub mod error;
pub mod measured;
#[cfg(feature = "mongodb")]
pub mod mongodb;
pub mod moving;
pub mod open;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(any(feature = "sql", feature = "mongodb"))]
pub(crate) mod queue;
pub mod settings;
#[cfg(feature = "sqlite")]
pub mod sqlite;

use async_trait::async_trait;
use uuid::Uuid;

pub use self::error::StoreError;
use crate::{
    clock::{Span, Timestamp},
    email::EmailAddress,
    ids::{AuditId, LetterId, RegistrationId, SessionId, UserId},
    metrics::{CircuitUse, PoolUse},
    model::{
        account::{NewRegistration, WaitingRegistration},
        audit::{
            AuditFilter, AuditRecord, Event, Occasion, WrappedKey,
            seal::{Mark, MarkName, Sealed},
        },
        device::NewDevice,
        mail::{Letter, LetterKind, LetterState, NewLetter, Settlement},
        quota::{Draw, Refusal},
        role::{FixedRoles, RoleDefinition, StoredRole},
        session::{CloseReason, Device, IdleRule, NewSession, RefreshState, Session, SessionView},
        token::{NewOneTimeSecret, Proof, SecretHash},
        user::{NewUser, PasswordHash, Roles, SessionLimit, User, UserCredentials, UserPatch},
    },
    username::Username,
};

/// What a store method answers.
pub type StoreResult<T> = Result<T, StoreError>;

/// What a lookup found: a session with its user, or that the user has none of this id.
pub type FoundSession = Option<SessionView>;

/// The name somebody logs in by.
#[derive(Debug, Clone)]
pub enum LoginName {
    /// By e-mail address, compared in canonical form.
    Email(EmailAddress),
    /// By user name, compared in canonical form.
    Username(Username),
}

/// Outcome of [`Store::create_user`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateUser {
    /// Stored.
    Created,
    /// Another user has the address.
    EmailTaken,
    /// Another user has the user name.
    UsernameTaken,
}

/// Outcome of [`Store::update_user`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpdateUser {
    /// Changed; the user as it is now.
    Updated(Box<User>),
    /// Another user has the new address.
    EmailTaken,
    /// Another user has the new user name.
    UsernameTaken,
    /// There is no such user.
    Gone,
}

/// Outcome of [`Store::set_roles`], [`Store::deactivate_user`] and [`Store::activate_user`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeStanding {
    /// Changed, or already so; the user as it is now.
    Changed(Box<User>),
    /// Refused: no active administrator would be left.
    LastAdmin,
    /// Refused: the credentials are not the expected ones any more.
    CredentialsChanged,
    /// There is no such user.
    Gone,
}

/// Outcome of [`Store::put_role`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutRole {
    /// Stored, as it is now.
    Stored(StoredRole),
    /// Refused: no active administrator would be left.
    LastAdmin,
}

/// Outcome of [`Store::delete_role`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeleteRole {
    /// Deleted.
    Deleted,
    /// Refused: no active administrator would be left.
    LastAdmin,
    /// There is no such role.
    Unknown,
}

/// Outcome of [`Store::set_password`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetPassword {
    /// Stored.
    Changed {
        /// How many sessions were closed by it.
        closed: u64,
        /// When the user of the session that was kept last proved who they are; none if there is no
        /// such open session.
        authenticated_at: Option<Timestamp>,
    },
    /// The password changed since `credential_version` was read; nothing was written.
    CredentialsChanged,
    /// The user is not active; nothing was written.
    NotActive,
    /// There is no such user.
    Gone,
}

/// Outcome of [`Store::redeem_set_password`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redeem {
    /// Spent, and the password is set.
    Redeemed(UserId),
    /// Unknown, spent, expired or void; nothing was written but that a code was tried.
    Refused,
}

/// Outcome of [`Store::change_email`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeEmail {
    /// Spent; the user as it is now.
    Changed(Box<User>),
    /// Another user has the address by now; nothing was written.
    Taken,
    /// Unknown, spent, expired or void; nothing was written but that a code was tried.
    Refused,
}

/// Outcome of [`Store::confirm_registration`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfirmRegistration {
    /// The account exists, its address verified.
    Created(Box<User>),
    /// Another user has the address by now; nothing was written.
    EmailTaken,
    /// Another user has the user name by now; nothing was written.
    UsernameTaken,
    /// Unknown, spent, expired or void; nothing was written but that a code was tried.
    Refused,
}

/// What [`Store::prepare_letter`] is to do.
#[derive(Debug, Clone, Copy)]
pub struct PrepareLetter {
    /// Which letter.
    pub id: LetterId,
    /// The claim under which it is prepared.
    pub fence: i64,
    /// The stored form of the secret in its link.
    pub link: SecretHash,
    /// The stored form of its code, if it can have one.
    pub code: Option<SecretHash>,
}

/// Outcome of [`Store::prepare_letter`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// To be sent.
    Ready(Box<ReadyLetter>),
    /// What it was for is over, for this reason.
    Obsolete(&'static str),
    /// It is another worker's by now, or settled.
    Lost,
}

/// A letter with everything that is known about whom it goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyLetter {
    /// What it is about; a letter for a new account becomes [`LetterKind::AddressTaken`] where the address
    /// has one.
    pub kind: LetterKind,
    /// Where it goes.
    pub to: EmailAddress,
    /// Whom it is about; none for a registration that waits.
    pub user: Option<User>,
    /// Whether its code can be used: not after too many wrong tries.
    pub has_code: bool,
}

/// Which letters to list.
#[derive(Debug, Clone, Copy, Default)]
pub struct LetterFilter {
    /// Only letters in this state.
    pub state: Option<LetterState>,
    /// Only letters whose id is smaller than this: the last one of the page before.
    pub before: Option<LetterId>,
    /// At most this many.
    pub limit: u32,
}

/// Outcome of [`Store::retry_letter`] and [`Store::drop_letter`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeLetter {
    /// Changed; the letter as it is now.
    Changed(Box<Letter>),
    /// A worker is sending it.
    InFlight,
    /// It was sent, so there is nothing to change.
    AlreadySent,
    /// It was dropped, and stays so: what it was for may be over.
    AlreadyDropped,
    /// There is no such letter.
    Unknown,
}

/// Outcome of [`Store::open_session`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenSession {
    /// Opened.
    Opened {
        /// The session as stored.
        session: Session,
        /// The sessions that it replaced, oldest first.
        evicted: Vec<SessionId>,
    },
    /// The limit is reached and the policy is to refuse.
    Refused {
        /// How many sessions are open.
        open: u32,
    },
    /// The user is not active; nothing was written.
    NotActive,
    /// There is no such user.
    Gone,
    /// The password changed since `credential_version` was read; nothing was written.
    CredentialsChanged,
}

/// Outcome of [`Store::erase_user`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EraseUser {
    /// Erased.
    Erased,
    /// Refused: no active administrator would be left.
    LastAdmin,
    /// There is no such user.
    Gone,
}

/// What [`Store::open_session`] is to do.
#[derive(Debug, Clone)]
pub struct OpenSessionRequest {
    /// The session.
    pub session: NewSession,
    /// As read together with the password hash.
    pub credential_version: i64,
    /// The policy; the user's own override is applied to it in the same step.
    pub limit: SessionLimit,
    /// Which open sessions have become idle.
    pub idle: IdleRule,
    /// A hash with newer parameters of the same password, stored in the same step; it does not
    /// change the `credential_version`.
    pub rehash: Option<PasswordHash>,
    /// A letter that tells of the login, stored in the same step if a session is opened.
    pub letter: Option<NewLetter>,
}

/// Outcome of [`Store::close_session`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseSession {
    /// Closed now.
    Closed,
    /// It had ended before; its reason stays.
    AlreadyClosed,
    /// There is no such session of that user.
    Unknown,
}

/// What [`Store::rotate_refresh`] is to do.
#[derive(Debug, Clone, Copy)]
pub struct RotateRefresh {
    /// Whose session.
    pub user: UserId,
    /// Which session.
    pub session: SessionId,
    /// The stored form of the token that is presented.
    pub presented: SecretHash,
    /// The stored form of the one that takes its place.
    pub successor: SecretHash,
    /// The successor's generation.
    pub generation: i64,
    /// Which open sessions have become idle.
    pub idle: IdleRule,
}

/// Outcome of [`Store::take`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Taken.
    Admitted,
    /// Refused; nothing was written.
    Refused(Refusal),
}

/// Which users to list.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// Part of the e-mail address or user name, literally, without regard to case.
    pub text: Option<String>,
    /// Only active or only deactivated ones.
    pub active: Option<bool>,
    /// Only holders of this role.
    pub role: Option<String>,
    /// Only users whose id is smaller than this: the last one of the page before.
    pub before: Option<UserId>,
    /// At most this many.
    pub limit: u32,
}

/// A session that was used, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Whose session.
    pub user_id: UserId,
    /// Which session.
    pub session_id: SessionId,
    /// When it was last used.
    pub at: Timestamp,
}

/// What is over and only takes up room. Nothing depends on its removal: what is over is refused when it is
/// presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftover {
    /// Sessions, closed or not, by the time at which they would have ended by themselves.
    Sessions,
    /// Letters that were sent, dropped or given up, by when that was.
    Letters,
    /// One-time secrets, used or not, by the time at which they expired, once their letter is gone.
    OneTimeSecrets,
    /// Registrations that nobody confirmed, by the time at which they expired.
    Registrations,
    /// Addresses that were kept for the accounts that left them, by the time until which they were.
    KeptAddresses,
    /// Active accounts without roles whose address was never verified, by their
    /// [`provisional_until`](NewUser::provisional_until); with everything that is theirs.
    Accounts,
    /// Counters of limits, by the time from which they count for nothing.
    Counters,
    /// Known devices, by the time until which they were known.
    Devices,
}

impl Leftover {
    /// Every kind, in the order in which they can be removed.
    pub const ALL: [Self; 8] = [
        Self::Sessions,
        Self::Letters,
        Self::OneTimeSecrets,
        Self::Registrations,
        Self::KeptAddresses,
        Self::Accounts,
        Self::Counters,
        Self::Devices,
    ];
}

/// The database behind Doorward.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Asks the database for its time: proof that it can answer, and what clocks follow.
    async fn time(&self) -> StoreResult<Timestamp>;

    /// What has become of the circuit that keeps calls from a database that is away; asks nobody. A store that has
    /// none says that it never opened.
    fn circuit(&self) -> CircuitUse {
        CircuitUse::default()
    }

    /// Closes what the store holds open; calls after it may fail.
    async fn close(&self);

    /// How its connections are used at this moment; asks nobody.
    fn pools(&self) -> Vec<PoolUse>;

    /// How many sessions are open and have not expired, the canary's aside. It may read all of them, so nobody
    /// asks often.
    async fn count_live_sessions(&self, now: Timestamp) -> StoreResult<u64>;

    /// How many letters wait to be sent, and since when the oldest of them does.
    async fn waiting_letters(&self) -> StoreResult<(u64, Option<Timestamp>)>;

    /// Removes the sessions of a user that were opened before then, open or not, and says how many that were (on
    /// MongoDB, whether there were any). Nothing is recorded: it is for the [canary](UserId::CANARY), whose
    /// sessions nobody had.
    async fn forget_sessions(&self, user: UserId, before: Timestamp) -> StoreResult<u64>;

    /// Stores a user, and with it the one-time secret for setting a first password and the letter, if they
    /// are given.
    ///
    /// Of any number of concurrent calls with one canonical address or user name exactly one is
    /// `Created`. An address that is kept for another account counts as taken.
    async fn create_user(
        &self,
        user: &NewUser,
        link: Option<&NewOneTimeSecret>,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<CreateUser>;

    /// The user with this id.
    async fn user(&self, id: UserId) -> StoreResult<Option<User>>;

    /// The user who logs in by this name, with what a login needs.
    async fn user_by_login(&self, name: &LoginName) -> StoreResult<Option<UserCredentials>>;

    /// What a login needs, by id.
    async fn user_credentials(&self, id: UserId) -> StoreResult<Option<UserCredentials>>;

    /// Users by descending id (newest first), the [canary](UserId::CANARY) aside.
    async fn list_users(&self, filter: &UserFilter) -> StoreResult<Vec<User>>;

    /// Changes fields of a user. A new session limit closes the oldest surplus sessions
    /// (`limit_lowered`) in the same step, measured with `limit` as the policy that it overrides;
    /// sessions that have expired or are idle do not count and are closed as such. If the address becomes
    /// another one, all open secrets of the user are voided ([`Voiding::Moved`](crate::model::mail::Voiding)) and `notice` is stored as a
    /// letter to the old one, if that was verified.
    ///
    /// Concurrent calls are applied one after the other; uniqueness as in [`Self::create_user`].
    async fn update_user(
        &self,
        id: UserId,
        patch: &UserPatch,
        notice: Option<&NewLetter>,
        limit: SessionLimit,
        idle: IdleRule,
        by: &Occasion,
    ) -> StoreResult<UpdateUser>;

    /// Replaces a user's roles. Sessions stay open: rights are read from the user at each request.
    ///
    /// An administrator is whoever holds a role that grants [`ROLES_GRANT`](crate::model::role::ROLES_GRANT):
    /// a fixed one, or a stored one that no fixed one has the name of. Concurrent calls of this,
    /// [`Self::deactivate_user`], [`Self::put_role`] and [`Self::delete_role`] never leave the system
    /// without an active administrator where there was one, if all of them are given the same `fixed`.
    async fn set_roles(
        &self,
        id: UserId,
        roles: &Roles,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<ChangeStanding>;

    /// Deactivates a user and closes all their sessions (`account_deactivated`) in the same step.
    /// Deactivating twice keeps the first time. With a `credential_version` nothing changes unless
    /// the user still has it: the proof that was given belongs to it.
    ///
    /// Races with [`Self::open_session`]: whichever comes first, no session is open afterwards. The last
    /// administrator stays, as with [`Self::set_roles`].
    async fn deactivate_user(
        &self,
        id: UserId,
        credential_version: Option<i64>,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<ChangeStanding>;

    /// Lets a user log in again; closed sessions stay closed.
    async fn activate_user(&self, id: UserId, by: &Occasion) -> StoreResult<ChangeStanding>;

    /// All roles of the database, by name.
    async fn list_roles(&self) -> StoreResult<Vec<StoredRole>>;

    /// The roles of the database that have one of these names, in any order.
    async fn roles_named(&self, names: &[String]) -> StoreResult<Vec<RoleDefinition>>;

    /// Stores a role in place of the one of its name, if there is one; effective on its holders' next
    /// requests. Of concurrent calls for one name the last one counts, whole. The last administrator
    /// stays, as with [`Self::set_roles`]: that a role grants less is refused where it would make the last
    /// one none.
    async fn put_role(
        &self,
        role: &RoleDefinition,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<PutRole>;

    /// Deletes a role. Users keep its name, which grants nothing from then on; the last administrator
    /// stays, as with [`Self::set_roles`].
    async fn delete_role(
        &self,
        name: &str,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<DeleteRole>;

    /// Replaces the password if it is still the one `credential_version` was read with, closes all sessions
    /// (`password_changed`) but `keep` and stores the letter, in one step. Open secrets for setting a
    /// password or changing the address become void, those in letters that wait among them;
    /// `credential_version` grows by one and `keep` counts as authenticated at that time.
    ///
    /// Of concurrent calls with one `credential_version` exactly one is `Changed`.
    async fn set_password(
        &self,
        id: UserId,
        hash: &PasswordHash,
        credential_version: i64,
        keep: Option<SessionId>,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<SetPassword>;

    /// Whose password a one-time secret would set now, for [`Self::redeem_set_password`]. Nothing is spent, and a
    /// wrong code is counted as there, so that trying codes here gains nothing. `None`: refused.
    ///
    /// Whoever is answered with a user has no claim: of any number of such callers one redeems the secret.
    async fn owner_of_proof(&self, proof: &Proof, now: Timestamp) -> StoreResult<Option<User>>;

    /// Spends a one-time secret for setting or resetting a password, sets it, closes all sessions of its
    /// user (`password_changed`), voids their open secrets but those of notices and, if there was a password
    /// before, stores the letter, in one step. A secret that was mailed to the user's address verifies that.
    ///
    /// Of concurrent calls with one secret exactly one is `Redeemed`. A deactivated user's secret is
    /// refused and not spent. A wrong code is counted; see [`Proof`] and
    /// [`CODE_TRIES`](crate::model::mail::CODE_TRIES).
    async fn redeem_set_password(
        &self,
        proof: &Proof,
        hash: &PasswordHash,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<Redeem>;

    /// Spends a secret that was mailed to a user's address and notes that it is verified, in one step.
    /// `None`: refused, and nothing was written but that a code was tried.
    ///
    /// Of concurrent calls with one secret exactly one is answered with a user.
    async fn verify_email(&self, proof: &Proof, by: &Occasion) -> StoreResult<Option<User>>;

    /// Spends a secret that was mailed to a new address and gives its user that address, verified, in one
    /// step with `notice`, a letter to the old one if that was verified; the old one is then kept for the
    /// account for as long as [`ADDRESS_KEPT`](crate::model::mail::ADDRESS_KEPT). Uniqueness as in
    /// [`Self::create_user`].
    ///
    /// Of concurrent calls with one secret exactly one is `Changed`.
    async fn change_email(
        &self,
        proof: &Proof,
        notice: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<ChangeEmail>;

    /// Spends the link of a notice whose reader says that it was somebody else: closes all sessions
    /// (`revoked`), takes the password away, voids open secrets ([`Voiding::Disowned`](crate::model::mail::Voiding)), gives the account the
    /// address back that the notice went to, and stores `reset`, a letter to that address, and `notice`, a
    /// letter to the address that the account had instead, in one step. Where another user has the address
    /// after all, no letter is stored: an administrator has to decide. `None`: refused, and nothing was
    /// written.
    ///
    /// Of concurrent calls with one secret exactly one is answered with a user.
    async fn disown(
        &self,
        link: &SecretHash,
        reset: Option<&NewLetter>,
        notice: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<Option<UserId>>;

    /// Stores a registration that waits for its address, with its letter. Nothing is looked at, so that an
    /// address that is taken costs the same.
    async fn add_registration(
        &self,
        registration: &NewRegistration,
        letter: &NewLetter,
        by: &Occasion,
    ) -> StoreResult<()>;

    /// The waiting registration that a link names, or the newest one of an address for a code. Nothing is
    /// spent or counted.
    async fn waiting_registration(
        &self,
        proof: &Proof,
        now: Timestamp,
    ) -> StoreResult<Option<WaitingRegistration>>;

    /// Spends the secret of a waiting registration and makes its account, with this id, in one step.
    /// `expected` is the registration whose password was checked; without one, a code is counted as a wrong
    /// one. All other registrations for the address end.
    ///
    /// Of concurrent calls exactly one is `Created`.
    async fn confirm_registration(
        &self,
        proof: &Proof,
        expected: Option<RegistrationId>,
        user: UserId,
        by: &Occasion,
    ) -> StoreResult<ConfirmRegistration>;

    /// What clients said about themselves when the user's last twenty sessions were opened.
    async fn recent_devices(&self, user: UserId) -> StoreResult<Vec<Device>>;

    /// Stores a letter, unless one of its kind to the same address, about the same user under the same
    /// `credential_version` if it is about one, was caused after `quiet_since`; says whether it did. Nothing else is looked at, so that an address that nobody has costs the same. Of
    /// concurrent calls more than one may be stored.
    async fn add_letter(
        &self,
        letter: &NewLetter,
        quiet_since: Timestamp,
        by: &Occasion,
    ) -> StoreResult<bool>;

    /// Claims letters that are due, the longest waiting first: until `now` + `lease` nobody else is given
    /// them, and later somebody is. Of concurrent calls each letter is given to one. A corrupt letter is
    /// claimed like the others, so that it holds them up once at most.
    async fn claim_letters(
        &self,
        most: u32,
        lease: Span,
        now: Timestamp,
    ) -> StoreResult<Vec<Letter>>;

    /// Looks up whom a claimed letter is for and stores the secret that goes into it, in one step; older
    /// secrets of its purpose become void, and their wrong tries are inherited. Doing it again for the next
    /// attempt stores the same secret once more, unless it was spent or voided meanwhile.
    ///
    /// Races with everything that voids secrets: whichever comes first, none is open afterwards.
    async fn prepare_letter(&self, letter: &PrepareLetter, now: Timestamp)
    -> StoreResult<Prepared>;

    /// Notes how an attempt ended; false, and nothing is written, if the claim is not the last one.
    async fn settle_letter(
        &self,
        id: LetterId,
        fence: i64,
        settlement: &Settlement,
        now: Timestamp,
    ) -> StoreResult<bool>;

    /// Letters by descending id (newest first).
    async fn list_letters(&self, filter: &LetterFilter) -> StoreResult<Vec<Letter>>;

    /// The letter with this id.
    async fn letter(&self, id: LetterId) -> StoreResult<Option<Letter>>;

    /// Makes a letter due now that waits or was given up.
    async fn retry_letter(&self, id: LetterId, by: &Occasion) -> StoreResult<ChangeLetter>;

    /// Gives up a letter that waits or was given up.
    async fn drop_letter(&self, id: LetterId, by: &Occasion) -> StoreResult<ChangeLetter>;

    /// Opens a session, in one step with everything that belongs to it: sessions of the user that
    /// have expired (`expired`) or become idle (`idle`) are closed first; if as many as the limit or
    /// more are still open, the oldest surplus is closed (`replaced`) or the login refused.
    ///
    /// Whatever number of calls race for one user, on whatever nodes, there are never more open
    /// sessions than the limit; the database enforces it. A call whose `credential_version` is not
    /// the user's any more writes nothing.
    async fn open_session(
        &self,
        request: &OpenSessionRequest,
        by: &Occasion,
    ) -> StoreResult<OpenSession>;

    /// The sessions asked for with their users, in the order asked; `None` for one that does not
    /// exist or is not that user's. Each as it is in a snapshot taken after the call began.
    ///
    /// Errors are per row, so a corrupt row fails one caller; the outer error means that nothing
    /// could be read.
    async fn live_sessions(
        &self,
        wanted: &[(UserId, SessionId)],
    ) -> StoreResult<Vec<StoreResult<Option<SessionView>>>>;

    /// As [`Self::live_sessions`] for one session, where that takes less than handing the question to somebody else;
    /// `None` where it would have to be waited for, or fails.
    fn live_session_at_once(&self, _user: UserId, _session: SessionId) -> Option<FoundSession> {
        None
    }

    /// A user's sessions that are not closed, newest first.
    async fn open_sessions_of(&self, user: UserId) -> StoreResult<Vec<Session>>;

    /// Closes one session. With `unseen_since`, only if it was not seen after that time (idle sessions
    /// are closed only while still unused); otherwise it is left open and `AlreadyClosed` is answered.
    async fn close_session(
        &self,
        user: UserId,
        session: SessionId,
        reason: CloseReason,
        unseen_since: Option<Timestamp>,
        by: &Occasion,
    ) -> StoreResult<CloseSession>;

    /// Closes a session one of whose refresh tokens was used twice (`refresh_reused`), and stores the letter
    /// in the same step if this call is the one that closed it.
    async fn close_reused_session(
        &self,
        user: UserId,
        session: SessionId,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<CloseSession>;

    /// Whose session it is, open or closed; `None` if there is no such session.
    async fn owner_of_session(&self, session: SessionId) -> StoreResult<Option<UserId>>;

    /// Closes the session with this id, whosesoever it is.
    async fn close_session_by_id(
        &self,
        session: SessionId,
        reason: CloseReason,
        by: &Occasion,
    ) -> StoreResult<CloseSession>;

    /// Closes all open sessions of a user but `keep`, and says how many. `None`: no such user.
    ///
    /// Every session that was open when the call began is closed when it returns.
    async fn close_sessions(
        &self,
        user: UserId,
        keep: Option<SessionId>,
        reason: CloseReason,
        by: &Occasion,
    ) -> StoreResult<Option<u64>>;

    /// Notes that the user of an open session has just proved who they are, unless that was noted
    /// after `known`: of concurrent calls with one `known` the first is noted, and all are answered
    /// with what stands there then. `None` if the session is not open.
    async fn renew_authentication(
        &self,
        user: UserId,
        session: SessionId,
        known: Timestamp,
        by: &Occasion,
    ) -> StoreResult<Option<Timestamp>>;

    /// Puts the successor in the place of a session's refresh token and answers when the session ends.
    /// `None`, and nothing is written, unless the presented one is its current one, the session is open
    /// and neither expired nor idle, and its user is active.
    ///
    /// Of any number of concurrent calls with one `presented` exactly one is answered with a time.
    async fn rotate_refresh(
        &self,
        request: &RotateRefresh,
        now: Timestamp,
    ) -> StoreResult<Option<Timestamp>>;

    /// What refreshing a session needs to know; `None` if it does not exist or is not that user's.
    async fn refresh_state(
        &self,
        user: UserId,
        session: SessionId,
    ) -> StoreResult<Option<RefreshState>>;

    /// Notes that an access token of this generation was seen, so that the refresh token of the
    /// generation before has done its duty. Never backwards, and never beyond the generation that there
    /// is.
    async fn note_generation(
        &self,
        user: UserId,
        session: SessionId,
        generation: i64,
    ) -> StoreResult<()>;

    /// Notes when sessions were last used: open ones only, never backwards.
    ///
    /// Two nodes' flushes, or a flush and a login, never wait for each other in a circle.
    async fn note_seen(&self, seen: &[Seen]) -> StoreResult<()>;

    /// Puts sessions into the order in which the database keeps them: those of one [`Self::note_seen`] then lie
    /// together, and few pages are written for many sessions. Answers how many of them, one or more, are best given
    /// to each, so that others hardly notice.
    fn arrange_seen(&self, seen: &mut [Seen]) -> usize;

    /// Removes some of what was over before this time, at most `most` of it, and says how much that was:
    /// less than `most` when nothing more is left.
    ///
    /// Races with whatever gives it a longer life: what is not over any more when it is its turn stays.
    async fn sweep(
        &self,
        what: Leftover,
        before: Timestamp,
        most: u32,
        by: &Occasion,
    ) -> StoreResult<u32>;

    /// Takes a lease until then, or renews it: false while somebody else holds it. Of any number of
    /// concurrent calls by different holders one is answered true, until the time that it named.
    async fn take_lease(
        &self,
        name: &str,
        holder: Uuid,
        until: Timestamp,
        now: Timestamp,
    ) -> StoreResult<bool>;

    /// Takes permits from a bucket, and counts a failure in advance if the draw says so: as
    /// [`Draw::judge`] decides. What is refused for sure is refused by an unlocked read.
    ///
    /// Of any number of concurrent calls with one key, on whatever nodes, no more are `Admitted` than one
    /// after the other would be.
    async fn take(&self, draw: &Draw, now: Timestamp) -> StoreResult<Take>;

    /// Forgets what was counted under these keys. A draw at the same time counts or does not.
    async fn clear_counters(&self, keys: &[SecretHash]) -> StoreResult<()>;

    /// Forgets everything that was counted for an account ([`Draw::account`]), which is that of `whose`.
    async fn clear_account(
        &self,
        account: &SecretHash,
        whose: UserId,
        by: &Occasion,
    ) -> StoreResult<()>;

    /// Stores a device of a user, of which there are `most` afterwards at the most: those that never came
    /// back are forgotten first, then the longest unused. Nothing is stored for a user who is gone.
    async fn add_device(&self, device: &NewDevice, most: u32) -> StoreResult<()>;

    /// Whose device this is; `None` for one that is unknown or past its time.
    async fn device_owner(
        &self,
        device: &SecretHash,
        now: Timestamp,
    ) -> StoreResult<Option<UserId>>;

    /// Notes that a device was used, never backwards.
    async fn touch_device(
        &self,
        device: &SecretHash,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> StoreResult<()>;

    /// Forgets all devices of a user.
    async fn forget_devices(&self, user: UserId) -> StoreResult<()>;

    /// Deletes a user with everything that is theirs: sessions, secrets, devices, letters to them and about
    /// them, registrations for their address. The key of their audit details is dropped for good; the records
    /// stay. The last administrator stays, as with [`Self::set_roles`].
    ///
    /// Races with whatever changes the user: whichever comes first, nothing of the user is left.
    async fn erase_user(
        &self,
        id: UserId,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<EraseUser>;

    /// Writes records of what changed nothing: what was refused or only read. It is the same work whether an
    /// event is about somebody or about nobody.
    async fn record(&self, events: &[Event], by: &Occasion) -> StoreResult<()>;

    /// Records of the audit trail by descending id (newest first), sealed or not.
    async fn list_audit(&self, filter: &AuditFilter) -> StoreResult<Vec<AuditRecord>>;

    /// Some records that are not sealed, by id.
    async fn unsealed_audit(&self, most: u32) -> StoreResult<Vec<AuditRecord>>;

    /// How many records are not sealed.
    async fn count_unsealed_audit(&self) -> StoreResult<u64>;

    /// Gives records their places and seals and moves the head from `known` to `head`, in one step. False, and
    /// nothing is written, if the head is another one by now or one of the records is sealed or gone.
    ///
    /// Of any number of concurrent calls with one `known` one is answered true.
    async fn seal_audit(
        &self,
        sealed: &[(AuditId, Sealed)],
        known: Option<&Mark>,
        head: &Mark,
    ) -> StoreResult<bool>;

    /// Sealed records by their place, from the one after `after` on.
    async fn sealed_audit(&self, after: i64, most: u32) -> StoreResult<Vec<AuditRecord>>;

    /// A place of the chain that was written down.
    async fn audit_mark(&self, name: MarkName) -> StoreResult<Option<Mark>>;

    /// Writes down up to which place records are removed, unless it was further already, and removes at most
    /// `most` of them; says how many that were. In one step, so that no record is gone before the chain's new
    /// beginning is known.
    async fn cut_audit(&self, checkpoint: &Mark, most: u32) -> StoreResult<u32>;

    /// The keys of these persons' audit details, of those who have one.
    async fn audit_keys(&self, persons: &[UserId]) -> StoreResult<Vec<(UserId, WrappedKey)>>;
}

/// The schema changes of a database, applied in order of their numbers.
#[async_trait]
pub trait Migrations: Send + Sync + 'static {
    /// Names of the changes not applied yet, in order.
    async fn pending(&self) -> StoreResult<Vec<String>>;

    /// Applies what is pending and says what it was. Safe to call from several processes at once:
    /// each change is applied once.
    async fn apply(&self) -> StoreResult<Vec<String>>;

    /// Takes the last `n` changes back, newest first, and says which. Their data is lost.
    async fn revert(&self, n: usize) -> StoreResult<Vec<String>>;
}

//! A store that counts its calls and lets a test freeze one of them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use doorward::{
    clock::{Span, Timestamp},
    ids::{AuditId, LetterId, RegistrationId, SessionId, UserId},
    metrics::{CircuitUse, PoolUse},
    model::{
        account::{NewRegistration, WaitingRegistration},
        audit::{
            AuditFilter, AuditRecord, Event, Occasion, WrappedKey,
            seal::{Mark, MarkName, Sealed},
        },
        device::NewDevice,
        mail::{Letter, NewLetter, Settlement},
        quota::Draw,
        role::{FixedRoles, RoleDefinition, StoredRole},
        session::{CloseReason, Device, IdleRule, RefreshState, Session, SessionView},
        token::{NewOneTimeSecret, Proof, SecretHash},
        user::{NewUser, PasswordHash, Roles, SessionLimit, User, UserCredentials, UserPatch},
    },
    store::{
        ChangeEmail, ChangeLetter, ChangeStanding, CloseSession, ConfirmRegistration, CreateUser,
        DeleteRole, EraseUser, FoundSession, Leftover, LetterFilter, LoginName, OpenSession,
        OpenSessionRequest, PrepareLetter, Prepared, PutRole, Redeem, RotateRefresh, Seen,
        SetPassword, Store, StoreError, StoreResult, Take, UpdateUser, UserFilter,
    },
};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::PATIENCE;

/// A store as seen by a test.
pub struct WatchedStore {
    inner: Arc<dyn Store>,
    calls: AtomicUsize,
    by_method: Mutex<BTreeMap<&'static str, usize>>,
    holds: Mutex<Vec<Hold>>,
    panics: Mutex<Vec<&'static str>>,
    failing: Mutex<Vec<&'static str>>,
}

/// When a call is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Before,
    After,
}

struct Hold {
    method: &'static str,
    moment: Moment,
    state: Arc<GateState>,
}

struct GateState {
    reached: Semaphore,
    released: Semaphore,
}

/// A gate that holds one call; dropping it lets the call go on.
#[must_use]
pub struct Gate {
    method: &'static str,
    state: Arc<GateState>,
}

impl Gate {
    /// Waits until a call stands at the gate.
    pub async fn reached(&self) {
        let arrival = tokio::time::timeout(PATIENCE, self.state.reached.acquire()).await;
        let permit = arrival.unwrap_or_else(|_| panic!("{} was never called", self.method));
        permit.expect("the gate stays open").forget();
    }

    /// Lets the call go on.
    pub fn release(self) {
        drop(self);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.state.released.add_permits(1);
    }
}

impl WatchedStore {
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            calls: AtomicUsize::new(0),
            by_method: Mutex::default(),
            holds: Mutex::default(),
            panics: Mutex::default(),
            failing: Mutex::default(),
        }
    }

    /// How many calls there were.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// How many calls of each method there were.
    pub fn by_method(&self) -> BTreeMap<&'static str, usize> {
        self.by_method
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many calls of one method there were.
    pub fn calls_of(&self, method: &str) -> usize {
        let counts = self
            .by_method
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        counts.get(method).copied().unwrap_or(0)
    }

    /// Holds the next call of a method before it reaches the database; later ones pass.
    pub fn hold_before(&self, method: &'static str) -> Gate {
        self.hold(method, Moment::Before)
    }

    /// Holds the next call of a method once the database has answered; later ones pass.
    pub fn hold_after(&self, method: &'static str) -> Gate {
        self.hold(method, Moment::After)
    }

    /// Lets the next call of a method panic.
    pub fn panic_at(&self, method: &'static str) {
        let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        panics.push(method);
    }

    fn panic_if_told(&self, method: &'static str) {
        let mut panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = panics.iter().position(|told| *told == method) {
            panics.remove(at);
            drop(panics);
            panic!("{method} was told to panic");
        }
    }

    /// Lets every call of a method fail from now on, as if the database were away for it. So far only `take`
    /// can be told to.
    pub fn fail_at(&self, method: &'static str) {
        let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.push(method);
    }

    fn fails(&self, method: &str) -> bool {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        failing.contains(&method)
    }

    /// Whether something is to happen at a call of this method.
    fn awaits(&self, method: &str) -> bool {
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        let panics = self.panics.lock().unwrap_or_else(PoisonError::into_inner);
        holds.iter().any(|hold| hold.method == method) || panics.contains(&method)
    }

    fn hold(&self, method: &'static str, moment: Moment) -> Gate {
        let state = Arc::new(GateState {
            reached: Semaphore::new(0),
            released: Semaphore::new(0),
        });
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.push(Hold {
            method,
            moment,
            state: Arc::clone(&state),
        });
        Gate { method, state }
    }

    fn count(&self, method: &'static str) {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut counts = self
            .by_method
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *counts.entry(method).or_default() += 1;
    }

    async fn pass(&self, method: &'static str, moment: Moment) {
        let held = {
            let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
            let found = holds
                .iter()
                .position(|hold| hold.method == method && hold.moment == moment);
            found.map(|at| holds.remove(at).state)
        };
        if let Some(state) = held {
            state.reached.add_permits(1);
            let permit = state.released.acquire().await;
            permit.expect("the gate stays open").forget();
        }
    }
}

macro_rules! watch {
    ($self:ident.$method:ident($($argument:expr),*)) => {{
        let method = stringify!($method);
        $self.count(method);
        $self.panic_if_told(method);
        $self.pass(method, Moment::Before).await;
        let answer = $self.inner.$method($($argument),*).await;
        $self.pass(method, Moment::After).await;
        answer
    }};
}

#[async_trait]
impl Store for WatchedStore {
    async fn time(&self) -> StoreResult<Timestamp> {
        watch!(self.time())
    }

    fn circuit(&self) -> CircuitUse {
        self.inner.circuit()
    }

    fn pools(&self) -> Vec<PoolUse> {
        self.inner.pools()
    }

    async fn count_live_sessions(&self, now: Timestamp) -> StoreResult<u64> {
        watch!(self.count_live_sessions(now))
    }

    async fn waiting_letters(&self) -> StoreResult<(u64, Option<Timestamp>)> {
        watch!(self.waiting_letters())
    }

    async fn forget_sessions(&self, user: UserId, before: Timestamp) -> StoreResult<u64> {
        watch!(self.forget_sessions(user, before))
    }

    async fn close(&self) {
        watch!(self.close());
    }

    async fn create_user(
        &self,
        user: &NewUser,
        link: Option<&NewOneTimeSecret>,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<CreateUser> {
        watch!(self.create_user(user, link, letter, by))
    }

    async fn user(&self, id: UserId) -> StoreResult<Option<User>> {
        watch!(self.user(id))
    }

    async fn user_by_login(&self, name: &LoginName) -> StoreResult<Option<UserCredentials>> {
        watch!(self.user_by_login(name))
    }

    async fn user_credentials(&self, id: UserId) -> StoreResult<Option<UserCredentials>> {
        watch!(self.user_credentials(id))
    }

    async fn list_users(&self, filter: &UserFilter) -> StoreResult<Vec<User>> {
        watch!(self.list_users(filter))
    }

    async fn update_user(
        &self,
        id: UserId,
        patch: &UserPatch,
        notice: Option<&NewLetter>,
        limit: SessionLimit,
        idle: IdleRule,
        by: &Occasion,
    ) -> StoreResult<UpdateUser> {
        watch!(self.update_user(id, patch, notice, limit, idle, by))
    }

    async fn set_roles(
        &self,
        id: UserId,
        roles: &Roles,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<ChangeStanding> {
        watch!(self.set_roles(id, roles, fixed, by))
    }

    async fn deactivate_user(
        &self,
        id: UserId,
        credential_version: Option<i64>,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<ChangeStanding> {
        watch!(self.deactivate_user(id, credential_version, fixed, by))
    }

    async fn activate_user(&self, id: UserId, by: &Occasion) -> StoreResult<ChangeStanding> {
        watch!(self.activate_user(id, by))
    }

    async fn list_roles(&self) -> StoreResult<Vec<StoredRole>> {
        watch!(self.list_roles())
    }

    async fn roles_named(&self, names: &[String]) -> StoreResult<Vec<RoleDefinition>> {
        watch!(self.roles_named(names))
    }

    async fn put_role(
        &self,
        role: &RoleDefinition,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<PutRole> {
        watch!(self.put_role(role, fixed, by))
    }

    async fn delete_role(
        &self,
        name: &str,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<DeleteRole> {
        watch!(self.delete_role(name, fixed, by))
    }

    async fn set_password(
        &self,
        id: UserId,
        hash: &PasswordHash,
        credential_version: i64,
        keep: Option<SessionId>,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<SetPassword> {
        watch!(self.set_password(id, hash, credential_version, keep, letter, by))
    }

    async fn owner_of_proof(&self, proof: &Proof, now: Timestamp) -> StoreResult<Option<User>> {
        watch!(self.owner_of_proof(proof, now))
    }

    async fn redeem_set_password(
        &self,
        proof: &Proof,
        hash: &PasswordHash,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<Redeem> {
        watch!(self.redeem_set_password(proof, hash, letter, by))
    }

    async fn verify_email(&self, proof: &Proof, by: &Occasion) -> StoreResult<Option<User>> {
        watch!(self.verify_email(proof, by))
    }

    async fn change_email(
        &self,
        proof: &Proof,
        notice: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<ChangeEmail> {
        watch!(self.change_email(proof, notice, by))
    }

    async fn disown(
        &self,
        link: &SecretHash,
        reset: Option<&NewLetter>,
        notice: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<Option<UserId>> {
        watch!(self.disown(link, reset, notice, by))
    }

    async fn add_registration(
        &self,
        registration: &NewRegistration,
        letter: &NewLetter,
        by: &Occasion,
    ) -> StoreResult<()> {
        watch!(self.add_registration(registration, letter, by))
    }

    async fn waiting_registration(
        &self,
        proof: &Proof,
        now: Timestamp,
    ) -> StoreResult<Option<WaitingRegistration>> {
        watch!(self.waiting_registration(proof, now))
    }

    async fn confirm_registration(
        &self,
        proof: &Proof,
        expected: Option<RegistrationId>,
        user: UserId,
        by: &Occasion,
    ) -> StoreResult<ConfirmRegistration> {
        watch!(self.confirm_registration(proof, expected, user, by))
    }

    async fn recent_devices(&self, user: UserId) -> StoreResult<Vec<Device>> {
        watch!(self.recent_devices(user))
    }

    async fn add_letter(
        &self,
        letter: &NewLetter,
        quiet_since: Timestamp,
        by: &Occasion,
    ) -> StoreResult<bool> {
        watch!(self.add_letter(letter, quiet_since, by))
    }

    async fn claim_letters(
        &self,
        most: u32,
        lease: Span,
        now: Timestamp,
    ) -> StoreResult<Vec<Letter>> {
        watch!(self.claim_letters(most, lease, now))
    }

    async fn prepare_letter(
        &self,
        letter: &PrepareLetter,
        now: Timestamp,
    ) -> StoreResult<Prepared> {
        watch!(self.prepare_letter(letter, now))
    }

    async fn settle_letter(
        &self,
        id: LetterId,
        fence: i64,
        settlement: &Settlement,
        now: Timestamp,
    ) -> StoreResult<bool> {
        watch!(self.settle_letter(id, fence, settlement, now))
    }

    async fn list_letters(&self, filter: &LetterFilter) -> StoreResult<Vec<Letter>> {
        watch!(self.list_letters(filter))
    }

    async fn letter(&self, id: LetterId) -> StoreResult<Option<Letter>> {
        watch!(self.letter(id))
    }

    async fn retry_letter(&self, id: LetterId, by: &Occasion) -> StoreResult<ChangeLetter> {
        watch!(self.retry_letter(id, by))
    }

    async fn drop_letter(&self, id: LetterId, by: &Occasion) -> StoreResult<ChangeLetter> {
        watch!(self.drop_letter(id, by))
    }

    async fn close_reused_session(
        &self,
        user: UserId,
        session: SessionId,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<CloseSession> {
        watch!(self.close_reused_session(user, session, letter, by))
    }

    async fn open_session(
        &self,
        request: &OpenSessionRequest,
        by: &Occasion,
    ) -> StoreResult<OpenSession> {
        watch!(self.open_session(request, by))
    }

    fn live_session_at_once(&self, user: UserId, session: SessionId) -> Option<FoundSession> {
        let method = "live_sessions";
        if self.awaits(method) {
            return None;
        }
        let found = self.inner.live_session_at_once(user, session)?;
        self.count(method);
        Some(found)
    }

    async fn live_sessions(
        &self,
        wanted: &[(UserId, SessionId)],
    ) -> StoreResult<Vec<StoreResult<Option<SessionView>>>> {
        watch!(self.live_sessions(wanted))
    }

    async fn open_sessions_of(&self, user: UserId) -> StoreResult<Vec<Session>> {
        watch!(self.open_sessions_of(user))
    }

    async fn close_session(
        &self,
        user: UserId,
        session: SessionId,
        reason: CloseReason,
        unseen_since: Option<Timestamp>,
        by: &Occasion,
    ) -> StoreResult<CloseSession> {
        watch!(self.close_session(user, session, reason, unseen_since, by))
    }

    async fn owner_of_session(&self, session: SessionId) -> StoreResult<Option<UserId>> {
        watch!(self.owner_of_session(session))
    }

    async fn close_session_by_id(
        &self,
        session: SessionId,
        reason: CloseReason,
        by: &Occasion,
    ) -> StoreResult<CloseSession> {
        watch!(self.close_session_by_id(session, reason, by))
    }

    async fn close_sessions(
        &self,
        user: UserId,
        keep: Option<SessionId>,
        reason: CloseReason,
        by: &Occasion,
    ) -> StoreResult<Option<u64>> {
        watch!(self.close_sessions(user, keep, reason, by))
    }

    async fn renew_authentication(
        &self,
        user: UserId,
        session: SessionId,
        known: Timestamp,
        by: &Occasion,
    ) -> StoreResult<Option<Timestamp>> {
        watch!(self.renew_authentication(user, session, known, by))
    }

    async fn rotate_refresh(
        &self,
        request: &RotateRefresh,
        now: Timestamp,
    ) -> StoreResult<Option<Timestamp>> {
        watch!(self.rotate_refresh(request, now))
    }

    async fn refresh_state(
        &self,
        user: UserId,
        session: SessionId,
    ) -> StoreResult<Option<RefreshState>> {
        watch!(self.refresh_state(user, session))
    }

    async fn note_generation(
        &self,
        user: UserId,
        session: SessionId,
        generation: i64,
    ) -> StoreResult<()> {
        watch!(self.note_generation(user, session, generation))
    }

    async fn note_seen(&self, seen: &[Seen]) -> StoreResult<()> {
        watch!(self.note_seen(seen))
    }

    fn arrange_seen(&self, seen: &mut [Seen]) -> usize {
        self.inner.arrange_seen(seen)
    }

    async fn sweep(
        &self,
        what: Leftover,
        before: Timestamp,
        most: u32,
        by: &Occasion,
    ) -> StoreResult<u32> {
        watch!(self.sweep(what, before, most, by))
    }

    async fn take_lease(
        &self,
        name: &str,
        holder: Uuid,
        until: Timestamp,
        now: Timestamp,
    ) -> StoreResult<bool> {
        watch!(self.take_lease(name, holder, until, now))
    }

    async fn take(&self, draw: &Draw, now: Timestamp) -> StoreResult<Take> {
        if self.fails("take") {
            return Err(StoreError::Unavailable("told to fail".into()));
        }
        watch!(self.take(draw, now))
    }

    async fn clear_counters(&self, keys: &[SecretHash]) -> StoreResult<()> {
        watch!(self.clear_counters(keys))
    }

    async fn clear_account(
        &self,
        account: &SecretHash,
        whose: UserId,
        by: &Occasion,
    ) -> StoreResult<()> {
        watch!(self.clear_account(account, whose, by))
    }

    async fn add_device(&self, device: &NewDevice, most: u32) -> StoreResult<()> {
        watch!(self.add_device(device, most))
    }

    async fn device_owner(
        &self,
        device: &SecretHash,
        now: Timestamp,
    ) -> StoreResult<Option<UserId>> {
        watch!(self.device_owner(device, now))
    }

    async fn touch_device(
        &self,
        device: &SecretHash,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> StoreResult<()> {
        watch!(self.touch_device(device, expires_at, now))
    }

    async fn forget_devices(&self, user: UserId) -> StoreResult<()> {
        watch!(self.forget_devices(user))
    }

    async fn erase_user(
        &self,
        id: UserId,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<EraseUser> {
        watch!(self.erase_user(id, fixed, by))
    }

    async fn record(&self, events: &[Event], by: &Occasion) -> StoreResult<()> {
        if self.fails("record") {
            return Err(StoreError::Unavailable("told to fail".into()));
        }
        watch!(self.record(events, by))
    }

    async fn list_audit(&self, filter: &AuditFilter) -> StoreResult<Vec<AuditRecord>> {
        watch!(self.list_audit(filter))
    }

    async fn unsealed_audit(&self, most: u32) -> StoreResult<Vec<AuditRecord>> {
        watch!(self.unsealed_audit(most))
    }

    async fn count_unsealed_audit(&self) -> StoreResult<u64> {
        watch!(self.count_unsealed_audit())
    }

    async fn seal_audit(
        &self,
        sealed: &[(AuditId, Sealed)],
        known: Option<&Mark>,
        head: &Mark,
    ) -> StoreResult<bool> {
        watch!(self.seal_audit(sealed, known, head))
    }

    async fn sealed_audit(&self, after: i64, most: u32) -> StoreResult<Vec<AuditRecord>> {
        watch!(self.sealed_audit(after, most))
    }

    async fn audit_mark(&self, name: MarkName) -> StoreResult<Option<Mark>> {
        watch!(self.audit_mark(name))
    }

    async fn cut_audit(&self, checkpoint: &Mark, most: u32) -> StoreResult<u32> {
        watch!(self.cut_audit(checkpoint, most))
    }

    async fn audit_keys(&self, persons: &[UserId]) -> StoreResult<Vec<(UserId, WrappedKey)>> {
        watch!(self.audit_keys(persons))
    }
}

//! The storage contract on a SQL database: takes a connection, runs the decision, gives it back.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use diesel_async::pooled_connection::bb8::Pool;
use uuid::Uuid;

use super::{
    Conn, Hot, SEEN_AT_ONCE,
    addresses::{self, Told},
    audit, database_time, erasing,
    faults::to_the_end,
    limits,
    line::Line,
    note_seen, outbox, passwords, preparing, refreshing, registrations, roles, sessions, standing,
    sweeping, users,
};
use crate::{
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
        mail::{Letter, LetterState, NewLetter, Settlement},
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
        SetPassword, Store, StoreResult, Take, UpdateUser, UserFilter, circuit::Circuit,
    },
};

/// A SQL database behind Doorward; clones share its connections.
#[derive(Clone)]
pub struct SqlStore {
    pub(super) writers: Line,
    pub(super) readers: Line,
    /// For counters, so that a storm of them keeps nothing else waiting.
    pub(super) counting: Line,
    /// As [`Self::counting`], for what only reads.
    pub(super) reading_counters: Line,
    pub(super) hot: Hot,
    pub(super) circuit: Circuit,
    /// The pools by name, with the most connections that each can have.
    pub(super) pools: Arc<[(&'static str, Pool<Conn>, u32)]>,
    /// Set when it is let go, for whoever still opens a connection then.
    pub(super) closed: Arc<AtomicBool>,
}

/// Makes one decision on a connection of one pool, in the time that the backend allows.
macro_rules! on {
    ($store:expr, $pool:ident, |$conn:ident| $decision:expr) => {{
        let mut pooled = $store.$pool.get().await?;
        let $conn: &mut Conn = &mut pooled;
        let decision = $decision;
        in_time!($store, &mut pooled, decision)
    }};
}

#[async_trait]
impl Store for SqlStore {
    async fn time(&self) -> StoreResult<Timestamp> {
        on!(self, readers, |conn| database_time(conn))
    }

    fn circuit(&self) -> CircuitUse {
        self.circuit.used()
    }

    async fn close(&self) {
        // Pools end with their last clone; there is nothing to hand back.
        self.closed.store(true, Ordering::Relaxed);
    }

    fn pools(&self) -> Vec<PoolUse> {
        let used = self.pools.iter().map(|(name, pool, most)| {
            let state = pool.state();
            let past = &state.statistics;
            PoolUse {
                name,
                in_use: state.connections.saturating_sub(state.idle_connections),
                idle: state.idle_connections,
                most: *most,
                waits: past.get_waited + past.get_timed_out,
                timeouts: past.get_timed_out,
                waited: past.get_wait_time,
            }
        });
        used.collect()
    }

    async fn count_live_sessions(&self, now: Timestamp) -> StoreResult<u64> {
        on!(self, readers, |conn| sessions::count_live(conn, now))
    }

    async fn waiting_letters(&self) -> StoreResult<(u64, Option<Timestamp>)> {
        on!(self, readers, |conn| outbox::waiting(conn))
    }

    async fn forget_sessions(&self, user: UserId, before: Timestamp) -> StoreResult<u64> {
        on!(self, writers, |conn| sessions::forget(conn, user, before))
    }

    async fn create_user(
        &self,
        user: &NewUser,
        link: Option<&NewOneTimeSecret>,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<CreateUser> {
        let by = by.clone();
        let (store, user) = (self.clone(), user.clone());
        let (link, letter) = (link.cloned(), letter.cloned());
        to_the_end(async move {
            on!(store, writers, |conn| users::create(
                conn,
                &user,
                link.as_ref(),
                letter.as_ref(),
                &by
            ))
        })
        .await
    }

    async fn user(&self, id: UserId) -> StoreResult<Option<User>> {
        on!(self, readers, |conn| users::find(conn, id))
    }

    async fn user_by_login(&self, name: &LoginName) -> StoreResult<Option<UserCredentials>> {
        on!(self, readers, |conn| users::by_login(conn, name))
    }

    async fn user_credentials(&self, id: UserId) -> StoreResult<Option<UserCredentials>> {
        on!(self, readers, |conn| users::credentials(conn, id))
    }

    async fn list_users(&self, filter: &UserFilter) -> StoreResult<Vec<User>> {
        on!(self, readers, |conn| users::list(conn, filter))
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
        let by = by.clone();
        let (store, patch, notice) = (self.clone(), patch.clone(), notice.cloned());
        to_the_end(async move {
            on!(store, writers, |conn| users::update(
                conn,
                id,
                &patch,
                notice.as_ref(),
                limit,
                idle,
                &by
            ))
        })
        .await
    }

    async fn set_roles(
        &self,
        id: UserId,
        roles: &Roles,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<ChangeStanding> {
        let by = by.clone();
        let (store, roles, fixed) = (self.clone(), roles.clone(), fixed.clone());
        to_the_end(async move {
            on!(store, writers, |conn| standing::set_roles(
                conn, id, &roles, &fixed, &by
            ))
        })
        .await
    }

    async fn deactivate_user(
        &self,
        id: UserId,
        credential_version: Option<i64>,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<ChangeStanding> {
        let by = by.clone();
        let (store, fixed) = (self.clone(), fixed.clone());
        to_the_end(async move {
            on!(store, writers, |conn| standing::deactivate(
                conn,
                id,
                credential_version,
                &fixed,
                &by
            ))
        })
        .await
    }

    async fn activate_user(&self, id: UserId, by: &Occasion) -> StoreResult<ChangeStanding> {
        let by = by.clone();
        let store = self.clone();
        to_the_end(async move { on!(store, writers, |conn| standing::activate(conn, id, &by)) })
            .await
    }

    async fn list_roles(&self) -> StoreResult<Vec<StoredRole>> {
        on!(self, readers, |conn| roles::list(conn))
    }

    async fn roles_named(&self, names: &[String]) -> StoreResult<Vec<RoleDefinition>> {
        on!(self, readers, |conn| roles::named(conn, names))
    }

    async fn put_role(
        &self,
        role: &RoleDefinition,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<PutRole> {
        let by = by.clone();
        let (store, role, fixed) = (self.clone(), role.clone(), fixed.clone());
        to_the_end(async move { on!(store, writers, |conn| roles::put(conn, &role, &fixed, &by)) })
            .await
    }

    async fn delete_role(
        &self,
        name: &str,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<DeleteRole> {
        let by = by.clone();
        let (store, name, fixed) = (self.clone(), name.to_owned(), fixed.clone());
        to_the_end(async move {
            on!(store, writers, |conn| roles::delete(
                conn, &name, &fixed, &by
            ))
        })
        .await
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
        let by = by.clone();
        let (store, hash, letter) = (self.clone(), hash.clone(), letter.cloned());
        to_the_end(async move {
            on!(store, writers, |conn| passwords::set(
                conn,
                id,
                &hash,
                credential_version,
                keep,
                letter.as_ref(),
                &by
            ))
        })
        .await
    }

    async fn owner_of_proof(&self, proof: &Proof, now: Timestamp) -> StoreResult<Option<User>> {
        let (store, proof) = (self.clone(), proof.clone());
        to_the_end(async move { on!(store, writers, |conn| passwords::owner(conn, &proof, now)) })
            .await
    }

    async fn redeem_set_password(
        &self,
        proof: &Proof,
        hash: &PasswordHash,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<Redeem> {
        let by = by.clone();
        let (store, proof) = (self.clone(), proof.clone());
        let (hash, letter) = (hash.clone(), letter.cloned());
        to_the_end(async move {
            on!(store, writers, |conn| passwords::redeem(
                conn,
                &proof,
                &hash,
                letter.as_ref(),
                &by
            ))
        })
        .await
    }

    async fn verify_email(&self, proof: &Proof, by: &Occasion) -> StoreResult<Option<User>> {
        let by = by.clone();
        let (store, proof) = (self.clone(), proof.clone());
        to_the_end(async move { on!(store, writers, |conn| addresses::verify(conn, &proof, &by)) })
            .await
    }

    async fn change_email(
        &self,
        proof: &Proof,
        notice: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<ChangeEmail> {
        let by = by.clone();
        let (store, proof, notice) = (self.clone(), proof.clone(), notice.cloned());
        to_the_end(async move {
            on!(store, writers, |conn| addresses::change(
                conn,
                &proof,
                notice.as_ref(),
                &by
            ))
        })
        .await
    }

    async fn disown(
        &self,
        link: &SecretHash,
        reset: Option<&NewLetter>,
        notice: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<Option<UserId>> {
        let by = by.clone();
        let (store, link) = (self.clone(), *link);
        let (reset, notice) = (reset.cloned(), notice.cloned());
        to_the_end(async move {
            let told = Told {
                reset: reset.as_ref(),
                notice: notice.as_ref(),
            };
            on!(store, writers, |conn| addresses::disown(
                conn, &link, &told, &by
            ))
        })
        .await
    }

    async fn add_registration(
        &self,
        registration: &NewRegistration,
        letter: &NewLetter,
        by: &Occasion,
    ) -> StoreResult<()> {
        let by = by.clone();
        let (store, new, letter) = (self.clone(), registration.clone(), letter.clone());
        to_the_end(async move {
            on!(store, writers, |conn| registrations::add(
                conn, &new, &letter, &by
            ))
        })
        .await
    }

    async fn waiting_registration(
        &self,
        proof: &Proof,
        now: Timestamp,
    ) -> StoreResult<Option<WaitingRegistration>> {
        on!(self, readers, |conn| registrations::waiting(
            conn, proof, now
        ))
    }

    async fn confirm_registration(
        &self,
        proof: &Proof,
        expected: Option<RegistrationId>,
        user: UserId,
        by: &Occasion,
    ) -> StoreResult<ConfirmRegistration> {
        let by = by.clone();
        let (store, proof) = (self.clone(), proof.clone());
        to_the_end(async move {
            on!(store, writers, |conn| registrations::confirm(
                conn, &proof, expected, user, &by
            ))
        })
        .await
    }

    async fn recent_devices(&self, user: UserId) -> StoreResult<Vec<Device>> {
        on!(self, readers, |conn| sessions::recent_devices(conn, user))
    }

    async fn add_letter(
        &self,
        letter: &NewLetter,
        quiet_since: Timestamp,
        by: &Occasion,
    ) -> StoreResult<bool> {
        let by = by.clone();
        let (store, letter) = (self.clone(), letter.clone());
        to_the_end(async move {
            on!(store, writers, |conn| outbox::add(
                conn,
                &letter,
                quiet_since,
                &by
            ))
        })
        .await
    }

    async fn claim_letters(
        &self,
        most: u32,
        lease: Span,
        now: Timestamp,
    ) -> StoreResult<Vec<Letter>> {
        if !on!(self, readers, |conn| outbox::is_any_due(conn, now))? {
            return Ok(Vec::new());
        }
        let store = self.clone();
        to_the_end(async move { on!(store, writers, |conn| outbox::claim(conn, most, lease, now)) })
            .await
    }

    async fn prepare_letter(
        &self,
        letter: &PrepareLetter,
        now: Timestamp,
    ) -> StoreResult<Prepared> {
        let (store, letter) = (self.clone(), *letter);
        to_the_end(async move {
            on!(store, writers, |conn| preparing::prepare(
                conn, &letter, now
            ))
        })
        .await
    }

    async fn settle_letter(
        &self,
        id: LetterId,
        fence: i64,
        settlement: &Settlement,
        now: Timestamp,
    ) -> StoreResult<bool> {
        let (store, settlement) = (self.clone(), settlement.clone());
        to_the_end(async move {
            on!(store, writers, |conn| outbox::settle(
                conn,
                id,
                fence,
                &settlement,
                now
            ))
        })
        .await
    }

    async fn list_letters(&self, filter: &LetterFilter) -> StoreResult<Vec<Letter>> {
        on!(self, readers, |conn| outbox::list(conn, filter))
    }

    async fn letter(&self, id: LetterId) -> StoreResult<Option<Letter>> {
        on!(self, readers, |conn| outbox::find(conn, id))
    }

    async fn retry_letter(&self, id: LetterId, by: &Occasion) -> StoreResult<ChangeLetter> {
        let by = by.clone();
        let (store, to) = (self.clone(), LetterState::Waiting);
        to_the_end(async move { on!(store, writers, |conn| outbox::change(conn, id, to, &by)) })
            .await
    }

    async fn drop_letter(&self, id: LetterId, by: &Occasion) -> StoreResult<ChangeLetter> {
        let by = by.clone();
        let (store, to) = (self.clone(), LetterState::Dropped);
        to_the_end(async move { on!(store, writers, |conn| outbox::change(conn, id, to, &by)) })
            .await
    }

    async fn open_session(
        &self,
        request: &OpenSessionRequest,
        by: &Occasion,
    ) -> StoreResult<OpenSession> {
        let by = by.clone();
        let (store, request) = (self.clone(), request.clone());
        to_the_end(async move { on!(store, writers, |conn| sessions::open(conn, &request, &by)) })
            .await
    }

    fn live_session_at_once(&self, user: UserId, session: SessionId) -> Option<FoundSession> {
        self.hot.live_session_at_once(user, session)
    }

    async fn live_sessions(
        &self,
        wanted: &[(UserId, SessionId)],
    ) -> StoreResult<Vec<StoreResult<Option<SessionView>>>> {
        self.hot.live_sessions(wanted).await
    }

    async fn open_sessions_of(&self, user: UserId) -> StoreResult<Vec<Session>> {
        on!(self, readers, |conn| sessions::list_open(conn, user))
    }

    async fn close_session(
        &self,
        user: UserId,
        session: SessionId,
        reason: CloseReason,
        unseen_since: Option<Timestamp>,
        by: &Occasion,
    ) -> StoreResult<CloseSession> {
        let by = by.clone();
        let store = self.clone();
        to_the_end(async move {
            on!(store, writers, |conn| sessions::close_one(
                conn,
                Some(user),
                session,
                reason,
                unseen_since,
                &by
            ))
        })
        .await
    }

    async fn close_reused_session(
        &self,
        user: UserId,
        session: SessionId,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<CloseSession> {
        let by = by.clone();
        let (store, letter) = (self.clone(), letter.cloned());
        to_the_end(async move {
            on!(store, writers, |conn| sessions::close_reused(
                conn,
                user,
                session,
                letter.as_ref(),
                &by
            ))
        })
        .await
    }

    async fn owner_of_session(&self, session: SessionId) -> StoreResult<Option<UserId>> {
        on!(self, readers, |conn| sessions::owner(conn, session))
    }

    async fn close_session_by_id(
        &self,
        session: SessionId,
        reason: CloseReason,
        by: &Occasion,
    ) -> StoreResult<CloseSession> {
        let by = by.clone();
        let store = self.clone();
        to_the_end(async move {
            on!(store, writers, |conn| sessions::close_one(
                conn, None, session, reason, None, &by
            ))
        })
        .await
    }

    async fn close_sessions(
        &self,
        user: UserId,
        keep: Option<SessionId>,
        reason: CloseReason,
        by: &Occasion,
    ) -> StoreResult<Option<u64>> {
        let by = by.clone();
        let store = self.clone();
        to_the_end(async move {
            on!(store, writers, |conn| sessions::close_of_user(
                conn, user, keep, reason, &by
            ))
        })
        .await
    }

    async fn renew_authentication(
        &self,
        user: UserId,
        session: SessionId,
        known: Timestamp,
        by: &Occasion,
    ) -> StoreResult<Option<Timestamp>> {
        let by = by.clone();
        let store = self.clone();
        to_the_end(async move {
            on!(store, writers, |conn| sessions::renew_authentication(
                conn, user, session, known, &by
            ))
        })
        .await
    }

    async fn rotate_refresh(
        &self,
        request: &RotateRefresh,
        now: Timestamp,
    ) -> StoreResult<Option<Timestamp>> {
        let (store, request) = (self.clone(), *request);
        to_the_end(async move {
            on!(store, writers, |conn| refreshing::rotate(
                conn, &request, now
            ))
        })
        .await
    }

    async fn refresh_state(
        &self,
        user: UserId,
        session: SessionId,
    ) -> StoreResult<Option<RefreshState>> {
        on!(self, readers, |conn| refreshing::state(conn, user, session))
    }

    async fn note_generation(
        &self,
        user: UserId,
        session: SessionId,
        generation: i64,
    ) -> StoreResult<()> {
        let store = self.clone();
        to_the_end(async move {
            on!(store, writers, |conn| refreshing::note_generation(
                conn, user, session, generation
            ))
        })
        .await
    }

    async fn note_seen(&self, seen: &[Seen]) -> StoreResult<()> {
        let (store, seen) = (self.clone(), seen.to_vec());
        to_the_end(async move { on!(store, writers, |conn| note_seen(conn, &seen)) }).await
    }

    fn arrange_seen(&self, seen: &mut [Seen]) -> usize {
        seen.sort_unstable_by_key(|one| one.session_id);
        SEEN_AT_ONCE
    }

    async fn sweep(
        &self,
        what: Leftover,
        before: Timestamp,
        most: u32,
        by: &Occasion,
    ) -> StoreResult<u32> {
        on!(self, writers, |conn| sweeping::sweep(
            conn, what, before, most, by
        ))
    }

    async fn take_lease(
        &self,
        name: &str,
        holder: Uuid,
        until: Timestamp,
        now: Timestamp,
    ) -> StoreResult<bool> {
        on!(self, writers, |conn| sweeping::take_lease(
            conn, name, holder, until, now
        ))
    }

    async fn take(&self, draw: &Draw, now: Timestamp) -> StoreResult<Take> {
        let (store, draw) = (self.clone(), *draw);
        let seen = on!(self, reading_counters, |conn| limits::read(conn, &draw.key))?;
        if let Err(refusal) = draw.judge(seen.as_ref(), now) {
            return Ok(Take::Refused(refusal));
        }
        to_the_end(async move { on!(store, counting, |conn| limits::take(conn, &draw, seen, now)) })
            .await
    }

    async fn clear_counters(&self, keys: &[SecretHash]) -> StoreResult<()> {
        let (store, keys) = (self.clone(), keys.to_vec());
        to_the_end(async move { on!(store, counting, |conn| limits::clear(conn, &keys)) }).await
    }

    async fn clear_account(
        &self,
        account: &SecretHash,
        whose: UserId,
        by: &Occasion,
    ) -> StoreResult<()> {
        let by = by.clone();
        let (store, account) = (self.clone(), *account);
        to_the_end(async move {
            on!(store, counting, |conn| limits::clear_account(
                conn, &account, whose, &by
            ))
        })
        .await
    }

    async fn add_device(&self, device: &NewDevice, most: u32) -> StoreResult<()> {
        let (store, device) = (self.clone(), *device);
        to_the_end(async move {
            on!(store, writers, |conn| limits::add_device(
                conn, &device, most
            ))
        })
        .await
    }

    async fn device_owner(
        &self,
        device: &SecretHash,
        now: Timestamp,
    ) -> StoreResult<Option<UserId>> {
        on!(self, reading_counters, |conn| limits::device_owner(
            conn, device, now
        ))
    }

    async fn touch_device(
        &self,
        device: &SecretHash,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> StoreResult<()> {
        let (store, device) = (self.clone(), *device);
        to_the_end(async move {
            on!(store, counting, |conn| limits::touch_device(
                conn, &device, expires_at, now
            ))
        })
        .await
    }

    async fn forget_devices(&self, user: UserId) -> StoreResult<()> {
        let store = self.clone();
        to_the_end(async move { on!(store, counting, |conn| limits::forget_devices(conn, user)) })
            .await
    }

    async fn erase_user(
        &self,
        id: UserId,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<EraseUser> {
        let (store, fixed, by) = (self.clone(), fixed.clone(), by.clone());
        to_the_end(async move { on!(store, writers, |conn| erasing::erase(conn, id, &fixed, &by)) })
            .await
    }

    async fn record(&self, events: &[Event], by: &Occasion) -> StoreResult<()> {
        if by.recorder.is_none() {
            return Ok(());
        }
        let (store, events, by) = (self.clone(), events.to_vec(), by.clone());
        to_the_end(async move { on!(store, writers, |conn| audit::record(conn, &events, &by)) })
            .await
    }

    async fn list_audit(&self, filter: &AuditFilter) -> StoreResult<Vec<AuditRecord>> {
        on!(self, readers, |conn| audit::list(conn, filter))
    }

    async fn unsealed_audit(&self, most: u32) -> StoreResult<Vec<AuditRecord>> {
        on!(self, readers, |conn| audit::unsealed(conn, most))
    }

    async fn count_unsealed_audit(&self) -> StoreResult<u64> {
        on!(self, readers, |conn| audit::count_unsealed(conn))
    }

    async fn seal_audit(
        &self,
        sealed: &[(AuditId, Sealed)],
        known: Option<&Mark>,
        head: &Mark,
    ) -> StoreResult<bool> {
        let (store, sealed) = (self.clone(), sealed.to_vec());
        let (known, head) = (known.cloned(), head.clone());
        to_the_end(async move {
            on!(store, writers, |conn| audit::seal(
                conn,
                &sealed,
                known.as_ref(),
                &head
            ))
        })
        .await
    }

    async fn sealed_audit(&self, after: i64, most: u32) -> StoreResult<Vec<AuditRecord>> {
        on!(self, readers, |conn| audit::sealed(conn, after, most))
    }

    async fn audit_mark(&self, name: MarkName) -> StoreResult<Option<Mark>> {
        on!(self, readers, |conn| audit::mark(conn, name))
    }

    async fn cut_audit(&self, checkpoint: &Mark, most: u32) -> StoreResult<u32> {
        let (store, checkpoint) = (self.clone(), checkpoint.clone());
        to_the_end(async move { on!(store, writers, |conn| audit::cut(conn, &checkpoint, most)) })
            .await
    }

    async fn audit_keys(&self, persons: &[UserId]) -> StoreResult<Vec<(UserId, WrappedKey)>> {
        on!(self, readers, |conn| audit::keys(conn, persons))
    }
}

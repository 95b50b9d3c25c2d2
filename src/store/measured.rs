//! A store that counts what goes through it, calls that fail, by class, and acts that end sessions, and gives each
//! call a span.
//!
//! Decides what counts as such an act; what it does is for the store behind it. An act is counted once,
//! however many sessions it ends, and only when the database has said that it is done.

use std::sync::Arc;

use async_trait::async_trait;
use tracing::Instrument;
use uuid::Uuid;

use super::{
    ChangeEmail, ChangeLetter, ChangeStanding, CloseSession, ConfirmRegistration, CreateUser,
    DeleteRole, EraseUser, FoundSession, Leftover, LetterFilter, LoginName, OpenSession,
    OpenSessionRequest, PrepareLetter, Prepared, PutRole, Redeem, RotateRefresh, Seen, SetPassword,
    Store, StoreError, StoreResult, Take, UpdateUser, UserFilter,
};
use crate::{
    clock::{Span, Timestamp},
    ids::{AuditId, LetterId, RegistrationId, SessionId, UserId},
    metrics::{CircuitUse, Metrics, PoolUse},
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
    spans,
};

/// A store whose failures and revocations are counted.
pub struct MeasuredStore {
    inner: Arc<dyn Store>,
    metrics: Arc<Metrics>,
}

impl MeasuredStore {
    /// Counts what goes through `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    fn counted<T>(&self, answer: StoreResult<T>) -> StoreResult<T> {
        answer.inspect_err(|error| self.failed(error))
    }

    fn failed(&self, error: &StoreError) {
        self.metrics.store_errors.bump(error.class());
    }

    /// As [`Self::counted`]; `ends` says whether the answer is one of an act that ends sessions.
    fn ending<T>(
        &self,
        answer: StoreResult<T>,
        reason: &'static str,
        ends: impl FnOnce(&T) -> bool,
    ) -> StoreResult<T> {
        if answer.as_ref().is_ok_and(ends) {
            self.metrics.revocations.bump(reason);
        }
        self.counted(answer)
    }
}

/// Gives a call its span, if anybody follows it.
async fn followed<T>(
    operation: &'static str,
    call: impl Future<Output = StoreResult<T>> + Send,
) -> StoreResult<T> {
    let span = spans::database(operation);
    let answer = call.instrument(span.clone()).await;
    answer.inspect_err(|error| spans::failed(&span, error.class()))
}

/// Passes these calls on and counts their failures; what stands in the braces is counted by itself.
macro_rules! measured {
    ($($name:ident($($arg:ident: $kind:ty),* $(,)?) -> $answer:ty;)* { $($own:tt)* }) => {
        #[async_trait]
        impl Store for MeasuredStore {
            $(async fn $name(&self, $($arg: $kind),*) -> StoreResult<$answer> {
                self.counted(followed(stringify!($name), self.inner.$name($($arg),*)).await)
            })*

            $($own)*
        }
    };
}

measured! {
    time() -> Timestamp;
    create_user(
        user: &NewUser, link: Option<&NewOneTimeSecret>, letter: Option<&NewLetter>, by: &Occasion
    ) -> CreateUser;
    user(id: UserId) -> Option<User>;
    user_by_login(name: &LoginName) -> Option<UserCredentials>;
    user_credentials(id: UserId) -> Option<UserCredentials>;
    list_users(filter: &UserFilter) -> Vec<User>;
    set_roles(id: UserId, roles: &Roles, fixed: &FixedRoles, by: &Occasion) -> ChangeStanding;
    activate_user(id: UserId, by: &Occasion) -> ChangeStanding;
    list_roles() -> Vec<StoredRole>;
    roles_named(names: &[String]) -> Vec<RoleDefinition>;
    put_role(role: &RoleDefinition, fixed: &FixedRoles, by: &Occasion) -> PutRole;
    delete_role(name: &str, fixed: &FixedRoles, by: &Occasion) -> DeleteRole;
    owner_of_proof(proof: &Proof, now: Timestamp) -> Option<User>;
    verify_email(proof: &Proof, by: &Occasion) -> Option<User>;
    change_email(proof: &Proof, notice: Option<&NewLetter>, by: &Occasion) -> ChangeEmail;
    add_registration(registration: &NewRegistration, letter: &NewLetter, by: &Occasion) -> ();
    waiting_registration(proof: &Proof, now: Timestamp) -> Option<WaitingRegistration>;
    confirm_registration(
        proof: &Proof, expected: Option<RegistrationId>, user: UserId, by: &Occasion
    ) -> ConfirmRegistration;
    recent_devices(user: UserId) -> Vec<Device>;
    add_letter(letter: &NewLetter, quiet_since: Timestamp, by: &Occasion) -> bool;
    claim_letters(most: u32, lease: Span, now: Timestamp) -> Vec<Letter>;
    prepare_letter(letter: &PrepareLetter, now: Timestamp) -> Prepared;
    settle_letter(id: LetterId, fence: i64, settlement: &Settlement, now: Timestamp) -> bool;
    list_letters(filter: &LetterFilter) -> Vec<Letter>;
    letter(id: LetterId) -> Option<Letter>;
    retry_letter(id: LetterId, by: &Occasion) -> ChangeLetter;
    drop_letter(id: LetterId, by: &Occasion) -> ChangeLetter;
    open_sessions_of(user: UserId) -> Vec<Session>;
    owner_of_session(session: SessionId) -> Option<UserId>;
    renew_authentication(user: UserId, session: SessionId, known: Timestamp, by: &Occasion) -> Option<Timestamp>;
    rotate_refresh(request: &RotateRefresh, now: Timestamp) -> Option<Timestamp>;
    refresh_state(user: UserId, session: SessionId) -> Option<RefreshState>;
    note_generation(user: UserId, session: SessionId, generation: i64) -> ();
    note_seen(seen: &[Seen]) -> ();
    sweep(what: Leftover, before: Timestamp, most: u32, by: &Occasion) -> u32;
    take_lease(name: &str, holder: Uuid, until: Timestamp, now: Timestamp) -> bool;
    take(draw: &Draw, now: Timestamp) -> Take;
    clear_counters(keys: &[SecretHash]) -> ();
    clear_account(account: &SecretHash, whose: UserId, by: &Occasion) -> ();
    add_device(device: &NewDevice, most: u32) -> ();
    device_owner(device: &SecretHash, now: Timestamp) -> Option<UserId>;
    touch_device(device: &SecretHash, expires_at: Timestamp, now: Timestamp) -> ();
    forget_devices(user: UserId) -> ();
    record(events: &[Event], by: &Occasion) -> ();
    list_audit(filter: &AuditFilter) -> Vec<AuditRecord>;
    unsealed_audit(most: u32) -> Vec<AuditRecord>;
    count_unsealed_audit() -> u64;
    seal_audit(sealed: &[(AuditId, Sealed)], known: Option<&Mark>, head: &Mark) -> bool;
    sealed_audit(after: i64, most: u32) -> Vec<AuditRecord>;
    audit_mark(name: MarkName) -> Option<Mark>;
    cut_audit(checkpoint: &Mark, most: u32) -> u32;
    audit_keys(persons: &[UserId]) -> Vec<(UserId, WrappedKey)>;
    count_live_sessions(now: Timestamp) -> u64;
    waiting_letters() -> (u64, Option<Timestamp>);
    forget_sessions(user: UserId, before: Timestamp) -> u64;

    {
        async fn close(&self) {
            self.inner.close().await;
        }

        fn circuit(&self) -> CircuitUse {
            self.inner.circuit()
        }

        fn pools(&self) -> Vec<PoolUse> {
            self.inner.pools()
        }

        fn arrange_seen(&self, seen: &mut [Seen]) -> usize {
            self.inner.arrange_seen(seen)
        }

        fn live_session_at_once(
            &self,
            user: UserId,
            session: SessionId,
        ) -> Option<FoundSession> {
            self.inner.live_session_at_once(user, session)
        }

        async fn live_sessions(
            &self,
            wanted: &[(UserId, SessionId)],
        ) -> StoreResult<Vec<StoreResult<Option<SessionView>>>> {
            let answer = self.inner.live_sessions(wanted).await;
            let rows = answer.iter().flatten();
            rows.filter_map(|row| row.as_ref().err()).for_each(|error| self.failed(error));
            self.counted(answer)
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
            let call = self.inner.update_user(id, patch, notice, limit, idle, by);
            let answer = followed("update_user", call).await;
            let limits = matches!(patch.max_sessions, Some(Some(_)));
            self.ending(answer, CloseReason::LimitLowered.as_str(), |done| {
                limits && matches!(done, UpdateUser::Updated(_))
            })
        }

        async fn deactivate_user(
            &self,
            id: UserId,
            credential_version: Option<i64>,
            fixed: &FixedRoles,
            by: &Occasion,
        ) -> StoreResult<ChangeStanding> {
            let call = self.inner.deactivate_user(id, credential_version, fixed, by);
            let answer = followed("deactivate_user", call).await;
            let reason = CloseReason::AccountDeactivated.as_str();
            self.ending(answer, reason, |done| matches!(done, ChangeStanding::Changed(_)))
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
            let changed = self.inner.set_password(id, hash, credential_version, keep, letter, by);
            let reason = CloseReason::PasswordChanged.as_str();
            let answer = followed("set_password", changed).await;
            self.ending(answer, reason, |done| {
                matches!(done, SetPassword::Changed { closed, .. } if *closed > 0)
            })
        }

        async fn redeem_set_password(
            &self,
            proof: &Proof,
            hash: &PasswordHash,
            letter: Option<&NewLetter>,
            by: &Occasion,
        ) -> StoreResult<Redeem> {
            let call = self.inner.redeem_set_password(proof, hash, letter, by);
            let answer = followed("redeem_set_password", call).await;
            let reason = CloseReason::PasswordChanged.as_str();
            self.ending(answer, reason, |done| matches!(done, Redeem::Redeemed(_)))
        }

        async fn disown(
            &self,
            link: &SecretHash,
            reset: Option<&NewLetter>,
            notice: Option<&NewLetter>,
            by: &Occasion,
        ) -> StoreResult<Option<UserId>> {
            let call = self.inner.disown(link, reset, notice, by);
            let answer = followed("disown", call).await;
            self.ending(answer, CloseReason::Revoked.as_str(), Option::is_some)
        }

        async fn open_session(
            &self,
            request: &OpenSessionRequest,
            by: &Occasion,
        ) -> StoreResult<OpenSession> {
            let call = self.inner.open_session(request, by);
            let answer = followed("open_session", call).await;
            self.ending(answer, CloseReason::Replaced.as_str(), |done| {
                matches!(done, OpenSession::Opened { evicted, .. } if !evicted.is_empty())
            })
        }

        async fn close_session(
            &self,
            user: UserId,
            session: SessionId,
            reason: CloseReason,
            unseen_since: Option<Timestamp>,
            by: &Occasion,
        ) -> StoreResult<CloseSession> {
            let call = self.inner.close_session(user, session, reason, unseen_since, by);
            let answer = followed("close_session", call).await;
            let closes = |done: &CloseSession| {
                *done == CloseSession::Closed && user != UserId::CANARY
            };
            self.ending(answer, reason.as_str(), closes)
        }

        async fn close_reused_session(
            &self,
            user: UserId,
            session: SessionId,
            letter: Option<&NewLetter>,
            by: &Occasion,
        ) -> StoreResult<CloseSession> {
            let call = self.inner.close_reused_session(user, session, letter, by);
            let answer = followed("close_reused_session", call).await;
            let reason = CloseReason::RefreshReused.as_str();
            self.ending(answer, reason, |done| *done == CloseSession::Closed)
        }

        async fn close_session_by_id(
            &self,
            session: SessionId,
            reason: CloseReason,
            by: &Occasion,
        ) -> StoreResult<CloseSession> {
            let call = self.inner.close_session_by_id(session, reason, by);
            let answer = followed("close_session_by_id", call).await;
            self.ending(answer, reason.as_str(), |done| *done == CloseSession::Closed)
        }

        async fn close_sessions(
            &self,
            user: UserId,
            keep: Option<SessionId>,
            reason: CloseReason,
            by: &Occasion,
        ) -> StoreResult<Option<u64>> {
            let call = self.inner.close_sessions(user, keep, reason, by);
            let answer = followed("close_sessions", call).await;
            self.ending(answer, reason.as_str(), |closed| closed.is_some_and(|n| n > 0))
        }

        async fn erase_user(
            &self,
            id: UserId,
            fixed: &FixedRoles,
            by: &Occasion,
        ) -> StoreResult<EraseUser> {
            let call = self.inner.erase_user(id, fixed, by);
            let answer = followed("erase_user", call).await;
            self.ending(answer, "account_erased", |done| *done == EraseUser::Erased)
        }
    }
}

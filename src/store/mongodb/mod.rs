//! MongoDB: one document per user with its sessions embedded.
//!
//! Opening, closing and deactivating are each one conditional update of one document, made in a transaction with
//! its audit records; what spans documents (names, one-time secrets, letters that go with a change, the last
//! administrator) is one as well. Writes wait for a majority with its journal, reads go to the
//! primary and see only what a majority has. `documents` decides what is stored, `migrate` makes the
//! collections and indexes.

mod abandoned;
mod addresses;
mod audit;
mod codes;
mod connect;
mod counting;
mod credentials;
mod disowning;
mod documents;
mod erasing;
mod failure;
pub(super) mod health;
mod limits;
mod migrate;
mod moving;
mod opening;
mod outbox;
mod owners;
mod preparing;
mod reads;
mod refreshing;
mod registrations;
mod roles;
mod rows;
mod secrets;
mod sessions;
mod standing;
mod sweeping;
mod tls;
mod trail;
mod transaction;
mod users;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::TryFutureExt;
use mongodb::{
    Client, Collection, Database,
    bson::{RawDocumentBuf, doc},
    error::Error,
};
use tokio::{
    sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use uuid::Uuid;

use self::{
    addresses::{ChangeAddress, VerifyAddress},
    counting::PoolWatch,
    credentials::{JudgeProof, RedeemSecret, ReplacePassword},
    disowning::Disown,
    erasing::Erase,
    failure::{store_error, too_slow},
    limits::ClearAccount,
    opening::Opening,
    outbox::{AddLetter, ChangeByHand},
    preparing::Prepare,
    registrations::{AddRegistration, Confirm},
    sessions::{CloseAll, CloseOne, Renew},
    standing::{ChangeUser, Standing},
    transaction::{Lanes, transact},
    users::{CreateUserWithNames, PatchUser},
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
        mail::{Letter, NewLetter, Settlement},
        quota::Draw,
        role::{FixedRoles, RoleDefinition, StoredRole},
        session::{CloseReason, Device, IdleRule, RefreshState, Session, SessionView},
        token::{NewOneTimeSecret, Proof, SecretHash},
        user::{NewUser, PasswordHash, Roles, SessionLimit, User, UserCredentials, UserPatch},
    },
    setting::BadSetting,
    store::{
        ChangeEmail, ChangeLetter, ChangeStanding, CloseSession, ConfirmRegistration, CreateUser,
        DeleteRole, EraseUser, Leftover, LetterFilter, LoginName, OpenSession, OpenSessionRequest,
        PrepareLetter, Prepared, PutRole, Redeem, RotateRefresh, Seen, SetPassword, Store,
        StoreError, StoreResult, Take, UpdateUser, UserFilter, circuit::Circuit, queue::Queue,
        settings::MongoSettings,
    },
};

/// How long the driver may work on something that nobody waits for any more, if an operation may not
/// take longer anyway. An election takes ten seconds to begin.
const LONGEST_WORK: Duration = Duration::from_secs(10);
/// Sessions that are noted by one command: few, since the server carries one out without a pause.
const SEEN_AT_ONCE: usize = 64;

/// What a call waits for before the driver works on it.
enum Wait {
    ForTurn,
    /// To be alone in a lane, which takes no turn away from anybody, and then for a turn.
    InLane(Arc<Mutex<()>>),
    /// For a turn that is kept for lookups, or for any other.
    ForLookup,
}

/// A store in MongoDB; clones share their connections.
#[derive(Debug, Clone)]
pub struct MongoStore {
    client: Client,
    database: Database,
    operation_timeout: Duration,
    linearizable: bool,
    /// Nearly as many as there are connections: see [`Self::at_work`].
    turns: Arc<Semaphore>,
    /// More of them, for lookups alone: a request is not to wait behind everybody who logs in.
    kept_turns: Arc<Semaphore>,
    /// For a turn.
    waiting: Queue,
    pool: Arc<PoolWatch>,
    lanes: Arc<Lanes>,
    /// In the lanes.
    waiting_in_lanes: Queue,
    circuit: Circuit,
    /// As the server knows us.
    app_name: String,
    /// Held by whoever looks for abandoned transactions.
    ending: Arc<Mutex<()>>,
}

impl MongoStore {
    /// Connects, and makes sure that the server can do what is asked of it.
    ///
    /// # Errors
    /// [`BadSetting`] when nothing answers, or what answers is not a replica set.
    pub async fn connect(settings: &MongoSettings) -> Result<Self, BadSetting> {
        connect::connect(settings).await
    }

    fn collection(&self, name: &str) -> Collection<RawDocumentBuf> {
        self.database.collection(name)
    }

    /// Waits for the driver, but no longer than an operation may take.
    async fn bounded<T: Send + 'static>(
        &self,
        action: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> StoreResult<T> {
        let work = action.map_err(|error| store_error(&error));
        self.at_work(Wait::ForTurn, work).await
    }

    /// As [`Self::bounded`], not kept waiting by those who change something.
    async fn looked_up<T: Send + 'static>(
        &self,
        action: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> StoreResult<T> {
        let work = action.map_err(|error| store_error(&error));
        self.at_work(Wait::ForLookup, work).await
    }

    /// Lets the driver work in a task of its own, once this has been waited for, and waits no longer
    /// than an operation may take.
    ///
    /// Work goes on when nobody waits for it any more: a caller who goes away leaves nothing half done,
    /// and the driver's pool keeps the places of those who left its queue but serves hardly more than
    /// one place for each newcomer, so that after an outage under load it would serve nobody who still
    /// waits. How many are at work is bounded here instead, which keeps its queue short. What hangs is
    /// broken off at [`LONGEST_WORK`], before a new primary can have been elected on which the driver
    /// would repeat it behind everybody's back.
    async fn at_work<T: Send + 'static>(
        &self,
        wait: Wait,
        work: impl Future<Output = StoreResult<T>> + Send + 'static,
    ) -> StoreResult<T> {
        self.circuit.enter()?;
        let longest = self.operation_timeout.max(LONGEST_WORK);
        let answered = async {
            let (alone, turn) = self.turn(wait).await?;
            let working = tokio::spawn(async move {
                let answer = timeout(longest, work).await;
                drop((alone, turn));
                answer.unwrap_or_else(|_| Err(too_slow(longest)))
            });
            working.await.unwrap_or_else(|ended| {
                Err(if ended.is_panic() {
                    StoreError::Driver("an operation panicked".into())
                } else {
                    StoreError::Unavailable("the node is stopping".into())
                })
            })
        };
        let answered = self.circuit.within(self.operation_timeout, answered);
        if let Some(answer) = answered.await {
            return answer;
        }
        self.circuit.enter()?;
        // It may have waited for what nobody will finish.
        let store = self.clone();
        tokio::spawn(async move { store.end_abandoned().await });
        Err(too_slow(self.operation_timeout))
    }

    /// Waits for a turn, and before that to be alone in a lane if there is one.
    async fn turn(
        &self,
        wait: Wait,
    ) -> StoreResult<(Option<OwnedMutexGuard<()>>, OwnedSemaphorePermit)> {
        let kept = Arc::clone(&self.kept_turns);
        let is_lookup = matches!(wait, Wait::ForLookup);
        let alone = match wait {
            Wait::ForTurn => None,
            Wait::InLane(lane) => {
                let _place = self.waiting_in_lanes.enter()?;
                Some(lane.lock_owned().await)
            }
            Wait::ForLookup => {
                if let Ok(turn) = Arc::clone(&kept).try_acquire_owned() {
                    return Ok((None, turn));
                }
                None
            }
        };
        let _place = self.waiting.enter()?;
        let turn = tokio::select! {
            turn = kept.acquire_owned(), if is_lookup => turn,
            turn = self.pool.turn(Arc::clone(&self.turns)) => turn,
        };
        let turn = turn.map_err(|_| StoreError::Unavailable("the store is closed".into()))?;
        Ok((alone, turn))
    }
}

#[async_trait]
impl Store for MongoStore {
    async fn time(&self) -> StoreResult<Timestamp> {
        let database = self.database.clone();
        let hello = self
            .bounded(async move { database.run_command(doc! { "hello": 1 }).await })
            .await?;
        if !hello.get_bool("isWritablePrimary").unwrap_or(false) {
            return Err(StoreError::Unavailable("no primary".into()));
        }
        hello
            .get_datetime("localTime")
            .map(|at| Timestamp::from_millis(at.timestamp_millis()))
            .map_err(|_| StoreError::Driver("the server did not say its time".into()))
    }

    fn circuit(&self) -> CircuitUse {
        self.circuit.used()
    }

    async fn close(&self) {
        // A client that is merely dropped while the runtime stops can panic in the driver.
        // `immediate`: a cursor somebody still holds must not hold up the stop.
        let stop = self.client.clone().shutdown().immediate(true);
        let in_time = timeout(Span::secs(5).to_duration(), stop).await;
        if in_time.is_err() {
            tracing::warn!("the MongoDB driver did not stop within 5 s");
        }
    }

    fn pools(&self) -> Vec<PoolUse> {
        vec![self.pool.used()]
    }

    async fn count_live_sessions(&self, now: Timestamp) -> StoreResult<u64> {
        self.count_live(now).await
    }

    async fn waiting_letters(&self) -> StoreResult<(u64, Option<Timestamp>)> {
        self.count_waiting_letters().await
    }

    async fn forget_sessions(&self, user: UserId, before: Timestamp) -> StoreResult<u64> {
        self.pull_sessions(user, before).await
    }

    async fn create_user(
        &self,
        user: &NewUser,
        link: Option<&NewOneTimeSecret>,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<CreateUser> {
        transact(self, CreateUserWithNames::new(user, link, letter, by)).await
    }

    async fn user(&self, id: UserId) -> StoreResult<Option<User>> {
        self.read_one_user(id).await
    }

    async fn user_by_login(&self, name: &LoginName) -> StoreResult<Option<UserCredentials>> {
        self.read_credentials_by_login(name).await
    }

    async fn user_credentials(&self, id: UserId) -> StoreResult<Option<UserCredentials>> {
        self.read_credentials(id).await
    }

    async fn list_users(&self, filter: &UserFilter) -> StoreResult<Vec<User>> {
        self.read_users(filter).await
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
        let work = PatchUser {
            id,
            patch: patch.clone(),
            notice: notice.cloned(),
            limit,
            idle,
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn set_roles(
        &self,
        id: UserId,
        roles: &Roles,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<ChangeStanding> {
        transact(self, ChangeUser::to_roles(id, roles, fixed, by)).await
    }

    async fn deactivate_user(
        &self,
        id: UserId,
        credential_version: Option<i64>,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<ChangeStanding> {
        let work = ChangeUser {
            id,
            credential_version,
            to: Standing::Deactivated,
            guarded: Some(fixed.clone()),
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn activate_user(&self, id: UserId, by: &Occasion) -> StoreResult<ChangeStanding> {
        let work = ChangeUser {
            id,
            credential_version: None,
            to: Standing::Active,
            guarded: None,
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn list_roles(&self) -> StoreResult<Vec<StoredRole>> {
        self.read_roles().await
    }

    async fn roles_named(&self, names: &[String]) -> StoreResult<Vec<RoleDefinition>> {
        self.read_roles_named(names).await
    }

    async fn put_role(
        &self,
        role: &RoleDefinition,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<PutRole> {
        self.replace_role(role, fixed, by).await
    }

    async fn delete_role(
        &self,
        name: &str,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<DeleteRole> {
        self.remove_role(name, fixed, by).await
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
        let work = ReplacePassword {
            id,
            hash: hash.clone(),
            credential_version,
            keep,
            letter: letter.cloned(),
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn owner_of_proof(&self, proof: &Proof, now: Timestamp) -> StoreResult<Option<User>> {
        let proof = proof.clone();
        transact(self, JudgeProof { proof, now }).await
    }

    async fn redeem_set_password(
        &self,
        proof: &Proof,
        hash: &PasswordHash,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<Redeem> {
        let work = RedeemSecret {
            proof: proof.clone(),
            hash: hash.clone(),
            letter: letter.cloned(),
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn verify_email(&self, proof: &Proof, by: &Occasion) -> StoreResult<Option<User>> {
        let proof = proof.clone();
        let by = by.clone();
        transact(self, VerifyAddress { proof, by }).await
    }

    async fn change_email(
        &self,
        proof: &Proof,
        notice: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<ChangeEmail> {
        let work = ChangeAddress {
            proof: proof.clone(),
            notice: notice.cloned(),
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn disown(
        &self,
        link: &SecretHash,
        reset: Option<&NewLetter>,
        notice: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<Option<UserId>> {
        transact(self, Disown::new(link, reset, notice, by)).await
    }

    async fn add_registration(
        &self,
        registration: &NewRegistration,
        letter: &NewLetter,
        by: &Occasion,
    ) -> StoreResult<()> {
        let work = AddRegistration {
            registration: registration.clone(),
            letter: letter.clone(),
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn waiting_registration(
        &self,
        proof: &Proof,
        now: Timestamp,
    ) -> StoreResult<Option<WaitingRegistration>> {
        self.find_waiting_registration(proof, now).await
    }

    async fn confirm_registration(
        &self,
        proof: &Proof,
        expected: Option<RegistrationId>,
        user: UserId,
        by: &Occasion,
    ) -> StoreResult<ConfirmRegistration> {
        let work = Confirm {
            proof: proof.clone(),
            expected,
            user,
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn recent_devices(&self, user: UserId) -> StoreResult<Vec<Device>> {
        self.read_recent_devices(user).await
    }

    async fn add_letter(
        &self,
        letter: &NewLetter,
        quiet_since: Timestamp,
        by: &Occasion,
    ) -> StoreResult<bool> {
        let work = AddLetter {
            letter: letter.clone(),
            quiet_since,
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn claim_letters(
        &self,
        most: u32,
        lease: Span,
        now: Timestamp,
    ) -> StoreResult<Vec<Letter>> {
        self.claim(most, lease, now).await
    }

    async fn prepare_letter(
        &self,
        letter: &PrepareLetter,
        now: Timestamp,
    ) -> StoreResult<Prepared> {
        let letter = *letter;
        transact(self, Prepare { letter, now }).await
    }

    async fn settle_letter(
        &self,
        id: LetterId,
        fence: i64,
        settlement: &Settlement,
        now: Timestamp,
    ) -> StoreResult<bool> {
        self.settle(id, fence, settlement, now).await
    }

    async fn list_letters(&self, filter: &LetterFilter) -> StoreResult<Vec<Letter>> {
        self.read_letters(filter).await
    }

    async fn letter(&self, id: LetterId) -> StoreResult<Option<Letter>> {
        self.read_one_letter(id).await
    }

    async fn retry_letter(&self, id: LetterId, by: &Occasion) -> StoreResult<ChangeLetter> {
        let (drops, by) = (false, by.clone());
        transact(self, ChangeByHand { id, drops, by }).await
    }

    async fn drop_letter(&self, id: LetterId, by: &Occasion) -> StoreResult<ChangeLetter> {
        let (drops, by) = (true, by.clone());
        transact(self, ChangeByHand { id, drops, by }).await
    }

    async fn open_session(
        &self,
        request: &OpenSessionRequest,
        by: &Occasion,
    ) -> StoreResult<OpenSession> {
        transact(self, Opening::new(request, by)).await
    }

    async fn live_sessions(
        &self,
        wanted: &[(UserId, SessionId)],
    ) -> StoreResult<Vec<StoreResult<Option<SessionView>>>> {
        self.read_views(wanted).await
    }

    async fn open_sessions_of(&self, user: UserId) -> StoreResult<Vec<Session>> {
        self.read_open_sessions(user).await
    }

    async fn close_session(
        &self,
        user: UserId,
        session: SessionId,
        reason: CloseReason,
        unseen_since: Option<Timestamp>,
        by: &Occasion,
    ) -> StoreResult<CloseSession> {
        let work = CloseOne {
            user: Some(user),
            session,
            reason,
            unseen_since,
            letter: None,
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn close_reused_session(
        &self,
        user: UserId,
        session: SessionId,
        letter: Option<&NewLetter>,
        by: &Occasion,
    ) -> StoreResult<CloseSession> {
        let work = CloseOne {
            user: Some(user),
            session,
            reason: CloseReason::RefreshReused,
            unseen_since: None,
            letter: letter.cloned(),
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn owner_of_session(&self, session: SessionId) -> StoreResult<Option<UserId>> {
        self.read_owner(session).await
    }

    async fn close_session_by_id(
        &self,
        session: SessionId,
        reason: CloseReason,
        by: &Occasion,
    ) -> StoreResult<CloseSession> {
        let work = CloseOne {
            user: None,
            session,
            reason,
            unseen_since: None,
            letter: None,
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn close_sessions(
        &self,
        user: UserId,
        keep: Option<SessionId>,
        reason: CloseReason,
        by: &Occasion,
    ) -> StoreResult<Option<u64>> {
        let work = CloseAll {
            user,
            keep,
            reason,
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn renew_authentication(
        &self,
        user: UserId,
        session: SessionId,
        known: Timestamp,
        by: &Occasion,
    ) -> StoreResult<Option<Timestamp>> {
        let work = Renew {
            user,
            session,
            known,
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn rotate_refresh(
        &self,
        request: &RotateRefresh,
        now: Timestamp,
    ) -> StoreResult<Option<Timestamp>> {
        self.rotate(request, now).await
    }

    async fn refresh_state(
        &self,
        user: UserId,
        session: SessionId,
    ) -> StoreResult<Option<RefreshState>> {
        self.read_refresh_state(user, session).await
    }

    async fn note_generation(
        &self,
        user: UserId,
        session: SessionId,
        generation: i64,
    ) -> StoreResult<()> {
        self.note_seen_generation(user, session, generation).await
    }

    async fn note_seen(&self, seen: &[Seen]) -> StoreResult<()> {
        self.flush_seen(seen).await
    }

    fn arrange_seen(&self, seen: &mut [Seen]) -> usize {
        seen.sort_unstable_by_key(|one| one.user_id);
        SEEN_AT_ONCE
    }

    async fn sweep(
        &self,
        what: Leftover,
        before: Timestamp,
        most: u32,
        by: &Occasion,
    ) -> StoreResult<u32> {
        self.sweep_some(what, before, most, by).await
    }

    async fn take_lease(
        &self,
        name: &str,
        holder: Uuid,
        until: Timestamp,
        now: Timestamp,
    ) -> StoreResult<bool> {
        self.take_lease_of(name, holder, until, now).await
    }

    async fn take(&self, draw: &Draw, now: Timestamp) -> StoreResult<Take> {
        self.draw(draw, now).await
    }

    async fn clear_counters(&self, keys: &[SecretHash]) -> StoreResult<()> {
        self.delete_counters(keys).await
    }

    async fn clear_account(
        &self,
        account: &SecretHash,
        whose: UserId,
        by: &Occasion,
    ) -> StoreResult<()> {
        let work = ClearAccount {
            account: *account,
            whose,
            by: by.clone(),
        };
        transact(self, work).await
    }

    async fn add_device(&self, device: &NewDevice, most: u32) -> StoreResult<()> {
        self.insert_device(device, most).await
    }

    async fn device_owner(
        &self,
        device: &SecretHash,
        now: Timestamp,
    ) -> StoreResult<Option<UserId>> {
        self.read_device_owner(device, now).await
    }

    async fn touch_device(
        &self,
        device: &SecretHash,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> StoreResult<()> {
        self.note_device(device, expires_at, now).await
    }

    async fn forget_devices(&self, user: UserId) -> StoreResult<()> {
        self.delete_devices_of(user).await
    }

    async fn erase_user(
        &self,
        id: UserId,
        fixed: &FixedRoles,
        by: &Occasion,
    ) -> StoreResult<EraseUser> {
        let (fixed, by) = (fixed.clone(), by.clone());
        transact(self, Erase { id, fixed, by }).await
    }

    async fn record(&self, events: &[Event], by: &Occasion) -> StoreResult<()> {
        self.record_events(events, by).await
    }

    async fn list_audit(&self, filter: &AuditFilter) -> StoreResult<Vec<AuditRecord>> {
        self.read_trail(filter).await
    }

    async fn unsealed_audit(&self, most: u32) -> StoreResult<Vec<AuditRecord>> {
        self.read_unsealed(most).await
    }

    async fn count_unsealed_audit(&self) -> StoreResult<u64> {
        self.count_unsealed().await
    }

    async fn seal_audit(
        &self,
        sealed: &[(AuditId, Sealed)],
        known: Option<&Mark>,
        head: &Mark,
    ) -> StoreResult<bool> {
        self.seal_records(sealed, known, head).await
    }

    async fn sealed_audit(&self, after: i64, most: u32) -> StoreResult<Vec<AuditRecord>> {
        self.read_sealed(after, most).await
    }

    async fn audit_mark(&self, name: MarkName) -> StoreResult<Option<Mark>> {
        self.read_mark(name).await
    }

    async fn cut_audit(&self, checkpoint: &Mark, most: u32) -> StoreResult<u32> {
        self.cut_records(checkpoint, most).await
    }

    async fn audit_keys(&self, persons: &[UserId]) -> StoreResult<Vec<(UserId, WrappedKey)>> {
        self.read_keys(persons).await
    }
}

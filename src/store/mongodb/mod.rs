//! MongoDB: one document per user with its sessions embedded.
//!
//! Opening, closing and deactivating are each one conditional update of one document, which the server
//! applies one after the other; only what spans documents (names, one-time secrets, the last
//! administrator) is a transaction. Writes wait for a majority with its journal, reads go to the
//! primary and see only what a majority has. `documents` decides what is stored, `migrate` makes the
//! collections and indexes.

mod connect;
mod credentials;
mod documents;
mod failure;
mod migrate;
mod reads;
mod refreshing;
mod rows;
mod sessions;
mod standing;
mod transaction;
mod users;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use mongodb::{
    Client, Collection, Database,
    bson::{RawDocumentBuf, doc},
    error::Error,
};
use tokio::{sync::Semaphore, time::timeout};

use self::{
    credentials::{RedeemSecret, ReplacePassword},
    failure::{store_error, too_slow},
    transaction::transact,
    users::CreateUserWithNames,
};
use crate::{
    clock::{Span, Timestamp},
    ids::{SessionId, UserId},
    model::{
        session::{CloseReason, IdleRule, RefreshState, Session, SessionView},
        token::{NewOneTimeSecret, SecretHash},
        user::{NewUser, PasswordHash, Roles, SessionLimit, User, UserCredentials, UserPatch},
    },
    setting::BadSetting,
    store::{
        ChangeStanding, CloseSession, CreateUser, LoginName, OpenSession, OpenSessionRequest,
        Redeem, RotateRefresh, Seen, SetPassword, Store, StoreError, StoreResult, UpdateUser,
        UserFilter, settings::MongoSettings,
    },
};

/// How long the driver may work on something that nobody waits for any more, if an operation may not
/// take longer anyway. An election takes ten seconds to begin.
const LONGEST_WORK: Duration = Duration::from_secs(10);

/// A store in MongoDB; clones share their connections.
#[derive(Debug, Clone)]
pub struct MongoStore {
    client: Client,
    database: Database,
    operation_timeout: Duration,
    linearizable: bool,
    /// As many as there are connections: see [`Self::at_work`].
    turns: Arc<Semaphore>,
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
        self.at_work(async move { action.await.map_err(|error| store_error(&error)) })
            .await
    }

    /// Lets the driver work in a task of its own, and waits no longer than an operation may take.
    ///
    /// Work goes on when nobody waits for it any more: a caller who goes away leaves nothing half done,
    /// and the driver's pool keeps the places of those who left its queue but serves hardly more than
    /// one place for each newcomer, so that after an outage under load it would serve nobody who still
    /// waits. How many are at work is bounded here instead, which keeps its queue short. What hangs is
    /// broken off at [`LONGEST_WORK`], before a new primary can have been elected on which the driver
    /// would repeat it behind everybody's back.
    async fn at_work<T: Send + 'static>(
        &self,
        work: impl Future<Output = StoreResult<T>> + Send + 'static,
    ) -> StoreResult<T> {
        let turns = Arc::clone(&self.turns);
        let longest = self.operation_timeout.max(LONGEST_WORK);
        let answered = timeout(self.operation_timeout, async move {
            let turn = turns.acquire_owned().await;
            tokio::spawn(async move {
                let answer = timeout(longest, work).await;
                drop(turn);
                answer.unwrap_or_else(|_| Err(too_slow(longest)))
            })
            .await
        });
        match answered.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(ended)) if ended.is_panic() => {
                Err(StoreError::Driver("an operation panicked".into()))
            }
            Ok(Err(_)) => Err(StoreError::Unavailable("the node is stopping".into())),
            Err(_) => Err(too_slow(self.operation_timeout)),
        }
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

    async fn close(&self) {
        // A client that is merely dropped while the runtime stops can panic in the driver.
        // `immediate`: a cursor somebody still holds must not hold up the stop.
        let stop = self.client.clone().shutdown().immediate(true);
        let in_time = timeout(Span::secs(5).to_duration(), stop).await;
        if in_time.is_err() {
            tracing::warn!("the MongoDB driver did not stop within 5 s");
        }
    }

    async fn create_user(
        &self,
        user: &NewUser,
        link: Option<&NewOneTimeSecret>,
    ) -> StoreResult<CreateUser> {
        transact(self, CreateUserWithNames::new(user, link)).await
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
        limit: SessionLimit,
        idle: IdleRule,
        now: Timestamp,
    ) -> StoreResult<UpdateUser> {
        self.patch_user(id, patch, limit, idle, now).await
    }

    async fn set_roles(
        &self,
        id: UserId,
        roles: &Roles,
        now: Timestamp,
    ) -> StoreResult<ChangeStanding> {
        self.replace_roles(id, roles, now).await
    }

    async fn deactivate_user(
        &self,
        id: UserId,
        credential_version: Option<i64>,
        now: Timestamp,
    ) -> StoreResult<ChangeStanding> {
        self.deactivate(id, credential_version, now).await
    }

    async fn activate_user(&self, id: UserId, now: Timestamp) -> StoreResult<ChangeStanding> {
        self.activate(id, now).await
    }

    async fn set_password(
        &self,
        id: UserId,
        hash: &PasswordHash,
        credential_version: i64,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> StoreResult<SetPassword> {
        let work = ReplacePassword {
            id,
            hash: hash.clone(),
            credential_version,
            keep,
            now,
        };
        transact(self, work).await
    }

    async fn redeem_set_password(
        &self,
        secret: &SecretHash,
        hash: &PasswordHash,
        now: Timestamp,
    ) -> StoreResult<Redeem> {
        let work = RedeemSecret {
            secret: *secret,
            hash: hash.clone(),
            now,
        };
        transact(self, work).await
    }

    async fn open_session(
        &self,
        request: &OpenSessionRequest,
        now: Timestamp,
    ) -> StoreResult<OpenSession> {
        self.open(request, now).await
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
        now: Timestamp,
    ) -> StoreResult<CloseSession> {
        self.close_one(Some(user), session, reason, unseen_since, now)
            .await
    }

    async fn close_session_by_id(
        &self,
        session: SessionId,
        reason: CloseReason,
        now: Timestamp,
    ) -> StoreResult<CloseSession> {
        self.close_one(None, session, reason, None, now).await
    }

    async fn close_sessions(
        &self,
        user: UserId,
        keep: Option<SessionId>,
        reason: CloseReason,
        now: Timestamp,
    ) -> StoreResult<Option<u64>> {
        self.close_all(user, keep, reason, now).await
    }

    async fn renew_authentication(
        &self,
        user: UserId,
        session: SessionId,
        known: Timestamp,
        now: Timestamp,
    ) -> StoreResult<Option<Timestamp>> {
        self.renew(user, session, known, now).await
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
}

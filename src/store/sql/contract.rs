//! The storage contract on a SQL database: takes a connection, runs the decision, gives it back.

use async_trait::async_trait;
use diesel_async::pooled_connection::bb8::{Pool, PooledConnection};

use super::{
    Conn, Hot, database_time,
    faults::{from_pool, to_the_end},
    note_seen, passwords, sessions, standing, users,
};
use crate::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    model::{
        session::{CloseReason, Session, SessionView},
        token::{NewOneTimeSecret, SecretHash},
        user::{NewUser, PasswordHash, Roles, SessionLimit, User, UserCredentials, UserPatch},
    },
    store::{
        ChangeStanding, CloseSession, CreateUser, LoginName, OpenSession, OpenSessionRequest,
        Redeem, Seen, SetPassword, Store, StoreResult, UpdateUser, UserFilter,
    },
};

/// A SQL database behind Doorward; clones share its connections.
#[derive(Clone)]
pub struct SqlStore {
    pub(super) writers: Pool<Conn>,
    pub(super) readers: Pool<Conn>,
    pub(super) hot: Hot,
}

impl SqlStore {
    async fn reader(&self) -> StoreResult<PooledConnection<'_, Conn>> {
        self.readers.get().await.map_err(from_pool)
    }
}

pub(super) async fn writer(pool: &Pool<Conn>) -> StoreResult<PooledConnection<'_, Conn>> {
    pool.get().await.map_err(from_pool)
}

#[async_trait]
impl Store for SqlStore {
    async fn time(&self) -> StoreResult<Timestamp> {
        database_time(&mut *self.reader().await?).await
    }

    async fn close(&self) {
        // Pools end with their last clone; there is nothing to hand back.
    }

    async fn create_user(
        &self,
        user: &NewUser,
        link: Option<&NewOneTimeSecret>,
    ) -> StoreResult<CreateUser> {
        let (pool, user, link) = (self.writers.clone(), user.clone(), link.cloned());
        to_the_end(
            async move { users::create(&mut *writer(&pool).await?, &user, link.as_ref()).await },
        )
        .await
    }

    async fn user(&self, id: UserId) -> StoreResult<Option<User>> {
        users::find(&mut *self.reader().await?, id).await
    }

    async fn user_by_login(&self, name: &LoginName) -> StoreResult<Option<UserCredentials>> {
        users::by_login(&mut *self.reader().await?, name).await
    }

    async fn user_credentials(&self, id: UserId) -> StoreResult<Option<UserCredentials>> {
        users::credentials(&mut *self.reader().await?, id).await
    }

    async fn list_users(&self, filter: &UserFilter) -> StoreResult<Vec<User>> {
        users::list(&mut *self.reader().await?, filter).await
    }

    async fn update_user(
        &self,
        id: UserId,
        patch: &UserPatch,
        limit: SessionLimit,
        now: Timestamp,
    ) -> StoreResult<UpdateUser> {
        let (pool, patch) = (self.writers.clone(), patch.clone());
        to_the_end(async move {
            users::update(&mut *writer(&pool).await?, id, &patch, limit, now).await
        })
        .await
    }

    async fn set_roles(
        &self,
        id: UserId,
        roles: &Roles,
        now: Timestamp,
    ) -> StoreResult<ChangeStanding> {
        let (pool, roles) = (self.writers.clone(), roles.clone());
        to_the_end(
            async move { standing::set_roles(&mut *writer(&pool).await?, id, &roles, now).await },
        )
        .await
    }

    async fn deactivate_user(&self, id: UserId, now: Timestamp) -> StoreResult<ChangeStanding> {
        let pool = self.writers.clone();
        to_the_end(async move { standing::deactivate(&mut *writer(&pool).await?, id, now).await })
            .await
    }

    async fn activate_user(&self, id: UserId, now: Timestamp) -> StoreResult<ChangeStanding> {
        let pool = self.writers.clone();
        to_the_end(async move { standing::activate(&mut *writer(&pool).await?, id, now).await })
            .await
    }

    async fn set_password(
        &self,
        id: UserId,
        hash: &PasswordHash,
        credential_version: i64,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> StoreResult<SetPassword> {
        let (pool, hash) = (self.writers.clone(), hash.clone());
        to_the_end(async move {
            let conn = &mut *writer(&pool).await?;
            passwords::set(conn, id, &hash, credential_version, keep, now).await
        })
        .await
    }

    async fn redeem_set_password(
        &self,
        secret: &SecretHash,
        hash: &PasswordHash,
        now: Timestamp,
    ) -> StoreResult<Redeem> {
        let (pool, secret, hash) = (self.writers.clone(), *secret, hash.clone());
        to_the_end(async move {
            passwords::redeem(&mut *writer(&pool).await?, &secret, &hash, now).await
        })
        .await
    }

    async fn open_session(
        &self,
        request: &OpenSessionRequest,
        now: Timestamp,
    ) -> StoreResult<OpenSession> {
        let (pool, request) = (self.writers.clone(), request.clone());
        to_the_end(async move { sessions::open(&mut *writer(&pool).await?, &request, now).await })
            .await
    }

    async fn live_sessions(
        &self,
        wanted: &[(UserId, SessionId)],
    ) -> StoreResult<Vec<StoreResult<Option<SessionView>>>> {
        self.hot.live_sessions(wanted).await
    }

    async fn open_sessions_of(&self, user: UserId) -> StoreResult<Vec<Session>> {
        sessions::list_open(&mut *self.reader().await?, user).await
    }

    async fn close_session(
        &self,
        user: UserId,
        session: SessionId,
        reason: CloseReason,
        unseen_since: Option<Timestamp>,
        now: Timestamp,
    ) -> StoreResult<CloseSession> {
        let conn = &mut *writer(&self.writers).await?;
        sessions::close_one(conn, Some(user), session, reason, unseen_since, now).await
    }

    async fn close_session_by_id(
        &self,
        session: SessionId,
        reason: CloseReason,
        now: Timestamp,
    ) -> StoreResult<CloseSession> {
        let conn = &mut *writer(&self.writers).await?;
        sessions::close_one(conn, None, session, reason, None, now).await
    }

    async fn close_sessions(
        &self,
        user: UserId,
        keep: Option<SessionId>,
        reason: CloseReason,
        now: Timestamp,
    ) -> StoreResult<Option<u64>> {
        let pool = self.writers.clone();
        to_the_end(async move {
            sessions::close_of_user(&mut *writer(&pool).await?, user, keep, reason, now).await
        })
        .await
    }

    async fn renew_authentication(
        &self,
        user: UserId,
        session: SessionId,
        now: Timestamp,
    ) -> StoreResult<bool> {
        let conn = &mut *writer(&self.writers).await?;
        Ok(sessions::renew_authentication(conn, user, session, now).await?)
    }

    async fn note_seen(&self, seen: &[Seen]) -> StoreResult<()> {
        let (pool, mut seen) = (self.writers.clone(), seen.to_vec());
        seen.sort_unstable_by_key(|one| one.session_id);
        to_the_end(async move { note_seen(&mut *writer(&pool).await?, &seen).await }).await
    }
}

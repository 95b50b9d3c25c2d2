//! The storage contract on a SQL database: takes a connection, runs the decision, gives it back.

use async_trait::async_trait;
use diesel_async::pooled_connection::bb8::Pool;

use super::{
    Conn, Hot, database_time,
    faults::{from_pool, to_the_end},
    note_seen, passwords, refreshing, sessions, standing, users,
};
use crate::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    model::{
        session::{CloseReason, IdleRule, RefreshState, Session, SessionView},
        token::{NewOneTimeSecret, SecretHash},
        user::{NewUser, PasswordHash, Roles, SessionLimit, User, UserCredentials, UserPatch},
    },
    store::{
        ChangeStanding, CloseSession, CreateUser, LoginName, OpenSession, OpenSessionRequest,
        Redeem, RotateRefresh, Seen, SetPassword, Store, StoreResult, UpdateUser, UserFilter,
    },
};

/// A SQL database behind Doorward; clones share its connections.
#[derive(Clone)]
pub struct SqlStore {
    pub(super) writers: Pool<Conn>,
    pub(super) readers: Pool<Conn>,
    pub(super) hot: Hot,
}

/// Makes one decision on a connection of one pool, in the time that the backend allows.
macro_rules! on {
    ($store:expr, $pool:ident, |$conn:ident| $decision:expr) => {{
        let mut pooled = $store.$pool.get().await.map_err(from_pool)?;
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

    async fn close(&self) {
        // Pools end with their last clone; there is nothing to hand back.
    }

    async fn create_user(
        &self,
        user: &NewUser,
        link: Option<&NewOneTimeSecret>,
    ) -> StoreResult<CreateUser> {
        let (store, user, link) = (self.clone(), user.clone(), link.cloned());
        to_the_end(async move {
            on!(store, writers, |conn| users::create(
                conn,
                &user,
                link.as_ref()
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
        limit: SessionLimit,
        idle: IdleRule,
        now: Timestamp,
    ) -> StoreResult<UpdateUser> {
        let (store, patch) = (self.clone(), patch.clone());
        to_the_end(async move {
            on!(store, writers, |conn| users::update(
                conn, id, &patch, limit, idle, now
            ))
        })
        .await
    }

    async fn set_roles(
        &self,
        id: UserId,
        roles: &Roles,
        now: Timestamp,
    ) -> StoreResult<ChangeStanding> {
        let (store, roles) = (self.clone(), roles.clone());
        to_the_end(async move {
            on!(store, writers, |conn| standing::set_roles(
                conn, id, &roles, now
            ))
        })
        .await
    }

    async fn deactivate_user(
        &self,
        id: UserId,
        credential_version: Option<i64>,
        now: Timestamp,
    ) -> StoreResult<ChangeStanding> {
        let store = self.clone();
        to_the_end(async move {
            on!(store, writers, |conn| standing::deactivate(
                conn,
                id,
                credential_version,
                now
            ))
        })
        .await
    }

    async fn activate_user(&self, id: UserId, now: Timestamp) -> StoreResult<ChangeStanding> {
        let store = self.clone();
        to_the_end(async move { on!(store, writers, |conn| standing::activate(conn, id, now)) })
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
        let (store, hash) = (self.clone(), hash.clone());
        to_the_end(async move {
            on!(store, writers, |conn| passwords::set(
                conn,
                id,
                &hash,
                credential_version,
                keep,
                now
            ))
        })
        .await
    }

    async fn redeem_set_password(
        &self,
        secret: &SecretHash,
        hash: &PasswordHash,
        now: Timestamp,
    ) -> StoreResult<Redeem> {
        let (store, secret, hash) = (self.clone(), *secret, hash.clone());
        to_the_end(async move {
            on!(store, writers, |conn| passwords::redeem(
                conn, &secret, &hash, now
            ))
        })
        .await
    }

    async fn open_session(
        &self,
        request: &OpenSessionRequest,
        now: Timestamp,
    ) -> StoreResult<OpenSession> {
        let (store, request) = (self.clone(), request.clone());
        to_the_end(async move { on!(store, writers, |conn| sessions::open(conn, &request, now)) })
            .await
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
        now: Timestamp,
    ) -> StoreResult<CloseSession> {
        let store = self.clone();
        to_the_end(async move {
            on!(store, writers, |conn| sessions::close_one(
                conn,
                Some(user),
                session,
                reason,
                unseen_since,
                now
            ))
        })
        .await
    }

    async fn close_session_by_id(
        &self,
        session: SessionId,
        reason: CloseReason,
        now: Timestamp,
    ) -> StoreResult<CloseSession> {
        let store = self.clone();
        to_the_end(async move {
            on!(store, writers, |conn| sessions::close_one(
                conn, None, session, reason, None, now
            ))
        })
        .await
    }

    async fn close_sessions(
        &self,
        user: UserId,
        keep: Option<SessionId>,
        reason: CloseReason,
        now: Timestamp,
    ) -> StoreResult<Option<u64>> {
        let store = self.clone();
        to_the_end(async move {
            on!(store, writers, |conn| sessions::close_of_user(
                conn, user, keep, reason, now
            ))
        })
        .await
    }

    async fn renew_authentication(
        &self,
        user: UserId,
        session: SessionId,
        known: Timestamp,
        now: Timestamp,
    ) -> StoreResult<Option<Timestamp>> {
        let store = self.clone();
        to_the_end(async move {
            on!(store, writers, |conn| sessions::renew_authentication(
                conn, user, session, known, now
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
}

//! Refresh tokens: the hash of one replaced by the hash of the next.
//!
//! One update of the user's document, on the condition that the presented token is still the current
//! one: of two at once the server applies one, and the other finds another hash.

use mongodb::bson::{Document, doc};

use super::{
    MongoStore,
    documents::{USERS, hash_bson, session_key, time_bson, user_key},
    reads::view_fields,
    rows::{self, read_sessions},
};
use crate::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    model::session::RefreshState,
    store::{RotateRefresh, StoreResult},
};

impl MongoStore {
    pub(super) async fn rotate(
        &self,
        request: &RotateRefresh,
        now: Timestamp,
    ) -> StoreResult<Option<Timestamp>> {
        let RotateRefresh { user, session, .. } = *request;
        let current = doc! {
            "_id": user_key(user),
            "deactivated_at": null,
            "sessions": { "$elemMatch": {
                "id": session_key(session),
                "closed_at": null,
                "refresh_hash": hash_bson(&request.presented),
                "expires_at": { "$gt": time_bson(now) },
                "last_seen_at": { "$gte": time_bson(request.idle.seen_before(now)) },
            } },
        };
        let successor = doc! { "$set": {
            "sessions.$.refresh_hash": hash_bson(&request.successor),
            "sessions.$.refresh_previous": hash_bson(&request.presented),
            "sessions.$.generation": request.generation,
            "sessions.$.rotated_at": time_bson(now),
        } };
        self.time_after(user, session, current, successor, "expires_at")
            .await
    }

    pub(super) async fn read_refresh_state(
        &self,
        user: UserId,
        session: SessionId,
    ) -> StoreResult<Option<RefreshState>> {
        let fields: Document = view_fields(&[(user, session)]);
        let found = self.read_one(USERS, user_key(user), fields).await?;
        let Some(document) = found else {
            return Ok(None);
        };
        read_sessions(&document, user)?
            .first()
            .map(|(id, embedded)| rows::read_refresh_state(&document, user, embedded, *id))
            .transpose()
    }

    pub(super) async fn note_seen_generation(
        &self,
        user: UserId,
        session: SessionId,
        generation: i64,
    ) -> StoreResult<()> {
        let behind = doc! {
            "_id": user_key(user),
            "sessions": { "$elemMatch": {
                "id": session_key(session),
                "generation_used": { "$lt": generation },
                "generation": { "$gte": generation },
            } },
        };
        let noted = doc! { "$set": { "sessions.$.generation_used": generation } };
        let users = self.collection(USERS);
        let update = async move { users.update_one(behind, noted).await };
        self.bounded(update).await.map(drop)
    }
}

//! Reading users and sessions.
//!
//! Decides what each read fetches and how a login name leads to its user. All reads go to the primary;
//! with `linearizable` on, each document is read alone and the primary proves to a majority that it
//! still is one.

use std::collections::HashMap;

use futures_util::future::try_join_all;
use mongodb::{
    bson::{Bson, Document, RawDocumentBuf, doc},
    error::Error,
    options::ReadConcern,
};

use uuid::Uuid;

use super::{
    MongoStore,
    documents::{LOGIN_NAMES, USERS, email_key, login_key, session_key, user_key, username_key},
    owners::holder,
    rows::{
        Row, read_credentials, read_device, read_session, read_sessions, read_user, read_user_id,
        read_view, time,
    },
    sessions::is_open,
};
use crate::{
    ids::{SessionId, UserId},
    model::{
        session::{Device, Session, SessionView},
        user::{User, UserCredentials},
    },
    store::{LoginName, StoreError, StoreResult, UserFilter},
};

/// How many sessions a user's device is looked for in.
const RECENT_DEVICES: usize = 20;

/// Longer texts are part of no name.
const LONGEST_NAME: usize = 254;

/// The fields of a user that are nobody's secret, without the sessions.
pub(super) fn user_fields() -> Document {
    doc! { "password_hash": 0, "sessions": 0 }
}

/// The same fields by name, for a projection that also computes some.
pub(super) fn public_fields() -> Document {
    doc! {
        "email": 1, "email_verified_at": 1, "username": 1, "attributes": 1, "roles": 1,
        "deactivated_at": 1, "max_sessions": 1, "on_session_limit": 1, "created_at": 1, "updated_at": 1,
    }
}

impl MongoStore {
    /// Reads one document by its `_id`.
    pub(super) async fn read_one(
        &self,
        collection: &str,
        key: impl Into<Bson> + Send,
        fields: Document,
    ) -> StoreResult<Option<RawDocumentBuf>> {
        let found = self.found_one(collection, key.into(), fields);
        self.bounded(found).await
    }

    fn found_one(
        &self,
        collection: &str,
        key: Bson,
        fields: Document,
    ) -> impl Future<Output = Result<Option<RawDocumentBuf>, Error>> + Send + use<> {
        let (collection, key) = (self.collection(collection), doc! { "_id": key });
        let (limit, linearizable) = (self.operation_timeout, self.linearizable);
        async move {
            let mut find = collection.find_one(key).projection(fields).max_time(limit);
            if linearizable {
                find = find.read_concern(ReadConcern::linearizable());
            }
            find.await
        }
    }

    pub(super) async fn read_one_user(&self, id: UserId) -> StoreResult<Option<User>> {
        let found = self.read_one(USERS, user_key(id), user_fields()).await?;
        found.map(|document| read_user(&document, id)).transpose()
    }

    pub(super) async fn read_credentials(
        &self,
        id: UserId,
    ) -> StoreResult<Option<UserCredentials>> {
        let found = self
            .read_one(USERS, user_key(id), doc! { "sessions": 0 })
            .await?;
        found
            .map(|document| read_credentials(&document, id))
            .transpose()
    }

    /// Two reads, whether the name is known or not: the name, then its user. In between the name may
    /// have moved, so the user must still have it; if the name still leads to a user without it, the
    /// documents contradict each other.
    pub(super) async fn read_credentials_by_login(
        &self,
        name: &LoginName,
    ) -> StoreResult<Option<UserCredentials>> {
        let key = login_key(name);
        let mut before = None;
        loop {
            let found = self
                .read_one(LOGIN_NAMES, key.as_str(), Document::new())
                .await?;
            let found = found.map(|name| holder(&name)).transpose()?;
            let Some(user_id) = found.flatten() else {
                // Nobody: else the missing round trip would tell whether there is an account.
                return self.read_credentials(Uuid::nil().into()).await;
            };
            let Some(credentials) = self.read_credentials(user_id).await? else {
                return Ok(None);
            };
            let user = &credentials.user;
            let has_name = email_key(&user.email) == key
                || user.username.as_ref().map(username_key).as_ref() == Some(&key);
            if has_name {
                return Ok(Some(credentials));
            }
            if before == Some(user_id) {
                return Err(StoreError::Corrupt {
                    table: LOGIN_NAMES,
                    column: "user_id",
                    row: user_id.to_string(),
                });
            }
            before = Some(user_id);
        }
    }

    pub(super) async fn read_users(&self, filter: &UserFilter) -> StoreResult<Vec<User>> {
        let text = filter.text.as_deref().unwrap_or_default();
        // To the server a limit of 0 means none, and a name holds no NUL.
        if filter.limit == 0 || text.len() > LONGEST_NAME || text.contains('\0') {
            return Ok(Vec::new());
        }
        let (users, limit) = (self.collection(USERS), self.operation_timeout);
        let (listed, most) = (listed(filter), i64::from(filter.limit));
        self.bounded(async move {
            let find = users
                .find(listed)
                .projection(user_fields())
                .sort(doc! { "_id": -1 })
                .limit(most)
                .max_time(limit);
            let mut cursor = find.await?;
            let mut found = Vec::new();
            while cursor.advance().await? {
                let document = cursor.current();
                found.push(read_user_id(document).and_then(|id| read_user(document, id)));
            }
            Ok(found)
        })
        .await?
        .into_iter()
        .collect()
    }

    /// The hot read. One `find` over all users of the batch; `$filter`, because `$elemMatch` would
    /// return one of two sessions of one user.
    pub(super) async fn read_views(
        &self,
        wanted: &[(UserId, SessionId)],
    ) -> StoreResult<Vec<StoreResult<Option<SessionView>>>> {
        let fields = view_fields(wanted);
        let mut users: Vec<UserId> = wanted.iter().map(|(user, _)| *user).collect();
        users.sort_unstable();
        users.dedup();
        // One alone is found by its key without a plan being made.
        let found: HashMap<UserId, RawDocumentBuf> = if self.linearizable || users.len() == 1 {
            let reads = users.into_iter().map(|user| {
                let read = self.looked_up(self.found_one(USERS, user_key(user), fields.clone()));
                async move { read.await.map(|found| (user, found)) }
            });
            try_join_all(reads)
                .await?
                .into_iter()
                .filter_map(|(user, document)| Some((user, document?)))
                .collect()
        } else {
            self.read_many(&users, fields).await?
        };
        let view = |(user, session): &(UserId, SessionId)| {
            let Some(document) = found.get(user) else {
                return Ok(None);
            };
            read_sessions(document, *user)?
                .into_iter()
                .find(|(id, _)| id == session)
                .map(|(_, embedded)| read_view(document, *user, embedded, *session))
                .transpose()
        };
        Ok(wanted.iter().map(view).collect())
    }

    async fn read_many(
        &self,
        users: &[UserId],
        fields: Document,
    ) -> StoreResult<HashMap<UserId, RawDocumentBuf>> {
        let keys: Vec<Bson> = users.iter().copied().map(user_key).collect();
        // One more than can be found, so that the first reply is the last and no cursor stays open.
        let all = u32::try_from(keys.len())
            .unwrap_or(u32::MAX)
            .saturating_add(1);
        let (collection, limit) = (self.collection(USERS), self.operation_timeout);
        self.looked_up(async move {
            let mut found = HashMap::with_capacity(keys.len());
            let find = collection
                .find(doc! { "_id": { "$in": keys } })
                .projection(fields)
                .batch_size(all)
                .max_time(limit);
            let mut cursor = find.await?;
            while cursor.advance().await? {
                let document = cursor.current();
                if let Ok(id) = read_user_id(document) {
                    found.insert(id, document.to_owned());
                }
            }
            Ok(found)
        })
        .await
    }

    /// The sessions last opened, of those that are embedded: all open ones and as many closed ones as
    /// are asked for here at most.
    pub(super) async fn read_recent_devices(&self, user: UserId) -> StoreResult<Vec<Device>> {
        let fields = doc! {
            "sessions.id": 1, "sessions.created_at": 1, "sessions.device_name": 1,
            "sessions.user_agent": 1, "sessions.address": 1,
        };
        let Some(document) = self.read_one(USERS, user_key(user), fields).await? else {
            return Ok(Vec::new());
        };
        let mut sessions = read_sessions(&document, user)?
            .into_iter()
            .map(|(id, embedded)| {
                let opened = Row::session(embedded, id).required("created_at", time)?;
                Ok((opened, id, embedded))
            })
            .collect::<StoreResult<Vec<_>>>()?;
        sessions.sort_by_key(|(opened, id, _)| std::cmp::Reverse((*opened, *id)));
        let newest = sessions.into_iter().take(RECENT_DEVICES);
        newest
            .map(|(_, id, embedded)| read_device(embedded, id))
            .collect()
    }

    pub(super) async fn read_owner(&self, session: SessionId) -> StoreResult<Option<UserId>> {
        let (users, limit) = (self.collection(USERS), self.operation_timeout);
        let holder = doc! { "sessions.id": session_key(session) };
        let found = async move {
            let found = users.find_one(holder).projection(doc! { "_id": 1 });
            found.max_time(limit).await
        };
        let found = self.bounded(found).await?;
        found.map(|document| read_user_id(&document)).transpose()
    }

    pub(super) async fn read_open_sessions(&self, user: UserId) -> StoreResult<Vec<Session>> {
        let open = filtered_sessions(&is_open("$$s"));
        let found = self
            .read_one(USERS, user_key(user), doc! { "sessions": open })
            .await?;
        let Some(document) = found else {
            return Ok(Vec::new());
        };
        let mut sessions = read_sessions(&document, user)?
            .into_iter()
            .map(|(id, embedded)| read_session(embedded, user, id))
            .collect::<StoreResult<Vec<_>>>()?;
        sessions.sort_by_key(|session| std::cmp::Reverse((session.created_at, session.id)));
        Ok(sessions)
    }
}

/// The sessions for which `condition` on `$$s` holds. Sessions that are not a list are passed on as
/// they are: an error of the expression would fail the whole batch instead of their reader alone.
fn filtered_sessions(condition: &Document) -> Document {
    doc! { "$cond": [
        { "$isArray": "$sessions" },
        { "$filter": { "input": "$sessions", "as": "s", "cond": condition } },
        "$sessions",
    ] }
}

/// What the hot read needs of a user and of the sessions asked for.
pub(super) fn view_fields(wanted: &[(UserId, SessionId)]) -> Document {
    let ids: Vec<Bson> = wanted.iter().map(|(_, id)| session_key(*id)).collect();
    let mut fields = public_fields();
    let wanted = doc! { "$in": ["$$s.id", ids] };
    fields.insert("sessions", filtered_sessions(&wanted));
    fields
}

fn listed(filter: &UserFilter) -> Document {
    let mut ids = doc! { "$ne": user_key(UserId::CANARY) };
    let mut query = Document::new();
    if let Some(text) = filter.text.as_deref().filter(|text| !text.is_empty()) {
        let pattern = literal_pattern(&text.to_lowercase());
        query.insert(
            "$or",
            vec![
                doc! { "email_canonical": { "$regex": &pattern } },
                doc! { "username_canonical": { "$regex": &pattern } },
            ],
        );
    }
    if let Some(active) = filter.active {
        let condition = if active {
            doc! { "$eq": null }
        } else {
            doc! { "$ne": null }
        };
        query.insert("deactivated_at", condition);
    }
    if let Some(role) = &filter.role {
        query.insert("roles", role);
    }
    if let Some(before) = filter.before {
        ids.insert("$lt", user_key(before));
    }
    query.insert("_id", ids);
    query
}

/// A regular expression that matches `text` and nothing else: in PCRE a backslash before any ASCII
/// character that is neither letter nor digit makes it stand for itself.
fn literal_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() * 2);
    for character in text.chars() {
        if character.is_ascii() && !character.is_ascii_alphanumeric() {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::literal_pattern;

    #[test]
    fn a_search_is_literal() {
        assert_eq!(literal_pattern("a.b*[c]"), r"a\.b\*\[c\]");
        assert_eq!(literal_pattern(r"\Q_ü"), r"\\Q\_ü");
    }
}

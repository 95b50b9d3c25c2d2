//! Rows changed by hand, as an operator with a database shell could.

use std::fmt::Write as _;

use doorward::{
    clock::Timestamp,
    ids::{LetterId, SessionId, UserId},
};
use mongodb::bson::{Binary, Bson, DateTime, Document, doc, spec::BinarySubtype};
use uuid::Uuid;

use super::backend::{Backend, Database};

impl Database {
    pub async fn delete_user_row(&self, user: UserId) {
        if self.backend() == Backend::Mongodb {
            let users = self.mongo().await.collection::<Document>("users");
            let deleted = users
                .delete_one(doc! {"_id": bson_id(user.as_uuid())})
                .await;
            assert_eq!(deleted.expect("deleted").deleted_count, 1);
        } else {
            let id = self.id_literal(user.as_uuid());
            self.sql(&format!("DELETE FROM users WHERE id = {id}"))
                .await;
        }
    }

    pub async fn delete_session_row(&self, user: UserId, session: SessionId) {
        if self.backend() == Backend::Mongodb {
            let pull = doc! {"$pull": {"sessions": {"id": bson_id(session.as_uuid())}}};
            self.change_user_document(user, pull).await;
        } else {
            let id = self.id_literal(session.as_uuid());
            self.sql(&format!("DELETE FROM sessions WHERE id = {id}"))
                .await;
        }
    }

    pub async fn close_session_row(&self, user: UserId, session: SessionId, at: Timestamp) {
        let fields = [
            ("closed_at", Value::Time(at)),
            ("close_reason", Value::Text("revoked".to_owned())),
        ];
        self.set_session(user, session, &fields).await;
    }

    /// Puts the end of the session at `at`.
    pub async fn expire_session_row(&self, user: UserId, session: SessionId, at: Timestamp) {
        let fields = [("expires_at", Value::Time(at))];
        self.set_session(user, session, &fields).await;
    }

    /// Leaves the user's sessions open.
    pub async fn deactivate_user_row(&self, user: UserId, at: Timestamp) {
        if self.backend() == Backend::Mongodb {
            let set = doc! {"$set": {"deactivated_at": Value::Time(at).bson()}};
            self.change_user_document(user, set).await;
        } else {
            let (id, at) = (
                self.id_literal(user.as_uuid()),
                self.literal(&Value::Time(at)),
            );
            self.sql(&format!(
                "UPDATE users SET status = 'deactivated', deactivated_at = {at} WHERE id = {id}"
            ))
            .await;
        }
    }

    /// Gives the session a reason for its end that there is not.
    pub async fn corrupt_session_row(&self, user: UserId, session: SessionId, at: Timestamp) {
        let fields = [
            ("closed_at", Value::Time(at)),
            ("close_reason", Value::Text("banana".to_owned())),
        ];
        self.set_session(user, session, &fields).await;
    }

    /// Gives the user an address that is none.
    pub async fn corrupt_user_row(&self, user: UserId) {
        if self.backend() == Backend::Mongodb {
            self.change_user_document(user, doc! {"$set": {"email": "banana"}})
                .await;
        } else {
            let id = self.id_literal(user.as_uuid());
            self.sql(&format!(
                "UPDATE users SET email = 'banana' WHERE id = {id}"
            ))
            .await;
        }
    }

    /// Gives the letter a kind that there is not.
    pub async fn corrupt_letter_row(&self, letter: LetterId) {
        if self.backend() == Backend::Mongodb {
            let letters = self.mongo().await.collection::<Document>("mail_outbox");
            let key = doc! {"_id": bson_id(letter.as_uuid())};
            let changed = letters
                .update_one(key, doc! {"$set": {"kind": "banana"}})
                .await
                .expect("changed");
            assert_eq!(changed.modified_count, 1, "the letter is there");
        } else {
            let id = self.id_literal(letter.as_uuid());
            self.sql(&format!(
                "UPDATE mail_outbox SET kind = 'banana' WHERE id = {id}"
            ))
            .await;
        }
    }

    /// Gives the role a permission that is none.
    pub async fn corrupt_role_row(&self, name: &str) {
        match self.backend() {
            Backend::Mongodb => {
                let roles = self.mongo().await.collection::<Document>("roles");
                let banana = doc! {"$set": {"permissions": ["banana"]}};
                let changed = roles.update_one(doc! {"_id": name}, banana).await;
                assert_eq!(changed.expect("changed").modified_count, 1);
            }
            Backend::Postgres => {
                self.sql(&format!(
                    "UPDATE roles SET permissions = ARRAY['banana'] WHERE name = '{name}'"
                ))
                .await;
            }
            Backend::Sqlite => {
                self.sql(&format!(
                    "UPDATE roles SET permissions = '[\"banana\"]' WHERE name = '{name}'"
                ))
                .await;
            }
        }
    }

    async fn set_session(&self, user: UserId, session: SessionId, fields: &[(&str, Value)]) {
        if self.backend() == Backend::Mongodb {
            let set: Document = fields
                .iter()
                .map(|(name, value)| (format!("sessions.$[one].{name}"), value.bson()))
                .collect();
            let users = self.mongo().await.collection::<Document>("users");
            let changed = users
                .update_one(doc! {"_id": bson_id(user.as_uuid())}, doc! {"$set": set})
                .array_filters([doc! {"one.id": bson_id(session.as_uuid())}])
                .await
                .expect("changed");
            assert_eq!(changed.modified_count, 1, "the session is there");
        } else {
            let set: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{name} = {}", self.literal(value)))
                .collect();
            let (set, id) = (set.join(", "), self.id_literal(session.as_uuid()));
            self.sql(&format!("UPDATE sessions SET {set} WHERE id = {id}"))
                .await;
        }
    }

    async fn change_user_document(&self, user: UserId, change: Document) {
        let users = self.mongo().await.collection::<Document>("users");
        let changed = users
            .update_one(doc! {"_id": bson_id(user.as_uuid())}, change)
            .await
            .expect("changed");
        assert_eq!(changed.modified_count, 1, "the user is there");
    }

    pub(super) fn id_literal(&self, id: Uuid) -> String {
        match self.backend() {
            Backend::Sqlite => format!("x'{}'", id.simple()),
            _ => format!("'{id}'"),
        }
    }

    pub(super) fn literal(&self, value: &Value) -> String {
        match (value, self.backend()) {
            (Value::Text(text), _) => format!("'{}'", text.replace('\'', "''")),
            (Value::Id(id), _) => self.id_literal(*id),
            (Value::Bytes(bytes), Backend::Sqlite) => format!("x'{}'", hex(bytes)),
            (Value::Bytes(bytes), _) => format!("'\\x{}'", hex(bytes)),
            (Value::Number(number), _) => number.to_string(),
            (Value::Nothing, _) => "NULL".to_owned(),
            (Value::Time(at), Backend::Sqlite) => at.as_millis().to_string(),
            (Value::Time(at), _) => format!("'{at}'"),
        }
    }
}

/// A value as a shell would write it.
pub(super) enum Value {
    Text(String),
    Time(Timestamp),
    Id(Uuid),
    Bytes(Vec<u8>),
    Number(i64),
    Nothing,
}

impl Value {
    pub(super) fn bson(&self) -> Bson {
        match self {
            Self::Text(text) => Bson::from(text.as_str()),
            Self::Time(at) => Bson::DateTime(DateTime::from_millis(at.as_millis())),
            Self::Id(id) => bson_id(*id),
            Self::Bytes(bytes) => Bson::Binary(Binary {
                subtype: BinarySubtype::Generic,
                bytes: bytes.clone(),
            }),
            Self::Number(number) => Bson::Int64(*number),
            Self::Nothing => Bson::Null,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes everything");
        text
    })
}

pub(super) fn bson_id(id: Uuid) -> Bson {
    Bson::Binary(Binary {
        subtype: BinarySubtype::Uuid,
        bytes: id.as_bytes().to_vec(),
    })
}

//! The audit trail changed by hand, by somebody who owns the database and takes its triggers away first.

use doorward::{
    ids::AuditId,
    model::audit::{
        AuditRecord,
        seal::{Mark, MarkName},
    },
};
use mongodb::bson::{Bson, Document, doc};

use super::{
    backend::{Backend, Database},
    edits::{Value, bson_id},
};

impl Database {
    /// Takes away what keeps records from being changed; MongoDB has nothing of that kind.
    pub async fn unguard_audit(&self) {
        match self.backend() {
            Backend::Sqlite => {
                self.sql("DROP TRIGGER audit_events_keep; DROP TRIGGER audit_events_keep_all")
                    .await;
            }
            Backend::Postgres => {
                self.sql("ALTER TABLE audit_events DISABLE TRIGGER ALL")
                    .await;
            }
            Backend::Mongodb => {}
        }
    }

    /// Puts records in the place of others.
    pub async fn replace_audit(&self, old: &[&AuditRecord], new: &[&AuditRecord]) {
        for record in old {
            self.delete_audit(record.id).await;
        }
        for record in new {
            self.insert_audit(record).await;
        }
    }

    pub async fn delete_audit(&self, id: AuditId) {
        if self.backend() == Backend::Mongodb {
            let records = self.mongo().await.collection::<Document>("audit_events");
            let deleted = records
                .delete_one(doc! {"_id": bson_id(id.as_uuid())})
                .await;
            assert_eq!(deleted.expect("deleted").deleted_count, 1);
        } else {
            let id = self.id_literal(id.as_uuid());
            self.sql(&format!("DELETE FROM audit_events WHERE id = {id}"))
                .await;
        }
    }

    /// A record as it is, whether it is true or not.
    pub async fn insert_audit(&self, record: &AuditRecord) {
        let mut columns = columns(record);
        if self.backend() == Backend::Mongodb {
            columns[0].0 = "_id";
        }
        // So does MongoDB find what waits for its seal.
        let beside = match record.sealed {
            None => doc! {"unsealed": true},
            Some(_) => Document::new(),
        };
        self.insert_by_hand("audit_events", &columns, beside).await;
    }

    /// Puts a mark in the place of the one with its name, if there is one.
    pub async fn write_mark(&self, mark: &Mark) {
        self.delete_mark(mark.name).await;
        let name = if self.backend() == Backend::Mongodb {
            "_id"
        } else {
            "name"
        };
        let columns = [
            (name, Value::Text(mark.name.as_str().to_owned())),
            ("seq", Value::Number(mark.seq)),
            ("seal", Value::Bytes(mark.seal.clone())),
            ("at", Value::Time(mark.at)),
            ("signature", Value::Bytes(mark.signature.clone())),
        ];
        self.insert_by_hand("audit_marks", &columns, Document::new())
            .await;
    }

    pub async fn delete_mark(&self, name: MarkName) {
        let name = name.as_str();
        if self.backend() == Backend::Mongodb {
            let marks = self.mongo().await.collection::<Document>("audit_marks");
            marks.delete_one(doc! {"_id": name}).await.expect("deleted");
        } else {
            self.sql(&format!("DELETE FROM audit_marks WHERE name = '{name}'"))
                .await;
        }
    }

    /// `beside` is for MongoDB alone.
    async fn insert_by_hand(&self, table: &str, columns: &[(&str, Value)], beside: Document) {
        if self.backend() == Backend::Mongodb {
            let fields = columns
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.bson()));
            let fields = fields.filter(|(_, value)| *value != Bson::Null);
            let document: Document = fields.chain(beside).collect();
            let collection = self.mongo().await.collection::<Document>(table);
            collection.insert_one(document).await.expect("inserted");
        } else {
            let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
            let values: Vec<_> = columns.iter().map(|(_, v)| self.literal(v)).collect();
            let (names, values) = (names.join(", "), values.join(", "));
            self.sql(&format!("INSERT INTO {table} ({names}) VALUES ({values})"))
                .await;
        }
    }
}

fn columns(record: &AuditRecord) -> Vec<(&'static str, Value)> {
    let text = |text: &Option<String>| text.clone().map_or(Value::Nothing, Value::Text);
    let user =
        |id: Option<doorward::ids::UserId>| id.map_or(Value::Nothing, |id| Value::Id(id.as_uuid()));
    let session = |id: Option<doorward::ids::SessionId>| {
        id.map_or(Value::Nothing, |id| Value::Id(id.as_uuid()))
    };
    let details = record.details.clone();
    let sealed = record.sealed.clone();
    let (seq, seal) = sealed.map_or((Value::Nothing, Value::Nothing), |sealed| {
        (Value::Number(sealed.seq), Value::Bytes(sealed.seal))
    });
    vec![
        ("id", Value::Id(record.id.as_uuid())),
        ("at", Value::Time(record.at)),
        ("event", Value::Text(record.event.clone())),
        ("outcome", Value::Text(record.outcome.clone())),
        ("reason", text(&record.reason)),
        ("actor", Value::Text(record.actor.clone())),
        ("actor_id", user(record.actor_id)),
        ("actor_session", session(record.actor_session)),
        ("subject_id", user(record.subject)),
        ("session_id", session(record.session)),
        ("request_id", text(&record.request_id)),
        ("person_id", user(record.person)),
        ("details", details.map_or(Value::Nothing, Value::Bytes)),
        ("facts", text(&record.facts)),
        ("seq", seq),
        ("seal", seal),
    ]
}

//! Making and removing the collections and indexes.
//!
//! Decides how the commands of `migrations/mongodb` are run: in order, one process at a time by a
//! lease that ends by itself if its holder dies, each command such that running it twice does no
//! harm. What was applied stands in `schema_migrations`.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use mongodb::{
    Collection,
    bson::{DateTime, Document, doc, oid::ObjectId},
    error::Error,
};
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use super::{
    MongoStore,
    failure::{code, is_duplicate, store_error},
};
use crate::{
    clock::Span,
    store::{Migrations, StoreError, StoreResult},
};

/// Every change in order; names and numbers as in the SQL databases.
const CHANGES: [(&str, &str); 7] = [
    (
        "0001_users_and_sessions",
        include_str!("../../../migrations/mongodb/0001_users_and_sessions.json"),
    ),
    (
        "0002_refresh_tokens",
        include_str!("../../../migrations/mongodb/0002_refresh_tokens.json"),
    ),
    (
        "0003_mail",
        include_str!("../../../migrations/mongodb/0003_mail.json"),
    ),
    (
        "0004_limits",
        include_str!("../../../migrations/mongodb/0004_limits.json"),
    ),
    (
        "0005_roles",
        include_str!("../../../migrations/mongodb/0005_roles.json"),
    ),
    (
        "0006_sweeping",
        include_str!("../../../migrations/mongodb/0006_sweeping.json"),
    ),
    (
        "0007_audit",
        include_str!("../../../migrations/mongodb/0007_audit.json"),
    ),
];

/// Holds the names of what was applied, and the lease.
const APPLIED: &str = "schema_migrations";
/// The `_id` of the lease.
const LEASE_KEY: &str = "lease";

/// How long a lease lasts without being renewed.
const LEASE: Span = Span::secs(60);
/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(15);
/// How often somebody who waits for it asks.
const POLL: Duration = Duration::from_millis(100);
/// A little longer than a dead holder's lease.
const LONGEST_WAIT: Duration = Duration::from_secs(90);
/// Building an index over many documents takes its time.
const LONGEST_COMMAND: Duration = Duration::from_hours(1);

/// The collection is there already.
const NAMESPACE_EXISTS: i32 = 48;
/// There is no such collection.
const NAMESPACE_NOT_FOUND: i32 = 26;
/// There is no such index.
const INDEX_NOT_FOUND: i32 = 27;

/// One file of `migrations/mongodb`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    up: Vec<Document>,
    down: Vec<Document>,
}

fn parse(name: &str, text: &str) -> StoreResult<Change> {
    serde_json::from_str(text)
        .map_err(|error| StoreError::Driver(format!("migration {name} is malformed: {error}")))
}

/// The right to change the schema.
struct Lease {
    holder: ObjectId,
}

impl MongoStore {
    fn schema_documents(&self) -> Collection<Document> {
        self.database.collection(APPLIED)
    }

    /// The names of the changes that were applied.
    async fn applied(&self) -> StoreResult<BTreeSet<String>> {
        let applied = self.schema_documents();
        self.bounded(async move {
            let mut cursor = applied.find(doc! { "_id": { "$ne": LEASE_KEY } }).await?;
            let mut names = BTreeSet::new();
            while cursor.advance().await? {
                if let Ok(name) = cursor.current().get_str("_id") {
                    names.insert(name.to_owned());
                }
            }
            Ok(names)
        })
        .await
    }

    /// Takes or renews the lease; false while somebody else has it. One conditional update by the
    /// server's clock, so that the clocks of those who ask do not matter.
    async fn take_lease(&self, lease: &Lease) -> StoreResult<bool> {
        let leases = self.schema_documents();
        let free_or_mine = doc! {
            "_id": LEASE_KEY,
            "$or": [
                { "holder": lease.holder },
                { "$expr": { "$lt": ["$until", "$$NOW"] } },
            ],
        };
        let until = doc! { "$add": ["$$NOW", LEASE.as_millis()] };
        let taken = vec![doc! { "$set": { "holder": lease.holder, "until": until } }];
        let take = async move { leases.update_one(free_or_mine, taken).await };
        Ok(self.bounded(take).await?.matched_count > 0)
    }

    /// Makes the document that the lease is held on; it stays.
    async fn make_lease_document(&self) -> StoreResult<()> {
        let leases = self.schema_documents();
        let free = doc! { "_id": LEASE_KEY, "until": DateTime::from_millis(0) };
        self.bounded(async move {
            match leases.insert_one(free).await {
                Err(error) if !is_duplicate(&error) => Err(error),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn wait_for_lease(&self) -> StoreResult<Lease> {
        let lease = Lease {
            holder: ObjectId::new(),
        };
        self.make_lease_document().await?;
        let wait = async {
            while !self.take_lease(&lease).await? {
                sleep(POLL).await;
            }
            Ok(())
        };
        timeout(LONGEST_WAIT, wait).await.unwrap_or_else(|_| {
            let what = "another process has been migrating the database for long";
            Err(StoreError::Unavailable(what.into()))
        })?;
        Ok(lease)
    }

    async fn give_lease_back(&self, lease: &Lease) -> StoreResult<()> {
        let leases = self.schema_documents();
        let mine = doc! { "_id": LEASE_KEY, "holder": lease.holder };
        let free =
            doc! { "$set": { "until": DateTime::from_millis(0) }, "$unset": { "holder": "" } };
        let give = async move { leases.update_one(mine, free).await };
        self.bounded(give).await.map(drop)
    }

    /// Runs commands one after the other while the lease is kept up.
    async fn run_all(&self, commands: &[Document], lease: &Lease) -> StoreResult<()> {
        let run = async {
            for command in commands {
                let answer = timeout(LONGEST_COMMAND, self.run_schema_command(command)).await;
                answer.unwrap_or_else(|_| {
                    Err(StoreError::Unavailable("a migration took an hour".into()))
                })?;
            }
            Ok(())
        };
        // Both are polled all the time: a command that rested while the lease is renewed could hold
        // what the renewal waits for inside the driver.
        tokio::select! {
            done = run => done,
            lost = self.keep_lease(lease) => Err(lost),
        }
    }

    /// Renews the lease for as long as that works.
    async fn keep_lease(&self, lease: &Lease) -> StoreError {
        loop {
            sleep(RENEWAL).await;
            match self.take_lease(lease).await {
                Ok(true) => {}
                Ok(false) => {
                    let what = "another process took over the migration";
                    return StoreError::Unavailable(what.into());
                }
                Err(error) => return error,
            }
        }
    }

    async fn run_schema_command(&self, command: &Document) -> StoreResult<()> {
        let mut command = command.clone();
        command.insert("writeConcern", doc! { "w": "majority" });
        let harmless = |error: &Error| {
            let done_before = [NAMESPACE_EXISTS, NAMESPACE_NOT_FOUND, INDEX_NOT_FOUND];
            code(error).is_some_and(|(code, _)| done_before.contains(&code))
        };
        match self.database.run_command(command).await {
            Ok(reply) if reply.contains_key("writeErrors") => {
                Err(StoreError::Driver("a migration's write failed".into()))
            }
            Ok(reply) if reply.contains_key("writeConcernError") => {
                let what = "a majority did not confirm a migration's write";
                Err(StoreError::Unavailable(what.into()))
            }
            Ok(_) => Ok(()),
            Err(error) if harmless(&error) => Ok(()),
            Err(error) => Err(store_error(&error)),
        }
    }

    async fn apply_pending(&self, lease: &Lease) -> StoreResult<Vec<String>> {
        let applied = self.applied().await?;
        let collection = self.schema_documents();
        let mut done = Vec::new();
        for (name, text) in CHANGES {
            if applied.contains(name) {
                continue;
            }
            self.run_all(&parse(name, text)?.up, lease).await?;
            let collection = collection.clone();
            let at = vec![doc! { "$set": { "applied_at": "$$NOW" } }];
            let note = async move {
                let note = collection.update_one(doc! { "_id": name }, at);
                note.upsert(true).await
            };
            self.bounded(note).await?;
            done.push(name.to_owned());
        }
        Ok(done)
    }

    async fn revert_last(&self, n: usize, lease: &Lease) -> StoreResult<Vec<String>> {
        let applied = self.applied().await?;
        let is_known = |name: &&String| CHANGES.iter().any(|(known, _)| known == name);
        if let Some(unknown) = applied.iter().find(|name| !is_known(name)) {
            let what = format!("the database has {unknown}, which this version does not know");
            return Err(StoreError::Driver(what));
        }
        let collection = self.schema_documents();
        let newest_first = CHANGES.iter().rev();
        let mut done = Vec::new();
        for (name, text) in newest_first
            .filter(|(name, _)| applied.contains(*name))
            .take(n)
        {
            self.run_all(&parse(name, text)?.down, lease).await?;
            let (collection, note) = (collection.clone(), doc! { "_id": *name });
            self.bounded(async move { collection.delete_one(note).await })
                .await?;
            done.push((*name).to_owned());
        }
        Ok(done)
    }
}

/// Each runs in a task of its own: a caller who goes away must not leave a change half made or the
/// lease taken.
async fn in_a_task<T, F>(work: F) -> StoreResult<T>
where
    T: Send + 'static,
    F: Future<Output = StoreResult<T>> + Send + 'static,
{
    tokio::spawn(work)
        .await
        .map_err(|_| StoreError::Driver("the migration's task ended early".into()))?
}

#[async_trait]
impl Migrations for MongoStore {
    async fn pending(&self) -> StoreResult<Vec<String>> {
        let applied = self.applied().await?;
        let names = CHANGES.iter().map(|(name, _)| (*name).to_owned());
        Ok(names.filter(|name| !applied.contains(name)).collect())
    }

    async fn apply(&self) -> StoreResult<Vec<String>> {
        let store = self.clone();
        in_a_task(async move {
            let lease = store.wait_for_lease().await?;
            let done = store.apply_pending(&lease).await;
            let given_back = store.give_lease_back(&lease).await;
            done.and_then(|done| given_back.map(|()| done))
        })
        .await
    }

    async fn revert(&self, n: usize) -> StoreResult<Vec<String>> {
        let store = self.clone();
        in_a_task(async move {
            let lease = store.wait_for_lease().await?;
            let done = store.revert_last(n, &lease).await;
            let given_back = store.give_lease_back(&lease).await;
            done.and_then(|done| given_back.map(|()| done))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `up` makes `down` removes.
    #[test]
    fn every_change_can_be_read_and_taken_back() {
        for (name, text) in CHANGES {
            let change = parse(name, text).expect(name);
            let named = |commands: &[Document], key: &str| -> BTreeSet<String> {
                commands
                    .iter()
                    .filter_map(|command| command.get_str(key).ok().map(str::to_owned))
                    .collect()
            };
            let made = named(&change.up, "create");
            assert!(!change.down.is_empty(), "{name}");
            assert_eq!(made, named(&change.down, "drop"), "{name}");
        }
    }
}

//! Transactions that nobody will end.
//!
//! A node that dies in the middle of one leaves it open: what it has written is refused to everybody until the
//! server gives it up, after a minute. Another node that is held up ends it: what has rested for longer than any
//! of ours does is abandoned, or is repeated by whoever finds it ended.

use std::time::Duration;

use mongodb::{
    bson::{Document, doc},
    error::Error,
    options::ReadConcern,
};
use tokio::time::timeout;

use super::{MongoStore, failure::store_error};

/// How long a transaction rests between two statements at the most.
const LONGEST_REST: Duration = Duration::from_secs(2);

impl MongoStore {
    /// Ends what is abandoned; one caller at a time, the others go on.
    pub(super) async fn end_abandoned(&self) {
        let Ok(_one) = self.ending.try_lock() else {
            return;
        };
        match timeout(self.operation_timeout, self.find_and_end()).await {
            Ok(Ok(0)) | Err(_) => {}
            Ok(Ok(ended)) => {
                tracing::warn!(ended, "transactions of a node that is gone were ended");
            }
            Ok(Err(error)) => {
                let error = store_error(&error);
                tracing::warn!(%error, "transactions of a node that is gone cannot be ended");
            }
        }
    }

    /// Only those of our own database user: others are not shown, and could not be ended.
    async fn find_and_end(&self) -> Result<usize, Error> {
        let admin = self.client.database("admin");
        let rest = i64::try_from(LONGEST_REST.as_micros()).unwrap_or(i64::MAX);
        let resting = doc! {
            "type": "idleSession",
            "appName": &self.app_name,
            "transaction.timeInactiveMicros": { "$gt": rest },
        };
        let sessions = vec![
            doc! { "$currentOp": { "idleSessions": true } },
            doc! { "$match": resting },
        ];
        let found = admin.aggregate(sessions);
        let mut found = found.read_concern(ReadConcern::local()).await?;
        let mut ended: Vec<Document> = Vec::new();
        while found.advance().await? {
            let session = found.deserialize_current()?;
            let id = session.get_document("lsid").ok();
            let id = id.and_then(|lsid| lsid.get("id"));
            ended.extend(id.map(|id| doc! { "id": id.clone() }));
        }
        let count = ended.len();
        if count > 0 {
            admin.run_command(doc! { "killSessions": ended }).await?;
        }
        Ok(count)
    }
}

//! Connecting to MongoDB.
//!
//! Decides what every connection promises, whatever the connection string says (primary, majority,
//! journal), and which servers are refused: without a replica set there are no transactions and no
//! majority.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use mongodb::{
    Client, Database,
    bson::{Document, doc},
    options::{
        Acknowledgment, ClientOptions, ReadConcern, ReadPreference, SelectionCriteria, WriteConcern,
    },
};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    MongoStore,
    counting::PoolWatch,
    failure::{store_error, too_slow},
    tls::{self, Spoken, URL},
    transaction::Lanes,
};
use crate::{
    setting::BadSetting,
    store::{
        StoreError,
        circuit::{Circuit, Probe},
        queue::Queue,
        settings::MongoSettings,
    },
};

/// Wire version of MongoDB 4.4, the first that projects with expressions in updates.
pub(super) const OLDEST_WIRE_VERSION: i32 = 9;

/// Connections to one server, unless the connection string has its own `maxPoolSize`.
const MOST_CONNECTIONS: u32 = 64;
/// Connections besides, for lookups alone: as many as are at work at the same time, unless one is slow.
const KEPT_CONNECTIONS: u32 = 4;
/// Connections besides: for looking out for the server, and for ending what others abandoned.
const SPARE_CONNECTIONS: u32 = 2;

pub(super) async fn connect(settings: &MongoSettings) -> Result<MongoStore, BadSetting> {
    let limit = settings.statement_timeout.to_duration();
    tls::check_words(settings.url.expose())?;
    // The driver's message is not passed on: it may quote the password.
    let malformed = || {
        BadSetting::new(
            URL,
            "is not a connection string that can be used",
            "write it as mongodb://user:password@host:27017/?replicaSet=rs0 and check that its \
             names resolve",
        )
    };
    let mut options = timeout(limit, ClientOptions::parse(settings.url.expose()))
        .await
        .map_err(|_| malformed())?
        .map_err(|_| malformed())?;
    let hosts: Vec<_> = options.hosts.iter().map(ToString::to_string).collect();
    let hosts = hosts.join(", ");
    let is_direct = options.direct_connection == Some(true);
    let spoken = tls::choose(&mut options)?;
    let turns = promise(&mut options, settings);
    let pool = PoolWatch::on(&mut options, turns.saturating_add(KEPT_CONNECTIONS));
    let app_name = options.app_name.clone().unwrap_or_default();
    let client = Client::with_options(options).map_err(|_| malformed())?;
    let database = client.database(&settings.database);
    let hello = first_hello(&database, limit, spoken).await.map_err(|why| {
        BadSetting::new(
            URL,
            format!("the server at {hosts} cannot be used: {why}"),
            "start MongoDB, initiate its replica set if that was never done, or correct the \
             address, the certificates and the password",
        )
    })?;
    refuse_unfit(&hello, &hosts)?;
    if !is_direct {
        tls::check_members(spoken, &hello).await?;
    }
    let outlook = Outlook {
        database: database.clone(),
        limit: settings.acquire_timeout.to_duration(),
    };
    Ok(MongoStore {
        client,
        database,
        operation_timeout: limit,
        linearizable: settings.linearizable,
        turns: Arc::new(Semaphore::new(turns as usize)),
        kept_turns: Arc::new(Semaphore::new(KEPT_CONNECTIONS as usize)),
        waiting: Queue::default(),
        pool,
        lanes: Arc::new(Lanes::new()),
        waiting_in_lanes: Queue::default(),
        circuit: Circuit::new(Some(Box::new(outlook))),
        app_name,
        ending: Arc::default(),
    })
}

/// What the server says of itself, or why it does not.
async fn first_hello(
    database: &Database,
    limit: Duration,
    spoken: Spoken,
) -> Result<Document, String> {
    let why = |error| match error {
        StoreError::Unavailable(why) | StoreError::Driver(why) => why,
        StoreError::Corrupt { .. } => "it is corrupt".to_owned(),
    };
    match timeout(limit, database.run_command(doc! { "hello": 1 })).await {
        Ok(Ok(hello)) => Ok(hello),
        Ok(Err(error)) => {
            Err(tls::fault(spoken, &error).unwrap_or_else(|| why(store_error(&error))))
        }
        Err(_) => Err(why(too_slow(limit))),
    }
}

/// Looks out for the primary while the circuit is open.
struct Outlook {
    database: Database,
    /// How long the primary may be looked for, and then take to answer.
    limit: Duration,
}

#[async_trait]
impl Probe for Outlook {
    async fn answers(&self) -> bool {
        let ping = self.database.run_command(doc! { "ping": 1 });
        matches!(timeout(self.limit, ping).await, Ok(Ok(_)))
    }
}

/// What the store's promises rest on is not left to the connection string. Answers how many calls may be at work.
fn promise(options: &mut ClientOptions, settings: &MongoSettings) -> u32 {
    let selection = settings.acquire_timeout.to_duration();
    options.app_name.get_or_insert_with(|| "doorward".into());
    let named = options.max_pool_size.filter(|most| *most > 0);
    let turns = named.unwrap_or(MOST_CONNECTIONS);
    options.max_pool_size = Some(turns.saturating_add(KEPT_CONNECTIONS + SPARE_CONNECTIONS));
    options.server_selection_timeout = Some(selection);
    options.connect_timeout = Some(selection);
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(ReadPreference::Primary));
    options.read_concern = Some(ReadConcern::majority());
    options.write_concern = Some(
        WriteConcern::builder()
            .w(Acknowledgment::Majority)
            .journal(true)
            .w_timeout(settings.statement_timeout.to_duration())
            .build(),
    );
    turns
}

fn refuse_unfit(hello: &Document, hosts: &str) -> Result<(), BadSetting> {
    let is_replica_set = hello.contains_key("setName");
    let is_router = hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
    if !is_replica_set && !is_router {
        return Err(BadSetting::new(
            URL,
            format!("the server at {hosts} is a standalone one, which has no transactions"),
            "make it a replica set of one node: start mongod with `--replSet rs0`, run \
             `rs.initiate()` in mongosh once, and add `?replicaSet=rs0` to the address",
        ));
    }
    if hello.get_i32("maxWireVersion").unwrap_or(0) < OLDEST_WIRE_VERSION {
        return Err(BadSetting::new(
            URL,
            format!("the server at {hosts} is older than MongoDB 4.4"),
            "upgrade it",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standalone_server_is_told_how_to_become_a_replica_set() {
        let refused = refuse_unfit(&doc! { "maxWireVersion": 17 }, "localhost:27017")
            .expect_err("no replica set");
        assert!(refused.remedy.contains("rs.initiate()"), "{refused}");
        assert_eq!(
            refuse_unfit(&doc! { "maxWireVersion": 17, "setName": "rs0" }, "h"),
            Ok(())
        );
        assert_eq!(
            refuse_unfit(&doc! { "maxWireVersion": 17, "msg": "isdbgrid" }, "h"),
            Ok(())
        );
        assert!(refuse_unfit(&doc! { "maxWireVersion": 8, "setName": "rs0" }, "h").is_err());
    }

    /// The connection string cannot weaken what the promises rest on; nor is a password repeated.
    #[tokio::test]
    async fn the_promises_do_not_depend_on_the_connection_string() {
        let weak = "mongodb://h/?w=1&journal=false&readPreference=nearest&readConcernLevel=local";
        let mut options = ClientOptions::parse(weak).await.expect("valid");
        let turns = promise(&mut options, &MongoSettings::default());
        assert_eq!(turns, MOST_CONNECTIONS);
        let concern = options.write_concern.expect("set");
        assert_eq!(concern.w, Some(Acknowledgment::Majority));
        assert_eq!(concern.journal, Some(true));
        assert_eq!(options.read_concern, Some(ReadConcern::majority()));

        let settings = MongoSettings {
            url: "mongodb://ann:hunter2@:bad:/".into(),
            ..MongoSettings::default()
        };
        let refused = connect(&settings).await.expect_err("malformed");
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }
}

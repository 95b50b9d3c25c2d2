//! One round trip to a database, as a program that does nothing else makes it.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use diesel::{
    Connection, QueryableByName, RunQueryDsl,
    sql_types::{Binary, Text},
    sqlite::SqliteConnection,
};
use doorward::store::settings::{Backend, DatabaseSettings};
use mongodb::{
    Client, Collection,
    bson::{RawDocumentBuf, doc},
    options::{Acknowledgment, ClientOptions, ReadConcern, WriteConcern},
};

use crate::{
    Outcome,
    pgbench::JOIN,
    random::SplitMix,
    seed::{id_bson, session_id, user_id},
};

/// A connection, and what is asked on it for each of so many users by chance.
pub(crate) struct Trips {
    database: Connected,
    users: u32,
    asked: AtomicU64,
}

enum Connected {
    Sqlite(Box<Mutex<SqliteConnection>>),
    Postgres(tokio_postgres::Client, tokio_postgres::Statement),
    Mongodb(Collection<RawDocumentBuf>),
}

impl Trips {
    pub(crate) async fn to(settings: &DatabaseSettings, users: u32) -> Outcome<Self> {
        let database = match settings.backend {
            Backend::Sqlite => {
                let path = settings.sqlite.path.display().to_string();
                Connected::Sqlite(Box::new(Mutex::new(SqliteConnection::establish(&path)?)))
            }
            Backend::Postgres => {
                let url = settings.postgres.url.expose();
                let (client, connection) =
                    tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
                tokio::spawn(connection);
                let lookup = format!("{JOIN} WHERE sessions.id = $1::text::uuid");
                let lookup = client.prepare(&lookup).await?;
                Connected::Postgres(client, lookup)
            }
            Backend::Mongodb => Connected::Mongodb(people(settings).await?),
        };
        Ok(Self {
            database,
            users,
            asked: AtomicU64::new(0),
        })
    }

    /// Asks for somebody and waits for the answer.
    pub(crate) async fn once(&self) -> Outcome<()> {
        let mut random = SplitMix(self.asked.fetch_add(1, Ordering::Relaxed));
        let n = u32::try_from(random.below(self.users as usize))? + 1;
        match &self.database {
            Connected::Sqlite(connection) => {
                let id = session_id(n).as_uuid();
                // diesel keeps the statement prepared.
                let lookup = diesel::sql_query(
                    "SELECT users.email FROM sessions INNER JOIN users ON sessions.user_id = users.id \
                     WHERE sessions.id = ?",
                );
                let lookup = lookup.bind::<Binary, _>(id.as_bytes().to_vec());
                let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                let found: Vec<Found> = lookup.load(&mut *connection)?;
                found.first().ok_or("a session is missing")?;
            }
            Connected::Postgres(client, lookup) => {
                let id = session_id(n).to_string();
                client.query_one(lookup, &[&id]).await?;
            }
            Connected::Mongodb(people) => find(people, n).await?,
        }
        Ok(())
    }
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Text)]
    #[expect(dead_code, reason = "read as the others are, and not looked at")]
    email: String,
}

/// The users on MongoDB, read as sessions are: what a majority has.
pub(crate) async fn people(settings: &DatabaseSettings) -> Outcome<Collection<RawDocumentBuf>> {
    let mut options = ClientOptions::parse(settings.mongodb.url.expose()).await?;
    options.max_pool_size = Some(64);
    options.read_concern = Some(ReadConcern::majority());
    let majority = WriteConcern::builder().w(Acknowledgment::Majority).build();
    options.write_concern = Some(majority);
    let database = Client::with_options(options)?.database(&settings.mongodb.database);
    Ok(database.collection("users"))
}

/// A user by `_id`.
pub(crate) async fn find(people: &Collection<RawDocumentBuf>, n: u32) -> Outcome<()> {
    let key = doc! { "_id": id_bson(user_id(n).as_uuid()) };
    people.find_one(key).await?.ok_or("a user is missing")?;
    Ok(())
}

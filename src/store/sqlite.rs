//! SQLite, embedded: the default, with nothing to set up.
//!
//! What differs from PostgreSQL stands here: connections, column types, the single writer and the hot
//! read. The queries themselves are written once in `store/sql` and mounted at the end. Needs tokio's
//! multi-thread runtime: a query that nobody waits for any more is waited for by its thread.

mod columns;
pub(super) mod health;
mod hot;
mod types;

use std::{fs, io, path::Path, sync::Arc, thread, time::Duration};

use async_trait::async_trait;
use diesel::{
    connection::SimpleConnection, prelude::*, query_dsl::methods::ExecuteDsl,
    sqlite::SqliteConnection,
};
use diesel_async::{
    RunQueryDsl, SimpleAsyncConnection,
    pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod, bb8::Pool},
    sync_connection_wrapper::SyncConnectionWrapper,
};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use futures_util::FutureExt;

pub use self::contract::SqlStore as SqliteStore;
use self::{
    faults::{from_diesel, to_the_end},
    hot::Hot,
    line::Line,
    rows::CredentialsRow,
    types::{DbId, DbTime},
};
use crate::{
    clock::{Stopwatch, Timestamp},
    email::EmailAddress,
    ids::UserId,
    model::mail::LetterState,
    store::{
        Migrations, Seen, StoreError, StoreResult,
        circuit::Circuit,
        settings::{SqliteSettings, Synchronous},
    },
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
/// How long a statement waits for another process' write.
const BUSY: Duration = Duration::from_secs(5);
/// Connections that read besides the writer.
const READERS: u32 = 4;
/// Sessions that are noted by one commit: few commits, since each makes every connection forget the pages that it has
/// read, and none that lets other writers wait long.
const SEEN_AT_ONCE: usize = 1024;

/// How often one looks whether another process still migrates.
const MIGRATION_POLL: Duration = Duration::from_millis(50);

type Conn = SyncConnectionWrapper<SqliteConnection>;
type Backend = diesel::sqlite::Sqlite;

macro_rules! write_tx {
    ($conn:expr, $body:expr) => {
        $conn
            .immediate_transaction::<_, crate::store::sqlite::faults::Fault, _>($body)
            .await
    };
}

/// `busy_timeout` bounds every wait, and there is nobody else to wait for. A statement that computes cannot be broken
/// off: who drops it waits for it as well.
macro_rules! in_time {
    ($store:expr, $conn:expr, $work:expr) => {
        $work.await
    };
}

/// One by one: nothing goes over a wire.
macro_rules! insert_all {
    ($conn:expr, $table:expr, $rows:expr) => {
        for row in $rows {
            diesel::insert_into($table)
                .values(row)
                .execute($conn)
                .await?;
        }
    };
}

macro_rules! has_role {
    ($role:expr) => {
        users::roles
            .like(crate::store::sqlite::users::containing(&format!(
                "\"{}\"",
                $role
            )))
            .escape('\\')
    };
}

impl SqliteStore {
    /// A store on this file, which is made, with its folder, if it is missing.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the file cannot be made or opened.
    pub async fn connect(settings: &SqliteSettings) -> StoreResult<Self> {
        make_file(&settings.path).map_err(|e| StoreError::Unavailable(e.to_string()))?;
        let opener = Opener::new(settings)?;
        let hot = Hot::start(&opener)?;
        // The file does not go away.
        let circuit = Circuit::new(None);
        let writers = pool(&opener, 1, BUSY).await?;
        let readers = pool(&opener, READERS, Duration::from_secs(2)).await?;
        let pools = [
            ("writer", writers.clone(), 1),
            ("readers", readers.clone(), READERS),
        ];
        let (writers, readers) = (Line::new(writers, &circuit), Line::new(readers, &circuit));
        Ok(Self {
            pools: pools.into(),
            counting: writers.clone(),
            reading_counters: readers.clone(),
            writers,
            readers,
            hot,
            circuit,
            closed: Arc::default(),
        })
    }
}

/// Only the account that runs the server may read what is in the database.
fn make_file(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}

/// Opens connections that are all set up alike.
#[derive(Clone)]
struct Opener {
    url: String,
    setup: String,
}

impl Opener {
    fn new(settings: &SqliteSettings) -> StoreResult<Self> {
        let path = settings.path.to_str();
        let url = path
            .ok_or_else(|| StoreError::Driver("the path is not UTF-8".into()))?
            .to_owned();
        let synchronous = match settings.synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
        };
        let setup = format!(
            "PRAGMA busy_timeout = {}; PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; \
             PRAGMA foreign_keys = ON; PRAGMA trusted_schema = OFF; PRAGMA secure_delete = ON;",
            BUSY.as_millis()
        );
        Ok(Self { url, setup })
    }

    fn open(&self) -> ConnectionResult<SqliteConnection> {
        let mut conn = SqliteConnection::establish(&self.url)?;
        conn.batch_execute(&self.setup)
            .map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(conn)
    }
}

async fn pool(opener: &Opener, size: u32, wait: Duration) -> StoreResult<Pool<Conn>> {
    let mut config = ManagerConfig::<Conn>::default();
    config.recycling_method = RecyclingMethod::Fast;
    let opener = opener.clone();
    config.custom_setup = Box::new(move |_| {
        let opener = opener.clone();
        async move {
            let conn = tokio::task::spawn_blocking(move || opener.open()).await;
            let conn = conn.map_err(|e| ConnectionError::BadConnection(e.to_string()))?;
            conn.map(SyncConnectionWrapper::new)
        }
        .boxed()
    });
    let manager = AsyncDieselConnectionManager::new_with_config(String::new(), config);
    Pool::builder()
        .max_size(size)
        .connection_timeout(wait)
        .test_on_check_out(false)
        .max_lifetime(None)
        .idle_timeout(None)
        .build(manager)
        .await
        .map_err(|e| StoreError::Unavailable(e.to_string()))
}

/// Takes what was deleted out of the file: it is overwritten there, but stands in the log beside it until that
/// starts anew. Whoever still reads an older state keeps it there a little longer.
async fn purge(conn: &mut Conn) {
    let emptied = conn.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)").await;
    if let Err(error) = emptied {
        tracing::warn!(%error, "the log of the database could not be emptied");
    }
}

async fn database_time(conn: &mut Conn) -> StoreResult<Timestamp> {
    use diesel::{dsl::sql, sql_types::BigInt};
    let now = sql::<BigInt>("CAST(unixepoch('subsec') * 1000 AS INTEGER)");
    let millis = diesel::select(now)
        .get_result::<i64>(conn)
        .await
        .map_err(from_diesel)?;
    Ok(Timestamp::from_millis(millis))
}

/// The user's row; `BEGIN IMMEDIATE` holds the whole database for writing already.
async fn lock_user(tx: &mut Conn, id: UserId) -> QueryResult<Option<CredentialsRow>> {
    let row = schema::users::table
        .find(DbId(id.as_uuid()))
        .select(CredentialsRow::as_select());
    row.first(tx).await.optional()
}

/// Nothing to do: `BEGIN IMMEDIATE` serialises all writers.
async fn lock_last_admin(_: &mut Conn) -> QueryResult<()> {
    Ok(())
}

/// Nothing to do: `BEGIN IMMEDIATE` serialises all writers.
async fn hold_registrations(_: &mut Conn, _: &EmailAddress) -> QueryResult<()> {
    Ok(())
}

/// Letters that are due, the longest waiting first.
async fn due_letters(tx: &mut Conn, most: u32, now: Timestamp) -> QueryResult<Vec<DbId>> {
    use schema::mail_outbox::{self, due_at, id, state};
    let due = mail_outbox::table
        .filter(state.eq(LetterState::Waiting.as_str()))
        .filter(due_at.le(DbTime(now)))
        .order(due_at)
        .limit(i64::from(most))
        .select(id);
    due.load(tx).await
}

/// All in one transaction: one commit instead of many, and one thread that does it.
async fn note_seen(conn: &mut Conn, seen: &[Seen]) -> StoreResult<()> {
    let seen = seen.to_vec();
    let noted = conn.spawn_blocking(move |conn| {
        conn.immediate_transaction(|tx| {
            seen.iter()
                .try_for_each(|one| ExecuteDsl::execute(sessions::noting(one), tx).map(drop))
        })
    });
    noted.await.map_err(from_diesel)
}

#[async_trait]
impl Migrations for SqliteStore {
    async fn pending(&self) -> StoreResult<Vec<String>> {
        self.migrating(migrate::pending).await
    }

    async fn apply(&self) -> StoreResult<Vec<String>> {
        self.migrating(migrate::apply).await
    }

    async fn revert(&self, n: usize) -> StoreResult<Vec<String>> {
        self.migrating(move |conn| migrate::revert(conn, n)).await
    }
}

impl SqliteStore {
    /// Runs on a connection of its own while no other process migrates: diesel's harness takes several
    /// transactions, so a lock beside the file has to keep others out.
    async fn migrating<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut SqliteConnection) -> StoreResult<T> + Send + 'static,
    ) -> StoreResult<T> {
        let opener = self.hot.opener().clone();
        to_the_end(async move {
            let done = tokio::task::spawn_blocking(move || {
                let beside = format!("{}.migrating", opener.url);
                let _alone = alone(&beside)?;
                let mut conn = opener
                    .open()
                    .map_err(|e| StoreError::Unavailable(e.to_string()))?;
                work(&mut conn)
            });
            done.await
                .unwrap_or_else(|e| Err(StoreError::Driver(e.to_string())))
        })
        .await
    }
}

/// Keeps other processes from migrating until the file is closed. Its thread does nothing else.
fn alone(beside: &str) -> StoreResult<fs::File> {
    let unavailable = |e: io::Error| StoreError::Unavailable(e.to_string());
    let file = fs::File::create(beside).map_err(unavailable)?;
    let watch = Stopwatch::start();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::Error(error)) => return Err(unavailable(error)),
            Err(fs::TryLockError::WouldBlock) if watch.elapsed() < migrate::LONGEST_WAIT => {
                thread::sleep(MIGRATION_POLL);
            }
            Err(fs::TryLockError::WouldBlock) => {
                let what = "another process has been migrating the database for long";
                return Err(StoreError::Unavailable(what.into()));
            }
        }
    }
}

#[path = "sql/addresses.rs"]
mod addresses;
#[path = "sql/audit.rs"]
mod audit;
#[path = "sql/contract.rs"]
mod contract;
#[path = "sql/erasing.rs"]
mod erasing;
#[path = "sql/faults.rs"]
mod faults;
#[path = "sql/limits.rs"]
mod limits;
#[path = "sql/line.rs"]
mod line;
#[path = "sql/migrate.rs"]
mod migrate;
#[path = "sql/moving.rs"]
mod moving;
#[path = "sql/outbox.rs"]
mod outbox;
#[path = "sql/passwords.rs"]
mod passwords;
#[path = "sql/preparing.rs"]
mod preparing;
#[path = "sql/refreshing.rs"]
mod refreshing;
#[path = "sql/registrations.rs"]
mod registrations;
#[path = "sql/roles.rs"]
mod roles;
#[path = "sql/rows.rs"]
mod rows;
#[path = "sqlite/schema.rs"]
mod schema;
#[path = "sql/secrets.rs"]
mod secrets;
#[path = "sql/sessions.rs"]
mod sessions;
#[path = "sql/standing.rs"]
mod standing;
#[path = "sql/sweeping.rs"]
mod sweeping;
#[path = "sql/users.rs"]
mod users;

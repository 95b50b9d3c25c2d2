//! PostgreSQL, through diesel-async.
//!
//! What differs from SQLite stands here: connections, column types, row locks and the hot read. The
//! queries themselves are written once in `store/sql` and mounted at the end.

mod columns;
pub(super) mod health;
mod hot;
mod tls;
mod types;

use std::{
    collections::HashSet,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use diesel::{
    prelude::*,
    sql_types::{self, Array},
};
use diesel_async::{
    AnsiTransactionManager, AsyncMigrationHarness, AsyncPgConnection, RunQueryDsl,
    SimpleAsyncConnection, TransactionManager,
    pooled_connection::{
        AsyncDieselConnectionManager, ManagerConfig, PoolableConnection, RecyclingMethod, bb8::Pool,
    },
};
use diesel_migrations::{EmbeddedMigrations, embed_migrations};
use futures_util::{FutureExt, future::join_all};
use tokio::{
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_postgres::{
    config::{SslMode, TargetSessionAttrs},
    error::SqlState,
};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use self::contract::SqlStore as PostgresStore;
use self::{
    faults::{Fault, from_diesel, from_pool},
    hot::Hot,
    line::Line,
    rows::CredentialsRow,
    types::{DbId, DbTime},
};
use crate::{
    clock::{Span, Timestamp},
    email::EmailAddress,
    ids::UserId,
    model::mail::LetterState,
    store::{
        Migrations, Seen, StoreError, StoreResult,
        circuit::{Circuit, Probe},
        settings::PostgresSettings,
    },
};

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("migrations/postgres");
/// Any number that no other program uses on the same database.
const MIGRATION_LOCK: i64 = 0x0064_6f6f_7277_6172;
/// Sessions that are noted by one statement: few enough for the time that it has.
const SEEN_AT_ONCE: usize = 256;
/// Connections that do nothing but look sessions up.
const HOT_CONNECTIONS: u32 = 4;
/// Connections that are there in each pool before anybody asks for one after an outage.
const FRESH_CONNECTIONS: u32 = 4;
/// How long those who ask are refused for them at the most.
const LONGEST_RENEWAL: Duration = Duration::from_secs(2);
/// How often in a row a server must not be found before a migration on it is given up.
const LOOKOUTS: u32 = 5;
const NO_ANSWER: &str = "the database did not answer in time";

/// For connections that only look rows up by their keys: one plan, by the keys' indexes, for ever. Left to itself the
/// server plans anew for every short list, and for a table that was small at the time keeps reading all of it.
/// Servers that only resemble PostgreSQL may lack some of these.
const FOR_LOOKUPS: &str = "SELECT set_config(name, CASE vartype WHEN 'enum' THEN 'force_generic_plan' ELSE 'off' END, \
     false) FROM pg_settings WHERE name IN ('plan_cache_mode', 'enable_seqscan', 'enable_hashjoin', 'enable_mergejoin')";

type Conn = AsyncPgConnection;
type Backend = diesel::pg::Pg;

macro_rules! write_tx {
    ($conn:expr, $body:expr) => {
        diesel_async::AsyncConnection::transaction::<_, crate::store::postgres::faults::Fault, _>(
            $conn, $body,
        )
        .await
    };
}

/// The server's own timeouts bound neither a commit that waits for a standby nor a server that has
/// stopped answering, so each call has a deadline here as well.
macro_rules! in_time {
    ($store:expr, $conn:expr, $work:expr) => {
        match $store.circuit.within($store.hot.deadline, $work).await {
            Some(done) => done,
            None => Err(crate::store::postgres::give_up($conn)),
        }
    };
}

macro_rules! insert_all {
    ($conn:expr, $table:expr, $rows:expr) => {
        diesel::insert_into($table)
            .values($rows)
            .execute($conn)
            .await?
    };
}

macro_rules! has_role {
    ($role:expr) => {
        diesel::PgArrayExpressionMethods::contains(
            users::roles,
            crate::store::postgres::types::DbNames::of($role),
        )
    };
}

impl PostgresStore {
    /// A store on this database, which has to answer once: a pool would not say why it does not.
    ///
    /// # Errors
    /// [`StoreError::Driver`] when the URL cannot be understood; the URL itself is not repeated.
    /// [`StoreError::Unavailable`] when there is no connection to be had.
    pub async fn connect(settings: &PostgresSettings) -> StoreResult<Self> {
        let connector = Connector::new(settings)?;
        let for_lookups = Arc::new(Connector {
            more: FOR_LOOKUPS,
            ..connector.clone()
        });
        let connector = Arc::new(connector);
        let closed = Arc::clone(&connector.closed);
        let acquire = connector.acquire_timeout;
        let first = connector.connect().await;
        drop(first.map_err(|e| StoreError::Unavailable(e.to_string()))?);
        let main = pool(&connector, settings.max_connections.max(2), acquire).await?;
        let hot = pool(&for_lookups, HOT_CONNECTIONS, acquire).await?;
        let counting = pool(&connector, settings.limiter_connections.max(1), acquire).await?;
        // The server's own timeout comes first and says more.
        let deadline = settings.statement_timeout.to_duration() + Duration::from_secs(1);
        let pools: Arc<[_]> = [
            ("main", main.clone(), settings.max_connections.max(2)),
            ("lookups", hot.clone(), HOT_CONNECTIONS),
            (
                "limits",
                counting.clone(),
                settings.limiter_connections.max(1),
            ),
        ]
        .into();
        let outlook = Outlook {
            connector: Arc::clone(&connector),
            pools: Arc::clone(&pools),
        };
        let circuit = Circuit::new(Some(Box::new(outlook)));
        let (main, counting) = (Line::new(main, &circuit), Line::new(counting, &circuit));
        Ok(Self {
            pools,
            writers: main.clone(),
            readers: main,
            counting: counting.clone(),
            reading_counters: counting,
            hot: Hot::new(
                Line::new(hot, &circuit),
                circuit.clone(),
                connector,
                deadline,
            ),
            circuit,
            closed,
        })
    }
}

/// Looks out for the server while the circuit is open.
struct Outlook {
    connector: Arc<Connector>,
    pools: Arc<[(&'static str, Pool<Conn>, u32)]>,
}

#[async_trait]
impl Probe for Outlook {
    async fn answers(&self) -> bool {
        self.connector.finds_server().await
    }

    /// Connections that lay idle may lead to a server that is gone without a word. New ones are there before
    /// everybody asks for one at the same moment.
    async fn renew(&self) {
        let pools = self.pools.iter().cloned();
        join_all(pools.map(|(_, pool, most)| renew(pool, most))).await;
    }
}

async fn renew(pool: Pool<Conn>, most: u32) {
    let lay_idle = 0..pool.state().idle_connections;
    let old = join_all(lay_idle.map(|_| timeout(Duration::from_millis(50), pool.get()))).await;
    for mut conn in old.into_iter().flatten().flatten() {
        give_up(&mut conn);
    }
    let connected = async {
        loop {
            let fresh = (0..FRESH_CONNECTIONS.min(most)).map(|_| pool.get());
            if join_all(fresh).await.iter().all(Result::is_ok) {
                return;
            }
        }
    };
    // A server that has no place for all of them serves those who find one.
    drop(timeout(LONGEST_RENEWAL, connected).await);
}

/// Makes the pool throw a connection away: what was asked on it may be answered later, or never.
fn give_up(conn: &mut Conn) -> StoreError {
    AnsiTransactionManager::transaction_manager_status_mut(conn).set_in_error();
    StoreError::Unavailable(NO_ANSWER.into())
}

#[derive(Clone)]
struct Connector {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    acquire_timeout: Duration,
    statement_timeout: Span,
    /// What is set besides.
    more: &'static str,
    /// Whether the store was let go, so that nobody misses a connection any more.
    closed: Arc<AtomicBool>,
}

impl Connector {
    /// What the settings say, understood; nobody is asked yet.
    fn new(settings: &PostgresSettings) -> StoreResult<Self> {
        let (url, tls) = tls::taken_from(settings.url.expose())?;
        let mut config = tokio_postgres::Config::from_str(&url).map_err(|_| {
            StoreError::Driver(
                "the URL is not of the form postgres://user:password@host/database".into(),
            )
        })?;
        let acquire = settings.acquire_timeout.to_duration();
        // A peer that vanished without a word is noticed by the kernel.
        config
            .connect_timeout(acquire)
            .tcp_user_timeout(Duration::from_secs(10));
        config
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
        // A standby may lag behind a revocation, so only a server that takes writes is spoken to.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        if config.get_application_name().is_none() {
            config.application_name("doorward");
        }
        Ok(Self {
            config,
            tls,
            acquire_timeout: acquire,
            statement_timeout: settings.statement_timeout,
            more: "",
            closed: Arc::default(),
        })
    }

    /// How long connecting may take: the driver's own timeout is for each host, and ends with the TCP handshake.
    fn longest(&self) -> Duration {
        let attempts = self.hosts().saturating_add(1);
        self.acquire_timeout.saturating_mul(attempts)
    }

    async fn connect(&self) -> ConnectionResult<Conn> {
        self.in_time(self.set_up()).await
    }

    async fn in_time<T>(
        &self,
        connecting: impl Future<Output = ConnectionResult<T>>,
    ) -> ConnectionResult<T> {
        let connected = timeout(self.longest(), connecting).await;
        connected.unwrap_or_else(|_| Err(ConnectionError::BadConnection(NO_ANSWER.to_owned())))
    }

    /// Whether the server lets somebody in. One that has no place left is there all the same.
    async fn finds_server(&self) -> bool {
        let limit = self.acquire_timeout.saturating_mul(self.hosts());
        match timeout(limit, self.authenticated()).await {
            Ok(Ok(connected)) => connected.is_ok(),
            Ok(Err(refused)) => refused.code() == Some(&SqlState::TOO_MANY_CONNECTIONS),
            Err(_) => false,
        }
    }

    fn hosts(&self) -> u32 {
        let named = self.config.get_hosts().len();
        let hosts = named.max(self.config.get_hostaddrs().len());
        u32::try_from(hosts).unwrap_or(u32::MAX)
    }

    async fn set_up(&self) -> ConnectionResult<Conn> {
        let conn = self.authenticated().await.map_err(|e| refused(&e))??;
        self.told(conn).await
    }

    async fn told(&self, mut conn: Conn) -> ConnectionResult<Conn> {
        let told = conn.batch_execute(&self.set_up_statement()).await;
        told.map_err(ConnectionError::CouldntSetupConfiguration)?;
        Ok(conn)
    }

    /// What every connection is told before anything else.
    fn set_up_statement(&self) -> String {
        let timeout = self.statement_timeout.as_millis();
        format!(
            "SET statement_timeout = {timeout}; SET lock_timeout = {timeout}; \
             SET idle_in_transaction_session_timeout = {timeout}; \
             SET default_transaction_isolation = 'read committed'; SET TimeZone = 'UTC'; \
             SELECT set_config('synchronous_commit', 'on', false) \
             WHERE current_setting('synchronous_commit') = 'off'; {}",
            self.more
        )
    }

    /// A connection to such a server that no pool has and that is not set up.
    async fn alone(
        &self,
        server: TargetSessionAttrs,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        Ok(self.alone_with_end(server).await?.0)
    }

    /// As [`Self::alone`], with what ends it: whoever waits for an answer is told that there will be none.
    async fn alone_with_end(
        &self,
        server: TargetSessionAttrs,
    ) -> Result<(tokio_postgres::Client, AbortHandle), tokio_postgres::Error> {
        let mut config = self.config.clone();
        config.target_session_attrs(server);
        if tls::is_plain(&config) {
            let (client, io) = config.connect(tokio_postgres::NoTls).await?;
            // How it ends is told to whoever asks on it.
            return Ok((client, tokio::spawn(io).abort_handle()));
        }
        config.ssl_mode(SslMode::Require);
        let (client, io) = config.connect(self.tls.clone()).await?;
        Ok((client, tokio::spawn(io).abort_handle()))
    }

    /// As [`Self::connect`], with what ends the connection.
    async fn connect_with_end(&self) -> ConnectionResult<(Conn, AbortHandle)> {
        let connecting = async {
            let server = TargetSessionAttrs::ReadWrite;
            let connected = self.alone_with_end(server).await;
            let (client, end) = connected.map_err(|e| refused(&e))?;
            let conn = self.told(Conn::try_from(client).await?).await?;
            Ok((conn, end))
        };
        self.in_time(connecting).await
    }

    /// Returns when the server has let nobody in for a while: the end of what may take longer than any deadline.
    async fn server_is_gone(&self) {
        let mut missed = 0;
        while missed < LOOKOUTS {
            sleep(self.acquire_timeout).await;
            missed = if self.finds_server().await {
                0
            } else {
                missed + 1
            };
        }
    }

    /// The outer error is the server's, or that there is none.
    async fn authenticated(&self) -> Result<ConnectionResult<Conn>, tokio_postgres::Error> {
        if tls::is_plain(&self.config) {
            let (client, io) = self.config.connect(tokio_postgres::NoTls).await?;
            return Ok(Conn::try_from_client_and_connection(client, io).await);
        }
        let mut config = self.config.clone();
        config.ssl_mode(SslMode::Require);
        let (client, io) = config.connect(self.tls.clone()).await?;
        Ok(Conn::try_from_client_and_connection(client, io).await)
    }
}

fn refused(error: &tokio_postgres::Error) -> ConnectionError {
    ConnectionError::BadConnection(describe(error))
}

/// The driver's words with their cause, which alone says what happened.
fn describe(error: &tokio_postgres::Error) -> String {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

async fn pool(connector: &Arc<Connector>, size: u32, acquire: Duration) -> StoreResult<Pool<Conn>> {
    let mut config = ManagerConfig::<Conn>::default();
    // A ping at every check-out would double the work. The driver knows by itself when its connection is
    // gone, also while it lay idle in the pool; nothing is asked over the wire.
    config.recycling_method = RecyclingMethod::CustomFunction(Box::new(|conn: &mut Conn| {
        let gone = conn.is_broken();
        let gone = gone.then(|| diesel::result::Error::BrokenTransactionManager);
        std::future::ready(gone.map_or(Ok(()), Err)).boxed()
    }));
    let connector = Arc::clone(connector);
    config.custom_setup = Box::new(move |_| {
        let connector = Arc::clone(&connector);
        async move {
            let connected = connector.connect().await;
            // Whoever waits for a connection is only told that there is none.
            connected.inspect_err(|error| {
                if !AtomicBool::load(&connector.closed, Ordering::Relaxed) {
                    tracing::warn!(%error, "no connection to PostgreSQL");
                }
            })
        }
        .boxed()
    });
    let manager = AsyncDieselConnectionManager::new_with_config(String::new(), config);
    let pool = Pool::builder()
        .max_size(size)
        .connection_timeout(acquire)
        .test_on_check_out(true);
    pool.max_lifetime(Some(Duration::from_mins(30)))
        .build(manager)
        .await
        .map_err(|e| StoreError::Unavailable(e.to_string()))
}

/// Rows that were deleted are gone for every reader; when their bytes go is the server's affair (`VACUUM`).
async fn purge(_: &mut Conn) {}

async fn database_time(conn: &mut Conn) -> StoreResult<Timestamp> {
    let now = diesel::select(diesel::dsl::sql::<diesel::sql_types::Timestamptz>(
        "clock_timestamp()",
    ));
    now.get_result::<DbTime>(conn)
        .await
        .map(|at| at.0)
        .map_err(from_diesel)
}

/// Holds a user's row until the transaction ends: writers of one user's sessions come one by one.
async fn lock_user(tx: &mut Conn, id: UserId) -> QueryResult<Option<CredentialsRow>> {
    let row = schema::users::table
        .find(DbId(id.as_uuid()))
        .select(CredentialsRow::as_select());
    row.for_update().first(tx).await.optional()
}

/// Holds the one row that all changes pass which could remove an administrator.
async fn lock_last_admin(tx: &mut Conn) -> QueryResult<()> {
    use schema::guards;
    let row = guards::table.find("last_admin").select(guards::name);
    row.for_update().first::<String>(tx).await.map(drop)
}

/// One commit for all sessions whose rows nobody holds: what waits for nobody is in no circle of
/// waiting. The others follow, each in a statement of its own, which holds nothing while it waits.
async fn note_seen(conn: &mut Conn, seen: &[Seen]) -> StoreResult<()> {
    let ids: Vec<DbId> = seen
        .iter()
        .map(|one| DbId(one.session_id.as_uuid()))
        .collect();
    let noted: Result<Vec<DbId>, Fault> = write_tx!(conn, async |tx| {
        let free = schema::sessions::table
            .filter(schema::sessions::id.eq_any(&ids))
            .select(schema::sessions::id)
            .for_update()
            .skip_locked();
        let free: Vec<DbId> = free.load(tx).await?;
        let users: Vec<DbId> = seen.iter().map(|one| DbId(one.user_id.as_uuid())).collect();
        let times: Vec<DbTime> = seen.iter().map(|one| DbTime(one.at)).collect();
        let update = diesel::sql_query(
            "UPDATE sessions SET last_seen_at = seen.at \
             FROM (SELECT id, user_id, max(at) AS at FROM unnest($1, $2, $3) AS one (id, user_id, at) \
                   GROUP BY id, user_id) AS seen \
             WHERE sessions.id = ANY($4) AND sessions.id = seen.id \
             AND sessions.user_id = seen.user_id AND sessions.closed_at IS NULL \
             AND sessions.last_seen_at < seen.at",
        );
        let update = update
            .bind::<Array<sql_types::Uuid>, _>(&ids)
            .bind::<Array<sql_types::Uuid>, _>(users)
            .bind::<Array<sql_types::Timestamptz>, _>(times)
            .bind::<Array<sql_types::Uuid>, _>(&free);
        update.execute(tx).await?;
        Ok(free)
    });
    let noted: HashSet<DbId> = noted?.into_iter().collect();
    let held: Vec<Seen> = seen
        .iter()
        .copied()
        .filter(|one| !noted.contains(&DbId(one.session_id.as_uuid())))
        .collect();
    for one in &held {
        let noted = sessions::noting(one).execute(conn).await;
        noted.map_err(from_diesel)?;
    }
    Ok(())
}

/// Holds all registrations of an address, in one order, so that two who do so cannot wait for each other.
async fn hold_registrations(tx: &mut Conn, address: &EmailAddress) -> QueryResult<()> {
    use schema::pending_registrations::{self, email_canonical, id};
    let held = pending_registrations::table
        .filter(email_canonical.eq(address.canonical()))
        .order(id)
        .select(id)
        .for_update();
    held.load::<DbId>(tx).await.map(drop)
}

/// Letters that are due, the longest waiting first; those that another worker is claiming are passed by.
async fn due_letters(tx: &mut Conn, most: u32, now: Timestamp) -> QueryResult<Vec<DbId>> {
    use schema::mail_outbox::{self, due_at, id, state};
    let due = mail_outbox::table
        .filter(state.eq(LetterState::Waiting.as_str()))
        .filter(due_at.le(DbTime(now)))
        .order(due_at)
        .limit(i64::from(most))
        .select(id)
        .for_update()
        .skip_locked();
    due.load(tx).await
}

#[async_trait]
impl Migrations for PostgresStore {
    async fn pending(&self) -> StoreResult<Vec<String>> {
        let mut conn = self.writers.pool.get().await.map_err(from_pool)?;
        // Diesel's own question makes its table even where it is, which takes a right to change the
        // schema that a server needs for nothing else (ASVS 13.2.2).
        let asked = diesel::sql_query("SELECT version FROM __diesel_schema_migrations");
        let Ok(answer) = timeout(self.hot.deadline, asked.load::<Applied>(&mut conn)).await else {
            return Err(give_up(&mut conn));
        };
        drop(conn);
        match answer {
            Ok(applied) => migrate::missing(&applied.into_iter().map(|row| row.version).collect()),
            Err(_) => self.alone(migrate::pending).await,
        }
    }

    async fn apply(&self) -> StoreResult<Vec<String>> {
        self.alone(migrate::apply).await
    }

    async fn revert(&self, n: usize) -> StoreResult<Vec<String>> {
        self.alone(|harness| migrate::revert(harness, n)).await
    }
}

/// A change of the schema that was made.
#[derive(QueryableByName)]
struct Applied {
    #[diesel(sql_type = sql_types::Text)]
    version: String,
}

type Harness = AsyncMigrationHarness<Conn>;

impl PostgresStore {
    /// Runs migrations while no other process does.
    async fn alone<T>(&self, work: impl FnOnce(&mut Harness) -> StoreResult<T>) -> StoreResult<T> {
        let connector = Arc::clone(&self.hot.connector);
        // The lock ends with the connection.
        let connected = connector.connect_with_end().await;
        let (mut conn, end) = connected.map_err(|e| StoreError::Unavailable(e.to_string()))?;
        // Waiting for another process and building an index may take longer than a statement of ours, but not without
        // a server.
        let given_up = Arc::new(AtomicBool::new(false));
        let mut watch = JoinSet::new();
        watch.spawn({
            let given_up = Arc::clone(&given_up);
            async move {
                connector.server_is_gone().await;
                AtomicBool::store(&given_up, true, Ordering::Relaxed);
                end.abort();
            }
        });
        let wait = migrate::LONGEST_WAIT.as_millis();
        let lock = format!(
            "SET statement_timeout = 0; SET lock_timeout = {wait}; SELECT pg_advisory_lock({MIGRATION_LOCK})"
        );
        let locked = conn.batch_execute(&lock).await.map_err(from_diesel);
        let done = locked.and_then(|()| work(&mut AsyncMigrationHarness::new(conn)));
        if AtomicBool::load(&given_up, Ordering::Relaxed) {
            return done.map_err(|_| StoreError::Unavailable(NO_ANSWER.into()));
        }
        done
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
#[path = "postgres/schema.rs"]
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

//! What the machine could do at best: a bare poem endpoint, the databases' own point lookups, and Doorward's
//! endpoint without its lookup. Each in a process of its own, or as the only work of this one, like what they are
//! compared with.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    time::Duration,
};

use diesel::{
    Connection, QueryableByName, RunQueryDsl,
    sql_types::{Binary, Text},
    sqlite::SqliteConnection,
};
use doorward::{
    Auth,
    clock::Stopwatch,
    lookup::Lookup,
    store::{open::open, settings::DatabaseSettings},
    tokens::KeyRing,
};
use mongodb::{
    bson::{RawDocumentBuf, doc},
    options::{Acknowledgment, ClientOptions, ReadConcern, WriteConcern},
};
use poem::{
    Route, Server, get, handler,
    listener::{Acceptor, Listener, TcpListener},
};
use tokio::task::JoinSet;

use crate::{
    Outcome,
    database::Database,
    per_second,
    random::SplitMix,
    requests::Side,
    seed::{id_bson, session_id, user_id},
    service::Running,
    wrk::Load,
};

/// The first argument of a process that serves a baseline; then which, and for `constant` the rest.
pub(crate) const ROLE: &str = "baseline";
/// The variable that holds the key of a baseline's tokens.
const KEY: &str = "DOORWARD_BENCH_KEY";

#[handler]
fn bare() -> &'static str {
    "{}"
}

/// The process that serves a baseline; says where on standard output.
pub(crate) fn serve(arguments: &[String]) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match arguments {
            [which] if which == "bare" => {
                let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await?;
                let address = acceptor.local_addr();
                let address = address.first().and_then(|a| a.as_socket_addr());
                say(&address.ok_or("not a TCP address")?.to_string())?;
                let app = Route::new().at("/*any", get(bare));
                Server::new_with_acceptor(acceptor).run(app).await?;
            }
            [which, database] if which == "constant" => constant(database).await?,
            _ => return Err("a baseline is bare, or constant and a database".into()),
        }
        Ok(())
    })
}

fn say(address: &str) -> Outcome<()> {
    println!("{address}");
    Ok(std::io::stdout().flush()?)
}

/// Serves the API with the first session in place of every lookup.
async fn constant(database: &str) -> Outcome<()> {
    let mut settings = DatabaseSettings::default();
    settings.sqlite.path = database.into();
    let store = open(&settings).await.map_err(|e| e.to_string())?.store;
    let first = (user_id(1), session_id(1));
    let view = store.live_sessions(&[first]).await?.pop();
    let view = view.ok_or("no answer")??.ok_or("no first session")?;
    let key = env::var(KEY)?.into();
    let keys = KeyRing::single(&key).map_err(|e| e.to_string())?;
    let builder = Auth::builder(store, keys).lookup(Lookup::constant(view));
    let running = Running::serve(builder).await?;
    say(&running.address)?;
    std::future::pending().await
}

/// A baseline in a process of its own; it ends with this value.
pub(crate) struct Baseline {
    child: Child,
    pub(crate) address: String,
}

impl Baseline {
    /// A poem endpoint that does nothing.
    pub(crate) fn bare() -> Outcome<Self> {
        Self::start(Command::new(env::current_exe()?).args([ROLE, "bare"]))
    }

    /// Doorward on SQLite, with a constant in place of every lookup.
    pub(crate) fn constant(side: &Side<'_>) -> Outcome<Self> {
        let mut command = Command::new(env::current_exe()?);
        command.args([ROLE, "constant"]);
        command.arg(&side.database.settings().sqlite.path);
        Self::start(command.env(KEY, side.key.expose()))
    }

    fn start(command: &mut Command) -> Outcome<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let said = child.stdout.take().ok_or("no standard output")?;
        let mut address = String::new();
        BufReader::new(said).read_line(&mut address)?;
        Ok(Self {
            child,
            address: address.trim().to_owned(),
        })
    }
}

impl Drop for Baseline {
    fn drop(&mut self) {
        // A process that has ended already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `find_one` by `_id` with the driver alone, by so many tasks, each waiting for its answer.
pub(crate) async fn find_one(
    settings: &DatabaseSettings,
    users: u32,
    tasks: usize,
    seconds: u64,
) -> Outcome<Load> {
    let mut options = ClientOptions::parse(settings.mongodb.url.expose()).await?;
    options.max_pool_size = Some(64);
    options.read_concern = Some(ReadConcern::majority());
    let majority = WriteConcern::builder().w(Acknowledgment::Majority).build();
    options.write_concern = Some(majority);
    let client = mongodb::Client::with_options(options)?;
    let people = client
        .database(&settings.mongodb.database)
        .collection::<RawDocumentBuf>("users");
    let time = Duration::from_secs(seconds);
    let watch = Stopwatch::start();
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let people = people.clone();
        running.spawn(async move {
            let mut random = SplitMix((task as u64 + 1) << 32);
            let mut micros = Vec::new();
            while watch.elapsed() < time {
                let n = u32::try_from(random.below(users as usize))? + 1;
                let asked = Stopwatch::start();
                let key = doc! { "_id": id_bson(user_id(n).as_uuid()) };
                people.find_one(key).await?.ok_or("a user is missing")?;
                micros.push(asked.elapsed());
            }
            Outcome::Ok(micros)
        });
    }
    let mut all = Vec::new();
    while let Some(done) = running.join_next().await {
        all.append(&mut done??);
    }
    let took = watch.elapsed();
    client.shutdown().await;
    load(all, took)
}

/// One lookup after the other on one connection to PostgreSQL: what a round trip takes.
pub(crate) async fn round_trips(database: &Database, users: u32, seconds: u64) -> Outcome<Load> {
    let (client, connection) = database.postgres()?.connect(tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    let lookup = client
        .prepare(&format!(
            "{} WHERE sessions.id = $1::text::uuid",
            crate::pgbench::JOIN
        ))
        .await?;
    let mut random = SplitMix(1 << 32);
    let mut micros = Vec::new();
    let (watch, time) = (Stopwatch::start(), Duration::from_secs(seconds));
    while watch.elapsed() < time {
        let n = u32::try_from(random.below(users as usize))? + 1;
        let asked = Stopwatch::start();
        client
            .query_one(&lookup, &[&session_id(n).to_string()])
            .await?;
        micros.push(asked.elapsed());
    }
    let took = watch.elapsed();
    drop(lookup);
    drop(client);
    connection.await??;
    load(micros, took)
}

/// One lookup after the other on one connection to SQLite.
pub(crate) fn reads(database: &Database, users: u32, seconds: u64) -> Outcome<Load> {
    let path = database.settings().sqlite.path.display().to_string();
    let mut connection = SqliteConnection::establish(&path)?;
    let mut random = SplitMix(1 << 32);
    let mut micros = Vec::new();
    let (watch, time) = (Stopwatch::start(), Duration::from_secs(seconds));
    while watch.elapsed() < time {
        let n = u32::try_from(random.below(users as usize))? + 1;
        let asked = Stopwatch::start();
        let id = session_id(n).as_uuid();
        // diesel keeps the statement prepared.
        let found: Vec<Found> = diesel::sql_query(
            "SELECT users.email FROM sessions INNER JOIN users ON sessions.user_id = users.id \
             WHERE sessions.id = ?",
        )
        .bind::<Binary, _>(id.as_bytes().to_vec())
        .load(&mut connection)?;
        if found.is_empty() {
            return Err("a session is missing".into());
        }
        micros.push(asked.elapsed());
    }
    load(micros, watch.elapsed())
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = Text)]
    #[expect(dead_code, reason = "read as the others are, and not looked at")]
    email: String,
}

fn load(mut took: Vec<Duration>, time: Duration) -> Outcome<Load> {
    took.sort_unstable();
    let at = |percent: usize| -> Outcome<f64> {
        let n = took.len().saturating_sub(1) * percent / 100;
        Ok(took.get(n).ok_or("not one answer")?.as_secs_f64() * 1e6)
    };
    Ok(Load {
        per_second: per_second(took.len(), time),
        p50_micros: at(50)?,
        p99_micros: Some(at(99)?),
    })
}

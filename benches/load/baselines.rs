//! What the machine could do at best: a bare poem endpoint that makes one round trip to its database, MongoDB's own
//! point lookups, and Doorward's endpoint without its lookup. Each in a process of its own, or as the only work of this
//! one, like what they are compared with.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use doorward::{
    Auth,
    clock::Stopwatch,
    lookup::Lookup,
    store::{
        open::open,
        settings::{Backend, DatabaseSettings},
    },
    tokens::KeyRing,
};
use poem::{
    EndpointExt, Route, Server, get, handler,
    listener::{Acceptor, Listener, TcpListener},
    web::Data,
};
use tokio::task::JoinSet;

use crate::{
    Outcome, per_second,
    random::SplitMix,
    requests::Side,
    seed::{session_id, user_id},
    service::Running,
    trips::{Trips, find, people},
    wrk::Load,
};

/// The first argument of a process that serves a baseline; then which, its database, and for `trip` how many users
/// are there.
pub(crate) const ROLE: &str = "baseline";
/// The variable that holds the key of a baseline's tokens.
const KEY: &str = "DOORWARD_BENCH_KEY";
/// The variable that holds the URL of a baseline's database.
const URL: &str = "DOORWARD_BENCH_URL";

#[handler]
async fn trip(Data(trips): Data<&Arc<Trips>>) -> poem::Result<&'static str> {
    trips.once().await?;
    Ok("{}")
}

/// The process that serves a baseline; says where on standard output.
pub(crate) fn serve(arguments: &[String]) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match arguments {
            [which, database] if which == "constant" => constant(database).await,
            [which, backend, database, users] if which == "trip" => {
                let settings = settings(crate::backend(backend)?, database);
                bare(Trips::to(&settings, users.parse()?).await?).await
            }
            _ => Err("a baseline is constant or trip".into()),
        }
    })
}

fn settings(backend: Backend, database: &str) -> DatabaseSettings {
    let url = env::var(URL).unwrap_or_default();
    let mut settings = DatabaseSettings {
        backend,
        ..DatabaseSettings::default()
    };
    match backend {
        Backend::Sqlite => settings.sqlite.path = database.into(),
        Backend::Postgres => settings.postgres.url = url.into(),
        Backend::Mongodb => {
            settings.mongodb.url = url.into();
            database.clone_into(&mut settings.mongodb.database);
        }
    }
    settings
}

/// Serves what only makes a round trip.
async fn bare(trips: Trips) -> Outcome<()> {
    let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await?;
    let address = acceptor.local_addr();
    let address = address.first().and_then(|a| a.as_socket_addr());
    say(&address.ok_or("not a TCP address")?.to_string())?;
    let app = Route::new().at("/*any", get(trip)).data(Arc::new(trips));
    Ok(Server::new_with_acceptor(acceptor).run(app).await?)
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
    /// A poem endpoint that does nothing but one round trip to the database.
    pub(crate) fn trip(side: &Side<'_>) -> Outcome<Self> {
        let settings = side.database.settings();
        let mut command = Command::new(env::current_exe()?);
        command.args([ROLE, "trip", &side.backend().to_string()]);
        match side.backend() {
            Backend::Sqlite => command.arg(&settings.sqlite.path),
            Backend::Postgres => command.arg("").env(URL, settings.postgres.url.expose()),
            Backend::Mongodb => {
                command.env(URL, settings.mongodb.url.expose());
                command.arg(&settings.mongodb.database)
            }
        };
        Self::start(command.arg(side.users.to_string()))
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
    let people = people(settings).await?;
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
                find(&people, n).await?;
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
    people.client().clone().shutdown().await;
    load(all, took)
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

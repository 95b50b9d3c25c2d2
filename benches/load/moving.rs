//! `doorward transfer` around all three databases, and whether what comes back is what was sent.

use std::{fs, io::Write, process::Command};

use diesel::{
    Connection as _, QueryableByName, RunQueryDsl, sql_types::Text, sqlite::SqliteConnection,
};
use doorward::{
    clock::Stopwatch,
    passwords::PasswordPolicy,
    store::{moving::Kind, settings::Backend},
    tokens::KeyRing,
};
use serde_json::Value;
use tempfile::NamedTempFile;

use crate::{
    Options, Outcome,
    client::{self, Connection},
    database::Database,
    output_of,
    report::{Leg, Report},
    requests::{ME, Side},
    seed,
    service::Running,
    urls::url_of,
};

/// People who ask for letters, which are moved as well.
const ASKING: u32 = 1000;

/// Moves users, sessions, letters and the audit trail from SQLite to PostgreSQL, to MongoDB and to SQLite again.
pub(crate) async fn measure(options: &Options, report: &mut Report) -> Outcome<()> {
    let first = Database::create(Backend::Sqlite, "moved").await?;
    let mut stations = Vec::new();
    let moved = around(options, &first, &mut stations, report).await;
    for station in stations {
        station.drop().await?;
    }
    moved
}

async fn around(
    options: &Options,
    first: &Database,
    stations: &mut Vec<Database>,
    report: &mut Report,
) -> Outcome<()> {
    let side = Side::prepare(first, options.moved).await?;
    let token = fs::read_to_string(&side.tokens)?;
    let token = token.lines().next().ok_or("no token")?;
    ask_for_letters(&side).await?;
    seed::copy_records(first, options.moved)?;
    let id = asked_who(&side, token).await?;
    let before = dump(first)?;
    for backend in [Backend::Postgres, Backend::Mongodb, Backend::Sqlite] {
        let target = Database::create(backend, "station").await?;
        let from = stations.last().unwrap_or(first);
        eprintln!("{} to {backend}: {} users", from.backend(), options.moved);
        let leg = moved(from, &target);
        stations.push(target);
        report.legs.push(leg?);
    }
    let last = stations.last().ok_or("nothing was moved")?;
    if dump(last)? != before {
        return Err("what came back is not what was sent".into());
    }
    let side = Side {
        database: last,
        ..side
    };
    if asked_who(&side, token).await? != id {
        return Err("the token is somebody else's now".into());
    }
    Ok(())
}

async fn ask_for_letters(side: &Side<'_>) -> Outcome<()> {
    let store = side.database.open().await?.store;
    let keys = KeyRing::single(&side.key).map_err(|e| e.to_string())?;
    let running = Running::start_with_mail(store, keys, PasswordPolicy::light()).await?;
    let mut connection = Connection::open(&running.address).await?;
    for n in 1..=ASKING.min(side.users) {
        let body = format!(r#"{{"email":"{}"}}"#, seed::address(n));
        let request = client::post("/v1/auth/password/forgot", &body);
        let status = connection.ask(&request).await?;
        if status != 202 {
            return Err(format!("asking for a letter was answered {status}").into());
        }
    }
    running.stop().await;
    Ok(())
}

/// What the program on this database makes of a token.
async fn asked_who(side: &Side<'_>, token: &str) -> Outcome<String> {
    let served = side.serve(&[]).await?;
    let mut connection = Connection::open(&served.address).await?;
    let request = client::get(ME, token);
    let status = connection.ask(&request).await?;
    let answer = connection.answer();
    if status != 200 {
        return Err(format!("the token was answered {answer}").into());
    }
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    let body: Value = serde_json::from_str(body)?;
    Ok(body["id"].as_str().ok_or("no id")?.to_owned())
}

fn moved(from: &Database, to: &Database) -> Outcome<Leg> {
    let (source, target) = (url_file(from)?, url_file(to)?);
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
    command.args(["transfer", "--source-is-stopped", "--json"]);
    command.arg("--from-file").arg(source.path());
    command.arg("--to-file").arg(target.path());
    let watch = Stopwatch::start();
    let said: Value = serde_json::from_str(&output_of(&mut command)?)?;
    let seconds = watch.elapsed().as_secs_f64();
    if said["verified"] != Value::Bool(true) {
        return Err(format!("it was not verified: {said}").into());
    }
    let kinds = said["kinds"].as_array().ok_or("it names no records")?;
    let records = kinds.iter().filter_map(|kind| kind["records"].as_u64());
    Ok(Leg {
        from: from.backend(),
        to: to.backend(),
        records: records.sum(),
        seconds,
    })
}

/// How the program is told of a database, in a file that only this account may read.
fn url_file(database: &Database) -> Outcome<NamedTempFile> {
    let mut file = NamedTempFile::new()?;
    file.write_all(url_of(database.settings()).as_bytes())?;
    Ok(file)
}

#[derive(QueryableByName)]
struct Line {
    #[diesel(sql_type = Text)]
    line: String,
}

/// Every record that a transfer is about, as SQLite writes its values.
fn dump(database: &Database) -> Outcome<Vec<String>> {
    let path = database.settings().sqlite.path.display().to_string();
    let mut connection = SqliteConnection::establish(&path)?;
    let mut all = Vec::new();
    for kind in Kind::ALL {
        let columns = kind.columns().iter().map(|c| format!("quote({})", c.name));
        let columns: Vec<String> = columns.collect();
        let (table, columns) = (kind.table(), columns.join(" || ',' || "));
        let lines = diesel::sql_query(format!("SELECT {columns} AS line FROM {table} ORDER BY 1"))
            .load::<Line>(&mut connection)?;
        all.push(format!("{table}: {}", lines.len()));
        all.extend(lines.into_iter().map(|line| line.line));
    }
    Ok(all)
}

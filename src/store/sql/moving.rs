//! Neutral records out of and into a SQL database.
//!
//! Each page is one statement with one text in JSON, whatever the kind: the statement is made from the columns
//! in `store::moving::tables`, and how the database writes a cell stands in its own `columns`. No value from
//! outside becomes part of a statement.

use async_trait::async_trait;
use diesel::{QueryableByName, sql_types::Text};
use diesel_async::RunQueryDsl;
use serde_json::Value;

use super::{
    Backend, Conn,
    columns::{self, HAS_TRANSFER, LIST, ROW, ROWS},
    contract::SqlStore,
    faults::{Fault, from_diesel, to_the_end},
};
use crate::{
    clock::Timestamp,
    store::{
        Store, StoreError, StoreResult,
        moving::{
            Ask, Cursor, Moving, Page, Record, overtaken,
            tables::{Form, Kind},
        },
    },
};

/// How many users' sessions are read at once where their number is limited for each.
const USERS_AT_ONCE: u32 = 100;
/// No user's id, and smaller than each.
const BEFORE_ALL: &str = "00000000000000000000000000000000";

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Text)]
    text: String,
}

/// Asks for texts; `$1`, `$2` and so on stand in the statement in this order, each once.
async fn ask(conn: &mut Conn, statement: String, bound: &[String]) -> StoreResult<Vec<String>> {
    let mut query = diesel::sql_query(statement).into_boxed::<Backend>();
    for value in bound {
        query = query.bind::<Text, _>(value);
    }
    let answers: Vec<Answer> = query.load(conn).await.map_err(from_diesel)?;
    Ok(answers.into_iter().map(|answer| answer.text).collect())
}

/// Which rows of a table are records.
const fn condition(kind: Kind) -> &'static str {
    match kind {
        Kind::Failures => "failures > 0",
        _ => "1 = 1",
    }
}

/// The columns by which a kind is read in order; all of them hold something.
const fn order(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Roles | Kind::AuditMarks => &["name"],
        Kind::Sessions => &["user_id", "id"],
        Kind::KeptAddresses => &["address_canonical"],
        Kind::Devices => &["secret_hash"],
        Kind::Failures => &["key_hash"],
        Kind::AuditKeys => &["user_id"],
        Kind::Users
        | Kind::OneTimeSecrets
        | Kind::PendingRegistrations
        | Kind::Letters
        | Kind::AuditEvents => &["id"],
    }
}

fn form_of(kind: Kind, column: &str) -> Form {
    let columns = kind.columns().iter();
    let mut found = columns.filter(|one| one.name == column);
    found.next().map_or(Form::Text(|_| true), |one| one.form)
}

/// A row as a JSON list of its cells.
fn cells(kind: Kind) -> String {
    let columns = kind.columns().iter();
    let read: Vec<String> = columns
        .map(|column| columns::read(column.form, column.name))
        .collect();
    format!("CAST({LIST}({}) AS TEXT)", read.join(", "))
}

/// A bound key as the column it is compared with.
fn key(kind: Kind, column: &str, n: usize) -> String {
    columns::write(form_of(kind, column), &format!("CAST(${n} AS TEXT)"))
}

fn records_behind(ask: &Ask) -> (String, Vec<String>) {
    let (kind, keys) = (ask.kind, order(ask.kind));
    let behind = ask.after.as_ref().map(|_| {
        let places = keys.iter().enumerate();
        let places: Vec<_> = places.map(|(n, one)| key(kind, one, n + 1)).collect();
        format!(" AND ({}) > ({})", keys.join(", "), places.join(", "))
    });
    let statement = format!(
        "SELECT {} AS text FROM {} WHERE {}{} ORDER BY {} LIMIT {}",
        cells(kind),
        kind.table(),
        condition(kind),
        behind.unwrap_or_default(),
        keys.join(", "),
        ask.most
    );
    let bound = ask.after.as_ref().map(|after| after.0.clone());
    (statement, bound.unwrap_or_default())
}

/// Some records in their order.
async fn plain_page(conn: &mut Conn, asked: &Ask) -> StoreResult<Page> {
    let (statement, bound) = records_behind(asked);
    let rows = ask(conn, statement, &bound).await?;
    let is_last = rows.len() < asked.most as usize;
    let last = rows.last().filter(|_| !is_last).and_then(|row| {
        let raw: Vec<Value> = serde_json::from_str(row).ok()?;
        let place = |name: &&str| asked.kind.columns().iter().position(|c| c.name == *name);
        let keys = order(asked.kind).iter();
        keys.map(|name| Some(raw.get(place(name)?)?.as_str()?.to_owned()))
            .collect::<Option<Vec<_>>>()
    });
    if last.is_none() && !is_last {
        let what = format!("{} cannot be read in order", asked.kind.table());
        return Err(StoreError::Driver(what));
    }
    Ok(read(asked.kind, &rows, last.map(Cursor)))
}

/// The sessions of some users, of each as many closed ones as asked for, the last to be closed.
async fn sessions_of_some(conn: &mut Conn, asked: &Ask, kept: u32) -> StoreResult<Page> {
    let after = asked
        .after
        .as_ref()
        .and_then(|after| after.0.as_slice().first());
    let after = after.cloned().unwrap_or_else(|| BEFORE_ALL.to_owned());
    let users = format!(
        "SELECT CAST({} AS TEXT) AS text FROM users WHERE id > {} ORDER BY id LIMIT {USERS_AT_ONCE}",
        columns::read(Form::Id, "id"),
        key(Kind::Users, "id", 1)
    );
    let users = ask(conn, users, std::slice::from_ref(&after)).await?;
    let Some(last) = users.last() else {
        return Ok(read(Kind::Sessions, &[], None));
    };
    let statement = format!(
        "SELECT {} AS text FROM (SELECT sessions.*, row_number() OVER (\
         PARTITION BY user_id, closed_at IS NULL ORDER BY closed_at DESC, id DESC) AS place \
         FROM sessions WHERE user_id > {} AND user_id <= {}) AS ours \
         WHERE closed_at IS NULL OR place <= {kept} ORDER BY user_id, id",
        cells(Kind::Sessions),
        key(Kind::Sessions, "user_id", 1),
        key(Kind::Sessions, "user_id", 2)
    );
    let rows = ask(conn, statement, &[after, last.clone()]).await?;
    let next = Cursor(vec![last.clone()]);
    Ok(read(Kind::Sessions, &rows, Some(next)))
}

fn read(kind: Kind, rows: &[String], next: Option<Cursor>) -> Page {
    let (mut records, mut faulty) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        match read_row(kind, row) {
            Ok(record) => records.push(record),
            Err(error) => faulty.push(error),
        }
    }
    Page {
        records,
        faulty,
        next,
    }
}

fn read_row(kind: Kind, row: &str) -> StoreResult<Record> {
    let raw: Vec<Value> = serde_json::from_str(row).unwrap_or_default();
    let cells = kind.columns().iter().zip(raw);
    let cells = cells.map(|(column, cell)| neutral(column.form, cell));
    Record::checked(kind, cells.collect())
}

/// A cell as it was selected, as records have it; what it cannot be stays as it is, to be found.
fn neutral(form: Form, cell: Value) -> Value {
    let Value::String(text) = &cell else {
        return cell;
    };
    match form {
        Form::Object | Form::Names(_) => serde_json::from_str(text).unwrap_or(cell),
        Form::Words => text.split(' ').map(Value::from).collect(),
        _ => cell,
    }
}

/// A cell as it is bound.
fn bound(form: Form, cell: &Value) -> Value {
    match form {
        Form::Object | Form::Names(_) if !cell.is_null() => cell.to_string().into(),
        Form::Words => {
            let words = cell.as_array().into_iter().flatten();
            let words: Vec<&str> = words.filter_map(Value::as_str).collect();
            words.join(" ").into()
        }
        _ => cell.clone(),
    }
}

async fn insert(tx: &mut Conn, kind: Kind, records: &[Record]) -> Result<(), Fault> {
    let columns = kind.columns();
    let rows = records.iter().map(|record| {
        let cells = columns.iter().zip(record.cells());
        Value::Array(
            cells
                .map(|(column, cell)| bound(column.form, cell))
                .collect(),
        )
    });
    let rows = Value::Array(rows.collect()).to_string();
    let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
    let values: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(n, column)| columns::write(column.form, &format!("({ROW} ->> {n})")))
        .collect();
    let statement = format!(
        "INSERT INTO {} ({}) SELECT {} FROM {ROWS}",
        kind.table(),
        names.join(", "),
        values.join(", ")
    );
    let query = diesel::sql_query(statement).bind::<Text, _>(rows);
    query.execute(tx).await?;
    Ok(())
}

async fn import(
    conn: &mut Conn,
    kind: Kind,
    records: &[Record],
    before: &str,
    after: &str,
) -> StoreResult<()> {
    let written: Result<(), Fault> = write_tx!(conn, async |tx| {
        let moved = "UPDATE unfinished_transfer SET state = $1 WHERE state = $2";
        let moved = diesel::sql_query(moved)
            .bind::<Text, _>(after)
            .bind::<Text, _>(before);
        if moved.execute(tx).await? != 1 {
            return Err(overtaken().into());
        }
        if !records.is_empty() {
            insert(tx, kind, records).await?;
        }
        Ok(())
    });
    Ok(written?)
}

async fn begin(conn: &mut Conn, state: &str) -> StoreResult<()> {
    let begun: Result<(), Fault> = write_tx!(conn, async |tx| {
        let made = "CREATE TABLE unfinished_transfer (state text NOT NULL)";
        diesel::sql_query(made).execute(tx).await?;
        let written = "INSERT INTO unfinished_transfer (state) VALUES ($1)";
        let written = diesel::sql_query(written).bind::<Text, _>(state);
        written.execute(tx).await?;
        Ok(())
    });
    Ok(begun?)
}

async fn unfinished(conn: &mut Conn) -> StoreResult<Option<String>> {
    let there = ask(conn, HAS_TRANSFER.to_owned(), &[]).await?;
    if there.as_slice().first().is_none_or(|count| count == "0") {
        return Ok(None);
    }
    let state = "SELECT state AS text FROM unfinished_transfer".to_owned();
    let state = ask(conn, state, &[]).await?;
    Ok(Some(state.into_iter().next().unwrap_or_default()))
}

async fn finish(conn: &mut Conn) -> StoreResult<()> {
    let dropped = diesel::sql_query("DROP TABLE unfinished_transfer");
    let dropped = dropped.execute(conn).await;
    dropped.map(drop).map_err(from_diesel)
}

async fn stored(conn: &mut Conn, kind: Kind) -> StoreResult<u64> {
    let statement = format!(
        "SELECT CAST(count(*) AS TEXT) AS text FROM {} WHERE {}",
        kind.table(),
        condition(kind)
    );
    let counted = ask(conn, statement, &[]).await?;
    let counted = counted
        .as_slice()
        .first()
        .and_then(|count| count.parse().ok());
    counted.ok_or_else(|| StoreError::Driver("rows were not counted".into()))
}

#[async_trait]
impl Moving for SqlStore {
    async fn now(&self) -> StoreResult<Timestamp> {
        self.time().await
    }

    async fn page(&self, ask: &Ask) -> StoreResult<Page> {
        let mut pooled = self.readers.get().await?;
        let conn: &mut Conn = &mut pooled;
        let page = async {
            match ask.closed_kept {
                Some(kept) if ask.kind == Kind::Sessions => sessions_of_some(conn, ask, kept).await,
                _ => plain_page(conn, ask).await,
            }
        };
        in_time!(self, &mut pooled, page)
    }

    async fn stored(&self, kind: Kind) -> StoreResult<u64> {
        let mut pooled = self.readers.get().await?;
        let conn: &mut Conn = &mut pooled;
        let work = stored(conn, kind);
        in_time!(self, &mut pooled, work)
    }

    fn closed_kept(&self) -> Option<u32> {
        None
    }

    fn misfit(&self, record: &Record) -> Option<&'static str> {
        (!columns::STORES_NUL && record.has_nul())
            .then_some("a text with the character NUL, which PostgreSQL cannot store")
    }

    async fn unfinished(&self) -> StoreResult<Option<String>> {
        let mut pooled = self.writers.get().await?;
        let conn: &mut Conn = &mut pooled;
        let work = unfinished(conn);
        in_time!(self, &mut pooled, work)
    }

    async fn begin(&self, state: &str) -> StoreResult<()> {
        let (store, state) = (self.clone(), state.to_owned());
        to_the_end(async move {
            let mut pooled = store.writers.get().await?;
            let conn: &mut Conn = &mut pooled;
            let work = begin(conn, &state);
            in_time!(store, &mut pooled, work)
        })
        .await
    }

    async fn import(
        &self,
        kind: Kind,
        records: &[Record],
        before: &str,
        after: &str,
    ) -> StoreResult<()> {
        let (store, records) = (self.clone(), records.to_vec());
        let (before, after) = (before.to_owned(), after.to_owned());
        to_the_end(async move {
            let mut pooled = store.writers.get().await?;
            let conn: &mut Conn = &mut pooled;
            let work = import(conn, kind, &records, &before, &after);
            in_time!(store, &mut pooled, work)
        })
        .await
    }

    async fn finish(&self) -> StoreResult<()> {
        let store = self.clone();
        to_the_end(async move {
            let mut pooled = store.writers.get().await?;
            let conn: &mut Conn = &mut pooled;
            let work = finish(conn);
            in_time!(store, &mut pooled, work)
        })
        .await
    }
}

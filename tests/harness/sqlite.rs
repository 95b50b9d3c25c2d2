//! SQLite by hand: what somebody with the `sqlite3` shell could do.

use std::{collections::BTreeMap, path::Path};

use diesel::{
    Connection, QueryableByName, RunQueryDsl, connection::SimpleConnection, sql_types::Text,
    sqlite::SqliteConnection,
};

/// Keeps everybody else from writing until it is dropped, as a program that has the file open could.
pub struct WriteLock(SqliteConnection);

impl WriteLock {
    pub fn on(path: &Path) -> Self {
        let url = path.to_str().expect("a temporary folder has a plain name");
        let mut connection = SqliteConnection::establish(url).expect("the file opens");
        connection
            .batch_execute("BEGIN IMMEDIATE")
            .expect("nobody else writes");
        Self(connection)
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        self.0.batch_execute("ROLLBACK").expect("it was open");
    }
}

/// Runs statements on the file. As in the shell, foreign keys are not looked after.
pub fn execute(path: &Path, statement: &str) {
    try_execute(path, statement).unwrap_or_else(|e| panic!("{e}: {statement}"));
}

/// As [`execute`]; the database's refusal is answered.
pub fn try_execute(path: &Path, statement: &str) -> Result<(), String> {
    let url = path.to_str().expect("a temporary folder has a plain name");
    let mut connection = SqliteConnection::establish(url).expect("the file opens");
    let batch = format!("PRAGMA busy_timeout = 10000; {statement}");
    let done = connection.batch_execute(&batch);
    done.map_err(|refused| refused.to_string())
}

#[derive(QueryableByName)]
struct Named {
    #[diesel(sql_type = Text)]
    table: String,
    #[diesel(sql_type = Text)]
    column: String,
}

/// The columns of each table, in their order.
pub fn tables(path: &Path) -> BTreeMap<String, Vec<String>> {
    let url = path.to_str().expect("a temporary folder has a plain name");
    let mut connection = SqliteConnection::establish(url).expect("the file opens");
    let patient = connection.batch_execute("PRAGMA busy_timeout = 10000");
    patient.expect("it waits for others");
    let columns = diesel::sql_query(
        "SELECT t.name AS \"table\", c.name AS \"column\" FROM sqlite_master t, pragma_table_info(t.name) c \
         WHERE t.type = 'table' ORDER BY t.name, c.cid",
    );
    let columns: Vec<Named> = columns.load(&mut connection).expect("read");
    let mut tables = BTreeMap::<String, Vec<String>>::new();
    for named in columns {
        tables.entry(named.table).or_default().push(named.column);
    }
    tables
}

/// The file, with what is not in it yet.
pub fn dump(path: &Path) -> Vec<u8> {
    let beside = path.with_extension("db-wal");
    let mut bytes = std::fs::read(path).expect("the file is there");
    bytes.extend(std::fs::read(beside).unwrap_or_default());
    bytes
}

//! SQLite by hand: what somebody with the `sqlite3` shell could do.

use std::path::Path;

use diesel::{Connection, connection::SimpleConnection, sqlite::SqliteConnection};

/// Runs statements on the file. As in the shell, foreign keys are not looked after.
pub fn execute(path: &Path, statement: &str) {
    let url = path.to_str().expect("a temporary folder has a plain name");
    let mut connection = SqliteConnection::establish(url).expect("the file opens");
    let batch = format!("PRAGMA busy_timeout = 10000; {statement}");
    connection
        .batch_execute(&batch)
        .unwrap_or_else(|e| panic!("{e}: {statement}"));
}

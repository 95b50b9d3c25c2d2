//! What a PostgreSQL server is asked about itself.
//!
//! Decides what of its settings breaks or weakens the promises, and how a pooler is found out that gives a connection
//! away between two statements. Nothing is prepared and nothing written, so all of it can be asked where the store
//! itself could not be opened. What becomes of the findings is for whoever asks.

use tokio::time::timeout;
use tokio_postgres::{
    Client, Error, SimpleQueryMessage, SimpleQueryRow, config::TargetSessionAttrs,
};

use super::{Connector, HOT_CONNECTIONS, NO_ANSWER};
use crate::{
    finding::{Check, Finding},
    store::{StoreError, StoreResult, settings::PostgresSettings},
};

/// The first version that its makers still correct.
const OLDEST_CORRECTED: u32 = 14;
/// How often two connections are compared: a busy pooler has several servers to give.
const COMPARISONS: usize = 3;

/// All in one statement; the values of a pooled connection are those that it begins with.
const QUESTION: &str = "SELECT current_setting('server_version_num')::int / 10000 AS version, \
     current_setting('fsync') AS fsync, \
     current_setting('full_page_writes') AS full_page_writes, \
     current_setting('synchronous_commit') AS own_commit, \
     (SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit') AS commit, \
     btrim(current_setting('synchronous_standby_names')) AS waited_for, \
     (SELECT count(*) FROM pg_stat_replication) AS standbys, \
     least(current_setting('max_connections')::int \
           - current_setting('superuser_reserved_connections')::int \
           - coalesce(current_setting('reserved_connections', true), '0')::int, \
           (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user), \
           (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()) \
     ) AS connections";

/// Asks the server that the settings name.
///
/// # Errors
/// [`StoreError::Driver`] for a URL that cannot be understood, [`StoreError::Unavailable`] where nobody answers or
/// the question is refused.
pub(in crate::store) async fn examine(settings: &PostgresSettings) -> StoreResult<Vec<Finding>> {
    let connector = Connector::new(settings)?;
    let limit = connector.longest() + settings.statement_timeout.to_duration();
    let away = |_| StoreError::Unavailable(NO_ANSWER.into());
    let asked = timeout(limit, ask(&connector, settings)).await;
    let refused = |error: Error| StoreError::Unavailable(super::describe(&error));
    asked.map_err(away)?.map_err(refused)
}

async fn ask(connector: &Connector, settings: &PostgresSettings) -> Result<Vec<Finding>, Error> {
    let takes_writes = TargetSessionAttrs::ReadWrite;
    let one = match connector.alone(takes_writes).await {
        Ok(one) => one,
        Err(refused) => return why_no_writes(connector, refused).await.map(|red| vec![red]),
    };
    let other = connector.alone(takes_writes).await?;
    let pooled = share(&one, &other).await?;
    if !pooled {
        one.batch_execute(&connector.set_up_statement()).await?;
    }
    let mut found = vec![
        Finding::green(Check::Replica, "the server takes writes"),
        pooler(pooled),
    ];
    if let Some(row) = first_row(&one, QUESTION).await? {
        found.extend(Server::read(&row).findings(settings));
    }
    Ok(found)
}

/// Nobody takes writes: because nobody is there, or because of what is there.
async fn why_no_writes(connector: &Connector, refused: Error) -> Result<Finding, Error> {
    let Ok(client) = connector.alone(TargetSessionAttrs::Any).await else {
        return Err(refused);
    };
    let row = first_row(&client, "SELECT pg_is_in_recovery() AS standby").await?;
    let standby = row.is_some_and(|row| row.get("standby") == Some("t"));
    let says = if standby {
        "the URL leads to a read replica, which lags behind revocations and takes no writes; name the primary in \
         database.postgres.url, or all servers: postgres://user:password@one,two/database"
    } else {
        "the server takes no writes: default_transaction_read_only is on; set it to off for this user and database"
    };
    Ok(Finding::red(Check::Replica, says))
}

/// Whether two connections that are both open get one server connection: then whatever stands between gives it away
/// after each transaction. Between them and a server of their own each would have a process of its own.
async fn share(one: &Client, other: &Client) -> Result<bool, Error> {
    let mut known = process(one).await?;
    for _ in 0..COMPARISONS {
        if process(other).await? == known {
            return Ok(true);
        }
        let again = process(one).await?;
        if again != known {
            return Ok(true);
        }
        known = again;
    }
    Ok(false)
}

async fn process(client: &Client) -> Result<Option<String>, Error> {
    // Two servers may have processes of one number.
    let question = "SELECT pg_backend_pid() || ' of ' || pg_postmaster_start_time() AS process";
    let row = first_row(client, question).await?;
    Ok(row.and_then(|row| row.get("process").map(ToOwned::to_owned)))
}

async fn first_row(client: &Client, statement: &str) -> Result<Option<SimpleQueryRow>, Error> {
    let answer = client.simple_query(statement).await?;
    Ok(answer.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    }))
}

fn pooler(pooled: bool) -> Finding {
    if pooled {
        let says = "a pooler gives the connection away after each transaction, which loses prepared statements and the \
             settings of a connection, synchronous_commit and time limits among them; set pool_mode = session for this \
             database in PgBouncer, or name the server itself in database.postgres.url";
        return Finding::red(Check::Pooler, says);
    }
    Finding::green(
        Check::Pooler,
        "each connection has a server process of its own",
    )
}

/// What the server says of itself.
struct Server {
    version: u32,
    fsync: bool,
    full_page_writes: bool,
    /// `synchronous_commit` as Doorward's connections have it.
    own_commit: String,
    /// As every other connection has it.
    commit: String,
    waited_for: String,
    standbys: u32,
    connections: u32,
}

impl Server {
    fn read(row: &SimpleQueryRow) -> Self {
        let text = |name| row.get(name).unwrap_or_default().to_owned();
        let number = |name| row.get(name).and_then(|text| text.parse().ok());
        Self {
            version: number("version").unwrap_or_default(),
            fsync: row.get("fsync") != Some("off"),
            full_page_writes: row.get("full_page_writes") != Some("off"),
            own_commit: text("own_commit"),
            commit: text("commit"),
            waited_for: text("waited_for"),
            standbys: number("standbys").unwrap_or_default(),
            connections: number("connections").unwrap_or(u32::MAX),
        }
    }

    fn findings(&self, settings: &PostgresSettings) -> [Finding; 6] {
        [
            self.commit(),
            self.fsync(),
            self.full_page_writes(),
            self.standbys(),
            self.connections(settings),
            self.version(),
        ]
    }

    fn commit(&self) -> Finding {
        let name = Check::SynchronousCommit;
        let waits = !self.waited_for.is_empty();
        match (self.own_commit.as_str(), self.commit.as_str()) {
            ("off", _) => Finding::red(
                name,
                "synchronous_commit is off: a crash of the server loses acknowledged changes, revocations among them; set \
                 synchronous_commit = on",
            ),
            (_, "off") => Finding::yellow(
                name,
                "synchronous_commit is off on the server; Doorward sets it to on for its own connections, so that nothing \
                 acknowledged is lost; set synchronous_commit = on for everybody else's",
            ),
            ("local" | "remote_write", _) if waits => Finding::yellow(
                name,
                format!(
                    "synchronous_commit is {}, which does not wait until a standby has the change on its disk: a fail-over \
                     may lose acknowledged changes; set synchronous_commit = on",
                    self.own_commit
                ),
            ),
            _ => Finding::green(name, "a commit is on the disk before it is acknowledged"),
        }
    }

    fn fsync(&self) -> Finding {
        if self.fsync {
            return Finding::green(Check::Fsync, "fsync is on");
        }
        let says = "fsync is off: a power cut may lose acknowledged changes, or the whole database; set fsync = on";
        Finding::red(Check::Fsync, says)
    }

    fn full_page_writes(&self) -> Finding {
        if self.full_page_writes {
            return Finding::green(Check::FullPageWrites, "full_page_writes is on");
        }
        let says = "full_page_writes is off: a power cut may leave pages that are half written; set full_page_writes = on";
        Finding::red(Check::FullPageWrites, says)
    }

    fn standbys(&self) -> Finding {
        let name = Check::Standbys;
        match (self.standbys, self.waited_for.is_empty()) {
            (_, false) => Finding::green(name, "a commit waits for synchronous_standby_names"),
            (0, true) => Finding::green(name, "there is no standby, so nothing can fail over"),
            (standbys, true) => Finding::yellow(
                name,
                format!(
                    "no commit waits for any of the standbys ({standbys}): a fail-over may lose acknowledged changes, \
                     revocations among them; name them in synchronous_standby_names"
                ),
            ),
        }
    }

    fn connections(&self, settings: &PostgresSettings) -> Finding {
        let main = settings.max_connections.max(2);
        let wanted = main + HOT_CONNECTIONS + settings.limiter_connections.max(1);
        let there = self.connections;
        if wanted <= there {
            let says = format!("this node takes up to {wanted} of {there} connections");
            return Finding::green(Check::Connections, says);
        }
        let says = format!(
            "this node takes up to {wanted} connections, and the server gives its user {there}: requests will wait and be \
             answered 503; raise max_connections there, or lower database.postgres.max_connections"
        );
        Finding::yellow(Check::Connections, says)
    }

    fn version(&self) -> Finding {
        let version = self.version;
        if version >= OLDEST_CORRECTED {
            return Finding::green(Check::PostgresVersion, format!("PostgreSQL {version}"));
        }
        let says = format!("PostgreSQL {version} gets no corrections any more; upgrade it");
        Finding::yellow(Check::PostgresVersion, says)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    /// What no server of a test can be made to say in a moment.
    #[test]
    fn weak_settings_are_told_apart() {
        let mut server = Server {
            version: 15,
            fsync: true,
            full_page_writes: true,
            own_commit: "on".into(),
            commit: "on".into(),
            waited_for: String::new(),
            standbys: 0,
            connections: 97,
        };
        let settings = PostgresSettings::default();
        let levels = |server: &Server| {
            let found = server.findings(&settings).into_iter();
            found.map(|one| one.level).max().expect("some")
        };
        assert_eq!(levels(&server), Level::Green);
        server.connections = 17;
        assert_eq!(server.connections(&settings).level, Level::Yellow);
        server.connections = 18;
        server.version = 13;
        assert_eq!(server.version().level, Level::Yellow);
        server.own_commit = "local".into();
        assert_eq!(server.commit().level, Level::Green, "nobody is waited for");
        server.waited_for = "*".into();
        assert_eq!(server.commit().level, Level::Yellow);
        server.own_commit = "off".into();
        assert_eq!(server.commit().level, Level::Red);
    }
}

//! What a MongoDB server is asked about itself.
//!
//! Decides what of the replica set, and of what the connection string says, breaks or weakens the promises. Each
//! server of the string is asked directly until one answers, so that a standalone one and a set without a primary
//! can be told apart. What becomes of the findings is for whoever asks.

use std::time::Duration;

use mongodb::{
    Client,
    bson::{Document, doc},
    error::Error,
    options::{
        Acknowledgment, ClientOptions, ReadConcernLevel, ReadPreference, SelectionCriteria,
        ServerAddress, WriteConcern,
    },
};
use tokio::time::timeout;

use super::{connect::OLDEST_WIRE_VERSION, tls};
use crate::{
    finding::{Check, Finding},
    store::{StoreError, StoreResult, settings::MongoSettings},
};

/// How long a client that has asked may take to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Asks the servers that the settings name.
///
/// # Errors
/// [`StoreError`] for a connection string that cannot be used, and where nobody answers.
pub(in crate::store) async fn examine(settings: &MongoSettings) -> StoreResult<Vec<Finding>> {
    let malformed = || StoreError::Driver("the connection string cannot be used".into());
    tls::check_words(settings.url.expose()).map_err(|_| malformed())?;
    let limit = settings.statement_timeout.to_duration();
    let mut options = timeout(limit, ClientOptions::parse(settings.url.expose()))
        .await
        .map_err(|_| malformed())?
        .map_err(|_| malformed())?;
    let said = concerns(&options);
    tls::choose(&mut options).map_err(|_| malformed())?;
    let acquire = settings.acquire_timeout.to_duration();
    for host in options.hosts.clone() {
        let client = directly(&options, host, acquire).map_err(|_| malformed())?;
        let answered = timeout(acquire + limit, ask(&client)).await;
        let ending = client.shutdown().immediate(true);
        let _ = timeout(FAREWELL, async { ending.await }).await;
        if let Ok(Ok(answered)) = answered {
            return Ok(answered.findings(said));
        }
    }
    Err(StoreError::Unavailable("no server answers".into()))
}

/// A client of one server, whatever that is.
fn directly(
    options: &ClientOptions,
    host: ServerAddress,
    acquire: Duration,
) -> Result<Client, Error> {
    let mut options = options.clone();
    options.hosts = vec![host];
    options.direct_connection = Some(true);
    options.repl_set_name = None;
    options.server_selection_timeout = Some(acquire);
    options.connect_timeout = Some(acquire);
    // A member that cannot take writes can tell all the same.
    let nearest = ReadPreference::PrimaryPreferred { options: None };
    options.selection_criteria = Some(SelectionCriteria::ReadPreference(nearest));
    Client::with_options(options)
}

/// What one server says.
struct Answers {
    hello: Document,
    version: String,
    /// `writeConcernMajorityJournalDefault`; none where it could not be asked.
    journal: Option<bool>,
}

async fn ask(client: &Client) -> Result<Answers, Error> {
    let admin = client.database("admin");
    let hello = admin.run_command(doc! { "hello": 1 }).await?;
    let about = admin.run_command(doc! { "buildInfo": 1 }).await;
    let about = about.unwrap_or_default();
    let config = admin.run_command(doc! { "replSetGetConfig": 1 }).await;
    let journal = config.ok().map(|answer| waits_for_journal(&answer));
    let version = about.get_str("version").unwrap_or("of unknown version");
    Ok(Answers {
        hello,
        version: version.to_owned(),
        journal,
    })
}

fn waits_for_journal(answer: &Document) -> bool {
    let config = answer.get_document("config");
    let default = config.and_then(|config| config.get_bool("writeConcernMajorityJournalDefault"));
    default.unwrap_or(true)
}

/// What the connection string asks for and does not get.
fn concerns(options: &ClientOptions) -> Finding {
    let mut weak = Vec::new();
    if let Some(concern) = &options.write_concern {
        weak.extend(weakness(concern));
    }
    let level = options.read_concern.as_ref().map(|concern| &concern.level);
    let strong = |level| {
        matches!(
            level,
            &ReadConcernLevel::Majority | &ReadConcernLevel::Linearizable
        )
    };
    if level.is_some_and(|level| !strong(level)) {
        weak.push("a read concern below majority");
    }
    if let Some(SelectionCriteria::ReadPreference(preference)) = &options.selection_criteria
        && *preference != ReadPreference::Primary
    {
        weak.push("reads from other members than the primary");
    }
    if weak.is_empty() {
        let says = "each write waits for a majority with its journal, and reads go to the primary";
        return Finding::green(Check::Concerns, says);
    }
    let says = format!(
        "the URL asks for {}; Doorward waits for a majority with its journal and reads from the primary all the same; \
         take it out of database.mongodb.url",
        weak.join(", ")
    );
    Finding::yellow(Check::Concerns, says)
}

fn weakness(concern: &WriteConcern) -> Option<&'static str> {
    let few = match &concern.w {
        None | Some(Acknowledgment::Majority) => false,
        Some(_) => true,
    };
    if few {
        return Some("a write concern below majority");
    }
    (concern.journal == Some(false)).then_some("writes without a journal")
}

impl Answers {
    fn findings(&self, concerns: Finding) -> Vec<Finding> {
        let mut found = vec![self.standalone(), concerns];
        if self.hello.contains_key("setName") {
            found.push(self.members());
            found.push(journal(self.journal));
        }
        found
    }

    fn standalone(&self) -> Finding {
        let name = Check::Standalone;
        let is_router = self.hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid");
        let wire = self.hello.get_i32("maxWireVersion").unwrap_or_default();
        if wire < OLDEST_WIRE_VERSION {
            let says = format!("MongoDB {} is older than 4.4; upgrade it", self.version);
            return Finding::red(name, says);
        }
        if is_router || self.hello.contains_key("setName") {
            let what = if is_router {
                "a router"
            } else {
                "a replica set"
            };
            return Finding::green(name, format!("{what}, MongoDB {}", self.version));
        }
        Finding::red(
            name,
            "the server is a standalone one, which has neither transactions nor a majority; start mongod with \
             `--replSet rs0`, run `rs.initiate()` in mongosh once, and add `?replicaSet=rs0` to database.mongodb.url",
        )
    }

    fn members(&self) -> Finding {
        let count = |name| self.hello.get_array(name).map_or(0, Vec::len);
        members(count("hosts") + count("passives"), count("arbiters"))
    }
}

fn members(with_data: usize, arbiters: usize) -> Finding {
    let says = match (with_data, arbiters) {
        (0 | 1, _) => {
            "the replica set has one member with data: when it is away nobody is served, and its disk is the only copy; \
             have three"
        }
        (_, 1..) => {
            "the replica set has an arbiter, which keeps no data: with one member away no majority can acknowledge a write; \
             replace it by a member with data"
        }
        (2, 0) => {
            "the replica set has two members: with one of them away there is no majority, and nobody is served; have three"
        }
        _ => {
            let says = format!("{with_data} members with data");
            return Finding::green(Check::Members, says);
        }
    };
    Finding::yellow(Check::Members, says)
}

fn journal(waits: Option<bool>) -> Finding {
    let name = Check::Journal;
    match waits {
        Some(true) => Finding::green(name, "a majority counts with its journal"),
        Some(false) => Finding::red(
            name,
            "writeConcernMajorityJournalDefault is false: what a majority has acknowledged can be lost when its members \
             crash; set it to true by rs.reconfig()",
        ),
        None => Finding::yellow(
            name,
            "whether writeConcernMajorityJournalDefault is true could not be asked; give the user the role clusterMonitor on \
             the database admin",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    #[tokio::test]
    async fn a_string_that_asks_for_less_is_told_that_it_gets_more() {
        for (query, level) in [
            ("", Level::Green),
            (
                "w=majority&journal=true&readPreference=primary",
                Level::Green,
            ),
            ("w=1", Level::Yellow),
            ("w=0", Level::Yellow),
            ("journal=false", Level::Yellow),
            ("readConcernLevel=local", Level::Yellow),
            ("readPreference=nearest", Level::Yellow),
        ] {
            let url = format!("mongodb://ann:hunter2@h/?{query}");
            let options = ClientOptions::parse(&url).await.expect("valid");
            let found = concerns(&options);
            assert_eq!(found.level, level, "{query}: {}", found.says);
            assert!(!found.says.contains("hunter2"));
        }
    }

    #[test]
    fn a_set_without_a_spare_majority_is_yellow() {
        for (with_data, arbiters, level) in [
            (1, 0, Level::Yellow),
            (2, 0, Level::Yellow),
            (2, 1, Level::Yellow),
            (3, 0, Level::Green),
            (5, 0, Level::Green),
        ] {
            assert_eq!(members(with_data, arbiters).level, level);
        }
    }
}

//! What is found out about a deployment: one sentence each, with a colour and a name that stays.
//!
//! Decides which findings there are, which of them an operator may set aside by `doctor.ignore`, and what of them
//! stops a start. What is looked at, and how, is for `doctor` and the databases.

use serde::{Deserialize, Serialize, Serializer};

use crate::setting::{BadSetting, shown};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Green,
    /// The promises hold today; something makes them weaker than they could be.
    Yellow,
    /// A promise does not hold.
    Red,
}

impl Level {
    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Green => "green",
            Self::Yellow => "yellow",
            Self::Red => "red",
        }
    }
}

macro_rules! checks {
    ($($(#[$about:meta])* $check:ident = $name:literal, $lasting:literal;)*) => {
        /// What is looked at; its name never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Check {
            $($(#[$about])* $check,)*
        }

        impl Check {
            /// All of them, in the order in which they are told.
            pub const ALL: &'static [Self] = &[$(Self::$check),*];

            /// Its name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$check => $name,)*
                }
            }

            /// Whether it cannot be set aside: nothing could be served all the same, or the setting that stops the
            /// start is the one to change.
            #[must_use]
            pub const fn is_lasting(self) -> bool {
                match self {
                    $(Self::$check => $lasting,)*
                }
            }
        }
    };
}

checks! {
    /// The settings, each and together.
    Settings = "settings", true;
    /// The database answers.
    Reachable = "database.reachable", true;
    /// Its schema is that of this version.
    Migrations = "database.migrations", true;
    /// No transfer into it was broken off.
    Transfer = "database.transfer", true;
    /// Its clock and this machine's.
    Clock = "database.clock", false;
    /// Somebody can administer.
    Administrator = "database.administrator", false;
    /// PostgreSQL: the server takes writes.
    Replica = "postgres.replica", true;
    /// PostgreSQL: every client connection has a server connection of its own.
    Pooler = "postgres.pooler", false;
    /// PostgreSQL: a commit is on the disk before it is acknowledged.
    SynchronousCommit = "postgres.synchronous_commit", false;
    /// PostgreSQL: what is written reaches the disk.
    Fsync = "postgres.fsync", false;
    /// PostgreSQL: a page that was half written is made whole again.
    FullPageWrites = "postgres.full_page_writes", false;
    /// PostgreSQL: a commit is on a standby before it is acknowledged.
    Standbys = "postgres.standbys", false;
    /// PostgreSQL: there are connections enough for this node.
    Connections = "postgres.connections", false;
    /// PostgreSQL: the version still gets corrections.
    PostgresVersion = "postgres.version", false;
    /// MongoDB: a replica set or a router.
    Standalone = "mongodb.standalone", true;
    /// MongoDB: what the connection string says of concerns and preferences.
    Concerns = "mongodb.concerns", false;
    /// MongoDB: a majority counts only with its journal.
    Journal = "mongodb.journal", false;
    /// MongoDB: the members that can take over.
    Members = "mongodb.members", false;
    /// SQLite: the file's disk.
    Disk = "sqlite.disk", false;
    /// SQLite: a commit is on the disk before it is acknowledged.
    Synchronous = "sqlite.synchronous", true;
    /// SQLite: readers and the writer do not wait for each other.
    WriteAhead = "sqlite.journal", false;
    /// SQLite: who may read and change the file.
    Permissions = "sqlite.permissions", false;
    /// SQLite: there is room left.
    Space = "sqlite.space", false;
    /// The keys that sign tokens.
    TokenKey = "secrets.token_key", true;
    /// What the audit trail's keys are derived from.
    AuditKey = "secrets.audit_key", false;
    /// The database's password.
    DatabasePassword = "secrets.database_password", true;
    /// What a password's hash costs a thief.
    Scrypt = "secrets.scrypt", false;
    /// The address that clients know.
    PublicUrl = "network.public_url", true;
    /// The listeners.
    PlainText = "network.plain_text", true;
    /// Whose word is taken for where a client is.
    TrustedProxies = "network.trusted_proxies", false;
    /// Who can read metrics and documents.
    Operators = "network.operators", false;
    /// How many files the process may open.
    Files = "system.files", false;
    /// The certificate that clients are shown.
    Certificate = "tls.certificate", true;
    /// Letters leave the process.
    MailTransport = "mail.transport", false;
    /// The mail server lets us in.
    MailLogin = "mail.login", false;
    /// The service that knows passwords from breaches answers.
    Breaches = "passwords.breach", false;
    /// The nodes that the canary asks answer.
    Peers = "canary.peers", false;
}

impl Check {
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| one.as_str() == name)
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Something that was found out. Its sentence holds no secret and names the remedy, if it is not green.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// About what.
    pub name: Check,
    /// How bad it is.
    pub level: Level,
    /// The sentence.
    pub says: String,
}

impl Finding {
    /// As it should be.
    pub fn green(name: Check, says: impl Into<String>) -> Self {
        Self::new(name, Level::Green, says)
    }

    /// Weaker than it could be.
    pub fn yellow(name: Check, says: impl Into<String>) -> Self {
        Self::new(name, Level::Yellow, says)
    }

    /// Broken.
    pub fn red(name: Check, says: impl Into<String>) -> Self {
        Self::new(name, Level::Red, says)
    }

    /// Of this level.
    pub fn new(name: Check, level: Level, says: impl Into<String>) -> Self {
        let says = says.into();
        Self { name, level, says }
    }
}

/// `[doctor]`: which findings do not count.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DoctorSettings {
    /// Names of findings that stop no start, as `doorward doctor` prints them. Default none.
    pub ignore: Vec<String>,
}

impl DoctorSettings {
    /// Checks that each name is that of a finding which can be set aside.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        let bad = |problem: String, remedy: &str| Err(BadSetting::new(IGNORE, problem, remedy));
        self.ignore
            .iter()
            .try_for_each(|name| match Check::named(name) {
                None => bad(
                    format!("{} is not the name of a finding", shown(name)),
                    "take it away; `doorward doctor` prints the names",
                ),
                Some(check) if check.is_lasting() => bad(
                    format!("`{name}` cannot be ignored"),
                    "take it away, and heal what it names",
                ),
                Some(_) => Ok(()),
            })
    }

    /// Whether a finding does not count.
    #[must_use]
    pub fn ignores(&self, finding: &Finding) -> bool {
        let name = finding.name.as_str();
        !finding.name.is_lasting() && self.ignore.iter().any(|ignored| ignored == name)
    }

    /// The first finding that stops a start.
    ///
    /// # Errors
    /// A [`BadSetting`] in the name of the finding.
    pub fn judge(&self, findings: &[Finding]) -> Result<(), BadSetting> {
        let stops = |one: &&Finding| one.level == Level::Red && !self.ignores(one);
        let Some(red) = findings.iter().find(stops) else {
            return Ok(());
        };
        let name = red.name.as_str();
        let remedy = if red.name.is_lasting() {
            "`doorward doctor` tells what else there is".to_owned()
        } else {
            format!("{IGNORE} = [\"{name}\"] starts all the same")
        };
        Err(BadSetting::new(name, red.says.clone(), remedy))
    }
}

const IGNORE: &str = "doctor.ignore";

#[cfg(test)]
mod tests {
    use super::*;

    fn ignoring(name: &str) -> DoctorSettings {
        let ignore = vec![name.to_owned()];
        DoctorSettings { ignore }
    }

    #[test]
    fn red_stops_unless_it_is_named() {
        let found = [
            Finding::green(Check::Pooler, "none"),
            Finding::yellow(Check::Standbys, "one"),
            Finding::red(Check::Fsync, "off"),
        ];
        let none = DoctorSettings::default();
        let stopped = none.judge(&found).expect_err("red").to_string();
        let said = "postgres.fsync: off; doctor.ignore = [\"postgres.fsync\"] starts all the same";
        assert_eq!(stopped, said);
        assert_eq!(none.judge(&found[..2]), Ok(()));
        assert_eq!(ignoring("postgres.fsync").judge(&found), Ok(()));
        assert!(ignoring("postgres.standbys").judge(&found).is_err());
    }

    #[test]
    fn what_cannot_be_set_aside_is_refused_by_name() {
        let refused = |name: &str| ignoring(name).check().expect_err(name).to_string();
        assert!(refused("postgres.fsnc").contains("`postgres.fsnc` is not the name"));
        assert!(refused("postgres.replica").contains("cannot be ignored"));
        assert!(!refused("postgres://ann:hunter2@h/").contains("hunter2"));
        let replica = Finding::red(Check::Replica, "a standby");
        assert!(ignoring("postgres.replica").judge(&[replica]).is_err());
        assert_eq!(ignoring("postgres.fsync").check(), Ok(()));
    }
}

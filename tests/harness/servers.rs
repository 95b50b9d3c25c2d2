//! Database servers of a test's own, which it stops and starts again.
//!
//! The programs are those that `tests/run` found.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use doorward::store::{
    open::open,
    settings::{Backend, DatabaseSettings},
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    authority::{Authority, Certificate},
    free_port, mongodb,
    processes::children_of,
};

/// A PostgreSQL or MongoDB server that nobody else uses.
pub struct PrivateServer {
    backend: Backend,
    folder: TempDir,
    port: u16,
    tls: bool,
    /// Of MongoDB; without it a server is a standalone one.
    in_set: bool,
    running: Option<Child>,
}

/// The user of PostgreSQL who has to show a certificate in that name.
pub const CERTIFIED: &str = "certified";

impl PrivateServer {
    /// Starts a server with a migrated, empty database.
    pub async fn start(backend: Backend) -> Self {
        Self::start_with(backend, None).await
    }

    /// As [`Self::start`], with a server that shows a certificate for 127.0.0.1 of this authority, and wants to be shown
    /// one: MongoDB by everybody, PostgreSQL by [`CERTIFIED`].
    pub async fn start_with_tls(backend: Backend, authority: &Authority) -> Self {
        Self::start_with(backend, Some(authority)).await
    }

    /// A MongoDB server that was never made a replica set.
    pub fn standalone_mongod() -> Self {
        let mut server = Self {
            backend: Backend::Mongodb,
            folder: tempfile::tempdir().expect("a temporary folder"),
            port: free_port(),
            tls: false,
            in_set: false,
            running: None,
        };
        server.prepare();
        server.start_mongod();
        server
    }

    /// A read replica of this PostgreSQL server, which follows it from now on.
    pub async fn standby(&self) -> Self {
        let mut standby = Self {
            backend: Backend::Postgres,
            folder: tempfile::tempdir().expect("a temporary folder"),
            port: free_port(),
            tls: false,
            in_set: false,
            running: None,
        };
        if let Some((uid, gid)) = postgres_account() {
            chown(standby.folder.path(), Some(uid), Some(gid)).expect("given away");
        }
        let mut copy = postgres_program("pg_basebackup");
        copy.args(["--host=127.0.0.1", "--username=doorward", "--no-sync"]);
        copy.args(["--checkpoint=fast", "--write-recovery-conf", "--port"]);
        copy.arg(self.port.to_string())
            .arg("--pgdata")
            .arg(standby.data());
        let copied = copy
            .stderr(Stdio::piped())
            .output()
            .expect("pg_basebackup runs");
        let complaint = String::from_utf8_lossy(&copied.stderr);
        assert!(copied.status.success(), "pg_basebackup: {complaint}");
        standby.start_postgres().await;
        standby
    }

    async fn start_with(backend: Backend, authority: Option<&Authority>) -> Self {
        let mut server = Self {
            backend,
            folder: tempfile::tempdir().expect("a temporary folder"),
            port: free_port(),
            tls: authority.is_some(),
            in_set: true,
            running: None,
        };
        server.prepare();
        if let Some(authority) = authority {
            server.write("ca.pem", &authority.certificate);
            server.show(&authority.certify(&["127.0.0.1"]));
            let client = authority.certify(&[CERTIFIED]);
            server.write("client.pem", &(client.certificate + &client.key));
        }
        server.start_again().await;
        let opened = open(&server.settings()).await.expect("the server answers");
        opened.migrations.apply().await.expect("migrated");
        opened.store.close().await;
        server
    }

    /// As `[database]` would name it.
    pub fn settings(&self) -> DatabaseSettings {
        let mut settings = DatabaseSettings {
            backend: self.backend,
            ..DatabaseSettings::default()
        };
        let port = self.port;
        settings.postgres.url = format!("postgres://doorward@127.0.0.1:{port}/postgres").into();
        let tls = if self.tls {
            let (ca, client) = (self.file("ca.pem"), self.file("client.pem"));
            format!("&tls=true&tlsCAFile={ca}&tlsCertificateKeyFile={client}")
        } else {
            String::new()
        };
        settings.mongodb.url = format!("mongodb://127.0.0.1:{port}/?replicaSet=rs0{tls}").into();
        settings
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A file beside the server, as a URL writes it: `ca.pem`, and `client.pem` with the certificate and the key of
    /// [`CERTIFIED`].
    pub fn file(&self, name: &str) -> String {
        let path = self.folder.path().join(name).display().to_string();
        path.replace('/', "%2F")
    }

    /// What the server shows from its next start on, or [`Self::reload`].
    pub fn show(&self, shown: &Certificate) {
        self.write("server.pem", &format!("{}{}", shown.certificate, shown.key));
        self.write("server.crt", &shown.certificate);
        self.write("server.key", &shown.key);
    }

    /// Makes PostgreSQL read its files again, with these settings in the last place. It takes a moment.
    pub fn reload(&self, settings: &str) {
        self.configure(settings);
        let server = Pid::from_child(self.running.as_ref().expect("the server runs"));
        kill_process(server, Signal::HUP).expect("told");
    }

    fn configure(&self, settings: &str) {
        let path = self.data().join("postgresql.conf");
        let before = fs::read_to_string(&path).expect("read");
        fs::write(path, format!("{before}\n{settings}\n")).expect("written");
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("changed");
        if let (Backend::Postgres, Some((uid, gid))) = (self.backend, postgres_account()) {
            chown(&path, Some(uid), Some(gid)).expect("given away");
        }
    }

    /// Ends the server at once, without a checkpoint; clients see their connections break.
    pub fn kill(&mut self) {
        if self.running.is_some() {
            // A frozen server would not hear of its end.
            self.thaw();
        }
        if let Some(mut server) = self.running.take() {
            let pid = Pid::from_child(&server);
            // PostgreSQL takes its children along only when it is asked to.
            let signal = match self.backend {
                Backend::Postgres => Signal::QUIT,
                _ => Signal::KILL,
            };
            kill_process(pid, signal).expect("killed");
            server.wait().expect("gone");
        }
    }

    /// Stops the server's processes where they are: the kernel still takes what clients send, and
    /// nobody answers.
    pub async fn freeze(&self) {
        // A signal takes effect when its process is scheduled next, and one that is just being started
        // is not there yet to be told.
        super::until("every process has stopped", async || {
            self.signal_all(Signal::STOP);
            self.processes().into_iter().all(is_stopped)
        })
        .await;
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, signal: Signal) {
        for process in self.processes() {
            // It may have ended by itself.
            let _ = kill_process(process, signal);
        }
    }

    /// The server and what it started: PostgreSQL has a process for each client.
    fn processes(&self) -> Vec<Pid> {
        let server = Pid::from_child(self.running.as_ref().expect("the server runs"));
        let mut all = vec![server];
        all.extend(children_of(server));
        all
    }

    /// Starts the server on the data it left, and waits until it can write.
    pub async fn start_again(&mut self) {
        assert!(self.running.is_none(), "the server runs");
        match self.backend {
            Backend::Postgres => self.start_postgres().await,
            Backend::Mongodb => {
                self.start_mongod();
                mongodb::initiate(self.settings().mongodb.url.expose()).await;
            }
            Backend::Sqlite => unreachable!("refused in prepare"),
        }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn prepare(&self) {
        match self.backend {
            Backend::Sqlite => panic!("SQLite has no server"),
            Backend::Mongodb => fs::create_dir(self.data()).expect("a folder"),
            Backend::Postgres => {
                if let Some((uid, gid)) = postgres_account() {
                    chown(self.folder.path(), Some(uid), Some(gid)).expect("given away");
                }
                let mut initdb = postgres_program("initdb");
                initdb.args(["--username=doorward", "--auth=trust", "--encoding=UTF8"]);
                initdb
                    .args(["--locale=C", "--no-sync", "--pgdata"])
                    .arg(self.data());
                let done = initdb.output().expect("initdb runs");
                assert!(
                    done.status.success(),
                    "initdb: {}",
                    String::from_utf8_lossy(&done.stderr)
                );
                self.configure("fsync = off");
            }
        }
    }

    async fn start_postgres(&mut self) {
        let mut postgres = postgres_program("postgres");
        postgres
            .arg("-D")
            .arg(self.data())
            .arg("-p")
            .arg(self.port.to_string());
        let folder = self.folder.path().display();
        for setting in [
            "listen_addresses=127.0.0.1",
            &format!("unix_socket_directories={folder}"),
            "max_connections=100",
        ] {
            postgres.args(["-c", setting]);
        }
        if self.tls {
            self.let_in_the_certified();
            for (setting, name) in [
                ("ssl_cert_file", "server.crt"),
                ("ssl_key_file", "server.key"),
                ("ssl_ca_file", "ca.pem"),
            ] {
                postgres.args(["-c", &format!("{setting}={folder}/{name}")]);
            }
        }
        self.running = Some(postgres.spawn().expect("postgres runs"));
        let url = self.settings().postgres.url;
        super::until("PostgreSQL answers", || async {
            tokio_postgres::connect(url.expose(), tokio_postgres::NoTls)
                .await
                .is_ok()
        })
        .await;
    }

    fn let_in_the_certified(&self) {
        let conf = self.data().join("postgresql.conf");
        let before = fs::read_to_string(&conf).expect("read");
        fs::write(conf, before + "\nssl = on\n").expect("written");
        let hba = self.data().join("pg_hba.conf");
        let before = fs::read_to_string(&hba).expect("read");
        let certified = format!("hostssl all {CERTIFIED} all trust clientcert=verify-full\n");
        let others = format!("host all {CERTIFIED} all reject\n");
        fs::write(hba, certified + &others + &before).expect("written");
    }

    fn start_mongod(&mut self) {
        let mut mongod = Command::new(variable("DOORWARD_TEST_MONGOD"));
        if self.in_set {
            mongod.args(["--replSet", "rs0"]);
        }
        mongod.args(["--bind_ip", "127.0.0.1", "--nounixsocket"]);
        mongod
            .args(["--wiredTigerCacheSizeGB", "0.25", "--port"])
            .arg(self.port.to_string());
        mongod.arg("--dbpath").arg(self.data());
        if self.tls {
            let file = |name: &str| self.folder.path().join(name);
            mongod.args(["--tlsMode", "requireTLS"]);
            mongod
                .arg("--tlsCertificateKeyFile")
                .arg(file("server.pem"));
            mongod.arg("--tlsCAFile").arg(file("ca.pem"));
        }
        mongod
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::piped());
        let mut child = mongod.spawn().expect("mongod runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = lines.any(|line| line.is_ok_and(|l| l.contains("Waiting for connections")));
        assert!(ready, "mongod ended before it took connections");
        // A pipe that nobody empties would stop it.
        std::thread::spawn(move || lines.for_each(drop));
        self.running = Some(child);
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether no thread of a process runs any more.
fn is_stopped(process: Pid) -> bool {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.as_raw_nonzero()));
    let stopped = |path: PathBuf| {
        let status = fs::read_to_string(path.join("status"));
        // What has ended is a zombie for as long as its parent is stopped.
        status.is_ok_and(|text| text.contains("State:\tT") || text.contains("State:\tZ"))
    };
    tasks.is_ok_and(|mut all| all.all(|task| task.is_ok_and(|task| stopped(task.path()))))
}

/// A program of PostgreSQL, run by an account that it accepts.
fn postgres_program(name: &str) -> Command {
    let mut command = Command::new(PathBuf::from(variable("DOORWARD_TEST_PG_BIN")).join(name));
    command.current_dir("/");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some((uid, gid)) = postgres_account() {
        command.uid(uid).gid(gid);
    }
    command
}

/// User and group to run PostgreSQL as; `None` for the present one.
pub(super) fn postgres_account() -> Option<(u32, u32)> {
    let name = env::var("DOORWARD_TEST_PG_USER")
        .ok()
        .filter(|name| !name.is_empty())?;
    let accounts = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let account = accounts
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[0] == name)
        .unwrap_or_else(|| panic!("there is no user {name} in /etc/passwd"));
    Some((
        account[2].parse().expect("a uid"),
        account[3].parse().expect("a gid"),
    ))
}

pub(super) fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        panic!("this test needs servers of its own: set {name} or run ./tests/run")
    })
}

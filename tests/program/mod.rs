//! Runs the real program, each time in a folder and an environment of its own.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::harness::backend::{Backend, Database};

/// 32 random bytes.
pub const KEY: &str = "fJ6rN3vUqk0m8Yt1sXe5bPzQwL7hGdC2oIxTnAaRyMk=";

/// How long a test waits for the program; only a failure ever waits so long.
const PATIENCE: Duration = Duration::from_mins(1);

/// An empty folder to run the program in.
pub struct Place(TempDir);

/// What a run of the program left.
#[derive(Debug)]
#[must_use]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Place {
    pub fn new() -> Self {
        Self(TempDir::new().expect("a temporary folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file that only its owner may read.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("in the folder")).expect("made");
        fs::write(&path, text).expect("written");
        set_mode(&path, 0o600);
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("readable")
    }

    /// A run with these environment variables and no others.
    pub fn command(&self, args: &[&str], variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorward"));
        command.args(args).current_dir(self.0.path()).env_clear();
        command.envs(variables.iter().copied());
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub fn run(&self, args: &[&str], variables: &[(&str, &str)]) -> Done {
        self.run_with_input(args, variables, "")
    }

    pub fn run_with_input(&self, args: &[&str], variables: &[(&str, &str)], input: &str) -> Done {
        let mut child = self.command(args, variables).spawn().expect("started");
        // A program that fails before it reads closes its end, which is no fault of the test's.
        let _ = child
            .stdin
            .take()
            .expect("piped")
            .write_all(input.as_bytes());
        child.wait_with_output().expect("ended").into()
    }

    /// Starts a server on a free port and waits until it listens.
    pub fn serve(&self, variables: &[(&str, &str)]) -> Serving {
        let mut child = self
            .command(&["serve"], variables)
            .env("DOORWARD__HTTP__LISTEN", "127.0.0.1:0")
            .spawn()
            .expect("started");
        let (send, lines) = mpsc::channel();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        thread::spawn(move || {
            out.lines()
                .map_while(Result::ok)
                .try_for_each(|l| send.send(l))
        });
        let err = tail(child.stderr.take().expect("piped"));
        let mut said = Vec::new();
        let address = loop {
            let Ok(line) = lines.recv_timeout(PATIENCE) else {
                let log: Vec<String> = err.try_iter().collect();
                panic!("the server did not start: {said:?} {log:?}");
            };
            if let Some(url) = line.strip_prefix("listening on ") {
                break url.rsplit('/').next().unwrap_or_default().to_owned();
            }
            said.push(line);
        };
        Serving {
            child,
            address,
            lines,
            log: err,
        }
    }
}

/// What makes the program serve this database, with light hashing and without the limits that all the
/// clients of one test would reach, who share an address.
pub fn serving(database: &Database) -> Vec<(&'static str, String)> {
    let settings = database.settings();
    let address = match settings.backend {
        Backend::Sqlite => (
            "DOORWARD__DATABASE__SQLITE__PATH",
            settings.sqlite.path.display().to_string(),
        ),
        Backend::Postgres => (
            "DOORWARD__DATABASE__POSTGRES__URL",
            settings.postgres.url.expose().clone(),
        ),
        Backend::Mongodb => (
            "DOORWARD__DATABASE__MONGODB__URL",
            settings.mongodb.url.expose().clone(),
        ),
    };
    vec![
        ("DOORWARD__ENVIRONMENT", "test".to_owned()),
        ("DOORWARD__TOKENS__KEY", KEY.to_owned()),
        ("DOORWARD__PASSWORDS__SCRYPT_LOG_N", "4".to_owned()),
        ("DOORWARD__PASSWORDS__SCRYPT_P", "1".to_owned()),
        (
            "DOORWARD__DATABASE__MONGODB__DATABASE",
            settings.mongodb.database.clone(),
        ),
        ("DOORWARD__DATABASE__BACKEND", settings.backend.to_string()),
        // Servers of tests forget what a power cut takes: nothing of theirs is to be kept.
        (
            "DOORWARD__DOCTOR__IGNORE",
            "postgres.fsync,postgres.full_page_writes".to_owned(),
        ),
        ("DOORWARD__LIMITS__REGISTER_ADDRESS", "off".to_owned()),
        ("DOORWARD__LIMITS__LOGIN_ADDRESS", "off".to_owned()),
        ("DOORWARD__LIMITS__FORGOT_ADDRESS", "off".to_owned()),
        ("DOORWARD__LIMITS__NODE_ADDRESS", "off".to_owned()),
        address,
    ]
}

/// Variables as [`Place::serve`] takes them.
pub fn borrowed<'a>(variables: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    let pairs = variables.iter();
    pairs.map(|(name, value)| (*name, value.as_str())).collect()
}

fn tail(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (send, lines) = mpsc::channel();
    let stream = BufReader::new(stream);
    thread::spawn(move || {
        stream
            .lines()
            .map_while(Result::ok)
            .try_for_each(|l| send.send(l))
    });
    lines
}

pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("ended by itself"),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

impl Done {
    /// The answer of a run that did what it was asked.
    #[track_caller]
    pub fn answer(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (0, ""), "{}", self.out);
        self.out
    }

    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.answer()).expect("JSON")
    }

    /// The sentence of a run that failed: one line, and nothing on standard output.
    #[track_caller]
    pub fn refusal(self) -> String {
        assert_eq!((self.code, self.out.as_str()), (1, ""), "{}", self.err);
        let sentence = self
            .err
            .strip_prefix("doorward: ")
            .expect("begins with the program's name");
        let sentence = sentence.strip_suffix('\n').expect("a whole line");
        assert!(!sentence.contains('\n'), "one line: {sentence}");
        sentence.to_owned()
    }
}

/// A server that runs until it is stopped or dropped.
pub struct Serving {
    child: Child,
    pub address: String,
    /// What it says on standard output after where it listens.
    pub lines: mpsc::Receiver<String>,
    /// What it logs.
    pub log: mpsc::Receiver<String>,
}

impl Serving {
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits until a line of the log contains this.
    pub fn logs(&self, wanted: &str) -> String {
        loop {
            let line = self
                .log
                .recv_timeout(PATIENCE)
                .expect("the line in the log");
            if line.contains(wanted) {
                return line;
            }
        }
    }

    /// The exit code, once it has ended.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("ended").code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Doorward beside programs of other people: nginx, a browser, clients in other languages, most of them
//! from `examples`. `./tests/run` installs what this needs.

mod browser;
mod clients;
mod fuzzed;
mod generated;
mod monitoring;
mod nginx;

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
};

use crate::harness::until;

/// A file or folder of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A program or folder that `./tests/run` finds or installs.
fn installed(variable: &str) -> PathBuf {
    let found = env::var_os(variable);
    found.map_or_else(
        || panic!("{variable} is not set: run ./tests/run, which installs what this test needs"),
        PathBuf::from,
    )
}

/// Waits until somebody listens.
async fn until_listening(what: &str, port: u16) {
    until(what, async || {
        tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_ok()
    })
    .await;
}

/// A program that runs until this is dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("started"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a program to its end, without holding up the servers of this test; anything but success fails
/// the test with what the program said.
async fn run(mut command: Command) -> String {
    let ran = tokio::task::spawn_blocking(move || command.output());
    let Output {
        status,
        stdout,
        stderr,
    } = ran.await.expect("no panic").expect("started");
    let (out, err) = (
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr),
    );
    assert!(status.success(), "{out}\n{err}");
    out.into_owned()
}

/// A command with these variables besides its surroundings.
fn command(program: impl AsRef<OsStr>, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command.envs(variables.iter().copied());
    command
}

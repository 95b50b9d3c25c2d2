//! Programs that run beside this one, and end with it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::{Outcome, processes::children_of};

/// How long anything may take that is waited for; only a failure ever waits so long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A program of the surroundings, or the sentence that says who finds it.
pub(crate) fn installed(variable: &str) -> Outcome<PathBuf> {
    let found = env::var_os(variable).map(PathBuf::from);
    found.ok_or_else(|| format!("{variable} is not set: run tests/scale/run").into())
}

/// Asks again until the answer is yes.
pub(crate) async fn until<F: Future<Output = bool>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> Outcome<()> {
    let beginning = Instant::now();
    while !ask().await {
        if beginning.elapsed() > PATIENCE {
            return Err(format!("waited in vain until {what}").into());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Runs a program to its end; anything but success is an error with what it said.
pub(crate) fn run(command: &mut Command) -> Outcome<String> {
    let done = command.stdin(Stdio::null()).output()?;
    let (out, err) = (
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr),
    );
    if done.status.success() {
        return Ok(out.into_owned());
    }
    let name = command.get_program().display();
    Err(format!("{name} failed: {} {}", out.trim(), err.trim()).into())
}

/// A program that runs until it is killed, at the latest when this is dropped.
pub(crate) struct Program(Option<Child>);

impl Program {
    /// Starts it; what it says goes to a file.
    pub(crate) fn start(command: &mut Command, says: &Path) -> Outcome<Self> {
        let file = fs::File::options().create(true).append(true).open(says)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?);
        Ok(Self(Some(command.stderr(file).spawn()?)))
    }

    pub(crate) fn id(&self) -> Option<u32> {
        self.0.as_ref().map(Child::id)
    }

    /// Tells it something.
    pub(crate) fn tell(&self, signal: Signal) -> Outcome<()> {
        let child = self.0.as_ref().ok_or("it has ended")?;
        Ok(kill_process(Pid::from_child(child), signal)?)
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self) -> Outcome<()> {
        let mut child = self.0.take().ok_or("it has ended already")?;
        let beginning = Instant::now();
        while child.try_wait()?.is_none() {
            if beginning.elapsed() > PATIENCE {
                let _ = child.kill();
                return Err("a program that was told to end did not".into());
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Ends it and whatever it started at once, as a power cut would.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.0.take() else {
            return;
        };
        let started = children_of(Pid::from_child(&child));
        // Each may have ended by itself.
        let _ = child.kill();
        for process in started {
            let _ = kill_process(process, Signal::KILL);
        }
        let _ = child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

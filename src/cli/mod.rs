//! The command line: what can be typed, and what comes back.
//!
//! Answers go to standard output, for people or with `--json` for scripts; errors go to standard error
//! as one sentence. Exit codes: 0 done, 1 failed, 2 not understood. Passwords come from standard input
//! only, since arguments can be seen by every user of a machine.

mod audit;
mod doctor;
mod health;
mod import;
mod keys;
mod mail;
mod roles;
mod sessions;
mod shown;
mod system;
mod transfer;
mod users;

use std::{
    fmt,
    io::{self, IsTerminal, Read, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use serde_json::Value;

use crate::{
    config::{LogLevel, Settings, Sources},
    error::AuthError,
    reporting::Reporting,
    secret::SecretString,
    server,
    setting::BadSetting,
    telemetry,
};

/// A stateful session server: every request's session is looked up in the database.
#[derive(Debug, Parser)]
#[command(name = "doorward", version, propagate_version = true)]
pub struct Cli {
    /// A file of settings, on top of config/default.toml and config/{environment}.toml
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Answer in JSON
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve,
    /// Apply pending migrations of the database
    Migrate(MigrateArgs),
    /// Remove what is over: sessions, secrets, letters, accounts that were never verified, old audit records
    Sweep,
    /// Tell what in this deployment breaks or weakens the promises; exit code 1 if anything is red
    Doctor,
    /// Ask the server on this machine whether it is ready
    Healthcheck,
    /// Print the OpenAPI document
    Openapi,
    /// Look at the settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Users
    #[command(subcommand)]
    User(users::UserCommand),
    /// Administrators
    #[command(subcommand)]
    Admin(users::AdminCommand),
    /// Sessions
    #[command(subcommand)]
    Session(sessions::SessionCommand),
    /// Keys that sign access tokens
    #[command(subcommand)]
    Key(keys::KeyCommand),
    /// Roles
    #[command(subcommand)]
    Roles(roles::RolesCommand),
    /// Letters
    #[command(subcommand)]
    Mail(mail::MailCommand),
    /// Move everything from one database to another
    Transfer(transfer::TransferArgs),
    /// The audit trail
    #[command(subcommand)]
    Audit(audit::AuditCommand),
}

#[derive(Debug, Args)]
struct MigrateArgs {
    /// Only say what is pending; exit code 1 if anything is
    #[arg(long, conflicts_with = "down")]
    check: bool,

    /// Take the last N migrations back; their data is lost
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    down: Option<u16>,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the settings and the files they name
    Check,
    /// Print the settings in force, secrets as ***
    Print,
}

/// Runs the program: parses the arguments, obeys, and answers the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody may be reading.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    // An error means that a provider is installed already, which is just as well.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(obey(cli)),
        Err(error) => Err(Failure(format!("the runtime cannot be started: {error}"))),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(sentence)) => {
            let _ = writeln!(io::stderr(), "doorward: {sentence}");
            ExitCode::FAILURE
        }
    }
}

async fn obey(cli: Cli) -> Result<(), Failure> {
    let sources = Sources::of_process(cli.config);
    let say = Say { json: cli.json };
    match cli.command {
        Command::Key(command) => return keys::obey(command, &sources, say),
        Command::Mail(command) => return mail::obey(command, say),
        Command::Transfer(args) => return transfer::obey(&args, say).await,
        Command::Config(ConfigCommand::Print) => {
            let settings = Settings::load(&sources)?;
            return say.text(settings.to_toml(), &settings);
        }
        _ => {}
    }
    let mut settings = Settings::load(&sources)?;
    if !matches!(cli.command, Command::Serve) {
        // The answer is what counts; only what went wrong on the way is worth a line.
        settings.log.level = LogLevel::Warn;
    }
    if matches!(cli.command, Command::Serve) {
        return Box::pin(serve(settings)).await;
    }
    telemetry::start(&settings.log, settings.environment, Vec::new());
    match cli.command {
        Command::Migrate(args) => system::migrate(&settings, &args, say).await,
        Command::Sweep => system::sweep(&settings, say).await,
        Command::Doctor => doctor::examine(&settings, say).await,
        Command::Healthcheck => health::check(&settings, say).await,
        Command::Openapi => system::openapi(&settings, say),
        Command::Config(_) => system::check(&settings, say),
        Command::User(command) => users::user(&settings, command, say).await,
        Command::Admin(command) => users::admin(&settings, command, say).await,
        Command::Session(command) => sessions::session(&settings, command, say).await,
        Command::Roles(command) => roles::obey(&settings, command, say).await,
        Command::Audit(command) => audit::obey(&settings, command, say).await,
        Command::Serve | Command::Key(_) | Command::Mail(_) | Command::Transfer(_) => {
            unreachable!("answered above")
        }
    }
}

/// Runs the server, and tells those whom the settings name.
async fn serve(settings: Settings) -> Result<(), Failure> {
    let environment = settings.environment;
    let (tracing, sentry) = (&settings.tracing, &settings.sentry);
    let mut reporting = Reporting::open(tracing, sentry, &environment.to_string())?;
    telemetry::start(&settings.log, environment, reporting.layers());
    let served = server::serve(settings, &program(), reporting.reported()).await;
    reporting.finish().await;
    Ok(served?)
}

/// What people type to run this program.
fn program() -> String {
    let typed = std::env::args().next();
    typed.unwrap_or_else(|| Cli::command().get_name().to_owned())
}

/// Why a command failed, in one sentence.
#[derive(Debug)]
struct Failure(String);

impl From<BadSetting> for Failure {
    fn from(error: BadSetting) -> Self {
        Self(error.to_string())
    }
}

impl From<AuthError> for Failure {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Invalid(fields) => {
                let fields = fields.iter().map(|f| format!("{}: {}", f.field, f.detail));
                Self(fields.collect::<Vec<_>>().join("; "))
            }
            other => Self(other.to_string()),
        }
    }
}

/// How answers are given.
#[derive(Debug, Clone, Copy)]
struct Say {
    json: bool,
}

impl Say {
    /// One answer, in words for people and as a value for scripts.
    fn text(self, words: impl fmt::Display, value: impl serde::Serialize) -> Result<(), Failure> {
        let text = if self.json {
            serde_json::to_value(value).map_or_else(|e| e.to_string(), |v: Value| v.to_string())
        } else {
            words.to_string().trim_end().to_owned()
        };
        writeln!(io::stdout(), "{text}")
            .map_err(|e| Failure(format!("the answer cannot be written: {e}")))
    }
}

/// A password from standard input: one line, without its line break.
fn password_from_stdin() -> Result<SecretString, Failure> {
    /// More than any password: 256 characters of four bytes, and a line break.
    const LONGEST: u64 = 4096;
    let unreadable = |e: io::Error| Failure(format!("the password cannot be read: {e}"));
    let mut text = zeroize::Zeroizing::new(String::new());
    if io::stdin().is_terminal() {
        let _ = write!(io::stderr(), "Password (it is shown): ");
        io::stdin().read_line(&mut text).map_err(unreadable)?;
    } else {
        io::stdin()
            .lock()
            .take(LONGEST)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
    }
    let line = text
        .strip_suffix('\n')
        .map_or(text.as_str(), |l| l.strip_suffix('\r').unwrap_or(l));
    if line.is_empty() || line.contains('\n') {
        return Err(Failure(
            "--password-stdin: one line is expected on standard input".to_owned(),
        ));
    }
    Ok(SecretString::from(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}

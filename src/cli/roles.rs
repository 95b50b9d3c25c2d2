//! Commands on roles: what each lets its holders do.
//!
//! The matrix comes from the types that guard the operations; without `--stored` no database is opened.

use std::fmt::Write;

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::{Failure, Say, users::with_service};
use crate::{
    config::Settings,
    http::{Asks, Operation, Verdict, operations},
    model::role::{Permissions, RoleSource},
    roles::KnownRole,
};

#[derive(Debug, Subcommand)]
pub(super) enum RolesCommand {
    /// Print which role may do what, for the built-in role and those of the configuration
    Matrix {
        /// The roles of the database as well
        #[arg(long)]
        stored: bool,
    },
}

pub(super) async fn obey(
    settings: &Settings,
    command: RolesCommand,
    say: Say,
) -> Result<(), Failure> {
    let RolesCommand::Matrix { stored } = command;
    if stored {
        return with_service(settings, async |auth| {
            print(&auth.roles().list().await?, say)
        })
        .await;
    }
    let fixed = settings.roles.fixed()?;
    let roles: Vec<KnownRole> = fixed
        .iter()
        .map(|role| KnownRole {
            source: fixed.source(&role.name).unwrap_or(RoleSource::Config),
            role,
            updated_at: None,
        })
        .collect();
    print(&roles, say)
}

/// The columns: nobody, a user without roles, and each role.
fn columns(roles: &[KnownRole]) -> Vec<(String, Option<Permissions>)> {
    let plain = [
        ("(nobody)".to_owned(), None),
        ("(no role)".to_owned(), Some(Permissions::default())),
    ];
    let roles = roles.iter().map(|known| {
        let role = &known.role;
        (role.name.clone(), Some(role.permissions.clone()))
    });
    plain.into_iter().chain(roles).collect()
}

fn print(roles: &[KnownRole], say: Say) -> Result<(), Failure> {
    let (columns, operations) = (columns(roles), operations());
    say.text(
        in_words(&columns, &operations),
        as_json(roles, &columns, &operations),
    )
}

fn in_words(columns: &[(String, Option<Permissions>)], operations: &[Operation]) -> String {
    let first = operations.iter().map(|one| one.id.len()).max().unwrap_or(0);
    let width = |name: &str| name.len().max(Verdict::StepUpSometimes.as_str().len());
    let mut text = format!("{:first$}", "");
    for (name, _) in columns {
        let _ = write!(text, "  {name:0$}", width(name));
    }
    for operation in operations {
        let _ = write!(text, "\n{:first$}", operation.id);
        for (name, held) in columns {
            let verdict = operation.answers(held.as_ref()).as_str();
            let _ = write!(text, "  {verdict:0$}", width(name));
        }
    }
    let lines = text.lines().map(str::trim_end);
    lines.collect::<Vec<_>>().join("\n")
}

fn as_json(
    roles: &[KnownRole],
    columns: &[(String, Option<Permissions>)],
    operations: &[Operation],
) -> Value {
    let roles = roles.iter().map(|known| {
        json!({
            "name": known.role.name,
            "source": known.source.as_str(),
            "permissions": known.role.permissions.to_vec(),
        })
    });
    let operations = operations.iter().map(|operation| {
        let answers = columns.iter().map(|(name, held)| {
            let verdict = operation.answers(held.as_ref());
            (name.clone(), verdict.as_str().into())
        });
        let (asks, permission, step_up) = match operation.asks {
            Asks::Nothing => ("nothing", None, None),
            Asks::Client => ("client", None, None),
            Asks::Login => ("login", None, None),
            Asks::Permission { name, step_up } => {
                ("permission", Some(name), Some(step_up.as_str()))
            }
        };
        json!({
            "operation": operation.id,
            "method": operation.method,
            "path": operation.path,
            "asks": asks,
            "permission": permission,
            "step_up": step_up,
            "answers": answers.collect::<Map<String, Value>>(),
        })
    });
    json!({ "roles": roles.collect::<Vec<_>>(), "operations": operations.collect::<Vec<_>>() })
}

//! Commands on users: the administrator's use cases, for whoever holds the database.
//!
//! Says who is meant and shows what came of it; who may do what is no question here, since whoever holds the
//! database may do everything.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Failure, Say,
    import::{Import, ImportArgs},
    password_from_stdin, program,
    shown::{details_as_json, session_as_json},
};
use crate::{
    audit::OwnEvent,
    auth::Auth,
    config::Settings,
    email::EmailAddress,
    error::AuthError,
    ids::UserId,
    model::{
        account::NewAccount,
        user::{ADMIN, Roles, User, UserStatus},
    },
    roles::Actor,
    server,
    store::LoginName,
    username::Username,
};

pub(super) const OPERATOR: Actor<'static> = Actor::Operator;

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Make a user
    Create {
        #[command(flatten)]
        new: NewUserArgs,
        /// The user name
        #[arg(long)]
        username: Option<String>,
        /// Make the user an administrator
        #[arg(long)]
        admin: bool,
    },
    /// Make users from another system's export, with the hashes of their passwords
    Import(ImportArgs),
    /// Show a user
    Show {
        /// Id, e-mail address or user name
        user: String,
    },
    /// Deactivate a user and end all their sessions
    Deactivate {
        /// Id, e-mail address or user name
        user: String,
    },
    /// Let a user log in again; ended sessions stay ended
    Activate {
        /// Id, e-mail address or user name
        user: String,
    },
    /// Forget a user's failed logins, so that they need not wait
    Unlock {
        /// Id, e-mail address or user name
        user: String,
    },
    /// Erase a user for good, with all that is kept of the person; records of the audit trail keep their ids
    Erase {
        /// Id, e-mail address or user name
        user: String,
        /// Really: nothing brings the user back
        #[arg(long, required = true)]
        yes: bool,
    },
    /// Print all that is kept of a person as JSON, to be handed to that person
    Export {
        /// Id, e-mail address or user name
        user: String,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum AdminCommand {
    /// Make an administrator
    Create(NewUserArgs),
    /// Make a user that exists an administrator
    Grant {
        /// Id, e-mail address or user name
        user: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct NewUserArgs {
    /// The e-mail address
    #[arg(long)]
    email: String,
    /// Read the password from standard input
    #[arg(long, required = true)]
    password_stdin: bool,
}

pub(super) async fn user(
    settings: &Settings,
    command: UserCommand,
    say: Say,
) -> Result<(), Failure> {
    // Before the database is opened: a missing file or password is no reason to touch it.
    if let UserCommand::Import(args) = &command {
        let import = Import::open(args, say)?;
        return with_service(settings, async |auth| import.run(auth).await).await;
    }
    let password = match &command {
        UserCommand::Create { .. } => Some(password_from_stdin()?),
        _ => None,
    };
    let password = &password.unwrap_or_default();
    with_service(settings, async |auth| {
        let user = match command {
            UserCommand::Create {
                new,
                username,
                admin,
            } => {
                let account = NewAccount {
                    email: new.email,
                    username,
                    attributes: None,
                };
                let roles = if admin {
                    Roles::admin()
                } else {
                    Roles::default()
                };
                auth.accounts().create(account, password, roles).await?
            }
            UserCommand::Import(_) => unreachable!("answered above, as it makes many users"),
            UserCommand::Show { user } => find(auth, &user).await?,
            UserCommand::Deactivate { user } => {
                auth.admin()
                    .deactivate(OPERATOR, find(auth, &user).await?.id)
                    .await?
            }
            UserCommand::Activate { user } => {
                auth.admin()
                    .activate(OPERATOR, find(auth, &user).await?.id)
                    .await?
            }
            UserCommand::Unlock { user } => {
                let user = find(auth, &user).await?;
                auth.admin().unlock(OPERATOR, user.id).await?;
                user
            }
            UserCommand::Erase { user, .. } => return erase(auth, &user, say).await,
            UserCommand::Export { user } => return export(auth, &user).await,
        };
        say.text(in_words(&user), as_json(&user))
    })
    .await
}

async fn erase(auth: &Auth, name: &str, say: Say) -> Result<(), Failure> {
    let id = find(auth, name).await?.id;
    auth.admin().erase_user(OPERATOR, id).await?;
    say.text(format!("user {id} is erased"), json!({ "erased": id }))
}

async fn export(auth: &Auth, name: &str) -> Result<(), Failure> {
    let id = find(auth, name).await?.id;
    let data = auth.admin().export_user(OPERATOR, id).await?;
    let sessions: Vec<Value> = data.sessions.iter().map(session_as_json).collect();
    let events: Vec<Value> = data.events.iter().map(event_as_json).collect();
    let all = json!({ "user": as_json(&data.user), "sessions": sessions, "events": events });
    // There are no other words for it.
    Say { json: true }.text("", all)
}

pub(super) async fn admin(
    settings: &Settings,
    command: AdminCommand,
    say: Say,
) -> Result<(), Failure> {
    let password = match &command {
        AdminCommand::Create(_) => Some(password_from_stdin()?),
        AdminCommand::Grant { .. } => None,
    };
    let password = &password.unwrap_or_default();
    with_service(settings, async |auth| {
        let user = match command {
            AdminCommand::Create(new) => {
                let email = new.email.clone();
                let account = NewAccount {
                    email: new.email,
                    username: None,
                    attributes: None,
                };
                let made = auth.accounts().create(account, password, Roles::admin());
                made.await.map_err(|error| match error {
                    AuthError::EmailTaken => Failure(format!(
                        "{error}; to make that user an administrator run `{} admin grant {email}`",
                        program()
                    )),
                    other => other.into(),
                })?
            }
            AdminCommand::Grant { user } => {
                let user = find(auth, &user).await?;
                let roles = user
                    .roles
                    .iter()
                    .chain([ADMIN])
                    .map(str::to_owned)
                    .collect();
                auth.admin().set_roles(OPERATOR, user.id, roles).await?
            }
        };
        say.text(in_words(&user), as_json(&user))
    })
    .await
}

/// Runs a command on the same use cases as the server, on the configured database.
pub(super) async fn with_service(
    settings: &Settings,
    command: impl AsyncFnOnce(&Auth) -> Result<(), Failure>,
) -> Result<(), Failure> {
    settings.check()?;
    let auth = server::open_quiet_service(settings).await?;
    let done = command(&auth).await;
    server::shut_down(&auth).await;
    done
}

pub(super) async fn find(auth: &Auth, name: &str) -> Result<User, Failure> {
    let found = if let Ok(id) = name.parse::<UserId>() {
        auth.admin().user(id).await
    } else {
        let bad = |e: &dyn std::fmt::Display| Failure(format!("`{name}`: {e}"));
        let login = if name.contains('@') {
            LoginName::Email(EmailAddress::parse(name).map_err(|e| bad(&e))?)
        } else {
            LoginName::Username(Username::parse(name).map_err(|e| bad(&e))?)
        };
        auth.admin().user_by_login(&login).await
    };
    found.map_err(|error| match error {
        AuthError::NotFound(_) => Failure(format!("there is no user `{name}`")),
        other => other.into(),
    })
}

fn in_words(user: &User) -> String {
    let verified = if user.email_verified_at.is_some() {
        ""
    } else {
        " (not verified)"
    };
    let username = user.username.as_ref().map_or("-", |name| name.as_str());
    let roles = match user.roles.to_vec() {
        none if none.is_empty() => "-".to_owned(),
        some => some.join(", "),
    };
    let status = match user.status {
        UserStatus::Active => "active".to_owned(),
        UserStatus::Deactivated { at } => format!("deactivated since {at}"),
    };
    format!(
        "id        {}\nemail     {}{verified}\nusername  {username}\nroles     {roles}\nstatus    {status}\ncreated   {}\n",
        user.id,
        user.email.as_str(),
        user.created_at
    )
}

pub(super) fn as_json(user: &User) -> Value {
    let deactivated_at = match user.status {
        UserStatus::Active => None,
        UserStatus::Deactivated { at } => Some(at.to_string()),
    };
    json!({
        "id": user.id,
        "email": user.email.as_str(),
        "email_verified": user.email_verified_at.is_some(),
        "username": user.username.as_ref().map(Username::as_str),
        "roles": user.roles.to_vec(),
        "attributes": user.attributes.as_map(),
        "status": if deactivated_at.is_none() { "active" } else { "deactivated" },
        "deactivated_at": deactivated_at,
        "created_at": user.created_at.to_string(),
        "updated_at": user.updated_at.to_string(),
    })
}

fn event_as_json(event: &OwnEvent) -> Value {
    json!({
        "id": event.id,
        "at": event.at.to_string(),
        "event": event.event,
        "outcome": event.outcome,
        "reason": event.reason,
        "actor": event.actor,
        "about_you": event.about_you,
        "session_id": event.session,
        "details": details_as_json(event.details.as_ref()),
        "facts": event.facts,
    })
}

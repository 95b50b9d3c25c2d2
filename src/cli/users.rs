//! Commands on users and sessions: the administrator's use cases, for whoever holds the database.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, Say, password_from_stdin, program};
use crate::{
    auth::Auth,
    config::Settings,
    email::EmailAddress,
    error::AuthError,
    ids::{SessionId, UserId},
    model::{
        account::NewAccount,
        session::Session,
        user::{ADMIN, Roles, User, UserStatus},
    },
    roles::Actor,
    server,
    store::LoginName,
    username::Username,
};

const OPERATOR: Actor<'static> = Actor::Operator;

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

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// List a user's sessions
    List {
        /// Id, e-mail address or user name
        user: String,
    },
    /// End a session, or all of a user; effective on the next request
    #[command(group = clap::ArgGroup::new("which").required(true))]
    Revoke {
        /// The session's id
        #[arg(group = "which")]
        session: Option<SessionId>,
        /// Id, e-mail address or user name of the user whose sessions end
        #[arg(long, group = "which")]
        user: Option<String>,
    },
}

pub(super) async fn user(
    settings: &Settings,
    command: UserCommand,
    say: Say,
) -> Result<(), Failure> {
    // Before the database is opened: a missing password is no reason to touch it.
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
        };
        say.text(in_words(&user), as_json(&user))
    })
    .await
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

pub(super) async fn session(
    settings: &Settings,
    command: SessionCommand,
    say: Say,
) -> Result<(), Failure> {
    with_service(settings, async |auth| match command {
        SessionCommand::List { user } => {
            let sessions = auth.sessions().list(find(auth, &user).await?.id).await?;
            let words = match sessions.as_slice() {
                [] => "no open session".to_owned(),
                some => some.iter().map(session_in_words).collect(),
            };
            let values: Vec<Value> = sessions.iter().map(session_as_json).collect();
            say.text(words, json!({ "items": values }))
        }
        SessionCommand::Revoke {
            user: Some(user), ..
        } => {
            let ended = auth
                .admin()
                .revoke_all(OPERATOR, find(auth, &user).await?.id)
                .await?;
            say.text(
                format!("{ended} session(s) ended"),
                json!({ "ended": ended }),
            )
        }
        SessionCommand::Revoke {
            session: Some(session),
            ..
        } => {
            auth.admin().revoke_session(OPERATOR, session).await?;
            say.text("the session is ended", json!({ "ended": 1 }))
        }
        SessionCommand::Revoke { .. } => Err(Failure("name a session or --user".to_owned())),
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

async fn find(auth: &Auth, name: &str) -> Result<User, Failure> {
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

fn as_json(user: &User) -> Value {
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

fn session_in_words(session: &Session) -> String {
    let device = &session.device;
    let address = device
        .address
        .map_or_else(|| "-".to_owned(), |a| a.to_string());
    // What a client said about itself must not steer the terminal.
    let name = device
        .name
        .as_deref()
        .or(device.user_agent.as_deref())
        .unwrap_or("-");
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    format!(
        "{}  opened {}  seen {}  {address}  {name}\n",
        session.id, session.created_at, session.last_seen_at
    )
}

fn session_as_json(session: &Session) -> Value {
    json!({
        "id": session.id,
        "user_id": session.user_id,
        "created_at": session.created_at.to_string(),
        "last_seen_at": session.last_seen_at.to_string(),
        "expires_at": session.expires_at.to_string(),
        "device_name": session.device.name,
        "user_agent": session.device.user_agent,
        "address": session.device.address.map(|a| a.to_string()),
    })
}

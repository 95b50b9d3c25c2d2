//! Commands on sessions: listing them, ending them, and saying why one ended.
//!
//! Says which session is meant; what is known of one is told by the audit trail. A token only names a session here:
//! it is never printed, not even where it is refused.

use std::io;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{
    Failure, Say,
    shown::{details_as_json, session_as_json},
    users::{OPERATOR, find, with_service},
};
use crate::{
    audit::{Again, Ending, Opening, Story},
    auth::Auth,
    config::Settings,
    ids::SessionId,
    model::session::Session,
};

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
    /// Say why a session ended: what the audit trail tells of it
    Why {
        /// The session's id, or an access token, refresh token or cookie of it; `-` reads one line from standard
        /// input, since arguments can be seen by every user of a machine
        session: String,
    },
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
                some => some.iter().map(in_words).collect(),
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
        SessionCommand::Why { session } => why(auth, &session, say).await,
        SessionCommand::Revoke { .. } => Err(Failure("name a session or --user".to_owned())),
    })
    .await
}

async fn why(auth: &Auth, named: &str, say: Say) -> Result<(), Failure> {
    let mut typed = zeroize::Zeroizing::new(String::new());
    let named = if named == "-" {
        let read = io::stdin().read_line(&mut typed);
        read.map_err(|e| Failure(format!("standard input cannot be read: {e}")))?;
        typed.trim()
    } else {
        named
    };
    let session = match named.parse::<SessionId>() {
        Ok(id) => id,
        Err(_) => auth.sessions().session_of_token(named).map_err(|_| {
            let what = "neither the id of a session nor a token that was made with these keys";
            Failure(what.to_owned())
        })?,
    };
    let story = auth.audit().story(session).await?;
    say.text(&story, story_as_json(&story))
}

fn story_as_json(story: &Story) -> Value {
    json!({
        "session_id": story.session,
        "user_id": story.user,
        "state": story.fate.as_str(),
        "text": story.to_string(),
        "opened": story.opened.as_ref().map(opening_as_json),
        "reauthenticated": again_as_json(story.reauthenticated),
        "refresh_repeated": again_as_json(story.repeated),
        "ended": story.ended.as_ref().map(ending_as_json),
    })
}

fn opening_as_json(opening: &Opening) -> Value {
    json!({
        "session_id": opening.session,
        "at": opening.at.to_string(),
        "auth_methods": opening.auth_methods,
        "details": details_as_json(opening.details.as_ref()),
    })
}

fn ending_as_json(ending: &Ending) -> Value {
    json!({
        "at": ending.at.to_string(),
        "reason": ending.reason,
        "actor": ending.actor,
        "actor_id": ending.actor_id,
        "details": details_as_json(ending.details.as_ref()),
        "replaced_by": ending.replaced_by.as_ref().map(opening_as_json),
    })
}

fn again_as_json(again: Again) -> Value {
    json!({ "times": again.times, "last": again.last.map(|at| at.to_string()) })
}

fn in_words(session: &Session) -> String {
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

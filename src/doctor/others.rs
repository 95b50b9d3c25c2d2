//! Others that are asked whether they will do their part: the mail server, the breach service and the other nodes.
//!
//! Decides how long each may take. No letter is sent, and nothing about anybody is asked.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    auth::canary,
    config::Settings,
    finding::{Check, Finding},
    mail::{open::open_mailer, settings::Transport},
    passwords::breach,
};

/// How long each may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Asks everybody whom the settings name.
pub async fn of_others(settings: &Settings) -> Vec<Finding> {
    let (mail, breaches, peers) =
        tokio::join!(login(settings), breaches(settings), peers(settings));
    [mail, breaches, peers].into_iter().flatten().collect()
}

pub(super) fn transport(settings: &Settings) -> Finding {
    let name = Check::MailTransport;
    match settings.mail.transport {
        Transport::None => Finding::yellow(
            name,
            "no letters are sent: nobody can verify an address, set a forgotten password or hear of a strange login; set \
             mail.transport",
        ),
        // Production refuses it.
        Transport::Memory => Finding::green(name, "letters stay in this process, at /dev/mail"),
        Transport::Smtp | Transport::Sendgrid | Transport::File => {
            Finding::green(name, "letters are sent")
        }
    }
}

/// Connects to the mail server as for a letter, logs in, and leaves.
async fn login(settings: &Settings) -> Option<Finding> {
    let name = Check::MailLogin;
    let mail = &settings.mail;
    if mail.transport != Transport::Smtp {
        return None;
    }
    let opened = mail
        .sender()
        .and_then(|sender| Ok((sender, open_mailer(mail)?)));
    let (sender, mailer) = match opened {
        Ok((sender, Some(opened))) => (sender, opened.mailer),
        Ok((_, None)) => return None,
        Err(bad) => return Some(Finding::red(name, bad.to_string())),
    };
    let why = match timeout(PATIENCE, mailer.check(&sender)).await {
        Ok(Ok(())) => {
            let says = format!("{} would take letters", mail.smtp.host);
            return Some(Finding::green(name, says));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    let says = format!(
        "{} port {} takes no letters of ours ({why}): they wait until it does; check mail.smtp",
        mail.smtp.host,
        mail.smtp.effective_port()
    );
    Some(Finding::red(name, says))
}

async fn breaches(settings: &Settings) -> Option<Finding> {
    let name = Check::Breaches;
    let asked = breach::reach(&settings.passwords.breach).await?;
    Some(match asked {
        Ok(()) => Finding::green(name, "the breach service answers"),
        Err(why) => Finding::yellow(
            name,
            format!(
                "the breach service does not answer ({why}), so new passwords are compared with the built-in list only; check \
                 passwords.breach.base_url"
            ),
        ),
    })
}

async fn peers(settings: &Settings) -> Option<Finding> {
    let name = Check::Peers;
    if settings.canary.peers.is_empty() {
        return None;
    }
    let asked = match canary::reach(&settings.canary).await {
        Ok(asked) => asked,
        Err(bad) => return Some(Finding::red(name, bad.to_string())),
    };
    let silent = asked.iter().filter_map(|(peer, why)| Some((peer, (*why)?)));
    let silent: Vec<String> = silent
        .map(|(peer, why)| format!("{peer} ({why})"))
        .collect();
    if silent.is_empty() {
        return Some(Finding::green(name, "the other nodes answer"));
    }
    let says = format!(
        "nobody measures how fast a revocation is obeyed by {}; check canary.peers and the way there",
        silent.join(", ")
    );
    Some(Finding::yellow(name, says))
}

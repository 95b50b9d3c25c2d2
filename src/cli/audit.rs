//! Commands on the audit trail: whether it is as it was sealed, and sealing it now.
//!
//! They need the key that the server seals with. `verify` changes nothing; its exit code says whether all is
//! whole, so that a timer can ask.

use std::fmt::Write;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Failure, Say, users::with_service};
use crate::{
    audit::{Break, Flaw, Sealing, Verified},
    config::Settings,
    error::AuthError,
    model::audit::seal::{Mark, Sealed},
};

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Check that no sealed record was changed, removed, added or moved; exit code 1 if one was
    Verify {
        /// A head from the log or from `audit seal`, kept elsewhere: it must be in the chain
        #[arg(long, value_name = "SEQ:SEAL", value_parser = head)]
        head: Option<Sealed>,
    },
    /// Seal what was recorded until now, and print the head
    Seal,
}

fn head(text: &str) -> Result<Sealed, String> {
    Mark::parse_text(text)
        .ok_or_else(|| "must be a place and a seal, as `audit seal` prints them".to_owned())
}

pub(super) async fn obey(
    settings: &Settings,
    command: AuditCommand,
    say: Say,
) -> Result<(), Failure> {
    with_service(settings, async |auth| match command {
        AuditCommand::Verify { head } => {
            let verified = auth.audit().verify(head).await.map_err(AuthError::from)?;
            let said = say.text(in_words(&verified), as_json(&verified));
            if verified.is_whole() {
                said
            } else {
                said.and(Err(Failure("the audit trail is broken".to_owned())))
            }
        }
        AuditCommand::Seal => seal(auth.audit().seal().await.map_err(AuthError::from)?, say),
    })
    .await
}

fn seal(done: Sealing, say: Say) -> Result<(), Failure> {
    match done {
        Sealing::Done { sealed, head } => {
            let head = head.as_ref().map(Mark::to_text);
            let words = format!(
                "sealed {sealed}, head {}",
                head.as_deref().unwrap_or("none: nothing was recorded yet")
            );
            say.text(words, json!({ "sealed": sealed, "head": head }))
        }
        Sealing::Busy => Err(Failure("another node is sealing at this moment".to_owned())),
        Sealing::Refused(found) => Err(Failure(format!(
            "nothing is sealed onto a broken chain: {found}; see `doorward audit verify`"
        ))),
    }
}

fn in_words(verified: &Verified) -> String {
    let mut words = if verified.is_whole() {
        "whole".to_owned()
    } else {
        "BROKEN".to_owned()
    };
    // Writing to a string cannot fail.
    let _ = match verified.first.zip(verified.last) {
        Some((first, last)) => {
            let records = verified.records;
            write!(
                words,
                ": {records} sealed records, places {first} to {last}"
            )
        }
        None => write!(words, ": no sealed record"),
    };
    if let Some(head) = &verified.head {
        let _ = write!(words, "\nhead {}, sealed {}", head.to_text(), head.at);
    }
    if let Some(cut) = &verified.checkpoint {
        let _ = write!(
            words,
            "\nremoved for their age up to place {}, last {}",
            cut.seq, cut.at
        );
    }
    for (count, what) in [
        (verified.unsealed, "not sealed yet: not checked"),
        (
            verified.expired,
            "about to be removed for their age: not checked",
        ),
    ] {
        if count > 0 {
            let _ = write!(words, "\n{count} {what}");
        }
    }
    for found in &verified.breaks {
        let _ = write!(words, "\n{found}");
    }
    if verified.more_breaks > 0 {
        let _ = write!(words, "\nand {} more breaks", verified.more_breaks);
    }
    words
}

fn as_json(verified: &Verified) -> Value {
    let mark = |mark: &Option<Mark>| {
        let mark = mark.as_ref();
        mark.map(|mark| json!({ "mark": mark.to_text(), "at": mark.at.to_string() }))
    };
    let breaks: Vec<Value> = verified.breaks.iter().map(break_as_json).collect();
    json!({
        "whole": verified.is_whole(),
        "records": verified.records,
        "first": verified.first,
        "last": verified.last,
        "head": mark(&verified.head),
        "checkpoint": mark(&verified.checkpoint),
        "unsealed": verified.unsealed,
        "expired": verified.expired,
        "breaks": breaks,
        "more_breaks": verified.more_breaks,
    })
}

fn break_as_json(found: &Break) -> Value {
    let until = match found.flaw {
        Flaw::Missing { until } => until,
        _ => found.place,
    };
    json!({
        "place": found.place,
        "until": until,
        "record": found.record,
        "flaw": found.flaw.as_str(),
        "says": found.to_string(),
    })
}

//! A letter as it travels: RFC 5322 headers and a MIME body, ASCII only.
//!
//! Decides what the headers say besides sender, recipient and subject, and that no text can add one
//! (ASVS 1.3.11). The same [`Mail`] gives the same bytes every time.

use std::time::{Duration, SystemTime};

use lettre::{
    Address,
    message::{
        Mailbox, Message, MultiPart, SinglePart,
        header::{Date, HeaderName, HeaderValue},
    },
};

use super::{Mail, SendError};
use crate::email::EmailAddress;

/// What every letter says of itself: a program wrote it, and out-of-office notes are not to answer
/// (RFC 3834 §5, and what Exchange obeys instead).
pub(super) const AUTOMATIC: [(&str, &str); 2] = [
    ("Auto-Submitted", "auto-generated"),
    ("X-Auto-Response-Suppress", "All"),
];

/// A letter ready for the wire.
pub(super) struct Written {
    /// The envelope's sender.
    pub(super) from: Address,
    /// The envelope's recipient.
    pub(super) to: Address,
    /// Headers and body.
    pub(super) bytes: Vec<u8>,
}

/// Writes a letter out.
pub(super) fn write(mail: &Mail) -> Result<Written, SendError> {
    let from = address(&mail.from.address)?;
    let to = address(&mail.to)?;
    let name = Some(one_line(&mail.from.name)).filter(|name| !name.is_empty());
    let mut builder = Message::builder()
        .from(Mailbox::new(name, from.clone()))
        .to(Mailbox::new(None, to.clone()))
        .subject(one_line(&mail.subject))
        .header(date(mail))
        .raw_header(message_id(mail));
    for (name, value) in AUTOMATIC {
        builder = builder.raw_header(header(name, value));
    }
    let message = builder
        .raw_header(header("Content-Language", &one_line(&mail.language)))
        .multipart(body(mail))
        .map_err(|_| SendError::Refused("it cannot be written as a message".to_owned()))?;
    Ok(Written {
        from,
        to,
        bytes: message.formatted(),
    })
}

/// A text without what could end a line: control characters become spaces.
pub(super) fn one_line(text: &str) -> String {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    let line: String = text
        .chars()
        .map(|c| if breaks(c) { ' ' } else { c })
        .collect();
    line.trim().to_owned()
}

/// Both texts; the last one is what programs prefer (RFC 2046 §5.1.4).
fn body(mail: &Mail) -> MultiPart {
    // No encoded line holds "=_" (RFC 2045 §6.7).
    MultiPart::alternative()
        .boundary(format!("=_{}", mail.id))
        .singlepart(SinglePart::plain(plain_lines(&mail.text)))
        .singlepart(SinglePart::html(plain_lines(&mail.html)))
}

/// A text whose lines end in one way only. A lone CR is a line's end to some servers and none to others:
/// a letter could end early for one of them, and what follows would be commands.
fn plain_lines(text: &str) -> String {
    let one_way = text.replace("\r\n", "\n").replace('\r', "\n");
    let kept = |c: &char| !c.is_control() || matches!(c, '\n' | '\t');
    one_way.chars().filter(kept).collect()
}

/// Never folded: it holds an id and a checked domain.
fn message_id(mail: &Mail) -> HeaderValue {
    let id = mail.message_id();
    let name = HeaderName::new_from_ascii_str("Message-ID");
    HeaderValue::dangerous_new_pre_encoded(name, id.clone(), id)
}

fn date(mail: &Mail) -> Date {
    let seconds = u64::try_from(mail.date.as_secs()).unwrap_or(0);
    Date::new(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn header(name: &'static str, value: &str) -> HeaderValue {
    HeaderValue::new(HeaderName::new_from_ascii_str(name), value.to_owned())
}

fn address(address: &EmailAddress) -> Result<Address, SendError> {
    let parsed = address.as_str().parse();
    parsed.map_err(|_| SendError::Refused("an address cannot be written in a message".to_owned()))
}

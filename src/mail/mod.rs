//! Mail: what a transport is, and what it is given to send.
//!
//! Which letters there are and when they are sent is for [`crate::outbox`]; what stands in them for
//! [`crate::letters`]. A transport takes one letter over, or says why not and whether later is worth a try.

#[cfg(feature = "mail")]
pub mod file;
pub mod memory;
#[cfg(feature = "mail")]
mod message;
pub mod open;
#[cfg(feature = "mail")]
pub mod sendgrid;
pub mod settings;
#[cfg(feature = "mail")]
pub mod smtp;

use async_trait::async_trait;

use crate::{clock::Timestamp, email::EmailAddress, ids::LetterId};

/// Who letters come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The name that people see; may be empty.
    pub name: String,
    /// The address that answers go to.
    pub address: EmailAddress,
}

/// A letter as it is handed to a transport: one recipient, nothing left to fill in.
///
/// It holds one-time secrets, so its texts must not reach a log.
#[derive(Clone)]
pub struct Mail {
    /// Which letter; its `Message-ID` is made of it, so that a letter sent twice can be told.
    pub id: LetterId,
    /// Who it comes from.
    pub from: Sender,
    /// Who gets it.
    pub to: EmailAddress,
    /// One line.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The same as HTML.
    pub html: String,
    /// The language of both, as BCP 47 names it.
    pub language: String,
    /// When it is sent.
    pub date: Timestamp,
}

impl Mail {
    /// The `Message-ID`, the same at every attempt: `<id@domain of the sender>` (RFC 5322 §3.6.4).
    #[must_use]
    pub fn message_id(&self) -> String {
        let domain = self.from.address.canonical().rsplit('@').next();
        format!("<{}@{}>", self.id, domain.unwrap_or_default())
    }
}

/// Prints who and which letter, never what stands in it.
impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mail({} to {:?})", self.id, self.to)
    }
}

/// Why a transport did not take a letter over. The texts hold no address and no credentials: what a server
/// says is cut down to its code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Refused for good: the same letter would be refused again.
    #[error("refused: {0}")]
    Refused(String),
    /// Not now: the server is away, busy or asks to come back, or our own credentials are wrong.
    #[error("not now: {0}")]
    Later(String),
}

/// What carries letters.
///
/// `Ok` means that somebody else is responsible for the letter from now on. A connection that is lost
/// after the letter was handed over, but before the answer came, is [`SendError::Later`]: better twice than
/// never.
#[async_trait]
pub trait Mailer: Send + Sync + 'static {
    /// Sends one letter. The caller sets the deadline and may drop the future at any point.
    ///
    /// # Errors
    /// [`SendError`].
    async fn send(&self, mail: &Mail) -> Result<(), SendError>;

    /// Finds out, as far as can be without a letter, whether one of this sender's would be taken over. The caller sets
    /// the deadline. A transport that cannot tell says yes.
    ///
    /// # Errors
    /// [`SendError`].
    async fn check(&self, _sender: &Sender) -> Result<(), SendError> {
        Ok(())
    }
}

//! The transport that the settings choose.
//!
//! Decides nothing but which one it is, and says so where this build does not contain it. Whether the
//! settings may be obeyed is for [`MailSettings::check`], which comes first.

use std::sync::Arc;

use super::{
    Mailer,
    memory::MemoryMailer,
    settings::{MailSettings, Transport},
};
use crate::setting::BadSetting;

/// A transport ready for use.
#[derive(Clone)]
pub struct OpenedMailer {
    /// What carries letters.
    pub mailer: Arc<dyn Mailer>,
    /// The letters themselves, where the transport is `memory`.
    pub mailbox: Option<MemoryMailer>,
}

/// The chosen transport; none where no letters are sent. No server is asked yet.
///
/// # Errors
/// [`BadSetting`] for a transport that this build does not contain, and for a file or folder that the
/// transport cannot use.
pub fn open_mailer(settings: &MailSettings) -> Result<Option<OpenedMailer>, BadSetting> {
    let opened = match settings.transport {
        Transport::None => return Ok(None),
        Transport::Memory => {
            let mailbox = MemoryMailer::new();
            OpenedMailer {
                mailer: Arc::new(mailbox.clone()),
                mailbox: Some(mailbox),
            }
        }
        #[cfg(feature = "mail")]
        Transport::Smtp => carried_by(super::smtp::SmtpMailer::new(&settings.smtp)?),
        #[cfg(feature = "mail")]
        Transport::Sendgrid => {
            carried_by(super::sendgrid::SendGridMailer::new(&settings.sendgrid)?)
        }
        #[cfg(feature = "mail")]
        Transport::File => carried_by(super::file::FileMailer::new(&settings.file)?),
        #[cfg(not(feature = "mail"))]
        Transport::Smtp | Transport::Sendgrid | Transport::File => {
            return Err(BadSetting::new(
                "mail.transport",
                "names what this build does not contain",
                "build it with the feature `mail`, or choose memory or none",
            ));
        }
    };
    Ok(Some(opened))
}

#[cfg(feature = "mail")]
fn carried_by(mailer: impl Mailer) -> OpenedMailer {
    OpenedMailer {
        mailer: Arc::new(mailer),
        mailbox: None,
    }
}

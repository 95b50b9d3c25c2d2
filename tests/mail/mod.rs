//! Letters on their way: the transports against servers that are not ours.

mod sendgrid;
mod settings;
mod transports;

use doorward::{
    clock::Timestamp,
    email::EmailAddress,
    ids::LetterId,
    mail::{Mail, Mailer, SendError, Sender},
};
use uuid::Uuid;

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text).expect("an address")
}

/// A letter to this address, of this number.
fn letter(number: u128, to: &str) -> Mail {
    Mail {
        id: LetterId::from(Uuid::from_u128(number)),
        from: Sender {
            name: "Türsteher".to_owned(),
            address: address("no-reply@example.org"),
        },
        to: address(to),
        subject: "Grüße von der Tür".to_owned(),
        text: "Dein Code ist 123456.\nhttps://example.org/x#token=ab-c_1\n.\nBis bald — die Tür\n"
            .to_owned(),
        html: "<p>Dein Code ist <b>123456</b> — die Tür</p>".to_owned(),
        language: "de".to_owned(),
        date: Timestamp::from_millis(1_700_000_000_000),
    }
}

/// Sends a letter to Ann.
async fn sent_by(mailer: &dyn Mailer) -> Result<(), SendError> {
    mailer.send(&letter(1, "ann@example.org")).await
}

fn later(why: &str) -> Result<(), SendError> {
    Err(SendError::Later(why.to_owned()))
}

fn refused(why: &str) -> Result<(), SendError> {
    Err(SendError::Refused(why.to_owned()))
}

//! Letters: what is to be sent, to whom, and how far it got.
//!
//! A letter is an intention that is written with the change that causes it. It holds no secret: the one
//! that goes into its link or code is derived from its id when it is sent.

use serde::{Deserialize, Serialize};

use crate::{
    clock::{Span, Timestamp},
    email::EmailAddress,
    entropy::Entropy,
    ids::{LetterId, RegistrationId, UserId},
    model::token::Purpose,
};

/// What a letter is about; decides its text and what the secret in it is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LetterKind {
    /// Shows that the account's address is its user's, by link or code.
    VerifyEmail,
    /// Completes a registration that waits for its address, by link or code.
    ConfirmRegistration,
    /// Tells the owner of an address that somebody asked for an account with it.
    AddressTaken,
    /// Sets a new password, by link or code.
    ResetPassword,
    /// Gives an account another address, by link or code sent to it.
    ConfirmNewEmail,
    /// Lets a user whom an administrator has made set the first password, by link.
    Invitation,
    /// Tells the old address that the account has another one.
    EmailChanged,
    /// Tells that the password was changed.
    PasswordChanged,
    /// Tells that a session was ended because somebody had a copy of its refresh token.
    RefreshReused,
    /// Tells of a login from a device that was not seen before.
    NewDevice,
}

impl LetterKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::VerifyEmail,
        Self::ConfirmRegistration,
        Self::AddressTaken,
        Self::ResetPassword,
        Self::ConfirmNewEmail,
        Self::Invitation,
        Self::EmailChanged,
        Self::PasswordChanged,
        Self::RefreshReused,
        Self::NewDevice,
    ];

    /// As stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::ConfirmRegistration => "confirm_registration",
            Self::AddressTaken => "address_taken",
            Self::ResetPassword => "reset_password",
            Self::ConfirmNewEmail => "confirm_new_email",
            Self::Invitation => "invitation",
            Self::EmailChanged => "email_changed",
            Self::PasswordChanged => "password_changed",
            Self::RefreshReused => "refresh_reused",
            Self::NewDevice => "new_device",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// What the secret in it is good for; none for a letter that holds none.
    #[must_use]
    pub const fn purpose(self) -> Option<Purpose> {
        match self {
            Self::VerifyEmail => Some(Purpose::VerifyEmail),
            Self::ConfirmRegistration => Some(Purpose::ConfirmRegistration),
            Self::AddressTaken => None,
            Self::ResetPassword => Some(Purpose::ResetPassword),
            Self::ConfirmNewEmail => Some(Purpose::ChangeEmail),
            Self::Invitation => Some(Purpose::SetPassword),
            Self::EmailChanged | Self::PasswordChanged | Self::RefreshReused | Self::NewDevice => {
                Some(Purpose::NotMe)
            }
        }
    }
}

/// What a letter tells besides its kind. Kept small: it is stored with the letter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LetterDetails {
    /// What the client said that it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Where the client was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whether a notice only tells, and holds no link to undo what it tells of.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub only_tells: bool,
}

/// A letter about to be stored, in the same step as the change that causes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLetter {
    /// Its id.
    pub id: LetterId,
    /// What it is about.
    pub kind: LetterKind,
    /// Whom it is about, where that is known; otherwise the owner of `to` when it is sent.
    pub user_id: Option<UserId>,
    /// Which waiting registration it is about.
    pub registration_id: Option<RegistrationId>,
    /// Where it goes; the user's address when it is sent, if none is given.
    pub to: Option<EmailAddress>,
    /// The language that whoever caused it asked for (`de`, `pt-br`).
    pub language: Option<String>,
    /// What it tells besides.
    pub details: LetterDetails,
    /// The user's `credential_version` that what caused it was proved with; the letter is void under
    /// any other.
    pub credential_version: Option<i64>,
    /// When it was caused.
    pub created_at: Timestamp,
}

impl NewLetter {
    /// A letter of this kind that nothing else is known about yet.
    #[must_use]
    pub fn fresh(kind: LetterKind, now: Timestamp, entropy: &dyn Entropy) -> Self {
        Self {
            id: LetterId::fresh(now, entropy),
            kind,
            user_id: None,
            registration_id: None,
            to: None,
            language: None,
            details: LetterDetails::default(),
            credential_version: None,
            created_at: now,
        }
    }

    /// What the secret in it is good for; none for a letter that holds none.
    #[must_use]
    pub const fn purpose(&self) -> Option<Purpose> {
        if self.details.only_tells {
            return None;
        }
        self.kind.purpose()
    }

    /// A notice that holds no link to undo what it tells of.
    #[must_use]
    pub fn only_telling(mut self) -> Self {
        self.details.only_tells = true;
        self
    }

    /// About this user.
    #[must_use]
    pub fn about(mut self, user: UserId) -> Self {
        self.user_id = Some(user);
        self
    }

    /// To this address.
    #[must_use]
    pub fn to(mut self, address: &EmailAddress) -> Self {
        self.to = Some(address.clone());
        self
    }

    /// In this language, if there are texts in it.
    #[must_use]
    pub fn in_language(mut self, language: Option<&str>) -> Self {
        self.language = language.map(str::to_owned);
        self
    }
}

/// How far a letter got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterState {
    /// To be sent when it is due, or being sent: a claim moves the due time to the end of its lease.
    Waiting,
    /// Taken over by a mail server.
    Sent,
    /// Given up: refused for good, or not taken over for too long.
    Dead,
    /// Not to be sent any more: what it was for is over, nobody has the address, or an administrator
    /// dropped it.
    Dropped,
}

impl LetterState {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Sent, Self::Dead, Self::Dropped];

    /// As stored and shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sent => "sent",
            Self::Dead => "dead",
            Self::Dropped => "dropped",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A stored letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// As it was caused.
    pub new: NewLetter,
    /// How far it got.
    pub state: LetterState,
    /// How often a worker has claimed it.
    pub attempts: u32,
    /// When it may be claimed next; while it is being sent, when the lease ends.
    pub due_at: Timestamp,
    /// Grows with every claim; whoever settles with an older one is too late.
    pub fence: i64,
    /// Why the last attempt failed, in a few words without addresses.
    pub last_error: Option<String>,
    /// When it was sent, given up or dropped.
    pub settled_at: Option<Timestamp>,
}

/// How an attempt to send a letter ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// A mail server has taken it over.
    Sent,
    /// Not to be sent any more.
    Dropped {
        /// Why, in a few words.
        reason: String,
    },
    /// Failed for now.
    Again {
        /// When to try once more.
        at: Timestamp,
        /// Why, in a few words without addresses.
        error: String,
    },
    /// Failed for good.
    Dead {
        /// Why, in a few words without addresses.
        error: String,
    },
}

/// What ends the secrets of a user, with those in letters that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voiding {
    /// A password that was changed with the old one.
    PasswordChanged,
    /// A password that was set with a secret: whoever has the mailbox decides. The links of notices stay, or
    /// somebody who has moved the account to an address of their own could take the old one's way back.
    PasswordReset,
    /// A reader of a notice has taken the account back: nothing that anybody else got counts any more, but
    /// for the links of notices that are older than that one. Or somebody who moved the account could tell
    /// themselves of something, say that it was not them, and so take the owner's way back.
    Disowned,
    /// An administrator has given the account another address.
    Moved,
}

impl Voiding {
    /// Which secrets it makes void.
    #[must_use]
    pub const fn purposes(self) -> &'static [Purpose] {
        use Purpose as P;
        match self {
            Self::PasswordChanged => &[P::SetPassword, P::ResetPassword, P::ChangeEmail],
            Self::PasswordReset => &[
                P::SetPassword,
                P::ResetPassword,
                P::ChangeEmail,
                P::VerifyEmail,
            ],
            Self::Disowned | Self::Moved => &P::ALL,
        }
    }

    /// Which letters it makes void before they are sent.
    #[must_use]
    pub const fn letters(self) -> &'static [LetterKind] {
        use LetterKind as L;
        match self {
            Self::PasswordChanged => &[L::ResetPassword, L::ConfirmNewEmail, L::Invitation],
            Self::PasswordReset => &[
                L::ResetPassword,
                L::ConfirmNewEmail,
                L::Invitation,
                L::VerifyEmail,
            ],
            Self::Disowned | Self::Moved => &[
                L::ResetPassword,
                L::ConfirmNewEmail,
                L::Invitation,
                L::VerifyEmail,
                L::EmailChanged,
                L::PasswordChanged,
                L::RefreshReused,
                L::NewDevice,
            ],
        }
    }
}

/// How long an address that an account has left is kept for it, so that the notice that was sent there can bring
/// it back; no link of a notice is good for longer. Nobody else can have the address meanwhile.
pub const ADDRESS_KEPT: Span = Span::days(14);

/// How long the code in a letter is good, from the moment it is sent (ASVS 6.5.5).
pub const CODE_TTL: Span = Span::minutes(10);
/// How often a code may be tried (ASVS 6.6.3).
pub const CODE_TRIES: i32 = 5;
/// For how long wrong tries are remembered: a new code inherits them, so asking for one gives no more
/// tries. Whoever has none left uses the link.
pub const TRIES_REMEMBERED: Span = Span::minutes(60);

impl Purpose {
    /// Until when the link in a letter is good that is sent now.
    #[must_use]
    pub fn link_expires_at(self, caused_at: Timestamp, now: Timestamp) -> Timestamp {
        let expires_at = now.plus(self.link_ttl());
        match self {
            Self::NotMe => expires_at.min(caused_at.plus(ADDRESS_KEPT)),
            _ => expires_at,
        }
    }

    /// How long the link in a letter is good, from the moment it is sent.
    #[must_use]
    pub const fn link_ttl(self) -> Span {
        match self {
            Self::ResetPassword => Span::minutes(60),
            Self::VerifyEmail | Self::ConfirmRegistration | Self::ChangeEmail => Span::days(1),
            Self::SetPassword => Span::days(3),
            Self::NotMe => Span::days(7),
        }
    }
}

//! What can happen. Every backend makes its events here, so that they are the same on each.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::{
    ids::{LetterId, SessionId, UserId},
    model::{
        mail::LetterKind,
        role::RoleDefinition,
        session::{AuthMethod, CloseReason, NewSession},
        user::{NewUser, Roles, UserPatch},
    },
};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What happened.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventKind { $($(#[$doc])* $name,)* }

        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// As records name it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The reverse of [`Self::as_str`].
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
            }
        }
    };
}

kinds! {
    /// Somebody logged in, or tried to.
    Login = "login",
    /// Somebody who is logged in proved again who they are, or tried to.
    Reauthentication = "reauthentication",
    /// A session ended; the reason is its `close_reason`.
    SessionEnded = "session_ended",
    /// A refresh token that had been used was answered once more.
    RefreshRepeated = "refresh_repeated",
    /// Somebody asked for an account that waits for its address to be confirmed.
    RegistrationRequested = "registration_requested",
    /// An account came to be.
    AccountCreated = "account_created",
    /// Fields of an account were changed; the facts name them.
    AccountChanged = "account_changed",
    /// An account was deactivated.
    AccountDeactivated = "account_deactivated",
    /// A deactivated account was activated.
    AccountActivated = "account_activated",
    /// An account whose address was never verified was removed.
    AccountRemoved = "account_removed",
    /// A person's data was deleted.
    AccountErased = "account_erased",
    /// A person's data was given out.
    AccountExported = "account_exported",
    /// What failed logins had counted against an account was forgotten.
    AccountUnlocked = "account_unlocked",
    /// Somebody used the link in a notice to say that a change was not theirs.
    AccountReclaimed = "account_reclaimed",
    /// A password was replaced by somebody who knew the old one, or tried to.
    PasswordChanged = "password_changed",
    /// A password was set by a link or a code.
    PasswordReset = "password_reset",
    /// An address was verified.
    EmailVerified = "email_verified",
    /// An account got another address.
    EmailChanged = "email_changed",
    /// A letter with a link or a code was asked for.
    LetterRequested = "letter_requested",
    /// A link or a code was refused.
    ProofRefused = "proof_refused",
    /// An account's roles were replaced.
    RolesChanged = "roles_changed",
    /// A role was stored.
    RoleStored = "role_stored",
    /// A role was deleted.
    RoleDeleted = "role_deleted",
    /// A caller lacked a permission, a role, the rank or a fresh login.
    PermissionRefused = "permission_refused",
    /// A limit refused requests; the facts say which and how many.
    LimitReached = "limit_reached",
    /// A letter was made due once more.
    LetterRetried = "letter_retried",
    /// A letter was given up by hand.
    LetterDropped = "letter_dropped",
    /// Records of the trail were given out.
    AuditExported = "audit_exported",
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was refused, and changed nothing.
    Refused,
}

impl Outcome {
    /// As records name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }

    /// The reverse of [`Self::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Done, Self::Refused]
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
    }
}

/// Something that happened; when, by whom and from where is said by the occasion.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What.
    pub kind: EventKind,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, in a word.
    pub reason: Option<Cow<'static, str>>,
    /// The user it was done to.
    pub subject: Option<UserId>,
    /// The session it was done to.
    pub session: Option<SessionId>,
    facts: Map<String, Value>,
}

impl Event {
    /// Something that was done.
    #[must_use]
    pub fn done(kind: EventKind) -> Self {
        Self {
            kind,
            outcome: Outcome::Done,
            reason: None,
            subject: None,
            session: None,
            facts: Map::new(),
        }
    }

    /// Something that was refused.
    #[must_use]
    pub fn refused(kind: EventKind, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            outcome: Outcome::Refused,
            reason: Some(reason.into()),
            ..Self::done(kind)
        }
    }

    /// With whom it was done to.
    #[must_use]
    pub fn about(mut self, user: impl Into<Option<UserId>>) -> Self {
        self.subject = user.into();
        self
    }

    /// With the session it was done to.
    #[must_use]
    pub fn of_session(mut self, session: SessionId) -> Self {
        self.session = Some(session);
        self
    }

    /// With a fact; never anything personal or secret.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// The facts as they are stored.
    pub(super) fn facts_text(&self) -> Option<String> {
        (!self.facts.is_empty()).then(|| Value::Object(self.facts.clone()).to_string())
    }

    /// A session was opened.
    #[must_use]
    pub fn login(new: &NewSession) -> Self {
        let methods: Vec<_> = new
            .auth_methods
            .iter()
            .map(|m| AuthMethod::as_str(*m))
            .collect();
        Self::done(EventKind::Login)
            .about(new.user_id)
            .of_session(new.id)
            .with("auth_methods", methods)
    }

    /// A login was refused; the user is none where nobody has the name.
    #[must_use]
    pub fn login_refused(user: Option<UserId>, reason: &'static str) -> Self {
        Self::refused(EventKind::Login, reason).about(user)
    }

    /// A session ended.
    #[must_use]
    pub fn session_ended(user: UserId, session: SessionId, reason: CloseReason) -> Self {
        Self {
            reason: Some(reason.as_str().into()),
            ..Self::done(EventKind::SessionEnded)
                .about(user)
                .of_session(session)
        }
    }

    /// An account came to be.
    #[must_use]
    pub fn account_created(new: &NewUser) -> Self {
        let event = Self::done(EventKind::AccountCreated).about(new.user.id);
        let roles = new.user.roles.to_vec();
        if roles.is_empty() {
            event
        } else {
            event.with("roles", roles)
        }
    }

    /// Fields of an account were changed.
    #[must_use]
    pub fn account_changed(user: UserId, patch: &UserPatch) -> Self {
        Self::done(EventKind::AccountChanged)
            .about(user)
            .with("fields", patch.field_names())
    }

    /// An account's roles were replaced.
    #[must_use]
    pub fn roles_changed(user: UserId, before: &Roles, after: &Roles) -> Self {
        Self::done(EventKind::RolesChanged)
            .about(user)
            .with("before", before.to_vec())
            .with("after", after.to_vec())
    }

    /// A role was stored.
    #[must_use]
    pub fn role_stored(role: &RoleDefinition) -> Self {
        Self::done(EventKind::RoleStored)
            .with("role", role.name.as_str())
            .with("permissions", role.permissions.to_vec())
    }

    /// A role was deleted.
    #[must_use]
    pub fn role_deleted(name: &str) -> Self {
        Self::done(EventKind::RoleDeleted).with("role", name)
    }

    /// A letter was asked for; the user is none where it is not known whom it is about.
    #[must_use]
    pub fn letter_requested(kind: LetterKind, user: Option<UserId>) -> Self {
        Self::done(EventKind::LetterRequested)
            .about(user)
            .with("letter", kind.as_str())
    }

    /// An administrator changed a letter.
    #[must_use]
    pub fn letter_changed(kind: EventKind, letter: LetterId, user: Option<UserId>) -> Self {
        Self::done(kind)
            .about(user)
            .with("letter_id", json!(letter))
    }
}

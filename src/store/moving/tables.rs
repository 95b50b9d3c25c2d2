//! What records are made of: the columns of each kind, as both SQL databases have them.
//!
//! A test compares them with the tables as they are migrated, so that no column that is added is left behind.
//! MongoDB has the same fields under the same names; where it has none, its own module says what stands for them.

use serde::{Deserialize, Serialize};

use super::is_address;
use crate::{
    email::EmailAddress,
    model::{
        mail::{LetterKind, LetterState},
        role::Permissions,
        session::CloseReason,
        token::Purpose,
        user::{OnLimit, Roles},
    },
    username::Username,
};

/// What kinds of records there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Roles that administrators made.
    Roles,
    /// Users, with their names.
    Users,
    /// Sessions, open and closed.
    Sessions,
    /// Addresses that are kept for who left them.
    KeptAddresses,
    /// Devices that somebody has logged in from.
    Devices,
    /// Links and codes that were mailed.
    OneTimeSecrets,
    /// Registrations that wait for their address.
    PendingRegistrations,
    /// Letters.
    Letters,
    /// Failures that count towards a delay.
    Failures,
    /// The wrapped keys of persons.
    AuditKeys,
    /// The audit trail.
    AuditEvents,
    /// Its head and its checkpoint.
    AuditMarks,
}

/// What a column holds.
#[derive(Debug, Clone, Copy)]
pub enum Form {
    /// A UUID.
    Id,
    /// A point in time.
    Time,
    /// A whole number.
    Int,
    /// A whole number that counts as 0 where it is absent.
    IntOrZero,
    /// A text for which this holds.
    Text(fn(&str) -> bool),
    /// Bytes.
    Bytes,
    /// A JSON object.
    Object,
    /// A list of names for which this holds.
    Names(fn(Vec<String>) -> bool),
    /// A list of words, at least one.
    Words,
}

/// A column.
#[derive(Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub form: Form,
    /// Whether it may hold nothing.
    pub may_be_null: bool,
    /// Whether it is part of the checksum; not if only one database has it.
    pub is_summed: bool,
}

const fn column(name: &'static str, form: Form) -> Column {
    Column {
        name,
        form,
        may_be_null: false,
        is_summed: true,
    }
}

const fn nullable(name: &'static str, form: Form) -> Column {
    Column {
        may_be_null: true,
        ..column(name, form)
    }
}

const fn not_summed(name: &'static str, form: Form) -> Column {
    Column {
        is_summed: false,
        ..column(name, form)
    }
}

const ANY: Form = Form::Text(|_| true);
const EMAIL: Form = Form::Text(|text| EmailAddress::parse(text).is_ok());
const USERNAME: Form = Form::Text(|text| Username::parse(text).is_ok());
const ROLE_NAMES: Form = Form::Names(|names| Roles::parse(names).is_ok());
const PERMISSIONS: Form = Form::Names(|names| Permissions::stored(names).is_some());
const STATUS: Form = Form::Text(|text| ["active", "deactivated"].contains(&text));
const ON_LIMIT: Form = Form::Text(|text| OnLimit::parse(text).is_some());
const REASON: Form = Form::Text(|text| CloseReason::parse(text).is_some());
const ADDRESS: Form = Form::Text(is_address);
const PURPOSE: Form = Form::Text(|text| Purpose::parse(text).is_some());
const LETTER_KIND: Form = Form::Text(|text| LetterKind::parse(text).is_some());
const LETTER_STATE: Form = Form::Text(|text| LetterState::parse(text).is_some());

static USERS: [Column; 17] = [
    column("id", Form::Id),
    column("email", EMAIL),
    column("email_canonical", ANY),
    nullable("email_verified_at", Form::Time),
    nullable("username", USERNAME),
    nullable("username_canonical", ANY),
    nullable("password_hash", ANY),
    column("credential_version", Form::Int),
    column("attributes", Form::Object),
    column("roles", ROLE_NAMES),
    column("status", STATUS),
    nullable("deactivated_at", Form::Time),
    nullable("max_sessions", Form::Int),
    nullable("on_session_limit", ON_LIMIT),
    column("created_at", Form::Time),
    column("updated_at", Form::Time),
    nullable("provisional_until", Form::Time),
];

static SESSIONS: [Column; 18] = [
    column("id", Form::Id),
    column("user_id", Form::Id),
    not_summed("slot", Form::Int),
    column("created_at", Form::Time),
    column("authenticated_at", Form::Time),
    column("last_seen_at", Form::Time),
    column("expires_at", Form::Time),
    nullable("closed_at", Form::Time),
    nullable("close_reason", REASON),
    column("auth_methods", Form::Words),
    nullable("device_name", ANY),
    nullable("user_agent", ANY),
    nullable("address", ADDRESS),
    column("generation", Form::IntOrZero),
    column("generation_used", Form::IntOrZero),
    nullable("refresh_hash", Form::Bytes),
    nullable("refresh_previous", Form::Bytes),
    nullable("rotated_at", Form::Time),
];

static KEPT_ADDRESSES: [Column; 3] = [
    column("address_canonical", ANY),
    column("user_id", Form::Id),
    column("kept_until", Form::Time),
];

static DEVICES: [Column; 5] = [
    column("secret_hash", Form::Bytes),
    column("user_id", Form::Id),
    column("created_at", Form::Time),
    column("last_used_at", Form::Time),
    column("expires_at", Form::Time),
];

static ONE_TIME_SECRETS: [Column; 12] = [
    column("id", Form::Id),
    column("user_id", Form::Id),
    column("purpose", PURPOSE),
    column("secret_hash", Form::Bytes),
    column("created_at", Form::Time),
    column("expires_at", Form::Time),
    nullable("used_at", Form::Time),
    nullable("address", EMAIL),
    nullable("code_hash", Form::Bytes),
    nullable("code_expires_at", Form::Time),
    column("tries", Form::IntOrZero),
    nullable("tries_since", Form::Time),
];

static PENDING_REGISTRATIONS: [Column; 14] = [
    column("id", Form::Id),
    column("email", EMAIL),
    column("email_canonical", ANY),
    nullable("username", USERNAME),
    column("attributes", Form::Object),
    column("password_hash", ANY),
    column("created_at", Form::Time),
    column("expires_at", Form::Time),
    nullable("link_hash", Form::Bytes),
    nullable("link_expires_at", Form::Time),
    nullable("code_hash", Form::Bytes),
    nullable("code_expires_at", Form::Time),
    column("tries", Form::IntOrZero),
    nullable("tries_since", Form::Time),
];

static LETTERS: [Column; 17] = [
    column("id", Form::Id),
    column("kind", LETTER_KIND),
    nullable("user_id", Form::Id),
    nullable("registration_id", Form::Id),
    nullable("recipient", EMAIL),
    nullable("recipient_canonical", ANY),
    nullable("language", ANY),
    column("details", ANY),
    nullable("credential_version", Form::Int),
    column("created_at", Form::Time),
    column("state", LETTER_STATE),
    column("attempts", Form::Int),
    column("due_at", Form::Time),
    nullable("leased_until", Form::Time),
    column("fence", Form::Int),
    nullable("last_error", ANY),
    nullable("settled_at", Form::Time),
];

static ROLES: [Column; 3] = [
    column("name", ANY),
    column("permissions", PERMISSIONS),
    column("updated_at", Form::Time),
];

static FAILURES: [Column; 6] = [
    column("key_hash", Form::Bytes),
    nullable("account_hash", Form::Bytes),
    column("tat", Form::Time),
    column("failures", Form::Int),
    column("blocked_until", Form::Time),
    column("expires_at", Form::Time),
];

static AUDIT_EVENTS: [Column; 16] = [
    column("id", Form::Id),
    column("at", Form::Time),
    column("event", ANY),
    column("outcome", ANY),
    nullable("reason", ANY),
    column("actor", ANY),
    nullable("actor_id", Form::Id),
    nullable("actor_session", Form::Id),
    nullable("subject_id", Form::Id),
    nullable("session_id", Form::Id),
    nullable("request_id", ANY),
    nullable("person_id", Form::Id),
    nullable("details", Form::Bytes),
    nullable("facts", ANY),
    nullable("seq", Form::Int),
    nullable("seal", Form::Bytes),
];

static AUDIT_MARKS: [Column; 5] = [
    column("name", ANY),
    column("seq", Form::Int),
    column("seal", Form::Bytes),
    column("at", Form::Time),
    column("signature", Form::Bytes),
];

static AUDIT_KEYS: [Column; 2] = [column("user_id", Form::Id), nullable("key", Form::Bytes)];

impl Kind {
    /// All of them, each behind those that it refers to.
    pub const ALL: [Self; 12] = [
        Self::Roles,
        Self::Users,
        Self::Sessions,
        Self::KeptAddresses,
        Self::Devices,
        Self::OneTimeSecrets,
        Self::PendingRegistrations,
        Self::Letters,
        Self::Failures,
        Self::AuditKeys,
        Self::AuditEvents,
        Self::AuditMarks,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Letters => "letters",
            Self::Failures => "failures",
            _ => self.table(),
        }
    }

    /// The table that holds it.
    #[must_use]
    pub const fn table(self) -> &'static str {
        match self {
            Self::Roles => "roles",
            Self::Users => "users",
            Self::Sessions => "sessions",
            Self::KeptAddresses => "kept_addresses",
            Self::Devices => "devices",
            Self::OneTimeSecrets => "one_time_secrets",
            Self::PendingRegistrations => "pending_registrations",
            Self::Letters => "mail_outbox",
            Self::Failures => "rate_limits",
            Self::AuditKeys => "audit_keys",
            Self::AuditEvents => "audit_events",
            Self::AuditMarks => "audit_marks",
        }
    }

    /// Its columns.
    #[must_use]
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Roles => &ROLES,
            Self::Users => &USERS,
            Self::Sessions => &SESSIONS,
            Self::KeptAddresses => &KEPT_ADDRESSES,
            Self::Devices => &DEVICES,
            Self::OneTimeSecrets => &ONE_TIME_SECRETS,
            Self::PendingRegistrations => &PENDING_REGISTRATIONS,
            Self::Letters => &LETTERS,
            Self::Failures => &FAILURES,
            Self::AuditKeys => &AUDIT_KEYS,
            Self::AuditEvents => &AUDIT_EVENTS,
            Self::AuditMarks => &AUDIT_MARKS,
        }
    }

    /// Whether a database removes records by itself once their `expires_at` is past.
    #[must_use]
    pub const fn goes_by_itself(self) -> bool {
        matches!(self, Self::Devices | Self::Failures)
    }

    /// Whether its records go with their user.
    #[must_use]
    pub const fn is_of_a_user(self) -> bool {
        matches!(
            self,
            Self::Sessions | Self::KeptAddresses | Self::Devices | Self::OneTimeSecrets
        )
    }
}

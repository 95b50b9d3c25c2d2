//! What other systems call the fields of an account, and what their flags mean here.
//!
//! Decides nothing about addresses, names and hashes themselves: that is for the use case. A field that is not known
//! is refused by its name, so that nothing is lost without anybody noticing; a second factor for one.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDateTime, Utc};
use clap::ValueEnum;
use serde_json::{Map, Value};

use super::reading::Fields;
use crate::{
    accounts::ImportedUser, clock::Timestamp, model::account::NewAccount, secret::SecretString,
};

/// Which system an export comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Source {
    /// The names that `doorward user show --json` uses, and `password_hash`
    Doorward,
    /// The user table of fastapi-users
    FastapiUsers,
    /// The `user` table of Better Auth, joined with `password` of `account`
    BetterAuth,
    /// The table `auth_user`, or `manage.py dumpdata auth.user --format jsonl`
    Django,
}

/// What a field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Id,
    Email,
    Verified,
    VerifiedAt,
    Username,
    Attributes,
    Roles,
    Status,
    Active,
    Banned,
    DeactivatedAt,
    CreatedAt,
    Hash,
    Superuser,
    /// Better Auth's roles, between commas.
    RoleNames,
    /// Known, and not needed.
    Dropped,
}

impl Source {
    fn meaning(self, field: &str) -> Option<Meaning> {
        use Meaning as M;
        let own = match self {
            Self::Doorward => match field {
                "id" => M::Id,
                "email_verified" => M::Verified,
                "email_verified_at" => M::VerifiedAt,
                "attributes" => M::Attributes,
                "roles" => M::Roles,
                "status" => M::Status,
                "is_active" => M::Active,
                "deactivated_at" => M::DeactivatedAt,
                "created_at" => M::CreatedAt,
                "updated_at" => M::Dropped,
                "password_hash" => M::Hash,
                _ => return shared(field),
            },
            Self::FastapiUsers => match field {
                "id" => M::Id,
                "hashed_password" => M::Hash,
                "is_active" => M::Active,
                "is_superuser" => M::Superuser,
                "is_verified" => M::Verified,
                "created_at" => M::CreatedAt,
                "updated_at" => M::Dropped,
                _ => return shared(field),
            },
            Self::BetterAuth => match field {
                "password" => M::Hash,
                "emailVerified" | "email_verified" => M::Verified,
                "createdAt" | "created_at" => M::CreatedAt,
                "role" => M::RoleNames,
                "banned" => M::Banned,
                "id" | "name" | "image" | "updatedAt" | "updated_at" | "displayUsername"
                | "display_username" | "banReason" | "ban_reason" | "banExpires"
                | "ban_expires" => M::Dropped,
                _ => return shared(field),
            },
            Self::Django => match field {
                "password" => M::Hash,
                "is_superuser" => M::Superuser,
                "is_active" => M::Active,
                "date_joined" => M::CreatedAt,
                "id" | "last_login" | "first_name" | "last_name" | "is_staff" | "groups"
                | "user_permissions" => M::Dropped,
                _ => return shared(field),
            },
        };
        Some(own)
    }
}

fn shared(field: &str) -> Option<Meaning> {
    match field {
        "email" => Some(Meaning::Email),
        "username" => Some(Meaning::Username),
        _ => None,
    }
}

/// How lines become accounts.
pub(super) struct Mapping {
    pub(super) source: Source,
    pub(super) ignore_unknown: bool,
    /// Fields that are kept as attributes.
    pub(super) attributes: BTreeSet<String>,
    /// What superusers become, if anything.
    pub(super) admins_role: Option<String>,
    pub(super) verified: bool,
}

impl Mapping {
    /// The account that a line tells of.
    pub(super) fn user(&self, fields: Fields) -> Result<ImportedUser, String> {
        let mut user = blank();
        let mut verified = None;
        let mut faults = Vec::new();
        for (field, value) in self.flat(fields) {
            let put = self.put(&mut user, &mut verified, &field, value);
            faults.extend(put.err());
        }
        if !faults.is_empty() {
            return Err(faults.join("; "));
        }
        user.email_verified = self.verified || verified.unwrap_or(user.email_verified_at.is_some());
        let email = &user.account.email;
        let is_email = |name: &String| name.eq_ignore_ascii_case(email);
        if self.source == Source::Django && user.account.username.as_ref().is_some_and(is_email) {
            // Where people log in with their address, Django wants a user name all the same.
            user.account.username = None;
        }
        Ok(user)
    }

    /// `dumpdata` puts the columns one level deeper.
    fn flat(&self, mut fields: Fields) -> Fields {
        match (self.source, fields.remove("fields")) {
            (Source::Django, Some(Value::Object(mut inner))) => {
                inner.extend(fields.remove("pk").map(|id| ("id".to_owned(), id)));
                inner
            }
            (_, Some(other)) => {
                fields.insert("fields".to_owned(), other);
                fields
            }
            (_, None) => fields,
        }
    }

    fn put(
        &self,
        user: &mut ImportedUser,
        verified: &mut Option<bool>,
        field: &str,
        value: Value,
    ) -> Result<(), String> {
        if self.attributes.contains(field) {
            attributes(user).insert(field.to_owned(), value);
            return Ok(());
        }
        let Some(meaning) = self.source.meaning(field) else {
            return if self.ignore_unknown {
                Ok(())
            } else {
                Err(unknown(field))
            };
        };
        if value.is_null() || value == "" {
            return Ok(());
        }
        let put = if let Meaning::Verified = meaning {
            flag(&value).map(|is| *verified = Some(is))
        } else {
            self.put_known(user, meaning, value)
        };
        put.map_err(|why| format!("{field}: {why}"))
    }

    fn put_known(
        &self,
        user: &mut ImportedUser,
        meaning: Meaning,
        value: Value,
    ) -> Result<(), &'static str> {
        match meaning {
            Meaning::Id => match text(value)?.parse() {
                Ok(id) => user.id = Some(id),
                // A number is no id here.
                Err(_) if self.source == Source::FastapiUsers => {}
                Err(_) => return Err("must be a UUID"),
            },
            Meaning::Email => user.account.email = text(value)?,
            Meaning::VerifiedAt => user.email_verified_at = Some(time(&value)?),
            Meaning::Username => user.account.username = Some(text(value)?),
            Meaning::Attributes => attributes(user).extend(object(value)?),
            Meaning::Roles => user.roles.extend(names(value)?),
            Meaning::Status => match text(value)?.as_str() {
                "active" => {}
                "deactivated" => user.active = false,
                _ => return Err("must be active or deactivated"),
            },
            Meaning::Active => user.active &= flag(&value)?,
            Meaning::Banned => user.active &= !flag(&value)?,
            Meaning::DeactivatedAt => user.deactivated_at = Some(time(&value)?),
            Meaning::CreatedAt => user.created_at = Some(time(&value)?),
            Meaning::Hash => user.password_hash = self.hash(text(value)?),
            Meaning::Superuser => {
                let is_one = flag(&value)?;
                user.roles
                    .extend(self.admins_role.clone().filter(|_| is_one));
            }
            Meaning::RoleNames => {
                let is_one = names(value)?.iter().any(|name| name == "admin");
                user.roles
                    .extend(self.admins_role.clone().filter(|_| is_one));
            }
            Meaning::Verified | Meaning::Dropped => {}
        }
        Ok(())
    }

    /// Django writes `!` where there is no password.
    fn hash(&self, text: String) -> Option<SecretString> {
        let is_none = self.source == Source::Django && text.starts_with('!');
        (!is_none).then(|| text.into())
    }
}

fn blank() -> ImportedUser {
    ImportedUser {
        id: None,
        account: NewAccount {
            email: String::new(),
            username: None,
            attributes: None,
        },
        email_verified: false,
        email_verified_at: None,
        roles: Vec::new(),
        active: true,
        deactivated_at: None,
        created_at: None,
        password_hash: None,
    }
}

fn attributes(user: &mut ImportedUser) -> &mut Map<String, Value> {
    user.account.attributes.get_or_insert_default()
}

/// Without a header the first line of a CSV file is somebody's: nothing is repeated that may be no name.
fn unknown(field: &str) -> String {
    let is_name = field.len() <= 40
        && field.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && field
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if is_name {
        format!(
            "{field}: is not known; --attribute {field} keeps it, --ignore-unknown leaves it out"
        )
    } else {
        "a field has no name such as email; is the first line of the CSV file its header?"
            .to_owned()
    }
}

fn text(value: Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err("must be a text"),
    }
}

/// As JSON, PostgreSQL, SQLite and Python write it.
fn flag(value: &Value) -> Result<bool, &'static str> {
    match value {
        Value::Bool(is) => Ok(*is),
        Value::Number(number) if number.as_u64() == Some(1) => Ok(true),
        Value::Number(number) if number.as_u64() == Some(0) => Ok(false),
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => Ok(true),
            "false" | "f" | "0" => Ok(false),
            _ => Err("must be true or false"),
        },
        _ => Err("must be true or false"),
    }
}

/// RFC 3339, the same with a space and without a zone, which is UTC, or a number of seconds or milliseconds
/// since 1970.
fn time(value: &Value) -> Result<Timestamp, &'static str> {
    /// As seconds it is the year 5138, as milliseconds 1973.
    const LEAST_MILLIS: i64 = 100_000_000_000;
    let of_number = |n: i64| {
        let is_millis = n.abs() >= LEAST_MILLIS;
        Timestamp::from_millis(if is_millis { n } else { n.saturating_mul(1000) })
    };
    let bad = "must be a time such as 2026-11-22T10:00:00Z";
    match value {
        Value::Number(number) => number.as_i64().map(of_number).ok_or(bad),
        Value::String(text) => {
            if let Ok(number) = text.parse() {
                return Ok(of_number(number));
            }
            let text = text.replacen('T', " ", 1).replace('Z', "+00:00");
            let zoned = DateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.f%#z");
            let zoned = zoned.map(|at| at.with_timezone(&Utc));
            let plain = || NaiveDateTime::parse_from_str(&text, "%Y-%m-%d %H:%M:%S%.f");
            let at = zoned.or_else(|_| plain().map(|at| at.and_utc()));
            at.map(Timestamp::from).map_err(|_| bad)
        }
        _ => Err(bad),
    }
}

/// An object, or one as text in CSV.
fn object(value: Value) -> Result<Map<String, Value>, &'static str> {
    let value = match value {
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::Null),
        other => other,
    };
    match value {
        Value::Object(object) => Ok(object),
        _ => Err("must be a JSON object"),
    }
}

/// A list, or names between commas or spaces in CSV.
fn names(value: Value) -> Result<Vec<String>, &'static str> {
    let bad = "must be a list of names";
    match value {
        Value::Array(all) => {
            let all = all.into_iter().map(|name| match name {
                Value::String(name) => Ok(name),
                _ => Err(bad),
            });
            all.collect()
        }
        Value::String(text) => {
            let all = text.split([',', ' ']).filter(|name| !name.is_empty());
            Ok(all.map(str::to_owned).collect())
        }
        _ => Err(bad),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mapping(source: Source) -> Mapping {
        Mapping {
            source,
            ignore_unknown: false,
            attributes: BTreeSet::new(),
            admins_role: None,
            verified: false,
        }
    }

    fn user(mapping: &Mapping, line: Value) -> Result<ImportedUser, String> {
        let Value::Object(fields) = line else {
            panic!("an object")
        };
        mapping.user(fields)
    }

    #[test]
    fn times_are_read_as_databases_write_them() {
        let at = Timestamp::from_millis(1_714_557_600_123);
        for text in [
            "2024-05-01T10:00:00.123Z",
            "2024-05-01T12:00:00.123+02:00",
            "2024-05-01 10:00:00.123456+00",
            "2024-05-01T10:00:00.123",
            "2024-05-01 10:00:00.123",
            "1714557600123",
        ] {
            assert_eq!(time(&json!(text)), Ok(at), "{text}");
        }
        assert_eq!(
            time(&json!(1_714_557_600)),
            Ok(Timestamp::from_millis(1_714_557_600_000))
        );
        for bad in [
            json!("yesterday"),
            json!("2024-05-01"),
            json!(0.5),
            json!(true),
        ] {
            assert!(time(&bad).is_err(), "{bad}");
        }
    }

    /// Promise 7.
    #[test]
    fn a_field_that_may_be_no_name_is_not_repeated() {
        let mapping = mapping(Source::Doorward);
        for field in ["$2b$04$5j.89Awxab5wVYmWqqIhGe1", "ann@example.org", "a b"] {
            let fault = user(&mapping, json!({field: "x"})).expect_err("refused");
            assert!(!fault.contains(field), "{fault}");
        }
        let fault = user(
            &mapping,
            json!({"email": 1, "two_factor": true, "is_active": "maybe"}),
        );
        let fault = fault.expect_err("refused");
        assert!(
            fault.starts_with("is_active: must be true or false; two_factor: is not"),
            "{fault}"
        );
    }

    #[test]
    fn nobody_becomes_an_administrator_unasked() {
        let lines = [
            (
                Source::FastapiUsers,
                json!({"email": "a@example.org", "is_superuser": true}),
            ),
            (
                Source::Django,
                json!({"email": "a@example.org", "is_superuser": "t"}),
            ),
            (
                Source::BetterAuth,
                json!({"email": "a@example.org", "role": "user,admin"}),
            ),
        ];
        for (source, line) in lines {
            let asked = Mapping {
                admins_role: Some("admin".into()),
                ..mapping(source)
            };
            let roles = |mapping: &Mapping| user(mapping, line.clone()).map(|user| user.roles);
            assert_eq!(roles(&mapping(source)), Ok(vec![]), "{source:?}");
            assert_eq!(roles(&asked), Ok(vec!["admin".to_owned()]), "{source:?}");
        }
    }
}

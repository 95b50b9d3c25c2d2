//! Everything that is stored, as neutral records, for moving from one database to another.
//!
//! Decides what a record of each [`Kind`] is made of ([`tables`]), what cannot be one, and what it adds to the
//! checksum of its kind: the same on every database. How records are read and written is decided by each
//! database, what is done with them by `transfer`. Counters of requests and leases are no records: they say
//! nothing that outlives a restart of the nodes.

pub mod tables;

use std::{fmt, net::IpAddr};

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use self::tables::Kind;
use self::tables::{Column, Form};
use super::{StoreError, StoreResult};
use crate::clock::Timestamp;

/// Of what form records are; another one could not be told from this one by its checksum.
pub const VERSION: u32 = 1;

/// One row or document: a cell for each [`Column`] of its kind, in order. Ids and bytes are lower-case
/// hexadecimal, times milliseconds since 1970.
///
/// What it prints is nothing: cells hold addresses and hashes of secrets.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Record(Vec<Value>);

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({} cells)", self.0.len())
    }
}

impl Record {
    /// A record of these cells, if each is what its column can hold.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] naming the first cell that is not.
    pub fn checked(kind: Kind, cells: Vec<Value>) -> StoreResult<Self> {
        let columns = kind.columns();
        let fault = columns.iter().enumerate().find(|(n, column)| {
            let cell = cells.get(*n).unwrap_or(&Value::Null);
            !column.holds(cell)
        });
        let record = Self(cells);
        if let Some((_, column)) = fault {
            return Err(record.corrupt(kind, column.name));
        }
        if kind == Kind::Users {
            let is_active = record.text(kind, "status") == Some("active");
            if is_active != record.cell(kind, "deactivated_at").is_null() {
                return Err(record.corrupt(kind, "deactivated_at"));
            }
        }
        if kind == Kind::Sessions {
            let is_open = record.cell(kind, "closed_at").is_null();
            if is_open != record.cell(kind, "close_reason").is_null() {
                return Err(record.corrupt(kind, "close_reason"));
            }
        }
        Ok(record)
    }

    /// The cells, in the order of [`Kind::columns`].
    #[must_use]
    pub fn cells(&self) -> &[Value] {
        &self.0
    }

    /// The cell of this column; null if there is no such column.
    #[must_use]
    pub fn cell(&self, kind: Kind, column: &str) -> &Value {
        static NULL: Value = Value::Null;
        let place = kind.columns().iter().position(|one| one.name == column);
        place.and_then(|n| self.0.get(n)).unwrap_or(&NULL)
    }

    /// The text in this column.
    #[must_use]
    pub fn text(&self, kind: Kind, column: &str) -> Option<&str> {
        self.cell(kind, column).as_str()
    }

    /// The error for a cell that holds what it cannot.
    #[must_use]
    pub fn corrupt(&self, kind: Kind, column: &'static str) -> StoreError {
        StoreError::Corrupt {
            table: kind.table(),
            column,
            row: self.name(kind),
        }
    }

    /// What errors call it: its id, its name or whose it is, never the hash of a secret.
    #[must_use]
    pub fn name(&self, kind: Kind) -> String {
        let owner = || Some(format!("user {}", self.id(kind, "user_id")?));
        let name = || match kind {
            Kind::Roles | Kind::AuditMarks => self.text(kind, "name").map(str::to_owned),
            _ => None,
        };
        let known = self.id(kind, "id").or_else(owner).or_else(name);
        known.unwrap_or_else(|| "a row without an id".to_owned())
    }

    fn id(&self, kind: Kind, column: &str) -> Option<String> {
        let id = uuid::Uuid::parse_str(self.text(kind, column)?).ok()?;
        Some(id.to_string())
    }

    /// Whether one of its texts has the character NUL in it, which not every database can store.
    #[must_use]
    pub fn has_nul(&self) -> bool {
        fn has(value: &Value) -> bool {
            match value {
                Value::String(text) => text.contains('\0'),
                Value::Array(items) => items.iter().any(has),
                Value::Object(fields) => fields.iter().any(|(k, v)| k.contains('\0') || has(v)),
                Value::Null | Value::Bool(_) | Value::Number(_) => false,
            }
        }
        self.0.iter().any(has)
    }

    /// Its part of the checksum: SHA-256 over its kind and its cells, the same on every database.
    #[must_use]
    fn digest(&self, kind: Kind) -> [u8; 32] {
        let cells = kind.columns().iter().zip(&self.0);
        let cells = cells
            .filter(|(column, _)| column.is_summed)
            .map(|(_, cell)| canonical(cell));
        let whole = Value::Array(
            [Value::from(VERSION), kind.as_str().into()]
                .into_iter()
                .chain(cells)
                .collect(),
        );
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, whole.to_string().as_bytes()).as_ref());
        bytes
    }
}

/// A value as all databases would write it: fields in order, and whole numbers without a fraction, since one of
/// them gives `1e17` back as digits.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Number(number) => number
            .as_f64()
            .filter(|n| !number.is_i64() && n.fract() == 0.0 && n.abs() < 9e18)
            .and_then(|n| format!("{n:.0}").parse::<i64>().ok())
            .map_or_else(|| value.clone(), Value::from),
        Value::Array(items) => Value::Array(items.iter().map(canonical).collect()),
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            let fields = fields.into_iter().map(|(k, v)| (k.clone(), canonical(v)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Value::Null | Value::Bool(_) | Value::String(_) => value.clone(),
    }
}

impl Column {
    /// Whether it can hold this.
    fn holds(&self, cell: &Value) -> bool {
        if cell.is_null() {
            return self.may_be_null;
        }
        let texts = || {
            let items = cell.as_array()?.iter();
            let texts = items.map(|item| item.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<String>>>()
        };
        match self.form {
            Form::Id => cell
                .as_str()
                .is_some_and(|text| text.len() == 32 && is_hex(text)),
            Form::Bytes => cell.as_str().is_some_and(is_hex),
            Form::Time | Form::Int | Form::IntOrZero => cell.is_i64(),
            Form::Text(is_one) => cell.as_str().is_some_and(is_one),
            Form::Object => cell.is_object(),
            Form::Names(are_some) => texts().is_some_and(are_some),
            Form::Words => texts().is_some_and(|words| !words.is_empty()),
        }
    }
}

fn is_hex(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Bytes in lower-case hexadecimal, as cells have them.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a text cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// The bytes that a cell writes in hexadecimal.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// Whether this is an IP address.
fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// The checksum of a kind: the sum of its records' hashes, so that it does not matter in which order a database
/// gives them. It shows mistakes; it is no seal against somebody who makes records up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// How many records.
    pub records: u64,
    total: [u8; 32],
}

impl Sum {
    /// Adds a record.
    pub fn add(&mut self, kind: Kind, record: &Record) {
        self.records += 1;
        let mut carry = 0;
        for (to, byte) in self.total.iter_mut().zip(record.digest(kind)).rev() {
            let sum = u16::from(*to) + u16::from(byte) + carry;
            *to = sum.to_be_bytes()[1];
            carry = sum >> 8;
        }
    }

    /// In hexadecimal.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex(&self.total)
    }
}

/// Where a page ended, as the database that gave it understands it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub(super) Vec<String>);

/// Which records are asked for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// Of which kind.
    pub kind: Kind,
    /// Behind the page that ended there; from the first one without it.
    pub after: Option<Cursor>,
    /// About how many, at least 1: those of one user may come together.
    pub most: u32,
    /// How many closed sessions of each user; all without it.
    pub closed_kept: Option<u32>,
}

/// Some records.
#[derive(Debug)]
pub struct Page {
    /// Those that are sound.
    pub records: Vec<Record>,
    /// What is wrong with the others.
    pub faulty: Vec<StoreError>,
    /// Where to go on; none if there is nothing behind.
    pub next: Option<Cursor>,
}

/// A database as the source or the target of a transfer.
///
/// Nothing here decides for anybody: the source is only read, and the target is to be empty and served by nobody.
#[async_trait]
pub trait Moving: Send + Sync {
    /// The database's time, by which it removes what is over.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    async fn now(&self) -> StoreResult<Timestamp>;

    /// Records of a kind, each exactly once over all pages as long as nobody writes.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer; a row that cannot be is in [`Page::faulty`].
    async fn page(&self, ask: &Ask) -> StoreResult<Page>;

    /// How many records of a kind there are, sound or not.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    async fn stored(&self, kind: Kind) -> StoreResult<u64>;

    /// How many closed sessions of a user it keeps, if not all.
    fn closed_kept(&self) -> Option<u32>;

    /// Why it could not store a record that another database has; none if it can.
    fn misfit(&self, record: &Record) -> Option<&'static str>;

    /// How far the transfer has come that this is the unfinished target of: what [`Self::begin`] or the last
    /// [`Self::import`] wrote. None if there is none: one question, asked before a node serves the database.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    async fn unfinished(&self) -> StoreResult<Option<String>>;

    /// Makes this the target of a transfer, which no node serves until [`Self::finish`].
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer, or is one already.
    async fn begin(&self, state: &str) -> StoreResult<()>;

    /// Writes records and how far the transfer has come with them, both or neither: of any number of racers with
    /// the same `before` one succeeds.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer or refuses a record, or when `before` is not what is
    /// written there.
    async fn import(
        &self,
        kind: Kind,
        records: &[Record],
        before: &str,
        after: &str,
    ) -> StoreResult<()>;

    /// Makes this a database like any other.
    ///
    /// # Errors
    /// [`StoreError`] when the database does not answer.
    async fn finish(&self) -> StoreResult<()>;
}

/// The error of [`Moving::import`] for another state than the one it knew.
#[must_use]
pub fn overtaken() -> StoreError {
    StoreError::Driver("another transfer is writing to the same database".into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn role(name: &str) -> Record {
        let cells = vec![json!(name), json!(["users:read"]), json!(1)];
        Record::checked(Kind::Roles, cells).expect("sound")
    }

    #[test]
    fn a_checksum_knows_no_order_but_every_record() {
        let sum = |names: &[&str]| {
            let mut sum = Sum::default();
            for name in names {
                sum.add(Kind::Roles, &role(name));
            }
            sum
        };
        assert_eq!(sum(&["a", "b", "c"]), sum(&["c", "a", "b"]));
        assert_ne!(sum(&["a", "b"]), sum(&["a", "c"]));
        assert_ne!(sum(&["a", "a"]).to_hex(), sum(&["b", "b"]).to_hex());
    }

    #[test]
    fn numbers_and_fields_add_the_same_however_they_are_written() {
        let one: Value = serde_json::from_str(r#"{"b": 1e17, "a": 1.0, "c": 0.5}"#).expect("JSON");
        let other = json!({"a": 1, "b": 100_000_000_000_000_000_i64, "c": 0.5});
        assert_eq!(canonical(&one).to_string(), canonical(&other).to_string());
        let precise = json!(9_007_199_254_740_993_i64);
        assert_eq!(canonical(&precise), precise);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let cells = vec![json!("ops"), json!("a:b"), json!(1)];
        let error = Record::checked(Kind::Roles, cells).expect_err("no list");
        assert_eq!(error.to_string(), "corrupt row: roles.permissions of ops");
        assert_eq!(unhex(&hex(b"\x00\xff")), Some(vec![0, 255]));
    }
}

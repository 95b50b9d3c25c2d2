//! Cells of neutral records as fields of documents.
//!
//! Reading is strict: a field that holds what it cannot is named by collection, field and id. What a document
//! leaves out is left out here as well, since some indexes have only what is there.

use mongodb::bson::{Bson, Document, RawBsonRef, RawDocument, doc};
use serde_json::Value;
use uuid::Uuid;

use super::super::{
    documents::{attributes_bson, bytes_bson, id_bson, time_bson},
    rows::{Row, bytes, id, json_object, lenient, list, owned_text, text, time, whole},
};
use crate::{
    clock::Timestamp,
    model::user::Attributes,
    store::{
        StoreError, StoreResult,
        moving::{
            Cursor, Page, Record, hex,
            tables::{Column, Form, Kind},
            unhex,
        },
    },
};

/// Until when a name is kept; with it nobody has it.
pub(super) const KEPT: &str = "kept_until";
const EMAIL: &str = "email:";
const USERNAME: &str = "username:";

/// The column that is a document's `_id`.
pub(super) const fn key_column(kind: Kind) -> &'static str {
    match kind {
        Kind::Roles | Kind::AuditMarks => "name",
        Kind::KeptAddresses => "address_canonical",
        Kind::Devices | Kind::OneTimeSecrets => "secret_hash",
        Kind::Failures => "key_hash",
        Kind::AuditKeys => "user_id",
        // An embedded session has an `id` and no `_id`.
        Kind::Sessions => "",
        Kind::Users | Kind::PendingRegistrations | Kind::Letters | Kind::AuditEvents => "id",
    }
}

/// The field of a column.
pub(super) fn field(kind: Kind, column: &Column) -> &'static str {
    if column.name == key_column(kind) {
        "_id"
    } else {
        column.name
    }
}

/// The keys in `login_names` that a user has.
pub(super) fn login_names(user: &Record) -> Vec<String> {
    let name = |prefix, column| {
        let name = user.text(Kind::Users, column)?;
        Some(format!("{prefix}{name}"))
    };
    let names = [
        name(EMAIL, "email_canonical"),
        name(USERNAME, "username_canonical"),
    ];
    names.into_iter().flatten().collect()
}

/// The documents of `login_names` that a user has.
pub(super) fn name_documents(user: &Record) -> StoreResult<Vec<Document>> {
    let whose = user.text(Kind::Users, "id").unwrap_or_default();
    let whose = key_bson(Kind::Users, &Cursor(vec![whose.to_owned()]))?;
    let names = login_names(user).into_iter();
    Ok(names
        .map(|name| doc! { "_id": name, "user_id": whose.clone() })
        .collect())
}

/// Where a page ended: the `_id` of its last document, as a cell has it.
pub(super) fn cursor_of(kind: Kind, last: &RawDocument) -> StoreResult<Cursor> {
    let key = lenient(last, "_id", |value| match value {
        RawBsonRef::String(text) => Some(text.to_owned()),
        other => Some(hex(other.as_binary()?.bytes)),
    });
    let key = key.map(|key| Cursor(vec![key]));
    key.ok_or_else(|| StoreError::Corrupt {
        table: kind.table(),
        column: "_id",
        row: "a document whose `_id` is neither an id nor a name".into(),
    })
}

/// The `_id` behind which a page begins.
pub(super) fn key_bson(kind: Kind, cursor: &Cursor) -> StoreResult<Bson> {
    let text = cursor.0.first().map(String::as_str).unwrap_or_default();
    let key = match kind {
        Kind::Roles | Kind::AuditMarks | Kind::KeptAddresses => Some(Bson::from(text)),
        Kind::Devices | Kind::OneTimeSecrets | Kind::Failures => {
            unhex(text).map(|hash| bytes_bson(&hash))
        }
        _ => Uuid::parse_str(text).ok().map(id_bson),
    };
    key.ok_or_else(|| StoreError::Driver("a page begins nowhere".into()))
}

fn cell(form: Form, value: RawBsonRef<'_>) -> Option<Value> {
    Some(match form {
        Form::Id => hex(id(value)?.as_bytes()).into(),
        Form::Time => time(value)?.as_millis().into(),
        Form::Int | Form::IntOrZero => whole(value)?.into(),
        Form::Text(_) => text(value)?.into(),
        Form::Bytes => hex(&bytes(value)?).into(),
        Form::Object => Value::Object(json_object(value.as_document()?)?),
        Form::Names(_) | Form::Words => list(owned_text)(value)?.into(),
    })
}

/// Reads a document that is a record.
pub(super) fn read_record(kind: Kind, document: &RawDocument) -> StoreResult<Record> {
    // Errors name a secret's id, never its hash.
    let mut known = ["_id", "id", "user_id"].into_iter();
    let known = known.find_map(|name| lenient(document, name, id));
    let row = Row::of(kind.table(), document, known.unwrap_or_default());
    let columns = kind.columns().iter();
    let cells = columns.map(|column| read_cell(kind, &row, column));
    let mut cells = cells.collect::<StoreResult<Vec<Value>>>()?;
    if kind == Kind::KeptAddresses
        && let Some(Value::String(name)) = cells.first_mut()
        && let Some(address) = name.strip_prefix(EMAIL)
    {
        *name = address.to_owned();
    }
    Record::checked(kind, cells)
}

fn read_cell(kind: Kind, row: &Row<'_>, column: &Column) -> StoreResult<Value> {
    if (kind, column.name) == (Kind::Users, "status") {
        let is_deactivated = row.optional("deactivated_at", time)?.is_some();
        let status = if is_deactivated {
            "deactivated"
        } else {
            "active"
        };
        return Ok(status.into());
    }
    if matches!((kind, column.name), (Kind::Sessions, "user_id" | "slot")) {
        // Stand elsewhere; see [`sessions`].
        return Ok(Value::Null);
    }
    let found = row.optional(field(kind, column), |value| cell(column.form, value))?;
    Ok(match (found, column.form) {
        (None, Form::IntOrZero) => 0.into(),
        (found, _) => found.unwrap_or_default(),
    })
}

/// Adds a user's sessions to a page. The open ones are given the slots that a SQL database would have given
/// them, in the order of opening.
pub(super) fn sessions(user: &RawDocument, page: &mut Page) -> StoreResult<()> {
    let whose = cursor_of(Kind::Users, user)?.0.concat();
    let kind = Kind::Sessions;
    let unreadable = || StoreError::Corrupt {
        table: "users",
        column: "sessions",
        row: Uuid::parse_str(&whose).unwrap_or_default().to_string(),
    };
    let sessions = user.get_array("sessions").map_err(|_| unreadable())?;
    let mut open = 0;
    for session in sessions {
        let session = session.ok().and_then(RawBsonRef::as_document);
        let session = session.ok_or_else(unreadable)?;
        let known = lenient(session, "id", id).unwrap_or_default();
        let row = Row::of(kind.table(), session, known);
        let is_open = lenient(session, "closed_at", time).is_none();
        let columns = kind.columns().iter();
        let cells = columns.map(|column| match column.name {
            "user_id" => Ok(whose.as_str().into()),
            "slot" => Ok(if is_open { open } else { 0 }.into()),
            _ => read_cell(kind, &row, column),
        });
        let cells = cells.collect::<StoreResult<Vec<Value>>>();
        match cells.and_then(|cells| Record::checked(kind, cells)) {
            Ok(record) => page.records.push(record),
            Err(error) => page.faulty.push(error),
        }
        open += i64::from(is_open);
    }
    Ok(())
}

fn bson(form: Form, cell: &Value) -> Option<Bson> {
    let text = || cell.as_str();
    Some(match form {
        _ if cell.is_null() => Bson::Null,
        Form::Id => id_bson(Uuid::parse_str(text()?).ok()?),
        Form::Time => time_bson(Timestamp::from_millis(cell.as_i64()?)),
        Form::Int | Form::IntOrZero => Bson::Int64(cell.as_i64()?),
        Form::Text(_) => Bson::from(text()?),
        Form::Bytes => bytes_bson(&unhex(text()?)?),
        Form::Object => attributes_bson(&Attributes::stored(cell.as_object()?.clone())),
        Form::Names(_) | Form::Words => {
            let names = cell.as_array()?.iter().map(Value::as_str);
            names
                .map(|name| name.map(Bson::from))
                .collect::<Option<Vec<_>>>()?
                .into()
        }
    })
}

/// Whether a null is left out instead of written.
fn is_left_out(kind: Kind, column: &str) -> bool {
    kind == Kind::AuditEvents || ["provisional_until", "account_hash"].contains(&column)
}

/// The document of a record, or the part of one.
pub(super) fn document(kind: Kind, record: &Record) -> StoreResult<Document> {
    let mut document = Document::new();
    for (column, cell) in kind.columns().iter().zip(record.cells()) {
        let stands_elsewhere = matches!(
            (kind, column.name),
            (Kind::Users, "status") | (Kind::Sessions, "user_id" | "slot")
        );
        if stands_elsewhere || (cell.is_null() && is_left_out(kind, column.name)) {
            continue;
        }
        let value = bson(column.form, cell);
        let value = value.ok_or_else(|| record.corrupt(kind, column.name))?;
        document.insert(field(kind, column), value);
    }
    match kind {
        Kind::Users => {
            document.insert("sessions", Bson::Array(Vec::new()));
        }
        Kind::KeptAddresses => {
            let address = record.text(kind, "address_canonical").unwrap_or_default();
            document.insert("_id", format!("{EMAIL}{address}"));
        }
        Kind::AuditEvents if record.cell(kind, "seq").is_null() => {
            document.insert("unsealed", true);
        }
        _ => {}
    }
    Ok(document)
}

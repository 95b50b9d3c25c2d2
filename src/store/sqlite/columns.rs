//! Cells of neutral records as SQLite reads and writes them: one JSON text for a row, one for many.

use crate::store::moving::tables::Form;

/// Whether a transfer into this database was begun and not ended.
pub(super) const HAS_TRANSFER: &str = "SELECT CAST(count(*) AS TEXT) AS text FROM sqlite_master \
     WHERE type = 'table' AND name = 'unfinished_transfer'";
/// A JSON list of what follows.
pub(super) const LIST: &str = "json_array";
/// The rows of the first parameter.
pub(super) const ROWS: &str = "json_each($1)";
/// A row of them.
pub(super) const ROW: &str = "value";
/// Whether texts may have NUL in them.
pub(super) const STORES_NUL: bool = true;

/// The expression for a column's cell.
pub(super) fn read(form: Form, column: &str) -> String {
    match form {
        Form::Id | Form::Bytes => format!("iif({column} IS NULL, NULL, lower(hex({column})))"),
        _ => column.to_owned(),
    }
}

/// The expression for a column's value, of a text or a number.
pub(super) fn write(form: Form, cell: &str) -> String {
    match form {
        Form::Id | Form::Bytes => format!("unhex({cell})"),
        _ => cell.to_owned(),
    }
}

//! Cells of neutral records as PostgreSQL reads and writes them: one JSON text for a row, one for many.

use crate::store::moving::tables::Form;

/// Whether a transfer into this database was begun and not ended.
pub(super) const HAS_TRANSFER: &str = "SELECT count(*)::text AS text FROM pg_catalog.pg_class \
     WHERE oid = to_regclass('unfinished_transfer')";
/// A JSON list of what follows.
pub(super) const LIST: &str = "json_build_array";
/// The rows of the first parameter.
pub(super) const ROWS: &str = "jsonb_array_elements($1::jsonb) AS one (value)";
/// A row of them.
pub(super) const ROW: &str = "one.value";
/// Whether texts may have NUL in them.
pub(super) const STORES_NUL: bool = false;

/// The expression for a column's cell. Times are put together from whole numbers, since older servers know the
/// seconds since 1970 only as a fraction; one that is infinite is left as it is and found to be none.
pub(super) fn read(form: Form, column: &str) -> String {
    match form {
        Form::Id => format!("replace({column}::text, '-', '')"),
        Form::Bytes => format!("encode({column}, 'hex')"),
        Form::Time => format!(
            "CASE WHEN isfinite({column}) THEN to_json(\
             floor(extract(epoch FROM date_trunc('second', {column})))::bigint * 1000 \
             + to_char({column}, 'MS')::bigint) ELSE to_json({column}::text) END"
        ),
        Form::Object => format!("{column}::text"),
        _ => column.to_owned(),
    }
}

/// The expression for a column's value, of a text. Days and the rest of a day are each exact.
pub(super) fn write(form: Form, cell: &str) -> String {
    match form {
        Form::Id => format!("({cell})::uuid"),
        Form::Bytes => format!("decode({cell}, 'hex')"),
        Form::Time => format!(
            "timestamptz 'epoch' + ({cell})::bigint / 86400000 * interval '1 day' \
             + ({cell})::bigint % 86400000 * interval '1 millisecond'"
        ),
        Form::Int | Form::IntOrZero => format!("({cell})::bigint"),
        Form::Object => format!("({cell})::jsonb"),
        Form::Names(_) => format!("ARRAY(SELECT jsonb_array_elements_text(({cell})::jsonb))"),
        Form::Text(_) | Form::Words => cell.to_owned(),
    }
}

//! What can go wrong below a decision. Absence is never an error, and an error never means absence.

/// A database that could not answer, or answered nonsense.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The database cannot be reached, is not ready, or took too long. The same call may succeed
    /// later; nothing is known about the row asked for.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// A row that should be impossible.
    #[error("corrupt row: {table}.{column} of {row}")]
    Corrupt {
        /// Table or collection.
        table: &'static str,
        /// Column or field.
        column: &'static str,
        /// The row's id.
        row: String,
    },
    /// The driver refused the statement: a defect of ours or a schema that is not the expected one.
    #[error("the database refused a statement: {0}")]
    Driver(String),
}

impl StoreError {
    /// What kind of failure it is, in a word that says nothing about anybody.
    pub(crate) const fn class(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Corrupt { .. } => "corrupt",
            Self::Driver(_) => "refused",
        }
    }
}

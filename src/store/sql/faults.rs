//! What goes wrong inside a statement or a transaction, and what the contract calls it.

use diesel::result::{DatabaseErrorKind as Kind, Error};
use diesel_async::pooled_connection::bb8::RunError;

use crate::store::{StoreError, StoreResult};

/// Why a transaction was rolled back.
#[derive(Debug)]
pub(super) enum Fault {
    /// The database said no.
    Database(Error),
    /// A row made no sense.
    Store(StoreError),
    /// The address is kept for another account.
    Kept,
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Database(error)
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Database(error) => from_diesel(error),
            Fault::Store(error) => error,
            Fault::Kept => StoreError::Driver("an address is kept for another account".into()),
        }
    }
}

/// Which unique rule a statement broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Email,
    Username,
}

impl Fault {
    /// The unique rule of the users table that was broken, if that is what happened. PostgreSQL names
    /// the constraint, SQLite the column.
    pub(super) fn taken(&self) -> Option<Taken> {
        if matches!(self, Self::Kept) {
            return Some(Taken::Email);
        }
        let Self::Database(Error::DatabaseError(Kind::UniqueViolation, info)) = self else {
            return None;
        };
        let says = |what: &str| {
            info.constraint_name().is_some_and(|name| name == what) || info.message().contains(what)
        };
        // The id is taken together with the address: only the canary's is given by several nodes.
        let is_id = says("users_pkey") || says("users.id");
        if is_id || says("users_email_key") || says("users.email_canonical") {
            Some(Taken::Email)
        } else if says("users_username_key") || says("users.username_canonical") {
            Some(Taken::Username)
        } else {
            None
        }
    }
}

/// A database that is away, starting, stopping, out of time or read-only is unavailable; the driver
/// reports the codes of these as `Unknown`. What remains is a defect of ours.
pub(super) fn from_diesel(error: Error) -> StoreError {
    match error {
        Error::DatabaseError(kind, info) => match kind {
            Kind::UniqueViolation
            | Kind::ForeignKeyViolation
            | Kind::NotNullViolation
            | Kind::CheckViolation
            | Kind::RestrictViolation
            | Kind::ExclusionViolation => {
                let rule = info.constraint_name().unwrap_or_default();
                StoreError::Driver(format!("{kind:?} {rule}"))
            }
            // The statement is wrong, not the moment: PostgreSQL names the place, SQLite the thing.
            _ if info.statement_position().is_some()
                || info.message().starts_with("no such ")
                || info.message().starts_with("near \"") =>
            {
                StoreError::Driver(info.message().to_owned())
            }
            _ => StoreError::Unavailable(info.message().to_owned()),
        },
        Error::BrokenTransactionManager
        | Error::RollbackErrorOnCommit { .. }
        | Error::AlreadyInTransaction
        | Error::NotInTransaction => StoreError::Unavailable("a transaction was broken off".into()),
        other => StoreError::Driver(other.to_string()),
    }
}

/// No connection to be had in time.
pub(super) fn from_pool(error: RunError) -> StoreError {
    match error {
        RunError::TimedOut => StoreError::Unavailable("no connection in time".into()),
        RunError::User(error) => StoreError::Unavailable(error.to_string()),
    }
}

/// Runs a write of several statements to its end, even if whoever asked for it goes away.
pub(super) async fn to_the_end<T: Send + 'static>(
    write: impl Future<Output = StoreResult<T>> + Send + 'static,
) -> StoreResult<T> {
    tokio::spawn(write).await.unwrap_or_else(|ended| {
        Err(if ended.is_panic() {
            StoreError::Driver("a write panicked".into())
        } else {
            StoreError::Unavailable("a write was broken off".into())
        })
    })
}

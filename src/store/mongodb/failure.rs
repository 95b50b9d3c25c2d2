//! What an error of the driver means.
//!
//! Decides which errors mean that the database could not answer now and which are a defect. Texts of
//! the server are not passed on: they may quote documents, and with them addresses.

use std::time::Duration;

use mongodb::error::{
    Error, ErrorKind, RETRYABLE_WRITE_ERROR, TRANSIENT_TRANSACTION_ERROR,
    UNKNOWN_TRANSACTION_COMMIT_RESULT, WriteFailure,
};

use crate::store::StoreError;

/// A key that must be unique is there already.
pub(super) const DUPLICATE_KEY: i32 = 11000;
/// `maxTimeMS` is over.
pub(super) const MAX_TIME_EXPIRED: i32 = 50;

/// Codes of servers that step down, start, stop, or took too long
/// (<https://www.mongodb.com/docs/manual/reference/error-codes/>).
const PASSING: [i32; 24] = [
    6,  // HostUnreachable
    7,  // HostNotFound
    24, // LockTimeout
    MAX_TIME_EXPIRED,
    64,    // WriteConcernFailed
    74,    // NodeNotFound
    89,    // NetworkTimeout
    91,    // ShutdownInProgress
    100,   // UnsatisfiableWriteConcern
    112,   // WriteConflict
    133,   // FailedToSatisfyReadPreference
    134,   // ReadConcernMajorityNotAvailableYet
    189,   // PrimarySteppedDown
    202,   // NetworkInterfaceExceededTimeLimit
    246,   // SnapshotUnavailable
    251,   // NoSuchTransaction
    262,   // ExceededTimeLimit
    9001,  // SocketException
    10107, // NotWritablePrimary
    11600, // InterruptedAtShutdown
    11601, // Interrupted
    11602, // InterruptedDueToReplStateChange
    13435, // NotPrimaryNoSecondaryOk
    13436, // NotPrimaryOrSecondary
];

/// The server's code and its name, if the error is the server's answer.
pub(super) fn code(error: &Error) -> Option<(i32, &str)> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some((command.code, &command.code_name)),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some((
            write.code,
            write.code_name.as_deref().unwrap_or("write error"),
        )),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => {
            Some((concern.code, &concern.code_name))
        }
        _ => None,
    }
}

/// Whether a unique key was there already.
pub(super) fn is_duplicate(error: &Error) -> bool {
    code(error).is_some_and(|(code, _)| code == DUPLICATE_KEY)
}

/// Turns an error of the driver into ours.
pub(super) fn store_error(error: &Error) -> StoreError {
    let labelled = [
        RETRYABLE_WRITE_ERROR,
        TRANSIENT_TRANSACTION_ERROR,
        UNKNOWN_TRANSACTION_COMMIT_RESULT,
    ]
    .iter()
    .any(|label| error.contains_label(label));
    match (error.kind.as_ref(), code(error)) {
        // A write that a majority did not confirm in time may yet be lost: nothing is promised.
        (ErrorKind::Write(WriteFailure::WriteConcernError(_)), Some((code, name))) => {
            StoreError::Unavailable(format!("a majority did not confirm: {code} {name}"))
        }
        (_, Some((code, name))) if labelled || PASSING.contains(&code) => {
            StoreError::Unavailable(format!("MongoDB answered {code} {name}"))
        }
        (_, Some((code, name))) => StoreError::Driver(format!("MongoDB answered {code} {name}")),
        (ErrorKind::Io(io), None) => StoreError::Unavailable(format!("connection: {}", io.kind())),
        (ErrorKind::ServerSelection { .. }, None) => {
            StoreError::Unavailable("no primary of MongoDB can be reached".into())
        }
        (ErrorKind::ConnectionPoolCleared { .. }, None) => {
            StoreError::Unavailable("the connections to MongoDB were lost".into())
        }
        (ErrorKind::DnsResolve { .. }, None) => {
            StoreError::Unavailable("the name of the MongoDB server does not resolve".into())
        }
        (ErrorKind::Authentication { .. }, None) => {
            StoreError::Unavailable("MongoDB refused the user or password".into())
        }
        (ErrorKind::Shutdown, None) => StoreError::Unavailable("the store is closed".into()),
        (_, None) if labelled => StoreError::Unavailable("MongoDB did not answer".into()),
        (kind, None) => StoreError::Driver(kind_name(kind).into()),
    }
}

/// The error for an answer that did not come in time.
pub(super) fn too_slow(limit: Duration) -> StoreError {
    StoreError::Unavailable(format!("no answer from MongoDB within {limit:?}"))
}

const fn kind_name(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::InvalidArgument { .. } => "the driver refused an argument",
        ErrorKind::InvalidResponse { .. } => "the server's reply was not understood",
        ErrorKind::InvalidTlsConfig { .. } => "the TLS configuration is not valid",
        ErrorKind::IncompatibleServer { .. } => "the server's version is not supported",
        ErrorKind::SessionsNotSupported => "the server does not support sessions",
        ErrorKind::Transaction { .. } => "the driver refused a step of a transaction",
        ErrorKind::InsertMany(_) | ErrorKind::BulkWrite(_) => "a bulk write failed",
        _ => "the MongoDB driver failed",
    }
}

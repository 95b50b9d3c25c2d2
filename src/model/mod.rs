//! What Doorward knows: data and transitions, no I/O.

pub mod session;
pub mod token;
pub mod user;

//! What Doorward knows: data and transitions, no I/O.

pub mod account;
pub mod audit;
pub mod client;
pub mod device;
pub mod field;
pub mod mail;
pub mod quota;
pub mod role;
pub mod session;
pub mod token;
pub mod user;

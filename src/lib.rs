//! Doorward, a stateful session server.
//!
//! Every request decodes the JWT and then looks the session up in the database, so that a logout, a
//! revocation or a deactivation is obeyed on the very next request, on every node.
//!
//! A module imports from its own layer or one below; a test enforces it.
//!
//! | layer | modules | what they decide |
//! |---|---|---|
//! | L0 | [`clock`] [`entropy`] [`secret`] [`ids`] [`email`] [`username`] [`setting`] [`metrics`] | what a time, a secret, an id, a name is |
//! | L1 | [`model`] | users, sessions, one-time secrets: data and transitions, no I/O |
//! | L2 | [`store`] | the storage contract: atomic decisions |

#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod clock;
pub mod email;
pub mod entropy;
pub mod error;
pub mod ids;
pub mod metrics;
pub mod model;
pub mod passwords;
pub mod secret;
pub mod setting;
pub mod store;
pub mod username;

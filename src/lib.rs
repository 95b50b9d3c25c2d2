//! Doorward, a stateful session server.
//!
//! Every request decodes the JWT and then looks the session up in the database, so that a logout, a
//! revocation or a deactivation is obeyed on the very next request, on every node.
//!
//! In a poem app, [`Auth`] is built on a store, mounted beside the app's own routes, and asked by their
//! handlers:
//!
//! ```no_run
//! use doorward::{
//!     Auth, CurrentUser,
//!     http::ApiOptions,
//!     store::{open::open, settings::DatabaseSettings},
//!     tokens::KeyRing,
//! };
//! use poem::{EndpointExt, Route, get, handler};
//!
//! #[handler]
//! async fn whoami(user: CurrentUser) -> String {
//!     user.user.email.as_str().to_owned()
//! }
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let opened = open(&DatabaseSettings::default()).await?;
//! opened.migrations.apply().await?;
//! let key = std::env::var("KEY")?.into();
//! let auth = Auth::builder(opened.store, KeyRing::single(&key)?).build()?;
//! let options = ApiOptions::default();
//! let own = Route::new().at("/whoami", get(whoami));
//! let app = auth.mount(own, &options).with(auth.middleware(&options));
//! # let _ = app;
//! # Ok(())
//! # }
//! ```
//!
//! A module imports from its own layer or one below; a test enforces it.
//!
//! | layer | modules | what they decide |
//! |---|---|---|
//! | L0 | [`clock`] [`entropy`] [`secret`] [`ids`] [`email`] [`username`] [`setting`] [`finding`] [`metrics`] `certificates` `outbound` `restarting` `spans` | what a time, a secret, an id, a name is; how other services are spoken to |
//! | L1 | [`model`] | users, roles, sessions, secrets, letters, clients: data and transitions, no I/O |
//! | L2 | [`store`] [`mail`] [`letters`] [`error`] | the storage contract: atomic decisions; what carries letters and what stands in them; what a use case can answer |
//! | L3 | [`passwords`] [`tokens`] [`throttle`] [`lookup`] [`presence`] [`outbox`] `paging` `lease` [`audit`] [`accounts`] [`sessions`] [`verification`] [`recovery`] [`roles`] [`admin`] [`sweep`] [`transfer`] | the use cases |
//! | L4 | [`auth`] | everything put together |
//! | L5 | [`store::open`] and the databases, [`mail::open`] and the transports, `reporting` | how each database keeps the contract, how each transport carries a letter, what others are told |
//! | L6 | [`http`] | the REST API: translation, nothing else |
//! | L7 | `config` `telemetry` | settings in layers, logs (feature `server`) |
//! | L8 | `doctor` `server` `cli` | the composition root and the command line (feature `server`) |

#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod accounts;
pub mod admin;
pub mod audit;
pub mod auth;
#[cfg(any(
    feature = "postgres",
    feature = "mongodb",
    feature = "mail",
    feature = "breach"
))]
mod certificates;
#[cfg(feature = "server")]
pub mod cli;
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod doctor;
pub mod email;
pub mod entropy;
pub mod error;
pub mod finding;
pub mod http;
pub mod ids;
mod lease;
pub mod letters;
pub mod lookup;
pub mod mail;
pub mod metrics;
pub mod model;
#[cfg(any(feature = "mail", feature = "breach"))]
mod outbound;
pub mod outbox;
mod paging;
pub mod passwords;
pub mod presence;
pub mod recovery;
#[cfg(feature = "server")]
pub mod reporting;
mod restarting;
pub mod roles;
pub mod secret;
#[cfg(feature = "server")]
pub mod server;
pub mod sessions;
pub mod setting;
mod spans;
pub mod store;
pub mod sweep;
#[cfg(feature = "server")]
pub mod telemetry;
pub mod throttle;
pub mod tokens;
pub mod transfer;
pub mod username;
pub mod verification;

pub use crate::{
    auth::{Auth, AuthBuilder},
    sessions::CurrentUser,
};

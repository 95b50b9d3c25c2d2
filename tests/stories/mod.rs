//! What users, administrators and operators live through, told over HTTP, on every database.

mod accounts;
mod administration;
mod cookies;
mod crashes;
mod forward_auth;
mod hand_edits;
mod held_moments;
mod indistinguishable;
mod logs;
mod outages;
mod refreshing;
mod revocation;
mod sessions;
mod single_login;

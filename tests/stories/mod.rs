//! What users, administrators and operators live through, told over HTTP, on every database.

mod accounts;
mod administration;
mod audit_reading;
mod concealment;
mod cookies;
mod crashes;
mod erasing;
mod forward_auth;
mod hand_edits;
mod held_moments;
mod indistinguishable;
mod letters;
mod limits;
mod logs;
mod one_time;
mod outages;
mod outbox;
mod passwords;
mod refreshing;
mod revocation;
mod roles;
mod sessions;
mod single_login;
mod sweeping;
mod why;

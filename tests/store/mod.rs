//! The storage contract: what `src/store/mod.rs` promises, one list of cases for every backend.

mod by_hand;
mod changing_users;
mod ending_sessions;
mod listing_users;
mod looking_up;
mod migrating;
mod on_mongodb;
mod on_postgres;
mod opening_races;
mod opening_sessions;
mod outages;
mod passwords;
mod presence;
mod refreshing;
mod sample;
mod standing;
mod users;
mod watching;

//! The storage contract: what `src/store/mod.rs` promises, one list of cases for every backend.

mod addresses;
mod by_hand;
mod changing_users;
mod codes;
mod ending_sessions;
mod letters;
mod limits;
mod listing_users;
mod looking_up;
mod mailed_secrets;
mod mailing;
mod migrating;
mod on_mongodb;
mod on_postgres;
mod opening_races;
mod opening_sessions;
mod outages;
mod passwords;
mod preparing;
mod presence;
mod refreshing;
mod registrations;
mod sample;
mod standing;
mod users;
mod watching;

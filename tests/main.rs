//! Everything that is tested from outside: one binary, so that it links once.
//!
//! `harness` gives each test a database of its own; `store` is the storage contract, one list of cases
//! for every backend. `./tests/run` starts the servers that this needs.

#![expect(
    unreachable_pub,
    reason = "nothing is exported from a test binary; `pub` says who may use it"
)]

mod api;
mod architecture;
mod checklist;
mod cli;
mod config;
mod doctor;
mod harness;
#[path = "scale/history.rs"]
mod history;
#[path = "scale/history_tests.rs"]
mod history_tests;
mod listener;
mod mail;
mod neighbours;
mod program;
mod readme;
mod store;
mod stories;

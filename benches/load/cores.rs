//! How much of the cores Doorward and the load get beside others. A kernel that makes a group of each terminal session
//! (autogroup, `sched(7)`) shares them among groups first, and so do containers: the low priority of hashing then counts
//! within Doorward's group alone, and a storm of logins takes from the database what only the group's weight gives back.

use std::fs;

use serde::Serialize;

/// Of the session that this process, and whatever it starts, belongs to. Each process of PostgreSQL begins one of its
/// own, and so does mongod.
const SESSION: &str = "/proc/self/autogroup";

/// The weight of Doorward and the load in comparison with everybody else's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Weight {
    AsOthers,
    AThirtieth,
}

impl Weight {
    /// Whether it is so from now on; not where the kernel makes no groups.
    pub(crate) fn ask_for(self) -> bool {
        let grouped = fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled");
        let nice = match self {
            Self::AsOthers => "0",
            Self::AThirtieth => "15",
        };
        grouped.is_ok_and(|on| on.trim() == "1") && fs::write(SESSION, nice).is_ok()
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AsOthers => "as others",
            Self::AThirtieth => "a thirtieth",
        }
    }
}

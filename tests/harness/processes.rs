//! Which processes belong together.

use std::fs;

use rustix::process::Pid;

/// The processes that this one started: PostgreSQL has one for each client.
pub(crate) fn children_of(parent: Pid) -> Vec<Pid> {
    let wanted = format!("PPid:\t{}", parent.as_raw_nonzero());
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            let is_child = status.lines().any(|line| line == wanted);
            is_child.then(|| Pid::from_raw(pid)).flatten()
        })
        .collect()
}

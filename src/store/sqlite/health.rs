//! What the file of an SQLite database stands on.
//!
//! Decides which disks lose writes or locks, who may read the file, and when there is too little room. Nothing is
//! made: where there is no file yet, its folder is looked at. What becomes of the findings is for whoever asks.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use diesel::{connection::SimpleConnection, prelude::*, sql_types::Text, sqlite::SqliteConnection};
use rustix::fs::{statfs, statvfs};

use super::Opener;
use crate::{
    finding::{Check, Finding},
    store::{
        StoreError, StoreResult,
        settings::{SqliteSettings, Synchronous},
    },
};

/// Less room than this is little.
const LITTLE: u64 = 256 << 20;

/// Disks by the number that the system gives their kind (statfs(2)), and what they are.
const DISKS: [(u32, &str, Kind); 17] = [
    (0x6969, "NFS", Kind::Network),
    (0xff53_4d42, "CIFS", Kind::Network),
    (0xfe53_4d42, "SMB", Kind::Network),
    (0x517b, "SMB", Kind::Network),
    (0x00c3_6400, "Ceph", Kind::Network),
    (0x0bd0_0bd0, "Lustre", Kind::Network),
    (0x5346_414f, "AFS", Kind::Network),
    (0x6b41_4653, "AFS", Kind::Network),
    (0x7375_7245, "Coda", Kind::Network),
    (0x564c, "NCP", Kind::Network),
    (0x1983_0326, "BeeGFS", Kind::Network),
    (0x0116_1970, "GFS2", Kind::Network),
    (0x6573_5546, "FUSE", Kind::Unknown),
    (0x0102_1997, "9p", Kind::Unknown),
    (0x786f_4256, "a shared folder of VirtualBox", Kind::Unknown),
    (0x0102_1994, "tmpfs", Kind::Memory),
    (0x8584_58f6, "ramfs", Kind::Memory),
];

/// What becomes of a file on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Others may have it as well, and locks and flushes may not be what they say.
    Network,
    /// A program, or the machine around this one, decides.
    Unknown,
    /// It is gone with the machine.
    Memory,
}

/// Looks at the file that the settings name.
///
/// # Errors
/// [`StoreError::Unavailable`] when the file cannot be looked at.
pub(in crate::store) async fn examine(settings: &SqliteSettings) -> StoreResult<Vec<Finding>> {
    let settings = settings.clone();
    let looking = tokio::task::spawn_blocking(move || look(&settings));
    let looked = looking.await;
    looked.unwrap_or_else(|e| Err(StoreError::Driver(e.to_string())))
}

fn look(settings: &SqliteSettings) -> StoreResult<Vec<Finding>> {
    let path = &settings.path;
    let unavailable = |e: io::Error| StoreError::Unavailable(e.to_string());
    let there = nearest(path);
    let room = statvfs(&there).map_err(|e| unavailable(e.into()))?;
    let mut found = vec![
        disk(kind_of(&there).map_err(unavailable)?),
        synchronous(settings.synchronous),
        space(room.f_bavail.saturating_mul(room.f_frsize)),
    ];
    if path.is_file() {
        let folder = folder_of(path).metadata().map_err(unavailable)?;
        let file = fs::metadata(path).map_err(unavailable)?;
        found.push(permissions(file.mode(), folder.mode()));
        found.push(journal(&mode_of(settings)?));
    }
    Ok(found)
}

/// The number of the disk's kind.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the number is one of 32 bits, whatever it is kept in"
)]
fn kind_of(path: &Path) -> io::Result<u32> {
    Ok(statfs(path)?.f_type as u32)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The file, or the folder that it would be made in.
fn nearest(path: &Path) -> PathBuf {
    let there = path.ancestors().find(|one| one.exists());
    there.map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn disk(number: u32) -> Finding {
    let name = Check::Disk;
    match DISKS.iter().find(|(known, ..)| *known == number) {
        None => Finding::green(name, "the file is on a disk of this machine"),
        Some((_, what, Kind::Network)) => Finding::red(
            name,
            format!(
                "the file is on a network disk ({what}), whose locks and flushes SQLite cannot rely on: acknowledged \
                 changes, or the whole database, may be lost; move it to a disk of this machine, or use PostgreSQL"
            ),
        ),
        Some((_, what, Kind::Unknown)) => Finding::yellow(
            name,
            format!(
                "the file is on a disk that a program provides ({what}), which may be one of the network or keep no locks; \
                 move it to a disk of this machine unless you know that one"
            ),
        ),
        Some((_, what, Kind::Memory)) => Finding::yellow(
            name,
            format!("the file is in memory ({what}) and gone with the machine; move it to a disk"),
        ),
    }
}

fn synchronous(synchronous: Synchronous) -> Finding {
    match synchronous {
        Synchronous::Full => {
            let says = "a commit is on the disk before it is acknowledged";
            Finding::green(Check::Synchronous, says)
        }
        Synchronous::Normal => Finding::yellow(
            Check::Synchronous,
            "synchronous is lowered: a power cut may undo the last acknowledged changes, revocations among them; set \
             database.sqlite.synchronous to full, as production requires",
        ),
    }
}

fn space(free: u64) -> Finding {
    let says = format!("{} MiB are free", free >> 20);
    if free >= LITTLE {
        return Finding::green(Check::Space, says);
    }
    let says = format!("only {says}: on a full disk nobody can log in; make room");
    Finding::yellow(Check::Space, says)
}

/// A folder that others may not enter keeps them from the file.
fn permissions(file: u32, folder: u32) -> Finding {
    let name = Check::Permissions;
    let mode = |bits: u32| file & bits != 0;
    let others = folder & 0o001 != 0;
    if others && mode(0o002) || folder & 0o002 != 0 && folder & 0o1000 == 0 {
        let says = "everybody on this machine can change the file, or put another in its place; run `chmod 600` on it and \
             `chmod 700` on its folder";
        return Finding::red(name, says);
    }
    if others && mode(0o004) {
        let says = "everybody on this machine can read the file, hashes of passwords included; run `chmod 600` on it";
        return Finding::yellow(name, says);
    }
    Finding::green(name, "the file is kept from others")
}

#[derive(QueryableByName)]
struct Mode {
    #[diesel(sql_type = Text)]
    journal_mode: String,
}

/// What SQLite made of the wish for a write-ahead log.
fn mode_of(settings: &SqliteSettings) -> StoreResult<String> {
    let opener = Opener::new(settings)?;
    let unavailable = |e: String| StoreError::Unavailable(e);
    let mut conn =
        SqliteConnection::establish(&opener.url).map_err(|e| unavailable(e.to_string()))?;
    conn.batch_execute(&opener.setup)
        .map_err(|e| unavailable(e.to_string()))?;
    let mode = diesel::sql_query("PRAGMA journal_mode").get_result::<Mode>(&mut conn);
    mode.map(|mode| mode.journal_mode)
        .map_err(|e| unavailable(e.to_string()))
}

fn journal(mode: &str) -> Finding {
    if mode == "wal" {
        return Finding::green(
            Check::WriteAhead,
            "readers and the writer do not wait for each other",
        );
    }
    let says = format!(
        "SQLite could not set up its write-ahead log here and uses `{mode}`: requests wait for each write; move the file to \
         a disk of this machine"
    );
    Finding::yellow(Check::WriteAhead, says)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Level;

    /// No test can mount a network disk, so the numbers are tested as such.
    #[test]
    fn disks_of_the_network_are_told_by_their_number() {
        for (number, level) in [
            (0x6969, Level::Red),
            (0xff53_4d42, Level::Red),
            (0x0102_1997, Level::Yellow),
            (0x6573_5546, Level::Yellow),
            (0x0102_1994, Level::Yellow),
            // ext4, XFS, Btrfs, ZFS, overlayfs
            (0xef53, Level::Green),
            (0x5846_5342, Level::Green),
            (0x9123_683e, Level::Green),
            (0x2fc1_2fc1, Level::Green),
            (0x794c_7630, Level::Green),
        ] {
            assert_eq!(disk(number).level, level, "{number:x}");
        }
        assert_eq!(
            disk(kind_of(Path::new("/proc")).expect("there")).level,
            Level::Green
        );
        assert_eq!(space(1 << 20).level, Level::Yellow);
        assert_eq!(journal("delete").level, Level::Yellow);
    }

    #[test]
    fn others_are_kept_out_by_the_file_or_by_its_folder() {
        for (file, folder, level) in [
            (0o600, 0o755, Level::Green),
            (0o640, 0o755, Level::Green),
            (0o644, 0o700, Level::Green),
            (0o644, 0o755, Level::Yellow),
            (0o666, 0o755, Level::Red),
            (0o666, 0o750, Level::Green),
            (0o600, 0o777, Level::Red),
            (0o600, 0o1777, Level::Green),
        ] {
            assert_eq!(
                permissions(file, folder).level,
                level,
                "{file:o} in {folder:o}"
            );
        }
    }
}

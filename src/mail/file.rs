//! Letters put into a folder, one file each, for programs that fetch them there.
//!
//! Decides that a file is there whole or not at all, and that nobody else on the machine reads it: it
//! holds one-time secrets. Emptying the folder is for whoever delivers them.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;

use super::{Mail, Mailer, SendError, message, settings::FileSettings};
use crate::{ids::LetterId, setting::BadSetting};

/// Tells the drafts of one process apart.
static DRAFTS: AtomicU64 = AtomicU64::new(0);

/// Writes each letter to `<id>.eml` in a folder; one that is sent again takes the place of the first.
#[derive(Debug, Clone)]
pub struct FileMailer {
    folder: PathBuf,
}

impl FileMailer {
    /// Makes the folder if it is not there, for its owner alone.
    ///
    /// # Errors
    /// [`BadSetting`] for `mail.file.folder`.
    pub fn new(settings: &FileSettings) -> Result<Self, BadSetting> {
        settings.check()?;
        let folder = settings.folder.clone();
        make_folder(&folder).map_err(|e| {
            let problem = format!("{} cannot be made: {}", folder.display(), e.kind());
            BadSetting::new("mail.file.folder", problem, "name a folder of its own")
        })?;
        Ok(Self { folder })
    }
}

#[async_trait]
impl Mailer for FileMailer {
    async fn send(&self, mail: &Mail) -> Result<(), SendError> {
        let bytes = message::write(mail)?.bytes;
        let (folder, id) = (self.folder.clone(), mail.id);
        let stored = tokio::task::spawn_blocking(move || store(&folder, id, &bytes)).await;
        let failed = |e: io::Error| SendError::Later(format!("the folder: {}", e.kind()));
        stored
            .map_err(|_| SendError::Later("the writing was broken off".to_owned()))?
            .map_err(failed)
    }
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn store(folder: &Path, id: LetterId, bytes: &[u8]) -> io::Result<()> {
    // Somebody who empties the folder may have taken it along.
    make_folder(folder)?;
    let number = DRAFTS.fetch_add(1, Ordering::Relaxed);
    let draft = folder.join(format!(".{id}.{}.{number}", std::process::id()));
    let written = write_draft(&draft, bytes)
        .and_then(|()| fs::rename(&draft, folder.join(format!("{id}.eml"))));
    if let Err(e) = written {
        // It may never have been made.
        let _ = fs::remove_file(&draft);
        return Err(e);
    }
    File::open(folder)?.sync_all()
}

fn write_draft(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(draft)?;
    file.write_all(bytes)?;
    file.sync_all()
}

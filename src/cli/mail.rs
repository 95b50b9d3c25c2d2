//! Commands on letters. They touch no server and no database, so they need no settings that hold.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::Subcommand;
use serde_json::json;

use super::{Failure, Say};
use crate::letters::Letters;

#[derive(Debug, Subcommand)]
pub(super) enum MailCommand {
    /// Write the built-in texts and layouts of letters and pages into a folder, to be changed there
    Templates {
        /// An empty folder, or one to be made; name it in `mail.templates` afterwards
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
    },
}

pub(super) fn obey(command: MailCommand, say: Say) -> Result<(), Failure> {
    match command {
        MailCommand::Templates { folder } => templates(&folder, say),
    }
}

fn templates(folder: &Path, say: Say) -> Result<(), Failure> {
    let unwritable = |path: &Path, error: &io::Error| {
        let shown = path.display();
        Failure(format!(
            "{shown} cannot be written: {error}; check the folder"
        ))
    };
    fs::create_dir_all(folder).map_err(|e| unwritable(folder, &e))?;
    let mut there = fs::read_dir(folder).map_err(|e| unwritable(folder, &e))?;
    if there.next().is_some() {
        let shown = folder.display();
        return Err(Failure(format!(
            "{shown} is not empty; name a folder that is, so that nothing is overwritten"
        )));
    }
    let mut written = Vec::new();
    for (name, text) in Letters::built_in_files() {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|e| unwritable(&path, &e))?;
        written.push(path);
    }
    let lines = written
        .iter()
        .map(|path| format!("wrote {}", path.display()));
    let lines: Vec<String> = lines.collect();
    say.text(lines.join("\n"), json!({ "written": written }))
}

//! Files that hold secrets: reading them only when they are well kept, writing them whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    entropy::{Entropy, random_bytes},
    secret::SecretString,
    setting::BadSetting,
};

/// Where container runtimes put secrets, readable by everybody inside.
const CONTAINER_SECRETS: &str = "/run/secrets";

/// Longest secret file looked at.
const LONGEST: u64 = 1 << 20;

/// Reads a file that the setting `key` names.
pub(crate) fn read_secret(key: &str, path: &Path) -> Result<SecretString, BadSetting> {
    let shown = path.display();
    let bad = |problem: String, remedy: &str| BadSetting::new(key, problem, remedy);
    let unreadable = |e: io::Error| {
        bad(
            format!("{shown} cannot be read: {e}"),
            "check its name and permissions",
        )
    };
    let about = fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() {
        return Err(bad(format!("{shown} is not a file"), "name a file"));
    }
    if about.len() > LONGEST {
        return Err(bad(
            format!("{shown} is longer than 1 MiB"),
            "name another file",
        ));
    }
    let mode = about.permissions().mode();
    let exposed = mode & 0o007 != 0 && !path.starts_with(CONTAINER_SECRETS);
    if exposed || mode & 0o022 != 0 {
        return Err(bad(
            format!(
                "{shown} can be read or changed by others (mode {:04o})",
                mode & 0o7777
            ),
            "run `chmod 600` on it",
        ));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    Ok(SecretString::new(text))
}

/// Makes a secret file if there is none; of several processes that try, one makes it and the others
/// leave it as it is.
pub(crate) fn make_secret(
    path: &Path,
    text: &SecretString,
    entropy: &dyn Entropy,
) -> io::Result<()> {
    let folder = folder_of(path);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let draft = write_draft(path, text, entropy)?;
    // A link appears with all its content or not at all, and never replaces anything.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        Ok(()) | Err(_) => {}
    }
    File::open(folder)?.sync_all()
}

/// Replaces a secret file, or makes it: a crash leaves the old one or the new one.
pub(crate) fn replace_secret(
    path: &Path,
    text: &SecretString,
    entropy: &dyn Entropy,
) -> io::Result<()> {
    let draft = write_draft(path, text, entropy)?;
    if let Err(e) = fs::rename(&draft, path) {
        fs::remove_file(&draft)?;
        return Err(e);
    }
    File::open(folder_of(path))?.sync_all()
}

/// Keeps other processes that ask for it out until the file is dropped.
pub(crate) fn lock_folder_of(path: &Path) -> io::Result<File> {
    let folder = File::open(folder_of(path))?;
    folder.lock()?;
    Ok(folder)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

fn write_draft(path: &Path, text: &SecretString, entropy: &dyn Entropy) -> io::Result<PathBuf> {
    let chance = URL_SAFE_NO_PAD.encode(random_bytes::<9>(entropy));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{chance}"));
    let draft = path.with_file_name(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(text.expose().as_bytes())?;
    file.sync_all()?;
    Ok(draft)
}

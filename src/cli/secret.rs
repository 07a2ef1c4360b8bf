//! Files that hold a secret: for their owner alone, when they are made and when they are read.

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::MetadataExt,
    path::Path,
};

use anyhow::{Context, anyhow};

/// Reads a secret from its file, without the line end.
///
/// # Errors
/// There is none, or other users can read or change it.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text).map_err(|error| anyhow!("cannot read {}: {error}", path.display()))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    anyhow::ensure!(!secret.trim().is_empty(), "{} is empty, but has to hold a secret", path.display());
    Ok(secret.to_owned())
}

/// Checks that a file with a secret, which is read elsewhere, can be read and is for its owner alone.
pub(crate) fn check(path: &Path) -> anyhow::Result<()> {
    open(path).map(drop)
}

/// Opens it. A pipe or a terminal is not for others anyway.
fn open(path: &Path) -> anyhow::Result<fs::File> {
    let shown = path.display();
    let open = || {
        let file = fs::File::open(path)?;
        let found = file.metadata()?;
        Ok::<_, std::io::Error>((file, found))
    };
    let (file, found) = open().map_err(|error| anyhow!("cannot read {shown}: {error}"))?;
    let mode = found.mode() & 0o777;
    anyhow::ensure!(
        !found.is_file() || mode & 0o077 == 0,
        "{shown} holds a secret, but other users may open it (its mode is {mode:04o}): chmod 600 {shown}"
    );
    Ok(file)
}

/// Writes a secret to a new file that only its owner can read, durably.
///
/// # Errors
/// There is a file already, which stays as it is, or it cannot be written.
pub(crate) fn create(path: &Path, secret: &str) -> anyhow::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        // Made beside it, for its owner alone, and put there whole or not at all.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        writeln!(file, "{secret}")?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path).map_err(|error| error.error)?;
        fs::File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// 256 random bits in hexadecimal.
#[expect(clippy::disallowed_methods, reason = "a secret comes from the operating system and nowhere else")]
pub(crate) fn fresh() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_for_its_owner_alone_and_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, "one").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(create(&path, "two").unwrap_err().to_string().contains("secret"));
        assert_eq!((read(&path).unwrap().as_str(), fs::read_dir(&folder).unwrap().count()), ("one", 1));
        assert_ne!(fresh(), fresh());
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, "one").unwrap();
        for mode in [0o640, 0o604, 0o644, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let complaint = read(&path).unwrap_err().to_string();
            assert!(complaint.contains(&format!("chmod 600 {}", path.display())), "{complaint}");
            assert!(check(&path).is_err(), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        check(&path).unwrap();
    }

    #[test]
    fn an_empty_file_holds_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        create(&path, "").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("empty"));
        assert!(read(&folder.path().join("none")).is_err());
    }
}

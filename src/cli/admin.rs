//! What lets a program change something at a node: the admin token, and the Unix socket that needs none.
//!
//! Both lie in the node's data folder, where only the node's user can read them.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use tokio::net::UnixListener;

use super::secret;

/// The name of the token's file, and of the socket, in a data folder.
pub(crate) const TOKEN: &str = "admin.token";
pub(crate) const SOCKET: &str = "admin.sock";

/// Longest path that fits into a socket's address.
const ADDRESS_BYTES_MAX: usize = 107;

/// The file of the admin token: the operator's, or the one in the folder `data`, which is made if it is not there.
pub(crate) fn token_file(data: &Path, operators: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = operators {
        return Ok(path.to_owned());
    }
    let path = data.join(TOKEN);
    if !path.try_exists().with_context(|| format!("cannot look for {}", path.display()))? {
        secret::create(&path, &secret::fresh())?;
    }
    Ok(path)
}

/// Listens on the Unix socket in `data`, which this process has locked: one that lies there is of a process that is gone.
pub(crate) fn listen(data: &Path) -> anyhow::Result<UnixListener> {
    let path = data.join(SOCKET);
    let bind = || {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let short = ShortPath::of(&path)?;
        let listener = UnixListener::bind(&short.path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bind().with_context(|| format!("cannot listen on {}", path.display()))
}

/// Another name for a path that is too long for a socket's address, valid as long as this lives.
pub(crate) struct ShortPath {
    pub(crate) path: PathBuf,
    _folder: Option<File>,
}

impl ShortPath {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= ADDRESS_BYTES_MAX {
            return Ok(Self { path: path.to_owned(), _folder: None });
        }
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidFilename.into());
        };
        let folder = File::open(folder)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
        Ok(Self { path, _folder: Some(folder) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_the_operators_own_counts_before_it() {
        let data = tempfile::tempdir().unwrap();
        let own = Path::new("/etc/token");
        assert_eq!(token_file(data.path(), Some(own)).unwrap(), own);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
        let made = token_file(data.path(), None).unwrap();
        let token = secret::read(&made).unwrap();
        assert_eq!(secret::read(&token_file(data.path(), None).unwrap()).unwrap(), token);
        assert_eq!(token.len(), 64);
    }

    #[tokio::test]
    async fn the_socket_is_for_its_owner_alone_and_replaces_one_that_was_left() {
        let folder = tempfile::tempdir().unwrap();
        for data in [folder.path().to_owned(), folder.path().join("x".repeat(120))] {
            fs::create_dir_all(&data).unwrap();
            drop(listen(&data).unwrap());
            let listener = listen(&data).unwrap();
            assert_eq!(fs::metadata(data.join(SOCKET)).unwrap().permissions().mode() & 0o777, 0o600);
            let short = ShortPath::of(&data.join(SOCKET)).unwrap();
            let (connected, accepted) = tokio::join!(tokio::net::UnixStream::connect(&short.path), listener.accept());
            assert!(connected.is_ok() && accepted.is_ok());
        }
    }
}

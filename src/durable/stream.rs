//! A new file that is written as its bytes arrive.
//!
//! Bytes gather in memory and go to the blocking pool in large parts, so a small file costs one trip there: made, written,
//! synced and moved to its name in one go.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use super::files::{Durable, blocking};

/// Bytes that gather before they are written.
const PART_BYTES: usize = 256 << 10;

/// A file in the making. Dropped before [`FileStream::finish`], it leaves a part of a file behind.
#[derive(Debug)]
pub(crate) struct FileStream {
    durable: Durable,
    path: PathBuf,
    file: Option<File>,
    gathered: Vec<u8>,
    length: u64,
}

impl Durable {
    /// Begins a file that is written in parts.
    pub(crate) fn stream(&self, path: PathBuf) -> FileStream {
        FileStream { durable: self.clone(), path, file: None, gathered: Vec::new(), length: 0 }
    }
}

impl FileStream {
    /// Adds `bytes`. They need not be on the medium when this returns.
    ///
    /// # Errors
    /// They, or bytes before them, cannot be written; the file is of no use any more.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.gathered.extend_from_slice(bytes);
        self.length += bytes.len() as u64;
        if self.gathered.len() < PART_BYTES { Ok(()) } else { self.flush().await }
    }

    /// How many bytes readers of the file find in it.
    pub(crate) fn readable(&self) -> u64 {
        self.length - self.gathered.len() as u64
    }

    /// Writes what has gathered, for readers of the file. It need not be on the medium when this returns.
    ///
    /// # Errors
    /// As [`FileStream::write`].
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let (durable, path) = (self.durable.clone(), self.path.clone());
        let (file, mut part) = (self.file.take(), std::mem::take(&mut self.gathered));
        let (file, part) = blocking(move || {
            let file = file.map_or_else(|| File::create(path), Ok)?;
            durable.write_all(&file, &part)?;
            part.clear();
            Ok((file, part))
        })
        .await?;
        (self.file, self.gathered) = (Some(file), part);
        Ok(())
    }

    /// Makes the file durable and gives it the name `to`, which is durable once its folder is synced.
    ///
    /// # Errors
    /// The file does not have that name, and may be there in part under its first one.
    pub(crate) async fn finish(self, to: &Path) -> io::Result<()> {
        let to = to.to_owned();
        blocking(move || {
            let Self { durable, path, file, gathered, length } = self;
            let file = file.map_or_else(|| File::create(&path), Ok)?;
            durable.write_all(&file, &gathered)?;
            durable.finish(&file, length)?;
            durable.medium.rename(&path, &to)?;
            durable.acknowledge(&durable.counts.files, usize::try_from(length).unwrap_or(usize::MAX));
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::durable::testing::{Fault, Faulty};

    async fn written(durable: &Durable, dir: &Path, parts: usize) -> io::Result<()> {
        let mut stream = durable.stream(dir.join("part"));
        for _ in 0..parts {
            stream.write(&[b'x'; 100_000]).await?;
        }
        stream.finish(&dir.join("whole")).await
    }

    #[tokio::test]
    async fn small_and_large_files_arrive_whole() {
        for parts in [0, 1, 3, 12] {
            let dir = tempfile::tempdir().unwrap();
            let durable = Durable::default();
            written(&durable, dir.path(), parts).await.unwrap();
            assert_eq!(fs::read(dir.path().join("whole")).unwrap(), vec![b'x'; parts * 100_000]);
            assert_eq!((durable.counts().files(), durable.counts().bytes()), (1, parts as u64 * 100_000));
        }
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_written_whole_never_has_its_name() {
        for fault in [Fault::Write, Fault::WriteHalf, Fault::WriteCut, Fault::Sync, Fault::Rename] {
            for parts in [1, 12] {
                let dir = tempfile::tempdir().unwrap();
                let medium = Arc::new(Faulty::new(fault));
                let durable = Durable::on(medium.clone());
                medium.begin();
                written(&durable, dir.path(), parts).await.unwrap_err();
                assert!(!dir.path().join("whole").exists(), "{fault:?}");
                assert_eq!(durable.counts().files(), 0);
            }
        }
    }
}

//! Objects that are still being fetched, and what is here of them already.
//!
//! ```text
//!   update:  source --> part file, and how far it is readable --> commit
//!   client:             wait for the first byte that is wanted --> head, then bytes as they come
//! ```
//!
//! Only of an object whose source says how long it is and gives it a strong tag: so the part is of the version that the tag
//! names, and a client or node that holds it against another copy knows whether that is the same. What must hold: a body that
//! cannot be given to its end breaks off.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use headers::ETag;
use http::{Response, request::Parts};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, SeekFrom},
    sync::{Notify, watch},
};

use super::{head::head_of, manifest::Object};
use crate::{
    key::Key,
    provider::{Body, BoxError, body},
};

/// Size of the pieces that a file is read in.
const CHUNK_BYTES: usize = 128 << 10;

/// The objects that are being fetched, by their names in the source.
#[derive(Debug, Default)]
pub(super) struct Incoming(Mutex<BTreeMap<Key, Arc<Download>>>);

/// One object, on its way.
#[derive(Debug)]
struct Download {
    /// What the source said of it. Its hash is not known yet.
    object: Object,
    /// Where it is written.
    file: OnceLock<PathBuf>,
    /// How many bytes of it are in the file. `None`: there will be no more.
    readable: watch::Sender<Option<u64>>,
    /// Woken by a client that wants to read what is here now.
    wanted: Notify,
}

impl Incoming {
    /// `object` is being fetched under this name, until what is returned is ended or dropped. `None`: no part of it can be
    /// given before it is whole.
    pub(super) fn begin(&self, name: &Key, object: &Object) -> Option<Entry<'_>> {
        let is_strong = object.validator.starts_with('"') && object.validator.parse::<ETag>().is_ok();
        if !is_strong {
            return None;
        }
        let (file, readable, wanted) = (OnceLock::new(), watch::Sender::new(Some(0)), Notify::new());
        let download = Arc::new(Download { object: object.clone(), file, readable, wanted });
        self.lock().insert(name.clone(), download.clone());
        Some(Entry { incoming: self, name: name.clone(), download, is_whole: false })
    }

    /// Answers a request for an object or a part of it, as soon as the first byte of that is here. `None`: it is not being
    /// fetched, or not any more.
    pub(super) async fn answer(&self, request: &Parts) -> io::Result<Option<Response<Body>>> {
        let Ok(name) = Key::from_path(request.uri.path()) else { return Ok(None) };
        let Some(download) = self.lock().get(&name).cloned() else { return Ok(None) };
        let (mut response, range) = head_of(request, &download.object)?;
        let Some(range) = range.filter(|range| !range.is_empty()) else { return Ok(Some(response)) };
        // From now on the file is written for readers, too.
        let mut readable = download.readable.subscribe();
        download.wanted.notify_one();
        if reaches(&mut readable, range.start).await.is_none() {
            return Ok(None);
        }
        let Some(path) = download.file.get() else { return Ok(None) };
        let mut file = match File::open(path).await {
            Ok(file) => file,
            // It is whole by now, and has got its name.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(range.start)).await?;
        *response.body_mut() = body(StreamBody::new(follow(file, readable, range)));
        Ok(Some(response))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Download>>> {
        self.0.lock().expect("no panic under this lock")
    }
}

/// Waits until the byte at `position` is in the file; how many there are then. `None` if it will not be.
async fn reaches(readable: &mut watch::Receiver<Option<u64>>, position: u64) -> Option<u64> {
    let there = readable.wait_for(|readable| readable.is_none_or(|bytes| bytes > position)).await;
    there.ok().and_then(|readable| *readable)
}

/// The bytes of `range`, as they come. `file` stands at its beginning.
fn follow(
    file: File,
    readable: watch::Receiver<Option<u64>>,
    range: Range<u64>,
) -> impl Stream<Item = Result<Frame<Bytes>, BoxError>> + Send {
    stream::try_unfold((file, readable, range), |(mut file, mut readable, range)| async move {
        if range.is_empty() {
            return Ok(None);
        }
        let Some(there) = reaches(&mut readable, range.start).await else {
            return Err("the fetch of the object has failed".into());
        };
        let length = (there.min(range.end) - range.start).min(CHUNK_BYTES as u64);
        let mut bytes = BytesMut::with_capacity(CHUNK_BYTES.min(usize::try_from(length).unwrap_or(CHUNK_BYTES)));
        if (&mut file).take(length).read_buf(&mut bytes).await? == 0 {
            return Err("a file is shorter than what was written to it".into());
        }
        let rest = range.start + bytes.len() as u64..range.end;
        Ok(Some((Frame::data(bytes.freeze()), (file, readable, rest))))
    })
}

/// An object that is being fetched.
#[derive(Debug)]
pub(super) struct Entry<'i> {
    incoming: &'i Incoming,
    name: Key,
    download: Arc<Download>,
    is_whole: bool,
}

impl Entry<'_> {
    /// Waits until a client wants to read what is here already. Cancel safe.
    pub(super) async fn wanted(entry: Option<&Self>) {
        match entry {
            Some(entry) => entry.download.wanted.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Whether a client reads it already.
    pub(super) fn is_read(&self) -> bool {
        self.download.readable.receiver_count() > 0
    }

    /// So many bytes of it are in `file`.
    pub(super) fn reached(&self, file: &Path, bytes: u64) {
        self.download.file.get_or_init(|| file.to_owned());
        self.download.readable.send_if_modified(|readable| readable.replace(bytes) != Some(bytes));
    }

    /// All of its bytes are there; the argument is their number.
    pub(super) fn end(mut self, bytes: u64) {
        self.is_whole = true;
        self.download.readable.send_replace(Some(bytes));
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let mut open = self.incoming.lock();
        if open.get(&self.name).is_some_and(|open| Arc::ptr_eq(open, &self.download)) {
            open.remove(&self.name);
        }
        drop(open);
        if !self.is_whole {
            self.download.readable.send_replace(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use http::{Request, header};
    use http_body_util::BodyExt;

    use super::*;
    use crate::providers::testing::key;

    fn object(validator: &str) -> Object {
        let (content_type, validator) = ("text/plain".to_owned(), validator.to_owned());
        Object { size: 9, sha256: "0".repeat(64), modified: 0, content_type, validator, fields: BTreeMap::new() }
    }

    fn ask(fields: &[(&str, &str)]) -> Parts {
        let request = fields.iter().fold(Request::get("/a"), |request, (name, value)| request.header(*name, *value));
        request.body(()).unwrap().into_parts().0
    }

    #[tokio::test]
    async fn a_part_is_given_as_its_bytes_come_and_breaks_off_with_the_fetch() {
        for fails in [false, true] {
            let incoming = Incoming::default();
            let entry = incoming.begin(&key("a"), &object("\"v\"")).unwrap();
            let mut file = tempfile::NamedTempFile::new().unwrap();
            let asked = ask(&[("range", "bytes=2-5")]);
            let mut answer = Box::pin(incoming.answer(&asked));
            assert!(futures::poll!(&mut answer).is_pending());
            assert!(entry.is_read());
            file.write_all(b"abcd").unwrap();
            entry.reached(file.path(), 4);
            let response = answer.await.unwrap().unwrap();
            assert_eq!(response.headers()[header::CONTENT_RANGE], "bytes 2-5/9");
            assert_eq!(response.headers()[header::ETAG], "\"v\"");
            let mut body = response.into_body();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "cd");
            if fails {
                drop(entry);
                assert!(body.collect().await.is_err());
            } else {
                file.write_all(b"efghi").unwrap();
                entry.end(9);
                assert_eq!(body.collect().await.unwrap().to_bytes(), "ef");
            }
            assert!(incoming.answer(&asked).await.unwrap().is_none(), "it is not on its way any more");
        }
    }

    #[tokio::test]
    async fn only_of_a_version_that_its_source_names_is_anything_given_before_the_whole() {
        let incoming = Incoming::default();
        for vague in ["", "W/\"v\"", "Thu, 01 Jan 2026 00:00:00 GMT"] {
            assert!(incoming.begin(&key("a"), &object(vague)).is_none(), "{vague}");
        }
        let entry = incoming.begin(&key("a"), &object("\"v\"")).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"abcdefghi").unwrap();
        entry.reached(file.path(), 9);
        for (fields, status, content) in [
            (&[][..], 200, "abcdefghi"),
            (&[("range", "bytes=-2")], 206, "hi"),
            (&[("range", "bytes=0-1"), ("if-range", "\"other\"")], 200, "abcdefghi"),
            (&[("range", "bytes=0-1,3-4")], 200, "abcdefghi"),
            (&[("range", "bytes=9-")], 416, ""),
            (&[("if-none-match", "\"v\"")], 304, ""),
            (&[("if-match", "\"other\"")], 412, ""),
        ] {
            let response = incoming.answer(&ask(fields)).await.unwrap().unwrap();
            assert_eq!(response.status().as_u16(), status, "{fields:?}");
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), content, "{fields:?}");
        }
    }
}

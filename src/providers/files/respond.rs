//! Answering clients and peers from the copies on disk. Bodies are streamed in pieces, never read whole.

use std::{io, ops::Range, sync::Arc};

use futures::TryStreamExt;
use http::{HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt, SeekFrom},
};
use tokio_util::io::ReaderStream;

use super::{
    cache::MANIFEST,
    head::{head_of, plain},
    manifest::{Object, is_sha256},
    setup::Files,
};
use crate::{
    key::Key,
    provider::{Body, BoxError, ServeError, body, full},
};

/// Size of the pieces that a file is read in.
const CHUNK_BYTES: usize = 128 << 10;
/// How often a file may vanish under a reader because an update replaced it.
const ATTEMPTS: usize = 3;

impl Files {
    /// The answer to a request that nothing can be given to, whatever is held.
    pub(super) fn refusal(&self, request: &Parts) -> Option<Response<Body>> {
        // What an earlier version, or an earlier setting, has copied is not given away either.
        if Key::from_path(request.uri.path()).is_ok_and(|path| self.source.hides(path.as_str())) {
            return Some(plain(StatusCode::NOT_FOUND, "the key has no such object\n"));
        }
        if request.method != Method::GET && request.method != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are possible here\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return Some(response);
        }
        None
    }

    /// Answers a client.
    pub(super) async fn respond(&self, key: &Key, request: &Parts) -> Result<Response<Body>, ServeError> {
        if !self.cache.shelf.holds(key, MANIFEST).await? {
            self.cache.forget(key);
            return Err(ServeError::NotHeld);
        }
        if let Some(refusal) = self.refusal(request) {
            return Ok(refusal);
        }
        for _ in 0..ATTEMPTS {
            let manifest = self.cache.manifest(key).await?.ok_or(ServeError::NotHeld)?;
            let object = path_below(key, request.uri.path()).and_then(|path| manifest.objects.get(&path).cloned());
            let Some(object) = object else {
                return Ok(plain(StatusCode::NOT_FOUND, "the key has no such object\n"));
            };
            match self.cache.open(key, &object.sha256).await {
                Ok(file) => return Ok(answer(request, &object, file).await?),
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.cache.forget(key),
                Err(error) => return Err(error.into()),
            }
        }
        Err(ServeError::Failed("a content that the manifest names is gone".into()))
    }

    /// Answers a peer: the manifest, or a content by its hash.
    pub(super) async fn export_to_peer(&self, key: &Key, path: &str) -> Result<Response<Body>, ServeError> {
        let manifest = self.cache.manifest(key).await?.ok_or(ServeError::NotHeld)?;
        if path == "/manifest" {
            return Ok(Response::new(full(Arc::unwrap_or_clone(manifest).to_bytes())));
        }
        let Some(sha256) = path.strip_prefix("/contents/").filter(|name| is_sha256(name)) else {
            return Ok(plain(StatusCode::NOT_FOUND, "nothing here\n"));
        };
        match self.cache.open(key, sha256).await {
            Ok(file) => {
                let length = file.metadata().await?.len();
                Ok(Response::new(stream(file, 0..length).await?))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(plain(StatusCode::NOT_FOUND, "replaced\n")),
            Err(error) => Err(error.into()),
        }
    }
}

/// The path of an object below its key, from the path of a request.
fn path_below(key: &Key, path: &str) -> Option<String> {
    let path = Key::from_path(path).ok()?;
    let rest = path.as_str().strip_prefix(key.as_str())?;
    if rest.is_empty() { Some(String::new()) } else { rest.strip_prefix('/').map(str::to_owned) }
}

async fn answer(request: &Parts, object: &Object, file: File) -> io::Result<Response<Body>> {
    if file.metadata().await?.len() != object.size {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a content does not have its size"));
    }
    let (mut response, range) = head_of(request, object)?;
    if let Some(range) = range {
        *response.body_mut() = stream(file, range).await?;
    }
    Ok(response)
}

async fn stream(mut file: File, range: Range<u64>) -> io::Result<Body> {
    if range.start > 0 {
        file.seek(SeekFrom::Start(range.start)).await?;
    }
    let bytes = ReaderStream::with_capacity(file.take(range.end - range.start), CHUNK_BYTES);
    Ok(body(StreamBody::new(bytes.map_ok(Frame::data).map_err(BoxError::from))))
}

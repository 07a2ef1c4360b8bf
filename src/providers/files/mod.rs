//! Files: objects of a directory or an object store, copied to local disk and served from there.
//!
//! Without a key depth each object is a key of its own. With a depth of N, the first N components of a path are the key,
//! and it holds all objects below; a path of fewer components is an object of its own. Concerns and where they live:
//!
//! | file | concern |
//! | --- | --- |
//! | `source` | directories, HTTP servers, S3 and others |
//! | `web`, `connector` | HTTP servers: what they say, and where they lead |
//! | `resume` | reading on where an origin broke off |
//! | `manifest` | what a key holds (pure) |
//! | `cache` | keeping it on disk, changed in one step |
//! | `fetch` | bringing it up to date, from the source or a peer |
//! | `decide` | ranges and conditions (pure) |
//! | `respond` | serving |
//! | `preview` | heads of objects that no node holds yet |
//! | `incoming` | what is here of objects that are still being fetched |

mod cache;
mod connector;
mod decide;
mod fetch;
mod incoming;
mod manifest;
mod preview;
mod respond;
mod resume;
mod source;
mod web;

pub(crate) use source::client;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod web_tests;

use std::{fmt, io, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use http::{Method, Request, Response, Uri, request::Parts};

use self::{
    cache::{Cache, MANIFEST},
    incoming::Incoming,
    source::Source,
};
use super::{AllowList, OriginCredentials, shelf::Shelf, there_is};
use crate::{
    key::{Key, KeyError},
    provider::{
        Body, Capacity, Description, Meanwhile, Provider, ProviderError, ServeError, UpdateContext, UpdateError,
    },
};

/// What a [`Files`] provider is set up with. Start from [`FilesConfig::new`] and change what has to differ.
#[derive(Clone)]
pub struct FilesConfig {
    /// A directory, or a URL: `file:///directory`, `https://host/path`, `s3://bucket/path`. S3 takes its credentials and
    /// endpoint from the usual `AWS_*` variables. A plain HTTP server cannot list, so a key depth needs one that speaks
    /// WebDAV. Opening a URL installs ring as the process's rustls provider if it has none.
    pub source: String,
    /// What is shown to an HTTP source whose user and password do not stand in its URL. None by default.
    pub credentials: OriginCredentials,
    /// Whether hosts that an HTTP source redirects to may be this machine or in private networks. Not by default. The
    /// source itself may be anywhere.
    pub private_origins: bool,
    /// Where copies are kept. Made if needed; one process at a time may use it. It may lie inside a source directory,
    /// and is then not part of it.
    pub data: PathBuf,
    /// Further directories that are never served, such as the node's own, in case they lie inside the source. None by
    /// default. One that does not exist is an error.
    pub except: Vec<PathBuf>,
    /// Whether files and folders of a source directory whose names begin with a dot are part of it. Not by default: among
    /// them are `.git` and `.env`. Links to them under another name are.
    pub hidden: bool,
    /// How many components of a path are the key, at least 1. `None`, the default: all.
    pub key_depth: Option<usize>,
    /// Which keys may be fetched. All by default.
    pub allow: AllowList,
}

impl FilesConfig {
    /// The defaults, for this source and data directory.
    pub fn new(source: impl Into<String>, data: impl Into<PathBuf>) -> Self {
        Self {
            source: source.into(),
            credentials: OriginCredentials::default(),
            private_origins: false,
            data: data.into(),
            except: Vec::new(),
            hidden: false,
            key_depth: None,
            allow: AllowList::everything(),
        }
    }
}

impl fmt::Debug for FilesConfig {
    /// Leaves out the source, which may carry a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilesConfig")
            .field("data", &self.data)
            .field("except", &self.except)
            .field("hidden", &self.hidden)
            .field("key_depth", &self.key_depth)
            .field("allow", &self.allow)
            .finish_non_exhaustive()
    }
}

/// Why a [`Files`] provider cannot be set up. Nothing but the data directory was touched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// The source cannot be used.
    #[error("the source {source_name} cannot be used: {reason}")]
    Source {
        /// Which one.
        source_name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The key depth is zero.
    #[error("the key depth has to be at least 1")]
    KeyDepth,
    /// The data directory cannot be used.
    #[error("the data directory {path}: {error}")]
    Data {
        /// Which one.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
}

/// A provider of files; see the module.
pub struct Files {
    source: Arc<Source>,
    key_depth: Option<usize>,
    allow: AllowList,
    cache: Arc<Cache>,
    incoming: Incoming,
}

impl Files {
    /// Checks the configuration, opens the data directory and sweeps out what a crash left in it. Blocks for as long as
    /// that takes.
    ///
    /// # Errors
    /// See [`FilesError`].
    pub fn open(config: FilesConfig) -> Result<Self, FilesError> {
        if config.key_depth == Some(0) {
            return Err(FilesError::KeyDepth);
        }
        let at = |error| FilesError::Data { path: config.data.clone(), error };
        let shelf = Shelf::open(&config.data).map_err(at)?;
        let mut except = vec![shelf.root().to_owned()];
        for path in config.except {
            except.push(path.canonicalize().map_err(|error| FilesError::Data { path, error })?);
        }
        let source = Source::open(&config.source, &config.credentials, config.private_origins, &except, config.hidden)?;
        Ok(Self {
            source: Arc::new(source),
            key_depth: config.key_depth,
            allow: config.allow,
            cache: Arc::new(Cache::new(shelf)),
            incoming: Incoming::default(),
        })
    }

    fn check(&self, key: &Key) -> Result<(), UpdateError> {
        self.allow.check(key)?;
        if self.key_depth.is_some_and(|depth| key.components().count() > depth) {
            return Err(UpdateError::Forbidden("a key has no more components than the key depth".to_owned()));
        }
        Ok(())
    }

    /// Whether `key` stands for everything below it.
    fn is_prefix(&self, key: &Key) -> bool {
        self.key_depth.is_some_and(|depth| key.components().count() >= depth)
    }
}

#[async_trait]
impl Provider for Files {
    fn key_of(&self, path: &str) -> Result<Key, KeyError> {
        let whole = Key::from_path(path)?;
        let Some(depth) = self.key_depth else { return Ok(whole) };
        Key::new(whole.components().take(depth).collect::<Vec<_>>().join("/"))
    }

    /// A web server may answer a query with something else; keys are paths, so there is no place for both answers.
    fn key_of_request(&self, uri: &Uri) -> Result<Key, KeyError> {
        if self.source.heeds_queries() && uri.query().is_some_and(|query| !query.is_empty()) {
            let reason = "objects of a web server are asked for by their paths; leave out the query, from `?` on";
            return Err(KeyError::Refused(reason.to_owned()));
        }
        self.key_of(uri.path())
    }

    /// All keys come from the one source.
    fn origin_of(&self, _key: &Key) -> String {
        String::new()
    }

    /// What a key holds follows from the key depth. The same source may have another path on each machine.
    fn kind(&self) -> Option<String> {
        Some(self.key_depth.map_or_else(|| "files".to_owned(), |depth| format!("files to depth {depth}")))
    }

    fn may_fetch(&self, key: &Key) -> Result<(), String> {
        self.check(key).map_err(|error| error.to_string())
    }

    fn may_fetch_some(&self, pattern: &Key) -> Result<(), String> {
        self.allow.check_pattern(pattern)
    }

    fn refuse(&self, _key: &Key, request: &http::request::Parts) -> Option<Response<Body>> {
        self.refusal(request)
    }

    async fn has(&self, key: &Key) -> Result<bool, ProviderError> {
        Ok(self.cache.shelf.holds(key, MANIFEST).await?)
    }

    fn keys(&self) -> BoxStream<'_, Result<Key, ProviderError>> {
        self.cache.shelf.keys(MANIFEST)
    }

    async fn update(&self, key: &Key, context: UpdateContext) -> Result<(), UpdateError> {
        self.check(key)?;
        if context.peers().is_empty() {
            self.fetch_from_source(key, &context).await?;
        } else {
            self.copy_from_peers(key, &context).await?;
        }
        self.cache.shelf.touch(key).await;
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<(), ProviderError> {
        Ok(self.cache.remove(key).await?)
    }

    async fn serve(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        self.respond(key, &request.into_parts().0).await
    }

    async fn preview(&self, key: &Key, request: &Parts) -> Result<Option<Response<Body>>, UpdateError> {
        self.preview_object(key, request).await
    }

    /// What is asked for of an object may be here long before the rest, and so may the beginning of all of it; but not of what
    /// is copied from a directory.
    fn meanwhile(&self, _key: &Key, request: &Parts, _body: &[u8]) -> Meanwhile {
        let comes_in_parts = request.method == Method::GET && !matches!(*self.source, Source::Directory { .. });
        if comes_in_parts { Meanwhile::Part { on: false } } else { Meanwhile::Wait }
    }

    async fn serve_part(&self, _key: &Key, request: Request<Bytes>) -> Result<Option<Response<Body>>, ServeError> {
        Ok(self.incoming.answer(&request.into_parts().0).await?)
    }

    async fn is_at_origin(&self, key: &Key) -> Result<Option<bool>, UpdateError> {
        self.check(key)?;
        if self.is_prefix(key) {
            let listed = self.source.list(key).await;
            return there_is(
                listed.and_then(|found| if found.is_empty() { Err(UpdateError::NotFound) } else { Ok(()) }),
            );
        }
        there_is(self.source.head(key).await)
    }

    async fn describe(&self, key: &Key) -> Result<Description, ProviderError> {
        let manifest = self.cache.manifest(key).await?.ok_or_else(|| ProviderError::new("the key is not held here"))?;
        Ok(Description {
            version: Some(manifest.version()),
            bytes: Some(manifest.objects.values().map(|object| object.size).sum()),
            updated_ms: self.cache.shelf.touched_ms(key).await,
        })
    }

    async fn capacity(&self) -> Result<Option<Capacity>, ProviderError> {
        Ok(Some(self.cache.shelf.capacity().await?))
    }

    async fn export(&self, key: &Key, request: Request<Body>) -> Result<Response<Body>, ServeError> {
        if request.method() != Method::GET {
            return self.respond(key, &request.into_parts().0).await;
        }
        self.export_to_peer(key, request.uri().path()).await
    }
}

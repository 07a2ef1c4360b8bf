//! Where objects come from: a directory, or any store that `object_store` speaks to.
//!
//! A directory is read by code of its own, because `object_store` follows symbolic links wherever they lead. Here a
//! link counts only if it stays inside the directory, and what this provider itself keeps is never part of a source.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use futures::{
    FutureExt, StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use http::header;
use object_store::{
    Attribute, ClientConfigKey, ClientOptions, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore,
    ObjectStoreExt, RetryConfig, aws::AmazonS3Builder, client::HttpConnector, http::HttpBuilder,
    path::Path as StorePath,
};
use tokio_util::io::ReaderStream;
use url::Url;

use super::{
    config::FilesError,
    connector::{Connector, refusal_in},
    content::{Content, Representation, Upstream},
    resume::resumable,
    web::Web,
};
use crate::{
    key::Key,
    provider::UpdateError,
    providers::{
        OriginCredentials,
        client::{CONNECT_TIMEOUT, READ_TIMEOUT, choose_crypto},
        credentials::{Secret, scrub, take_user},
        key_store::blocking,
    },
};

/// Most objects that one key may hold.
pub(crate) const OBJECTS_MAX: usize = 1_000_000;
const CHUNK_BYTES: usize = 256 << 10;
/// The node retries with a back-off of its own, so the store gives up soon.
const RETRIES: usize = 2;
const RETRY_TIMEOUT: Duration = Duration::from_secs(15);

/// A source of objects.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Directory {
        root: PathBuf,
        except: Arc<[PathBuf]>,
        hidden: bool,
    },
    /// With `web`, objects are read through that, and `store` is for lists.
    Store {
        store: Arc<dyn ObjectStore>,
        prefix: StorePath,
        web: Option<Web>,
    },
}

impl Source {
    /// Opens `text`, a directory or a URL. What lies below one of `except`, absolute paths without links, is not part of it,
    /// and of a directory nothing that is hidden, unless `hidden` says so.
    ///
    /// # Errors
    /// [`FilesError::Source`].
    pub(crate) fn open(
        text: &str,
        credentials: &OriginCredentials,
        private_origins: bool,
        except: &[PathBuf],
        hidden: bool,
    ) -> Result<Self, FilesError> {
        let wrong = |reason: String| FilesError::Source { source_name: scrub(text), reason: scrub(&reason) };
        let url = match Url::parse(text) {
            Ok(url) if text.contains("://") => url,
            _ => return Self::directory(Path::new(text), except, hidden).map_err(wrong),
        };
        match url.scheme() {
            "file" => {
                let path = url.to_file_path().map_err(|()| wrong("it is no path".to_owned()))?;
                Self::directory(&path, except, hidden).map_err(wrong)
            }
            _ => Self::store(url, credentials, private_origins).map_err(|error| wrong(error.to_string())),
        }
    }

    fn directory(path: &Path, except: &[PathBuf], hidden: bool) -> Result<Self, String> {
        let root = path.canonicalize().map_err(|error| error.to_string())?;
        if !root.is_dir() {
            return Err("it is no directory".to_owned());
        }
        if is_below(&root, except) {
            return Err("it lies inside a directory that is not to be served".to_owned());
        }
        Ok(Self::Directory { root, except: except.into(), hidden })
    }

    fn store(mut url: Url, credentials: &OriginCredentials, private_origins: bool) -> object_store::Result<Self> {
        let generic = |reason: &'static str| object_store::Error::Generic { store: "HTTP", source: reason.into() };
        let said = take_user(&mut url).map_err(generic)?;
        let authorization = match (said, credentials.of(&url)) {
            (None, Some(Secret::Header(header))) => Some(header.clone()),
            (None, Some(Secret::Helper(_))) => return Err(generic("credential helpers are for git only")),
            (said, _) => said,
        };
        choose_crypto();
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() };
        let (scheme, prefix) = object_store::ObjectStoreScheme::parse(&url)?;
        let mut web = None;
        let store: Arc<dyn ObjectStore> = match scheme {
            object_store::ObjectStoreScheme::Http => {
                let options = timeouts().with_allow_http(url.scheme() == "http");
                let connector = Connector { origin: url.clone(), authorization, private_origins };
                web = Some(Web::new(connector.connect(&options)?, url.clone()));
                let builder = HttpBuilder::new().with_url(&url[..url::Position::BeforePath]).with_retry(retry);
                Arc::new(builder.with_client_options(options).with_http_connector(connector).build()?)
            }
            object_store::ObjectStoreScheme::AmazonS3 => {
                let builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry);
                let builder = builder.with_client_options(s3_options());
                Arc::new(builder.build()?)
            }
            _ => Arc::from(object_store::parse_url(&url)?.0),
        };
        Ok(Self::Store { store, prefix, web })
    }

    /// Whether two requests that differ in their query alone may differ in their answers.
    pub(crate) fn heeds_queries(&self) -> bool {
        matches!(self, Self::Store { web: Some(_), .. })
    }

    /// Whether `path` has a component that is hidden here.
    pub(crate) fn hides(&self, path: &str) -> bool {
        matches!(self, Self::Directory { hidden: false, .. }) && path.split('/').any(is_hidden)
    }

    /// What the source says of the object `path`.
    ///
    /// # Errors
    /// [`UpdateError::NotFound`] if there is none, which includes directories.
    pub(crate) async fn head(&self, path: &Key) -> Result<Upstream, UpdateError> {
        match self {
            Self::Directory { .. } => self.file(path).await.map(|(_, upstream)| upstream),
            Self::Store { web: Some(web), .. } => web.head(path).await,
            Self::Store { store, .. } => {
                store.head(&self.location(path)?).await.map(|meta| upstream_of(&meta)).map_err(failure)
            }
        }
    }

    /// What the source says of the object `path`, and of how it is represented.
    ///
    /// # Errors
    /// As [`Source::head`].
    pub(crate) async fn describe(&self, path: &Key) -> Result<(Upstream, Representation), UpdateError> {
        match self {
            Self::Directory { .. } => Ok((self.head(path).await?, Representation::default())),
            Self::Store { web: Some(web), .. } => web.describe(path).await,
            Self::Store { store, .. } => {
                let asked = store.get_opts(&self.location(path)?, GetOptions::new().with_head(true)).await;
                asked.map(|got| (upstream_of(&got.meta), representation_of(&got))).map_err(failure)
            }
        }
    }

    /// The content of the object `path`.
    ///
    /// # Errors
    /// As [`Source::head`].
    pub(crate) async fn read(&self, path: &Key) -> Result<Content, UpdateError> {
        match self {
            Self::Directory { .. } => {
                let (file, upstream) = self.file(path).await?;
                let file = tokio::fs::File::open(file).await.map_err(io_failure)?;
                let bytes = ReaderStream::with_capacity(file, CHUNK_BYTES).map_err(io_failure).boxed();
                Ok(Content { upstream, representation: Representation::default(), bytes })
            }
            Self::Store { web: Some(web), .. } => Ok(self.resumed(path, web.read(path).await?)),
            Self::Store { store, .. } => {
                let got = store.get(&self.location(path)?).await.map_err(failure)?;
                Ok(self.resumed(path, content_of(got)))
            }
        }
    }

    /// `content` of `path`, which is read on if it breaks off.
    fn resumed(&self, path: &Key, content: Content) -> Content {
        let (source, path, name) = (self.clone(), path.clone(), path.to_string());
        let rest = move |at, tag: String| {
            let (source, path) = (source.clone(), path.clone());
            async move { source.read_from(&path, at, &tag).await }.boxed()
        };
        resumable(name, content, rest)
    }

    /// What is left of the object `path` from `at` on, if it still is the one with this tag.
    ///
    /// # Errors
    /// As [`Source::head`], and if it is another one.
    pub(crate) async fn read_from(&self, path: &Key, at: u64, tag: &str) -> Result<Content, UpdateError> {
        match self {
            Self::Directory { .. } => Err(UpdateError::NotFound),
            Self::Store { web: Some(web), .. } => web.read_from(path, at, tag).await,
            Self::Store { store, .. } => {
                let rest = GetOptions::new().with_range(Some(GetRange::Offset(at))).with_if_match(Some(tag));
                store.get_opts(&self.location(path)?, rest).await.map(content_of).map_err(failure)
            }
        }
    }

    /// All objects below `prefix`, by their path below it.
    ///
    /// # Errors
    /// The source cannot list, or there are more than [`OBJECTS_MAX`].
    pub(crate) async fn list(&self, prefix: &Key) -> Result<BTreeMap<String, Upstream>, UpdateError> {
        let found: BoxStream<'_, Result<(String, Upstream), UpdateError>> = match self {
            Self::Directory { .. } if self.hides(prefix.as_str()) => return Err(UpdateError::NotFound),
            Self::Directory { root, except, hidden } => {
                let (root, except, hidden) = (root.clone(), Arc::clone(except), *hidden);
                let below = root.join(prefix.as_str());
                let found = blocking(move || walk(&root, &except, &below, hidden)).await.map_err(io_failure)?;
                stream::iter(found.into_iter().map(Ok)).boxed()
            }
            Self::Store { store, .. } => {
                let at = self.location(prefix)?;
                let start = at.as_ref().len() + 1;
                let listed = store.list(Some(&at)).map_err(failure);
                let named = listed.map_ok(move |meta| {
                    (meta.location.as_ref().get(start..).unwrap_or_default().to_owned(), upstream_of(&meta))
                });
                named.boxed()
            }
        };
        let mut found = found;
        let mut objects = BTreeMap::new();
        while let Some((path, upstream)) = found.try_next().await? {
            // Only what a request can name is worth keeping.
            if Key::new(format!("{prefix}/{path}")).is_ok() {
                objects.insert(path, upstream);
            }
            if objects.len() > OBJECTS_MAX {
                return Err(UpdateError::Failed(format!("{prefix} has more than {OBJECTS_MAX} objects")));
            }
        }
        Ok(objects)
    }

    /// The file behind `path` in a directory: a regular one, inside the directory, outside of what is excepted.
    async fn file(&self, path: &Key) -> Result<(PathBuf, Upstream), UpdateError> {
        let Self::Directory { root, except, .. } = self else { unreachable!("only asked of directories") };
        if self.hides(path.as_str()) {
            return Err(UpdateError::NotFound);
        }
        let (root, except, wanted) = (root.clone(), Arc::clone(except), root.join(path.as_str()));
        blocking(move || regular(&root, &except, &wanted)).await.map_err(io_failure)
    }

    fn location(&self, path: &Key) -> Result<StorePath, UpdateError> {
        let Self::Store { prefix, .. } = self else { unreachable!("only asked of stores") };
        let text = if prefix.is_root() { path.as_str().to_owned() } else { format!("{prefix}/{path}") };
        StorePath::parse(text).map_err(|_| UpdateError::NotFound)
    }
}

/// What limits a fetch is that it stands still, not how long it takes.
pub(super) fn timeouts() -> ClientOptions {
    ClientOptions::new().with_timeout_disabled().with_connect_timeout(CONNECT_TIMEOUT).with_read_timeout(READ_TIMEOUT)
}

/// Options of the `AWS_*` variables for connections, such as `AWS_ALLOW_HTTP`, which would be lost otherwise.
pub(super) fn s3_options() -> ClientOptions {
    let mut options = timeouts();
    for (name, value) in std::env::vars() {
        let key = name.strip_prefix("AWS_").and_then(|name| name.to_ascii_lowercase().parse::<ClientConfigKey>().ok());
        if let Some(key) = key.filter(|_| !value.is_empty()) {
            options = options.with_config(key, value);
        }
    }
    options
}

fn upstream_of(meta: &ObjectMeta) -> Upstream {
    let modified = u64::try_from(meta.last_modified.timestamp()).unwrap_or(0);
    // A store that tells neither tag nor date leaves nothing to compare.
    let validator = match &meta.e_tag {
        Some(tag) => tag.clone(),
        None if modified > 0 => meta.last_modified.to_rfc3339(),
        None => String::new(),
    };
    Upstream { size: Some(meta.size), modified, validator }
}

fn content_of(got: GetResult) -> Content {
    let representation = representation_of(&got);
    Content { upstream: upstream_of(&got.meta), representation, bytes: got.into_stream().map_err(failure).boxed() }
}

fn representation_of(got: &GetResult) -> Representation {
    let said = |attribute| got.attributes.get(&attribute).map(|value| value.as_ref().to_owned());
    let fields = [
        (header::CONTENT_ENCODING, Attribute::ContentEncoding),
        (header::CONTENT_LANGUAGE, Attribute::ContentLanguage),
        (header::CONTENT_DISPOSITION, Attribute::ContentDisposition),
        (header::CACHE_CONTROL, Attribute::CacheControl),
    ];
    let fields =
        fields.into_iter().filter_map(|(name, attribute)| Some((name.as_str().to_owned(), said(attribute)?))).collect();
    Representation { content_type: said(Attribute::ContentType), is_exact: false, fields }
}

fn failure(error: object_store::Error) -> UpdateError {
    use object_store::Error as E;
    if let Some(refusal) = refusal_in(&error) {
        return refusal;
    }
    match error {
        E::NotFound { .. } | E::InvalidPath { .. } => UpdateError::NotFound,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            UpdateError::Forbidden(format!("the origin refuses it: {}", scrub(&error.to_string())))
        }
        E::NotSupported { .. } | E::NotImplemented { .. } => UpdateError::Failed(scrub(&error.to_string())),
        _ => UpdateError::Unavailable(scrub(&error.to_string())),
    }
}

fn io_failure(error: io::Error) -> UpdateError {
    use io::ErrorKind as K;
    match error.kind() {
        K::NotFound | K::NotADirectory | K::InvalidFilename | K::IsADirectory => UpdateError::NotFound,
        _ => UpdateError::Failed(error.to_string()),
    }
}

fn is_below(path: &Path, directories: &[PathBuf]) -> bool {
    directories.iter().any(|directory| path.starts_with(directory))
}

fn regular(root: &Path, except: &[PathBuf], wanted: &Path) -> io::Result<(PathBuf, Upstream)> {
    let path = wanted.canonicalize()?;
    let meta = fs::metadata(&path)?;
    if !path.starts_with(root) || is_below(&path, except) || !meta.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let since = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    let upstream = Upstream {
        size: Some(meta.len()),
        modified: since.as_secs(),
        validator: format!("{}-{}", since.as_nanos(), meta.len()),
    };
    Ok((path, upstream))
}

fn is_hidden(name: &str) -> bool {
    name.starts_with('.')
}

fn walk(root: &Path, except: &[PathBuf], below: &Path, hidden: bool) -> io::Result<Vec<(String, Upstream)>> {
    // A key may lead through a link out of the directory.
    let start = below.canonicalize()?;
    if !start.starts_with(root) {
        return Err(io::ErrorKind::NotFound.into());
    }
    let (mut found, mut open) = (Vec::new(), vec![(start, String::new())]);
    while let Some((dir, name)) = open.pop() {
        if is_below(&dir, except) {
            continue;
        }
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let Ok(file_name) = entry.file_name().into_string() else {
                tracing::warn!(path = %entry.path().display(), "passed over: its name is not UTF-8");
                continue;
            };
            if !hidden && is_hidden(&file_name) {
                continue;
            }
            let path = if name.is_empty() { file_name } else { format!("{name}/{file_name}") };
            if entry.file_type()?.is_dir() {
                open.push((entry.path(), path));
            } else if let Ok((_, upstream)) = regular(root, except, &entry.path()) {
                found.push((path, upstream));
            }
            if found.len() > OBJECTS_MAX {
                return Err(io::Error::other(format!("more than {OBJECTS_MAX} objects")));
            }
        }
    }
    Ok(found)
}

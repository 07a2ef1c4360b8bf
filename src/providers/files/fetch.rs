//! Bringing a key up to date, from its source or from another node.
//!
//! Both end in a commit of the cache, so whatever goes wrong before leaves what was held.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::{Request, StatusCode};
use http_body_util::BodyExt;

use super::{
    cache::Draft,
    content::{Content, Representation, Upstream},
    manifest::{Manifest, Object},
    setup::Files,
    source::Source,
};
use crate::{
    key::{Key, NodeName},
    provider::{Body, UpdateContext, UpdateError, empty},
};

/// Objects of one key that are read at a time.
const READS_AT_ONCE: usize = 8;
/// Longest manifest that is taken from a peer: a million objects of ordinary names.
const MANIFEST_BYTES_MAX: usize = 512 << 20;

/// What is held already.
#[derive(Default)]
struct Held {
    manifest: Option<Arc<Manifest>>,
    contents: BTreeSet<String>,
}

impl Held {
    /// The object at `path`, if it is whole on disk.
    fn object(&self, path: &str) -> Option<&Object> {
        let object = self.manifest.as_ref()?.objects.get(path)?;
        self.contents.contains(&object.sha256).then_some(object)
    }

    /// Whether everything is held just as in `objects`.
    fn is(&self, objects: &BTreeMap<String, Object>) -> bool {
        self.manifest.as_ref().is_some_and(|held| held.objects == *objects)
            && objects.values().all(|object| self.contents.contains(&object.sha256))
    }
}

impl Object {
    /// Whether the source still says of this object what it said when it was read.
    fn is_current(&self, upstream: &Upstream) -> bool {
        !upstream.validator.is_empty()
            && upstream.size.is_none_or(|size| size == self.size)
            && (self.modified, &self.validator) == (upstream.modified, &upstream.validator)
    }
}

impl Files {
    async fn held(&self, key: &Key) -> Result<Held, UpdateError> {
        self.cache.forget(key);
        match self.cache.manifest(key).await? {
            Some(manifest) => {
                Ok(Held { contents: self.cache.contents(key, &manifest).await?, manifest: Some(manifest) })
            }
            None => Ok(Held::default()),
        }
    }

    /// Fetches `key` from the source.
    pub(super) async fn fetch_from_source(&self, key: &Key, context: &UpdateContext) -> Result<(), UpdateError> {
        let held = self.held(key).await?;
        let survey = self.survey(key, &held).await?;
        let draft = self.cache.draft(context)?;
        let read = stream::iter(survey).map(|(path, upstream)| self.object(key, path, upstream, &held, &draft));
        let objects: BTreeMap<String, Object> = read.buffer_unordered(READS_AT_ONCE).try_collect().await?;
        self.settle(key, &held, draft, objects, context).await
    }

    /// Which objects the key has now. What is not known before reading is `None`.
    async fn survey(&self, key: &Key, held: &Held) -> Result<Vec<(String, Option<Upstream>)>, UpdateError> {
        if self.is_prefix(key) {
            let found = match self.source.list(key).await {
                Err(UpdateError::NotFound) => BTreeMap::new(),
                found => found?,
            };
            if !found.is_empty() {
                return Ok(found.into_iter().map(|(path, upstream)| (path, Some(upstream))).collect());
            }
        }
        // Reading tells the same as asking first, unless there is something held to compare with.
        let upstream = match held.object("") {
            Some(_) => Some(self.source.head(key).await?),
            None => None,
        };
        Ok(vec![(String::new(), upstream)])
    }

    async fn object(
        &self,
        key: &Key,
        path: String,
        upstream: Option<Upstream>,
        held: &Held,
        draft: &Draft,
    ) -> Result<(String, Object), UpdateError> {
        if let (Some(object), Some(upstream)) = (held.object(&path), &upstream)
            && object.is_current(upstream)
        {
            return Ok((path, object.clone()));
        }
        let name = full_name(key, &path)?;
        let Content { upstream, representation, bytes } = self.source.read(&name).await?;
        let content_type = content_type(&name, &representation);
        let fields = representation.fields;
        let Upstream { size, modified, validator } = upstream.clone();
        // The hash only counts where there is no tag of the source.
        let (sha256, announced) = ("0".repeat(64), size.unwrap_or(0));
        let mut object = Object { size: announced, sha256, modified, content_type, validator, fields };
        let incoming = size.and_then(|_| self.incoming.begin(&name, &object));
        let written = draft.write(bytes, size, None, incoming.as_ref()).await?;
        if let Some(incoming) = incoming {
            incoming.end(written.size);
        }
        if matches!(*self.source, Source::Directory { .. }) && self.source.head(&name).await? != upstream {
            return Err(UpdateError::Unavailable(format!("{name} changed while it was read")));
        }
        (object.sha256, object.size) = (written.sha256, written.size);
        Ok((path, object))
    }

    /// Commits, unless nothing changed.
    async fn settle(
        &self,
        key: &Key,
        held: &Held,
        draft: Draft,
        objects: BTreeMap<String, Object>,
        context: &UpdateContext,
    ) -> Result<(), UpdateError> {
        if held.is(&objects) {
            context.report_changed(false);
            tracing::debug!(%key, "nothing changed");
            return Ok(());
        }
        self.cache.commit(key, draft, Manifest::new(key.clone(), objects)).await?;
        context.report_changed(true);
        Ok(())
    }

    /// Copies `key` from the first peer that has it whole. What one peer gave is not asked of the next.
    pub(super) async fn copy_from_peers(&self, key: &Key, context: &UpdateContext) -> Result<(), UpdateError> {
        let held = self.held(key).await?;
        let draft = self.cache.draft(context)?;
        let mut reasons = Vec::new();
        for peer in context.peers() {
            match gather(key, peer, context, &held, &draft).await {
                Ok(manifest) => return self.settle(key, &held, draft, manifest.objects, context).await,
                // The disk is at fault, not the peer.
                Err(error @ (UpdateError::NoRoom(_) | UpdateError::Failed(_))) => return Err(error),
                Err(error) => reasons.push(format!("{peer}: {error}")),
            }
        }
        Err(UpdateError::Unavailable(format!("no peer could be copied from: {}", reasons.join("; "))))
    }
}

async fn gather(
    key: &Key,
    peer: &NodeName,
    context: &UpdateContext,
    held: &Held,
    draft: &Draft,
) -> Result<Manifest, UpdateError> {
    let mut body = ask(key, peer, context, "/manifest").await?;
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        bytes.extend_from_slice(&frame.map_err(broken)?.into_data().unwrap_or_default());
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err(UpdateError::Unavailable("the manifest is too long".to_owned()));
        }
    }
    let manifest = Manifest::parse(&bytes, key).map_err(UpdateError::Unavailable)?;
    let wanted: BTreeMap<&str, u64> = manifest.objects.values().map(|o| (o.sha256.as_str(), o.size)).collect();
    let missing = wanted.into_iter().filter(|(sha256, _)| !held.contents.contains(*sha256) && !draft.has(sha256));
    for (sha256, size) in missing.collect::<Vec<_>>() {
        let body = ask(key, peer, context, &format!("/contents/{sha256}")).await?;
        let bytes = http_body_util::BodyDataStream::new(body).map_err(broken).map_ok(Bytes::from);
        draft.write(bytes, Some(size), Some(sha256), None).await?;
    }
    Ok(manifest)
}

async fn ask(key: &Key, peer: &NodeName, context: &UpdateContext, path: &str) -> Result<Body, UpdateError> {
    let request = Request::builder().uri(path).body(empty()).expect("these paths are valid");
    let response = context.fetch(peer, key, request).await.map_err(broken)?;
    if response.status() != StatusCode::OK {
        return Err(UpdateError::Unavailable(format!("{path} was answered {}", response.status())));
    }
    Ok(response.into_body())
}

fn broken(error: impl std::fmt::Display) -> UpdateError {
    UpdateError::Unavailable(error.to_string())
}

/// The name of an object in the source.
fn full_name(key: &Key, path: &str) -> Result<Key, UpdateError> {
    if path.is_empty() {
        return Ok(key.clone());
    }
    Key::new(format!("{key}/{path}")).map_err(|_| UpdateError::NotFound)
}

/// What the source says, unless it says nothing in particular; then what the name says.
pub(super) fn content_type(name: &Key, said: &Representation) -> String {
    let vague = |text: &&String| !said.is_exact && text.ends_with("/octet-stream");
    let valid = |text: &&String| http::HeaderValue::from_str(text).is_ok();
    match said.content_type.as_ref().filter(valid).filter(|text| !vague(text)) {
        Some(text) => text.clone(),
        None => mime_guess::from_path(name.as_str()).first_or_octet_stream().essence_str().to_owned(),
    }
}

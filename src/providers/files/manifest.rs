//! What a key holds: the list of its objects, as it lies on disk and as peers copy it. Pure.
//!
//! Contents are named by their SHA-256, so equal contents are kept once, a copy can be verified,
//! and every replica gives the same strong `ETag`: the origin's, or one made of the hash where it
//! has no strong one.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use headers::ETag;
use serde::{Deserialize, Serialize};

use super::decide::Validators;
use crate::{key::Key, providers::version_of};

/// The version of the format that is written; others are not read, and the key is fetched anew.
const FORMAT: u32 = 1;
/// Longest path of an object below its key, in bytes.
const PATH_BYTES_MAX: usize = 4096;

/// The fields that an object may have: what they say is of a representation, and not of a connection.
const FIELDS: [&str; 4] = ["cache-control", "content-disposition", "content-encoding", "content-language"];

/// All objects of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    key: Key,
    /// By path below the key; the empty path is the key itself.
    pub(crate) objects: BTreeMap<String, Object>,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Object {
    /// In bytes.
    pub(crate) size: u64,
    /// Of the content, in lower-case hexadecimal; also the name of the file it is in.
    pub(crate) sha256: String,
    /// Seconds since the Unix epoch; 0 if the origin does not say.
    pub(crate) modified: u64,
    pub(crate) content_type: String,
    /// The origin's tag, which changes with the content; empty if it gives none.
    pub(crate) validator: String,
    /// Further fields of HTTP that are served as the origin gave them, by their names in lower
    /// case.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) fields: BTreeMap<String, String>,
}

impl Manifest {
    pub(crate) fn new(key: Key, objects: BTreeMap<String, Object>) -> Self {
        Self { format: FORMAT, key, objects }
    }

    /// Reads a manifest of `key` that came from a disk or a peer.
    ///
    /// # Errors
    /// It is not one.
    pub(crate) fn parse(bytes: &[u8], key: &Key) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| format!("the manifest: {error}"))?;
        if manifest.format != FORMAT || manifest.key != *key {
            return Err("the manifest is of another format or key".to_owned());
        }
        match manifest.objects.iter().find(|(path, object)| path.len() > PATH_BYTES_MAX || !object.is_sound()) {
            Some((path, _)) => Err(format!("the manifest has an unsound object {path:?}")),
            None => Ok(manifest),
        }
    }

    /// A short name of the contents, whatever else is said of them.
    pub(crate) fn version(&self) -> String {
        let contents: Vec<_> = self.objects.iter().map(|(path, object)| (path, &object.sha256)).collect();
        version_of(&serde_json::to_vec(&contents).expect("strings"))
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a manifest is made of strings and numbers")
    }
}

impl Object {
    fn is_sound(&self) -> bool {
        let is_field = |(name, value): (&String, &String)| {
            FIELDS.contains(&name.as_str()) && http::HeaderValue::from_str(value).is_ok()
        };
        let is_type = http::HeaderValue::from_str(&self.content_type).is_ok();
        is_sha256(&self.sha256) && is_type && self.fields.iter().all(is_field)
    }

    pub(crate) fn validators(&self) -> Validators {
        // A weak tag does not say which bytes: a client could not go on with another replica where one broke off.
        let theirs = Some(&self.validator).filter(|tag| tag.starts_with('"')).and_then(|tag| tag.parse::<ETag>().ok());
        let ours = || format!("\"{}\"", &self.sha256[..32]).parse().expect("hexadecimal digits in quotes are a tag");
        let etag = theirs.unwrap_or_else(ours);
        // Far beyond year 9999 is as good as any nonsense.
        let seconds = Some(self.modified.min(253_402_300_799)).filter(|seconds| *seconds > 0);
        let modified = seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        Validators { size: self.size, etag, modified }
    }
}

/// Whether `text` can be the name of a content.
pub(crate) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::testing::key;

    fn manifest(sha256: &str) -> Manifest {
        let (content_type, validator) = ("text/plain".to_owned(), "v".to_owned());
        let object = Object {
            size: 1,
            sha256: sha256.to_owned(),
            modified: 2,
            content_type,
            validator,
            fields: BTreeMap::new(),
        };
        Manifest::new(key("a"), [("b/c".to_owned(), object)].into())
    }

    #[test]
    fn a_manifest_survives_the_way_through_a_file() {
        let written = manifest(&"0a".repeat(32));
        assert_eq!(Manifest::parse(&written.to_bytes(), &key("a")), Ok(written));
    }

    #[test]
    fn what_is_not_a_manifest_of_this_key_is_refused() {
        let good = manifest(&"0a".repeat(32));
        assert!(Manifest::parse(&good.to_bytes(), &key("b")).is_err());
        assert!(Manifest::parse(b"{", &key("a")).is_err());
        for bad in ["", "../../etc/passwd", &"0A".repeat(32), &"\u{fc}".repeat(32)] {
            assert!(Manifest::parse(&manifest(bad).to_bytes(), &key("a")).is_err(), "{bad}");
        }
    }
}

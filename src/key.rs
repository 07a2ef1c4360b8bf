//! Keys and node names: the two identifiers that cross every boundary of the system, so both are checked once, where
//! they enter, and are plain data ever after.
//!
//! A [`Key`] is the unit of storage and placement. It may come from an unauthenticated HTTP path
//! and end up in a file name, a URL or the arguments of a program. So this module refuses
//! everything that could change its meaning on that way: traversal, empty components, control
//! characters, backslashes, a leading dash, `::`. Providers may narrow this further (git allows
//! only a small alphabet) but never have to widen it.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use arcstr::ArcStr;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Longest key, in bytes of UTF-8. Long enough for any repository path, short enough that a million keys fit in memory
/// and that one gossip or feed frame holds thousands.
pub const KEY_BYTES_MAX: usize = 512;

/// Longest node name, in bytes: it has to fit in one DNS label of a certificate.
pub const NODE_NAME_BYTES_MAX: usize = 63;

/// The unit of storage and placement: `/`-separated UTF-8 of 1 to [`KEY_BYTES_MAX`] bytes. Cheap to clone, and one
/// pointer wide: registries hold millions.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(ArcStr);

/// Why a string is not a key. Retrying does not help; nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The path names nothing.
    #[error("the key is empty")]
    Empty,
    /// Longer than [`KEY_BYTES_MAX`].
    #[error("the key has {bytes} bytes, more than {KEY_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Two slashes in a row, or one at either end.
    #[error("the key has an empty component (a doubled, leading or trailing slash)")]
    EmptyComponent,
    /// A component `.` or `..`.
    #[error("the key has a `.` or `..` component")]
    DotComponent,
    /// A control character, a backslash, or invalid UTF-8 after percent-decoding.
    #[error("the key has a character that is not allowed: {0}")]
    Character(&'static str),
    /// A component that starts with `-`, which a program could take for an option.
    #[error("a component of the key starts with `-`")]
    LeadingDash,
    /// Contains `::`, which names a transport helper in git.
    #[error("the key contains `::`")]
    DoubleColon,
    /// The provider does not accept this key.
    #[error("the key is not served here: {0}")]
    Refused(String),
}

impl Key {
    /// Checks `text` and makes a key of it.
    ///
    /// # Errors
    /// The first rule that `text` breaks.
    pub fn new(text: impl AsRef<str>) -> Result<Self, KeyError> {
        let text = text.as_ref();
        check(text)?;
        Ok(Self(text.into()))
    }

    /// The key that a request path names when every path is a key of its own: strips the leading
    /// slash, decodes percent escapes once, and checks the result. An escape that survives decoding
    /// (`%252e`) is refused, so that no later component can decode it a second time into something
    /// else.
    ///
    /// # Errors
    /// As [`Key::new`], and [`KeyError::Character`] for escapes that are not UTF-8.
    pub fn from_path(path: &str) -> Result<Self, KeyError> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let decoded = percent_decode_str(path).decode_utf8().map_err(|_| KeyError::Character("invalid UTF-8"))?;
        let looks_escaped = |rest: &[u8]| rest.len() >= 2 && rest[..2].iter().all(u8::is_ascii_hexdigit);
        if decoded.bytes().enumerate().any(|(at, b)| b == b'%' && looks_escaped(&decoded.as_bytes()[at + 1..])) {
            return Err(KeyError::Character("a percent escape inside a percent escape"));
        }
        Self::new(&decoded)
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components between the slashes; there is at least one and none is empty.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

fn check(text: &str) -> Result<(), KeyError> {
    if text.is_empty() {
        return Err(KeyError::Empty);
    }
    if text.len() > KEY_BYTES_MAX {
        return Err(KeyError::TooLong { bytes: text.len() });
    }
    if text.contains('\\') {
        return Err(KeyError::Character("backslash"));
    }
    if text.chars().any(char::is_control) {
        return Err(KeyError::Character("control character"));
    }
    if text.contains("::") {
        return Err(KeyError::DoubleColon);
    }
    for component in text.split('/') {
        match component {
            "" => return Err(KeyError::EmptyComponent),
            "." | ".." => return Err(KeyError::DotComponent),
            _ if component.starts_with('-') => return Err(KeyError::LeadingDash),
            _ => {}
        }
    }
    Ok(())
}

/// The name of a node: lower-case letters, digits, `-`, `.` and `_`, starting and ending with a letter or digit, at
/// most [`NODE_NAME_BYTES_MAX`] bytes. It is the DNS name in the node's certificate. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Arc<str>);

/// Why a string is not a node name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a node name: use 1 to {NODE_NAME_BYTES_MAX} lower-case letters, digits, `-`, `_` or `.`, \
     starting and ending with a letter or digit"
)]
pub struct NodeNameError(pub String);

impl NodeName {
    /// Checks `text` and makes a node name of it.
    ///
    /// # Errors
    /// `text` breaks the rule above; the error repeats the text and the rule.
    pub fn new(text: impl AsRef<str>) -> Result<Self, NodeNameError> {
        let text = text.as_ref();
        let letter_or_digit = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let inner = |b: &u8| letter_or_digit(b) || matches!(b, b'-' | b'_' | b'.');
        let bytes = text.as_bytes();
        let valid = (1..=NODE_NAME_BYTES_MAX).contains(&bytes.len())
            && bytes.iter().all(inner)
            && bytes.first().is_some_and(letter_or_digit)
            && bytes.last().is_some_and(letter_or_digit)
            && !text.contains("..");
        if valid { Ok(Self(text.into())) } else { Err(NodeNameError(text.chars().take(80).collect())) }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What both identifiers share: they read, print and convert like the text they are.
macro_rules! text_identifier {
    ($type:ty, $error:ty) => {
        impl FromStr for $type {
            type Err = $error;
            fn from_str(text: &str) -> Result<Self, $error> {
                Self::new(text)
            }
        }
        impl TryFrom<String> for $type {
            type Error = $error;
            fn try_from(text: String) -> Result<Self, $error> {
                Self::new(text)
            }
        }
        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.as_str().to_owned()
            }
        }
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("text")
                    }
                    // Checked where it arrives, without a copy in between.
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        <$type>::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "`{}`", self.0)
            }
        }
    };
}

text_identifier!(Key, KeyError);
text_identifier!(NodeName, NodeNameError);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ordinary_repository_paths_are_keys() {
        for text in ["a", "github.com/org/repo", "a/b/c.txt", "with space/ünïcode", "a%zz", "x:1/y"] {
            assert_eq!(Key::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn every_way_out_of_the_store_is_refused() {
        let long = "x".repeat(KEY_BYTES_MAX + 1);
        let cases = [
            ("", KeyError::Empty),
            ("..", KeyError::DotComponent),
            ("a/../b", KeyError::DotComponent),
            ("a/./b", KeyError::DotComponent),
            ("/a", KeyError::EmptyComponent),
            ("a//b", KeyError::EmptyComponent),
            ("a/", KeyError::EmptyComponent),
            ("a\\b", KeyError::Character("backslash")),
            ("a\0b", KeyError::Character("control character")),
            ("-upload-pack=x", KeyError::LeadingDash),
            ("a/-b", KeyError::LeadingDash),
            ("ext::sh -c id", KeyError::DoubleColon),
            (long.as_str(), KeyError::TooLong { bytes: KEY_BYTES_MAX + 1 }),
        ];
        for (text, error) in cases {
            assert_eq!(Key::new(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn escapes_are_decoded_once_and_never_twice() {
        assert_eq!(Key::from_path("/a%20b").unwrap().as_str(), "a b");
        assert_eq!(Key::from_path("/%2e%2e/x"), Err(KeyError::DotComponent));
        assert_eq!(Key::from_path("/a%2f..%2fb"), Err(KeyError::DotComponent));
        assert_eq!(Key::from_path("/a%00"), Err(KeyError::Character("control character")));
        assert_eq!(Key::from_path("/%ff"), Err(KeyError::Character("invalid UTF-8")));
        assert!(matches!(Key::from_path("/%252e%252e/x"), Err(KeyError::Character(_))));
    }

    #[test]
    fn node_names_fit_in_a_certificate() {
        for good in ["a", "node-1", "n1.example.com", "0"] {
            assert!(NodeName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a b", "a..b", "a/b", "*.x", &"x".repeat(64)] {
            assert!(NodeName::new(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn whatever_passes_the_check_stays_below_a_root(text in ".{0,40}") {
            if let Ok(key) = Key::from_path(&text) {
                let root = std::path::Path::new("/root");
                let joined = root.join(key.as_str());
                prop_assert!(joined.starts_with(root));
                prop_assert!(joined.components().all(|c| c != std::path::Component::ParentDir));
            }
        }
    }
}

//! How a node proves who it is: the secret of the cluster, or files of the operator's own authority.
//!
//! A [`ClusterKey`] is 32 random bytes. Every node derives the same certificate authority from it
//! (HKDF-SHA256, RFC 5869, to an Ed25519 seed) and signs itself a certificate that carries its own name, so knowing the
//! secret *is* membership and nothing has to be distributed but the secret. Those who run a PKI bring PEM files instead:
//! the certificate's DNS names then say which node names it may use.

use std::{fmt, path::PathBuf};

use hkdf::Hkdf;
use sha2::Sha256;

use crate::key::NodeName;

pub(super) const KEY_BYTES: usize = 32;

/// The secret that makes a machine a member. Printed and read as 64 hexadecimal digits; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterKey(pub(super) [u8; KEY_BYTES]);

impl ClusterKey {
    /// A fresh key from the operating system's generator.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "a secret comes from the operating system and nowhere else")]
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// Reads the text form; white space around it is ignored.
    ///
    /// # Errors
    /// The text is not 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        let mut bytes = [0; KEY_BYTES];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| IdentityError::ClusterKey)?;
        Ok(Self(bytes))
    }

    /// The text form. Keep it where you keep passwords.
    #[must_use]
    pub fn to_text(&self) -> String {
        hex::encode(self.0)
    }

    pub(super) fn derive(&self, purpose: &str) -> [u8; KEY_BYTES] {
        let mut output = [0; KEY_BYTES];
        Hkdf::<Sha256>::new(Some(b"datad-gossip"), &self.0)
            .expand(purpose.as_bytes(), &mut output)
            .expect("32 bytes are a valid HKDF-SHA256 output length");
        output
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(..)")
    }
}

/// How a node proves who it is.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// A certificate made on the spot from the shared secret.
    ClusterKey(ClusterKey),
    /// Files of the operator's own PKI, PEM. Every node's certificate must be valid as server *and* client.
    Pem {
        /// The node's certificate, then intermediates.
        certificate: PathBuf,
        /// Its private key, PKCS#8.
        key: PathBuf,
        /// The authorities whose certificates are members.
        authority: PathBuf,
    },
}

/// Why credentials are no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The text is no cluster key.
    #[error("a cluster key is 64 hexadecimal digits; make one with `datad-gossip keygen`")]
    ClusterKey,
    /// A PEM file cannot be read or holds nothing useful.
    #[error("cannot read {path}: {reason}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate is for other names.
    #[error("the certificate is for {names:?}, not for this node's name {name}")]
    OtherName {
        /// What the node is to be called.
        name: NodeName,
        /// What the certificate says.
        names: Vec<String>,
    },
    /// TLS does not accept the material.
    #[error("the certificate or key cannot be used: {0}")]
    Tls(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_key_survives_its_text_form_and_is_never_printed() {
        let key = ClusterKey::generate();
        assert_eq!(ClusterKey::parse(&format!(" {}\n", key.to_text())).unwrap(), key);
        assert!(!format!("{key:?}").contains(&key.to_text()));
        assert!(ClusterKey::parse("abc").is_err());
    }
}

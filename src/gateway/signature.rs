//! How a forge proves that it sent the body of a webhook: with the secret that it shares with this node. GitHub, Gitea, Forgejo
//! and Gogs sign the body (RFC 2104), GitLab sends the secret itself. Pure.

use http::HeaderMap;
use ring::hmac;
use subtle::ConstantTimeEq;

/// Fields with the hexadecimal HMAC-SHA256 of the body, and what stands before it there.
const SIGNATURES: [(&str, &str); 4] = [
    ("x-hub-signature-256", "sha256="),
    ("x-gitea-signature", ""),
    ("x-forgejo-signature", ""),
    ("x-gogs-signature", ""),
];
/// The field in which GitLab sends the secret.
const TOKEN: &str = "x-gitlab-token";

/// The secret that forges share with this node; `Debug` does not show it.
pub(super) struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    pub(super) fn new(secret: &str) -> Self {
        Self(secret.trim().as_bytes().to_vec())
    }

    /// Whether the sender of `body` knows the secret.
    pub(super) fn has_signed(&self, fields: &HeaderMap, body: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let signs = |(name, before): &(&str, &str)| {
            let text = fields.get(*name).and_then(|value| value.to_str().ok()?.strip_prefix(before));
            let signature = text.and_then(|text| hex::decode(text.trim()).ok());
            signature.is_some_and(|signature| hmac::verify(&key, body, &signature).is_ok())
        };
        let token = fields.get(TOKEN).is_some_and(|said| said.as_bytes().ct_eq(&self.0).into());
        !self.0.is_empty() && (token || SIGNATURES.iter().any(signs))
    }
}

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_who_knows_the_secret_signs_and_only_what_was_sent_is_signed() {
        let secret = WebhookSecret::new("It's a Secret to Everybody\n");
        // The example in GitHub's documentation of webhooks.
        let signature = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let body = b"Hello, World!";
        for (name, before) in SIGNATURES {
            let said = fields(&[(name, &format!("{before}{signature}"))]);
            assert!(secret.has_signed(&said, body), "{name}");
            assert!(!secret.has_signed(&said, b"Hello, World?"), "{name}");
            assert!(!WebhookSecret::new("other").has_signed(&said, body), "{name}");
            assert!(!secret.has_signed(&fields(&[(name, before)]), body), "{name}");
        }
        assert!(secret.has_signed(&fields(&[(TOKEN, "It's a Secret to Everybody")]), body));
        assert!(!secret.has_signed(&fields(&[(TOKEN, "It's a Secret")]), body));
        assert!(!secret.has_signed(&fields(&[]), body));
        assert!(!WebhookSecret::new("").has_signed(&fields(&[(TOKEN, "")]), body));
    }
}

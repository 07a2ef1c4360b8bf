//! The HTTP client that asks origins.

use std::time::Duration;

/// How long a connection to an origin may take to be made.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an origin may send nothing.
pub(super) const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// An HTTP client cannot even be built without a crypto provider. If the process has chosen one, that stands.
pub(super) fn choose_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// A client with these limits, for its user to set up further.
pub(super) fn client() -> reqwest::ClientBuilder {
    choose_crypto();
    reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(READ_TIMEOUT)
}

//! Why a handshake failed, in words for the operator who has to fix it.
//!
//! TLS says it by the number of an alert (RFC 8446, section 6.2), which QUIC carries in its own error codes (RFC 9001,
//! section 4.8). An alert that this side raised speaks of the peer's certificate, one that came in of this node's.

use quinn::{ConnectionError, TransportErrorCode};

const BAD_CERTIFICATE: u8 = 42;
const CERTIFICATE_REVOKED: u8 = 44;
const CERTIFICATE_EXPIRED: u8 = 45;
const UNKNOWN_CA: u8 = 48;
const DECRYPT_ERROR: u8 = 51;
const CERTIFICATE_REQUIRED: u8 = 116;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// Says why there is no connection; for people.
pub(super) fn in_words(error: &ConnectionError) -> String {
    let (code, whose) = match error {
        ConnectionError::TransportError(local) => (local.code, "its"),
        ConnectionError::ConnectionClosed(remote) => (remote.error_code, "this node's"),
        ConnectionError::ApplicationClosed(close) => return String::from_utf8_lossy(&close.reason).into_owned(),
        ConnectionError::TimedOut => return "no answer".to_owned(),
        other => return other.to_string(),
    };
    let is = |alerts: &[u8]| alerts.iter().any(|alert| code == TransportErrorCode::crypto(*alert));
    if is(&[CERTIFICATE_EXPIRED]) {
        format!("refused: {whose} certificate has expired or is not valid yet, or a clock is wrong")
    } else if is(&[UNKNOWN_CA, DECRYPT_ERROR, BAD_CERTIFICATE]) {
        format!("refused: {whose} certificate is of another cluster key or another authority")
    } else if is(&[CERTIFICATE_REVOKED, CERTIFICATE_REQUIRED]) {
        format!("refused: {whose} certificate is revoked or missing")
    } else if is(&[NO_APPLICATION_PROTOCOL]) {
        "refused: it speaks another protocol, or a version of this program that is too old or too new".to_owned()
    } else {
        error.to_string()
    }
}

/// The reason that a peer gave for closing a connection, if it gave one.
pub(super) fn refusal_of(connection: &quinn::Connection) -> Option<String> {
    let words = in_words(&connection.close_reason()?);
    Some(if words.is_empty() { "the peer closed it".into() } else { words })
}

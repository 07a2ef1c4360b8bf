//! The version of the messages: the protocol's name for what is incompatible, and a number for what was added.

/// The application protocol of a connection (RFC 7301).
pub(crate) const ALPN: &[u8] = b"datad/1";

/// The revision of the messages below that this build speaks.
pub(crate) const REVISION: u16 = 5;

/// The first revision that knows `HelloRefusal::Outdated`.
pub(crate) const REVISION_OUTDATED: u16 = 3;

/// The first revision that knows `Rejection::Elsewhere`, `Explain` and `Reply::Superseded`.
pub(crate) const REVISION_ELSEWHERE: u16 = 4;

/// The first revision that knows `Purpose::Relay`, `Rejection::Unreachable`, `PullGone`, `KeepCopy`,
/// `Create`, `Ensured::Later`, `Rejection::Busy`, `StreamHeader::Watch`, `Purpose::Part` and `Progress`.
pub(crate) const REVISION_RELAY: u16 = 5;

/// Largest gossip message, in bytes, before and after decompression is chitchat's own limit of a UDP datagram.
pub(crate) const GOSSIP_BYTES_MAX: usize = 65_507;

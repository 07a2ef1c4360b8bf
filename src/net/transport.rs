//! How long QUIC waits, and how much it lets be on its way.

use std::time::Duration;

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::config::Profile;

/// A peer that is dialled and has answered is ready by then, or is taken for unreachable.
pub(super) const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that opens a stream has this long to say what for.
pub(super) const OPENING_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes in progress before further ones are turned away.
pub(super) const HANDSHAKES_MAX: usize = 256;

/// Streams that one peer may have open towards us: requests, and gossip messages.
const PEER_STREAMS_MAX: u32 = 1024;
const PEER_GOSSIP_STREAMS_MAX: u32 = 128;
/// Bytes that one stream may be ahead of its reader. One stream alone must be able to fill a link of 8 Gbit/s at half a
/// millisecond. Clients that take nothing in make a node hold that much for each of their requests, and what quinn sorts
/// packets with, a tenth of it, stays with the connection.
pub(super) const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// Bytes that all streams of one connection may be ahead of their readers: each as far as its own window lets it. With
/// less, a few slow clients would use it up, and gossip and calls, which share the connection, would not get through.
const CONNECTION_WINDOW_BYTES: u64 = PEER_STREAMS_MAX as u64 * STREAM_WINDOW_BYTES as u64;
/// Bytes of one connection that were sent and not acknowledged yet. A peer also acknowledges bytes
/// that it never reads.
const SEND_WINDOW_BYTES: u64 = 32 << 20;

/// The settings of every connection.
pub(super) fn transport(profile: &Profile) -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(profile.mtu_max);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(PEER_STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(PEER_GOSSIP_STREAMS_MAX))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u64(CONNECTION_WINDOW_BYTES).unwrap_or(VarInt::MAX))
        .send_window(SEND_WINDOW_BYTES)
        .max_idle_timeout(Some(IdleTimeout::try_from(profile.idle_timeout).unwrap_or(VarInt::from_u32(30_000).into())))
        .keep_alive_interval(Some(profile.keep_alive))
        .initial_rtt(profile.initial_rtt)
        .datagram_receive_buffer_size(None)
        .mtu_discovery_config(Some(mtu));
    transport
}

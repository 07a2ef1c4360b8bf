//! Ports that are free, for UDP and TCP alike, and stay so while a node is down.

use std::{
    net::{Ipv4Addr, TcpListener, UdpSocket},
    sync::atomic::{AtomicU16, Ordering},
};

/// Below the range that systems take the ports of outgoing connections from: one of those would get in the way of a
/// node that is restarted.
const LOWEST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port that nobody else in this process was given, and that was free a moment ago.
pub(crate) fn port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Several test processes may run at once: each begins elsewhere.
    let start = (std::process::id().wrapping_mul(7_919) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = LOWEST + (u32::from(start) + u32::from(offset)) as u16 % COUNT;
        let at = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            return port;
        }
    }
    panic!("no port is free");
}

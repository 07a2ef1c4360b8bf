//! The pure core in front of chitchat: which identities it hears of, so that its messages stay small.
//!
//! chitchat tells every peer of every identity (a name, an incarnation, an address) that it
//! remembers, in one message that must not exceed a datagram; beyond that it panics. It learns of
//! identities only from the digests in messages that it receives. So this filter reads them first
//! and leaves an identity out
//!
//! 1. if a later incarnation of its name has been let in: a restarted node counts once;
//! 2. until it has shown a sign of life: its heartbeat grew between two messages, or it sends a
//!    message itself. Nodes that came after its death thus never hear of it, and so cannot tell
//!    those who come after them;
//! 3. if it does not fit: all identities that chitchat tells of at this moment take
//!    [`DIGEST_BYTES_MAX`] at most.
//!
//! So the size of a message follows the number of live members, and those that died in the last
//! seconds. Dead members are remembered elsewhere ([`Roster`](crate::core::membership::Roster)).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, btree_map::Entry},
    net::SocketAddr,
    time::Duration,
};

use chitchat::{ChitchatId, Deserializable, Serializable};

/// Bytes that all identities in a digest may take. chitchat's limit is 65,507 with the news that go with them; 300 members
/// with names of 40 letters take 24 KiB.
pub(super) const DIGEST_BYTES_MAX: usize = 52 << 10;
/// Identities that have shown no sign of life yet; further ones are not waited for. More than can be let in.
const WAITING_MAX: usize = 2_048;
/// Before the digest: magic number, version, kind of message.
const HEAD_BYTES: usize = 4;
const KIND_AT: usize = 3;
/// The kinds of messages that contain a digest.
const SYN: u8 = 0;
const SYN_ACK: u8 = 1;
/// Heartbeat and two versions, in a digest behind each identity.
const STANDING_BYTES: usize = 24;

/// The state of one identity.
#[derive(Debug, Clone, Copy)]
struct Seen {
    heartbeat: u64,
    /// When its heartbeat last grew, on the node's monotonic clock.
    grew: Duration,
    let_in: bool,
}

/// The identities that digests have named lately.
#[derive(Debug)]
pub(super) struct Identities {
    /// How long after the last sign of life chitchat still tells of an identity.
    told_for: Duration,
    seen: BTreeMap<ChitchatId, Seen>,
    /// Bytes that the identities that were let in take in a digest.
    bytes: usize,
    waiting: usize,
}

impl Identities {
    /// `told_for`: how long chitchat tells of an identity after its last sign of life, at most.
    pub(super) fn new(own: ChitchatId, told_for: Duration) -> Self {
        let bytes = own.serialized_len() + STANDING_BYTES;
        let itself = Seen { heartbeat: u64::MAX, grew: Duration::MAX, let_in: true };
        Self { told_for, seen: BTreeMap::from([(own, itself)]), bytes, waiting: 0 }
    }

    /// `message`, which came from the node at `from` at `now`, without the identities that chitchat is not to hear of.
    /// `None` if it makes no sense.
    pub(super) fn sift(&mut self, now: Duration, from: SocketAddr, message: &[u8]) -> Option<Vec<u8>> {
        let kind = *message.get(KIND_AT)?;
        if kind != SYN && kind != SYN_ACK {
            return Some(message.to_vec());
        }
        let (head, mut rest) = message.split_at_checked(HEAD_BYTES)?;
        let count = u16::deserialize(&mut rest).ok()?;
        let mut entries = Vec::with_capacity(usize::from(count).min(rest.len() / STANDING_BYTES));
        for _ in 0..count {
            let id = ChitchatId::deserialize(&mut rest).ok()?;
            let (standing, after) = rest.split_at_checked(STANDING_BYTES)?;
            rest = after;
            let heartbeat = u64::from_le_bytes(standing[..8].try_into().ok()?);
            entries.push((id, heartbeat, standing));
        }
        self.forget_silent(now);
        // The latest incarnation of a name first, so that it counts against the others.
        entries.sort_by_key(|(id, ..)| Reverse(id.generation_id));
        entries.retain(|(id, heartbeat, _)| self.lets_in(now, from, id, *heartbeat));
        let mut sifted = head.to_vec();
        u16::try_from(entries.len()).ok()?.serialize(&mut sifted);
        for (id, _, standing) in entries {
            id.serialize(&mut sifted);
            sifted.extend(standing);
        }
        sifted.extend(rest);
        Some(sifted)
    }

    /// How many identities chitchat may be telling of.
    #[cfg(test)]
    fn let_in(&self) -> usize {
        self.seen.values().filter(|seen| seen.let_in).count()
    }

    /// Identities that chitchat does not tell of any more.
    fn forget_silent(&mut self, now: Duration) {
        let (told_for, mut bytes, mut waiting) = (self.told_for, self.bytes, self.waiting);
        self.seen.retain(|id, seen| {
            let keep = now < seen.grew.saturating_add(told_for);
            if !keep && seen.let_in {
                bytes -= size(id);
            } else if !keep {
                waiting -= 1;
            }
            keep
        });
        (self.bytes, self.waiting) = (bytes, waiting);
    }

    fn lets_in(&mut self, now: Duration, from: SocketAddr, id: &ChitchatId, heartbeat: u64) -> bool {
        let is_superseded = self.is_superseded(id);
        let room = DIGEST_BYTES_MAX.saturating_sub(self.bytes);
        match self.seen.entry(id.clone()) {
            Entry::Occupied(mut entry) => {
                let seen = entry.get_mut();
                let grew = heartbeat > seen.heartbeat;
                if grew {
                    (seen.heartbeat, seen.grew) = (heartbeat, now);
                }
                let speaks = id.gossip_advertise_addr == from;
                if !seen.let_in && !is_superseded && (grew || speaks) && size(id) <= room {
                    (seen.let_in, seen.grew) = (true, now);
                    self.bytes += size(id);
                    self.waiting -= 1;
                }
                seen.let_in && !is_superseded
            }
            Entry::Vacant(entry) => {
                let let_in = id.gossip_advertise_addr == from && !is_superseded && size(id) <= room;
                if let_in {
                    self.bytes += size(id);
                } else if self.waiting < WAITING_MAX {
                    self.waiting += 1;
                } else {
                    return false;
                }
                entry.insert(Seen { heartbeat, grew: now, let_in });
                let_in
            }
        }
    }

    fn is_superseded(&self, id: &ChitchatId) -> bool {
        let from = ChitchatId { generation_id: id.generation_id.saturating_add(1), ..id.clone() };
        let later = self.seen.range(ChitchatId { gossip_advertise_addr: FIRST, ..from }..);
        later.take_while(|(other, _)| other.node_id == id.node_id).any(|(_, seen)| seen.let_in)
    }
}

/// Orders before every other address.
const FIRST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

fn size(id: &ChitchatId) -> usize {
    id.serialized_len() + STANDING_BYTES
}

#[cfg(test)]
mod tests {
    use chitchat::ChitchatMessage;
    use proptest::prelude::*;

    use super::*;

    const TOLD_FOR: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn id(name: &str, incarnation: u64) -> ChitchatId {
        ChitchatId::new(name, incarnation, address(name))
    }

    fn address(name: &str) -> SocketAddr {
        let port = name.bytes().fold(7u16, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn identities() -> Identities {
        Identities::new(id("me", 1), TOLD_FOR)
    }

    /// A message with this digest, in the form that chitchat gives it.
    fn syn(entries: &[(ChitchatId, u64)]) -> Vec<u8> {
        let mut bytes = vec![0x53, 0xb0, 0, SYN];
        (entries.len() as u16).serialize(&mut bytes);
        for (id, heartbeat) in entries {
            id.serialize(&mut bytes);
            heartbeat.serialize(&mut bytes);
            0u64.serialize(&mut bytes);
            3u64.serialize(&mut bytes);
        }
        "datad".serialize(&mut bytes);
        bytes
    }

    /// The names and incarnations that are left of such a message.
    fn left(
        identities: &mut Identities,
        seconds: u64,
        from: &str,
        entries: &[(ChitchatId, u64)],
    ) -> Vec<(String, u64)> {
        let sifted = identities.sift(at(seconds), address(from), &syn(entries)).unwrap();
        ChitchatMessage::deserialize(&mut sifted.as_slice()).expect("chitchat can read what is left");
        let mut rest = &sifted[HEAD_BYTES..];
        let count = u16::deserialize(&mut rest).unwrap();
        let mut names = Vec::new();
        for _ in 0..count {
            let id = ChitchatId::deserialize(&mut rest).unwrap();
            rest = &rest[STANDING_BYTES..];
            names.push((id.node_id.to_string(), id.generation_id));
        }
        names.sort();
        names
    }

    #[test]
    fn messages_are_read_in_the_form_in_which_chitchat_writes_them() {
        let bytes = syn(&[(id("a", 1), 5), (id("b", 2), 6)]);
        let message = ChitchatMessage::deserialize(&mut bytes.as_slice()).unwrap();
        let mut again = Vec::new();
        message.serialize(&mut again);
        assert_eq!(again, bytes);
    }

    #[test]
    fn an_identity_is_let_in_when_it_speaks_or_shows_a_sign_of_life() {
        let mut identities = identities();
        let seen = [(id("a", 1), 5), (id("b", 1), 5), (id("dead", 1), 9)];
        assert_eq!(left(&mut identities, 0, "a", &seen), [("a".to_owned(), 1)]);
        let later = [(id("a", 1), 6), (id("b", 1), 6), (id("dead", 1), 9)];
        assert_eq!(left(&mut identities, 1, "a", &later), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    }

    #[test]
    fn a_restarted_node_counts_once() {
        let mut identities = identities();
        assert_eq!(left(&mut identities, 0, "a", &[(id("a", 1), 5)]), [("a".to_owned(), 1)]);
        let both = [(id("a", 1), 6), (id("a", 2), 1)];
        assert_eq!(left(&mut identities, 1, "a", &both), [("a".to_owned(), 2)]);
    }

    #[test]
    fn a_thousand_restarts_and_observers_leave_nothing_behind() {
        let mut identities = identities();
        for start in 0..4_000u64 {
            let name = if start % 2 == 0 { "node".to_owned() } else { format!("observer-{start}-{}", "x".repeat(45)) };
            left(&mut identities, start, &name, &[(id(&name, start), 3)]);
            assert!(identities.let_in() < 40, "{}", identities.let_in());
        }
        left(&mut identities, 10_000, "a", &[(id("a", 1), 1)]);
        assert_eq!((identities.seen.len(), identities.waiting), (2, 0));
    }

    #[test]
    fn what_chitchat_tells_of_never_exceeds_its_limit() {
        let mut identities = identities();
        for number in 0..3_000 {
            let name = format!("{number:063}");
            left(&mut identities, 1, &name, &[(id(&name, 1), 1)]);
        }
        assert!(identities.bytes <= DIGEST_BYTES_MAX);
        assert!(identities.let_in() > 400);
        // An identity that was let in stays, and a live one comes in when others have gone.
        let first = format!("{:063}", 0);
        assert_eq!(left(&mut identities, 20, &first, &[(id(&first, 1), 2)]).len(), 1);
        assert_eq!(left(&mut identities, 40, "new", &[(id("new", 1), 2)]).len(), 1);
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut bytes = bytes;
            for kind in 0..4 {
                if let Some(byte) = bytes.get_mut(KIND_AT) {
                    *byte = kind;
                }
                let _ = identities().sift(at(0), address("a"), &bytes);
            }
        }

        /// The bytes that are counted are those of the identities that were let in, whatever comes.
        #[test]
        fn the_count_is_right(script in proptest::collection::vec((0..60u64, 0..6u8, 1..4u64, 0..9u64, 0..6u8), 1..80)) {
            let mut identities = identities();
            let mut now = 0;
            for (later, name, incarnation, heartbeat, from) in script {
                now += later;
                let named = |number: u8| format!("n{number}");
                left(&mut identities, now, &named(from), &[(id(&named(name), incarnation), heartbeat)]);
                let let_in = identities.seen.iter().filter(|(_, seen)| seen.let_in).map(|(id, _)| size(id)).sum::<usize>();
                prop_assert_eq!(identities.bytes, let_in);
                prop_assert_eq!(identities.waiting, identities.seen.values().filter(|seen| !seen.let_in).count());
            }
        }
    }
}

//! The form of the catalog's log, pure: frames with checksums, and how to read a log that was damaged.
//!
//! ```text
//!   frame = length of the entries (u32), checksum of them (u64), entries
//! ```
//!
//! A frame holds one record and what is to be done about it, so a flipped bit costs that record alone. Earlier versions
//! put a whole step, or up to 1,024 entries of a rewritten log, into a frame. The form is the same, so either version
//! reads what the other wrote.
//!
//! After a frame that does not verify, the next one is found by trying every offset: a length that fits, a beginning that
//! entries have, and the checksum. A key cannot contain a frame: a length that fits has a zero byte, which keys may not
//! have. The bytes that are hashed in a search are bounded; what lies behind counts as damaged.

use std::{collections::BTreeMap, hash::Hasher, io};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::{
    hlc::HlcTimestamp,
    intent::{Record, Stamp},
};
use crate::{key::Key, util::codec};

const HEAD_BYTES: usize = 12;
/// Bytes that a search for whole frames hashes at most: about a second on a slow machine.
const SEARCH_BYTES_MAX: usize = 256 << 20;
/// Entries of a frame as this version writes it: a forget and that it is pending.
const ENTRIES_MAX: usize = 2;

/// What a step did. Variants are only ever appended: logs of earlier versions are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Entry {
    /// It was taken in.
    Record(Record),
    /// The own copy of before then is to go.
    Pending { key: Key, stamp: Stamp },
    /// It is gone.
    Executed { key: Key, stamp: Stamp },
    /// The floor was raised.
    Floor(HlcTimestamp),
}

/// What a log was found to hold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// Of all whole frames, in order.
    pub(crate) entries: Vec<Entry>,
    /// Bytes at the end that are a part of a frame: the process died while it wrote them, and acknowledged nothing.
    pub(crate) torn: usize,
    /// Bytes of frames that do not verify, though they were written as a whole.
    pub(crate) damaged: usize,
    /// Whether a frame holds more than one record, as earlier versions wrote it: damage would cost all of them.
    pub(crate) is_coarse: bool,
}

/// The frames for `entries`: one for each, and a forget together with the entry that it is pending.
pub(crate) fn write(entries: &[Entry]) -> io::Result<Vec<u8>> {
    let mut pending: BTreeMap<(&Key, &Stamp), &Entry> = BTreeMap::new();
    pending.extend(entries.iter().filter_map(|entry| match entry {
        Entry::Pending { key, stamp } => Some(((key, stamp), entry)),
        _ => None,
    }));
    let mut bytes = Vec::new();
    for entry in entries {
        match entry {
            Entry::Record(record) => {
                let with = pending.remove(&(&record.key, &record.stamp));
                let together: Vec<&Entry> = [entry].into_iter().chain(with).collect();
                bytes.extend(frame(&together)?);
            }
            // Not if it went with its record.
            Entry::Pending { key, stamp } if !pending.contains_key(&(key, stamp)) => {}
            Entry::Pending { .. } | Entry::Executed { .. } | Entry::Floor(_) => bytes.extend(frame(&[entry])?),
        }
    }
    Ok(bytes)
}

fn frame(entries: &[&Entry]) -> io::Result<Vec<u8>> {
    let body = codec::encode(&entries.to_vec()).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(checksum(&body).to_le_bytes());
    bytes.extend(body);
    Ok(bytes)
}

/// Reads a log, damaged or not.
pub(crate) fn read(bytes: &[u8]) -> Found {
    let (mut found, mut at, mut budget) = (Found::default(), 0, SEARCH_BYTES_MAX);
    while at < bytes.len() {
        let rest = &bytes[at..];
        if let Some((entries, length)) = first_frame(rest) {
            found.is_coarse |= entries.len() > ENTRIES_MAX;
            found.entries.extend(entries);
            at += length;
        } else if let Some(skipped) = search(rest, &mut budget) {
            found.damaged += skipped;
            at += skipped;
        } else {
            *(if body(rest).is_some() { &mut found.damaged } else { &mut found.torn }) += rest.len();
            break;
        }
    }
    found
}

/// How many bytes of `bytes` lie before the next whole frame, the first byte at least.
fn search(bytes: &[u8], budget: &mut usize) -> Option<usize> {
    (1..bytes.len()).find(|&at| {
        let plausible = body(&bytes[at..]).filter(|body| begins_like_entries(body) && body.len() <= *budget);
        plausible.is_some_and(|body| {
            *budget -= body.len();
            first_frame(&bytes[at..]).is_some()
        })
    })
}

/// A number of entries, as the codec writes it, and the number of a variant.
fn begins_like_entries(body: &[u8]) -> bool {
    matches!(body, [1..=250, 0..=3, ..] | [251, _, _, 0..=3, ..])
}

/// What the frame at the beginning says is its body, if that much is there.
fn body(bytes: &[u8]) -> Option<&[u8]> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    rest.get(..u32::from_le_bytes(head[..4].try_into().ok()?) as usize)
}

fn first_frame(bytes: &[u8]) -> Option<(Vec<Entry>, usize)> {
    let body = body(bytes)?;
    (checksum(body).to_le_bytes() == bytes[4..HEAD_BYTES]).then_some(())?;
    Some((codec::decode(body).ok()?, HEAD_BYTES + body.len()))
}

fn checksum(body: &[u8]) -> u64 {
    let mut state = SipHasher13::new_with_keys(0x6a6f_7572_6e61_6c2d, 0x6672_616d_652d_3031);
    state.write(body);
    state.finish()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{core::catalog::intent::Intent, key::NodeName};

    pub(crate) fn record(number: u64) -> Record {
        let stamp = Stamp { time: HlcTimestamp { ms: number, count: 0 }, node: NodeName::new("n1").unwrap() };
        Record { key: Key::new(format!("k{number}")).unwrap(), stamp, intent: Intent::Pin { replicas: 2 } }
    }

    /// All in one frame, as earlier versions wrote it.
    pub(crate) fn coarse(entries: &[Entry]) -> Vec<u8> {
        frame(&entries.iter().collect::<Vec<_>>()).unwrap()
    }

    fn records(numbers: std::ops::Range<u64>) -> Vec<Entry> {
        numbers.map(|number| Entry::Record(record(number))).collect()
    }

    #[test]
    fn the_form_on_disk_is_pinned() {
        let key = Key::new("a").unwrap();
        let stamp = record(1).stamp;
        let entries = [
            Entry::Record(record(1)),
            Entry::Pending { key: key.clone(), stamp: stamp.clone() },
            Entry::Executed { key, stamp },
            Entry::Floor(HlcTimestamp { ms: 300, count: 2 }),
        ];
        // What versions before this one wrote of these, as one frame.
        let earlier = "21000000f48e92c34c98affb0400026b310100026e3100020101610100026e310201610100026e3103fb2c0102";
        assert_eq!(hex::encode(coarse(&entries)), earlier, "logs of earlier versions cannot be read any more");
        let read_earlier = read(&coarse(&entries));
        assert_eq!(read_earlier, Found { entries: entries.to_vec(), is_coarse: true, ..Found::default() });
        let now = write(&entries).unwrap();
        assert_eq!(read(&now), Found { entries: entries.to_vec(), ..Found::default() });
        // One frame for each of these.
        let bodies = ["0100026b310100026e310002", "010101610100026e31", "010201610100026e31", "0103fb2c0102"];
        let mut rest = &now[..];
        for expected in bodies {
            let (_, length) = first_frame(rest).unwrap();
            assert_eq!(hex::encode(&rest[HEAD_BYTES..length]), expected);
            rest = &rest[length..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn a_forget_and_what_is_to_be_done_about_it_stand_or_fall_together() {
        let forget = |number| Record { intent: Intent::Forget, ..record(number) };
        let pending = |number| Entry::Pending { key: record(number).key, stamp: record(number).stamp };
        let entries = [1, 2].map(|number| Entry::Record(forget(number))).to_vec();
        let bytes = write(&[entries, vec![pending(1), pending(2), pending(3)]].concat()).unwrap();
        let paired = |number| vec![Entry::Record(forget(number)), pending(number)];
        assert_eq!(read(&bytes).entries, [paired(1), paired(2), vec![pending(3)]].concat());
        let (_, first) = first_frame(&bytes).unwrap();
        for at in 0..first {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 1;
            assert_eq!(read(&spoilt).entries, [paired(2), vec![pending(3)]].concat());
        }
    }

    #[test]
    fn a_flipped_byte_costs_the_record_that_was_hit_and_no_other() {
        let entries = records(100..150);
        let bytes = write(&entries).unwrap();
        let each = bytes.len() / entries.len();
        for at in 0..bytes.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut spoilt = bytes.clone();
                spoilt[at] ^= flip;
                let found = read(&spoilt);
                let mut expected = entries.clone();
                let hit = expected.iter().position(|entry| !found.entries.contains(entry)).expect("one is lost");
                expected.remove(hit);
                assert_eq!(found.entries, expected, "byte {at}");
                assert!(found.damaged > 0 || hit == 49, "only the last may have been torn");
                assert_eq!(hit, at / each, "the one that byte {at} is of");
            }
        }
    }

    #[test]
    fn what_is_torn_is_no_damage_and_what_is_whole_and_wrong_is() {
        let bytes = write(&records(1..3)).unwrap();
        let (_, first) = first_frame(&bytes).unwrap();
        for end in first..bytes.len() {
            let torn = end - first;
            assert_eq!(read(&bytes[..end]), Found { entries: records(1..2), torn, ..Found::default() });
        }
        let mut spoilt = bytes.clone();
        *spoilt.last_mut().unwrap() ^= 1;
        let damaged = bytes.len() - first;
        assert_eq!(read(&spoilt), Found { entries: records(1..2), damaged, ..Found::default() });
    }

    #[test]
    fn behind_a_damaged_frame_of_an_earlier_version_everything_is_found() {
        let (before, large, after) = (records(0..5), records(1_000..2_024), records(5..10));
        let mut bytes = [coarse(&before), coarse(&large), coarse(&after)].concat();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        assert_eq!(read(&bytes).entries, [before, after].concat());
        assert_eq!(read(&bytes).damaged, coarse(&large).len());
    }

    proptest::proptest! {
        #[test]
        fn garbage_is_no_frame_and_never_a_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let found = read(&bytes);
            proptest::prop_assert!(found.torn + found.damaged <= bytes.len());
        }
    }
}

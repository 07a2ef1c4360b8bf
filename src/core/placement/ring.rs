//! The consistent-hash ring: from a key to the ordered list of nodes it belongs on.
//!
//! Every member stands on a circle of 64-bit hashes at many points, its *virtual nodes*, in proportion to its weight.
//! A key belongs to the first distinct members met clockwise from its own hash: its *preference list*. When a member
//! joins or leaves, only the arcs before its own points change hands, so no key moves between two members that stayed.
//! Papers: Karger et al., *Consistent Hashing and Random Trees* (STOC 1997), section 4; DeCandia et al., *Dynamo*
//! (SOSP 2007), section 4.2 (virtual nodes) and 4.3 (preference lists that skip virtual nodes of the same host).
//!
//! Membership changes rarely and lookups are constant, so the work is done at the change: for every virtual node the
//! preference list that starts there is written into one flat table, and a lookup is one binary search (by the
//! `hashring` crate, whose own replica lookup returns neighbours rather than distinct nodes and copies the ring) and a
//! borrowed row of the table. Nothing is allocated.
//!
//! ```text
//!   key --hash--> point on the circle --binary search--> virtual node --row--> [n7 n2 n9 ...]   first R = owners
//! ```
//!
//! Invariants:
//! - The ring is a function of the *set* of members: the order in which they are given, the platform and the process
//!   do not matter. Hence SipHash-1-3 with fixed keys over explicit bytes (Aumasson and Bernstein, *SipHash*, 2012),
//!   never `derive(Hash)`, whose bytes no library promises. A golden test pins it: changing a hash
//!   moves every key of every cluster that is upgraded node by node.
//! - The nodes of a preference list are distinct, and there are `min(depth, members on the ring)` of them.
//! - Two points that collide keep the one of the smaller name (then number), whichever came first.

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hash, Hasher},
    iter::FusedIterator,
    slice,
};

use hashring::HashRing;
use siphasher::sip::SipHasher13;

use crate::key::{Key, NodeName};

/// The weight of a node that takes one ordinary share of the keys.
pub const WEIGHT_SHARE: u32 = 100;

/// The largest weight that counts; a larger one is taken for this. Ten shares: beyond that, run more nodes, because one
/// node's virtual nodes would dominate the table.
pub const WEIGHT_MAX: u32 = 10 * WEIGHT_SHARE;

/// The most owners a key can have, and the default length of a preference list. Each further entry costs two bytes per
/// virtual node, and no cluster needs a seventeenth copy for safety.
pub const OWNERS_MAX: usize = 16;

/// Most members on a ring: rows of the table name them by 16 bits. The surplus, last by name, is left out, which is the
/// same on every node.
const NODES_MAX: usize = u16::MAX as usize;

/// Keys of the hash. Arbitrary, public and for ever: they only have to be the same everywhere.
const HASH_KEYS: (u64, u64) = (0x6461_7461_642d_676f, 0x7373_6970_2d72_696e);

/// How a ring is built. All nodes of a cluster must use the same values, so they are part of [`Ring::fingerprint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingOptions {
    /// Virtual nodes of a member of weight [`WEIGHT_SHARE`]. At least 1 (0 is taken for 1), default 256: the most
    /// loaded of 100 nodes then has about 1.15 times the mean. More evens the load with the square root and costs
    /// memory and building time in proportion.
    pub virtual_nodes: u32,
    /// Length of the preference lists, so the most owners a lookup can name. At least 1, default [`OWNERS_MAX`].
    pub depth: usize,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { virtual_nodes: 256, depth: OWNERS_MAX }
    }
}

/// An immutable ring; build a new one for every membership change and share it.
///
/// `clone` copies the table; share it behind an `Arc` instead.
#[derive(Debug, Clone)]
pub struct Ring {
    /// Sorted by name; the table names nodes by their position here.
    nodes: Vec<NodeName>,
    ring: HashRing<VirtualNode, PlacementHash>,
    /// One row of `depth` nodes per virtual node, in ring order.
    table: Vec<u16>,
    depth: usize,
    fingerprint: u64,
}

impl Ring {
    /// Builds the ring of `members`, each with its weight: [`WEIGHT_SHARE`] is one share, 0 stays off the ring, more
    /// than [`WEIGHT_MAX`] counts as that. A name that is given twice counts once, with the larger weight.
    #[must_use]
    pub fn build(members: impl IntoIterator<Item = (NodeName, u32)>, options: RingOptions) -> Self {
        let shares = virtual_nodes_by_name(members, options);
        let points = points(&shares);
        let depth = options.depth.clamp(1, NODES_MAX).min(shares.len());
        let table = preference_table(&points, depth);
        let fingerprint = fingerprint(&shares, options);
        let mut ring = HashRing::with_hasher(PlacementHash);
        let nodes: Vec<NodeName> = shares.into_keys().collect();
        let virtual_node = |(row, point): (usize, &Point)| VirtualNode {
            name: nodes[usize::from(point.node)].clone(),
            number: point.number,
            row,
        };
        ring.batch_add(points.iter().enumerate().map(virtual_node).collect());
        Self { nodes, ring, table, depth, fingerprint }
    }

    /// The nodes `key` belongs on, best first: all distinct, as many as the ring's depth or members allow.
    #[must_use]
    pub fn preference(&self, key: &Key) -> Preference<'_> {
        let row = match self.ring.get(&KeyBytes(key.as_str().as_bytes())) {
            Some(point) => &self.table[point.row * self.depth..][..self.depth],
            None => &[],
        };
        Preference { nodes: &self.nodes, row: row.iter() }
    }

    /// The owners of `key`: the first `replicas` nodes of its preference list, or all if there are fewer.
    #[must_use]
    pub fn owners(&self, key: &Key, replicas: usize) -> Preference<'_> {
        let Preference { nodes, row } = self.preference(key);
        let row = row.as_slice();
        Preference { nodes, row: row[..replicas.min(row.len())].iter() }
    }

    /// All nodes in the order of preference for `key`: its preference list, and after its end the nodes that are met
    /// further on around the circle. Nothing is allocated before that end.
    #[must_use]
    pub fn walk(&self, key: &Key) -> Walk<'_> {
        let row = self.ring.get(&KeyBytes(key.as_str().as_bytes())).map_or(0, |point| point.row);
        Walk { ring: self, row, listed: self.preference(key), beyond: None }
    }

    /// Whether `node` is among the first `replicas` owners of `key`.
    #[must_use]
    pub fn owns(&self, node: &NodeName, key: &Key, replicas: usize) -> bool {
        let Ok(wanted) = self.nodes.binary_search(node) else { return false };
        self.owners(key, replicas).row.any(|&index| usize::from(index) == wanted)
    }

    /// The members on the ring, ordered by name. Members of weight 0 are not among them.
    #[must_use]
    pub fn nodes(&self) -> &[NodeName] {
        &self.nodes
    }

    /// Length of every preference list: the most owners this ring can name.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// A hash of everything the ring was built from. Equal members and options give equal fingerprints on every node,
    /// whatever order they were given in; calls carry it as "the view this was planned on".
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

/// A borrowed preference list, best node first, each once.
#[derive(Debug, Clone)]
pub struct Preference<'a> {
    nodes: &'a [NodeName],
    row: slice::Iter<'a, u16>,
}

impl<'a> Iterator for Preference<'a> {
    type Item = &'a NodeName;

    fn next(&mut self) -> Option<&'a NodeName> {
        self.row.next().map(|&index| &self.nodes[usize::from(index)])
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.row.size_hint()
    }
}

impl ExactSizeIterator for Preference<'_> {}
impl FusedIterator for Preference<'_> {}

/// All nodes of a ring in the order of preference for a key, each once.
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    ring: &'a Ring,
    /// Where on the circle the key is.
    row: usize,
    listed: Preference<'a>,
    beyond: Option<Beyond>,
}

/// How far a walk has come on the circle itself.
#[derive(Debug, Clone)]
struct Beyond {
    /// By node: whether it was met.
    met: Vec<bool>,
    to_meet: usize,
    steps: usize,
}

impl<'a> Iterator for Walk<'a> {
    type Item = &'a NodeName;

    fn next(&mut self) -> Option<&'a NodeName> {
        self.listed.next().or_else(|| self.next_beyond())
    }
}

impl FusedIterator for Walk<'_> {}

impl<'a> Walk<'a> {
    fn next_beyond(&mut self) -> Option<&'a NodeName> {
        let Ring { nodes, table, depth, .. } = self.ring;
        // The first node of a row is the one whose point it is, so the table is the circle as well.
        let (depth, row) = (*depth, self.row);
        if depth == nodes.len() {
            return None;
        }
        let points = table.len() / depth;
        let beyond = self.beyond.get_or_insert_with(|| {
            let mut met = vec![false; nodes.len()];
            for &node in &table[row * depth..][..depth] {
                met[usize::from(node)] = true;
            }
            Beyond { met, to_meet: nodes.len() - depth, steps: 0 }
        });
        while beyond.to_meet > 0 && beyond.steps < points {
            let node = usize::from(table[(row + beyond.steps) % points * depth]);
            beyond.steps += 1;
            if !std::mem::replace(&mut beyond.met[node], true) {
                beyond.to_meet -= 1;
                return Some(&nodes[node]);
            }
        }
        None
    }
}

/// The members that stand on the ring and how many virtual nodes each has: a member of any weight above 0 has one.
fn virtual_nodes_by_name(
    members: impl IntoIterator<Item = (NodeName, u32)>,
    options: RingOptions,
) -> BTreeMap<NodeName, u32> {
    let mut shares = BTreeMap::new();
    for (name, weight) in members {
        let scaled = u64::from(weight.min(WEIGHT_MAX)) * u64::from(options.virtual_nodes.max(1));
        let count = (scaled + u64::from(WEIGHT_SHARE / 2)) / u64::from(WEIGHT_SHARE);
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        if weight > 0 {
            shares.entry(name).and_modify(|old: &mut u32| *old = count.max(*old)).or_insert(count);
        }
    }
    shares.into_iter().take(NODES_MAX).collect()
}

/// Where a virtual node stands. The derived order is the order on the circle; `node` is a position
/// in the sorted names, so the order among equal hashes does not depend on which node was added
/// first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    hash: u64,
    node: u16,
    number: u32,
}

fn points(shares: &BTreeMap<NodeName, u32>) -> Vec<Point> {
    let mut points = Vec::with_capacity(shares.values().map(|&count| count as usize).sum());
    for (node, (name, &count)) in (0..).zip(shares) {
        points.extend((0..count).map(|number| Point { hash: point_hash(name, number), node, number }));
    }
    points.sort_unstable();
    // A binary search may land on any of several equal hashes: keep one, always the same.
    points.dedup_by_key(|point| point.hash);
    points
}

/// The preference list of every point, flat.
///
/// The list of a point is its own node followed by the list of the next point without that node, cut to `depth`. So
/// the table fills from the last row to the first, each row from the one after it, and only the last row needs a walk
/// around the circle. That is `points x depth` steps however uneven the weights are.
fn preference_table(points: &[Point], depth: usize) -> Vec<u16> {
    let mut table = vec![0; points.len() * depth];
    let Some((last, rest)) = points.split_last() else { return table };
    let mut list = Vec::with_capacity(depth + 1);
    for point in std::iter::once(last).chain(rest) {
        if list.len() == depth {
            break;
        }
        if !list.contains(&point.node) {
            list.push(point.node);
        }
    }
    assert_eq!(list.len(), depth, "every member has at least one point, unless all of its points collide");
    for (row, point) in points.iter().enumerate().rev() {
        list.retain(|&node| node != point.node);
        list.insert(0, point.node);
        list.truncate(depth);
        table[row * depth..][..depth].copy_from_slice(&list);
    }
    table
}

fn fingerprint(shares: &BTreeMap<NodeName, u32>, options: RingOptions) -> u64 {
    let mut state = PlacementHash.build_hasher();
    state.write(&options.virtual_nodes.to_le_bytes());
    state.write(&(options.depth as u64).to_le_bytes());
    for (name, count) in shares {
        write_point(&mut state, name, *count);
    }
    state.finish()
}

/// The hasher of everything on the circle.
#[derive(Debug, Clone, Copy, PartialEq)]
struct PlacementHash;

impl BuildHasher for PlacementHash {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(HASH_KEYS.0, HASH_KEYS.1)
    }
}

fn point_hash(name: &NodeName, number: u32) -> u64 {
    let mut state = PlacementHash.build_hasher();
    write_point(&mut state, name, number);
    state.finish()
}

/// The bytes of a virtual node: name, a byte that no UTF-8 has, number (little endian). No key has the same bytes.
fn write_point(state: &mut impl Hasher, name: &NodeName, number: u32) {
    state.write(name.as_str().as_bytes());
    state.write(&[0xff]);
    state.write(&number.to_le_bytes());
}

#[derive(Debug, Clone)]
struct VirtualNode {
    name: NodeName,
    number: u32,
    row: usize,
}

impl Hash for VirtualNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        write_point(state, &self.name, self.number);
    }
}

/// A key as its bytes and nothing else.
struct KeyBytes<'a>(&'a [u8]);

impl Hash for KeyBytes<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}

//! What must always hold, and what must hold again once all faults have ended. One property a file, named with its number
//! in the design: `s` for safety, `l` for liveness. All are functions of what was seen ([`crate::model`]) and call nothing.

pub mod l12_agreement;
pub mod l12_intents;
pub mod l13_replicas;
pub mod l14_new_requests;
pub mod l15_idle;
pub mod s01_no_going_back;
pub mod s02_ready_is_there;
pub mod s03_same_owners;
pub mod s04_few_move;
pub mod s05_one_update;
pub mod s06_one_fetch;
pub mod s07_enough_left;
pub mod s08_full_takes_nothing;
pub mod s08_nothing_lost;
pub mod s09_answers;
pub mod s10_no_strangers;
pub mod s11_bounds;
pub mod s17_gossip;
pub mod s21_answered_soon;

use std::time::Duration;

/// Without faults for this long, a cluster has to behave as if there had never been any: members know of each other,
/// connections are up.
pub const CALM: Duration = Duration::from_secs(12);

/// The properties with what they say.
pub const ALL: [(u8, &str); 17] = [
    (1, "a view of a node's ledger contains only what that node wrote, and never goes back"),
    (2, "a key is claimed as ready only while it is durably there"),
    (3, "nodes with the same members compute the same owners, distinct, as many as there should be"),
    (4, "when one node joins or leaves, no key moves between two that stayed"),
    (5, "updates stay within their number, and at most one runs for a key"),
    (6, "at most one fetch of a key from the upstream is in flight among nodes that can talk"),
    (7, "dropping a replica leaves enough others, and for want of room at least one"),
    (8, "a full node gets no new keys, and a drain does not end as the last live holder of a key, unless it says so"),
    (9, "a request ends in time, with what was published or with a typed error"),
    (10, "nobody is a member who cannot prove it"),
    (11, "nodes neither end nor fail by themselves, and tasks and connections stay within bounds"),
    (12, "members, ledgers and pins become identical again, and acknowledged intents hold"),
    (13, "every key is on its owners again, and nowhere else, unless their disks have no room"),
    (14, "a new request for any key succeeds at any node"),
    (15, "backlogs drain, and traffic and tasks return to their idle level"),
    (17, "gossip tells of the live members, and of those that ended a moment ago; no message exceeds its limit"),
    (21, "a request that a reachable holder can answer is answered within a second of that becoming true"),
];

//! The registry: which nodes hold which key, replicated into every process.
//!
//! ```text
//!  own provider --set/remove--> LedgerWriter ==feeds of Delta==> Ledger (in Replica) --IndexChange--> IndexWriter
//!                                    ^                               |  ^                                  |
//!                                    |                               v  | relays pull by Position          v
//!                              only this node                    other nodes                    Index: lock-free reads
//! ```
//!
//! One file per idea, all pure: `claim` is what a node says of one key, `ledger` is all that one node says and how
//! it travels, `writer` is the only way to change it, `replica` is what others make of it across restarts, and
//! `index` is the sum over all nodes, turned round to key -> holders, and `follow` says whose ledgers to follow or pull. `log` and `hash` are what these are made of.

mod claim;
#[cfg(test)]
mod convergence;
pub(crate) mod follow;
mod hash;
mod index;
mod ledger;
mod log;
mod replica;
mod writer;

pub use self::{
    claim::{ClaimState, Failure, FailureTooLong, HolderState, HoldingState, Incarnation, REASON_BYTES_MAX, Version},
    hash::KeyHasher,
    index::{Holders, Index, IndexWriter},
    ledger::{Applied, ApplyError, Change, Changed, Delta, Ledger, LedgerOptions, Outcome, Position},
    replica::{IndexChange, Replica},
    writer::LedgerWriter,
};

//! One member, as the roster knows it.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    core::membership::{
        node_info::LedgerDigest,
        view::{Member, MemberState},
    },
    key::Key,
};

/// What is known of one member.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) member: Member,
    pub(crate) ledger: LedgerDigest,
    pub(crate) catalog: Option<u64>,
    pub(crate) hot: BTreeMap<Key, u8>,
    pub(crate) gone: Option<u64>,
    /// Whether it has a place on the ring, if it may stand there at all.
    pub(crate) settled: bool,
    /// When it was found to be gone.
    pub(crate) gone_at: Option<Duration>,
    /// For how long it had been gone by then, as others told.
    pub(crate) gone_before: Duration,
}

impl Entry {
    pub(crate) fn mark_gone(&mut self, now: Duration, state: MemberState) {
        if self.member.state.is_alive() {
            self.member.state = state;
            (self.gone_at, self.gone_before) = (Some(now), Duration::ZERO);
        }
    }

    /// For how long it has been gone, if it is.
    pub(crate) fn gone_for(&self, now: Duration) -> Option<Duration> {
        Some(self.gone_before.saturating_add(now.saturating_sub(self.gone_at?)))
    }

    /// Whether it is not there, and has not said that it goes for good.
    pub(crate) fn is_missed(&self) -> bool {
        matches!(self.member.state, MemberState::Dead | MemberState::Away)
    }

    pub(crate) fn is_on_ring(&self) -> bool {
        use MemberState::{Joining, Leaving, Serving};
        let present = matches!(self.member.state, Serving | Joining | Leaving) || self.is_missed();
        self.settled && present && self.member.is_eligible()
    }
}

//! When a node may act on the members that it sees, and when it walks over all keys. Pure.
//!
//! - Members are discovered one by one, so a node waits until they are *settled*: the same for a while. A plan that is made on
//!   half of them is undone a moment later.
//! - When the ring has lost a member that died, each node *holds* for a moment of its own, so that not all begin to repair at
//!   once.
//! - A walk over all keys (a *sweep*) goes part by part, one part at a time. Whatever wishes for one gets a whole one that begins
//!   after the wish.

use std::{sync::Arc, time::Duration};

use crate::{
    config::NodeConfig,
    core::{
        membership::{MemberState, View},
        placement::Ring,
    },
    key::{Key, NodeName},
};

/// For how many times the time to settle to wait for a member that is joining.
const ARRIVAL_SETTLES: u32 = 5;
/// Share of the repair delay by which nodes differ in when they begin to repair.
const JITTER_SHARE: f64 = 0.25;

/// Whether this node still learns what the others hold.
pub(crate) fn is_joining(view: &View) -> bool {
    view.member(view.me()).is_none_or(|member| member.state == MemberState::Joining)
}

/// Whether the members are such that a node may act on them.
#[derive(Debug)]
pub(crate) struct Readiness {
    /// For how long members have to stay the same.
    settle: Duration,
    repair_delay: Duration,
    /// The ring that plans were last made on, and until when to wait since it lost a member.
    ring: Arc<Ring>,
    held_until: Duration,
}

impl Readiness {
    /// Of a node that has made no plans yet.
    pub(crate) fn new(config: &NodeConfig, view: &View) -> Self {
        let (settle, repair_delay) = (config.profile.settle(), config.repair_delay);
        Self { settle, repair_delay, ring: view.ring().clone(), held_until: Duration::ZERO }
    }

    /// When the members will have been the same for long enough. While one is about to take its place on the ring that is longer:
    /// after a start of the whole cluster not all are ready at once.
    pub(crate) fn settled_at(&self, view: &View) -> Duration {
        let arriving = if view.is_anybody_arriving() { self.settle * ARRIVAL_SETTLES } else { Duration::ZERO };
        view.since() + self.settle + arriving
    }

    /// Whether the members are the same for long enough, and this node knows what they hold.
    pub(crate) fn is_settled(&self, view: &View, now: Duration) -> bool {
        now >= self.settled_at(view) && !is_joining(view)
    }

    /// Whether work on keys may begin. `draw` says by which share of the longest pause (0 to 1) this node waits when the ring has
    /// lost a member that died.
    pub(crate) fn may_begin(&mut self, view: &View, now: Duration, draw: impl FnOnce() -> f64) -> bool {
        if !Arc::ptr_eq(&self.ring, view.ring()) {
            let died = |name: &NodeName| view.member(name).is_some_and(|member| member.state == MemberState::Dead);
            let gone = |name: &&NodeName| view.ring().nodes().binary_search(name).is_err();
            if self.ring.nodes().iter().filter(gone).any(died) {
                self.held_until = now + self.repair_delay.mul_f64(JITTER_SHARE * draw());
            }
            self.ring = view.ring().clone();
        }
        self.is_settled(view, now) && now >= self.held_until
    }

    /// Until when no work begins because the ring has lost a member.
    pub(crate) fn held_until(&self) -> Duration {
        self.held_until
    }
}

/// Walks over all keys, now and then and when they are wished for.
#[derive(Debug)]
pub(crate) struct Sweep {
    interval: Duration,
    next: Duration,
    walk: Walk,
}

#[derive(Debug)]
enum Walk {
    Idle,
    /// The next part was asked for; `again` if another walk was wished for meanwhile.
    UnderWay {
        again: bool,
    },
}

/// What follows a part of all keys.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The part after this key.
    After(Key),
    /// All keys were looked at; `again`: another walk begins.
    Over { again: bool },
}

impl Sweep {
    /// The first walk is due at `now`, and then one each `interval`.
    pub(crate) fn new(now: Duration, interval: Duration) -> Self {
        Self { interval, next: now, walk: Walk::Idle }
    }

    /// Whether it is time for a walk.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        now >= self.next
    }

    /// Whether no walk is under way.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.walk, Walk::Idle)
    }

    /// The next walk is due at `at`.
    pub(crate) fn schedule(&mut self, at: Duration) {
        self.next = at;
    }

    /// A walk is wished for. Whether the first part is to be asked for now; else another walk follows the one under way.
    pub(crate) fn begin(&mut self, now: Duration) -> bool {
        self.next = now + self.interval;
        match &mut self.walk {
            Walk::UnderWay { again } => {
                *again = true;
                false
            }
            Walk::Idle => {
                self.walk = Walk::UnderWay { again: false };
                true
            }
        }
    }

    /// A part was looked at. `last`: its last key, if there may be more after it.
    pub(crate) fn seen(&mut self, last: Option<Key>) -> Next {
        match (last, &mut self.walk) {
            (Some(last), Walk::UnderWay { .. }) => Next::After(last),
            (None, Walk::UnderWay { again }) if *again => {
                *again = false;
                Next::Over { again: true }
            }
            _ => {
                self.walk = Walk::Idle;
                Next::Over { again: false }
            }
        }
    }

    /// The members changed, so that what was planned is not worth going on with.
    pub(crate) fn interrupt(&mut self) {
        self.walk = Walk::Idle;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::core::{membership::Member, placement::RingOptions};

    fn name(number: usize) -> NodeName {
        NodeName::new(format!("n{number}")).unwrap()
    }

    /// Members in these states, of which this node is the first. Those that serve are on the ring.
    fn view(since: Duration, states: &[MemberState]) -> View {
        let member = |(number, state): (usize, &MemberState)| Member {
            name: name(number),
            incarnation: 1,
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            http: None,
            state: *state,
            weight: 100,
            accepting: true,
            observer: false,
            serves_other: false,
        };
        let members: Vec<Member> = states.iter().enumerate().map(member).collect();
        let on_ring = members.iter().filter(|member| member.state == MemberState::Serving);
        let options = RingOptions { virtual_nodes: 8, depth: 4 };
        let ring = Ring::build(on_ring.map(|member| (member.name.clone(), 100)), options);
        let members = members.into_iter().map(|member| (member.name.clone(), member)).collect();
        View::new(name(0), members, Arc::new(ring), since)
    }

    fn state() -> impl Strategy<Value = MemberState> {
        use MemberState::{Dead, Draining, Joining, Left, Serving};
        prop_oneof![Just(Joining), Just(Serving), Just(Draining), Just(Dead), Just(Left)]
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_ring_that_lost_a_dead_member_is_held_for_and_one_that_was_left_is_not() {
        use MemberState::{Dead, Left, Serving};
        let config = NodeConfig::default();
        for (state, draw, held) in [(Dead, 1.0, 0.25), (Dead, 0.0, 0.0), (Left, 1.0, 0.0)] {
            let mut readiness = Readiness::new(&config, &view(Duration::ZERO, &[Serving, Serving]));
            let (after, now) = (view(Duration::ZERO, &[Serving, state]), seconds(1_000));
            let until = now + config.repair_delay.mul_f64(held);
            assert_eq!(readiness.may_begin(&after, now, || draw), held == 0.0);
            assert!(readiness.may_begin(&after, until, || panic!("this ring is known")));
        }
    }

    proptest! {
        #[test]
        fn a_node_is_settled_no_sooner_than_its_members_and_stays_so_until_they_change(
            states in proptest::collection::vec(state(), 1..5),
            since in 0..100_u64,
            now in 0..200_u64,
            later in 0..100_u64,
        ) {
            let config = NodeConfig::default();
            let view = view(seconds(since), &states);
            let readiness = Readiness::new(&config, &view);
            let settled = readiness.is_settled(&view, seconds(now));
            prop_assert!(!settled || seconds(now) >= seconds(since) + config.profile.settle());
            prop_assert!(!settled || states[0] != MemberState::Joining);
            prop_assert!(!settled || readiness.is_settled(&view, seconds(now + later)));
            let in_the_end = readiness.is_settled(&view, seconds(since) + config.profile.settle() * (1 + ARRIVAL_SETTLES));
            prop_assert_eq!(in_the_end, states[0] != MemberState::Joining);
        }

        /// Wishes and interruptions, at any moment of walks over a few parts.
        #[test]
        fn who_wishes_for_a_walk_gets_a_whole_one_that_begins_after_the_wish(
            steps in proptest::collection::vec(0..4_u8, 0..80),
            parts in 1..4_usize,
        ) {
            let mut sweep = Sweep::new(Duration::ZERO, seconds(60));
            // The part that was asked for, and whether a wish waits for a walk that has not begun, or for the one that has.
            let (mut asked, mut unserved, mut served) = (None, false, false);
            let seen = |sweep: &mut Sweep, part: usize| {
                sweep.seen((part + 1 < parts).then(|| Key::new(format!("k{part}")).unwrap()))
            };
            for step in steps.into_iter().chain([1; 12]) {
                match (step, asked) {
                    (0, _) => {
                        if sweep.begin(Duration::ZERO) {
                            prop_assert_eq!(asked.replace(0), None, "one part at a time");
                            (unserved, served) = (false, true);
                        } else {
                            unserved = true;
                        }
                    }
                    (1 | 2, Some(part)) => match seen(&mut sweep, part) {
                        Next::After(_) => asked = Some(part + 1),
                        Next::Over { again } => {
                            prop_assert_eq!(part + 1, parts, "the walk is whole");
                            prop_assert_eq!(again, unserved);
                            (unserved, served) = (false, again);
                            asked = again.then_some(0);
                        }
                    },
                    (3, Some(_)) => {
                        sweep.interrupt();
                        // An interrupted sweep is followed by another one.
                        prop_assert!(sweep.begin(Duration::ZERO));
                        (asked, unserved, served) = (Some(0), false, true);
                    }
                    _ => {}
                }
                prop_assert_eq!(sweep.is_idle(), asked.is_none());
            }
            prop_assert!(!unserved && !served && sweep.is_idle());
        }
    }
}

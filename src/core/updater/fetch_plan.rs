//! Where a node gets a key from: a peer or the origin, at once or after other nodes. Pure. This
//! plan keeps the promise that the origin is asked once, however many nodes want the key.
//!
//! ```text
//!   no room --> stop     others fetch it --> wait     claim Fetching
//!   no node is ready, and the members are in doubt --> give way to elders
//!   a peer is ready --> copy --fails, and a request waits--> give way to elders --> copy, if one had it meanwhile
//!   none is         --> the origin <------------------------------------------------------/ else
//! ```
//!
//! Two rules make it one fetch. A node that does not say yet that it fetches waits for every node
//! that says so. Nodes that say so at once are told apart by their age: the younger waits, the
//! eldest goes on, so no two wait for each other and no two go on.

use crate::{
    core::{
        balancer::DiskPressure,
        membership::{Member, View},
        registry::HolderState,
    },
    key::NodeName,
    provider::UpdateReason,
};

/// What a job may do to have a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    /// Whether the origin may be asked; else the key is copied from a peer or not had.
    pub(crate) from_origin: bool,
    pub(crate) reason: UpdateReason,
}

/// What is the case on this node, and what others say of the key, at the moment.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// Whether this node takes new keys.
    pub(crate) accepts: bool,
    pub(crate) room: DiskPressure,
    /// The other nodes that have the key, the one to ask first in front.
    pub(crate) ready: Vec<NodeName>,
    /// Whether members come and go, or a forget of the key spreads, so that another node may take itself for the one that asks the
    /// origin.
    pub(crate) in_doubt: bool,
}

/// How an update of the key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Well,
    /// The disk of this node is too small for it.
    NoRoom,
    /// The peer or the origin cannot be reached, or does not have it.
    Unavailable,
    Failed,
}

/// Whether it is the first try, or one after no peer could be copied from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Try {
    First,
    Again,
}

/// What the job did last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Did {
    Nothing,
    LetOthersFinish,
    /// It says that it fetches the key.
    Claimed,
    /// `waited`: there was an elder to wait for.
    GaveWay(Try, WaitedForElder),
    Copied(Try, Ended),
    AskedOrigin(Ended),
}

/// Whether there was an elder that a node gave way to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitedForElder {
    Yes,
    No,
}

/// What the job does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Wait while other nodes fetch the key.
    LetOthersFinish,
    /// Say that this node fetches it.
    Claim,
    /// Wait while elders fetch it.
    GiveWay(Try),
    /// Copy it from one of these.
    Copy(Try, Vec<NodeName>),
    AskOrigin,
    /// It is here: say so.
    Publish,
    Stop(Stop),
}

/// Why the job goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It need not be here, and there is little room.
    Declined,
    /// This node takes no new keys. Another one leads now.
    NoRoom,
    /// The node was to copy the key, and there is no node left to copy it from.
    NowhereReady,
    /// As the last update said.
    Failed,
}

/// The next step of a job that has just done `did`.
pub(crate) fn next(wish: Wish, did: Did, seen: &Seen) -> Step {
    match did {
        Did::Nothing => match refusal(wish, seen) {
            Some(stop) => Step::Stop(stop),
            None if wish.from_origin => Step::LetOthersFinish,
            None => Step::Claim,
        },
        Did::LetOthersFinish => Step::Claim,
        Did::Claimed if wish.from_origin && seen.ready.is_empty() && seen.in_doubt => Step::GiveWay(Try::First),
        // It may have filled up while this waited for others.
        Did::Claimed | Did::GaveWay(Try::First, _) => match seen.ready.first() {
            _ if !seen.accepts => Step::Stop(Stop::NoRoom),
            Some(_) => Step::Copy(Try::First, seen.ready.clone()),
            None if wish.from_origin => Step::AskOrigin,
            None => Step::Stop(Stop::NowhereReady),
        },
        Did::GaveWay(Try::Again, waited) => match waited {
            _ if !seen.accepts => Step::Stop(Stop::NoRoom),
            WaitedForElder::Yes if !seen.ready.is_empty() => Step::Copy(Try::Again, seen.ready.clone()),
            _ => Step::AskOrigin,
        },
        Did::Copied(_, Ended::Well) | Did::AskedOrigin(Ended::Well) => Step::Publish,
        Did::Copied(_, Ended::NoRoom) | Did::AskedOrigin(_) => Step::Stop(Stop::Failed),
        Did::Copied(Try::First, _) if wish.from_origin && wish.reason == UpdateReason::Request => {
            Step::GiveWay(Try::Again)
        }
        Did::Copied(Try::Again, _) => Step::AskOrigin,
        // Those it was to be copied from have let it go meanwhile.
        Did::Copied(Try::First, Ended::Unavailable) if !wish.from_origin && seen.ready.is_empty() => {
            Step::Stop(Stop::NowhereReady)
        }
        Did::Copied(Try::First, _) => Step::Stop(Stop::Failed),
    }
}

/// Why the job does not begin, if it does not. Refuses jobs that were queued before the disk filled
/// up, and jobs of nodes that do not know yet that it is full. Refuses more of the jobs that no
/// request waits for.
fn refusal(wish: Wish, seen: &Seen) -> Option<Stop> {
    let moves_only = wish.reason == UpdateReason::Rebalance;
    match seen.room {
        DiskPressure::Full if wish.reason != UpdateReason::Request => Some(Stop::Declined),
        DiskPressure::High if moves_only => Some(Stop::Declined),
        _ => (!seen.accepts).then_some(Stop::NoRoom),
    }
}

/// Which nodes that fetch a key are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Others {
    All,
    /// Those that started before this node; of those that started at once, the first by name.
    Elders,
}

/// Whether `others` fetch a key of which the live members in `holders` say this. Not once a node has it: then there is nothing to
/// wait for.
pub(crate) fn is_fetched(view: &View, holders: &[(NodeName, HolderState)], others: Others) -> bool {
    let age = |member: &Member| (member.incarnation, member.name.clone());
    let mine = view.member(view.me()).map(age);
    let counts = |name: &NodeName| {
        let member = view.member(name).filter(|member| member.name != *view.me());
        member.is_some_and(|member| others == Others::All || Some(age(member)) < mine)
    };
    !holders.iter().any(|(_, state)| *state == HolderState::Ready)
        && holders.iter().any(|(name, state)| *state == HolderState::Fetching && counts(name))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::core::{
        membership::MemberState,
        placement::{Ring, RingOptions},
    };

    fn name(number: usize) -> NodeName {
        NodeName::new(format!("n{number}")).unwrap()
    }

    /// As node `me` sees it: live members, each of this incarnation.
    fn view(me: usize, incarnations: &[u64]) -> View {
        let member = |(number, incarnation): (usize, &u64)| Member {
            name: name(number),
            incarnation: *incarnation,
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            http: None,
            state: MemberState::Serving,
            weight: 100,
            accepting: true,
            observer: false,
            serves_other: false,
        };
        let members: BTreeMap<NodeName, Member> =
            incarnations.iter().enumerate().map(|each| (name(each.0), member(each))).collect();
        View::new(name(me), members, Arc::new(Ring::build([], RingOptions::default())), Duration::ZERO)
    }

    fn seen(ready: &[usize]) -> Seen {
        let ready = ready.iter().map(|number| name(*number)).collect();
        Seen { accepts: true, room: DiskPressure::Low, ready, in_doubt: false }
    }

    const REQUEST: Wish = Wish { from_origin: true, reason: UpdateReason::Request };

    #[test]
    fn what_no_request_waits_for_needs_more_room() {
        let first = |reason, room, accepts| {
            next(Wish { from_origin: false, reason }, Did::Nothing, &Seen { accepts, room, ..seen(&[]) })
        };
        let declined = Step::Stop(Stop::Declined);
        assert_eq!(first(UpdateReason::Repair, DiskPressure::Full, false), declined);
        assert_eq!(first(UpdateReason::Rebalance, DiskPressure::High, true), declined);
        assert_eq!(first(UpdateReason::Repair, DiskPressure::High, true), Step::Claim);
        assert_eq!(first(UpdateReason::Request, DiskPressure::Full, false), Step::Stop(Stop::NoRoom));
        assert_eq!(first(UpdateReason::Request, DiskPressure::Full, true), Step::Claim);
    }

    #[test]
    fn a_request_that_no_peer_answers_goes_to_the_origin_unless_an_elder_has_got_the_key() {
        let failed = Did::Copied(Try::First, Ended::Unavailable);
        assert_eq!(next(REQUEST, failed, &seen(&[1])), Step::GiveWay(Try::Again));
        let gave_way = |waited| Did::GaveWay(Try::Again, waited);
        assert_eq!(next(REQUEST, gave_way(WaitedForElder::No), &seen(&[1])), Step::AskOrigin);
        assert_eq!(next(REQUEST, gave_way(WaitedForElder::Yes), &seen(&[])), Step::AskOrigin);
        let copies = Step::Copy(Try::Again, vec![name(1)]);
        assert_eq!(next(REQUEST, gave_way(WaitedForElder::Yes), &seen(&[1])), copies);
        assert_eq!(next(REQUEST, Did::Copied(Try::Again, Ended::Failed), &seen(&[1])), Step::AskOrigin);
    }

    #[test]
    fn of_two_that_fetch_at_once_the_younger_waits_and_the_elder_goes_on() {
        let both = [(name(0), HolderState::Fetching), (name(1), HolderState::Fetching)];
        for (incarnations, waits) in [([1, 2], [false, true]), ([2, 1], [true, false]), ([1, 1], [false, true])] {
            let each = [0, 1].map(|me| is_fetched(&view(me, &incarnations), &both, Others::Elders));
            assert_eq!(each, waits);
        }
        let ready = [(name(0), HolderState::Fetching), (name(1), HolderState::Ready)];
        assert!(!is_fetched(&view(1, &[1, 2]), &ready, Others::All), "there is nothing to wait for");
    }

    fn any_ended() -> impl Strategy<Value = Ended> {
        prop_oneof![Just(Ended::Well), Just(Ended::NoRoom), Just(Ended::Unavailable), Just(Ended::Failed)]
    }

    fn any_seen() -> impl Strategy<Value = Seen> {
        let room = prop_oneof![Just(DiskPressure::Low), Just(DiskPressure::High), Just(DiskPressure::Full)];
        (any::<bool>(), room, 0..3_usize, any::<bool>()).prop_map(|(accepts, room, ready, in_doubt)| Seen {
            accepts,
            room,
            ready: (1..=ready).map(name).collect(),
            in_doubt,
        })
    }

    fn any_reason() -> impl Strategy<Value = UpdateReason> {
        use UpdateReason::{Rebalance, Refresh, Repair, Request};
        prop_oneof![Just(Request), Just(Repair), Just(Refresh), Just(Rebalance)]
    }

    proptest! {
        #[test]
        fn every_job_ends_and_asks_no_origin_that_it_may_not_or_before_it_said_so(
            from_origin in any::<bool>(),
            reason in any_reason(),
            seen in proptest::collection::vec((any_seen(), any_ended(), any::<bool>()), 10),
        ) {
            let wish = Wish { from_origin, reason };
            let (mut did, mut claimed, mut has_ended) = (Did::Nothing, false, false);
            for (seen, ended, elder) in seen {
                did = match next(wish, did, &seen) {
                    Step::LetOthersFinish => {
                        prop_assert!(!claimed);
                        Did::LetOthersFinish
                    }
                    Step::Claim => {
                        claimed = true;
                        Did::Claimed
                    }
                    Step::GiveWay(which) => {
                        prop_assert!(claimed && from_origin);
                        Did::GaveWay(which, if elder { WaitedForElder::Yes } else { WaitedForElder::No })
                    }
                    Step::Copy(which, peers) => {
                        prop_assert!(claimed && seen.accepts);
                        prop_assert_eq!(&peers, &seen.ready);
                        prop_assert!(!peers.is_empty());
                        Did::Copied(which, ended)
                    }
                    Step::AskOrigin => {
                        prop_assert!(claimed && from_origin);
                        Did::AskedOrigin(ended)
                    }
                    Step::Publish => {
                        prop_assert!(matches!(did, Did::Copied(_, Ended::Well) | Did::AskedOrigin(Ended::Well)));
                        has_ended = true;
                        break;
                    }
                    Step::Stop(stop) => {
                        prop_assert!(stop != Stop::NowhereReady || (!from_origin && seen.ready.is_empty()));
                        prop_assert!(stop != Stop::Failed || matches!(did, Did::Copied(..) | Did::AskedOrigin(_)));
                        has_ended = true;
                        break;
                    }
                };
            }
            prop_assert!(has_ended, "it takes nine steps at most");
        }

        /// Several nodes that all take themselves for the one that asks the origin, their steps in any order. What holds in time in
        /// a cluster holds here as well: a node that gives way first lets a moment pass, in which those that have seen no other
        /// fetch the key come to say that they do.
        #[test]
        fn the_origin_is_asked_by_one_node_at_a_time_and_by_none_once_one_has_the_key(
            incarnations in proptest::collection::vec(1..3_u64, 2..5),
            turns in proptest::collection::vec((0..5_usize, any::<bool>()), 0..200),
        ) {
            let nodes = incarnations.len();
            let mut did = vec![Some(Did::Nothing); nodes];
            let mut asking = vec![false; nodes];
            let mut claims: Vec<Option<HolderState>> = vec![None; nodes];
            let in_the_end = (0..40 * nodes).map(|turn| (turn % nodes, true));
            for (node, goes_well) in turns.into_iter().filter(|(node, _)| *node < nodes).chain(in_the_end) {
                let Some(last) = did[node] else { continue };
                let holders: Vec<_> =
                    (0..nodes).filter_map(|number| Some((name(number), claims[number]?))).collect();
                let ready: Vec<usize> = (0..nodes)
                    .filter(|other| *other != node && claims[*other] == Some(HolderState::Ready))
                    .collect();
                let view = view(node, &incarnations);
                if asking[node] {
                    asking[node] = false;
                    did[node] = Some(Did::AskedOrigin(if goes_well { Ended::Well } else { Ended::Failed }));
                    continue;
                }
                match next(REQUEST, last, &Seen { in_doubt: true, ..seen(&ready) }) {
                    Step::LetOthersFinish => {
                        if !is_fetched(&view, &holders, Others::All) {
                            did[node] = Some(Did::LetOthersFinish);
                        }
                    }
                    Step::Claim => {
                        claims[node] = Some(HolderState::Fetching);
                        did[node] = Some(Did::Claimed);
                    }
                    Step::GiveWay(which) => {
                        let moment_has_passed = !did.contains(&Some(Did::LetOthersFinish));
                        if moment_has_passed && !is_fetched(&view, &holders, Others::Elders) {
                            did[node] = Some(Did::GaveWay(which, WaitedForElder::Yes));
                        }
                    }
                    Step::Copy(which, _) => did[node] = Some(Did::Copied(which, Ended::Well)),
                    Step::AskOrigin => {
                        prop_assert!(!asking.contains(&true), "another node asks at the moment");
                        prop_assert!(ready.is_empty(), "another node has the key");
                        asking[node] = true;
                    }
                    Step::Publish => (claims[node], did[node]) = (Some(HolderState::Ready), None),
                    Step::Stop(_) => (claims[node], did[node]) = (Some(HolderState::Failed), None),
                }
            }
            prop_assert!(did.iter().all(Option::is_none), "no two wait for each other");
        }
    }
}

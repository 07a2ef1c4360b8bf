//! Gossip in, members and ring out.

use proptest::prelude::*;

use super::*;
use crate::core::membership::{gone::GoneMembers, node_info::tests::facts, removals::RemoveError};

const DELAY: Duration = Duration::from_secs(60);
const BRAKE: MassFailurePolicy = MassFailurePolicy { share: 0.5, pause: Duration::from_secs(600) };

fn name(text: &str) -> NodeName {
    NodeName::new(text).unwrap()
}

fn seen(who: &str, incarnation: u64, alive: bool, state: AdvertisedState) -> Observation {
    Observation { name: name(who), incarnation, address: "127.0.0.1:1".parse().unwrap(), alive, facts: facts(state) }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ring_of(view: &View) -> Vec<&str> {
    view.ring().nodes().iter().map(NodeName::as_str).collect()
}

#[test]
fn a_member_stands_on_the_ring_when_it_serves() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let view = roster.observe(
        at(0),
        vec![seen("a", 1, true, AdvertisedState::Serving), seen("b", 1, true, AdvertisedState::Joining)],
    );
    assert_eq!(ring_of(&view.unwrap()), ["a"]);
    let both = vec![seen("a", 1, true, AdvertisedState::Serving), seen("b", 1, true, AdvertisedState::Serving)];
    assert_eq!(ring_of(&roster.observe(at(1), both.clone()).unwrap()), ["a", "b"]);
    assert!(roster.observe(at(2), both).is_none(), "nothing changed");
}

#[test]
fn the_dead_keep_their_place_until_the_repair_delay_is_over() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let b = |alive| vec![seen("a", 1, true, AdvertisedState::Serving), seen("b", 1, alive, AdvertisedState::Serving)];
    roster.observe(at(0), b(true));
    let view = roster.observe(at(10), b(false)).unwrap();
    assert!(!view.is_alive(&name("b")));
    assert_eq!(ring_of(&view), ["a", "b"]);
    assert!(roster.observe(at(69), b(false)).is_none());
    assert_eq!(ring_of(&roster.observe(at(70), b(false)).unwrap()), ["a"]);
}

#[test]
fn a_restart_within_the_delay_never_leaves_the_ring() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let a = seen("a", 1, true, AdvertisedState::Serving);
    roster.observe(at(0), vec![a.clone(), seen("b", 1, true, AdvertisedState::Serving)]);
    roster.observe(at(1), vec![a.clone(), seen("b", 1, false, AdvertisedState::Serving)]);
    let back = roster.observe(at(2), vec![a, seen("b", 2, true, AdvertisedState::Joining)]).unwrap();
    assert_eq!(ring_of(&back), ["a", "b"]);
}

#[test]
fn who_was_never_heard_from_is_a_dead_member_only_after_the_repair_delay() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let b = |alive| vec![seen("b", 1, alive, AdvertisedState::Serving)];
    assert!(roster.observe(at(0), b(false)).is_none());
    let view = roster.observe(at(3), b(true)).unwrap();
    assert_eq!(view.since(), at(3));

    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    assert!(roster.observe(at(0), b(false)).is_none());
    assert!(roster.observe(at(59), b(false)).is_none());
    let view = roster.observe(at(60), b(false)).unwrap();
    assert_eq!(view.member(&name("b")).unwrap().state, MemberState::Dead);
    assert!(ring_of(&view).is_empty());
    assert_eq!(view.brake(), None, "it was not lost now");
    assert!(roster.observe(at(61), b(false)).is_none(), "nothing changed");
}

fn remembered(who: &str, incarnation: u64, left: bool) -> Departed {
    let seen = seen(who, incarnation, false, if left { AdvertisedState::Left } else { AdvertisedState::Serving });
    Departed { seen, age: Duration::ZERO }
}

#[test]
fn a_member_that_others_remember_as_dead_is_a_dead_member_here_after_the_repair_delay() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let a = || vec![seen("a", 1, true, AdvertisedState::Serving)];
    roster.observe(at(0), a());
    let nothing = roster.gone_digest(at(0));
    roster.hear_of_gone(at(1), vec![remembered("b", 4, false), remembered("c", 1, true), remembered("a", 9, false)]);
    let heard = roster.gone_digest(at(1));
    assert_ne!(heard, nothing, "it counts as remembered, so that nobody is asked again");
    assert!(roster.observe(at(60), a()).is_none());
    let view = roster.observe(at(61), a()).unwrap();
    assert_eq!(view.member(&name("b")).map(|member| member.state), Some(MemberState::Dead));
    assert!(view.member(&name("c")).is_none(), "a goodbye of a stranger means nothing");
    assert_eq!((view.brake(), roster.gone_digest(at(61))), (None, heard));
    // One that turns up meanwhile is alive.
    roster.hear_of_gone(at(62), vec![remembered("d", 1, false)]);
    let d = [a(), vec![seen("d", 1, true, AdvertisedState::Serving)]].concat();
    roster.observe(at(63), d.clone());
    assert!(roster.observe(at(200), d).is_none(), "nothing changed");
    assert!(roster.view().is_alive(&name("d")));
}

#[test]
fn members_that_remember_the_same_dead_have_nothing_to_ask_each_other() {
    let mut here = Roster::new(name("a"), DELAY, BRAKE);
    let mut there = Roster::new(name("b"), DELAY, BRAKE);
    let pair = |digest| {
        let mut other = seen("b", 1, true, AdvertisedState::Serving);
        other.facts.gone = Some(digest);
        vec![seen("a", 1, true, AdvertisedState::Serving), other]
    };
    there.observe(at(0), vec![seen("c", 1, true, AdvertisedState::Serving)]);
    there.observe(at(1), vec![seen("c", 1, false, AdvertisedState::Serving)]);
    here.observe(at(1), pair(there.gone_digest(at(1))));
    assert_eq!(here.remembering_others(at(2)), [name("b")]);
    here.hear_of_gone(at(2), vec![remembered("c", 1, false)]);
    assert!(here.remembering_others(at(2)).is_empty());
    // What one has heard as a goodbye, the other corrects.
    there.hear_of_gone(at(3), vec![remembered("c", 1, true)]);
    assert_eq!(there.view().member(&name("c")).unwrap().state, MemberState::Left);
}

#[test]
fn who_was_removed_is_no_member_until_it_shows_a_sign_of_life() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let with = |incarnation, alive| {
        vec![seen("a", 1, true, AdvertisedState::Serving), seen("b", incarnation, alive, AdvertisedState::Serving)]
    };
    roster.observe(at(0), with(5, true));
    assert_eq!(roster.remove(at(1), &name("b")), Err(RemoveError::Alive(name("b"))));
    assert_eq!(roster.remove(at(1), &name("c")), Err(RemoveError::Unknown(name("c"))));
    roster.observe(at(2), with(5, false));
    roster.remove(at(3), &name("b")).unwrap();
    let view = roster.observe(at(4), with(5, false)).unwrap();
    assert!(view.member(&name("b")).is_none() && ring_of(&view) == ["a"], "although gossip still tells of it");
    roster.hear_of_gone(at(5), vec![remembered("b", 5, false), remembered("b", 4, false)]);
    assert!(roster.observe(at(5 + 2 * DELAY.as_secs()), with(5, false)).is_none(), "nor others that remember it");
    // A sign of life counts for more, also of the same start: it was cut off.
    for incarnation in [5, 6] {
        assert!(roster.observe(at(300), with(incarnation, true)).unwrap().is_alive(&name("b")));
        roster.hear_of_removals(at(301), vec![(name("b"), incarnation, at(9))]);
        assert!(roster.observe(at(302), with(incarnation, true)).is_none(), "while it lives, no removal counts");
    }
    // It died again: what was removed is an earlier start.
    let view = roster.observe(at(303), with(6, false)).unwrap();
    roster.hear_of_removals(at(304), vec![(name("b"), 5, at(9))]);
    assert_eq!(view.member(&name("b")).unwrap().state, MemberState::Dead);
    assert!(roster.observe(at(304), with(6, false)).is_none());
}

#[test]
fn a_death_is_as_old_here_as_where_it_was_seen() {
    let mut there = Roster::new(name("b"), DELAY, BRAKE);
    there.observe(at(0), vec![seen("c", 1, true, AdvertisedState::Serving)]);
    there.observe(at(1), vec![seen("c", 1, false, AdvertisedState::Serving)]);
    let GoneMembers { gone, .. } = there.departed(at(1_001));
    assert_eq!(gone.iter().map(|gone| (gone.name.as_str(), gone.age_s)).collect::<Vec<_>>(), [("c", 1_000)]);
    let mut here = Roster::new(name("a"), DELAY, BRAKE);
    let a = || vec![seen("a", 1, true, AdvertisedState::Serving)];
    here.observe(at(0), a());
    here.hear_of_gone(at(0), vec![Departed { seen: remembered("c", 1, false).seen, age: at(1_000) }]);
    here.observe(at(60), a());
    assert_eq!(here.dead_for(at(60), at(1_060)), [(name("c"), at(60))].into());
    assert!(here.dead_for(at(60), at(1_061)).is_empty());
    here.observe(at(61), [a(), vec![seen("c", 1, true, AdvertisedState::Serving)]].concat());
    here.observe(at(62), a());
    assert!(here.dead_for(at(63), at(2)).is_empty(), "it was alive meanwhile");
    here.hear_of_gone(at(100), vec![Departed { seen: remembered("c", 2, false).seen, age: at(5) }]);
    let listed = |age| here.dead_for(at(110), at(age)).into_keys().collect::<Vec<_>>();
    assert_eq!(listed(0), [], "it still has its place on the ring");
    here.observe(at(200), a());
    assert_eq!(here.dead_for(at(200), at(105)), [(name("c"), at(100))].into(), "it was started again meanwhile");
    assert!(here.dead_for(at(200), at(106)).is_empty());
}

proptest! {
    /// Members that see a few others live and die, remove the dead, and tell each other at random,
    /// agree in the end about which members are dead, list no member that was removed and not seen
    /// since, and then have nothing to ask each other.
    #[test]
    fn members_agree_about_the_dead_and_the_removed(
        steps in proptest::collection::vec((0..4u8, 0..3usize, 0..3usize, 0..4u8), 0..60),
    ) {
        let mut rosters: Vec<Roster> = ["a", "b", "c"].map(|who| Roster::new(name(who), DELAY, BRAKE)).into();
        let mut others = [(1, true); 4];
        let shown = |others: &[(u64, bool); 4]| -> Vec<Observation> {
            let live = others.iter().enumerate().filter(|(_, (_, alive))| *alive);
            live.map(|(at, (start, _))| seen(&format!("x{at}"), *start, true, AdvertisedState::Serving)).collect()
        };
        let tell = |rosters: &mut Vec<Roster>, from: usize, to: usize, now| {
            let GoneMembers { gone, removed } = rosters[from].departed(now);
            let removed = removed.into_iter().map(|gone| (gone.name, gone.incarnation, at(gone.age_s)));
            let removed = removed.collect();
            let gone = gone.into_iter().map(|gone| Departed {
                seen: seen(gone.name.as_str(), gone.incarnation, false, AdvertisedState::Serving),
                age: at(gone.age_s),
            });
            let gone = gone.collect();
            rosters[to].hear_of_removals(now, removed);
            rosters[to].hear_of_gone(now, gone);
        };
        let mut now = at(0);
        let mut removed = [0; 4];
        for (what, one, other, which) in steps {
            now += at(1);
            let (start, alive) = &mut others[usize::from(which)];
            match what {
                0 if *alive => *alive = false,
                0 => (*start, *alive) = (*start + 1, true),
                1 => {
                    let who = name(&format!("x{which}"));
                    let known = rosters[one].view().member(&who).map(|member| member.incarnation);
                    if rosters[one].remove(now, &who).is_ok() {
                        let removed = &mut removed[usize::from(which)];
                        *removed = known.unwrap().max(*removed);
                    }
                }
                2 => tell(&mut rosters, one, other, now),
                _ => drop(rosters[one].observe(now, shown(&others))),
            }
        }
        for _ in 0..3 {
            now += DELAY;
            for one in 0..3 {
                rosters[one].observe(now, shown(&others));
                (0..3).for_each(|other| tell(&mut rosters, one, other, now));
            }
        }
        let digests: Vec<u64> = rosters.iter().map(|roster| roster.gone_digest(now)).collect();
        prop_assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
        for (which, (start, alive)) in others.into_iter().enumerate() {
            let who = name(&format!("x{which}"));
            let listed: Vec<_> = rosters.iter().map(|roster| roster.view().is_alive(&who)).collect();
            prop_assert_eq!(listed, vec![alive; 3]);
            let dead: Vec<bool> = rosters.iter().map(|roster| roster.view().member(&who).is_some()).collect();
            prop_assert!(dead.iter().all(|one| *one == dead[0]), "{dead:?}");
            prop_assert!(alive || removed[which] < start || !dead[0], "{who} was removed and never seen since");
        }
    }
}

#[test]
fn observers_that_are_gone_are_forgotten_after_a_minute() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let mut observer = seen("o", 1, true, AdvertisedState::Serving);
    observer.facts.role = Role::Observer;
    let a = || vec![seen("a", 1, true, AdvertisedState::Serving)];
    roster.observe(at(0), [a(), vec![observer]].concat());
    assert!(roster.observe(at(1), a()).unwrap().member(&name("o")).is_some());
    assert!(roster.observe(at(1 + OBSERVER_GRACE.as_secs()), a()).unwrap().member(&name("o")).is_none());
}

#[test]
fn who_left_is_forgotten_after_a_day_unless_gossip_still_knows_it() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let a = || vec![seen("a", 1, true, AdvertisedState::Serving)];
    let both = |says| [a(), vec![seen("b", 1, true, says)]].concat();
    roster.observe(at(0), both(AdvertisedState::Serving));
    let view = roster.observe(at(1), both(AdvertisedState::Left)).unwrap();
    assert_eq!(view.member(&name("b")).unwrap().state, MemberState::Left);
    let day = GONE_GRACE.as_secs();
    assert!(roster.observe(at(day), a()).is_none());
    assert!(roster.observe(at(day + 1), both(AdvertisedState::Left)).is_none());
    assert!(roster.observe(at(day + 2), a()).unwrap().member(&name("b")).is_none());
}

#[test]
fn who_died_is_remembered_also_when_gossip_has_forgotten_it_unless_it_was_an_observer() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let a = || vec![seen("a", 1, true, AdvertisedState::Serving)];
    let mut observer = seen("o", 1, true, AdvertisedState::Serving);
    observer.facts.role = Role::Observer;
    roster.observe(at(0), [a(), vec![seen("b", 1, true, AdvertisedState::Serving), observer.clone()]].concat());
    roster.observe(at(1), a()).unwrap();
    let month = 30 * GONE_GRACE.as_secs();
    let view = roster.observe(at(month), a()).unwrap();
    assert_eq!(view.member(&name("b")).unwrap().state, MemberState::Dead);
    assert!(view.member(&name("o")).is_none());
    assert_eq!(ring_of(&view), ["a"]);
    // Nor is one taken in that was gone before.
    observer.alive = false;
    for later in [month, 2 * month] {
        assert!(roster.observe(at(later), [a(), vec![observer.clone()]].concat()).is_none());
    }
}

#[test]
fn those_lost_with_too_many_others_keep_their_place_until_enough_return() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let members = |alive: &str| -> Vec<Observation> {
        let seen = |who: &str| seen(who, 1, alive.contains(who), AdvertisedState::Serving);
        ["a", "b", "c"].map(seen).into()
    };
    roster.observe(at(0), members("abc"));
    let view = roster.observe(at(1), members("a")).unwrap();
    assert_eq!(view.brake().map(|brake| (brake.lost, brake.members)), Some((2, 3)));
    assert!(roster.observe(at(300), members("a")).is_none(), "long after the repair delay");
    let view = roster.observe(at(301), members("ab")).unwrap();
    assert_eq!((ring_of(&view), view.brake()), (vec!["a", "b", "c"], None), "one of three is an ordinary loss");
    assert!(roster.observe(at(359), members("ab")).is_none());
    assert_eq!(ring_of(&roster.observe(at(361), members("ab")).unwrap()), ["a", "b"]);
    let view = roster.observe(at(362), members("a")).unwrap();
    assert_eq!(view.brake(), None, "that c is gone was dealt with");
    assert_eq!(ring_of(&roster.observe(at(500), members("a")).unwrap()), ["a"]);
}

#[test]
fn those_lost_with_too_many_others_lose_their_place_in_the_end() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let all = |alive| ["a", "b", "c"].map(|who| seen(who, 1, alive || who == "a", AdvertisedState::Serving)).into();
    roster.observe(at(0), all(true));
    roster.observe(at(1), all(false));
    assert!(roster.observe(at(600), all(false)).is_none());
    let view = roster.observe(at(601), all(false)).unwrap();
    assert_eq!((ring_of(&view), view.brake()), (vec!["a"], None));
}

#[test]
fn goodbye_takes_effect_at_once() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    roster.observe(at(0), vec![seen("b", 1, true, AdvertisedState::Serving)]);
    let view = roster.observe(at(1), vec![seen("b", 1, true, AdvertisedState::Left)]).unwrap();
    assert_eq!(view.member(&name("b")).unwrap().state, MemberState::Left);
    assert!(ring_of(&view).is_empty());
}

#[test]
fn an_older_incarnation_never_replaces_a_newer_one() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    roster.observe(
        at(0),
        vec![seen("b", 5, true, AdvertisedState::Serving), seen("b", 4, true, AdvertisedState::Serving)],
    );
    roster.observe(at(1), vec![seen("b", 4, true, AdvertisedState::Serving)]);
    assert_eq!(roster.view().member(&name("b")).unwrap().incarnation, 5);
}

#[test]
fn of_what_the_live_members_say_of_a_hot_key_the_most_counts() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let says = |who, alive, extra| {
        let mut seen = seen(who, 1, alive, AdvertisedState::Serving);
        seen.facts.hot = [(Key::new("k").unwrap(), extra)].into();
        seen
    };
    let k = Key::new("k").unwrap();
    let view = roster.observe(at(0), vec![says("a", true, 1), says("b", true, 2)]).unwrap();
    assert_eq!((view.extra(&k), view.extra(&Key::new("j").unwrap())), (2, 0));
    let view = roster.observe(at(10), vec![says("a", true, 1), says("b", false, 2)]).unwrap();
    assert_eq!((view.extra(&k), view.since()), (1, at(10)));
    let view = roster.observe(at(20), vec![says("a", true, 3), says("b", false, 2)]).unwrap();
    assert_eq!((view.extra(&k), view.since()), (3, at(10)), "the members are the same");
}

#[test]
fn who_is_full_stays_on_the_ring_and_the_members_have_to_settle_again() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let b = |accepting| {
        let mut b = seen("b", 1, true, AdvertisedState::Serving);
        b.facts.accepting = accepting;
        vec![seen("a", 1, true, AdvertisedState::Serving), b]
    };
    roster.observe(at(0), b(true));
    let view = roster.observe(at(10), b(false)).unwrap();
    assert_eq!(ring_of(&view), ["a", "b"]);
    assert_eq!((view.since(), view.accepting().collect::<Vec<_>>()), (at(10), vec![&name("a")]));
    assert!(roster.observe(at(11), b(false)).is_none(), "nothing changed");
    let view = roster.observe(at(20), b(true)).unwrap();
    assert_eq!((view.since(), view.accepting().count()), (at(20), 2));
}

#[test]
fn who_serves_something_else_never_owns_and_who_says_nothing_may() {
    for (serves, expected) in [
        (Some(Serves::everywhere("files")), &["a"][..]),
        (Some(Serves::everywhere("git")), &["a", "b"]),
        (None, &["a", "b"]),
    ] {
        let mut roster = Roster::new(name("a"), DELAY, BRAKE).serving(facts(AdvertisedState::Serving).serves);
        let mut other = seen("b", 1, true, AdvertisedState::Serving);
        other.facts.serves = serves;
        let view = roster.observe(at(0), vec![seen("a", 1, true, AdvertisedState::Serving), other]).unwrap();
        assert_eq!(ring_of(&view), expected);
        assert_eq!(view.member(&name("b")).unwrap().serves_other, expected.len() == 1);
    }
}

#[test]
fn observers_and_the_weightless_never_own() {
    let mut roster = Roster::new(name("a"), DELAY, BRAKE);
    let mut observer = seen("o", 1, true, AdvertisedState::Serving);
    observer.facts.role = Role::Observer;
    let mut light = seen("w", 1, true, AdvertisedState::Serving);
    light.facts.weight = 0;
    let view = roster.observe(at(0), vec![observer, light, seen("a", 1, true, AdvertisedState::Serving)]).unwrap();
    assert_eq!(ring_of(&view), ["a"]);
    let marks: Vec<_> = roster.ledger_marks().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(marks, ["w"], "nobody waits for the ledger of an observer");
}

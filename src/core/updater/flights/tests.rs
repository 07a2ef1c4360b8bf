//! Who joins which flight, and what is remembered of those that failed.

use super::*;

const NOW: Duration = Duration::from_secs(100);
const ENSURE: Work = Work::Ensure { origin: Origin::Heeding };

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn admit(flights: &mut Flights<u32>, text: &str, reason: UpdateReason, waiter: u32) -> Admission {
    flights.admit(NOW, &key(text), ENSURE, reason, Some(waiter)).0
}

#[test]
fn a_key_flies_once_and_everyone_who_waits_is_handed_back() {
    let mut flights = Flights::new(10);
    assert_eq!(admit(&mut flights, "a", UpdateReason::Repair, 1), Admission::Start);
    assert_eq!(admit(&mut flights, "a", UpdateReason::Request, 2), Admission::Reprioritize);
    assert_eq!(flights.start_next(&key("a")), Some((ENSURE, UpdateReason::Request)));
    assert_eq!(flights.start_next(&key("a")), None, "the copy of lower priority finds it gone");
    assert_eq!(admit(&mut flights, "a", UpdateReason::Request, 3), Admission::Joined);
    assert_eq!(flights.finish_flight(&key("a")), (vec![1, 2, 3], None));
    assert_eq!(flights.counts(), (0, 0));
}

#[test]
fn what_is_asked_for_while_a_refresh_runs_is_one_more_of_them_after_it() {
    let mut flights = Flights::new(1);
    let refresh = |flights: &mut Flights<u32>, from: &[&str], waiter| {
        let from = from.iter().map(|name| crate::key::NodeName::new(name).unwrap()).collect();
        flights.admit(NOW, &key("a"), Work::Refresh { from }, UpdateReason::Refresh, Some(waiter))
    };
    assert_eq!(refresh(&mut flights, &[], 1), (Admission::Start, None));
    assert_eq!(refresh(&mut flights, &[], 2), (Admission::Joined, None), "it has not begun");
    flights.start_next(&key("a")).unwrap();
    assert_eq!(refresh(&mut flights, &["n1"], 3), (Admission::Joined, None));
    assert_eq!(refresh(&mut flights, &[], 4), (Admission::Joined, None));
    assert_eq!(admit(&mut flights, "a", UpdateReason::Request, 5), Admission::Joined);
    assert_eq!((flights.counts(), admit(&mut flights, "b", UpdateReason::Repair, 6)), ((1, 1), Admission::Full));
    assert_eq!(flights.finish_flight(&key("a")), (vec![1, 2, 5], Some(UpdateReason::Refresh)));
    assert_eq!(flights.start_next(&key("a")), Some((Work::Refresh { from: vec![] }, UpdateReason::Refresh)));
    assert_eq!(flights.finish_flight(&key("a")), (vec![3, 4], None));
    assert_eq!(flights.counts(), (0, 0));
}

#[test]
fn a_flight_that_no_request_waits_for_any_more_is_abandoned_unless_something_else_wants_it() {
    let mut flights = Flights::new(10);
    for (waiter, text) in ["left", "stays", "pinned", "runs"].iter().enumerate() {
        admit(&mut flights, text, UpdateReason::Request, u32::try_from(waiter).unwrap());
    }
    flights.admit(NOW, &key("pinned"), ENSURE, UpdateReason::Repair, None);
    flights.admit(NOW, &key("refreshed"), Work::Refresh { from: vec![] }, UpdateReason::Refresh, Some(9));
    flights.start_next(&key("runs")).unwrap();
    let is_there = |waiter: &u32| *waiter == 1;
    let expected = vec![(key("left"), false), (key("runs"), true)];
    assert_eq!(flights.abandoned(is_there), expected);
    assert_eq!(admit(&mut flights, "left", UpdateReason::Request, 1), Admission::Joined);
    assert_eq!(flights.abandoned(is_there), expected[1..]);
    flights.put_back(&key("runs"));
    assert_eq!(flights.abandoned(is_there), [(key("runs"), false)]);
    assert_eq!(flights.finish_flight(&key("runs")), (vec![], None));
    assert_eq!(flights.counts(), (4, 0));
}

#[test]
fn a_full_queue_gives_the_waiter_back() {
    let mut flights = Flights::new(1);
    assert_eq!(admit(&mut flights, "a", UpdateReason::Repair, 1), Admission::Start);
    let (admission, waiter) = flights.admit(NOW, &key("b"), ENSURE, UpdateReason::Request, Some(2));
    assert_eq!((admission, waiter), (Admission::Full, Some(2)));
    flights.start_next(&key("a")).unwrap();
    assert_eq!(admit(&mut flights, "b", UpdateReason::Request, 2), Admission::Start);
}

#[test]
fn failures_are_remembered_longer_each_time_and_forgotten_on_success() {
    let mut flights = Flights::<u32>::new(10);
    let failed = Ensured::NotFound;
    let first = flights.remember_failure(NOW, &key("a"), &ENSURE, failed.clone(), 0.0);
    let second = flights.remember_failure(NOW, &key("a"), &ENSURE, failed.clone(), 0.0);
    assert_eq!(second, first * 2);
    assert_eq!(admit(&mut flights, "a", UpdateReason::Request, 1), Admission::Known(failed));
    let later = NOW + second;
    let (admission, _) = flights.admit(later, &key("a"), ENSURE, UpdateReason::Request, Some(1));
    assert_eq!(admission, Admission::Start);
    flights.forget(&key("a"));
    assert!(flights.expiries.is_empty());
}

#[test]
fn failing_to_copy_from_peers_turns_nobody_away_who_may_ask_the_origin() {
    let mut flights = Flights::<u32>::new(10);
    let copy = Work::Ensure { origin: Origin::Never };
    flights.remember_failure(NOW, &key("a"), &copy, Ensured::Pending, 0.0);
    let (admission, _) = flights.admit(NOW, &key("a"), copy, UpdateReason::Repair, None);
    assert_eq!(admission, Admission::Known(Ensured::Pending));
    assert_eq!(admit(&mut flights, "a", UpdateReason::Request, 1), Admission::Start);
}

#[test]
fn an_origin_is_left_alone_as_long_as_it_asks_unless_it_is_to_be_asked_afresh() {
    let mut flights = Flights::<u32>::new(10);
    let known = Ensured::Pending;
    flights.remember_later(NOW, &key("a"), known.clone(), Duration::from_secs(30));
    let later = NOW + Duration::from_secs(29);
    let (admission, _) = flights.admit(later, &key("a"), ENSURE, UpdateReason::Request, None);
    assert_eq!(admission, Admission::Known(known));
    let afresh = Work::Ensure { origin: Origin::Afresh };
    let (admission, _) = flights.admit(later, &key("a"), afresh, UpdateReason::Request, Some(1));
    assert_eq!(admission, Admission::Start);
    flights.finish_flight(&key("a"));
    flights.remember_later(NOW, &key("a"), Ensured::Pending, LATER_MAX * 9);
    let (admission, _) = flights.admit(NOW + LATER_MAX, &key("a"), ENSURE, UpdateReason::Request, Some(1));
    assert_eq!(admission, Admission::Start, "no origin is left alone for longer than that");
}

#[test]
fn who_asks_afresh_is_not_content_with_a_fetch_that_began_before() {
    let mut flights = Flights::new(10);
    admit(&mut flights, "a", UpdateReason::Request, 1);
    flights.start_next(&key("a")).unwrap();
    let afresh = Work::Ensure { origin: Origin::Afresh };
    let (admission, _) = flights.admit(NOW, &key("a"), afresh.clone(), UpdateReason::Request, Some(2));
    assert_eq!(admission, Admission::Joined);
    flights.remember_absence(NOW, &key("a"), PAUSE_MAX);
    assert_eq!(flights.finish_flight(&key("a")), (vec![1], Some(UpdateReason::Request)));
    assert_eq!(flights.start_next(&key("a")), Some((afresh, UpdateReason::Request)));
    assert_eq!(flights.finish_flight(&key("a")), (vec![2], None));
}

#[test]
fn the_pause_has_a_ceiling() {
    let mut flights = Flights::<u32>::new(10);
    for _ in 0..100 {
        assert!(flights.remember_failure(NOW, &key("a"), &ENSURE, Ensured::NotFound, 0.999) <= PAUSE_MAX);
    }
}

#[test]
fn requests_are_put_off_for_a_few_seconds_at_most() {
    let mut flights = Flights::<u32>::new(10);
    for _ in 0..100 {
        flights.remember_failure(NOW, &key("a"), &ENSURE, Ensured::Pending, 0.5);
    }
    let later = NOW + REQUEST_PAUSE_MAX;
    let (admission, _) = flights.admit(later, &key("a"), ENSURE, UpdateReason::Repair, None);
    assert_eq!(admission, Admission::Known(Ensured::Pending), "nobody waits for a repair");
    let (admission, _) = flights.admit(later, &key("a"), ENSURE, UpdateReason::Request, Some(1));
    assert_eq!(admission, Admission::Start);
}

#[test]
fn a_removal_gives_way_to_somebody_who_wants_the_key() {
    let mut flights = Flights::<u32>::new(10);
    flights.admit(NOW, &key("a"), Work::Remove, UpdateReason::Rebalance, None);
    admit(&mut flights, "a", UpdateReason::Request, 1);
    assert_eq!(flights.start_next(&key("a")), Some((ENSURE, UpdateReason::Request)));
}

#[test]
fn memory_of_failures_is_bounded() {
    let mut flights = Flights::<u32>::new(10);
    for number in 0..MEMORIES_MAX + 10 {
        flights.remember_absence(NOW + Duration::from_millis(number as u64), &key(&number.to_string()), NOW);
    }
    assert_eq!(flights.memories.len(), MEMORIES_MAX);
    assert!(!flights.memories.contains_key(&key("0")), "the one that expires first went first");
}

#[test]
fn what_went_wrong_last_is_known_since_the_first_time_until_it_goes_right() {
    let mut flights = Flights::<u32>::new(10);
    let (second, refused) = (Duration::from_secs(1), Ensured::Forbidden("rule".into()));
    flights.remember_failure(NOW, &key("a"), &ENSURE, Ensured::Pending, 0.0);
    flights.remember_refusal(NOW + second, &key("a"), refused.clone(), second);
    assert_eq!(flights.trouble(&key("a")), Some((&refused, NOW)));
    let (admission, _) = flights.admit(NOW + second, &key("a"), ENSURE, UpdateReason::Request, Some(1));
    assert_eq!(admission, Admission::Known(refused), "the origin is not asked again so soon");
    let (admission, _) = flights.admit(NOW + 2 * second, &key("a"), ENSURE, UpdateReason::Request, Some(1));
    assert_eq!(admission, Admission::Start);
    flights.forget(&key("a"));
    assert_eq!(flights.trouble(&key("a")), None);
}

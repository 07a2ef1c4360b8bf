//! The cases that the design of ledgers is about, one by one.

use super::*;
use crate::core::registry::ledger::Applied;

fn options(tombstones_kept_min: usize) -> LedgerOptions {
    LedgerOptions { tombstones_kept_min, ..LedgerOptions::default() }
}

fn writer(names: std::ops::Range<u8>) -> LedgerWriter {
    let mut writer = LedgerWriter::new(Incarnation(1), options(0));
    for name in names {
        writer.set(&key(name), ClaimState::Ready);
    }
    writer
}

fn follow(copy: &mut Ledger, sender: &Ledger, limit: usize) -> Applied {
    copy.apply(sender.delta_since(&copy.position(), limit).expect("something new")).unwrap()
}

#[test]
fn nothing_changes_nothing() {
    let mut writer = writer(0..2);
    assert_eq!(writer.set(&key(0), ClaimState::Ready), None);
    assert_eq!(writer.remove(&key(7)), None);
    assert_eq!(writer.mark_scanned(), Some(Version(3)));
    assert_eq!(writer.mark_scanned(), None);
    assert_eq!(writer.ledger().version(), Version(3));
}

#[test]
fn a_follower_that_is_there_is_told_nothing() {
    let writer = writer(0..3);
    let mut copy = Ledger::new(options(0));
    follow(&mut copy, writer.ledger(), 100);
    assert_eq!(writer.ledger().delta_since(&copy.position(), 100), None);
    assert_eq!(copy.delta_since(&writer.ledger().position(), 100), None);
}

#[test]
fn an_empty_ledger_still_tells_its_incarnation() {
    let writer = writer(0..0);
    let mut copy = Ledger::new(options(0));
    assert!(!copy.is_complete());
    assert_eq!(copy.delta_since(&Position::default(), 9), None);
    assert_eq!(follow(&mut copy, writer.ledger(), 9).outcome, Outcome::StartedOver);
    assert!(copy.is_complete());
    assert_eq!(writer.ledger().delta_since(&copy.position(), 9), None);
}

#[test]
fn a_follower_below_the_floor_starts_over_and_loses_what_was_removed() {
    let mut writer = writer(0..3);
    let mut copy = Ledger::new(options(0));
    follow(&mut copy, writer.ledger(), 100);
    writer.remove(&key(1));
    let delta = writer.ledger().delta_since(&copy.position(), 100).unwrap();
    assert_eq!((delta.from, delta.floor), (Version(0), Version(4)));
    let applied = copy.apply(delta).unwrap();
    assert_eq!((applied.outcome, applied.discarded.len()), (Outcome::StartedOver, 3));
    assert_eq!(copy.claim(&key(1)), None);
    assert_eq!(copy.digest(), writer.ledger().digest());
}

#[test]
fn a_late_beginner_resumes_in_the_middle_though_it_is_below_the_floor() {
    let mut writer = writer(0..8);
    writer.remove(&key(7));
    let mut copy = Ledger::new(options(0));
    follow(&mut copy, writer.ledger(), 3);
    assert!(copy.version() < Version(9) && !copy.is_complete());
    writer.set(&key(9), ClaimState::Ready);
    assert_eq!(follow(&mut copy, writer.ledger(), 3).outcome, Outcome::Continued);
}

#[test]
fn a_relay_that_is_catching_up_does_not_pass_for_complete() {
    let writer = writer(0..8);
    let (mut relay, mut copy) = (Ledger::new(options(0)), Ledger::new(options(0)));
    follow(&mut relay, writer.ledger(), 3);
    follow(&mut copy, &relay, 100);
    assert_eq!(copy.version(), relay.version());
    assert!(!copy.is_complete());
    follow(&mut copy, writer.ledger(), 100);
    assert!(copy.is_complete());
}

#[test]
fn a_beginner_takes_nothing_from_who_is_behind_its_base() {
    let mut writer = writer(0..8);
    let (mut behind, mut copy) = (Ledger::new(options(0)), Ledger::new(options(0)));
    follow(&mut behind, writer.ledger(), 100);
    writer.remove(&key(6));
    follow(&mut copy, writer.ledger(), 2);
    assert_eq!(behind.delta_since(&copy.position(), 100), None, "it still has what was removed");
    let stray = behind.delta_since(&Position { base: Version(0), ..copy.position() }, 100).unwrap();
    assert_eq!(copy.apply(stray).unwrap().outcome, Outcome::Stale);
    follow(&mut copy, writer.ledger(), 100);
    assert_eq!(copy.digest(), writer.ledger().digest());
}

#[test]
fn a_gap_is_refused_and_changes_nothing() {
    let mut writer = writer(0..2);
    let mut copy = Ledger::new(options(0));
    let first = writer.ledger().delta_since(&Position::default(), 100).unwrap();
    let ahead = writer.ledger().position();
    writer.set(&key(2), ClaimState::Ready);
    let second = writer.ledger().delta_since(&ahead, 100).unwrap();
    let gap = ApplyError::Gap { incarnation: Incarnation(1), from: Version(2) };
    assert_eq!(copy.apply(second.clone()), Err(gap));
    assert_eq!(copy.position(), Position::default());
    for delta in [first.clone(), second.clone()] {
        assert_ne!(copy.apply(delta).unwrap().outcome, Outcome::Stale);
    }
    for delta in [first, second] {
        assert_eq!(copy.apply(delta).unwrap().outcome, Outcome::Stale);
    }
}

#[test]
fn a_malformed_delta_is_refused() {
    let good = writer(0..3).ledger().delta_since(&Position::default(), 100).unwrap();
    let spoil: [fn(&mut Delta); 8] = [
        |delta| delta.incarnation = Incarnation(0),
        |delta| delta.from = Version(9),
        |delta| delta.to = Version(9),
        |delta| delta.reach = Version(9),
        |delta| delta.floor = Version(9),
        |delta| delta.scanned = Some(Version(9)),
        |delta| delta.changes.swap(0, 1),
        |delta| delta.changes[2].version = Version(9),
    ];
    for (number, spoil) in spoil.into_iter().enumerate() {
        let (mut copy, mut bad) = (Ledger::new(options(0)), good.clone());
        spoil(&mut bad);
        assert!(matches!(copy.apply(bad), Err(ApplyError::Malformed(_))), "{number}");
        assert_eq!(copy.position(), Position::default());
    }
}

#[test]
fn tombstones_stay_bounded() {
    let mut writer = LedgerWriter::new(Incarnation(1), options(16));
    for name in 0..2000u32 {
        let key = Key::new(format!("k{name}")).unwrap();
        writer.set(&key, ClaimState::Ready);
        writer.remove(&key);
    }
    let all = writer.ledger().delta_since(&Position::default(), usize::MAX).unwrap();
    assert_eq!((all.changes.len(), all.floor), (16, Version(4000 - 16 * 2)));
}

#[test]
fn a_restart_moves_nothing_until_the_scan_ends() {
    let mut before = writer(0..3);
    before.set(&key(3), ClaimState::Fetching);
    let mut replica = Replica::new(options(0));
    let feed = |replica: &mut Replica, writer: &LedgerWriter| {
        let delta = writer.ledger().delta_since(&replica.ledger().position(), 100).unwrap();
        let changes = replica.apply(delta).unwrap();
        changes.into_iter().map(|change| (change.key, change.after)).collect::<BTreeMap<_, _>>()
    };
    feed(&mut replica, &before);

    let mut after = LedgerWriter::new(Incarnation(2), options(0));
    after.set(&key(0), ClaimState::Ready);
    let presumed = Some(HolderState::Presumed);
    let expected = [(key(0), Some(HolderState::Ready)), (key(1), presumed), (key(2), presumed), (key(3), None)];
    assert_eq!(feed(&mut replica, &after), expected.into());

    after.set(&key(1), ClaimState::Fetching);
    assert_eq!(feed(&mut replica, &after), [(key(1), Some(HolderState::Fetching))].into());
    assert_eq!(replica.state(&key(2)), presumed);

    after.mark_scanned();
    assert_eq!(feed(&mut replica, &after), [(key(2), None)].into());
    assert_eq!(replica.count(HolderState::Presumed), 0);
}

#[test]
fn a_repeated_claim_reports_what_it_was_before() {
    let mut writer = writer(0..1);
    let mut copy = Ledger::new(options(0));
    follow(&mut copy, writer.ledger(), 9);
    writer.set(&key(0), ClaimState::failed("disk", 1));
    let applied = follow(&mut copy, writer.ledger(), 9);
    let (before, after) = (Some(HolderState::Ready), Some(HolderState::Failed));
    assert_eq!(applied.changed, [Changed { key: key(0), before, after }]);
}

#[test]
fn the_digest_is_the_same_on_every_platform() {
    assert_eq!(writer(0..3).ledger().digest(), 8_978_061_578_703_061_565);
}

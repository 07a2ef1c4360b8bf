//! What a node is about to do with one key, and what it waits for, in words. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{plan::Action, watermarks::DiskPressure};

/// What a node intends to do with one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedAction {
    /// What.
    pub action: IntendedAction,
    /// Why not yet, if something stands in the way.
    pub waits_for: Option<String>,
}

/// What a node may intend to do with a key on its own account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum IntendedAction {
    /// All is as it should be here.
    Nothing,
    /// Copy it from a node that has it.
    Copy,
    /// Fetch the key from the origin, because no node has it.
    Fetch,
    /// Let this node's copy go, because the owners have theirs.
    Release,
}

/// What may stand in the way.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Blockers {
    pub(crate) draining: bool,
    pub(crate) scanning: bool,
    /// Until members or their room have not changed for long enough.
    pub(crate) settling: Option<Duration>,
    /// Until this node may begin to repair, since not all do at once.
    pub(crate) holding: Option<Duration>,
    /// Until it is tried again after a failure.
    pub(crate) back_off: Option<Duration>,
    /// Until a surplus copy may go.
    pub(crate) trim: Option<Duration>,
    /// It is being worked on.
    pub(crate) running: bool,
    /// Keys before it in the queue.
    pub(crate) ahead: Option<usize>,
}

/// What is intended if nothing stands in the way is `wish`; then, what does. `under_replicated`: the wish is a repair.
pub(crate) fn intention(
    wish: Action,
    under_replicated: bool,
    room: DiskPressure,
    obstacles: Blockers,
) -> PlannedAction {
    let action = match wish {
        Action::Nothing => IntendedAction::Nothing,
        Action::Copy => IntendedAction::Copy,
        Action::Fetch => IntendedAction::Fetch,
        Action::Trim => IntendedAction::Release,
    };
    let waits_for = (wish != Action::Nothing).then(|| obstacle(wish, under_replicated, room, obstacles)).flatten();
    PlannedAction { action, waits_for }
}

fn obstacle(wish: Action, under_replicated: bool, room: DiskPressure, obstacles: Blockers) -> Option<String> {
    let Blockers { draining, scanning, settling, holding, back_off, trim, running, ahead } = obstacles;
    let takes = matches!(wish, Action::Copy | Action::Fetch);
    let seconds = |left: Duration| format!("{:.1} s", left.as_secs_f64());
    if draining {
        return Some("it is on its way out of service".into());
    }
    if scanning {
        return Some("its own disk has not been read to the end; the key may be there".into());
    }
    if let Some(left) = settling {
        return Some(format!("the members changed lately: for {}", seconds(left)));
    }
    if takes && room == DiskPressure::Full {
        return Some("its disk is full: it takes no new keys".into());
    }
    if takes && room == DiskPressure::High && !under_replicated {
        return Some("there is little room on its disk, and the key has its replicas elsewhere".into());
    }
    if takes && running {
        return Some("it is under way".into());
    }
    if takes && let Some(left) = back_off {
        return Some(format!("the last attempt failed; the next one is in {}", seconds(left)));
    }
    if takes && let Some(left) = holding {
        return Some(format!("members were lost, and not all repair at once: for {}", seconds(left)));
    }
    match (takes, ahead, trim) {
        (true, Some(0), _) => Some("it is next in the queue".into()),
        (true, Some(ahead), _) => Some(format!("{ahead} keys are before it in the queue")),
        (false, _, Some(left)) if left.is_zero() => Some("all owners have to vouch for their copies".into()),
        (false, _, Some(left)) => Some(format!("the trim delay: {}, then all owners have to vouch", seconds(left))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn says(wish: Action, room: DiskPressure, obstacles: Blockers) -> Option<String> {
        intention(wish, false, room, obstacles).waits_for
    }

    #[test]
    fn who_wants_nothing_waits_for_nothing() {
        let obstacles = Blockers { draining: true, settling: Some(SECOND), ahead: Some(3), ..Blockers::default() };
        assert_eq!(says(Action::Nothing, DiskPressure::Full, obstacles), None);
        assert_eq!(says(Action::Copy, DiskPressure::Low, Blockers::default()), None);
    }

    #[test]
    fn the_first_thing_in_the_way_is_named() {
        let mut obstacles = Blockers {
            draining: true,
            settling: Some(SECOND),
            back_off: Some(2 * SECOND),
            holding: Some(3 * SECOND),
            ahead: Some(7),
            ..Blockers::default()
        };
        let mut said = Vec::new();
        let steps: [fn(&mut Blockers); 5] = [
            |o| o.draining = false,
            |o| o.settling = None,
            |o| o.back_off = None,
            |o| o.holding = None,
            |o| o.ahead = Some(0),
        ];
        for step in steps {
            said.push(says(Action::Copy, DiskPressure::Low, obstacles).unwrap());
            step(&mut obstacles);
        }
        said.push(says(Action::Copy, DiskPressure::Low, obstacles).unwrap());
        for (said, expected) in
            said.iter().zip(["out of service", "changed lately: for 1.0 s", "in 2.0 s", "for 3.0 s", "7 keys", "next"])
        {
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn little_room_holds_back_moves_and_no_room_everything_that_takes_some() {
        let obstacles = Blockers::default();
        let waits = |wish, repair, room| intention(wish, repair, room, obstacles).waits_for.is_some();
        assert!(waits(Action::Copy, false, DiskPressure::High) && !waits(Action::Copy, true, DiskPressure::High));
        assert!(waits(Action::Copy, true, DiskPressure::Full) && waits(Action::Fetch, true, DiskPressure::Full));
        assert!(!waits(Action::Trim, false, DiskPressure::Full));
    }

    #[test]
    fn a_surplus_copy_waits_for_its_delay_and_then_for_the_owners() {
        let left = |left| Blockers { trim: Some(left), ..Blockers::default() };
        assert!(says(Action::Trim, DiskPressure::Low, left(SECOND)).unwrap().contains("1.0 s"));
        assert!(says(Action::Trim, DiskPressure::Low, left(Duration::ZERO)).unwrap().contains("vouch"));
    }
}

//! 12: once healed, the core has the same pins everywhere, and what was acknowledged last holds.

use std::collections::BTreeMap;

use datad_gossip::key::{Key, NodeName};

use crate::model::{CoreSeen, Intended, RequestKind, Violation};

/// Compares the pins of all nodes with each other and with what was acknowledged.
///
/// # Errors
/// They differ.
pub fn check(core: &CoreSeen, intents: &[Intended]) -> Result<(), Violation> {
    let differ = |detail: String| Err(Violation::liveness(12, detail));
    let mut first: Option<BTreeMap<Key, usize>> = None;
    for (name, _, pins) in core.words()? {
        let pins: BTreeMap<Key, usize> = pins.iter().map(|pin| (pin.key.clone(), pin.replicas)).collect();
        let of_first = first.get_or_insert_with(|| pins.clone());
        if *of_first != pins {
            return differ(format!("{name} has the pins {pins:?}, another {of_first:?}"));
        }
    }
    let pins = first.unwrap_or_default();
    for key in &core.keys {
        let Some(last) = undisputed(core, intents, key) else { continue };
        if (last.kind == RequestKind::Pin) != pins.contains_key(key) {
            return differ(format!("{key} is pinned {:?}, but acknowledged was {last:?}", pins.get(key)));
        }
    }
    Ok(())
}

/// The last intent about `key`, if it was acknowledged, no other was under way with it, one of the disks of the core that
/// it was on then has not been lost since, and the clocks can tell that it was the last: they are right, or whoever wrote
/// it down knew of those before it.
fn undisputed<'a>(core: &CoreSeen, intents: &'a [Intended], key: &Key) -> Option<&'a Intended> {
    let mut uttered = intents.iter().filter(|intended| intended.key == *key).rev();
    let last = uttered.next()?;
    let (_, confirmed) = last.ended.as_ref()?;
    let is_kept = |name: &NodeName| core.kept_disk_since(name, last.began);
    let knew = |other: &Intended, known: &[NodeName]| {
        known.iter().any(|name| confirmed.contains(name) && core.kept_disk_since(name, other.began))
    };
    let before = |other: &Intended| {
        let Some((ended, known)) = &other.ended else { return false };
        *ended < last.began && (core.clocks_are_right || knew(other, known))
    };
    (uttered.all(before) && confirmed.iter().any(is_kept)).then_some(last)
}

//! Makes a failing script smaller while it still fails: delta debugging (Zeller and Hildebrandt, "Simplifying and
//! isolating failure-inducing input", 2002) over its faults, then its requests, then its length.

use std::time::Duration;

use super::Script;

/// How much of a script is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Faults.
    pub faults: usize,
    /// Requests.
    pub requests: usize,
}

/// The size of a script.
#[must_use]
pub fn size(script: &Script) -> Size {
    Size { faults: script.faults.len(), requests: script.requests.len() }
}

/// The smallest script that was found for which `fails` still holds. `fails` holds for `script`, whose traffic has been
/// expanded into requests.
pub fn shrink(script: Script, fails: &mut dyn FnMut(&Script) -> bool) -> Script {
    let mut script = script;
    loop {
        let before = size(&script);
        script = minimize(script, |script| &mut script.faults, fails);
        script = minimize(script, |script| &mut script.requests, fails);
        if size(&script) == before {
            return shorten(script, fails);
        }
    }
}

/// Removes parts of a list, large ones first, as long as that keeps it failing.
fn minimize<T: Clone>(
    script: Script,
    list: fn(&mut Script) -> &mut Vec<T>,
    fails: &mut dyn FnMut(&Script) -> bool,
) -> Script {
    let mut script = script;
    let mut part = list(&mut script).len();
    while part > 0 {
        let mut from = 0;
        while from < list(&mut script).len() {
            let mut smaller = script.clone();
            let items = list(&mut smaller);
            let to = items.len().min(from + part);
            items.drain(from..to);
            if smaller.check().is_ok() && fails(&smaller) {
                script = smaller;
            } else {
                from += part;
            }
        }
        part /= 2;
    }
    script
}

/// Ends the script soon after the last thing that happens in it.
fn shorten(script: Script, fails: &mut dyn FnMut(&Script) -> bool) -> Script {
    let ends = script.faults.iter().map(|fault| fault.at + fault.lasts.unwrap_or_default());
    let last = ends.chain(script.requests.iter().map(|request| request.at)).max().unwrap_or_default();
    let mut shorter = script.clone();
    shorter.lasts = script.lasts.min(last + Duration::from_secs(1));
    if shorter.lasts < script.lasts && fails(&shorter) { shorter } else { script }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::{
        FaultKind,
        draw::{Shape, draw},
    };

    #[test]
    fn only_what_is_needed_to_fail_is_left() {
        let shape = Shape { nodes: 5, lasts: Duration::from_secs(300) };
        let of_kind =
            |script: &Script, kind: &str| script.faults.iter().filter(|fault| fault.kind.name() == kind).count();
        let script = (0..).map(|seed| draw(seed, &shape)).find(|script| of_kind(script, "pause") > 1).unwrap();
        let wanted = script.requests[script.requests.len() / 2].clone();
        let mut runs = 0;
        let mut fails = |script: &Script| {
            runs += 1;
            of_kind(script, "pause") > 0 && script.requests.contains(&wanted)
        };
        let small = shrink(script, &mut fails);
        assert_eq!(size(&small), Size { faults: 1, requests: 1 }, "after {runs} runs");
        assert!(matches!(small.faults[0].kind, FaultKind::Pause { .. }));
        assert!(runs < 300, "{runs} runs");
    }
}

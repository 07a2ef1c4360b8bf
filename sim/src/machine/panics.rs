//! Panics inside simulated nodes. Tokio catches them in the task they happen in; a run has to know of them all the same,
//! because a node that panics by itself is broken even if its supervisor mends it.

use std::{cell::RefCell, panic, sync::Once};

thread_local! {
    static SEEN: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// What actors say that were made to panic.
const TOLD: &str = "was told to fail";

/// From now on, panics on this thread are collected instead of printed.
pub fn collect() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let text = info.to_string();
            let taken = SEEN.try_with(|seen| match seen.try_borrow_mut().as_deref_mut() {
                Ok(Some(seen)) => {
                    seen.push(text);
                    true
                }
                _ => false,
            });
            if !taken.unwrap_or(false) {
                usual(info);
            }
        }));
    });
    SEEN.set(Some(Vec::new()));
}

/// The first panic since the last call that nobody asked for.
#[must_use]
pub fn unasked() -> Option<String> {
    let seen = SEEN.with_borrow_mut(|seen| seen.as_mut().map(std::mem::take).unwrap_or_default());
    seen.into_iter().find(|text| !text.contains(TOLD))
}

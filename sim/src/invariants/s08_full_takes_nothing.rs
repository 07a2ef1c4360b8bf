//! 8: a node whose disk is full gets no new keys.

use std::time::Duration;

use datad_gossip::key::Key;

use crate::model::Violation;

/// What was about to begin when the node was told may still begin.
const GRACE: Duration = Duration::from_secs(1);

/// Judges that the node of `machine`, which was told so long ago that its disk is full, begins to fetch or copy `key`.
/// `has_it`: so it is only brought up to date.
///
/// # Errors
/// It is new there.
pub fn check(machine: &str, key: &Key, full_for: Option<Duration>, has_it: bool) -> Result<(), Violation> {
    match full_for.filter(|full_for| *full_for > GRACE && !has_it) {
        Some(full_for) => {
            let detail = format!("{machine} takes {key}, although its disk has been full for {full_for:?}");
            Err(Violation::safety(8, detail))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_on_a_full_disk_is_found_and_an_update_of_an_old_one_is_not() {
        let key = Key::new("a").unwrap();
        let judge = |seconds: Option<u64>, has_it| check("n1", &key, seconds.map(Duration::from_secs), has_it);
        assert_eq!(judge(Some(2), false).unwrap_err().property, 8);
        assert_eq!([judge(Some(2), true), judge(Some(1), false), judge(None, false)], [Ok(()), Ok(()), Ok(())]);
    }
}

//! How many files this process may have open, and what they are for.
//!
//! Each connection of a client, each file that is served and each program that runs takes some of them. When there are
//! none left nothing can be written down, so clients and programs get shares that leave the rest to the node itself:
//! its sockets, the catalog's log, and what is being fetched.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for the node itself: runtime, sockets, locks, the catalog's log.
const OWN: u64 = 36;
/// What one exchange with git takes: pipes with both of their ends, and the process.
const PER_EXCHANGE: u64 = 8;
/// What a client takes: its connection, and the file that it is sent.
const PER_CONNECTION: u64 = 2;
/// As many as the gateway and the git provider have by default.
const CONNECTIONS_MAX: u64 = 16_384;
const EXCHANGES_MAX: u64 = 64;

/// What may be open at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shares {
    /// Connections of clients.
    pub(super) connections: usize,
    /// Requests that git answers.
    pub(super) exchanges: usize,
}

/// Allows this process as many open files as it can be allowed. Best effort: what it has is shared out anyway.
pub(super) fn raise() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// How the open files of this process are shared out.
pub(super) fn shares() -> Shares {
    shares_of(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

fn shares_of(files: u64) -> Shares {
    let rest = files.saturating_sub(OWN);
    let exchanges = (rest / 4 / PER_EXCHANGE).clamp(1, EXCHANGES_MAX);
    let connections = (rest.saturating_sub(exchanges * PER_EXCHANGE) / PER_CONNECTION).clamp(4, CONNECTIONS_MAX);
    let number = |count: u64| usize::try_from(count).expect("bounded above");
    Shares { connections: number(connections), exchanges: number(exchanges) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_out_leaves_the_node_its_own() {
        for files in [64, 100, 256, 1_024, 4_096, 20_000] {
            let Shares { connections, exchanges } = shares_of(files);
            let taken = connections as u64 * PER_CONNECTION + exchanges as u64 * PER_EXCHANGE;
            assert!(taken + OWN <= files, "{files}");
            assert!(connections >= 4 && exchanges >= 1);
        }
        let plenty = Shares { connections: 16_384, exchanges: 64 };
        assert_eq!((shares_of(1 << 20), shares_of(u64::MAX)), (plenty, plenty));
        assert_eq!(shares_of(0), Shares { connections: 4, exchanges: 1 });
    }

    #[test]
    fn the_limit_of_this_process_becomes_the_highest_that_it_may_have() {
        let before = getrlimit(Resource::Nofile);
        let lower = before.maximum.map_or(256, |maximum| maximum.min(256));
        setrlimit(Resource::Nofile, Rlimit { current: Some(lower), ..before }).unwrap();
        raise();
        assert_eq!(getrlimit(Resource::Nofile).current, before.maximum);
    }
}

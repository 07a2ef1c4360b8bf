//! What git meant when it failed, read from what it wrote. Pure.
//!
//! git says everything by one exit status, so its words decide what the cluster does next: remember that there is no
//! such repository, try again soon, or give up. It runs with `LC_ALL=C`, which keeps these words as they have been for
//! years. Lines that begin with `remote:` come from the other side and decide nothing.

use crate::{provider::UpdateError, providers::credentials::scrub};

/// Longest part of git's words that is passed on.
const MESSAGE_CHARS_MAX: usize = 600;

/// The origin has no such repository, or none that it would show us: hosts answer the same for private ones.
const MISSING: &[&str] = &[
    "not found",
    "does not appear to be a git repository",
    "does not exist",
    "not valid: is this a git repository?",
    "terminal prompts disabled",
    "could not read username",
    "could not read password",
    "authentication failed",
    "returned error: 401",
    "returned error: 404",
    "returned error: 410",
    "returned error: 451",
];

/// Words that look like the ones above but come from a trouble on the way or on this machine.
const NOT_MISSING: &[&str] = &["could not resolve", "rpc failed", "object", "no space left"];

/// The origin may answer later.
const TROUBLE: &[&str] = &[
    "unable to access",
    "could not resolve",
    "failed to connect",
    "connection refused",
    "connection reset",
    "timed out",
    "rpc failed",
    "early eof",
    "hung up",
    "unexpected disconnect",
    "empty reply",
    "unable to look up",
    "bad pack header",
    "invalid index-pack output",
    "expected flush",
    "expected 'packfile'",
    "unexpected eof",
    "proxy connect aborted",
    "transfer closed",
    "operation too slow",
];

/// This machine lacks open files, processes or memory.
const SHORTAGE: &[&str] = &[
    "too many open files",
    "cannot allocate memory",
    "out of memory",
    "resource temporarily unavailable",
    "cannot fork",
    "unable to fork",
    "cannot create async thread",
    "unable to create threaded",
];

/// Whether git failed for want of open files, processes or memory. That passes, and says nothing about the mirror.
pub(crate) fn is_shortage(stderr: &str) -> bool {
    let mut own = stderr.lines().map(|line| line.trim().to_ascii_lowercase());
    own.any(|line| !line.starts_with("remote:") && SHORTAGE.iter().any(|words| line.contains(words)))
}

/// Sorts a failure by what git wrote to its standard error.
pub(crate) fn classify(stderr: &str) -> UpdateError {
    let own: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.starts_with("remote:")).collect();
    let says = |line: &str, words: &[&str]| {
        let line = line.to_ascii_lowercase();
        words.iter().any(|word| line.contains(word))
    };
    // Not what became of each reference: there may be very many.
    let message = message(&own.iter().copied().filter(|line| !line.contains(" -> ")).collect::<Vec<_>>());
    if own.iter().any(|line| is_full_disk(line)) {
        return UpdateError::NoRoom(message);
    }
    if is_shortage(stderr) {
        return UpdateError::Unavailable(message);
    }
    let fatal = |line: &&&str| line.starts_with("fatal:") || line.starts_with("error:");
    if own.iter().filter(fatal).any(|line| says(line, MISSING) && !says(line, NOT_MISSING)) {
        return UpdateError::NotFound;
    }
    if own.iter().any(|line| says(line, TROUBLE)) {
        return UpdateError::Unavailable(message);
    }
    UpdateError::Failed(message)
}

/// The status in `message`, of a failure, if the origin may have said more about it than git passes on: when to come back.
pub(crate) fn may_say_when(message: &str) -> Option<u16> {
    [403, 429, 503].into_iter().find(|status| message.contains(&format!("returned error: {status}")))
}

/// Whether this machine has no room left.
fn is_full_disk(message: &str) -> bool {
    ["No space left", "quota exceeded"].iter().any(|words| message.contains(words))
}

/// Whether `message`, of a failure, says that the repository is somewhere else, which git does not follow here.
pub(crate) fn is_redirect(message: &str) -> bool {
    ["301", "302", "303", "307", "308"].iter().any(|status| message.contains(&format!("returned error: {status}")))
}

/// Whether a reference could not be changed together with others, because one is a directory where the other is a file.
pub(crate) fn is_reference_conflict(stderr: &str) -> bool {
    ["cannot lock ref", "cannot create", "conflicts with", "cannot process"].iter().any(|word| stderr.contains(word))
}

fn message(lines: &[&str]) -> String {
    let text = lines.iter().filter(|line| !line.is_empty()).copied().collect::<Vec<_>>().join("; ");
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    let text: String = scrub(&text).chars().map(printable).take(MESSAGE_CHARS_MAX).collect();
    if text.is_empty() { "git failed without a word".to_owned() } else { format!("git: {text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_that_is_not_there_is_not_found() {
        for stderr in [
            "fatal: repository 'https://github.com/a/b.git/' not found\n",
            "remote: Not Found\nfatal: repository 'https://x/y/' not found\n",
            "fatal: '/srv/git/x' does not appear to be a git repository\nfatal: Could not read from remote repository.\n",
            "fatal: repository '/srv/git/x' does not exist\n",
            "fatal: could not read Username for 'https://github.com': terminal prompts disabled\n",
            "fatal: Authentication failed for 'https://github.com/a/b.git/'\n",
            "fatal: https://example.com/x/info/refs not valid: is this a git repository?\n",
        ] {
            assert!(matches!(classify(stderr), UpdateError::NotFound), "{stderr}");
        }
    }

    #[test]
    fn trouble_on_the_way_may_be_tried_again() {
        for stderr in [
            "fatal: unable to access 'http://127.0.0.1:1/x/': Failed to connect to 127.0.0.1 port 1 after 0 ms: Couldn't connect to server\n",
            "fatal: unable to access 'https://x/y/': Could not resolve host: x\n",
            "fatal: unable to access 'https://x/y/': The requested URL returned error: 503\n",
            "error: RPC failed; HTTP 502 curl 22 The requested URL returned error: 502\nfatal: early EOF\n",
            "error: RPC failed; HTTP 404 curl 22 The requested URL returned error: 404\nfatal: expected 'packfile'\n",
            "fatal: the remote end hung up unexpectedly\n",
        ] {
            assert!(matches!(classify(stderr), UpdateError::Unavailable(_)), "{stderr}");
        }
    }

    #[test]
    fn a_status_that_may_come_with_a_time_is_asked_about() {
        for status in [403, 429, 503] {
            let stderr =
                format!("fatal: unable to access 'https://x/y/': The requested URL returned error: {status}\n");
            let UpdateError::Unavailable(message) = classify(&stderr) else { panic!("{stderr}") };
            assert_eq!(may_say_when(&message), Some(status));
        }
        assert_eq!(may_say_when("git: fatal: the requested URL returned error: 500"), None);
    }

    #[test]
    fn the_other_side_cannot_choose_the_verdict() {
        assert!(matches!(classify("remote: fatal: repository not found\nfatal: bad config\n"), UpdateError::Failed(_)));
    }

    #[test]
    fn a_full_disk_is_told_from_trouble_on_the_way() {
        for stderr in [
            "fatal: write error: No space left on device\nfatal: early EOF\n",
            "error: unable to write file objects/pack: No space left on device\nfatal: fetch-pack: invalid index-pack output\n",
            "fatal: write error: Disk quota exceeded\n",
        ] {
            assert!(matches!(classify(stderr), UpdateError::NoRoom(_)), "{stderr}");
        }
    }

    #[test]
    fn a_lack_of_resources_passes() {
        for stderr in [
            "error: cannot fork() for index-pack: Resource temporarily unavailable\nfatal: fetch-pack: unable to fork off index-pack\n",
            "fatal: unable to open 'objects/pack': Too many open files\n",
            "fatal: Out of memory, malloc failed (tried to allocate 1048576 bytes)\n",
        ] {
            assert!(is_shortage(stderr) && matches!(classify(stderr), UpdateError::Unavailable(_)), "{stderr}");
        }
        assert!(!is_shortage("remote: fatal: Out of memory\nfatal: bad config\n"), "it is the other side's");
    }

    #[test]
    fn a_spoilt_mirror_is_a_failure() {
        for stderr in ["error: object 0123 not found\nfatal: bad object refs/heads/main\n", ""] {
            assert!(matches!(classify(stderr), UpdateError::Failed(_)), "{stderr}");
        }
    }

    #[test]
    fn long_words_are_cut() {
        let UpdateError::Failed(message) = classify(&"\u{7}x".repeat(5000)) else { panic!() };
        assert!(message.len() <= MESSAGE_CHARS_MAX + 10 && !message.contains('\u{7}'));
    }
}

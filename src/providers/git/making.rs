//! Mirrors that are being made, and what clients are told of them meanwhile: the references of the origin.
//!
//! ```text
//!   make:   clone ------------------------------------------- close --> more there than was told? fetch it --> publish
//!   client:         what is there? --ls-remote, once--> told
//! ```
//!
//! What must hold: a mirror that is published has what clients were told while it was made, unless the origin has taken it back
//! meanwhile. So nobody is told anything once it is closed, and what was told is compared with what came.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{references::References, template::Remote};
use crate::key::Key;

/// The mirrors that are being made: at most as many as there are updaters.
#[derive(Default)]
pub(super) struct Making(Mutex<BTreeMap<Key, Arc<Expected>>>);

impl fmt::Debug for Making {
    /// Leaves out the remotes, which carry secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys()).finish()
    }
}

/// What is known of a mirror that is being made.
struct Expected {
    remote: Remote,
    asking: OnceLock<Asking>,
}

/// The question to the origin, which goes on however many of those who want to know go away, but not longer than the mirror is
/// wanted.
struct Asking {
    /// Nothing while there is no answer.
    answer: watch::Receiver<Option<Option<Arc<Told>>>>,
    _task: AbortOnDropHandle<()>,
}

impl Asking {
    fn begin(ask: impl Future<Output = Option<Told>> + Send + 'static) -> Self {
        let (tell, answer) = watch::channel(None);
        let task = tokio::spawn(async move {
            let _ = tell.send(Some(ask.await.map(Arc::new)));
        });
        Self { answer, _task: AbortOnDropHandle::new(task) }
    }
}

/// What clients are told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) references: References,
    /// A hash of what git printed of them.
    pub(super) digest: [u8; 32],
}

impl Making {
    /// A mirror of `remote` is being made, until what is returned is closed or dropped.
    pub(super) fn begin(&self, key: &Key, remote: &Remote) -> Entry<'_> {
        let expected = Arc::new(Expected { remote: remote.clone(), asking: OnceLock::new() });
        self.lock().insert(key.clone(), expected.clone());
        Entry { making: self, key: key.clone(), expected }
    }

    /// What clients are told of the mirror of `key`. `ask` asks its origin, once however many want to know. `None`: it is not
    /// being made, or there is no telling.
    pub(super) async fn told<A>(&self, key: &Key, ask: impl FnOnce(Remote) -> A) -> Option<Arc<Told>>
    where
        A: Future<Output = Option<Told>> + Send + 'static,
    {
        let expected = self.lock().get(key)?.clone();
        let begin = || Asking::begin(ask(expected.remote.clone()));
        let mut answer = expected.asking.get_or_init(begin).answer.clone();
        let told = answer.wait_for(Option::is_some).await.ok()?.clone().flatten();
        // What is told after it was closed is not compared with what came.
        told.filter(|_| self.lock().get(key).is_some_and(|open| Arc::ptr_eq(open, &expected)))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Expected>>> {
        self.0.lock().expect("no panic under this lock")
    }
}

/// A mirror that is being made.
pub(super) struct Entry<'m> {
    making: &'m Making,
    key: Key,
    expected: Arc<Expected>,
}

impl Entry<'_> {
    /// Ends it. What clients were told, if they were told anything.
    pub(super) fn close(self) -> Option<Arc<Told>> {
        self.remove();
        self.expected.asking.get().and_then(|asking| asking.answer.borrow().clone().flatten())
    }

    fn remove(&self) {
        let mut open = self.making.lock();
        if open.get(&self.key).is_some_and(|open| Arc::ptr_eq(open, &self.expected)) {
            open.remove(&self.key);
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt;
    use tokio::sync::Notify;

    use super::*;
    use crate::providers::git::template::Scheme;

    const HEAD: &str = "0123456789012345678901234567890123456789\tHEAD\n";

    fn remote() -> Remote {
        let (url, origin) = ("https://origin/a".to_owned(), "https://origin".to_owned());
        Remote { url, origin, authorization: None, scheme: Scheme::Https, addresses: Vec::new(), proxied: false }
    }

    #[tokio::test]
    async fn a_client_that_leaves_does_not_have_the_origin_asked_again() {
        let (making, key) = (Making::default(), Key::new("a").unwrap());
        let entry = making.begin(&key, &remote());
        let (asked, answers) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let told = || {
            let (asked, answers) = (asked.clone(), answers.clone());
            making.told(&key, move |_| async move {
                asked.fetch_add(1, Ordering::Relaxed);
                answers.notified().await;
                Some(Told { references: References::parse(HEAD)?, digest: [0; 32] })
            })
        };
        assert!(told().now_or_never().is_none());
        answers.notify_one();
        assert!(told().await.is_some());
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(entry.close().is_some());
        assert!(told().await.is_none(), "nobody is told anything once it is closed");
    }
}

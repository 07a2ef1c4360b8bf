//! Responses whose clients must take them in: one that stands still gives back what it holds.
//!
//! A body is not asked for more while its client takes nothing in, so it cannot notice that by itself. A sweep looks at all
//! of them now and then. It drops the inner body of one whose client has taken less than [`BYTES_MIN`] within the limit,
//! and with it the place among the requests, the stream to the holder and the holder's work. Time in which the body itself
//! has nothing to give, because its source is slow, does not count. A connection of which all responses have stalled ends.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tracing::debug;

use super::quiet::UnderWay;

/// What a client takes in, or sends, within the limit of time at least, in bytes. A slow link carries more in a minute.
pub(super) const BYTES_MIN: u64 = 16 << 10;
/// Sweeps within the limit of time.
const SWEEPS: u32 = 6;

/// All responses that are being sent.
#[derive(Debug, Clone, Default)]
pub(super) struct Responses(Arc<Mutex<Sent>>);

#[derive(Debug, Default)]
struct Sent {
    next: u64,
    bodies: BTreeMap<u64, Weak<Mutex<State>>>,
}

struct State {
    /// Absent after it has stalled.
    body: Option<Body>,
    under_way: Option<UnderWay>,
    /// What was handed over since `since`.
    bytes: u64,
    since: Instant,
    /// Whether the body had nothing to give when it was last asked, and still has not.
    waits_for_source: Arc<AtomicBool>,
}

/// Passes a wake-up on, and notes that the body has something to give again: it may not be asked before its client has taken
/// in what is there.
struct Noting {
    waits_for_source: Arc<AtomicBool>,
    task: Waker,
}

impl Wake for Noting {
    fn wake(self: Arc<Self>) {
        self.waits_for_source.store(false, Ordering::Relaxed);
        self.task.wake_by_ref();
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Responses {
    /// The same body, watched until it ends.
    pub(super) fn watch(&self, body: Body, under_way: UnderWay) -> Watched {
        let state = State {
            body: Some(body),
            under_way: Some(under_way),
            bytes: 0,
            since: Instant::now(),
            waits_for_source: Arc::default(),
        };
        let state = Arc::new(Mutex::new(state));
        let mut sent = lock(&self.0);
        sent.next += 1;
        let number = sent.next;
        sent.bodies.insert(number, Arc::downgrade(&state));
        Watched { state, number, responses: self.clone() }
    }

    /// Sweeps for as long as it is polled.
    pub(super) async fn sweep(self, limit: Duration) {
        loop {
            tokio::time::sleep(limit / SWEEPS).await;
            let now = Instant::now();
            let responses: Vec<_> = lock(&self.0).bodies.values().filter_map(Weak::upgrade).collect();
            for response in responses {
                // What is dropped runs code of others, which must not happen under a lock.
                let stalled = lock(&response).judge(now, limit);
                if let Some((body, under_way)) = stalled {
                    debug!("a client takes nothing in; its response is given up");
                    drop(body);
                    under_way.stalled();
                    lock(&response).under_way = Some(under_way);
                }
            }
        }
    }
}

impl State {
    /// The body, if its client has stalled.
    fn judge(&mut self, now: Instant, limit: Duration) -> Option<(Body, UnderWay)> {
        if self.waits_for_source.load(Ordering::Relaxed) || self.bytes >= BYTES_MIN {
            (self.since, self.bytes) = (now, 0);
            return None;
        }
        if now.duration_since(self.since) < limit {
            return None;
        }
        Some((self.body.take()?, self.under_way.take()?))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds this lock")
}

/// A response that is watched.
pub(super) struct Watched {
    state: Arc<Mutex<State>>,
    number: u64,
    responses: Responses,
}

impl Drop for Watched {
    fn drop(&mut self) {
        lock(&self.responses.0).bodies.remove(&self.number);
    }
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let Some(body) = &mut state.body else {
            return Poll::Ready(Some(Err(axum::Error::new("the client took nothing in for too long"))));
        };
        let waits_for_source = state.waits_for_source.clone();
        waits_for_source.store(true, Ordering::Relaxed);
        let noting = Noting { waits_for_source: waits_for_source.clone(), task: context.waker().clone() };
        let polled = Pin::new(body).poll_frame(&mut Context::from_waker(&Arc::new(noting).into()));
        if polled.is_ready() {
            waits_for_source.store(false, Ordering::Relaxed);
        }
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            state.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.state).body.as_ref().is_some_and(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.state).body.as_ref().map_or_else(SizeHint::default, http_body::Body::size_hint)
    }
}

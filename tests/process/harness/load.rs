//! Requests that go on while something happens to the cluster.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures::future::join_all;

use super::eventually;

/// Requests that go on until they are stopped; every failure is kept.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    pub(crate) fn start<F, R>(clients: usize, request: F) -> Self
    where
        F: Fn(usize) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), String>> + Send,
    {
        let (stop, done, request) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(request));
        let task = |client: usize| {
            let (stop, done, request) = (stop.clone(), done.clone(), request.clone());
            tokio::spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) && failures.len() < 10 {
                    let number = client + clients * done.fetch_add(1, Ordering::Relaxed);
                    if let Err(error) = request(number).await {
                        failures.push(error);
                    }
                }
                failures
            })
        };
        let tasks = (0..clients).map(task).collect();
        Self { stop, done, tasks }
    }

    pub(crate) fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until `more` further requests were made.
    pub(crate) async fn until_more(&self, more: usize) {
        let goal = self.done() + more;
        eventually("requests go on", || async {
            self.done() >= goal || self.tasks.iter().all(|task| task.is_finished())
        })
        .await;
    }

    /// Stops, and fails the test if any request failed.
    pub(crate) async fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        let failures: Vec<String> =
            join_all(self.tasks).await.into_iter().flat_map(|task| task.expect("requests do not panic")).collect();
        assert!(
            failures.is_empty(),
            "{} of {} requests failed: {failures:#?}",
            failures.len(),
            self.done.load(Ordering::Relaxed)
        );
    }
}

//! Descriptions of mirrors: each takes a run of git and a walk over the files, so few are made at once, and one that was
//! made a moment ago is given again unless the mirror was touched since.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use tokio::{sync::Semaphore, time::Instant};

use crate::{
    key::Key,
    provider::{Description, ProviderError},
};

/// Descriptions that are made at once. Further ones wait.
const AT_ONCE: usize = 2;
/// How long a description is good, if nothing happens to the mirror.
const FRESH: Duration = Duration::from_secs(1);
/// Descriptions that are remembered; with more keys than that within a second, some are made again.
const REMEMBERED_MAX: usize = 256;

pub(super) struct Describing {
    permits: Semaphore,
    made: Mutex<BTreeMap<Key, (Instant, Description)>>,
}

impl Default for Describing {
    fn default() -> Self {
        Self { permits: Semaphore::new(AT_ONCE), made: Mutex::default() }
    }
}

impl Describing {
    /// The description of `key`, which was touched at `touched_ms`: one of a moment ago, or what `make` comes to. Cancel safe.
    ///
    /// # Errors
    /// Those of `make`.
    pub(super) async fn of(
        &self,
        key: &Key,
        touched_ms: Option<u64>,
        make: impl Future<Output = Result<Description, ProviderError>>,
    ) -> Result<Description, ProviderError> {
        let _permit = self.permits.acquire().await.map_err(|closed| ProviderError::new(closed.to_string()))?;
        if let Some(made) = self.fresh(key, touched_ms) {
            return Ok(made);
        }
        let begun = Instant::now();
        let description = make.await?;
        self.remember(key, begun, &description);
        Ok(description)
    }

    fn fresh(&self, key: &Key, touched_ms: Option<u64>) -> Option<Description> {
        let made = self.made.lock().expect("no panic under this lock");
        let (begun, description) = made.get(key)?;
        (begun.elapsed() < FRESH && description.updated_ms == touched_ms).then(|| description.clone())
    }

    fn remember(&self, key: &Key, begun: Instant, description: &Description) {
        let mut made = self.made.lock().expect("no panic under this lock");
        made.retain(|_, (begun, _)| begun.elapsed() < FRESH);
        if made.len() < REMEMBERED_MAX {
            made.insert(key.clone(), (begun, description.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;

    /// Counts how many descriptions are made, and how many at once.
    #[derive(Default)]
    struct Maker {
        made: AtomicUsize,
        now: AtomicUsize,
        most: AtomicUsize,
    }

    impl Maker {
        async fn make(&self, touched_ms: u64) -> Result<Description, ProviderError> {
            self.made.fetch_add(1, Ordering::SeqCst);
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            self.now.fetch_sub(1, Ordering::SeqCst);
            Ok(Description { updated_ms: Some(touched_ms), ..Description::default() })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_ask_few_are_made_at_once_and_one_key_is_described_about_once_a_second() {
        let (describing, maker) = (Describing::default(), Maker::default());
        let asks: Vec<Key> = (0..100).map(|number| Key::new(format!("k{}", number % 4)).unwrap()).collect();
        let ask = |key| describing.of(key, Some(1), maker.make(1));
        for described in join_all(asks.iter().map(ask)).await {
            assert_eq!(described.unwrap().updated_ms, Some(1));
        }
        let made = maker.made.load(Ordering::SeqCst);
        assert!((4..=4 * AT_ONCE).contains(&made), "{made} runs for four keys");
        assert_eq!(maker.most.load(Ordering::SeqCst), AT_ONCE);
        tokio::time::advance(FRESH).await;
        ask(&asks[0]).await.unwrap();
        assert_eq!(maker.made.load(Ordering::SeqCst), made + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_mirror_that_was_touched_is_described_anew() {
        let (describing, maker) = (Describing::default(), Maker::default());
        let key = Key::new("k").unwrap();
        for touched in [1, 1, 2, 2] {
            let described = describing.of(&key, Some(touched), maker.make(touched)).await.unwrap();
            assert_eq!(described.updated_ms, Some(touched));
        }
        assert_eq!(maker.made.load(Ordering::SeqCst), 2);
    }
}

//! For those who embed nodes: your own provider under the faults of a seed, from an ordinary test.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use datad_gossip::{key::Key, provider::Provider};

use crate::{
    data::custom::{Custom, Judge, Make},
    model::Left,
    run::{Options, Outcome, run},
    script::{
        Script,
        draw::{Shape, draw},
    },
};

/// A run with a provider of your own.
///
/// The provider stands for one start of one machine. It has to answer `has` without waiting for input or output, use no
/// thread and no clock but tokio's, and keep in what you give it whatever is to outlive a crash.
pub struct Simulation {
    seed: u64,
    script: Script,
    keys: Vec<Key>,
    make: Make,
    judge: Judge,
}

impl Simulation {
    /// What this seed does to five machines in a minute. `make` is called at every start of a machine, with its number
    /// from 0 and what its last crash left on its disk.
    #[must_use]
    pub fn new(seed: u64, make: impl Fn(usize, Left) -> Arc<dyn Provider> + Send + Sync + 'static) -> Self {
        let script = draw(seed, &Shape::default());
        Self { seed, script, keys: Vec::new(), make: Arc::new(make), judge: Arc::new(|_, _| true) }
    }

    /// Another cluster or another length; what happens is drawn anew.
    #[must_use]
    pub fn shape(mut self, nodes: usize, lasts: Duration) -> Self {
        self.script = draw(self.seed, &Shape { nodes, lasts });
        self
    }

    /// A script of your own instead of one that is drawn.
    #[must_use]
    pub fn script(mut self, script: Script) -> Self {
        self.script = script;
        self
    }

    /// Keys that can be fetched, to be asked for.
    #[must_use]
    pub fn keys(mut self, keys: impl IntoIterator<Item = Key>) -> Self {
        self.keys = keys.into_iter().collect();
        self
    }

    /// Whether an answer with these bytes is right for the key. Without it, every answer is.
    #[must_use]
    pub fn judge(mut self, judge: impl Fn(&Key, &Bytes) -> bool + Send + Sync + 'static) -> Self {
        self.judge = Arc::new(judge);
        self
    }

    /// Runs it.
    #[must_use]
    pub fn run(self) -> Outcome {
        let Self { seed, mut script, keys, make, judge } = self;
        // Requests and faults speak of the keys of the built-in data: `key/3` becomes the fourth of these.
        let named = |name: &str| -> Option<String> {
            let number: usize = name.strip_prefix("key/")?.parse().ok()?;
            keys.get(number % keys.len().max(1)).map(ToString::to_string)
        };
        script.requests.iter_mut().for_each(|request| {
            if let Some(name) = named(&request.key) {
                request.key = name;
            }
        });
        script.requests.retain(|request| !request.key.starts_with("missing/"));
        let mut options = Options::new(seed, script);
        options.bring =
            Some(Arc::new(move |machines| Custom::new(machines, keys.clone(), make.clone(), judge.clone())));
        run(&options)
    }

    /// Runs it, and panics with what was violated and how to see it again.
    ///
    /// # Panics
    /// A property did not hold.
    pub fn check(self) -> Outcome {
        let outcome = self.run();
        assert!(outcome.violation.is_none(), "{}", outcome.line());
        outcome
    }
}

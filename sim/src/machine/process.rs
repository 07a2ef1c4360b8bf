//! A process: a runtime of its own that runs up to a moment, stands still, or is gone with everything in it.

use std::time::Duration;

use tokio::{
    runtime::{Builder, RngSeed, Runtime},
    task::JoinHandle,
};

use crate::model::Clock;

/// One process of one machine.
#[derive(Debug)]
pub struct Process {
    runtime: Runtime,
    clock: Clock,
    /// How far it has run.
    at: Duration,
    /// How many faults stop it.
    stops: u32,
    /// For a slow process, between two moments at which it runs.
    every: Option<Duration>,
}

impl Process {
    /// Begins a process at this moment.
    #[must_use]
    pub fn start(seed: u64, clock: Clock, now: Duration) -> Self {
        let mut builder = Builder::new_current_thread();
        builder.enable_time().start_paused(true).rng_seed(RngSeed::from_bytes(&seed.to_le_bytes()));
        let runtime = builder.build().expect("a runtime without I/O needs nothing");
        let mut process = Self { runtime, clock, at: Duration::ZERO, stops: 0, every: None };
        process.jump(now);
        process
    }

    /// Runs everything that is due up to `at`, or nothing if the process stands still.
    pub fn run(&mut self, at: Duration) {
        if self.stops > 0 || self.every.is_some_and(|every| at < self.at + every) {
            return;
        }
        if self.every.is_some() {
            self.jump(at);
        }
        let until = self.clock.instant(at);
        self.runtime.block_on(async move { tokio::time::sleep_until(until).await });
        self.at = at;
    }

    /// Time passes at once, as for a process that was stopped: whatever was due meanwhile is late now.
    fn jump(&mut self, at: Duration) {
        let passed = at.saturating_sub(self.at);
        self.runtime.block_on(tokio::time::advance(passed));
        self.at = at;
    }

    /// Stops it. Stops add up.
    pub fn stop(&mut self) {
        self.stops += 1;
    }

    /// Takes back one stop.
    pub fn go_on(&mut self, now: Duration) {
        self.stops = self.stops.saturating_sub(1);
        if self.stops == 0 {
            self.jump(now);
        }
    }

    /// Makes it slow, or, with `None`, as quick as usual.
    pub fn set_every(&mut self, every: Option<Duration>, now: Duration) {
        if every.is_none() && self.stops == 0 {
            self.jump(now);
        }
        self.every = every;
    }

    /// Whether it runs as it should.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.stops == 0 && self.every.is_none()
    }

    /// Begins a task in it, which runs when the process does.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime.spawn(task)
    }

    /// Does something at once, with the process's clock and timers, but without letting any time pass.
    pub fn within<T>(&self, what: impl FnOnce() -> T) -> T {
        let _guard = self.runtime.enter();
        what()
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }
}

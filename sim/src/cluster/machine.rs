//! One machine of a run: its address, its disk, its clock, and a process while it has power.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use datad_gossip::{Client, Drained, MemberState, Node, Pin, StartError, Status, key::NodeName};

use crate::{
    machine::{disk::SimDisk, process::Process, world::Skew},
    model::Said,
};

pub(super) type Slot<T> = Arc<Mutex<Option<T>>>;

/// One machine.
pub struct Machine {
    /// Its name.
    pub name: NodeName,
    /// Its address.
    pub address: SocketAddr,
    /// Whether it has a provider.
    pub is_node: bool,
    /// What is wrong with its disk, and its records.
    pub disk: SimDisk,
    /// How wrong its wall clock is.
    pub skew: Skew,
    /// Whether its wall clock was ever wrong.
    pub was_skewed: bool,
    /// When it was last stopped, slow, or without power.
    pub unwell: Duration,
    /// When its process last began, or an actor of it last failed.
    pub begun: Duration,
    /// Whether it is there at all: some come later.
    pub(super) joined: bool,
    /// How many faults keep it without power.
    pub(super) offs: u32,
    /// How many faults stop whatever process it has.
    pub(super) stops: u32,
    /// If it is slow, between two moments at which its process runs.
    pub(super) every: Option<Duration>,
    pub(super) process: Option<Running>,
    /// When its disk was last lost.
    pub disk_lost: Option<Duration>,
    /// What the wall clock said at its last start.
    pub(super) started_unix: Option<i64>,
}

pub(super) struct Running {
    pub(super) process: Process,
    pub(super) node: Slot<Result<Node, StartError>>,
    pub(super) client: Option<Client>,
    /// The last answer of the node to how it is, and when it was asked.
    pub(super) status: Slot<(Duration, Status, Vec<Pin>)>,
    /// For a node that says goodbye: since when, and whether it is done.
    pub(super) leaving: Option<(Duration, Slot<()>)>,
    /// How its drain ended, until the run has looked.
    pub(super) drained: Slot<Drained>,
    pub(super) started: Duration,
    pub(super) served: bool,
    /// What was on its disk when it started.
    pub(super) held_at_start: usize,
}

impl Machine {
    /// The handle on its node, while there is one that has begun.
    #[must_use]
    pub fn client(&self) -> Option<&Client> {
        self.process.as_ref()?.client.as_ref()
    }

    /// When its process began, while it has one.
    #[must_use]
    pub fn started(&self) -> Option<Duration> {
        self.process.as_ref().map(|running| running.started)
    }

    /// Whether a fault keeps it from running, or it is not there yet.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.offs > 0 || !self.joined
    }

    /// Its process, while it has one.
    #[must_use]
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut().map(|running| &mut running.process)
    }

    /// Stops its process, and any that it starts, once more.
    pub fn stop(&mut self) {
        self.stops += 1;
        self.process().into_iter().for_each(Process::stop);
    }

    /// Takes back one stop.
    pub fn go_on(&mut self, now: Duration) {
        self.stops = self.stops.saturating_sub(1);
        self.process().into_iter().for_each(|process| process.go_on(now));
    }

    /// Makes it slow, or, with `None`, as quick as usual.
    pub fn set_every(&mut self, every: Option<Duration>, now: Duration) {
        self.every = every;
        self.process().into_iter().for_each(|process| process.set_every(every, now));
    }

    /// Whether its process exists and neither stands still nor is slow nor about to go.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.process.as_ref().is_some_and(|running| running.process.is_well() && running.leaving.is_none())
    }

    /// Whether its node takes requests.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        let leaving = self.process.as_ref().is_some_and(|running| running.leaving.is_some());
        !leaving
            && self.client().is_some_and(|client| {
                client.view().member(&self.name).is_some_and(|member| member.state == MemberState::Serving)
            })
    }

    /// What the node last said of itself, and when it was asked.
    #[must_use]
    pub fn status(&self) -> Option<(Duration, Status)> {
        let running = self.process.as_ref()?;
        let slot = running.status.lock().expect("nothing panics while it holds this lock");
        slot.as_ref().map(|(asked, status, _)| (*asked, status.clone()))
    }

    /// What the node last said of itself and the pins that it knows, if it was asked at `since` or later.
    #[must_use]
    pub fn said(&self, since: Duration) -> Option<Said> {
        let running = self.process.as_ref()?;
        let slot = running.status.lock().expect("nothing panics while it holds this lock");
        let (_, status, pins) = slot.as_ref().filter(|(asked, ..)| *asked >= since)?;
        Some((status.clone(), pins.clone()))
    }

    /// Tasks that its process runs.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.process.as_ref().map_or(0, |running| running.process.tasks())
    }
}

//! What others ask of the refresher.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::{
    key::Key,
    runtime::mailbox::{Gone, Mailbox},
};

pub(crate) enum Request {
    /// The updater brought this key up to date; whether that changed it, if its provider said.
    Refreshed { key: Key, changed: Option<bool> },
    /// How long until this key is due, if it is?
    Due { key: Key, reply: oneshot::Sender<Option<Duration>> },
}

impl Mailbox<Request> {
    /// Says that `key` was brought up to date, and whether that changed it, if its provider said.
    pub(crate) fn refreshed(&self, key: Key, changed: Option<bool>) {
        let _ = self.send(Request::Refreshed { key, changed });
    }

    /// How long until `key` is due, if it is to be refreshed.
    pub(crate) async fn due(&self, key: Key) -> Result<Option<Duration>, Gone> {
        self.ask(|reply| Request::Due { key, reply }).await
    }
}

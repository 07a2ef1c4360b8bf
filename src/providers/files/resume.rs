//! Reading on where an origin broke off.
//!
//! Only of an object with a strong tag, and only if the origin says that what it gives is the rest of the same one. Each
//! time that something came, the origin has a few attempts again: what limits a fetch is standing still, not its length.

use std::time::Duration;

use bytes::Bytes;
use futures::{
    StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};

use super::content::Content;
use crate::provider::UpdateError;

/// Attempts without a byte in between, and the pause before the first one. Each pause is twice as long.
const ATTEMPTS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(250);

struct Reading<F> {
    /// Of the object, for the log.
    name: String,
    /// Asks the origin for what is left from a position on, if it still has the object with this tag.
    rest: F,
    tag: String,
    at: u64,
    /// Attempts since the last byte.
    attempts: u32,
    bytes: BoxStream<'static, Result<Bytes, UpdateError>>,
}

/// `content` of the object `name`, which is read on with what `rest` gives if it breaks off: what is left from a position on, if
/// the origin still has the object with this tag.
pub(crate) fn resumable<F>(name: String, content: Content, rest: F) -> Content
where
    F: Fn(u64, String) -> BoxFuture<'static, Result<Content, UpdateError>> + Send + 'static,
{
    let tag = content.upstream.validator.clone();
    if !tag.starts_with('"') {
        return content;
    }
    let reading = Reading { name, rest, tag, at: 0, attempts: 0, bytes: content.bytes };
    let bytes =
        stream::try_unfold(
            reading,
            |mut reading| async move { Ok(reading.next().await?.map(|bytes| (bytes, reading))) },
        );
    Content { bytes: bytes.boxed(), ..content }
}

impl<F> Reading<F>
where
    F: Fn(u64, String) -> BoxFuture<'static, Result<Content, UpdateError>> + Send,
{
    async fn next(&mut self) -> Result<Option<Bytes>, UpdateError> {
        loop {
            let error = match self.bytes.try_next().await {
                Ok(None) => return Ok(None),
                Ok(Some(bytes)) => {
                    self.at += bytes.len() as u64;
                    self.attempts = 0;
                    return Ok(Some(bytes));
                }
                Err(error) => error,
            };
            self.go_on(error).await?;
        }
    }

    /// Asks for the rest. Fails with what broke it off if there is none to be had.
    async fn go_on(&mut self, broken: UpdateError) -> Result<(), UpdateError> {
        while self.attempts < ATTEMPTS {
            tokio::time::sleep(PAUSE * 2u32.pow(self.attempts)).await;
            self.attempts += 1;
            tracing::debug!(path = self.name, at = self.at, error = %broken, "broke off; asking for the rest");
            match (self.rest)(self.at, self.tag.clone()).await {
                Ok(content) => {
                    self.bytes = content.bytes;
                    return Ok(());
                }
                Err(error) => tracing::debug!(path = self.name, %error, "no rest"),
            }
        }
        Err(broken)
    }
}

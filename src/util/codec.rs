//! The only place that knows how values become bytes: bincode behind a length prefix.
//!
//! bincode is no longer maintained, so nothing outside this file may name it. What must hold: a length is checked
//! before anything is allocated for it, garbage is an error and never a panic, and a frame is consumed to its last
//! byte, so that two encodings never mean the same value.

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// The largest frame, in bytes. A feed batch or a request head is far smaller; anything above is an attack or a bug.
pub(crate) const FRAME_BYTES_MAX: usize = 4 << 20;

/// What a frame's opening message may take: heads and calls are small, and the sender is hardly known yet.
pub(crate) const OPENING_BYTES_MAX: usize = 256 << 10;

const PREFIX_BYTES: usize = 4;
const CONFIG: Configuration<LittleEndian, Varint, Limit<FRAME_BYTES_MAX>> =
    bincode::config::standard().with_limit::<FRAME_BYTES_MAX>();

/// Why bytes are not a value, or a value not bytes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CodecError {
    /// The frame says it is longer than is allowed here.
    #[error("a frame of {bytes} bytes is over the limit of {limit}")]
    TooLong { bytes: usize, limit: usize },
    /// The bytes are not an encoding of the type.
    #[error("malformed frame: {0}")]
    Malformed(String),
    /// The stream ended inside a frame or failed.
    #[error("the stream broke off: {0}")]
    Broken(String),
}

/// The bytes of `value` without a prefix.
pub(crate) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    bincode::serde::encode_to_vec(value, CONFIG).map_err(|error| CodecError::Malformed(error.to_string()))
}

/// The value that `bytes` encode, all of them.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, read) =
        bincode::serde::decode_from_slice(bytes, CONFIG).map_err(|error| CodecError::Malformed(error.to_string()))?;
    if read == bytes.len() {
        Ok(value)
    } else {
        Err(CodecError::Malformed(format!("{} bytes too many", bytes.len() - read)))
    }
}

/// A whole frame: little-endian `u32` length, then the value.
pub(crate) fn frame<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = vec![0; PREFIX_BYTES];
    let written = bincode::serde::encode_into_std_write(value, &mut bytes, CONFIG)
        .map_err(|error| CodecError::Malformed(error.to_string()))?;
    let prefix = u32::try_from(written).map_err(|_| CodecError::TooLong { bytes: written, limit: FRAME_BYTES_MAX })?;
    bytes[..PREFIX_BYTES].copy_from_slice(&prefix.to_le_bytes());
    Ok(bytes)
}

/// Writes one frame.
///
/// Cancellation leaves a part of the frame written: reset the stream then.
pub(crate) async fn write_frame<T: Serialize>(stream: &mut quinn::SendStream, value: &T) -> Result<(), CodecError> {
    let bytes = frame(value)?;
    write(stream, bytes.into()).await.map_err(|error| CodecError::Broken(error.to_string()))
}

/// Writes all of `bytes`, unless the reader gives up. Every write goes through here: one that waits for room on the connection
/// is not always woken when its own stream is stopped, and would then wait for ever (quinn 0.11 passes a stopped stream over
/// if it has used up its own window as well).
///
/// Cancellation leaves a part written: reset the stream then.
pub(crate) async fn write(stream: &mut quinn::SendStream, bytes: Bytes) -> Result<(), quinn::WriteError> {
    let stopped = stream.stopped();
    tokio::select! {
        written = stream.write_chunk(bytes) => written,
        stopped = stopped => Err(match stopped {
            Ok(Some(code)) => quinn::WriteError::Stopped(code),
            Ok(None) | Err(quinn::StoppedError::ZeroRttRejected) => quinn::WriteError::ClosedStream,
            Err(quinn::StoppedError::ConnectionLost(error)) => quinn::WriteError::ConnectionLost(error),
        }),
    }
}

/// Reads one frame of at most `limit` bytes; `None` at a clean end of the stream.
///
/// Cancellation loses what was read: give the stream up then.
pub(crate) async fn read_frame<T: DeserializeOwned>(
    stream: &mut quinn::RecvStream,
    limit: usize,
) -> Result<Option<T>, CodecError> {
    let mut prefix = [0; PREFIX_BYTES];
    match stream.read_exact(&mut prefix).await {
        Ok(()) => {}
        Err(quinn::ReadExactError::FinishedEarly(0)) => return Ok(None),
        Err(error) => return Err(CodecError::Broken(error.to_string())),
    }
    let bytes = u32::from_le_bytes(prefix) as usize;
    if bytes > limit {
        return Err(CodecError::TooLong { bytes, limit });
    }
    let mut buffer = vec![0; bytes];
    stream.read_exact(&mut buffer).await.map_err(|error| CodecError::Broken(error.to_string()))?;
    decode(&buffer).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{key::Key, net::wire};

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u32).unwrap();
        assert_eq!(decode::<u32>(&bytes).unwrap(), 7);
        bytes.push(0);
        assert!(decode::<u32>(&bytes).is_err());
    }

    #[test]
    fn a_length_that_lies_allocates_nothing() {
        // A vector that claims 2^60 entries in nine bytes.
        let mut bytes = vec![253];
        bytes.extend((1u64 << 60).to_le_bytes());
        assert!(decode::<Vec<u64>>(&bytes).is_err());
    }

    #[test]
    fn a_key_is_checked_again_when_it_arrives() {
        let bytes = encode(&String::from("../etc/passwd")).unwrap();
        assert!(decode::<Key>(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode::<wire::StreamHeader>(&bytes);
            let _ = decode::<wire::Reply>(&bytes);
            let _ = decode::<wire::ResponseHead>(&bytes);
            let _ = decode::<wire::Delta>(&bytes);
        }
    }
}

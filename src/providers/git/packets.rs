//! git's packet lines (gitprotocol-common(5)) and the requests of protocol version 2 that are made of them
//! (gitprotocol-v2(5)). Pure.

use std::io::Read;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{header, request::Parts};

/// Longest request that is looked into, after it was unpacked, and its most arguments. What has more is left to git: it takes a
/// turn of the processor each time that it is looked into, and a request that is kept hardly ever unpacks to more.
const REQUEST_BYTES_MAX: u64 = 1 << 20;
const ARGUMENTS_MAX: usize = 20_000;
/// Longest text of one packet; git allows some more.
const TEXT_BYTES_MAX: usize = 60_000;
/// Bytes of the length that a packet begins with.
const LENGTH_BYTES: usize = 4;

/// Ends a list of packets.
pub(super) const FLUSH: &[u8] = b"0000";
/// A packet of the pack's channel with nothing in it, which git sends to keep a connection.
pub(super) const KEEP_ALIVE: &[u8] = b"0005\x01";
/// Begins the section of a response that the pack is in.
pub(super) const PACKFILE: &[u8] = b"000dpackfile\n";

/// What a packet of a response carries beside the pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    /// Words for the user.
    Progress = 2,
    /// Why the response ends here.
    Fatal = 3,
}

/// One packet, or a mark between packets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'b> {
    Data(&'b [u8]),
    Flush,
    Delimiter,
    End,
}

/// The first packet of `bytes`, and what follows it. `None`: it is not whole, or none.
pub(super) fn first(bytes: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    let (length, rest) = bytes.split_at_checked(LENGTH_BYTES)?;
    let length = std::str::from_utf8(length).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    match usize::from_str_radix(length, 16).ok()? {
        0 => Some((Packet::Flush, rest)),
        1 => Some((Packet::Delimiter, rest)),
        2 => Some((Packet::End, rest)),
        3 => None,
        length => rest.split_at_checked(length - LENGTH_BYTES).map(|(data, rest)| (Packet::Data(data), rest)),
    }
}

/// A packet with `text`, which is cut if it is too long.
pub(super) fn packet(text: &[u8]) -> Vec<u8> {
    let text = &text[..text.len().min(TEXT_BYTES_MAX)];
    let mut packet = format!("{:04x}", text.len() + LENGTH_BYTES).into_bytes();
    packet.extend_from_slice(text);
    packet
}

/// A packet with `text` on a channel of its own.
pub(super) fn on(channel: Channel, text: &str) -> Bytes {
    packet(&[&[channel as u8], text.as_bytes()].concat()).into()
}

/// Whether a client speaks protocol version 2.
pub(super) fn speaks_version_2(request: &Parts) -> bool {
    let said = request.headers.get("git-protocol").and_then(|value| value.to_str().ok()).unwrap_or_default();
    said.split(':').any(|part| part == "version=2")
}

/// A request of protocol version 2.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
}

impl Command {
    /// Reads the body of `request`. `None`: it is none, or longer than what is looked into.
    pub(super) fn read(request: &Parts, body: &[u8]) -> Option<Self> {
        match request.headers.get(header::CONTENT_ENCODING).map(http::HeaderValue::as_bytes) {
            None => Self::parse(body),
            Some(b"gzip" | b"x-gzip") => {
                let mut unpacked = Vec::new();
                GzDecoder::new(body).take(REQUEST_BYTES_MAX + 1).read_to_end(&mut unpacked).ok()?;
                Self::parse(&unpacked).filter(|_| unpacked.len() as u64 <= REQUEST_BYTES_MAX)
            }
            Some(_) => None,
        }
    }

    fn parse(mut bytes: &[u8]) -> Option<Self> {
        let (mut name, mut arguments, mut is_argument) = (None, Vec::new(), false);
        loop {
            let (packet, rest) = first(bytes)?;
            bytes = rest;
            match packet {
                Packet::Data(text) => {
                    let text = std::str::from_utf8(text).ok()?;
                    let text = text.strip_suffix('\n').unwrap_or(text);
                    match text.strip_prefix("command=") {
                        _ if is_argument && arguments.len() >= ARGUMENTS_MAX => return None,
                        _ if is_argument => arguments.push(text.to_owned()),
                        Some(command) => name = Some(command.to_owned()),
                        None => {}
                    }
                }
                Packet::Delimiter if !is_argument => is_argument = true,
                Packet::Flush if bytes.is_empty() => return Some(Self { name: name?, arguments }),
                _ => return None,
            }
        }
    }

    /// Whether it has this argument, which has no value.
    pub(super) fn has(&self, argument: &str) -> bool {
        self.arguments.iter().any(|given| given == argument)
    }

    /// The values of an argument that is written with one.
    pub(super) fn values<'c>(&'c self, argument: &'c str) -> impl Iterator<Item = &'c str> {
        self.arguments.iter().filter_map(move |given| given.strip_prefix(argument)?.strip_prefix(' '))
    }

    /// Whether the response to this `fetch` begins with the pack, whatever the repository holds. Sections before it tell what
    /// both have, where history is cut off, or where packs are.
    pub(super) fn begins_with_pack(&self) -> bool {
        const PLAIN: [&str; 8] =
            ["want", "have", "done", "thin-pack", "no-progress", "include-tag", "ofs-delta", "filter"];
        let is_plain = |given: &String| PLAIN.contains(&given.split(' ').next().unwrap_or_default());
        self.has("done") && self.values("want").next().is_some() && self.arguments.iter().all(is_plain)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn body(lines: &[&str]) -> Vec<u8> {
        let line = |line: &&str| match *line {
            "0001" => b"0001".to_vec(),
            line => packet(format!("{line}\n").as_bytes()),
        };
        [lines.iter().map(line).collect::<Vec<_>>().concat(), FLUSH.to_vec()].concat()
    }

    fn read(lines: &[&str]) -> Option<Command> {
        Command::read(&Request::new(()).into_parts().0, &body(lines))
    }

    #[test]
    fn a_request_is_read_plain_and_packed() {
        let lines = ["command=fetch", "agent=git/2", "0001", "thin-pack", "want 1234", "want 5678", "done"];
        let plain = read(&lines).unwrap();
        assert_eq!((plain.name.as_str(), plain.values("want").collect::<Vec<_>>()), ("fetch", vec!["1234", "5678"]));
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(&body(&lines)).unwrap();
        let packed = packed.finish().unwrap();
        let (request, ()) = Request::builder().header("content-encoding", "gzip").body(()).unwrap().into_parts();
        assert_eq!(Command::read(&request, &packed), Some(plain));
        assert_eq!(Command::read(&request, &packed[..packed.len() / 2]), None);
    }

    #[test]
    fn a_request_that_unpacks_to_more_than_is_looked_into_is_left_alone() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        let long = "x".repeat(1_000);
        let many = vec![long.as_str(); 2_000];
        packed.write_all(&body(&[&["command=fetch", "0001"], &many[..]].concat())).unwrap();
        let packed = packed.finish().unwrap();
        let (request, ()) = Request::builder().header("content-encoding", "gzip").body(()).unwrap().into_parts();
        assert_eq!(Command::read(&request, &packed), None, "{} bytes", packed.len());
        let read = |arguments| read(&[&["command=ls-refs", "0001"], &vec!["peel"; arguments][..]].concat());
        assert!(read(ARGUMENTS_MAX).is_some() && read(ARGUMENTS_MAX + 1).is_none());
    }

    #[test]
    fn only_a_fetch_without_questions_begins_with_its_pack() {
        for (arguments, expected) in [
            (&["want 1", "done"][..], true),
            (&["thin-pack", "ofs-delta", "filter blob:none", "want 1", "have 2", "done"], true),
            (&["want 1", "have 2"], false),
            (&["done"], false),
            (&["want 1", "deepen 1", "done"], false),
            (&["want 1", "shallow 2", "done"], false),
            (&["want-ref refs/heads/main", "want 1", "done"], false),
            (&["want 1", "packfile-uris https", "done"], false),
            (&["want 1", "sideband-all", "done"], false),
        ] {
            let command = read(&[&["command=fetch", "0001"], arguments].concat()).unwrap();
            assert_eq!(command.begins_with_pack(), expected, "{arguments:?}");
        }
    }

    #[test]
    fn what_is_no_request_is_not_read() {
        for lines in [&["agent=git/2"][..], &["command=fetch", "0001", "0001"]] {
            assert_eq!(read(lines), None, "{lines:?}");
        }
        let more = [body(&["command=fetch"]), b"0000".to_vec()].concat();
        assert_eq!(Command::read(&Request::new(()).into_parts().0, &more), None);
    }

    #[test]
    fn words_travel_on_a_channel_of_their_own() {
        assert_eq!(on(Channel::Fatal, "no\n"), &b"0008\x03no\n"[..]);
        assert_eq!(first(b"0008abcdrest"), Some((Packet::Data(b"abcd"), &b"rest"[..])));
        assert_eq!(on(Channel::Progress, &"x".repeat(100_000)).len(), TEXT_BYTES_MAX + LENGTH_BYTES);
    }

    proptest! {
        #[test]
        fn no_bytes_upset_it(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = first(&bytes);
            let _ = Command::parse(&bytes);
        }
    }
}

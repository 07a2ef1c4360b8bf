//! The references of a repository as `git ls-remote --symref` tells them, and what a client is told of them
//! (gitprotocol-v2(5), `ls-refs`). Pure.

use std::collections::BTreeMap;

use super::packets::{Command, FLUSH, packet};

/// With more prefixes than this a client is told of all references, as the protocol allows: each is compared with each.
const PREFIXES_MAX: usize = 64;
/// A piece of a response ends with the reference that makes it this long, or after so many that were looked at.
const PIECE_BYTES: usize = 64 << 10;
const PIECE_REFERENCES: usize = 4_096;

/// How the names of a repository's objects are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Format {
    Sha1,
    Sha256,
}

impl Format {
    /// What git calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    /// Of an object with this name.
    fn of(id: &str) -> Option<Self> {
        let is_hex = id.bytes().all(|byte| byte.is_ascii_hexdigit());
        match id.len() {
            40 if is_hex => Some(Self::Sha1),
            64 if is_hex => Some(Self::Sha256),
            _ => None,
        }
    }
}

/// All references of a repository, `HEAD` among them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct References {
    pub(super) format: Format,
    references: Vec<Reference>,
}

#[derive(Debug, PartialEq, Eq)]
struct Reference {
    name: String,
    id: String,
    /// Where a symbolic reference points.
    target: Option<String>,
    /// What an annotated tag is about.
    peeled: Option<String>,
}

impl References {
    /// Reads what git printed. `None`: it is not that, or not all that a client may want to know: where `HEAD` points in a
    /// repository without that branch is not told.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (mut references, mut targets) = (Vec::<Reference>::new(), BTreeMap::new());
        for line in text.lines() {
            let (value, name) = line.split_once('\t')?;
            if let Some(target) = value.strip_prefix("ref: ") {
                targets.insert(name, target);
                continue;
            }
            Format::of(value)?;
            match name.strip_suffix("^{}") {
                Some(tag) => references.last_mut().filter(|last| last.name == tag)?.peeled = Some(value.to_owned()),
                None => {
                    let target = targets.get(name).map(|target| (*target).to_owned());
                    let (name, id) = (name.to_owned(), value.to_owned());
                    references.push(Reference { name, id, target, peeled: None });
                }
            }
        }
        let format = Format::of(&references.iter().find(|reference| reference.name == "HEAD")?.id)?;
        references.iter().all(|reference| Format::of(&reference.id) == Some(format)).then_some(())?;
        Some(Self { format, references })
    }

    /// The next piece of the response to a client's `ls-refs`, which may have nothing in it. `None`: it has ended.
    pub(super) fn piece(&self, answer: &mut Answer) -> Option<Vec<u8>> {
        let rest = self.references.get(answer.next?..).unwrap_or_default();
        let mut piece = Vec::new();
        for (number, reference) in rest.iter().enumerate() {
            if number >= PIECE_REFERENCES || piece.len() >= PIECE_BYTES {
                answer.next = answer.next.map(|next| next + number);
                return Some(piece);
            }
            answer.tell(reference, &mut piece);
        }
        answer.next = None;
        piece.extend_from_slice(FLUSH);
        Some(piece)
    }
}

/// How far the response to an `ls-refs` is.
#[derive(Debug)]
pub(super) struct Answer {
    /// Empty: of all references.
    prefixes: Vec<String>,
    symrefs: bool,
    peel: bool,
    next: Option<usize>,
}

impl Answer {
    /// The response to `command`, from its beginning.
    pub(super) fn to(command: &Command) -> Self {
        let prefixes: Vec<String> = command.values("ref-prefix").take(PREFIXES_MAX + 1).map(str::to_owned).collect();
        let prefixes = if prefixes.len() > PREFIXES_MAX { Vec::new() } else { prefixes };
        Self { prefixes, symrefs: command.has("symrefs"), peel: command.has("peel"), next: Some(0) }
    }

    fn tell(&self, Reference { name, id, target, peeled }: &Reference, piece: &mut Vec<u8>) {
        if !self.prefixes.is_empty() && !self.prefixes.iter().any(|prefix| name.starts_with(prefix)) {
            return;
        }
        let target = target.as_ref().filter(|_| self.symrefs).map(|target| format!(" symref-target:{target}"));
        let peeled = peeled.as_ref().filter(|_| self.peel).map(|peeled| format!(" peeled:{peeled}"));
        let line = format!("{id} {name}{}{}\n", target.unwrap_or_default(), peeled.unwrap_or_default());
        piece.extend(packet(line.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "0123456789012345678901234567890123456789";
    const B: &str = "abcdefabcdefabcdefabcdefabcdefabcdefabcd";

    fn told(arguments: &[&str]) -> String {
        let text = format!(
            "ref: refs/heads/main\tHEAD\n{A}\tHEAD\n{A}\trefs/heads/main\n{B}\trefs/tags/v1\n{A}\trefs/tags/v1^{{}}\n"
        );
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut answer = Answer::to(&Command { name: "ls-refs".to_owned(), arguments });
        let references = References::parse(&text).unwrap();
        String::from_utf8(std::iter::from_fn(|| references.piece(&mut answer)).flatten().collect()).unwrap()
    }

    #[test]
    fn a_long_response_comes_in_pieces_and_no_client_makes_one_piece_long_work() {
        let lines: String = (0..10_000).map(|number| format!("{A}\trefs/heads/{number:05}\n")).collect();
        let references = References::parse(&format!("{A}\tHEAD\n{lines}")).unwrap();
        let pieces = |arguments: Vec<String>| {
            let mut answer = Answer::to(&Command { name: "ls-refs".to_owned(), arguments });
            std::iter::from_fn(|| references.piece(&mut answer)).collect::<Vec<_>>()
        };
        let all = pieces(Vec::new());
        assert!(all.len() > 8 && all.iter().all(|piece| piece.len() < PIECE_BYTES + 1_000), "{}", all.len());
        assert_eq!(all.concat().len(), "0032".len() + 46 + 10_000 * 0x3e + FLUSH.len());
        let prefixes = |count: usize| (0..count).map(|number| format!("ref-prefix x{number}")).collect();
        let few = pieces(prefixes(PREFIXES_MAX));
        assert_eq!((few.len(), few.concat()), (3, FLUSH.to_vec()), "what is passed over counts as work too");
        assert_eq!(pieces(prefixes(PREFIXES_MAX + 1)), all, "too many to compare each with each");
    }

    #[test]
    fn a_client_is_told_what_it_asks_for() {
        assert_eq!(
            told(&["peel", "symrefs", "unborn"]),
            format!(
                "0050{A} HEAD symref-target:refs/heads/main\n003d{A} refs/heads/main\n006a{B} refs/tags/v1 peeled:{A}\n0000"
            )
        );
        assert_eq!(told(&["ref-prefix refs/heads/", "ref-prefix x"]), format!("003d{A} refs/heads/main\n0000"));
        assert_eq!(
            told(&["ref-prefix HEAD", "ref-prefix refs/tags/"]),
            format!("0032{A} HEAD\n003a{B} refs/tags/v1\n0000")
        );
    }

    #[test]
    fn what_is_not_all_that_there_is_to_say_is_not_read() {
        let long = "0".repeat(64);
        for text in [
            String::new(),
            format!("{A}\trefs/heads/main\n"),
            "rubbish".to_owned(),
            "x\tHEAD\n".to_owned(),
            format!("{A}\tHEAD\n{long}\trefs/heads/main\n"),
            format!("{A}\tHEAD\n{A}\trefs/tags/v1^{{}}\n"),
        ] {
            assert_eq!(References::parse(&text), None, "{text}");
        }
        assert_eq!(References::parse(&format!("{long}\tHEAD\n")).unwrap().format, Format::Sha256);
    }
}

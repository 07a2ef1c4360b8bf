//! The references of a repository as `git ls-remote --symref` tells them, and what a client is told of them
//! (gitprotocol-v2(5), `ls-refs`). Pure.

use std::collections::BTreeMap;

use super::packets::{Command, FLUSH, packet};

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

    /// The response to a client's `ls-refs`.
    pub(super) fn answer(&self, command: &Command) -> Vec<u8> {
        let prefixes: Vec<&str> = command.values("ref-prefix").collect();
        let is_asked_for = |name: &str| prefixes.is_empty() || prefixes.iter().any(|prefix| name.starts_with(prefix));
        let (symrefs, peel) = (command.has("symrefs"), command.has("peel"));
        let mut response = Vec::new();
        for Reference { name, id, target, peeled } in self.references.iter().filter(|one| is_asked_for(&one.name)) {
            let target = target.as_ref().filter(|_| symrefs).map(|target| format!(" symref-target:{target}"));
            let peeled = peeled.as_ref().filter(|_| peel).map(|peeled| format!(" peeled:{peeled}"));
            let line = format!("{id} {name}{}{}\n", target.unwrap_or_default(), peeled.unwrap_or_default());
            response.extend(packet(line.as_bytes()));
        }
        response.extend_from_slice(FLUSH);
        response
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
        let command = Command { name: "ls-refs".to_owned(), arguments };
        String::from_utf8(References::parse(&text).unwrap().answer(&command)).unwrap()
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

//! Logs: to standard error, filtered, as text or one JSON document per line.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt};

use super::failure::Failure;

#[derive(Args, Clone)]
pub(crate) struct LogOptions {
    /// What to log: a level (`error`, `warn`, `info`, `debug`, `trace`), also per module
    /// (`info,datad_gossip::actors::registry=debug`). `info,datad_gossip::access=debug` has a line for each request over HTTP. `info`
    /// for serve, else `warn`
    #[arg(long, env = "DATAD_LOG", value_name = "FILTER", global = true, help_heading = "Logs")]
    pub(crate) log: Option<String>,
    /// How to log
    #[arg(long, env = "DATAD_LOG_FORMAT", value_name = "FORMAT", global = true, help_heading = "Logs")]
    #[arg(value_enum, default_value_t = LogFormat::Text)]
    pub(crate) log_format: LogFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON document per line
    Json,
}

impl LogFormat {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl LogOptions {
    /// Sends the process's logs where they belong. `usual` is the filter if none was asked for.
    pub(crate) fn install(&self, usual: &str) -> Result<(), Failure> {
        let wanted = self.log.as_deref().filter(|filter| !filter.is_empty()).unwrap_or(usual);
        let wrong = |error: String| Failure::Usage(format!("the log filter `{wanted}` makes no sense: {error}"));
        check(wanted).map_err(wrong)?;
        // Of the library of actors, names of actors that are numbers would stand in each line.
        let filter = if wanted.contains("ractor") { wanted.to_owned() } else { format!("{wanted},ractor=error") };
        let filter = EnvFilter::builder().parse(filter).map_err(|error| wrong(error.to_string()))?;
        let logs = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
        match self.log_format {
            LogFormat::Text => logs.init(),
            LogFormat::Json => logs.json().init(),
        }
        Ok(())
    }
}

/// The libraries that this program is made of, as they were built.
const LOCK: &str = include_str!("../../Cargo.lock");

/// The root of the library, for the names of its parts.
const LIBRARY: &str = include_str!("../lib.rs");
/// What logs under the name of this program without being a part of the library.
const OTHER_PARTS: [&str; 2] = ["access", "cli"];

/// The parts of this program that log under its own name.
fn parts() -> impl Iterator<Item = &'static str> {
    let declared = |line: &'static str| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';');
    LIBRARY.lines().filter_map(declared).chain(OTHER_PARTS)
}

/// Whether some part of this program may log under the name `target`. A filter names all whose names begin so.
fn exists(target: &str) -> bool {
    if let Some(part) = target.strip_prefix("datad_gossip::") {
        return match part.split_once("::") {
            Some((part, _)) => parts().any(|name| name == part),
            None => parts().any(|name| name.starts_with(part)),
        };
    }
    let (library, inner) = target.split_once("::").map_or((target, false), |(library, _)| (library, true));
    let names = LOCK.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let mut names = names.map(|name| name.replace('-', "_"));
    names.any(|name| if inner { name == library } else { name.starts_with(library) })
}

/// Sees to it that each part of a filter without a level is one, and that the others name something that there is. Otherwise
/// a level that is misspelt is taken for the name of a module, and turns everything else off, or nothing on.
fn check(filter: &str) -> Result<(), String> {
    // The fields of a span may have commas of their own.
    if filter.contains('[') {
        return Ok(());
    }
    let targets = filter.split(',').filter_map(|part| part.split_once('=')).map(|(target, _)| target.trim());
    if let Some(target) = targets.filter(|target| !target.is_empty()).find(|target| !exists(target)) {
        return Err(format!(
            "no part of this program is called `{target}`; a level stands alone, as in info, and a module is written as \
             datad_gossip::actors::registry=debug"
        ));
    }
    let bare = |part: &&str| !part.is_empty() && !part.contains('=');
    match filter.split(',').map(str::trim).filter(bare).find(|part| part.parse::<LevelFilter>().is_err()) {
        Some(part) => Err(format!(
            "`{part}` is not a level; these are off, error, warn, info, debug and trace, and for one module \
             datad_gossip::actors::registry=debug"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_filter_that_is_neither_a_level_nor_has_one_is_refused() {
        for good in
            ["info", "INFO", "off", "warn,datad_gossip::actors::registry=debug", "info, quinn=off", "[{key=a,b}]=debug"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for wrong in ["inof", "info,datad_gossip", "verbose", "info,debg"] {
            let complaint = check(wrong).unwrap_err();
            assert!(complaint.contains("trace"), "{wrong}: {complaint}");
        }
    }

    #[test]
    fn a_part_of_a_filter_names_something_that_there_is() {
        for good in
            ["datad_gossip=debug", "datad=debug", "info,quinn_proto::connection=trace, hyper = debug", "ractor=off"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for own in
            ["datad_gossip::actors::registry=debug", "datad_gossip::access=debug", "info,datad_gossip::net=trace"]
        {
            assert_eq!(check(own), Ok(()), "{own}");
        }
        for wrong in ["inof=debug", "info,datad_gosip::net=debug", "datad::net=debug", "datad_gossip::registry=debug"] {
            let complaint = check(wrong).unwrap_err();
            assert!(complaint.contains("no part of this program"), "{wrong}: {complaint}");
        }
    }
}

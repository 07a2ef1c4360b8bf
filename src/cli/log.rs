//! Logs: to standard error, filtered, as text or one JSON document per line.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::{EnvFilter, fmt};

use super::Failure;

#[derive(Args, Clone)]
pub(crate) struct LogOptions {
    /// What to log: a level (`error`, `warn`, `info`, `debug`, `trace`), also per module
    /// (`info,datad_gossip::registry=debug`). `info` for serve, else `warn`
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
        let wrong = |error| Failure::Usage(format!("the log filter `{wanted}` makes no sense: {error}"));
        let filter = EnvFilter::builder().parse(wanted).map_err(wrong)?;
        let logs = fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
        match self.log_format {
            LogFormat::Text => logs.init(),
            LogFormat::Json => logs.json().init(),
        }
        Ok(())
    }
}

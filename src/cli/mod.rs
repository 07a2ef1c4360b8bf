//! The command line: what can be asked for, and the status that the process ends with (0 done, 1 failed, 2 wrong usage).
//!
//! | file | concern |
//! | --- | --- |
//! | `settings`, `provider` | options of a node, from flags, variables and a file |
//! | `etcd` | which etcd a node uses, if any |
//! | `serve` | one node in this process, or only a check of its settings |
//! | `admin`, `secret` | what lets a program change something at a node; files that hold a secret |
//! | `dev`, `child`, `hints`, `running` | a local cluster, one process per node, and how commands find it |
//! | `lifeline` | a program of a node that ends with it |
//! | `endpoint`, `ask`, `table` | asking a running node, and showing what it said |
//! | `status`, `members`, `keys`, `locate`, `update`, `intents`, `plan`, `drain` | the commands that do so |
//! | `init` | the first process of a container |
//! | `migrate` | from etcd to gossip |
//! | `failure`, `log`, `signals`, `output`, `limits`, `watchdog` | the process's surroundings |

mod admin;
mod ask;
mod child;
mod dev;
mod drain;
mod endpoint;
#[cfg(feature = "etcd")]
mod etcd;
mod failure;
mod hints;
mod init;
mod intents;
mod keys;
mod lifeline;
mod limits;
mod locate;
mod log;
mod members;
#[cfg(feature = "etcd")]
mod migrate;
mod output;
mod plan;
mod provider;
mod running;
mod secret;
mod serve;
mod settings;
mod signals;
mod status;
mod table;
mod update;
mod watchdog;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource};
use datad_gossip::ClusterKey;
use rustix::fs::Mode;

use self::{failure::Failure, watchdog::Watchdog};

/// How long work that no caller waits for may delay the end of the process.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Spreads git repositories or files over a cluster, and routes every request to a node that has what it asks for.
#[derive(Parser)]
#[command(version, propagate_version = true, max_term_width = 110, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    log: log::LogOptions,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  datad-gossip dev                              this folder, served by three nodes on this machine
  datad-gossip dev --git 'https://{key}.git'    the same with git repositories; then try
  git clone http://127.0.0.1:8400/github.com/octocat/Hello-World
  datad-gossip status                           how the cluster is

Every option is also a variable, DATAD_ and its name, such as DATAD_HTTP=0.0.0.0:8400.
Exit status: 0 done, 1 failed, 2 wrong usage.";

#[derive(Subcommand)]
enum Command {
    /// Runs a cluster on this machine, one process per node, to try things out
    Dev(Box<dev::DevOptions>),
    /// Runs one node of a cluster
    Serve(Box<serve::ServeOptions>),
    /// Says what the settings of a node come to, or what is wrong with them; nothing is started
    Check(Box<serve::CheckOptions>),
    /// Makes a fresh cluster key: the secret that makes a machine a member
    #[command(after_help = "Example:\n  datad-gossip keygen --out cluster.key")]
    Keygen {
        /// File to write it to, for its owner alone; one that is there stays as it is, and that is an error. Printed, if
        /// not given
        #[arg(long, value_name = "F")]
        out: Option<PathBuf>,
    },
    /// Shows the cluster in numbers
    Status(ask::Ask),
    /// Lists the members; takes one off the list that is gone for good
    Members(members::Members),
    /// Lists the known keys
    Keys(keys::Keys),
    /// Shows where a key is and where it should be
    Locate(locate::Locate),
    /// Brings every replica of a key up to date; fetches it if nobody has it
    Update(update::Update),
    /// Keeps a key always, though nobody asks for it; or all keys that match a pattern
    Pin(intents::PinKey),
    /// Keeps a key as any other again
    Unpin(intents::UnpinKey),
    /// Drops every copy of a key
    Forget(intents::ForgetKey),
    /// Lists the pins
    Pins(ask::Ask),
    /// Says what would move if members went or came; nothing is moved
    Plan(plan::Plan),
    /// Takes a node out of service: it hands over what only it holds, and leaves
    Drain(drain::Drain),
    /// Has the cluster fetch the keys that an etcd knows, after its nodes were moved from there
    #[cfg(feature = "etcd")]
    Migrate(migrate::Migrate),
}

/// Runs the command that the process was started with.
pub(crate) fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == lifeline::NAME).is_some() {
        return lifeline::main(arguments);
    }
    if init::is_needed() {
        return init::main();
    }
    // The first crypto provider wins; code that makes a TLS client later finds this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    limits::raise();
    let Cli { log, command } = parse();
    match run(log, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(what)) => {
            output::complain(&format!("error: {what}\n\nFor more information, try '--help'."));
            ExitCode::from(2)
        }
        Err(Failure::Failed(error)) => {
            output::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Reads the command line, and the variables that say something.
fn parse() -> Cli {
    let matches = without_empty_variables(Cli::command()).get_matches();
    if let Some(complaint) = matches.subcommand().and_then(|(_, matches)| exposed(matches)) {
        Cli::command().error(clap::error::ErrorKind::ValueValidation, complaint).exit();
    }
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// What to do instead about a secret that stands on the command line, where every user of the machine can read it.
fn exposed(matches: &ArgMatches) -> Option<String> {
    let typed = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
    let said =
        |name: &str| matches.try_get_raw(name).ok().flatten().into_iter().flatten().filter_map(|text| text.to_str());
    for name in matches.ids().map(clap::Id::as_str).filter(typed) {
        let instead = match name {
            "cluster_key" => "give --cluster-key-file F, or set the variable DATAD_CLUSTER_KEY",
            "origin_credentials" if said(name).any(provider::are_credentials) => {
                "name a file with them (chmod 600), or set the variable DATAD_ORIGIN_CREDENTIALS"
            }
            "at" if said(name).any(provider::has_user) => "leave it out, and give --admin-token-file F",
            "etcd" | "from_etcd" if said(name).any(provider::has_user) => {
                "leave it out, and give --etcd-user and --etcd-password-file"
            }
            _ if said(name).any(provider::has_user) => {
                "leave it out, and give --origin-credentials F, a file (chmod 600) with the line HOST USER PASSWORD, or \
                 set the variable DATAD_ORIGIN_CREDENTIALS to that line"
            }
            _ => continue,
        };
        let option = name.replace('_', "-");
        return Some(format!("--{option} has a secret on the command line, where every user can read it: {instead}"));
    }
    None
}

/// An empty variable is one that is not set: scripts and service files cannot always leave one out.
fn without_empty_variables(command: clap::Command) -> clap::Command {
    let is_empty =
        |argument: &clap::Arg| argument.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
    let command = command.mut_args(|argument| if is_empty(&argument) { argument.env(None::<&str>) } else { argument });
    command.mut_subcommands(without_empty_variables)
}

fn run(log: log::LogOptions, command: Command) -> Result<(), Failure> {
    let usual = if matches!(command, Command::Serve(_)) { "info" } else { "warn" };
    log.install(usual)?;
    match &command {
        Command::Keygen { out: None } => return Ok(output::line(&ClusterKey::generate().to_text())?),
        Command::Keygen { out: Some(path) } => return Ok(secret::create(path, &ClusterKey::generate().to_text())?),
        // What a node keeps is for its user alone, whatever the data is and whichever program writes it.
        Command::Serve(_) | Command::Dev(_) => drop(rustix::process::umask(Mode::RWXG | Mode::RWXO)),
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(anyhow::Error::from)?;
    let watchdog = match &command {
        Command::Serve(_) => {
            let limits = watchdog::Limits::default();
            Some(Watchdog::start(runtime.handle(), limits, || std::process::abort()).map_err(anyhow::Error::from)?)
        }
        _ => None,
    };
    let done = runtime.block_on(async {
        match command {
            Command::Dev(options) => dev::run(*options, &log).await,
            Command::Serve(options) => serve::run(*options, watchdog.as_ref()).await,
            Command::Check(options) => serve::check(&options),
            Command::Keygen { .. } => Ok(()),
            Command::Status(ask) => status::status(&ask).await,
            Command::Members(members) => members::members(&members).await,
            Command::Keys(keys) => keys::keys(&keys).await,
            Command::Locate(locate) => locate::locate(&locate).await,
            Command::Update(update) => update::update(&update).await,
            Command::Pin(pin) => intents::pin(&pin).await,
            Command::Unpin(unpin) => intents::unpin(&unpin).await,
            Command::Forget(forget) => intents::forget(&forget).await,
            Command::Pins(ask) => intents::pins(&ask).await,
            Command::Plan(plan) => plan::plan(&plan).await,
            Command::Drain(drain) => drain::drain(&drain).await,
            #[cfg(feature = "etcd")]
            Command::Migrate(migrate) => migrate::run(&migrate).await,
        }
    });
    runtime.shutdown_timeout(LAST_WORK);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_option_of_a_node_has_a_variable_of_its_name() {
        let command = Cli::command();
        for name in ["serve", "check", "dev"] {
            let options = command.find_subcommand(name).unwrap().get_arguments();
            for option in options.filter(|option| !option.is_hide_set() && option.get_id() != "help") {
                let long = option.get_long().unwrap_or_else(|| panic!("{} has no name", option.get_id()));
                let variable = format!("DATAD_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(option.get_env().and_then(|env| env.to_str()), Some(variable.as_str()), "{name}");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_wrong_usage() {
        for arguments in [
            &["datad-gossip"][..],
            &["datad-gossip", "nothing"],
            &["datad-gossip", "dev", "--nodes", "0"],
            &["datad-gossip", "dev", "--nodes", "many"],
            &["datad-gossip", "serve", "--http", "nowhere"],
            &["datad-gossip", "serve", "--repair-delay", "soon"],
            &["datad-gossip", "serve", "--profile", "moon"],
            &["datad-gossip", "locate"],
            &["datad-gossip", "locate", "../x"],
            &["datad-gossip", "status", "--at", "not a url"],
        ] {
            let error = Cli::try_parse_from(arguments).err().unwrap_or_else(|| panic!("{arguments:?} was taken"));
            assert_eq!(error.exit_code(), 2, "{arguments:?}");
        }
    }
}

//! `serve`: one node in this process, from its settings to its orderly end.
//!
//! ```text
//!   lock the data folder -> bind HTTP -> open the provider -> launch the node -> answer HTTP -> ready
//!   SIGTERM -> not ready any more -> hand over what only this node holds -> accept no more -> finish requests -> 0
//! ```

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    pin::pin,
};

use anyhow::{Context, anyhow};
use clap::Args;
use datad_gossip::{
    Credentials, Node,
    config::NodeConfig,
    gateway::{Gateway, GatewayBuilder},
    key::NodeName,
};
use rustix::fs::{FlockOperation, flock};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    admin,
    failure::Failure,
    limits, output,
    provider::{self, Origin, Upstream},
    secret,
    settings::{PORT, Settings, Sources},
    signals::{Signals, stdin_ended},
    watchdog::Watchdog,
};

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ServeOptions {
    #[command(flatten)]
    sources: Sources,
    /// Stop when standard input ends; also announce the UDP address. For a parent that must not leave nodes behind
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
    /// A folder that is never served, should it lie among the data
    #[arg(long, hide = true, value_name = "DIR")]
    except: Vec<PathBuf>,
}

#[derive(Args)]
#[command(after_help = "\
Examples:
  datad-gossip check --config /etc/datad.toml
  DATAD_REPLICAS=3 datad-gossip check --config /etc/datad.toml | grep replicas

Takes the options of serve, from the same places. Exit status 0 if a node can be run with them, else 2 and the reason.")]
pub(crate) struct CheckOptions {
    #[command(flatten)]
    sources: Sources,
}

const EXAMPLES: &str = "\
Examples:
  datad-gossip serve --name n1 --data /var/lib/datad --cluster-key-file cluster.key \\
      --http 0.0.0.0:8400 --advertise 10.0.0.1:8400 --git 'https://{key}.git' --allow 'github.com/my-org/*'
  datad-gossip serve --name n2 --data /var/lib/datad --cluster-key-file cluster.key \\
      --http 0.0.0.0:8400 --advertise 10.0.0.2:8400 --seed 10.0.0.1:8400 --git 'https://{key}.git'
  datad-gossip serve --config /etc/datad.toml

Prints `ready NAME http://ADDR pid PID` once it serves and has met another node, if it names seeds, and as many as
--expect-members says; until then /-/readyz is 503 and says what it waits for, as `status` does.
SIGTERM ends it in order; a second one at once. As the first process of a container, the program runs the node in a child: PID is the
child's, the one to look at or to kill; SIGTERM to either is the same.";

/// Everything that is known before anything is done.
struct Plan {
    name: NodeName,
    config: NodeConfig,
    #[cfg(feature = "etcd")]
    etcd: Option<datad_gossip::etcd::EtcdConfig>,
    credentials: Credentials,
    origin: Origin,
    allow: Vec<String>,
    upstream: Upstream,
    except: Vec<PathBuf>,
    data: PathBuf,
    http: SocketAddr,
    advertise_http: Option<String>,
    admin_token_file: Option<PathBuf>,
    webhook_secret_file: Option<PathBuf>,
    host_names: Vec<String>,
    requests_max: Option<usize>,
    is_child: bool,
}

impl ServeOptions {
    fn plan(self) -> Result<Plan, Failure> {
        let mut plan = Plan::of(self.sources.read()?)?;
        // It may hold a password.
        plan.except.extend(self.sources.config);
        plan.except.extend(self.except);
        plan.is_child = self.exit_with_stdin;
        Ok(plan)
    }
}

impl Plan {
    fn of(Settings { node, own }: Settings) -> Result<Self, Failure> {
        let data = own.data.clone().ok_or_else(|| Failure::Usage("give the node a folder with --data".into()))?;
        // Read again when the node starts; what is wrong with it is said before anything is done.
        own.admin_token_file.as_deref().map(secret::read).transpose()?;
        own.webhook_secret_file.as_deref().map(secret::read).transpose()?;
        let listens_everywhere = node.advertise.unwrap_or(node.listen).ip().is_unspecified();
        let plan = Self {
            name: own.node_name()?,
            config: node,
            #[cfg(feature = "etcd")]
            etcd: own.etcd.config()?,
            origin: own.origin()?,
            credentials: own.credentials()?,
            allow: own.provider.allow.clone().unwrap_or_default(),
            http: own.http.unwrap_or(SocketAddr::from(([127, 0, 0, 1], PORT))),
            upstream: own.provider.upstream()?,
            except: own.secrets().map(Path::to_owned).collect(),
            advertise_http: own.advertise_http,
            admin_token_file: own.admin_token_file,
            webhook_secret_file: own.webhook_secret_file,
            host_names: own.host_names.unwrap_or_default(),
            requests_max: own.requests_max,
            is_child: false,
            data,
        };
        if listens_everywhere && plan.config.seeds.is_empty() {
            let listen = plan.config.listen;
            return Err(Failure::Usage(format!(
                "other nodes cannot reach this one at {listen}, which is every interface; give its address with --advertise, \
                 or choose one with --listen"
            )));
        }
        Ok(plan)
    }
}

/// Says what the settings come to, if a node can be run with them. Nothing but files with settings and secrets is read.
pub(crate) fn check(options: &CheckOptions) -> Result<(), Failure> {
    let settings = options.sources.read()?;
    let text = settings.to_text()?;
    Plan::of(settings).map_err(|failure| match failure {
        Failure::Failed(error) => Failure::Usage(format!("{error:#}")),
        usage @ Failure::Usage(_) => usage,
    })?;
    Ok(output::line(text.trim_end())?)
}

/// Runs the node until it is told to stop.
pub(crate) async fn run(options: ServeOptions, watchdog: Option<&Watchdog>) -> Result<(), Failure> {
    let plan = options.plan()?;
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let _lock = lock(&plan.data)?;
    close(&plan.data)?;
    let token = secret::read(&admin::token_file(&plan.data, plan.admin_token_file.as_deref())?)?;
    let hooks = plan.webhook_secret_file.as_deref().map(secret::read).transpose()?;
    let socket = admin::listen(&plan.data)?;
    let listener = bind(plan.http).await?;
    let http = listener.local_addr().context("the HTTP socket has no address")?;
    let node = tokio::select! {
        launched = launch(&plan, http) => launched?,
        () = signals.next() => return Ok(()),
    };
    let (stop, gateway) = (CancellationToken::new(), gateway(&plan, &node, http, watchdog));
    let mut gateway = gateway.admin_token(token);
    if let Some(secret) = hooks {
        gateway = gateway.webhook_secret(secret);
    }
    let gateway = gateway.build();
    let changing = tokio::spawn(gateway.clone().serve_unix(socket, stop.clone().cancelled_owned()));
    let mut serving = tokio::spawn(gateway.serve(listener, stop.clone().cancelled_owned()));
    let ended = tokio::select! {
        ended = until_told(&plan, &node, http, &mut signals) => ended,
        gone = &mut serving => return Err(anyhow!("the HTTP side ended by itself: {gone:?}").into()),
    };
    let finish = async {
        if ended.is_ok() {
            node.retire(plan.config.drain_timeout).await;
        }
        info!(node = %plan.name, "finishing requests");
        stop.cancel();
        let _ = tokio::join!(serving, changing);
        node.shutdown().await;
    };
    tokio::select! {
        () = finish => {}
        () = signals.next() => {
            warn!("told twice to stop: ending at once");
            std::process::exit(1);
        }
    }
    ended
}

/// One process at a time works in a data folder. The lock goes with the process, however it ends.
pub(crate) fn lock(data: &Path) -> anyhow::Result<File> {
    let folder = data.display();
    fs::create_dir_all(data).with_context(|| format!("cannot make the data folder {folder}"))?;
    let file = File::create(data.join("lock")).with_context(|| format!("cannot use the data folder {folder}"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(anyhow!(
            "the data folder {folder} is in use by another process; stop it, or choose another with --data"
        )),
        Err(error) => Err(anyhow!("cannot lock the data folder {folder}: {error}")),
    }
}

/// Closes the node's own folders to other users, where an earlier version has left them open.
fn close(data: &Path) -> anyhow::Result<()> {
    for folder in ["node", "git", "files"].map(|name| data.join(name)) {
        match fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot close {} to other users", folder.display()));
            }
            _ => {}
        }
    }
    Ok(())
}

async fn bind(http: SocketAddr) -> anyhow::Result<TcpListener> {
    let what = || format!("cannot listen on {http}/tcp; choose another address with --http");
    TcpListener::bind(http).await.with_context(what)
}

async fn launch(plan: &Plan, http: SocketAddr) -> anyhow::Result<Node> {
    let (origin, allow, data, mut except) =
        (plan.origin.clone(), plan.allow.clone(), plan.data.clone(), plan.except.clone());
    except.push(data.clone());
    let upstream = plan.upstream.clone();
    let provider =
        tokio::task::spawn_blocking(move || provider::open(origin, allow, upstream, &data, except)).await??;
    let builder = Node::builder(plan.name.clone());
    #[cfg(feature = "etcd")]
    let builder = match &plan.etcd {
        Some(etcd) => builder.etcd(etcd.clone()),
        None => builder,
    };
    let node = builder
        .config(plan.config.clone())
        .credentials(plan.credentials.clone())
        .provider(provider)
        .data_folder(plan.data.join("node"))
        .advertise_http(url_of(plan, http, plan.config.advertise))
        .launch()
        .await?;
    if plan.is_child {
        output::line(&format!("udp {}", node.address()))?;
    }
    let of_all = plan.config.refresh.get("");
    match of_all.filter(|policy| !policy.interval.is_zero()).or(plan.config.refresh.values().next()) {
        Some(policy) => info!(
            every = ?policy.interval, min = ?policy.min, max = ?policy.max, all_keys = of_all.is_some(),
            "origins are asked for news of what is held; see --refresh"
        ),
        None => info!("what is held is refreshed when somebody asks for it; see --refresh"),
    }
    info!(node = %plan.name, %http, udp = %node.address(), "joining");
    Ok(node)
}

/// How the node's HTTP side is to be called, if the other nodes reach it at `udp`.
fn url_of(plan: &Plan, bound: SocketAddr, udp: Option<SocketAddr>) -> String {
    match (&plan.advertise_http, udp) {
        (Some(url), _) => url.clone(),
        (None, Some(advertise)) if bound.ip().is_unspecified() => {
            format!("http://{}", SocketAddr::new(advertise.ip(), bound.port()))
        }
        _ => format!("http://{bound}"),
    }
}

fn gateway(plan: &Plan, node: &Node, http: SocketAddr, watchdog: Option<&Watchdog>) -> GatewayBuilder {
    let mut gateway = Gateway::builder(node.client()).connections_max(limits::shares().connections);
    gateway = gateway.host_name(http.ip().to_string());
    if let Some(watchdog) = watchdog {
        gateway = gateway.stuck_threads(watchdog.stuck());
    }
    let advertised = url_of(plan, http, Some(node.address())).parse::<reqwest::Url>().ok();
    let advertised = advertised.as_ref().and_then(|url| url.host_str()).map(str::to_owned);
    for name in plan.host_names.iter().chain(&advertised) {
        gateway = gateway.host_name(name);
    }
    if let Some(requests) = plan.requests_max {
        gateway = gateway.requests_max(requests);
    }
    gateway
}

/// Says when the node is ready, and returns when it is to stop or has stopped.
async fn until_told(plan: &Plan, node: &Node, http: SocketAddr, signals: &mut Signals) -> Result<(), Failure> {
    let mut orphaned = pin!(stdin_ended(plan.is_child));
    let ready = async {
        node.serving().await?;
        node.joined().await
    };
    tokio::select! {
        ready = ready => ready.map_err(anyhow::Error::from)?,
        () = signals.next() => return Ok(()),
        () = &mut orphaned => return Ok(()),
    }
    output::line(&format!("ready {} http://{http} pid {}", plan.name, std::process::id()))?;
    tokio::select! {
        reason = node.failed() => Err(anyhow!("the node stopped: {reason}").into()),
        () = signals.next() => Ok(()),
        () = &mut orphaned => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_belongs_to_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(&folder.path().join("data")).unwrap();
        let error = lock(&folder.path().join("data")).unwrap_err().to_string();
        assert!(error.contains("in use") && error.contains("--data"), "{error}");
        drop(held);
        lock(&folder.path().join("data")).unwrap();
    }
}

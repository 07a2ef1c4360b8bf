//! Where other nodes reach this one.
//!
//! A node that listens on all interfaces has no address to tell unless it is told one, or can see which of its own leads to
//! its seeds. An address of all interfaces is never told: each peer would take it for its own machine, so that a cluster
//! works as long as it is tried on one machine, and on no other day.

use std::net::{IpAddr, SocketAddr};

use tracing::info;

use crate::{config::NodeConfig, world::World};

/// Why it is not known where other nodes reach this one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("other nodes cannot reach this one at {address}: {reason}; set the address of this machine with `advertise`")]
pub struct AdvertiseError {
    address: SocketAddr,
    reason: String,
}

/// The address to advertise: as configured; that of the socket (`None`) if it listens on one interface; else the one that
/// leads to a seed, preferably one on another machine. Port 0 stands for the bound one.
///
/// # Errors
/// None of them is any good.
pub(super) async fn address(world: &dyn World, config: &NodeConfig) -> Result<Option<SocketAddr>, AdvertiseError> {
    let wanted = config.advertise.unwrap_or(config.listen);
    if !wanted.ip().is_unspecified() {
        return Ok(config.advertise);
    }
    let fail = |reason: String| Err(AdvertiseError { address: wanted, reason });
    if config.seeds.is_empty() {
        return fail("that is every interface, and there is no seed that shows which one they use".to_owned());
    }
    let (mut found, mut reasons) = (Vec::new(), Vec::new());
    for seed in &config.seeds {
        let resolved = tokio::net::lookup_host(seed).await.and_then(|mut addresses| {
            let target = addresses.find(|address| address.is_ipv4() || wanted.is_ipv6());
            target.ok_or_else(|| std::io::Error::other("it has no address that this node can reach"))
        });
        match resolved.and_then(|target| world.source_for(target)) {
            Ok(own) => found.push(own),
            Err(error) => reasons.push(format!("{seed}: {error}")),
        }
    }
    let own = found.iter().find(|own| !own.is_loopback()).or_else(|| found.first());
    match own {
        Some(own) => {
            info!(address = %own, "advertising the address that leads to the seeds");
            Ok(Some(SocketAddr::new(*own, wanted.port())))
        }
        None => fail(format!("that is every interface, and no seed shows which one they use ({})", reasons.join("; "))),
    }
}

/// `url` with `own` in the place of an address of all interfaces.
pub(super) fn reachable(url: String, own: IpAddr) -> String {
    let bound = url.strip_prefix("http://").and_then(|host| host.trim_end_matches('/').parse::<SocketAddr>().ok());
    match bound {
        Some(bound) if bound.ip().is_unspecified() => format!("http://{}", SocketAddr::new(own, bound.port())),
        _ => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::Machine;

    async fn found(listen: &str, advertise: Option<&str>, seeds: &[&str]) -> Result<Option<SocketAddr>, String> {
        let config = NodeConfig {
            listen: listen.parse().unwrap(),
            advertise: advertise.map(|text| text.parse().unwrap()),
            seeds: seeds.iter().map(|&seed| seed.to_owned()).collect(),
            ..NodeConfig::default()
        };
        address(&Machine::default(), &config).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn what_is_said_counts_and_one_interface_is_known_from_its_socket() {
        assert_eq!(found("0.0.0.0:7", Some("10.0.0.1:7"), &[]).await, Ok(Some("10.0.0.1:7".parse().unwrap())));
        assert_eq!(found("127.0.0.1:0", None, &[]).await, Ok(None));
    }

    #[tokio::test]
    async fn all_interfaces_are_narrowed_to_the_one_that_leads_to_a_seed_or_refused_with_what_to_set() {
        let own = found("0.0.0.0:7", None, &["no-such-host.invalid:1", "127.0.0.1:8300"]).await;
        assert_eq!(own, Ok(Some("127.0.0.1:7".parse().unwrap())));
        for (advertise, seeds) in [(None, &[][..]), (Some("0.0.0.0:7"), &[]), (None, &["no-such-host.invalid:1"])] {
            let refused = found("0.0.0.0:7", advertise, seeds).await.unwrap_err();
            assert!(refused.contains("`advertise`") && refused.contains("0.0.0.0:7"), "{refused}");
        }
    }

    #[test]
    fn an_http_address_of_all_interfaces_is_told_as_the_one_that_others_reach() {
        let own = "10.0.0.1".parse().unwrap();
        let told = |url: &str| reachable(url.to_owned(), own);
        assert_eq!(told("http://0.0.0.0:8400"), "http://10.0.0.1:8400");
        assert_eq!(told("http://[::]:8400"), "http://10.0.0.1:8400");
        for other in ["http://127.0.0.1:8400", "https://node.example/"] {
            assert_eq!(told(other), other);
        }
    }
}

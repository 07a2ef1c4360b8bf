//! 15: once healed, backlogs drain to zero and nobody fetches any more.

use super::Violation;
use crate::cluster::Cluster;

/// Looks for work that has not ended.
///
/// # Errors
/// There is some.
pub async fn check(cluster: &Cluster) -> Result<(), Violation> {
    let in_flight = cluster.origin.in_flight();
    if in_flight > 0 {
        return Err(Violation::liveness(15, format!("{in_flight} fetches in flight at the origin")));
    }
    for (_, _, client) in cluster.up() {
        let status = client.status().await;
        if status.fetching > 0 || status.under_replicated > 0 {
            return Err(Violation::liveness(15, format!("not idle: {status:?}")));
        }
    }
    Ok(())
}

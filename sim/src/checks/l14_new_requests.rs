//! 14: once healed, a request for any key succeeds at any node.

use super::{Violation, s09_answers};
use crate::{
    cluster::Cluster,
    request::{self, Answer},
};

/// Asks every node for every key.
///
/// # Errors
/// A request does not succeed.
pub async fn check(cluster: &Cluster) -> Result<(), Violation> {
    let patience = cluster.config.request_patience;
    for key in cluster.origin.keys() {
        let value = cluster.origin.value(&key);
        let asked: Vec<_> = cluster
            .up()
            .map(|(_, machine, client)| {
                let answer = tokio::spawn(request::ask(client.clone(), key.clone(), patience));
                (machine.name.clone(), answer)
            })
            .collect();
        for (name, answer) in asked {
            let answer = answer.await.unwrap_or(Answer::Hangs);
            if let Err(violation) = s09_answers::check(&key, value.as_ref(), &answer, true) {
                return Err(Violation::liveness(14, format!("asked at {name}: {}", violation.detail)));
            }
        }
    }
    Ok(())
}

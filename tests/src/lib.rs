//! The proof: worlds to run the whole chain in, in memory and on real parts.

pub mod collector;
pub mod load_world;
pub mod memory_world;
pub mod real_world;
pub mod runtime_api;

use landfall_shared::queue::Delivery;
use landfall_shared::{Runner, Stage, Verdict};

/// Settles what was received, and carries the verdicts out one by one. What fails at that comes again when its
/// visibility is over.
pub async fn settle<S: Stage>(runner: &Runner<S>, deliveries: &[Delivery]) {
    let verdicts = runner.settle(deliveries).await;
    for (delivery, verdict) in deliveries.iter().zip(verdicts) {
        match verdict {
            Verdict::Ack => drop(runner.queue().delete(std::slice::from_ref(&delivery.receipt)).await),
            Verdict::Retry { after } => {
                drop(runner.queue().set_visibility(&[(delivery.receipt.clone(), after)]).await);
            }
        }
    }
}

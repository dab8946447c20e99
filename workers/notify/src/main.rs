//! The notify worker.

use landfall_notify::Notify;
use landfall_shared::{poller::Settings, worker};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    worker::run(Settings { batch_max: 50, ..Settings::default() }, async |surroundings| Notify::new(surroundings)).await
}

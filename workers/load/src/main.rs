//! The load worker.

use std::time::Duration;

use landfall_load::Load;
use landfall_shared::{poller::Settings, worker};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // One transaction for many documents: its cost is in the commit.
    let settings = Settings { batch_max: 100, batch_wait: Duration::from_millis(100), ..Settings::default() };
    worker::run(settings, async |surroundings| Load::new(surroundings)).await
}

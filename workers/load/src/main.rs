//! The load worker.

use std::time::Duration;

use landfall_load::Load;
use landfall_shared::{poller::Settings, worker};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // One transaction for many documents, because its cost is in the commit; a batch is divided among the connections.
    let batch = Settings { in_flight_max: 400, batch_max: 200, ..Settings::default() };
    let settings = Settings { batch_wait: Duration::from_millis(100), ..batch };
    worker::run(settings, async |surroundings| Load::new(surroundings)).await
}

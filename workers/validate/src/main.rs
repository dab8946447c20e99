//! The validate worker.

use landfall_shared::{poller::Settings, worker};
use landfall_validate::Validate;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    worker::run(Settings::default(), async |surroundings| Validate::new(surroundings).await).await
}

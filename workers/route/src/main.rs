//! The route worker.

use landfall_route::Route;
use landfall_shared::{poller::Settings, worker};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    worker::run(Settings::default(), async |surroundings| Route::new(surroundings).await).await
}

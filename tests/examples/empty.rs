//! A function that does nothing, on the runtime of the workers: what a cold start costs before any of our own work.

use lambda_runtime::{Error, LambdaEvent, service_fn};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let answer = async |_: LambdaEvent<serde_json::Value>| Ok::<_, Error>(serde_json::json!({"batchItemFailures": []}));
    lambda_runtime::run(service_fn(answer)).await
}

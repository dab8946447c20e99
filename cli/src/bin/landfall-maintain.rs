//! The scheduled maintenance as a function: what `landfall maintain` does, for each invocation.
#![recursion_limit = "256"]

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_none() {
        eprintln!("landfall-maintain: this is a function for Lambda; `landfall maintain` does the same here");
        return ExitCode::from(2);
    }
    landfall_shared::telemetry::start();
    match landfall::maintain::serve().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("landfall-maintain: {error:#}");
            ExitCode::from(2)
        }
    }
}

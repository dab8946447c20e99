//! The ports over the AWS SDK for Rust: SQS, SNS and S3, or anything that speaks their protocols
//! (`AWS_ENDPOINT_URL`).

mod objects;
mod queue;
mod topics;
mod uploads;

pub use objects::{Elsewhere, S3Objects};
pub use queue::SqsQueue;
pub use topics::SnsTopics;

use std::collections::BTreeMap;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::SharedHttpClient;
use aws_smithy_http_client::tls;

use crate::config::Destination;

/// Loads credentials, region and endpoint the way every AWS tool does, over the one TLS stack that is linked.
pub async fn sdk_config() -> SdkConfig {
    aws_config::defaults(BehaviorVersion::latest()).http_client(http_client()).load().await
}

/// The HTTP client of every SDK client: rustls over ring.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    let provider = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    aws_smithy_http_client::Builder::new().tls_provider(provider).build_https()
}

/// An S3 client. Path-style addressing is used with an endpoint of one's own, which seldom has wildcard names.
#[must_use]
pub fn s3(config: &SdkConfig) -> aws_sdk_s3::Client {
    let path_style = config.endpoint_url().is_some();
    aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(config).force_path_style(path_style).build())
}

/// Clients for the destinations that are in another region, in another store, or under other credentials.
pub async fn elsewhere(config: &SdkConfig, destinations: &[Destination]) -> BTreeMap<String, Elsewhere> {
    let mut clients = BTreeMap::new();
    for Destination { bucket, region, endpoint, profile, .. } in destinations {
        if region.is_none() && endpoint.is_none() && profile.is_none() {
            continue;
        }
        let own = match profile {
            Some(profile) => aws_config::defaults(BehaviorVersion::latest()).profile_name(profile),
            None => aws_config::defaults(BehaviorVersion::latest())
                .credentials_provider(config.credentials_provider().expect("the SDK has been configured"))
                .region(config.region().cloned()),
        };
        let mut own = own.http_client(http_client());
        if let Some(region) = region {
            own = own.region(Region::new(region.clone()));
        }
        if let Some(endpoint) = endpoint.as_deref().or(config.endpoint_url()) {
            own = own.endpoint_url(endpoint);
        }
        let elsewhere = Elsewhere { client: s3(&own.load().await), endpoint: endpoint.clone() };
        clients.insert(bucket.clone(), elsewhere);
    }
    clients
}

/// What the service said of a failure, in one line: its code and message, or what kept us from it.
fn said<E, R>(error: &aws_smithy_runtime_api::client::result::SdkError<E, R>) -> (String, String)
where
    E: aws_smithy_types::error::metadata::ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    if let Some(service) = error.as_service_error() {
        let code = service.code().unwrap_or_default().to_owned();
        let text = format!("{code}: {}", service.message().unwrap_or("no message"));
        return (code, text);
    }
    (String::new(), crate::stage::chain_of(error))
}

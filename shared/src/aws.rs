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

/// A database password that AWS gives.
pub struct DatabasePassword {
    source: PasswordSource,
    known: tokio::sync::Mutex<Option<(std::time::Instant, String)>>,
}

enum PasswordSource {
    /// A secret: the password itself, or JSON with it as `password`, as RDS keeps it.
    /// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/reference_secret_json_structure.html>
    Secret { client: aws_sdk_secretsmanager::Client, id: String },
    /// A token of the role that we have.
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.html>
    Token { sdk: Box<SdkConfig> },
}

/// How long a password is used for new connections before it is asked for again. A token is good for 15 minutes.
const PASSWORD_FRESH: std::time::Duration = std::time::Duration::from_secs(300);

impl DatabasePassword {
    /// Reads a secret of Secrets Manager.
    #[must_use]
    pub fn secret(sdk: &SdkConfig, id: &str) -> Self {
        let source = PasswordSource::Secret { client: aws_sdk_secretsmanager::Client::new(sdk), id: id.to_owned() };
        Self { source, known: tokio::sync::Mutex::default() }
    }

    /// Signs a token with the credentials at hand.
    #[must_use]
    pub fn token(sdk: &SdkConfig) -> Self {
        Self { source: PasswordSource::Token { sdk: Box::new(sdk.clone()) }, known: tokio::sync::Mutex::default() }
    }

    /// The password for this host, port and user.
    ///
    /// # Errors
    /// In words, where AWS does not give it.
    pub async fn current(&self, endpoint: &(String, u16, String)) -> Result<String, String> {
        let mut known = self.known.lock().await;
        if let Some((_, password)) = known.as_ref().filter(|(since, _)| since.elapsed() < PASSWORD_FRESH) {
            return Ok(password.clone());
        }
        let password = match &self.source {
            PasswordSource::Secret { client, id } => {
                let answer = client.get_secret_value().secret_id(id).send().await;
                let answer =
                    answer.map_err(|error| aws_smithy_types::error::display::DisplayErrorContext(error).to_string())?;
                let text = answer.secret_string().ok_or("the secret holds no text")?;
                password_of(text).ok_or("the secret is JSON without a `password`")?
            }
            PasswordSource::Token { sdk } => token(sdk, endpoint).await?,
        };
        *known = Some((std::time::Instant::now(), password.clone()));
        Ok(password)
    }

    /// Asks anew the next time: the database has refused the one that is known, which may have been rotated.
    pub async fn forget(&self) {
        *self.known.lock().await = None;
    }
}

fn password_of(secret: &str) -> Option<String> {
    match serde_json::from_str::<serde_json::Value>(secret) {
        Ok(serde_json::Value::Object(members)) => members.get("password")?.as_str().map(str::to_owned),
        _ => Some(secret.to_owned()),
    }
}

/// A presigned request to connect, without its scheme: the database takes it for a password.
async fn token(sdk: &SdkConfig, (host, port, user): &(String, u16, String)) -> Result<String, String> {
    use aws_credential_types::provider::ProvideCredentials;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
    let words = |error: &dyn std::error::Error| crate::stage::chain_of(error);
    let provider = sdk.credentials_provider().ok_or("there are no credentials")?;
    let credentials = provider.provide_credentials().await.map_err(|error| words(&error))?;
    let region = sdk.region().ok_or("there is no region")?.to_string();
    let mut settings = SigningSettings::default();
    settings.expires_in = Some(std::time::Duration::from_secs(900));
    settings.signature_location = SignatureLocation::QueryParams;
    let identity = credentials.into();
    let parameters = aws_sigv4::sign::v4::SigningParams::builder()
        .identity(&identity)
        .region(&region)
        .name("rds-db")
        .time(std::time::SystemTime::now())
        .settings(settings)
        .build()
        .map_err(|error| words(&error))?;
    // https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
    const RESERVED: percent_encoding::AsciiSet =
        percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    let user = percent_encoding::utf8_percent_encode(user, &RESERVED);
    let url = format!("https://{host}:{port}/?Action=connect&DBUser={user}");
    let request = SignableRequest::new("GET", &url, std::iter::empty(), SignableBody::Bytes(&[]))
        .map_err(|error| words(&error))?;
    let (instructions, _) = sign(request, &parameters.into()).map_err(|error| words(&error))?.into_parts();
    let (_, query) = instructions.into_parts();
    let encoded = query
        .iter()
        .map(|(name, value)| format!("&{name}={}", percent_encoding::utf8_percent_encode(value, &RESERVED)));
    Ok(format!("{}{}", url.trim_start_matches("https://"), encoded.collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_password_or_json_that_holds_one() {
        assert_eq!(password_of("p4ss").as_deref(), Some("p4ss"));
        assert_eq!(password_of(r#"{"username":"u","password":"p"}"#).as_deref(), Some("p"));
        assert_eq!(password_of(r#"{"username":"u"}"#), None);
    }

    #[tokio::test]
    async fn a_token_is_a_signed_request_to_connect() {
        let credentials =
            aws_credential_types::Credentials::new("AKID", "secret", Some("session/+".into()), None, "test");
        let sdk = SdkConfig::builder()
            .region(Region::new("eu-central-1"))
            .credentials_provider(aws_sdk_s3::config::SharedCredentialsProvider::new(credentials))
            .build();
        let token = token(&sdk, &("db.example.org".into(), 5432, "loader".into())).await.unwrap();
        assert!(token.starts_with("db.example.org:5432/?Action=connect&DBUser=loader&"), "{token}");
        for part in [
            "X-Amz-Algorithm=AWS4-HMAC-SHA256",
            "X-Amz-Expires=900",
            "X-Amz-Signature=",
            "rds-db%2Faws4_request",
            "X-Amz-Security-Token=session%2F%2B",
        ] {
            assert!(token.contains(part), "{part} in {token}");
        }
        assert!(!token.contains("secret"));
    }
}

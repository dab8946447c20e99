//! S3.

use std::collections::BTreeMap;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::MetadataDirective;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use bytes::{Bytes, BytesMut};
use landfall_events::ObjectRef;

use super::said;
use crate::objects::{ObjectInfo, Objects, ObjectsError, Over};

/// Objects in S3.
#[derive(Debug, Clone)]
pub struct S3Objects {
    client: Client,
}

impl S3Objects {
    /// Reads and writes with this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client }
    }
}

/// Sorts a failure by what the service said and by the HTTP status, for answers without a body (HEAD).
fn sort<E>(object: &ObjectRef, error: &SdkError<E, Response>) -> ObjectsError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let (code, reason) = said(error);
    let status = error.raw_response().map(|response| response.status().as_u16());
    let object = object.clone();
    match (code.as_str(), status) {
        ("NoSuchKey" | "NotFound" | "NoSuchVersion", _) | ("", Some(404)) => ObjectsError::Missing(object),
        ("PreconditionFailed" | "ConditionalRequestConflict", _) | (_, Some(412)) => ObjectsError::Changed(object),
        ("MetadataTooLarge" | "KeyTooLongError" | "InvalidRequest" | "InvalidArgument" | "EntityTooLarge", _) => {
            ObjectsError::Refused { object, reason }
        }
        ("AccessDenied" | "Forbidden", _) | (_, Some(403)) => ObjectsError::Denied { object, reason },
        _ => ObjectsError::Unavailable { object, reason },
    }
}

fn unquoted(etag: Option<&str>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_owned()
}

fn lower(metadata: Option<&std::collections::HashMap<String, String>>) -> BTreeMap<String, String> {
    let pairs = metadata.into_iter().flatten();
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

#[async_trait]
impl Objects for S3Objects {
    async fn get(
        &self,
        object: &ObjectRef,
        etag: Option<&str>,
        bytes_max: u64,
    ) -> Result<(Bytes, ObjectInfo), ObjectsError> {
        let if_match = etag.map(|etag| format!("\"{etag}\""));
        let request = self.client.get_object().bucket(&object.bucket).key(&object.key).set_if_match(if_match);
        let mut answer = request.send().await.map_err(|error| sort(object, &error))?;
        let too_large = || ObjectsError::TooLarge { object: object.clone(), bytes_max };
        if answer.content_length().is_some_and(|length| u64::try_from(length).unwrap_or(0) > bytes_max) {
            return Err(too_large());
        }
        let info_etag = unquoted(answer.e_tag());
        let metadata = lower(answer.metadata());
        // The length that was announced is not trusted: reading stops at the limit.
        let mut body = BytesMut::new();
        while let Some(chunk) = answer.body.next().await {
            let chunk = chunk.map_err(|error| ObjectsError::Unavailable {
                object: object.clone(),
                reason: crate::stage::chain_of(&error),
            })?;
            if (body.len() + chunk.len()) as u64 > bytes_max {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        let info = ObjectInfo { size: body.len() as u64, etag: info_etag, metadata };
        Ok((body.freeze(), info))
    }

    async fn head(&self, object: &ObjectRef) -> Result<Option<ObjectInfo>, ObjectsError> {
        match self.client.head_object().bucket(&object.bucket).key(&object.key).send().await {
            Ok(answer) => Ok(Some(ObjectInfo {
                size: answer.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
                etag: unquoted(answer.e_tag()),
                metadata: lower(answer.metadata()),
            })),
            Err(error) => match sort(object, &error) {
                ObjectsError::Missing(_) => Ok(None),
                other @ (ObjectsError::Changed(_)
                | ObjectsError::TooLarge { .. }
                | ObjectsError::Refused { .. }
                | ObjectsError::Denied { .. }
                | ObjectsError::Unavailable { .. }) => Err(other),
            },
        }
    }

    async fn put(
        &self,
        object: &ObjectRef,
        body: Bytes,
        content_type: &str,
        metadata: &BTreeMap<String, String>,
        over: Over<'_>,
    ) -> Result<ObjectInfo, ObjectsError> {
        let size = body.len() as u64;
        let mut request = self
            .client
            .put_object()
            .bucket(&object.bucket)
            .key(&object.key)
            .content_type(content_type)
            .body(ByteStream::from(body));
        // <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>
        request = match over {
            Over::Anything => request,
            Over::Nothing => request.if_none_match("*"),
            Over::This(etag) => request.if_match(format!("\"{etag}\"")),
        };
        for (name, value) in metadata {
            request = request.metadata(name, value);
        }
        let answer = request.send().await.map_err(|error| sort(object, &error))?;
        Ok(ObjectInfo { size, etag: unquoted(answer.e_tag()), metadata: metadata.clone() })
    }

    async fn copy(
        &self,
        from: &ObjectRef,
        etag: &str,
        to: &ObjectRef,
        metadata: &BTreeMap<String, String>,
    ) -> Result<(u64, ObjectInfo), ObjectsError> {
        let head = self.client.head_object().bucket(&from.bucket).key(&from.key).if_match(format!("\"{etag}\""));
        let source = head.send().await.map_err(|error| sort(from, &error))?;
        // The header is a URL path: slashes stay, everything else that is not plain is encoded.
        let key: Vec<_> = from.key.split('/').map(encode).collect();
        let mut request = self
            .client
            .copy_object()
            .copy_source(format!("{}/{}", from.bucket, key.join("/")))
            .copy_source_if_match(format!("\"{etag}\""))
            .bucket(&to.bucket)
            .key(&to.key)
            .metadata_directive(MetadataDirective::Replace)
            .set_content_type(source.content_type().map(str::to_owned))
            .set_content_encoding(source.content_encoding().map(str::to_owned))
            .set_cache_control(source.cache_control().map(str::to_owned))
            .set_content_disposition(source.content_disposition().map(str::to_owned));
        for (name, value) in lower(source.metadata()).iter().chain(metadata) {
            request = request.metadata(name, value);
        }
        request.send().await.map_err(|error| match sort(from, &error) {
            // CopyObject says 412 for the source's condition, which is the only one that was set.
            ObjectsError::Denied { reason, .. } => ObjectsError::Denied { object: to.clone(), reason },
            other @ (ObjectsError::Missing(_)
            | ObjectsError::Changed(_)
            | ObjectsError::TooLarge { .. }
            | ObjectsError::Refused { .. }
            | ObjectsError::Unavailable { .. }) => other,
        })?;
        let size = source.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0);
        let copied = self.head(to).await?.ok_or_else(|| ObjectsError::Missing(to.clone()))?;
        Ok((size, copied))
    }

    async fn ready(&self, bucket: &str) -> Result<(), ObjectsError> {
        let whole = ObjectRef::new(bucket, "");
        match self.client.head_bucket().bucket(bucket).send().await {
            Ok(_) => Ok(()),
            Err(error) => Err(sort(&whole, &error)),
        }
    }
}

fn encode(segment: &str) -> String {
    percent_encoding::utf8_percent_encode(segment, percent_encoding::NON_ALPHANUMERIC).to_string()
}

//! S3: objects, each bucket by the client that reaches it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, MetadataDirective, Tag, TaggingDirective};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::Response;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use landfall_events::ObjectRef;

use super::said;
use crate::objects::{Checksum, Headers, ObjectInfo, Objects, ObjectsError, Over, Properties, Source};

/// Objects in S3.
#[derive(Debug, Clone)]
pub struct S3Objects {
    client: Client,
    elsewhere: Arc<BTreeMap<String, Elsewhere>>,
}

/// How a bucket is reached that is not where the others are.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// The client for its region, its endpoint, its credentials.
    pub client: Client,
    /// The endpoint, where it is another store: no bytes can be copied there but through us.
    pub endpoint: Option<String>,
}

impl S3Objects {
    /// Reads and writes with this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, elsewhere: Arc::default() }
    }

    /// The same, but for buckets that are elsewhere.
    #[must_use]
    pub fn with(self, elsewhere: BTreeMap<String, Elsewhere>) -> Self {
        Self { elsewhere: Arc::new(elsewhere), ..self }
    }

    pub(super) fn client(&self, bucket: &str) -> &Client {
        self.elsewhere.get(bucket).map_or(&self.client, |elsewhere| &elsewhere.client)
    }

    fn endpoint(&self, bucket: &str) -> Option<&str> {
        self.elsewhere.get(bucket)?.endpoint.as_deref()
    }
}

/// Sorts a failure by what the service said and by the HTTP status, for answers without a body (HEAD).
pub(super) fn sort<E>(object: &ObjectRef, error: &SdkError<E, Response>) -> ObjectsError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let (code, reason) = said(error);
    let status = error.raw_response().map(|response| response.status().as_u16());
    let object = object.clone();
    match (code.as_str(), status) {
        ("NoSuchKey" | "NotFound" | "NoSuchVersion" | "NoSuchUpload", _) | ("", Some(404)) => {
            ObjectsError::Missing(object)
        }
        ("PreconditionFailed" | "ConditionalRequestConflict", _) | (_, Some(412)) => ObjectsError::Changed(object),
        (
            "MetadataTooLarge"
            | "KeyTooLongError"
            | "InvalidRequest"
            | "InvalidArgument"
            | "EntityTooLarge"
            | "EntityTooSmall"
            | "InvalidPart"
            | "InvalidRange"
            | "InvalidTag"
            | "InvalidStorageClass",
            _,
        ) => ObjectsError::Refused { object, reason },
        ("AccessDenied" | "Forbidden", _) | (_, Some(403)) => ObjectsError::Denied { object, reason },
        _ => ObjectsError::Unavailable { object, reason },
    }
}

fn unquoted(etag: Option<&str>) -> String {
    etag.unwrap_or_default().trim_matches('"').to_owned()
}

pub(super) fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

fn lower(metadata: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
    let pairs = metadata.into_iter().flatten();
    pairs.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect()
}

fn metadata(properties: &Properties) -> Option<HashMap<String, String>> {
    Some(properties.metadata.clone().into_iter().collect())
}

/// Tags as S3 takes them with a write: a URL's query.
pub(super) fn tagging(properties: &Properties) -> Option<String> {
    let pair = |(name, value): (&String, &String)| format!("{}={}", encode(name), encode(value));
    properties.tags.as_ref().map(|tags| tags.iter().map(pair).collect::<Vec<_>>().join("&"))
}

pub(super) fn time(time: Option<&DateTime>) -> Option<Timestamp> {
    let time = time?;
    Timestamp::new(time.secs(), i32::try_from(time.subsec_nanos()).ok()?).ok()
}

/// The object's checksum; one over checksums of parts says nothing about the bytes of a copy in other parts.
fn checksum(head: &HeadObjectOutput) -> Option<Checksum> {
    if head.checksum_type() == Some(&ChecksumType::Composite) {
        return None;
    }
    let held = [
        (ChecksumAlgorithm::Crc64Nvme, head.checksum_crc64_nvme()),
        (ChecksumAlgorithm::Sha256, head.checksum_sha256()),
        (ChecksumAlgorithm::Sha1, head.checksum_sha1()),
        (ChecksumAlgorithm::Crc32C, head.checksum_crc32_c()),
        (ChecksumAlgorithm::Crc32, head.checksum_crc32()),
    ];
    // Without a type, the parts are told by the dash.
    let whole = |(algorithm, value): (ChecksumAlgorithm, Option<&str>)| {
        let value = value.filter(|value| !value.contains('-'))?;
        Some(Checksum { algorithm: algorithm.as_str().to_owned(), value: value.to_owned() })
    };
    held.into_iter().find_map(whole)
}

fn info(head: &HeadObjectOutput) -> ObjectInfo {
    let text = |value: Option<&str>| value.map(str::to_owned);
    ObjectInfo {
        size: head.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
        etag: unquoted(head.e_tag()),
        // What was written before a bucket had versions is called "null".
        version_id: text(head.version_id()).filter(|version| version != "null"),
        modified: time(head.last_modified()),
        checksum: checksum(head),
        headers: Headers {
            content_type: text(head.content_type()),
            content_encoding: text(head.content_encoding()),
            content_language: text(head.content_language()),
            content_disposition: text(head.content_disposition()),
            cache_control: text(head.cache_control()),
        },
        metadata: lower(head.metadata()),
    }
}

/// Conditions on the destination of a write.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>
pub(super) fn conditions(over: Over<'_>) -> (Option<String>, Option<String>) {
    match over {
        Over::Anything => (None, None),
        Over::Nothing => (None, Some("*".to_owned())),
        Over::This(etag) => (Some(quoted(etag)), None),
    }
}

/// The header that names a copy's source is a URL's path: slashes stay, what is not plain is encoded.
pub(super) fn copy_source(object: &ObjectRef) -> String {
    let key: Vec<_> = object.key.split('/').map(encode).collect();
    format!("{}/{}", object.bucket, key.join("/"))
}

#[async_trait]
impl Objects for S3Objects {
    async fn get(
        &self,
        object: &ObjectRef,
        etag: Option<&str>,
        bytes_max: u64,
    ) -> Result<(Bytes, ObjectInfo), ObjectsError> {
        let request = self.client(&object.bucket).get_object().bucket(&object.bucket).key(&object.key);
        let answer = request.set_if_match(etag.map(quoted)).send().await.map_err(|error| sort(object, &error))?;
        if answer.content_length().is_some_and(|length| u64::try_from(length).unwrap_or(0) > bytes_max) {
            return Err(ObjectsError::TooLarge { object: object.clone(), bytes_max });
        }
        let mut known = ObjectInfo {
            etag: unquoted(answer.e_tag()),
            modified: time(answer.last_modified()),
            metadata: lower(answer.metadata()),
            ..ObjectInfo::default()
        };
        let body = gathered(object, answer.body, bytes_max).await?;
        known.size = body.len() as u64;
        Ok((body, known))
    }

    async fn range(&self, source: Source<'_>, bytes: Range<u64>) -> Result<Bytes, ObjectsError> {
        let object = source.object;
        let request = self.client(&object.bucket).get_object().bucket(&object.bucket).key(&object.key);
        let request = request.if_match(quoted(source.etag)).range(range(&bytes));
        let answer = request.send().await.map_err(|error| sort(object, &error))?;
        let length = bytes.end - bytes.start;
        let body = gathered(object, answer.body, length).await?;
        if body.len() as u64 == length {
            return Ok(body);
        }
        let reason = format!("{} bytes came, and not {length}", body.len());
        Err(ObjectsError::Unavailable { object: object.clone(), reason })
    }

    async fn head(&self, object: &ObjectRef) -> Result<Option<ObjectInfo>, ObjectsError> {
        let request = self.client(&object.bucket).head_object().bucket(&object.bucket).key(&object.key);
        let answer = request.checksum_mode(ChecksumMode::Enabled).send().await;
        match answer.map_err(|error| sort(object, &error)) {
            Ok(answer) => Ok(Some(info(&answer))),
            Err(ObjectsError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn list(&self, bucket: &str, prefix: &str, most: usize) -> Result<Vec<ObjectRef>, ObjectsError> {
        let most = i32::try_from(most).unwrap_or(1000).min(1000);
        let request = self.client(bucket).list_objects_v2().bucket(bucket).prefix(prefix).max_keys(most);
        let answer = request.send().await.map_err(|error| sort(&ObjectRef::new(bucket, prefix), &error))?;
        let keys = answer.contents().iter().filter_map(|object| object.key());
        Ok(keys.map(|key| ObjectRef::new(bucket, key)).collect())
    }

    async fn put(
        &self,
        object: &ObjectRef,
        body: Bytes,
        properties: &Properties,
        over: Over<'_>,
    ) -> Result<String, ObjectsError> {
        let (if_match, if_none_match) = conditions(over);
        let headers = &properties.headers;
        let answer = self
            .client(&object.bucket)
            .put_object()
            .bucket(&object.bucket)
            .key(&object.key)
            .body(ByteStream::from(body))
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .set_content_type(headers.content_type.clone())
            .set_content_encoding(headers.content_encoding.clone())
            .set_content_language(headers.content_language.clone())
            .set_content_disposition(headers.content_disposition.clone())
            .set_cache_control(headers.cache_control.clone())
            .set_metadata(metadata(properties))
            .set_tagging(tagging(properties))
            .set_storage_class(properties.storage_class.map(|class| class.as_str().into()))
            .send()
            .await
            .map_err(|error| sort(object, &error))?;
        Ok(unquoted(answer.e_tag()))
    }

    async fn copy(
        &self,
        from: Source<'_>,
        to: &ObjectRef,
        properties: &Properties,
        over: Over<'_>,
    ) -> Result<(), ObjectsError> {
        let (if_match, if_none_match) = conditions(over);
        let headers = &properties.headers;
        let tags = properties.tags.as_ref().map(|_| TaggingDirective::Replace);
        let request = self
            .client(&to.bucket)
            .copy_object()
            .copy_source(copy_source(from.object))
            .copy_source_if_match(quoted(from.etag))
            .bucket(&to.bucket)
            .key(&to.key)
            .set_if_match(if_match)
            .set_if_none_match(if_none_match)
            .metadata_directive(MetadataDirective::Replace)
            .set_content_type(headers.content_type.clone())
            .set_content_encoding(headers.content_encoding.clone())
            .set_content_language(headers.content_language.clone())
            .set_content_disposition(headers.content_disposition.clone())
            .set_cache_control(headers.cache_control.clone())
            .set_metadata(metadata(properties))
            .set_tagging_directive(tags)
            .set_tagging(tagging(properties))
            .set_storage_class(properties.storage_class.map(|class| class.as_str().into()))
            .set_checksum_algorithm(properties.checksum.as_deref().map(Into::into));
        // The source's condition and the destination's are told apart by nothing that the SDK shows.
        match request.send().await.map_err(|error| sort(from.object, &error)) {
            Ok(_) => Ok(()),
            Err(ObjectsError::Denied { reason, .. }) => Err(ObjectsError::Denied { object: to.clone(), reason }),
            Err(error) => Err(error),
        }
    }

    fn copies(&self, from_bucket: &str, to_bucket: &str) -> bool {
        self.endpoint(from_bucket) == self.endpoint(to_bucket)
    }

    async fn tags(&self, object: &ObjectRef) -> Result<BTreeMap<String, String>, ObjectsError> {
        let request = self.client(&object.bucket).get_object_tagging().bucket(&object.bucket).key(&object.key);
        let answer = request.send().await.map_err(|error| sort(object, &error))?;
        Ok(answer.tag_set().iter().map(|tag| (tag.key().to_owned(), tag.value().to_owned())).collect())
    }

    async fn set_tags(&self, object: &ObjectRef, tags: &BTreeMap<String, String>) -> Result<(), ObjectsError> {
        let tag = |(name, value)| Tag::builder().key(name).value(value).build().expect("it has a key and a value");
        let tags = aws_sdk_s3::types::Tagging::builder().set_tag_set(Some(tags.iter().map(tag).collect())).build();
        let request = self.client(&object.bucket).put_object_tagging().bucket(&object.bucket).key(&object.key);
        let request = request.tagging(tags.expect("it has a set of tags"));
        request.send().await.map(|_| ()).map_err(|error| sort(object, &error))
    }

    async fn delete(&self, object: &ObjectRef, etag: Option<&str>) -> Result<(), ObjectsError> {
        let request = self.client(&object.bucket).delete_object().bucket(&object.bucket).key(&object.key);
        let answer = request.set_if_match(etag.map(quoted)).send().await;
        match answer.map_err(|error| sort(object, &error)) {
            Ok(_) | Err(ObjectsError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn ready(&self, bucket: &str) -> Result<(), ObjectsError> {
        let whole = ObjectRef::new(bucket, "");
        let asked = self.client(bucket).head_bucket().bucket(bucket).send().await;
        asked.map(|_| ()).map_err(|error| sort(&whole, &error))
    }
}

/// Reads a body to its end; the length that was announced is not trusted, and reading stops at the limit.
async fn gathered(object: &ObjectRef, mut stream: ByteStream, bytes_max: u64) -> Result<Bytes, ObjectsError> {
    let announced = usize::try_from(stream.size_hint().0.min(bytes_max)).unwrap_or(0);
    let mut body = BytesMut::with_capacity(announced);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| ObjectsError::Unavailable {
            object: object.clone(),
            reason: crate::stage::chain_of(&error),
        })?;
        if (body.len() + chunk.len()) as u64 > bytes_max {
            return Err(ObjectsError::TooLarge { object: object.clone(), bytes_max });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// A range of bytes as HTTP has it, with its end inside. <https://www.rfc-editor.org/rfc/rfc9110#section-14.1.2>
pub(super) fn range(bytes: &Range<u64>) -> String {
    format!("bytes={}-{}", bytes.start, bytes.end.saturating_sub(1))
}

fn encode(segment: &str) -> String {
    percent_encoding::utf8_percent_encode(segment, percent_encoding::NON_ALPHANUMERIC).to_string()
}

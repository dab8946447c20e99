//! S3: uploads in parts.

use std::ops::Range;

use async_trait::async_trait;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, ChecksumType, CompletedMultipartUpload, CompletedPart};
use bytes::Bytes;
use landfall_events::ObjectRef;

use super::objects::{S3Objects, conditions, copy_source, quoted, range, sort, tagging, time};
use crate::objects::{ObjectsError, OpenUpload, Over, PARTS_MAX, Part, Properties, Source, Uploads};

/// The checksums of parts that S3 makes into one of the whole object.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html>
const OF_THE_WHOLE: [ChecksumAlgorithm; 3] =
    [ChecksumAlgorithm::Crc64Nvme, ChecksumAlgorithm::Crc32, ChecksumAlgorithm::Crc32C];

fn part(number: u32, etag: Option<&str>, size: u64) -> Part {
    Part { number, etag: etag.unwrap_or_default().trim_matches('"').to_owned(), size }
}

#[async_trait]
impl Uploads for S3Objects {
    async fn begin(&self, to: &ObjectRef, properties: &Properties) -> Result<String, ObjectsError> {
        let headers = &properties.headers;
        let mut request = self
            .client(&to.bucket)
            .create_multipart_upload()
            .bucket(&to.bucket)
            .key(&to.key)
            .set_content_type(headers.content_type.clone())
            .set_content_encoding(headers.content_encoding.clone())
            .set_content_language(headers.content_language.clone())
            .set_content_disposition(headers.content_disposition.clone())
            .set_cache_control(headers.cache_control.clone())
            .set_metadata(Some(properties.metadata.clone().into_iter().collect()))
            .set_tagging(tagging(properties))
            .set_storage_class(properties.storage_class.map(|class| class.as_str().into()));
        let wanted = properties.checksum.as_deref().map(ChecksumAlgorithm::from);
        if let Some(algorithm) = OF_THE_WHOLE.into_iter().find(|one| Some(one) == wanted.as_ref()) {
            request = request.checksum_algorithm(algorithm).checksum_type(ChecksumType::FullObject);
        }
        let answer = request.send().await.map_err(|error| sort(to, &error))?;
        answer.upload_id().map(str::to_owned).ok_or_else(|| ObjectsError::Unavailable {
            object: to.clone(),
            reason: "the upload that was begun has no id".into(),
        })
    }

    async fn copy_part(
        &self,
        from: Source<'_>,
        bytes: Range<u64>,
        to: &ObjectRef,
        upload: &str,
        number: u32,
    ) -> Result<Part, ObjectsError> {
        let request = self
            .client(&to.bucket)
            .upload_part_copy()
            .copy_source(copy_source(from.object))
            .copy_source_if_match(quoted(from.etag))
            .copy_source_range(range(&bytes))
            .bucket(&to.bucket)
            .key(&to.key)
            .upload_id(upload)
            .part_number(signed(number));
        let answer = request.send().await.map_err(|error| sort(from.object, &error))?;
        let etag = answer.copy_part_result().and_then(|copied| copied.e_tag());
        Ok(part(number, etag, bytes.end - bytes.start))
    }

    async fn put_part(&self, to: &ObjectRef, upload: &str, number: u32, body: Bytes) -> Result<Part, ObjectsError> {
        let size = body.len() as u64;
        let request = self.client(&to.bucket).upload_part().bucket(&to.bucket).key(&to.key).upload_id(upload);
        let request = request.part_number(signed(number)).body(ByteStream::from(body));
        let answer = request.send().await.map_err(|error| sort(to, &error))?;
        Ok(part(number, answer.e_tag(), size))
    }

    async fn parts(&self, to: &ObjectRef, upload: &str) -> Result<Option<Vec<Part>>, ObjectsError> {
        let request = self.client(&to.bucket).list_parts().bucket(&to.bucket).key(&to.key).upload_id(upload);
        let mut pages = request.into_paginator().send();
        let mut parts = Vec::new();
        while let Some(page) = pages.next().await {
            let page = match page.map_err(|error| sort(to, &error)) {
                Ok(page) => page,
                Err(ObjectsError::Missing(_)) => return Ok(None),
                Err(error) => return Err(error),
            };
            parts.extend(page.parts().iter().filter_map(|one| {
                let size = one.size().and_then(|size| u64::try_from(size).ok())?;
                Some(part(u32::try_from(one.part_number()?).ok()?, one.e_tag(), size))
            }));
            if parts.len() as u64 > PARTS_MAX {
                let reason = "the upload has more parts than there can be".into();
                return Err(ObjectsError::Refused { object: to.clone(), reason });
            }
        }
        Ok(Some(parts))
    }

    async fn complete(&self, to: &ObjectRef, upload: &str, parts: &[Part], over: Over<'_>) -> Result<(), ObjectsError> {
        let (if_match, if_none_match) = conditions(over);
        let one =
            |part: &Part| CompletedPart::builder().part_number(signed(part.number)).e_tag(quoted(&part.etag)).build();
        let whole = CompletedMultipartUpload::builder().set_parts(Some(parts.iter().map(one).collect())).build();
        let request = self
            .client(&to.bucket)
            .complete_multipart_upload()
            .bucket(&to.bucket)
            .key(&to.key)
            .upload_id(upload)
            .multipart_upload(whole)
            .set_if_match(if_match)
            .set_if_none_match(if_none_match);
        request.send().await.map(|_| ()).map_err(|error| sort(to, &error))
    }

    async fn abort(&self, to: &ObjectRef, upload: &str) -> Result<(), ObjectsError> {
        let request =
            self.client(&to.bucket).abort_multipart_upload().bucket(&to.bucket).key(&to.key).upload_id(upload);
        match request.send().await.map_err(|error| sort(to, &error)) {
            Ok(_) | Err(ObjectsError::Missing(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn uploads(&self, bucket: &str) -> Result<Vec<OpenUpload>, ObjectsError> {
        let (mut open, mut after) = (Vec::new(), (None, None));
        loop {
            let request = self.client(bucket).list_multipart_uploads().bucket(bucket);
            let request = request.set_key_marker(after.0).set_upload_id_marker(after.1).send().await;
            let answer = request.map_err(|error| sort(&ObjectRef::new(bucket, ""), &error))?;
            open.extend(answer.uploads().iter().filter_map(|upload| {
                Some(OpenUpload {
                    object: ObjectRef::new(bucket, upload.key()?),
                    upload: upload.upload_id()?.to_owned(),
                    begun: time(upload.initiated()),
                })
            }));
            if answer.is_truncated() != Some(true) {
                return Ok(open);
            }
            after = (answer.next_key_marker, answer.next_upload_id_marker);
        }
    }
}

fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

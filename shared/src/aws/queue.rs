//! SQS.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    MessageAttributeValue, MessageSystemAttributeName, MessageSystemAttributeNameForSends, MessageSystemAttributeValue,
    SendMessageBatchRequestEntry,
};

use super::said;
use crate::queue::{BATCH_MAX, DELAY_MAX, Delivery, Outgoing, Queue, QueueError, batches};
use crate::telemetry;

/// One SQS queue.
#[derive(Debug, Clone)]
pub struct SqsQueue {
    client: Client,
    url: String,
}

impl SqsQueue {
    /// The queue with this URL.
    #[must_use]
    pub fn new(client: Client, url: impl Into<String>) -> Self {
        Self { client, url: url.into() }
    }
}

fn unavailable<E, R>(error: &aws_smithy_runtime_api::client::result::SdkError<E, R>) -> QueueError
where
    E: aws_smithy_types::error::metadata::ProvideErrorMetadata + std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let (code, text) = said(error);
    match code.as_str() {
        "InvalidMessageContents" | "BatchRequestTooLong" | "InvalidParameterValue" | "InvalidAttributeValue" => {
            QueueError::Refused(text)
        }
        _ => QueueError::Unavailable(text),
    }
}

/// Turns the failed entries of a batch answer into one result for each request entry.
fn per_entry(results: &mut [Result<(), QueueError>], offset: usize, failed: &[BatchResultErrorEntry]) {
    for entry in failed {
        let text = format!("{}: {}", entry.code(), entry.message().unwrap_or("no message"));
        let error = match entry.code() {
            code if code.contains("ReceiptHandleIsInvalid") || code.contains("MessageNotInflight") => {
                QueueError::Lost(text)
            }
            _ if entry.sender_fault() => QueueError::Refused(text),
            _ => QueueError::Unavailable(text),
        };
        let index = entry.id().parse::<usize>().ok().map(|index| offset + index);
        if let Some(slot) = index.and_then(|index| results.get_mut(index)) {
            *slot = Err(error);
        }
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

#[async_trait]
impl Queue for SqsQueue {
    async fn send(&self, messages: Vec<Outgoing>) -> Vec<Result<(), QueueError>> {
        let mut results = vec![Ok(()); messages.len()];
        let mut ranges: std::collections::VecDeque<_> = batches(&messages).into();
        while let Some(range) = ranges.pop_front() {
            let entries = messages[range.clone()].iter().enumerate().map(|(index, message)| {
                let mut entry = SendMessageBatchRequestEntry::builder()
                    .id(index.to_string())
                    .message_body(&message.body)
                    .message_group_id(&message.group)
                    .delay_seconds(seconds(message.delay.min(DELAY_MAX)));
                for (name, value) in &message.attributes {
                    let value = MessageAttributeValue::builder().data_type("String").string_value(value).build();
                    entry = entry.message_attributes(name, value.expect("the data type is set"));
                }
                if let Some(header) = telemetry::aws_trace_header(&message.attributes) {
                    let value = MessageSystemAttributeValue::builder().data_type("String").string_value(header).build();
                    let name = MessageSystemAttributeNameForSends::AwsTraceHeader;
                    entry = entry.message_system_attributes(name, value.expect("the data type is set"));
                }
                entry.build().expect("id and body are set")
            });
            let request = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries.collect()));
            match request.send().await {
                Ok(answer) => per_entry(&mut results, range.start, answer.failed()),
                Err(error) => match unavailable(&error) {
                    // One message that the queue does not take must not take its neighbours along.
                    QueueError::Refused(_) if range.len() > 1 => ranges.extend(range.map(|index| index..index + 1)),
                    failure @ (QueueError::Refused(_) | QueueError::Unavailable(_) | QueueError::Lost(_)) => {
                        results[range].fill(Err(failure));
                    }
                },
            }
        }
        results
    }

    async fn receive(&self, most: usize, visibility: Duration, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        // The visibility is passed explicitly: SQS never tells the queue's own with a message.
        let request = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(most.min(BATCH_MAX)).unwrap_or(1))
            .visibility_timeout(seconds(visibility))
            .wait_time_seconds(seconds(wait))
            .message_attribute_names("All")
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::AwsTraceHeader);
        let answer = request.send().await.map_err(|error| unavailable(&error))?;
        let delivery = |message: aws_sdk_sqs::types::Message| {
            let system = message.attributes.unwrap_or_default();
            let count = system.get(&MessageSystemAttributeName::ApproximateReceiveCount);
            let text = |(name, value): (String, MessageAttributeValue)| Some((name, value.string_value?));
            let attributes = message.message_attributes.unwrap_or_default();
            let mut attributes: BTreeMap<_, _> = attributes.into_iter().filter_map(text).collect();
            let header = system.get(&MessageSystemAttributeName::AwsTraceHeader);
            telemetry::take_aws_trace_header(&mut attributes, header.map(String::as_str));
            Delivery {
                id: message.message_id.unwrap_or_default(),
                receipt: message.receipt_handle.unwrap_or_default(),
                body: message.body.unwrap_or_default(),
                attributes,
                receives: count.and_then(|count| count.parse().ok()).unwrap_or(1),
            }
        };
        Ok(answer.messages.unwrap_or_default().into_iter().map(delivery).collect())
    }

    async fn delete(&self, receipts: &[String]) -> Vec<Result<(), QueueError>> {
        let mut results = vec![Ok(()); receipts.len()];
        for (chunk, part) in receipts.chunks(BATCH_MAX).enumerate() {
            let offset = chunk * BATCH_MAX;
            let entries = part.iter().enumerate().map(|(index, receipt)| {
                let entry = DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(receipt);
                entry.build().expect("id and receipt are set")
            });
            let request = self.client.delete_message_batch().queue_url(&self.url).set_entries(Some(entries.collect()));
            match request.send().await {
                Ok(answer) => per_entry(&mut results, offset, answer.failed()),
                Err(error) => results[offset..offset + part.len()].fill(Err(unavailable(&error))),
            }
        }
        results
    }

    async fn set_visibility(&self, receipts: &[(String, Duration)]) -> Vec<Result<(), QueueError>> {
        let mut results = vec![Ok(()); receipts.len()];
        for (chunk, part) in receipts.chunks(BATCH_MAX).enumerate() {
            let offset = chunk * BATCH_MAX;
            let entries = part.iter().enumerate().map(|(index, (receipt, visibility))| {
                let entry = ChangeMessageVisibilityBatchRequestEntry::builder()
                    .id(index.to_string())
                    .receipt_handle(receipt)
                    .visibility_timeout(seconds(*visibility));
                entry.build().expect("id and receipt are set")
            });
            let request =
                self.client.change_message_visibility_batch().queue_url(&self.url).set_entries(Some(entries.collect()));
            match request.send().await {
                Ok(answer) => per_entry(&mut results, offset, answer.failed()),
                Err(error) => results[offset..offset + part.len()].fill(Err(unavailable(&error))),
            }
        }
        results
    }
}

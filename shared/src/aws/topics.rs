//! SNS.

use async_trait::async_trait;
use aws_sdk_sns::Client;
use aws_sdk_sns::types::{MessageAttributeValue, PublishBatchRequestEntry};
use landfall_events::Notice;
use landfall_events::notice::{Attribute, Topic};

use super::said;
use crate::topic::{TopicError, Topics};

/// The most notices and bytes of one request: <https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html>.
const BATCH_MAX: usize = 10;
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// The two SNS topics.
#[derive(Debug, Clone)]
pub struct SnsTopics {
    client: Client,
    completed: String,
    rejected: String,
}

impl SnsTopics {
    /// The topics with these ARNs.
    #[must_use]
    pub fn new(client: Client, completed: impl Into<String>, rejected: impl Into<String>) -> Self {
        Self { client, completed: completed.into(), rejected: rejected.into() }
    }

    async fn publish_batch(&self, topic: Topic, notices: &[(usize, &Notice)], results: &mut [Result<(), TopicError>]) {
        let arn = match topic {
            Topic::Completed => &self.completed,
            Topic::Rejected => &self.rejected,
        };
        let entries = notices.iter().map(|(index, notice)| {
            let mut entry = PublishBatchRequestEntry::builder().id(index.to_string()).message(&notice.body);
            for (name, value) in &notice.attributes {
                let (Attribute::Text(text) | Attribute::Number(text)) = value;
                let kind = if matches!(value, Attribute::Number(_)) { "Number" } else { "String" };
                let value = MessageAttributeValue::builder().data_type(kind).string_value(text).build();
                entry = entry.message_attributes(name, value.expect("the data type is set"));
            }
            entry.build().expect("id and message are set")
        });
        let request =
            self.client.publish_batch().topic_arn(arn).set_publish_batch_request_entries(Some(entries.collect()));
        match request.send().await {
            Ok(answer) => {
                for failed in answer.failed() {
                    let text = format!("{}: {}", failed.code(), failed.message().unwrap_or("no message"));
                    let error = if is_refusal(failed.code()) {
                        TopicError::Refused(text)
                    } else {
                        TopicError::Unavailable(text)
                    };
                    if let Some(slot) = failed.id().parse().ok().and_then(|index: usize| results.get_mut(index)) {
                        *slot = Err(error);
                    }
                }
            }
            Err(error) => {
                let (code, text) = said(&error);
                let refused = is_refusal(&code);
                if refused && notices.len() > 1 {
                    // One notice that the topic does not take must not take its neighbours along.
                    for one in notices {
                        Box::pin(self.publish_batch(topic, std::slice::from_ref(one), results)).await;
                    }
                    return;
                }
                for (index, _) in notices {
                    let text = text.clone();
                    results[*index] =
                        Err(if refused { TopicError::Refused(text) } else { TopicError::Unavailable(text) });
                }
            }
        }
    }
}

/// Whether the fault is the notice's; rights and keys that are missing are an outage.
/// <https://docs.aws.amazon.com/sns/latest/api/API_PublishBatch.html#API_PublishBatch_Errors>
fn is_refusal(code: &str) -> bool {
    ["InvalidParameter", "BatchRequestTooLong", "ValidationException"].iter().any(|name| code.starts_with(name))
}

fn bytes(notice: &Notice) -> usize {
    notice.body.len()
        + notice.attributes.iter().map(|(name, value)| name.len() + value.as_str().len() + 6).sum::<usize>()
}

#[async_trait]
impl Topics for SnsTopics {
    async fn publish(&self, notices: &[Notice]) -> Vec<Result<(), TopicError>> {
        let mut results = vec![Ok(()); notices.len()];
        for topic in [Topic::Completed, Topic::Rejected] {
            let mut batch = Vec::new();
            let mut size = 0;
            for one in notices.iter().enumerate().filter(|(_, notice)| notice.topic == topic) {
                if !batch.is_empty() && (batch.len() == BATCH_MAX || size + bytes(one.1) > BATCH_BYTES_MAX) {
                    self.publish_batch(topic, &batch, &mut results).await;
                    batch.clear();
                    size = 0;
                }
                size += bytes(one.1);
                batch.push(one);
            }
            if !batch.is_empty() {
                self.publish_batch(topic, &batch, &mut results).await;
            }
        }
        results
    }
}

//! The port to queues.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use crate::stage::Class;

/// The most messages, and bytes, of one batch request.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
pub const BATCH_MAX: usize = 10;
/// The most bytes of one message or batch request: SQS takes 1 MiB, attributes included.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// The longest delay of a message.
pub const DELAY_MAX: Duration = Duration::from_secs(900);

/// One message as it was received.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The queue's id of the message.
    pub id: String,
    /// What settles it: changes with every receive.
    pub receipt: String,
    /// The body.
    pub body: String,
    /// The string attributes.
    pub attributes: BTreeMap<String, String>,
    /// How often it was received, this time included.
    pub receives: u32,
}

/// One message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The body.
    pub body: String,
    /// String attributes; none may be empty.
    pub attributes: BTreeMap<String, String>,
    /// The provider, so that one provider's flood does not starve the others (SQS fair queues).
    pub group: String,
    /// How long it stays invisible at first, at most [`DELAY_MAX`].
    pub delay: Duration,
}

impl Outgoing {
    /// Its size as SQS counts it, nearly: body, attribute names, types and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let attributes = self.attributes.iter().map(|(name, value)| name.len() + value.len() + "String".len());
        self.body.len() + attributes.sum::<usize>()
    }
}

/// Cuts messages into batches that one request carries, by count and by bytes, and keeps their order.
/// Each batch is a range of indices.
#[must_use]
pub fn batches(messages: &[Outgoing]) -> Vec<std::ops::Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (index, message) in messages.iter().enumerate() {
        let size = message.bytes();
        if index > start && (index - start == BATCH_MAX || bytes + size > BATCH_BYTES_MAX) {
            batches.push(start..index);
            (start, bytes) = (index, 0);
        }
        bytes += size;
    }
    if start < messages.len() {
        batches.push(start..messages.len());
    }
    batches
}

/// Why a queue did not do as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum QueueError {
    /// The queue cannot be reached, is busy or does not let us.
    #[error("the queue is not available: {0}")]
    Unavailable(String),
    /// The queue does not take this message: its size or its characters.
    #[error("the queue refuses the message: {0}")]
    Refused(String),
    /// The receipt is no longer valid: somebody else has the message by now, or it is gone.
    #[error("the message is no longer ours: {0}")]
    Lost(String),
}

impl QueueError {
    /// Whether trying again may help.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unavailable(_) => Class::Transient,
            Self::Refused(_) | Self::Lost(_) => Class::Permanent,
        }
    }
}

/// A queue with at-least-once delivery and visibility timeouts, as SQS has them.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Sends messages and returns one result for each.
    async fn send(&self, messages: Vec<Outgoing>) -> Vec<Result<(), QueueError>>;
    /// Receives up to `most` (at most [`BATCH_MAX`]) messages, invisible to others for `visibility`,
    /// waiting up to `wait` for the first.
    async fn receive(&self, most: usize, visibility: Duration, wait: Duration) -> Result<Vec<Delivery>, QueueError>;
    /// Deletes received messages by their receipts and returns one result for each.
    async fn delete(&self, receipts: &[String]) -> Vec<Result<(), QueueError>>;
    /// Sets for how long from now received messages stay invisible, and returns one result for each.
    async fn set_visibility(&self, receipts: &[(String, Duration)]) -> Vec<Result<(), QueueError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(sizes: &[usize], expected: &[usize]) {
        let message = |size: &usize| Outgoing {
            body: "x".repeat(*size),
            attributes: BTreeMap::new(),
            group: String::new(),
            delay: Duration::ZERO,
        };
        let messages: Vec<_> = sizes.iter().map(message).collect();
        let lengths: Vec<_> = batches(&messages).into_iter().map(|range| range.len()).collect();
        assert_eq!(lengths, expected);
    }

    #[test]
    fn batches_are_cut_by_count_and_by_bytes() {
        check(&[], &[]);
        check(&[1; 10], &[10]);
        check(&[1; 23], &[10, 10, 3]);
        check(&[192 * 1024; 10], &[5, 5]);
        check(&[BATCH_BYTES_MAX, 1], &[1, 1]);
        check(&[2 * BATCH_BYTES_MAX, 1], &[1, 1]);
    }
}

//! The port to topics.

use async_trait::async_trait;
use landfall_events::Notice;

/// Why a notice was not published. Nothing about a notice itself is wrong that a publisher could mend later,
/// so that a topic that is gone or denied counts as an outage too: the notice waits.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TopicError {
    /// The topic cannot be reached, is gone, is busy or does not let us.
    #[error("the topic is not available: {0}")]
    Unavailable(String),
    /// The topic does not take this notice, for its size for example.
    #[error("the topic refuses the notice: {0}")]
    Refused(String),
}

/// The two topics that notices are published to.
#[async_trait]
pub trait Topics: Send + Sync {
    /// Publishes notices, each to its topic, and returns one result for each.
    async fn publish(&self, notices: &[Notice]) -> Vec<Result<(), TopicError>>;
}

//! The Lambda form of a worker: an SQS event-source mapping that takes partial batch failures.

use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use tracing::{info, warn};

use crate::queue::Delivery;
use crate::runner::{Runner, Verdict};
use crate::stage::Stage;

/// Time that is kept back from the function's timeout to answer in: a timeout would lose every partial result.
const MARGIN: Duration = Duration::from_secs(2);

/// Serves invocations until the runtime ends the process.
///
/// # Errors
/// Where the runtime's interface cannot be reached.
pub async fn serve<S: Stage>(runner: Arc<Runner<S>>) -> Result<(), Error> {
    info!(stage = S::NAME, "serving as a Lambda");
    lambda_runtime::run(service_fn(move |event: LambdaEvent<SqsEvent>| {
        let runner = runner.clone();
        async move {
            let time_left = event.context.deadline().duration_since(std::time::SystemTime::now()).unwrap_or_default();
            answer(&runner, event.payload, time_left).await
        }
    }))
    .await
}

/// Settles one invocation's records.
///
/// What shall come again is named as failed, after its visibility was set to the runner's backoff: else it would
/// wait for the queue's whole visibility timeout. Where everything fails and a dependency is down, the invocation
/// itself fails, because Lambda slows its polling down for that and not for failed records.
async fn answer<S: Stage>(runner: &Runner<S>, event: SqsEvent, time_left: Duration) -> Result<SqsBatchResponse, Error> {
    let deliveries: Vec<_> = event.records.into_iter().map(delivery).collect();
    let settled = tokio::time::timeout(time_left.saturating_sub(MARGIN), runner.settle(&deliveries)).await;
    let verdicts = settled.unwrap_or_else(|_| {
        warn!(stage = S::NAME, "the invocation's time is over; its records come again");
        vec![Verdict::Retry { after: Duration::ZERO }; deliveries.len()]
    });
    let later: Vec<_> = deliveries
        .iter()
        .zip(&verdicts)
        .filter_map(|(delivery, verdict)| match verdict {
            Verdict::Ack => None,
            Verdict::Retry { after } => Some((delivery, *after)),
        })
        .collect();
    if !later.is_empty() {
        let receipts: Vec<_> = later.iter().map(|(delivery, after)| (delivery.receipt.clone(), *after)).collect();
        for failure in runner.queue().set_visibility(&receipts).await.into_iter().filter_map(Result::err) {
            warn!(stage = S::NAME, reason = %failure, "the visibility could not be set; the queue's own applies");
        }
        if later.len() == deliveries.len() && runner.stage().ready().await.is_err() {
            return Err(format!("{}: a dependency is down, the batch comes again", S::NAME).into());
        }
    }
    let failures = later.iter().map(|(delivery, _)| {
        let mut failure = BatchItemFailure::default();
        failure.item_identifier.clone_from(&delivery.id);
        failure
    });
    let mut response = SqsBatchResponse::default();
    response.batch_item_failures = failures.collect();
    Ok(response)
}

fn delivery(message: SqsMessage) -> Delivery {
    let receives = message.attributes.get("ApproximateReceiveCount").and_then(|count| count.parse().ok());
    let text = |(name, value): (String, aws_lambda_events::sqs::SqsMessageAttribute)| Some((name, value.string_value?));
    Delivery {
        id: message.message_id.unwrap_or_default(),
        receipt: message.receipt_handle.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
        attributes: message.message_attributes.into_iter().filter_map(text).collect(),
        receives: receives.unwrap_or(1),
    }
}

//! The Lambda form of a worker: an SQS event-source mapping that takes partial batch failures.

use std::sync::Arc;
use std::time::Duration;

use aws_lambda_events::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use tracing::{info, warn};

use crate::metrics::{self, Metrics};
use crate::poller::{delete, report_failures};
use crate::queue::Delivery;
use crate::runner::{Runner, Settled, Verdict};
use crate::stage::{self, READY_TIME_MAX, Stage};
use crate::telemetry;

/// Time that is kept back from the function's timeout to answer in: a timeout would lose every partial result.
const MARGIN: Duration = Duration::from_secs(2);

/// How long records of an invocation whose time was over stay invisible.
const TIME_OVER_PAUSE: Duration = Duration::from_secs(30);

/// Serves invocations until the runtime ends the process.
///
/// # Errors
/// Where the runtime's interface cannot be reached.
pub async fn serve<S: Stage>(runner: Arc<Runner<S>>) -> Result<(), Error> {
    let metrics = Metrics::logged(S::NAME)?;
    info!(stage = S::NAME, "serving as a Lambda");
    lambda_runtime::run(service_fn(move |event: LambdaEvent<SqsEvent>| {
        let runner = runner.clone();
        async move {
            let time_left = event.context.deadline().duration_since(std::time::SystemTime::now()).unwrap_or_default();
            let answered = answer(&runner, event.payload, time_left).await;
            // The process may be frozen as soon as it has answered.
            metrics.flush();
            telemetry::flush_traces().await;
            answered
        }
    }))
    .await
}

/// Does a task for each invocation, whatever its event, until the runtime ends the process.
///
/// # Errors
/// Where the runtime's interface cannot be reached.
pub async fn serve_task<F, Done>(task: F) -> Result<(), Error>
where
    F: Fn() -> Done,
    Done: Future<Output = anyhow::Result<()>>,
{
    lambda_runtime::run(service_fn(|_: LambdaEvent<serde_json::Value>| {
        let done = task();
        async move { done.await.map_err(|error| Error::from(format!("{error:#}"))) }
    }))
    .await
}

/// Settles one invocation's records.
///
/// What shall come again is named as failed, after its visibility was set to the runner's backoff: else it would
/// wait for the queue's whole visibility timeout. Where everything fails and a dependency is down, the invocation
/// itself fails, because Lambda slows its polling down for that and not for failed records, and because alarms look at
/// it. Then Lambda deletes none of its records: what was re-sent with a delay is deleted here.
async fn answer<S: Stage>(runner: &Runner<S>, event: SqsEvent, time_left: Duration) -> Result<SqsBatchResponse, Error> {
    let deliveries: Vec<_> = event.records.into_iter().map(delivery).collect();
    // The stage is cut off while there is time left to send what follows from that.
    let (whole, batch) = (time_left.saturating_sub(MARGIN), time_left.saturating_sub(2 * MARGIN + READY_TIME_MAX));
    let settled = tokio::time::timeout(whole, runner.settle_within(&deliveries, batch)).await;
    let Settled { verdicts, is_in_doubt } = settled.unwrap_or_else(|_| {
        warn!(stage = S::NAME, "the invocation's time is over; its records come again");
        let verdicts = vec![Verdict::Retry { after: TIME_OVER_PAUSE }; deliveries.len()];
        Settled { verdicts, is_in_doubt: true }
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
        report_failures(S::NAME, "delay", runner.queue().set_visibility(&receipts).await);
    }
    let is_up = !is_in_doubt || stage::answers(runner.stage()).await;
    metrics::dependency(is_up);
    if !is_up {
        let settled = deliveries.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Verdict::Ack);
        let receipts: Vec<_> = settled.map(|(delivery, _)| delivery.receipt.clone()).collect();
        delete(S::NAME, &**runner.queue(), &receipts).await;
        return Err(format!("{}: a dependency is down, the batch comes again", S::NAME).into());
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
    let mut attributes = message.message_attributes.into_iter().filter_map(text).collect();
    let header = message.attributes.get("AWSTraceHeader");
    telemetry::take_aws_trace_header(&mut attributes, header.map(String::as_str));
    Delivery {
        id: message.message_id.unwrap_or_default(),
        receipt: message.receipt_handle.unwrap_or_default(),
        body: message.body.unwrap_or_default(),
        attributes,
        receives: receives.unwrap_or(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::Policy;
    use crate::testing::Bench;

    fn event(bodies: &[String]) -> SqsEvent {
        event_of(&bodies.iter().enumerate().map(|(n, body)| (format!("r{n}"), body.clone(), 1)).collect::<Vec<_>>())
    }

    /// Records of a receipt, a body, and how often they were received.
    fn event_of(records: &[(String, String, u32)]) -> SqsEvent {
        let record = |(index, (receipt, body, receives)): (usize, &(String, String, u32))| {
            serde_json::json!({
                "messageId": format!("m{index}"), "receiptHandle": receipt, "body": body,
                "attributes": {"ApproximateReceiveCount": receives.to_string()}, "messageAttributes": {},
            })
        };
        let records: Vec<_> = records.iter().enumerate().map(record).collect();
        serde_json::from_value(serde_json::json!({"Records": records})).unwrap()
    }

    async fn failed(bench: &Bench, keys: &[&str]) -> Result<Vec<String>, Error> {
        let bodies: Vec<_> = keys.iter().map(|key| Bench::body(key)).collect();
        let response = answer(&bench.runner, event(&bodies), Duration::from_secs(30)).await?;
        Ok(response.batch_item_failures.into_iter().map(|failure| failure.item_identifier).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_shall_come_again_is_named_as_failed() {
        let bench = Bench::new(Policy::default());
        let keys = ["sbn/pass", "sbn/fail", "sbn/refuse", "sbn/panic", "sbn/also"];
        assert_eq!(failed(&bench, &keys).await.unwrap(), ["m1", "m3"]);
        assert_eq!(bench.next.messages().len(), 2);
        assert_eq!(bench.dead.messages().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_fails_for_an_outage_fails_the_invocation() {
        let bench = Bench::new(Policy::default());
        bench.stage.set_down(true);
        assert!(failed(&bench, &["sbn/a", "sbn/b"]).await.is_err());
    }

    /// Settles what lies in the stage's own queue as an invocation whose records were received so often.
    async fn invoked(bench: &Bench, keys: &[&str], receives: u32) -> Result<SqsBatchResponse, Error> {
        keys.iter().for_each(|key| bench.land(key));
        let records = bench.receive().await.into_iter().map(|delivery| (delivery.receipt, delivery.body, receives));
        answer(&bench.runner, event_of(&records.collect::<Vec<_>>()), Duration::from_secs(30)).await
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_fails_the_invocation_also_where_all_is_re_sent_and_nothing_comes_twice() {
        let bench = Bench::new(Policy::default());
        bench.stage.set_down(true);
        assert!(invoked(&bench, &["sbn/a", "sbn/b"], Policy::default().receives_max).await.is_err());
        let left = bench.own.messages();
        assert_eq!(left.len(), 2);
        assert!(left.iter().all(|message| message.delay > Duration::ZERO), "{left:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_alone_while_all_is_up_is_no_outage() {
        let bench = Bench::new(Policy::default());
        let response = invoked(&bench, &["sbn/fail"], Policy::default().receives_max).await.unwrap();
        assert!(response.batch_item_failures.is_empty());
        bench.stage.set_down(true);
        let response = invoked(&bench, &["sbn/fail"], 1).await;
        assert!(response.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_invocation_answers_before_its_time_is_over() {
        let bench = Bench::new(Policy::default());
        assert_eq!(failed(&bench, &["sbn/hang", "sbn/pass"]).await.unwrap(), ["m0", "m1"]);
    }
}

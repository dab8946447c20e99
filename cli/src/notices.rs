//! `landfall notices`: subscribes a queue to the topics and prints what arrives.

use std::time::Duration;

use anyhow::Context;
use aws_sdk_sqs::types::QueueAttributeName;
use landfall_shared::queue::{BATCH_MAX, Queue};
use serde::Serialize;
use serde_json::Value;

use crate::deployment::Place;
use crate::output::{self, End, Format};

/// What is followed, and for how long.
#[derive(Debug, clap::Args)]
pub struct Notices {
    /// Go on until Ctrl-C; without it, or --seconds, what arrives within two seconds is printed
    #[arg(long, short)]
    follow: bool,
    /// Stop after so many notices
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// Stop after so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
}

#[derive(Serialize)]
struct Line<'a> {
    attributes: &'a std::collections::BTreeMap<String, String>,
    notice: Value,
}

/// Follows the topics; the subscription and its queue are gone afterwards.
///
/// # Errors
/// Where the queue or the subscription cannot be made.
pub async fn run(notices: &Notices, place: &Place, format: Format) -> anyhow::Result<End> {
    let connected = place.connect().await?;
    let topics = [connected.deployment.output("CompletedTopic")?, connected.deployment.output("RejectedTopic")?];
    let sqs = aws_sdk_sqs::Client::new(&connected.sdk);
    let sns = aws_sdk_sns::Client::new(&connected.sdk);
    let name = format!("landfall-notices-{}-{:08x}", std::process::id(), rand::random::<u32>());
    let url = sqs.create_queue().queue_name(&name).send().await?.queue_url.context("the queue has no URL")?;
    let result = async {
        let subscriptions = subscribe(&sqs, &sns, &url, &topics).await?;
        if format == Format::Human {
            eprintln!("following {} topics; Ctrl-C stops", topics.len());
        }
        let queue = connected.queue(&url);
        let followed = tokio::select! {
            followed = follow(notices, &*queue, format) => followed,
            _ = tokio::signal::ctrl_c() => Ok(()),
        };
        for subscription in subscriptions {
            sns.unsubscribe().subscription_arn(subscription).send().await?;
        }
        followed
    }
    .await;
    sqs.delete_queue().queue_url(&url).send().await.context("the queue could not be deleted")?;
    result.map(|()| End::Good)
}

async fn subscribe(
    sqs: &aws_sdk_sqs::Client,
    sns: &aws_sdk_sns::Client,
    url: &str,
    topics: &[&str],
) -> anyhow::Result<Vec<String>> {
    let attributes =
        sqs.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::QueueArn).send().await?;
    let arn = attributes
        .attributes()
        .and_then(|all| all.get(&QueueAttributeName::QueueArn))
        .context("the queue has no ARN")?;
    let policy = serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Allow",
            "Principal": {"Service": "sns.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": topics}},
        }],
    });
    sqs.set_queue_attributes().queue_url(url).attributes(QueueAttributeName::Policy, policy.to_string()).send().await?;
    let mut subscriptions = Vec::new();
    for topic in topics {
        let request = sns.subscribe().topic_arn(*topic).protocol("sqs").endpoint(arn).return_subscription_arn(true);
        let answer = request.attributes("RawMessageDelivery", "true").send().await?;
        subscriptions.extend(answer.subscription_arn);
    }
    Ok(subscriptions)
}

async fn follow(notices: &Notices, queue: &dyn Queue, format: Format) -> anyhow::Result<()> {
    let default = if notices.follow { u64::MAX / 4 } else { 2 };
    let limit = Duration::from_secs(notices.seconds.unwrap_or(default));
    let started = std::time::Instant::now();
    let mut printed = 0;
    while started.elapsed() < limit && notices.count.is_none_or(|count| printed < count) {
        let wait = limit.saturating_sub(started.elapsed()).min(Duration::from_secs(5));
        let received = queue.receive(BATCH_MAX, Duration::from_secs(30), wait).await?;
        let receipts: Vec<_> = received.iter().map(|delivery| delivery.receipt.clone()).collect();
        for delivery in received {
            print(&delivery.body, &delivery.attributes, format)?;
            printed += 1;
        }
        if !receipts.is_empty() {
            drop(queue.delete(&receipts).await);
        }
    }
    Ok(())
}

fn print(body: &str, attributes: &std::collections::BTreeMap<String, String>, format: Format) -> anyhow::Result<()> {
    let notice: Value = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    if format == Format::Json {
        return output::json(&Line { attributes, notice });
    }
    let text = |pointer: &str| output::visible(notice.pointer(pointer).and_then(Value::as_str).unwrap_or_default());
    let status = attributes.get("status").map_or("", String::as_str);
    let reason = match text("/data/code") {
        code if code.is_empty() => String::new(),
        code => format!("  {code}: {}", text("/data/reason")),
    };
    output::line(&format!("{}  {status:<9} {}  {}{reason}", text("/time"), text("/source"), text("/subject")))
}

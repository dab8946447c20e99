//! Faults in the wiring of a deployment, planted one by one, and what `landfall doctor` says of each.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::collections::BTreeSet;

use aws_sdk_s3::types::{
    Event, FilterRule, FilterRuleName, NotificationConfiguration, NotificationConfigurationFilter, QueueConfiguration,
    S3KeyFilter,
};
use aws_sdk_sqs::types::QueueAttributeName as Name;
use landfall_tests::real_world::{Form, Real};
use serde_json::Value;

/// The checks that failed; every one that failed says what to do.
async fn failed(real: &Real) -> BTreeSet<String> {
    let output = real.run(&["doctor", "--format", "json"]).await.unwrap();
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let bad: Vec<&Value> = found.iter().filter(|finding| finding["verdict"] == "bad").collect();
    assert!(bad.iter().all(|finding| finding["fix"].is_string()), "{bad:#?}");
    assert_eq!(output.status.code(), Some(i32::from(!bad.is_empty())), "{found:#?}");
    bad.iter().map(|finding| finding["check"].as_str().unwrap().to_owned()).collect()
}

#[track_caller]
fn check(seen: &BTreeSet<String>, expected: &[&str]) {
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}

fn notified(queue: &str, event: Event, filter: Option<NotificationConfigurationFilter>) -> QueueConfiguration {
    QueueConfiguration::builder().queue_arn(queue).events(event).set_filter(filter).build().unwrap()
}

#[tokio::test]
async fn each_fault_is_found_and_nothing_else() {
    let mut real = Real::start(Form::Pollers).await.unwrap();
    check(&failed(&real).await, &[]);
    let connected = real.connected().await.unwrap();
    let (s3, deployment) = (connected.s3(), connected.deployment.clone());
    let output = |name: &str| deployment.output(name).unwrap().to_owned();

    // What an operator writes.
    let work = output("WorkBucket");
    let missing = "BUCKET_MAP: {NODES: {SBN: {default: {bucket: {name: nowhere-to-be-found}}}}}";
    for (key, text, check_name) in [
        ("config/landfall.toml", "[[landing", "configuration"),
        ("config/bucket-map.yaml", "BUCKET_MAP: [", "bucket-map"),
        ("config/bucket-map.yaml", missing, "destination"),
        ("config/schemas.bundle", "no bundle", "schemas"),
    ] {
        let before = s3.get_object().bucket(&work).key(key).send().await.ok();
        real.put_work(key, text).await.unwrap();
        check(&failed(&real).await, &[check_name]);
        match before {
            Some(before) => {
                let text = before.body.collect().await.unwrap().into_bytes();
                real.put_work(key, std::str::from_utf8(&text).unwrap()).await.unwrap();
            }
            None => drop(s3.delete_object().bucket(&work).key(key).send().await.unwrap()),
        }
    }

    // A second landing that tells nobody, and may not: its bucket is there, and not even that.
    let second = "[[landing]]\n[[landing]]\nbucket = \"second-landing\"\nprovider = \"sbn\"\n";
    real.put_work("config/landfall.toml", second).await.unwrap();
    check(&failed(&real).await, &["notifications", "queue-policy"]);
    s3.create_bucket().bucket("second-landing").send().await.unwrap();
    check(&failed(&real).await, &["notifications", "queue-policy"]);
    real.put_work("config/landfall.toml", "").await.unwrap();
    check(&failed(&real).await, &[]);

    // Queues.
    let sqs = aws_sdk_sqs::Client::new(&connected.sdk);
    let dead_arn = |stage: &str| format!("arn:aws:sqs:us-east-1:000000000000:landfall-{stage}-dead");
    let policy = |stage: &str, receives: u32| {
        serde_json::json!({"deadLetterTargetArn": dead_arn(stage), "maxReceiveCount": receives}).to_string()
    };
    for (queue, name, value, check_name) in [
        ("RouteQueue", Name::RedrivePolicy, policy("route", 1), "redrive"),
        ("RouteQueue", Name::RedrivePolicy, policy("load", 6), "redrive"),
        ("LoadDeadQueue", Name::MessageRetentionPeriod, "3600".to_owned(), "retention"),
        ("NotifyQueue", Name::VisibilityTimeout, "5".to_owned(), "visibility"),
        ("ValidateQueue", Name::Policy, r#"{"Version":"2012-10-17","Statement":[]}"#.to_owned(), "queue-policy"),
    ] {
        let url = output(queue);
        let all = sqs.get_queue_attributes().queue_url(&url).attribute_names(Name::All).send().await.unwrap();
        let before = all.attributes().unwrap()[&name].clone();
        let set = async |value: &str| {
            sqs.set_queue_attributes().queue_url(&url).attributes(name.clone(), value).send().await.unwrap();
        };
        set(&value).await;
        check(&failed(&real).await, &[check_name]);
        set(&before).await;
    }

    // A function that may take longer than its messages stay invisible.
    let mut slow = deployment.clone();
    slow.outputs.insert("FunctionTimeout".into(), "100".into());
    slow.write(real.state()).unwrap();
    check(&failed(&real).await, &["visibility"]);
    deployment.write(real.state()).unwrap();

    // More functions than the database takes.
    let mut many = deployment.clone();
    many.outputs.extend([("LoadConcurrency".into(), "90".into()), ("NotifyConcurrency".into(), "9".into())]);
    many.write(real.state()).unwrap();
    check(&failed(&real).await, &["connections"]);
    deployment.write(real.state()).unwrap();

    // What the stack's functions have no right to.
    for (output, granted, asked, check_name) in [
        ("Archives", "arn:aws:s3:::landfall-archive-of-another", "", "destination"),
        ("AfterRoute", "tag", "[[landing]]\nafter_route = \"delete\"\n", "after-route"),
        ("AfterRoute", "keep", "[[landing]]\nafter_route = \"tag\"\n", "after-route"),
    ] {
        let mut narrow = deployment.clone();
        narrow.outputs.insert(output.into(), granted.into());
        narrow.write(real.state()).unwrap();
        real.put_work("config/landfall.toml", asked).await.unwrap();
        check(&failed(&real).await, &[check_name]);
    }
    deployment.write(real.state()).unwrap();
    real.put_work("config/landfall.toml", "[retry]\nreceives_max = 6\n").await.unwrap();
    check(&failed(&real).await, &["redrive"]);
    real.put_work("config/landfall.toml", "").await.unwrap();

    // What S3 tells.
    let landing = output("LandingBucket");
    let arn = "arn:aws:sqs:us-east-1:000000000000:landfall-validate";
    let some = FilterRule::builder().name(FilterRuleName::Prefix).value("sbn/").build();
    let some =
        NotificationConfigurationFilter::builder().key(S3KeyFilter::builder().filter_rules(some).build()).build();
    let created = || notified(arn, Event::S3ObjectCreated, None);
    for (queues, expected) in [
        (vec![created()], &["notifications"][..]),
        (vec![created(), notified(arn, Event::S3ObjectRemoved, Some(some))], &["notifications"]),
        (vec![created(), notified(arn, Event::S3ObjectRemoved, None)], &[]),
    ] {
        let configuration = NotificationConfiguration::builder().set_queue_configurations(Some(queues)).build();
        let put = s3.put_bucket_notification_configuration().bucket(&landing);
        put.notification_configuration(configuration).send().await.unwrap();
        check(&failed(&real).await, expected);
    }

    // The database.
    let url = real.deployment.database_url.clone().unwrap();
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("alter table landfall.migrations rename to put_away").await.unwrap();
    check(&failed(&real).await, &["ledger"]);
    client.batch_execute("alter table landfall.put_away rename to migrations").await.unwrap();
    client
        .batch_execute(
            "create role weak login password 'weak'; grant usage on schema landfall, pgstac to weak;
            grant select on landfall.migrations to weak; grant pgstac_read to weak",
        )
        .await
        .unwrap();
    let mut weak = deployment.clone();
    weak.database_url = Some(format!("postgresql://weak:weak@{}", url.split_once('@').unwrap().1));
    weak.write(real.state()).unwrap();
    check(&failed(&real).await, &["rights"]);
    deployment.write(real.state()).unwrap();
    real.stop_postgres().await;
    check(&failed(&real).await, &["database"]);
    real.start_postgres().await.unwrap();
    check(&failed(&real).await, &[]);

    // What is gone.
    sqs.delete_queue().queue_url(output("NotifyDeadQueue")).send().await.unwrap();
    check(&failed(&real).await, &["queue"]);
    let sns = aws_sdk_sns::Client::new(&connected.sdk);
    sns.delete_topic().topic_arn(output("RejectedTopic")).send().await.unwrap();
    check(&failed(&real).await, &["queue", "topic"]);
}

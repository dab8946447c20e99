//! `landfall doctor`: looks whether a deployment is wired as it should be, and says what to do about what is not.
//!
//! It only looks. Each check stands alone: what one finds broken keeps no other from its answer.

use std::collections::{BTreeMap, BTreeSet};

use aws_sdk_s3::types::{Event, NotificationConfigurationFilter};
use aws_sdk_sqs::types::QueueAttributeName;
use jiff::{SignedDuration, Timestamp};
use landfall_route::BucketMap;
use landfall_shared::catalogue::Health;
use landfall_shared::config::{AfterRoute, Config, Landings};
use landfall_shared::stage::chain_of;
use landfall_stac::Bundle;
use serde::Serialize;
use serde_json::Value;

use crate::deployment::{Connected, Place};
use crate::map::{self, There};
use crate::output::{self, End, Format};
use crate::schemas::BUNDLE_KEY;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, and could be better.
    Warning,
    /// It does not work, or loses something some day.
    Bad,
}

/// One line of the answer.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The check's stable name.
    pub check: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub what: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

struct Doctor<'d> {
    connected: &'d Connected,
    sqs: aws_sdk_sqs::Client,
    found: Vec<Finding>,
}

/// The longest that clocks may be apart; S3 refuses requests from 15 minutes on.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>
const SKEW_MAX: SignedDuration = SignedDuration::from_mins(1);

/// Receives that a message is worth at least, before SQS itself gives it up.
const RECEIVES_MIN: u64 = 5;

/// A poller asks for this long itself, and extends it; a function needs six times its timeout.
const VISIBILITY_MIN: u64 = 30;

/// Runs all checks.
///
/// # Errors
/// Where no deployment is known.
pub async fn run(place: &Place, format: Format) -> anyhow::Result<End> {
    let connected = place.connect().await?;
    let sqs = aws_sdk_sqs::Client::new(&connected.sdk);
    let mut doctor = Doctor { connected: &connected, sqs, found: Vec::new() };
    let stages = crate::stages();
    doctor.buckets().await?;
    let config = doctor.config().await;
    doctor.map(&config).await;
    doctor.bundle().await?;
    let own = connected.deployment.output("LandingBucket")?;
    let landings = Landings::new(&config, own)?;
    for stage in &stages {
        doctor.queue(stage, &landings, &config).await?;
    }
    doctor.after_route(&config);
    doctor.notifications(&landings).await?;
    doctor.topics().await?;
    doctor.database().await;
    let found = doctor.found;
    match format {
        Format::Json => output::json(&found)?,
        Format::Human => print(&found)?,
    }
    let worst = found.iter().map(|finding| finding.verdict).max();
    Ok(if worst == Some(Verdict::Bad) { End::Problems } else { End::Good })
}

fn print(found: &[Finding]) -> anyhow::Result<()> {
    for finding in found {
        let word = match finding.verdict {
            Verdict::Good => "ok",
            Verdict::Warning => "WARNING",
            Verdict::Bad => "FAILED",
        };
        output::line(&format!("{word:<8} {:<20} {}", finding.check, output::visible(&finding.what)))?;
        if let Some(fix) = &finding.fix {
            output::line(&format!("{:<29} {}", "", output::visible(fix)))?;
        }
    }
    let count = |verdict| found.iter().filter(|finding| finding.verdict == verdict).count();
    let (bad, warnings) = (count(Verdict::Bad), count(Verdict::Warning));
    output::line(&format!("{} checks: {bad} failed, {warnings} warnings", found.len()))
}

impl Doctor<'_> {
    fn good(&mut self, check: &'static str, what: impl Into<String>) {
        self.found.push(Finding { check, verdict: Verdict::Good, what: what.into(), fix: None });
    }

    fn bad(&mut self, check: &'static str, what: impl Into<String>, fix: &str) {
        let fix = Some(fix.to_owned());
        self.found.push(Finding { check, verdict: Verdict::Bad, what: what.into(), fix });
    }

    fn warning(&mut self, check: &'static str, what: impl Into<String>, fix: &str) {
        let fix = Some(fix.to_owned());
        self.found.push(Finding { check, verdict: Verdict::Warning, what: what.into(), fix });
    }

    /// Good where nothing is in the way, else bad.
    fn judge(&mut self, check: &'static str, name: &str, wrong: Vec<String>, fix: &str) {
        match wrong.as_slice() {
            [] => self.good(check, name),
            wrong => self.bad(check, format!("{name}: {}", wrong.join("; ")), fix),
        }
    }

    async fn buckets(&mut self) -> anyhow::Result<()> {
        for output in ["LandingBucket", "ArchiveBucket", "WorkBucket"] {
            let bucket = self.connected.deployment.output(output)?.to_owned();
            match self.connected.s3().head_bucket().bucket(&bucket).send().await {
                Ok(_) => self.good("bucket", bucket),
                Err(error) => self.bad(
                    "bucket",
                    format!("{bucket}: {}", chain_of(&error)),
                    "the credentials must be of this account and may list it; deploy the stack again where it is gone",
                ),
            }
        }
        Ok(())
    }

    /// The configuration; the default where it cannot be read.
    async fn config(&mut self) -> Config {
        match map::config(self.connected).await {
            Ok(config) => {
                self.good("configuration", "config/landfall.toml is read");
                config
            }
            Err(error) => {
                let fix = "mend config/landfall.toml in the work bucket; workers that start now would not";
                self.bad("configuration", format!("{error:#}"), fix);
                Config::default()
            }
        }
    }

    /// The map, and the buckets that it names; those of another store are not asked here.
    async fn map(&mut self, config: &Config) {
        let text = match map::text_in_force(self.connected).await {
            Ok(text) => text,
            Err(error) => {
                return self.bad(
                    "bucket-map",
                    format!("{error:#}"),
                    "`landfall map set bucket-map.yaml` puts one in force",
                );
            }
        };
        let map = match BucketMap::parse(&text, &[]) {
            Ok(map) => map,
            Err(bad) => {
                let fix = "`landfall map lint` shows the lines; `landfall map set` puts a mended one in force";
                return self.bad("bucket-map", bad.to_string(), fix);
            }
        };
        self.good("bucket-map", "config/bucket-map.yaml is read");
        let fix = "make the bucket, or say in [[destination]] of the configuration where it is; route needs the right to write to it (MoreArchiveBucketArns)";
        for (bucket, there) in map::destinations(self.connected, config, &map).await {
            match there {
                There::Yes => self.good("destination", bucket),
                There::No => self.bad("destination", format!("{bucket} is not there"), fix),
                There::Denied => {
                    self.bad("destination", format!("{bucket}: the stack's functions may not write there"), fix);
                }
                There::Unknown(why) => self.bad("destination", format!("{bucket}: {why}"), fix),
            }
        }
    }

    async fn bundle(&mut self) -> anyhow::Result<()> {
        let work = self.connected.deployment.output("WorkBucket")?;
        let got = self.connected.s3().get_object().bucket(work).key(BUNDLE_KEY).send().await;
        let fix = "`landfall schemas fetch` gets the schemas, `landfall schemas set` puts them in force";
        let body = match got {
            Ok(answer) => answer.body.collect().await,
            Err(error) if error.as_service_error().is_some_and(|error| error.is_no_such_key()) => {
                self.warning("schemas", "no bundle is in force: extensions are not validated", fix);
                return Ok(());
            }
            Err(error) => {
                self.bad("schemas", chain_of(&error), fix);
                return Ok(());
            }
        };
        match body
            .map_err(|error| error.to_string())
            .and_then(|body| Bundle::read(&body.into_bytes()).map_err(|error| chain_of(&error)))
        {
            Ok(_) => self.good("schemas", format!("{BUNDLE_KEY} is read")),
            Err(why) => self.bad("schemas", format!("{BUNDLE_KEY}: {why}"), fix),
        }
        Ok(())
    }

    /// A stage's queue and its dead letters.
    async fn queue(&mut self, stage: &str, landings: &Landings, config: &Config) -> anyhow::Result<()> {
        let (own, dead) = (
            self.connected.deployment.queue_url(stage)?.to_owned(),
            self.connected.deployment.dead_queue_url(stage)?.to_owned(),
        );
        let (own, dead) = (self.attributes(&own).await, self.attributes(&dead).await);
        let (own, dead) = match (own, dead) {
            (Ok(own), Ok(dead)) => (own, dead),
            (own, dead) => {
                let why = [own.err(), dead.err()].into_iter().flatten().collect();
                self.judge(
                    "queue",
                    stage,
                    why,
                    "deploy the stack again; what lands meanwhile is not seen: `landfall reconcile --fix`",
                );
                return Ok(());
            }
        };
        self.good("queue", stage);
        let number = |of: &Attributes, name: &QueueAttributeName| {
            of.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or_default()
        };
        let policy: Value = own
            .get(&QueueAttributeName::RedrivePolicy)
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        let mut wrong = Vec::new();
        let receives = policy["maxReceiveCount"].as_u64().or_else(|| policy["maxReceiveCount"].as_str()?.parse().ok());
        if policy["deadLetterTargetArn"].as_str() != dead.get(&QueueAttributeName::QueueArn).map(String::as_str) {
            wrong.push("what crashes is not moved to its dead letters".to_owned());
        } else if receives.unwrap_or_default() < RECEIVES_MIN {
            wrong.push(format!("it is given up after {} receives", receives.unwrap_or_default()));
        } else if receives.unwrap_or_default() <= u64::from(config.policy().receives_max) {
            wrong.push("it is given up before it is re-sent with a delay: receives_max is not less".to_owned());
        }
        self.judge(
            "redrive",
            stage,
            wrong,
            "set the redrive policy as the template has it, with maxReceiveCount of at least 5",
        );

        let (kept, dead_kept) = (
            number(&own, &QueueAttributeName::MessageRetentionPeriod),
            number(&dead, &QueueAttributeName::MessageRetentionPeriod),
        );
        let short = (dead_kept <= kept)
            .then(|| format!("letters are kept {dead_kept} s and messages {kept} s, counted from the first send"));
        self.judge(
            "retention",
            stage,
            short.into_iter().collect(),
            "keep dead letters longer: 1209600 s (14 days) is the most",
        );

        let visibility = number(&own, &QueueAttributeName::VisibilityTimeout);
        // <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html>
        let of_function = self.connected.deployment.outputs.get("FunctionTimeout").and_then(|text| text.parse().ok());
        let least = of_function.map_or(VISIBILITY_MIN, |timeout: u64| 6 * timeout);
        let short = (visibility < least).then(|| {
            let function = of_function.map(|timeout| format!(", its function may take {timeout} s"));
            format!("messages come again after {visibility} s{}", function.unwrap_or_default())
        });
        self.judge(
            "visibility",
            stage,
            short.into_iter().collect(),
            "set the visibility timeout to six times the function's timeout",
        );
        if stage == "validate" {
            let policy = own.get(&QueueAttributeName::Policy).and_then(|text| serde_json::from_str(text).ok());
            let policy: Value = policy.unwrap_or_default();
            let closed = landings.buckets().into_iter().filter(|bucket| !may_send(&policy, bucket));
            self.judge(
                "queue-policy",
                stage,
                closed.map(|bucket| format!("S3 may not send to it for {bucket}")).collect(),
                "give the queue the policy of the template (MoreLandingBucketArns): what lands is not seen",
            );
        }
        Ok(())
    }

    async fn attributes(&self, url: &str) -> Result<Attributes, String> {
        let asked = self.sqs.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All);
        let answer = asked.send().await.map_err(|error| chain_of(&error))?;
        Ok(answer.attributes.unwrap_or_default().into_iter().collect())
    }

    /// Whether S3 tells the validate queue of everything that lands and goes, in each bucket where providers land.
    async fn notifications(&mut self, landings: &Landings) -> anyhow::Result<()> {
        let url = self.connected.deployment.queue_url("validate")?;
        let arn = self.attributes(url).await.ok().and_then(|all| all.get(&QueueAttributeName::QueueArn).cloned());
        for landing in landings.buckets() {
            self.notified(landing, arn.as_deref()).await;
        }
        Ok(())
    }

    async fn notified(&mut self, landing: &str, queue: Option<&str>) {
        let answer = self.connected.s3().get_bucket_notification_configuration().bucket(landing).send().await;
        let fix = "let the bucket notify the validate queue of s3:ObjectCreated:* and s3:ObjectRemoved:*, without a filter; then `landfall reconcile --fix`";
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return self.bad("notifications", format!("{landing}: {}", chain_of(&error)), fix),
        };
        let mine: Vec<_> = answer.queue_configurations().iter().filter(|one| Some(one.queue_arn()) == queue).collect();
        let told = |event: &Event, word: &str| {
            let whole = mine.iter().any(|one| one.events().contains(event) && !is_narrow(one.filter()));
            (!whole).then(|| format!("{word} is not told, or only of some keys"))
        };
        let wrong = [told(&Event::S3ObjectCreated, "what lands"), told(&Event::S3ObjectRemoved, "what is removed")];
        self.judge("notifications", landing, wrong.into_iter().flatten().collect(), fix);
    }

    /// Whether notify may do with completed objects what the landings ask for; pollers have rights of their own.
    fn after_route(&mut self, config: &Config) {
        let Some(granted) = self.connected.deployment.outputs.get("AfterRoute").cloned() else { return };
        let word = |after: AfterRoute| match after {
            AfterRoute::Keep => "keep",
            AfterRoute::Delete => "delete",
            AfterRoute::Tag => "tag",
        };
        let asked = config.landings.iter().map(|landing| word(landing.after_route));
        let denied: BTreeSet<&str> = asked.filter(|asked| *asked != "keep" && *asked != granted).collect();
        let wrong = denied.iter().map(|asked| format!("a landing asks for {asked}, the stack grants {granted}"));
        let fix = "deploy the stack with AfterRoute as the landings have after_route";
        self.judge("after-route", "completed objects", wrong.collect(), fix);
    }

    /// Whether the functions of load and notify, and maintenance, can all have their one connection at a time.
    fn connections(&mut self, health: &Health) {
        let most = |output: &str| self.connected.deployment.outputs.get(output)?.parse::<u32>().ok();
        let (Some(load), Some(notify)) = (most("LoadConcurrency"), most("NotifyConcurrency")) else { return };
        let (needed, there) = (load + notify + 1, health.connections_max);
        let what = format!("PostgreSQL {} has {there} connections, the functions take up to {needed}", health.postgres);
        if needed > there {
            let fix = "lower LoadConcurrency and NotifyConcurrency, or raise max_connections";
            self.bad("connections", what, fix);
        } else {
            self.good("connections", what);
        }
    }

    async fn topics(&mut self) -> anyhow::Result<()> {
        let sns = aws_sdk_sns::Client::new(&self.connected.sdk);
        for output in ["CompletedTopic", "RejectedTopic"] {
            let arn = self.connected.deployment.output(output)?.to_owned();
            match sns.get_topic_attributes().topic_arn(&arn).send().await {
                Ok(_) => self.good("topic", arn),
                Err(error) => self.bad(
                    "topic",
                    format!("{arn}: {}", chain_of(&error)),
                    "deploy the stack again; notify waits until it is there, and subscribers must subscribe anew",
                ),
            }
        }
        Ok(())
    }

    async fn database(&mut self) {
        let Ok(catalogue) = self.connected.catalogue() else {
            return self.bad("database", "no database is known", "set LANDFALL_DATABASE_URL");
        };
        let due = match catalogue.has_pgstac().await {
            Err(error) => {
                return self.bad(
                    "database",
                    error.to_string(),
                    "start it, or mend LANDFALL_DATABASE_URL and its password; load and notify wait meanwhile",
                );
            }
            Ok(false) => {
                return self.bad("database", "pgSTAC is not installed in it", "install it: `pypgstac migrate`");
            }
            Ok(true) => catalogue.plan_of_migration().await,
        };
        self.good("database", "it answers");
        match due {
            Err(error) => return self.bad("ledger", error.to_string(), "`landfall migrate --plan` says more"),
            Ok(due) if due.iter().any(|step| step.starts_with("create")) => {
                return self.bad("ledger", due.join("; "), "`landfall migrate`");
            }
            Ok(due) => self.judge("ledger", "the schema landfall", due, "`landfall migrate`"),
        }
        match catalogue.health().await {
            Err(error) => self.bad("rights", error.to_string(), "`landfall migrate --grant ROLE` as the owner"),
            Ok(health) => {
                self.connections(&health);
                self.judge(
                    "rights",
                    "of the database's role",
                    health.missing_rights,
                    "`landfall migrate --grant ROLE` as the owner",
                );
                if health.is_known {
                    self.good("pgstac", health.pgstac);
                } else {
                    let what = format!("{} is not known: items go through its functions", health.pgstac);
                    self.warning("pgstac", what, "it works, slowly; pgSTAC 0.10.0 is written directly");
                }
                let skew = skew(health.now, Timestamp::now());
                self.judge(
                    "clock",
                    "this machine and the database",
                    skew.into_iter().collect(),
                    "let both follow a time server (chrony)",
                );
            }
        }
    }
}

type Attributes = BTreeMap<QueueAttributeName, String>;

/// Whether a queue's policy lets S3 send to it on behalf of a bucket.
fn may_send(policy: &Value, bucket: &str) -> bool {
    let statements = policy["Statement"].as_array().map(Vec::as_slice).unwrap_or_default();
    statements.iter().filter(|statement| statement["Effect"] == "Allow").map(Value::to_string).any(|text| {
        let names = [format!(":s3:::{bucket}\""), ":s3:::*\"".to_owned()];
        let is_for = !text.contains("aws:SourceArn") || names.iter().any(|name| text.contains(name));
        text.contains("s3.amazonaws.com") && is_for
    })
}

/// Whether a notification is only of some keys.
fn is_narrow(filter: Option<&NotificationConfigurationFilter>) -> bool {
    let rules = filter.and_then(|filter| filter.key()).map(|key| key.filter_rules()).unwrap_or_default();
    rules.iter().any(|rule| rule.value().is_some_and(|value| !value.is_empty()))
}

/// How far two clocks are apart, where that is too far.
fn skew(theirs: Timestamp, ours: Timestamp) -> Option<String> {
    let apart = theirs.duration_since(ours).abs();
    (apart > SKEW_MAX).then(|| format!("they are {} s apart", apart.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s3_may_send_for_the_buckets_that_the_policy_names() {
        let statement = |effect: &str, arn: Value| {
            let condition = serde_json::json!({"ArnLike": {"aws:SourceArn": arn}});
            serde_json::json!({"Effect": effect, "Principal": {"Service": "s3.amazonaws.com"}, "Condition": condition})
        };
        let allowed = |statements: Value| may_send(&serde_json::json!({"Statement": statements}), "in");
        let arn = "arn:aws:s3:::in";
        assert!(allowed(serde_json::json!([statement("Allow", arn.into())])));
        assert!(allowed(serde_json::json!([statement("Allow", vec!["arn:aws:s3:::a", arn].into())])));
        assert!(allowed(serde_json::json!([statement("Allow", "arn:aws:s3:::*".into())])));
        assert!(!allowed(serde_json::json!([statement("Deny", arn.into())])));
        assert!(!allowed(serde_json::json!([statement("Allow", "arn:aws:s3:::in-two".into())])));
        assert!(!allowed(Value::Null));
    }

    #[test]
    fn clocks_may_be_a_minute_apart() {
        let ours: Timestamp = "2024-05-17T10:00:00Z".parse().unwrap();
        let at = |text: &str| skew(text.parse().unwrap(), ours);
        assert_eq!(at("2024-05-17T10:01:00Z"), None);
        assert_eq!(at("2024-05-17T09:58:59Z").as_deref(), Some("they are 61 s apart"));
        assert_eq!(at("2024-05-17T10:15:00Z").as_deref(), Some("they are 900 s apart"));
    }
}

//! Dead letters beyond the moment of their refusal: adopted where SQS moved a message by itself, archived before SQS
//! forgets them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use landfall_events::letter::{Letter, TRACEPARENT, redrive_of};
use landfall_events::{Cause, Change, Envelope, Event, EventId, ObjectRef, Refusal, Report, codes, report};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::metrics;
use crate::objects::{Objects, ObjectsError, Over, Properties};
use crate::queue::{BATCH_MAX, Delivery, Outgoing, Queue, QueueError};
use crate::runner::{ProviderOf, group, message};

/// How long a letter that is looked at stays invisible for others; it is given back before that.
pub const LOOK: Duration = Duration::from_secs(60);

/// Requests at a time that give letters back.
const CONCURRENCY: usize = 16;

/// How old letters become in their queue: SQS forgets them after at most 14 days, counted from the first send.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html>
pub const ARCHIVE_AFTER: SignedDuration = SignedDuration::from_hours(8 * 24);

/// The most bytes of an archived letter: a message with its attributes, as JSON text.
const BYTES_MAX: u64 = 8 * 1024 * 1024;

/// A walk over all letters of a queue, each seen once and given back at the end.
pub struct Walk<'q> {
    dead: &'q dyn Queue,
    seen: BTreeSet<String>,
    empty: u32,
    repeated: usize,
    back: Vec<String>,
}

impl<'q> Walk<'q> {
    /// Begins at any letter.
    pub fn over(dead: &'q dyn Queue) -> Self {
        Self { dead, seen: BTreeSet::new(), empty: 0, repeated: 0, back: Vec::new() }
    }

    /// The next few letters; `None` when all were seen. They are the caller's to settle or to give back.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn next(&mut self) -> Result<Option<Vec<Delivery>>, QueueError> {
        // A receive asks only some of SQS's servers: one empty answer does not mean an empty queue. What was held for
        // long has become visible and comes a second time, which does not mean so either, before all has come again.
        while self.empty < 2 && (self.repeated == 0 || self.repeated <= self.seen.len()) {
            let received = self.dead.receive(BATCH_MAX, LOOK, Duration::from_secs(u64::from(self.empty > 0))).await?;
            self.empty = if received.is_empty() { self.empty + 1 } else { 0 };
            let mut new = Vec::new();
            for delivery in received {
                let is_new = self.seen.insert(delivery.id.clone());
                self.repeated = if is_new { 0 } else { self.repeated + 1 };
                if is_new { new.push(delivery) } else { self.back.push(delivery.receipt) }
            }
            if !new.is_empty() {
                return Ok(Some(new));
            }
        }
        Ok(None)
    }

    /// Takes back what was not settled.
    pub fn give_back(&mut self, receipts: impl IntoIterator<Item = String>) {
        self.back.extend(receipts);
    }

    /// Makes what was given back visible for others at once; what cannot be given back now comes back by itself.
    pub async fn end(self) {
        let receipts: Vec<_> = self.back.into_iter().map(|receipt| (receipt, Duration::ZERO)).collect();
        let dead = self.dead;
        let some: Vec<_> = receipts.chunks(BATCH_MAX).map(<[_]>::to_vec).collect();
        let each: Vec<_> = some.iter().map(|some| async { dead.set_visibility(some).await }).collect();
        futures::stream::iter(each).buffer_unordered(CONCURRENCY).for_each(|_| async {}).await;
    }
}

/// A letter out of its queue: the message as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archived {
    /// The queue message's id.
    pub message: String,
    /// Its body.
    pub body: String,
    /// Its attributes: what is known about the letter.
    pub attributes: BTreeMap<String, String>,
}

impl Archived {
    fn of(delivery: &Delivery) -> Self {
        let (message, body, attributes) = (delivery.id.clone(), delivery.body.clone(), delivery.attributes.clone());
        Self { message, body, attributes }
    }
}

/// Letters in the work bucket.
#[derive(Clone)]
pub struct Archive {
    objects: Arc<dyn Objects>,
    work_bucket: String,
}

impl Archive {
    /// The archive in this work bucket.
    pub fn new(objects: Arc<dyn Objects>, work_bucket: &str) -> Self {
        Self { objects, work_bucket: work_bucket.to_owned() }
    }

    /// Keeps a letter. The same letter has one place, however often it is written; two of one event have two.
    ///
    /// # Errors
    /// [`ObjectsError`].
    pub async fn keep(&self, stage: &str, archived: Archived, letter: &Letter) -> Result<(), ObjectsError> {
        let is_plain = |id: &&str| !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let event = letter.event.as_ref().map(|event| event.0.as_str()).filter(is_plain);
        let hash = EventId::of_bytes(&archived.body, letter.code.as_str(), letter.redrive);
        let key = format!("{}{}-{hash}.json", folder(stage), event.unwrap_or(&archived.message));
        let object = ObjectRef::new(&self.work_bucket, key);
        let text = serde_json::to_vec(&archived).expect("a letter has string keys only");
        self.objects.put(&object, Bytes::from(text), &Properties::of_type("application/json"), Over::Anything).await?;
        Ok(())
    }

    /// Reads one; `None` where it is gone or no letter.
    ///
    /// # Errors
    /// [`ObjectsError`].
    pub async fn read(&self, object: &ObjectRef) -> Result<Option<Archived>, ObjectsError> {
        match self.objects.get(object, None, BYTES_MAX).await {
            Ok((body, _)) => Ok(serde_json::from_slice(&body)
                .inspect_err(|error| warn!(%object, %error, "is no archived letter"))
                .ok()),
            Err(ObjectsError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes one that is settled.
    ///
    /// # Errors
    /// [`ObjectsError`].
    pub async fn remove(&self, object: &ObjectRef) -> Result<(), ObjectsError> {
        self.objects.delete(object, None).await
    }
}

/// How the keys of a stage's archived letters start.
#[must_use]
pub fn folder(stage: &str) -> String {
    format!("letters/{stage}/")
}

/// A stage's dead letters and what is done about them by time.
pub struct Letters<'a> {
    /// The stage.
    pub stage: &'a str,
    /// Its dead-letter queue.
    pub dead: &'a dyn Queue,
    /// Notify's queue.
    pub notify: &'a dyn Queue,
    /// Where they are kept longer than SQS does.
    pub archive: &'a Archive,
    /// Tells whose object it is.
    pub provider_of: &'a ProviderOf,
    /// From what age on they are archived.
    pub older_than: SignedDuration,
    /// Whether nothing is changed, only counted.
    pub dry_run: bool,
}

/// What was done about a stage's letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Kept {
    /// Letters without a reason, which have one now.
    pub adopted: usize,
    /// Letters that are in the archive now.
    pub archived: usize,
    /// What could not be done now, and is done the next time.
    pub failed: usize,
}

impl Letters<'_> {
    /// Gives what SQS moved by itself (a crash loop) the code `gave-up` and announces it; archives what is old.
    ///
    /// # Errors
    /// [`QueueError`] where the queue cannot be looked into.
    pub async fn keep<E: Event>(&self, now: Timestamp) -> Result<Kept, QueueError> {
        let mut kept = Kept::default();
        let mut walk = Walk::over(self.dead);
        let ended = async {
            while let Some(found) = walk.next().await? {
                for delivery in found {
                    let letter = Letter::from_attributes(&delivery.attributes);
                    let is_old = |time: Timestamp| now.duration_since(time) >= self.older_than;
                    let (count, done) = match &letter {
                        None if self.dry_run => (&mut kept.adopted, Ok(false)),
                        None => (&mut kept.adopted, self.adopt::<E>(&delivery, now).await.map(|()| true)),
                        Some(letter) if letter.time.is_none_or(is_old) => {
                            let done = match self.dry_run {
                                true => Ok(false),
                                false => {
                                    self.archive.keep(self.stage, Archived::of(&delivery), letter).await.map(|()| true)
                                }
                            };
                            (&mut kept.archived, done.map_err(|error| error.to_string()))
                        }
                        Some(_) => {
                            walk.give_back([delivery.receipt]);
                            continue;
                        }
                    };
                    match done {
                        // A letter that cannot be deleted is adopted or archived again, to the same end.
                        Ok(true) if is_deleted(self.dead, &delivery).await => *count += 1,
                        Ok(false) => {
                            *count += 1;
                            walk.give_back([delivery.receipt]);
                        }
                        Ok(true) => kept.failed += 1,
                        Err(reason) => {
                            warn!(stage = self.stage, message = delivery.id, reason, "a dead letter could not be kept");
                            kept.failed += 1;
                            walk.give_back([delivery.receipt]);
                        }
                    }
                }
            }
            Ok(())
        }
        .await;
        walk.end().await;
        ended.map(|()| kept)
    }

    /// Writes the letters that a stage would have written, and tells notify.
    async fn adopt<E: Event>(&self, delivery: &Delivery, now: Timestamp) -> Result<(), String> {
        let redrive = redrive_of(&delivery.attributes);
        let trace = delivery.attributes.get(TRACEPARENT).cloned();
        // Not how often: every look at the letter counts too, and a repetition says the same.
        let reason = format!("{} received it again and again, and never came to an end", self.stage);
        let refusal = Refusal::new(codes::GAVE_UP, reason);
        let facts = Facts { stage: self.stage, tries: delivery.receives, now, trace };
        let code = refusal.code.clone();
        let mut read = E::read(&delivery.body, &**self.provider_of);
        let (mut letters, mut reports) = (Vec::new(), Vec::new());
        if read.is_empty() {
            let (letter, report) = facts.of_unreadable(&delivery.body, refusal.clone(), redrive);
            letters.push((outgoing(delivery.body.clone(), &letter, self.stage), letter));
            reports.push(message(&report, self.stage));
        }
        for one in read.drain(..) {
            let (letter, report, body) = match one {
                Ok(received) => {
                    let envelope = received.envelope;
                    let envelope = if redrive > envelope.redrive { envelope.redriven(redrive) } else { envelope };
                    let (letter, report) = facts.of_refusal(&envelope, refusal.clone());
                    let body = if envelope.attempt > 0 { afresh(&envelope).to_json() } else { received.body };
                    (letter, report, body)
                }
                Err(unread) => {
                    let (letter, report) = facts.of_unreadable(&unread.body, refusal.clone(), redrive);
                    (letter, Some(report), unread.body)
                }
            };
            info!(stage = self.stage, object = letter.object, "a message that SQS gave up has a reason now");
            letters.push((outgoing(body, &letter, self.stage), letter));
            reports.extend(report.map(|report| message(&report, self.stage)));
        }
        let count = letters.len();
        self.write(letters, &delivery.id).await?;
        for sent in self.notify.send(reports).await {
            sent.map_err(|error| error.to_string())?;
        }
        (0..count).for_each(|_| metrics::refused(&code));
        Ok(())
    }

    /// Writes letters to their queue; what is too large for it with its attributes, to the archive.
    async fn write(&self, letters: Vec<(Outgoing, Letter)>, message: &str) -> Result<(), String> {
        let sent = self.dead.send(letters.iter().map(|(message, _)| message.clone()).collect()).await;
        for ((outgoing, letter), sent) in letters.into_iter().zip(sent) {
            match sent {
                Err(QueueError::Refused(_)) => {
                    let Outgoing { body, attributes, .. } = outgoing;
                    let kept = self.archive.keep(
                        self.stage,
                        Archived { message: message.to_owned(), body, attributes },
                        &letter,
                    );
                    kept.await.map_err(|error| error.to_string())?;
                }
                sent => sent.map_err(|error| error.to_string())?,
            }
        }
        Ok(())
    }
}

async fn is_deleted(dead: &dyn Queue, delivery: &Delivery) -> bool {
    dead.delete(std::slice::from_ref(&delivery.receipt)).await.iter().all(Result::is_ok)
}

/// An event as it was before it was re-sent: under the same id, with its time and its tries before it.
pub(crate) fn afresh<E: Event>(envelope: &Envelope<E>) -> Envelope<E> {
    Envelope { attempt: 0, deadline: None, ..envelope.clone() }
}

/// A letter as a message.
pub(crate) fn outgoing(body: String, letter: &Letter, stage: &str) -> Outgoing {
    Outgoing { body, attributes: letter.attributes(), group: group(&letter.provider, stage), delay: Duration::ZERO }
}

/// What a letter says beside the event and the refusal.
pub(crate) struct Facts<'a> {
    pub(crate) stage: &'a str,
    pub(crate) tries: u32,
    pub(crate) now: Timestamp,
    pub(crate) trace: Option<String>,
}

/// The type of the report of a refusal.
const REFUSED_KIND: &str = "landfall.object.refused.v1";

/// The id of the report that a change was refused in this generation.
#[must_use]
pub fn refusal_id(cause: &Cause, redrive: u32) -> EventId {
    EventId::of(cause, REFUSED_KIND, redrive)
}

/// The type of the report of a wait.
pub(crate) const WAITING_KIND: &str = "landfall.object.waiting.v1";

/// Whether what becomes of a report of this type says nothing of its object.
#[must_use]
pub fn is_silent(kind: &str) -> bool {
    SILENT_KINDS.contains(&kind)
}

/// Reports that tell of no end of their object: what becomes of such a report says nothing of it.
const SILENT_KINDS: [&str; 3] = [REFUSED_KIND, WAITING_KIND, "landfall.object.ignored.v1"];

impl Facts<'_> {
    /// The letter of a refusal, and its report; none where it is itself a report that something is refused (that would
    /// go in circles), waits, or needs nothing done.
    pub(crate) fn of_refusal<E: Event>(
        &self,
        envelope: &Envelope<E>,
        refusal: Refusal,
    ) -> (Letter, Option<Envelope<Report>>) {
        let cause = envelope.event.cause();
        let (code, reason) = (refusal.code.clone(), refusal.reason.clone());
        let refused = report::Refused { cause: cause.clone(), stage: self.stage.to_owned(), refusal };
        let report = envelope.followed_by(Report::from(refused));
        let letter = self.letter(code, reason, &report, Some(object_of(cause)));
        (letter, (!is_silent(envelope.event.kind())).then_some(report))
    }

    /// The same of what cannot be read: it names no object that landed, and is announced under its queue and its
    /// bytes' hash.
    pub(crate) fn of_unreadable(&self, body: &str, refusal: Refusal, redrive: u32) -> (Letter, Envelope<Report>) {
        let event = EventId::of_bytes(body, self.stage, redrive);
        let cause = Cause {
            object: ObjectRef::new(format!("{}-queue", self.stage), event.to_string()),
            change: Change::Created,
            version_id: None,
            etag: None,
            size: Some(body.len() as u64),
            sequencer: None,
            event_time: Timestamp::UNIX_EPOCH,
            member: None,
            members: None,
        };
        let (code, reason) = (refusal.code.clone(), refusal.reason.clone());
        let refused = report::Refused { cause, stage: self.stage.to_owned(), refusal };
        let report = Envelope::new(Report::from(refused), "", redrive);
        (self.letter(code, reason, &report, None), report)
    }

    fn letter(&self, code: codes::Code, reason: String, report: &Envelope<Report>, object: Option<String>) -> Letter {
        Letter {
            stage: self.stage.to_owned(),
            code,
            reason,
            event: Some(report.id.clone()),
            object,
            provider: report.provider.clone(),
            attempts: self.tries,
            time: Some(self.now),
            redrive: report.redrive,
            traceparent: self.trace.clone(),
        }
    }
}

fn object_of(cause: &Cause) -> String {
    match cause.member {
        Some(member) => format!("{}#{member}", cause.object),
        None => cause.object.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use landfall_events::Landed;
    use landfall_events::letter::REDRIVE;

    use super::*;
    use crate::memory::{MemoryObjects, MemoryQueue};
    use crate::queue::BATCH_BYTES_MAX;

    struct World {
        dead: MemoryQueue,
        notify: MemoryQueue,
        archive: Archive,
    }

    fn world() -> World {
        let queue = || MemoryQueue::new(Arc::default());
        let objects = Arc::new(MemoryObjects::new(Arc::default()));
        World { dead: queue(), notify: queue(), archive: Archive::new(objects, "work") }
    }

    impl World {
        async fn keep(&self, now: &str, dry_run: bool) -> Kept {
            let provider_of: ProviderOf = Arc::new(|_| "sbn".to_owned());
            let letters = Letters {
                stage: "validate",
                dead: &self.dead,
                notify: &self.notify,
                archive: &self.archive,
                provider_of: &provider_of,
                older_than: SignedDuration::from_hours(24),
                dry_run,
            };
            letters.keep::<Landed>(now.parse().unwrap()).await.unwrap()
        }
    }

    /// A notification of two objects, as it is when SQS has moved it.
    fn notification() -> String {
        let record = |key: &str| {
            serde_json::json!({"eventVersion": "2.1", "eventSource": "aws:s3", "eventTime": "2024-05-17T10:15:00Z",
                "eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "landing"},
                "object": {"key": key, "size": 1, "eTag": "e", "sequencer": "1"}}})
        };
        serde_json::json!({"Records": [record("a"), record("b")]}).to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn what_sqs_moved_gets_a_reason_for_each_object_and_is_announced() {
        let world = world();
        world.dead.push(&notification(), BTreeMap::new());
        assert_eq!(world.keep("2024-05-18T00:00:00Z", true).await, Kept { adopted: 1, ..Kept::default() });
        assert_eq!(world.keep("2024-05-18T00:00:00Z", false).await, Kept { adopted: 1, ..Kept::default() });

        let letters = world.dead.messages();
        let read: Vec<_> = letters.iter().map(|one| Letter::from_attributes(&one.attributes).unwrap()).collect();
        let objects: Vec<_> = read.iter().map(|letter| letter.object.clone().unwrap()).collect();
        assert_eq!(objects, ["s3://landing/a", "s3://landing/b"]);
        assert!(read.iter().all(|letter| letter.code == codes::GAVE_UP && letter.provider == "sbn"), "{read:?}");
        assert!(
            letters.iter().all(|one| Landed::read(&one.body, &|_| String::new()).len() == 1),
            "each is sent again alone"
        );
        let told: Vec<_> = world.notify.messages();
        let told: Vec<_> = told.iter().map(|one| Envelope::<Report>::from_json(&one.body).unwrap().id).collect();
        assert_eq!(told, read.iter().map(|letter| letter.event.clone().unwrap()).collect::<Vec<_>>());
        assert_eq!(world.keep("2024-05-18T00:00:00Z", false).await, Kept::default(), "that is done once");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_even_readable_gets_a_reason_too() {
        let world = world();
        for body in ["{", r#"{"Service":"Amazon S3","Event":"s3:TestEvent"}"#] {
            world.dead.push(body, BTreeMap::from([(REDRIVE.to_owned(), "2".to_owned())]));
        }
        assert_eq!(world.keep("2024-05-18T00:00:00Z", false).await.adopted, 2);
        let letters: Vec<_> =
            world.dead.messages().iter().map(|one| Letter::from_attributes(&one.attributes).unwrap()).collect();
        assert!(letters.iter().all(|letter| letter.redrive == 2 && letter.event.is_some()), "{letters:?}");
        assert_eq!(world.notify.messages().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_large_with_its_reason_is_archived_at_once() {
        let world = world();
        let body = "x".repeat(BATCH_BYTES_MAX - 10);
        world.dead.push(&body, BTreeMap::new());

        assert_eq!(world.keep("2024-05-18T00:00:00Z", false).await, Kept { adopted: 1, ..Kept::default() });

        assert!(world.dead.messages().is_empty());
        let kept = world.archive.objects.list("work", &folder("validate"), 1000).await.unwrap();
        let archived = world.archive.read(&kept[0]).await.unwrap().unwrap();
        let letter = Letter::from_attributes(&archived.attributes).unwrap();
        assert_eq!((archived.body, letter.code), (body, codes::GAVE_UP));
        assert_eq!(world.notify.messages().len(), 1, "it is announced");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_is_archived_whole_and_what_is_young_stays() {
        let world = world();
        world.dead.push(&notification(), BTreeMap::new());
        world.keep("2024-05-18T00:00:00Z", false).await;
        let before = world.dead.messages();
        assert_eq!(world.keep("2024-05-18T23:59:59Z", false).await, Kept::default());

        assert_eq!(world.keep("2024-05-19T00:00:00Z", false).await, Kept { archived: 2, ..Kept::default() });

        assert!(world.dead.messages().is_empty());
        let mut archived = Vec::new();
        for object in world.archive.objects.list("work", &folder("validate"), 1000).await.unwrap() {
            archived.push(world.archive.read(&object).await.unwrap().unwrap());
        }
        let pairs = |body: &str, attributes: &BTreeMap<String, String>| (body.to_owned(), attributes.clone());
        let mut before: Vec<_> = before.iter().map(|one| pairs(&one.body, &one.attributes)).collect();
        let mut after: Vec<_> = archived.iter().map(|one| pairs(&one.body, &one.attributes)).collect();
        before.sort();
        after.sort();
        assert_eq!(before, after);
    }
}

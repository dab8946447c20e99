//! The one function that decides what becomes of a delivery: acknowledged, retried, delayed, dead-lettered, forwarded.
//!
//! It never fails. Whatever calls it (a poller, a Lambda) only carries its verdicts out.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use landfall_events::codes::Code;
use landfall_events::letter::{Letter, TRACEPARENT, redrive_of};
use landfall_events::report::Waiting;
use landfall_events::status::{PASSED, Passed};
use landfall_events::{Envelope, Event, ObjectRef, Received, Refusal, Report, Unread, Unreadable, codes};
use rand::Rng;
use tracing::{Instrument, error, info, warn};

use crate::letters::{ARCHIVE_AFTER, Archive, Facts, Letters, WAITING_KIND, afresh, outgoing};
use crate::locked;
use crate::metrics;
use crate::queue::{DELAY_MAX, Delivery, Outgoing, Queue, QueueError};
use crate::stage::{Class, Failure, Outcome, Refused, Stage, Wait, chain_of};
use crate::telemetry::{self, Step};

/// What becomes of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is settled; everything that follows from it was sent. Delete it.
    Ack,
    /// It shall be received again after this time.
    Retry {
        /// How long it stays invisible.
        after: Duration,
    },
}

/// What a batch has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// What becomes of each delivery, in their order.
    pub verdicts: Vec<Verdict>,
    /// Whether something failed that may pass, and nothing was done: a dependency may be down, also where everything was
    /// re-sent and is acknowledged.
    pub is_in_doubt: bool,
}

/// The queues that a stage can send to.
#[derive(Clone)]
pub struct Outlets {
    /// The stage's own queue.
    pub own: Arc<dyn Queue>,
    /// The next stage's queue; the last stage has none.
    pub next: Option<Arc<dyn Queue>>,
    /// Notify's queue, for reports.
    pub notify: Arc<dyn Queue>,
    /// The stage's dead-letter queue.
    pub dead: Arc<dyn Queue>,
}

/// How patient a stage is.
#[derive(Debug, Clone)]
pub struct Policy {
    /// How often a failing delivery is received before it is re-sent with a delay instead.
    /// Less than the queue's `maxReceiveCount`, which is the net for crashes.
    pub receives_max: u32,
    /// The shortest delay of a retry or a re-send; it doubles with each.
    pub delay_min: Duration,
    /// The longest delay.
    pub delay_max: Duration,
    /// How long an event waits for what has not landed.
    pub wait_max: Duration,
    /// How often an event is re-sent because of a passing failure before it is given up.
    pub resends_max: u32,
    /// The longest that a stage may take for one batch.
    pub batch_time_max: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            receives_max: 3,
            delay_min: Duration::from_secs(2),
            delay_max: DELAY_MAX,
            wait_max: Duration::from_secs(24 * 3600),
            // With the longest delay between them, about two days.
            resends_max: 200,
            batch_time_max: Duration::from_secs(120),
        }
    }
}

/// Tells whose object it is; empty where no landing is configured for it.
pub type ProviderOf = Arc<dyn Fn(&ObjectRef) -> String + Send + Sync>;

/// Runs a stage over deliveries.
pub struct Runner<S: Stage> {
    stage: S,
    outlets: Outlets,
    policy: Policy,
    provider_of: ProviderOf,
    archive: Option<Archive>,
    /// When dead letters were looked after.
    kept: Mutex<Option<Timestamp>>,
    now: fn() -> Timestamp,
}

/// How often a stage looks after its dead letters: those who list them do not see what is looked at.
const LETTERS_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// Which queue a message goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outlet {
    Next,
    Own,
    Dead,
    // Last: what notify has announced is settled, and is not found again by a repetition.
    Notify,
}

/// A message for a queue, on account of one delivery.
struct Post {
    delivery: usize,
    outlet: Outlet,
    message: Outgoing,
}

/// What follows from an event: what is sent, and what is counted when that is sent. A delivery that comes again says
/// everything again.
#[derive(Default)]
struct Followed {
    posts: Vec<Post>,
    counts: Vec<Count>,
}

impl Followed {
    fn add(&mut self, other: Self) {
        self.posts.extend(other.posts);
        self.counts.extend(other.counts);
    }
}

/// What is counted of one delivery.
struct Count {
    delivery: usize,
    what: What,
}

/// What an event has come to.
enum What {
    Done,
    Waits,
    Refused(Code),
}

/// One event to handle, and the delivery that brought it.
struct Work<E> {
    delivery: usize,
    received: Received<E>,
    step: Step,
}

impl<S: Stage> Runner<S> {
    /// Puts a stage between its queues.
    pub fn new(stage: S, outlets: Outlets, policy: Policy, provider_of: ProviderOf) -> Self {
        let (archive, kept) = (None, Mutex::default());
        Self { stage, outlets, policy, provider_of, archive, kept, now: Timestamp::now }
    }

    /// Lets it look after its dead letters by time, with this archive.
    #[must_use]
    pub fn with_archive(mut self, archive: Archive) -> Self {
        self.archive = Some(archive);
        self
    }

    /// Takes the time from elsewhere, for tests.
    #[must_use]
    pub fn with_clock(mut self, now: fn() -> Timestamp) -> Self {
        self.now = now;
        self
    }

    /// The stage that it runs.
    pub fn stage(&self) -> &S {
        &self.stage
    }

    /// The queue that it receives from.
    pub fn queue(&self) -> &Arc<dyn Queue> {
        &self.outlets.own
    }

    /// Decides about every delivery: runs the stage, sends what follows, and says what becomes of each.
    pub async fn settle(&self, deliveries: &[Delivery]) -> Vec<Verdict> {
        self.settle_within(deliveries, self.policy.batch_time_max).await.verdicts
    }

    /// The same, where the stage has less time than its policy gives it.
    pub async fn settle_within(&self, deliveries: &[Delivery], batch_time_max: Duration) -> Settled {
        let mut verdicts = vec![Verdict::Ack; deliveries.len()];
        let mut followed = Followed::default();
        let mut works = Vec::new();
        for (index, delivery) in deliveries.iter().enumerate() {
            let passed = delivery.attributes.get(PASSED).map(|text| Passed::read(text)).unwrap_or_default();
            let redrive = redrive_of(&delivery.attributes);
            for read in S::Input::read(&delivery.body, &*self.provider_of) {
                match read {
                    Ok(mut received) => {
                        if redrive > received.envelope.redrive {
                            received.envelope = received.envelope.redriven(redrive);
                        }
                        received.envelope.passed.clone_from(&passed);
                        let step = Step::begin(S::NAME, &delivery.attributes);
                        tell(&step, &received.envelope, delivery);
                        works.push(Work { delivery: index, received, step });
                    }
                    Err(unread) => followed.add(self.unreadable(index, delivery, &unread, redrive)),
                }
            }
        }

        let batch: Vec<_> = works.iter().map(|work| work.received.envelope.clone()).collect();
        let now = (self.now)();
        let ages = batch.iter().map(|envelope| now.duration_since(envelope.event.cause().event_time));
        let in_flight = metrics::received(batch.len(), ages.max().map(|age| age.try_into().unwrap_or_default()));
        let handled = telemetry::Batch::begin(S::NAME, works.iter().map(|work| &work.step));
        let results = self.guarded(&batch, batch_time_max.min(self.policy.batch_time_max)).await;
        drop(handled);
        let is_nothing_done = results.iter().all(|result| result.as_ref().is_err_and(Unfinished::may_pass));
        for (work, result) in works.iter().zip(results) {
            let delivery = &deliveries[work.delivery];
            let span = self.span(work, delivery);
            let _entered = span.enter();
            match self.decide(work, delivery, result) {
                Ok(what) => followed.add(what),
                Err(after) => retry(&mut verdicts[work.delivery], after),
            }
        }

        let unsendable = self.post(followed.posts, deliveries, &mut verdicts).await;
        // What none takes is refused whole, whatever it would have come to.
        let counts = followed.counts.into_iter().filter(|count| !unsendable.contains(&count.delivery));
        let refused =
            unsendable.iter().map(|&delivery| Count { delivery, what: What::Refused(codes::DELIVERY_UNSENDABLE) });
        let counts = counts.chain(refused).filter(|count| verdicts[count.delivery] == Verdict::Ack);
        for Count { what, .. } in counts {
            match what {
                What::Done => metrics::done(),
                What::Waits => metrics::parked(),
                What::Refused(code) => metrics::refused(&code),
            }
        }
        drop(in_flight);
        // Where nothing could be read nothing was to be done; what follows from that may fail to be sent.
        let has_failed = !works.is_empty() || verdicts.iter().any(|verdict| *verdict != Verdict::Ack);
        let is_in_doubt = is_nothing_done && has_failed;
        Settled { verdicts, is_in_doubt }
    }

    /// Lets the stage do what is due by time alone, and sends what follows to its own queue. What fails is said, and
    /// is due the next time too.
    pub async fn tend(&self) {
        self.keep_letters().await;
        let due = match self.stage.tend((self.now)()).await {
            Ok(due) => due,
            Err(failure) => {
                warn!(stage = S::NAME, reason = chain_of(&failure), "what is due by time could not be done");
                return;
            }
        };
        for sent in self.outlets.own.send(due.iter().map(|envelope| message(envelope, S::NAME)).collect()).await {
            if let Err(failure) = sent {
                warn!(stage = S::NAME, reason = %failure, "what is due by time could not be sent");
            }
        }
    }

    /// Gives a reason to what SQS moved, and archives what is old.
    async fn keep_letters(&self) {
        let now = (self.now)();
        let Some(archive) = &self.archive else { return };
        let last = locked(&self.kept).replace(now);
        if last.is_some_and(|last| now.duration_since(last) < LETTERS_EVERY) {
            *locked(&self.kept) = last;
            return;
        }
        let letters = Letters {
            stage: S::NAME,
            dead: &*self.outlets.dead,
            notify: &*self.outlets.notify,
            archive,
            provider_of: &self.provider_of,
            older_than: ARCHIVE_AFTER,
            dry_run: false,
        };
        match letters.keep::<S::Input>(now).await {
            Ok(kept) => info!(stage = S::NAME, ?kept, "looked after dead letters"),
            Err(failure) => warn!(stage = S::NAME, reason = %failure, "dead letters could not be looked after"),
        }
    }

    fn span(&self, work: &Work<S::Input>, delivery: &Delivery) -> tracing::Span {
        let envelope = &work.received.envelope;
        let cause = envelope.event.cause();
        tracing::info_span!(
            "delivery",
            stage = S::NAME,
            trace.id = work.step.trace_id(),
            event.id = %envelope.id,
            event.kind = envelope.event.kind(),
            object.bucket = cause.object.bucket,
            object.key = cause.object.key,
            object.member = cause.member,
            delivery.id = delivery.id,
            delivery.attempt = delivery.receives,
        )
    }

    /// Runs the stage with a limit on its time. A panic in a batch is narrowed down to the event that causes it.
    async fn guarded(
        &self,
        batch: &[Envelope<S::Input>],
        time_max: Duration,
    ) -> Vec<Result<Outcome<S>, Unfinished<S::Error>>> {
        if batch.is_empty() {
            return Vec::new();
        }
        match self.attempt(batch, time_max).await {
            Ok(results) => results,
            Err(Halt::Panic(_)) if batch.len() > 1 => {
                let mut results = Vec::with_capacity(batch.len());
                for envelope in batch {
                    match self.attempt(std::slice::from_ref(envelope), time_max).await {
                        Ok(mut one) => results.append(&mut one),
                        Err(halt) => results.push(Err(Unfinished::Halted(halt))),
                    }
                }
                results
            }
            Err(halt) => batch.iter().map(|_| Err(Unfinished::Halted(halt.clone()))).collect(),
        }
    }

    async fn attempt(
        &self,
        batch: &[Envelope<S::Input>],
        time_max: Duration,
    ) -> Result<Vec<Result<Outcome<S>, Unfinished<S::Error>>>, Halt> {
        let span = tracing::info_span!("batch", stage = S::NAME, batch.size = batch.len());
        let handled = AssertUnwindSafe(self.stage.handle(batch, (self.now)()).instrument(span)).catch_unwind();
        let results = match tokio::time::timeout(time_max, handled).await {
            Ok(Ok(results)) => results,
            Ok(Err(panic)) => return Err(Halt::Panic(panic_text(&*panic))),
            Err(_) => return Err(Halt::TimeOver),
        };
        assert_eq!(results.len(), batch.len(), "a stage gives one outcome for each event");
        Ok(results.into_iter().map(|result| result.map_err(Unfinished::Failed)).collect())
    }

    /// Says what follows from one outcome, or after what time to try again.
    fn decide(
        &self,
        work: &Work<S::Input>,
        delivery: &Delivery,
        result: Result<Outcome<S>, Unfinished<S::Error>>,
    ) -> Result<Followed, Duration> {
        match result {
            Ok(Outcome::Done(done)) => {
                info!(
                    next = done.next.len(),
                    again = done.again.len(),
                    reports = done.reports.len(),
                    refused = done.refused.len(),
                    "settled"
                );
                let kinds = done.next.iter().map(|next| next.event.kind());
                let kinds = kinds.chain(done.reports.iter().map(|report| report.event.kind()));
                let count = |what| Count { delivery: work.delivery, what };
                let waits = kinds.filter(|kind| *kind == WAITING_KIND).map(|_| count(What::Waits));
                let is_done = done.refused.iter().all(|refused| refused.member.is_some());
                let counts = waits.chain(is_done.then(|| count(What::Done))).collect();
                let mut followed = Followed { posts: Vec::new(), counts };
                let posts = &mut followed.posts;
                posts.extend(done.next.iter().map(|next| self.post_on(work, Outlet::Next, next)));
                posts.extend(done.reports.iter().map(|report| self.post_on(work, Outlet::Notify, report)));
                posts.extend(done.again.iter().map(|again| post(work, Outlet::Own, again)));
                for refused in done.refused {
                    followed.add(self.refuse(work, delivery, refused));
                }
                Ok(followed)
            }
            Ok(Outcome::Wait(wait)) => Ok(self.wait(work, delivery, wait)),
            Err(Unfinished::Failed(failure)) => match failure.class() {
                Class::Permanent => {
                    Ok(self.refuse(work, delivery, Refused { member: None, refusal: failure.refusal() }))
                }
                Class::Transient => self.retry_or_resend(work, delivery, &chain_of(&failure)),
            },
            // A dependency that does not answer is an outage like any other.
            Err(Unfinished::Halted(halt @ Halt::TimeOver)) => self.retry_or_resend(work, delivery, &halt.to_string()),
            // Code that panics is retried by receive only: the net for crash loops is the queue's own.
            Err(Unfinished::Halted(halt @ Halt::Panic(_))) => {
                error!(class = "halted", reason = %halt, "the stage did not finish; the delivery comes again");
                metrics::retried();
                work.step.fail(&halt.to_string());
                Err(self.backoff(delivery.receives))
            }
        }
    }

    fn retry_or_resend(&self, work: &Work<S::Input>, delivery: &Delivery, why: &str) -> Result<Followed, Duration> {
        let envelope = &work.received.envelope;
        work.step.fail(why);
        if delivery.receives < self.policy.receives_max {
            metrics::retried();
            let after = self.backoff(delivery.receives);
            warn!(class = "transient", reason = why, after_ms = after.as_millis() as u64, "tried again later");
            return Err(after);
        }
        if envelope.attempt >= self.policy.resends_max {
            let refusal = Refusal::new(codes::GAVE_UP, format!("gave up after {} tries: {why}", envelope.attempt));
            error!(code = %refusal.code, reason = why, "gave up");
            return Ok(self.refuse(work, delivery, Refused { member: None, refusal }));
        }
        let delay = self.delay(envelope.attempt);
        // Time spent in an outage does not count against what the event waits for.
        let deadline = envelope.deadline.map(|deadline| later(deadline, delay));
        metrics::retried();
        warn!(class = "transient", reason = why, delay_s = delay.as_secs(), "re-sent with a delay");
        Ok(Followed { posts: vec![resend(work, deadline, delay)], counts: Vec::new() })
    }

    fn wait(&self, work: &Work<S::Input>, delivery: &Delivery, wait: Wait) -> Followed {
        let envelope = &work.received.envelope;
        let now = (self.now)();
        let deadline = envelope.deadline.unwrap_or_else(|| later(now, self.policy.wait_max));
        if now >= deadline {
            return self.refuse(work, delivery, Refused { member: None, refusal: wait.refusal });
        }
        work.step.tell("landfall.outcome", "waits");
        let delay = self.delay(envelope.attempt);
        info!(waits_for = ?wait.waits_for, delay_s = delay.as_secs(), until = %deadline, "waits");
        let waiting = Waiting {
            cause: envelope.event.cause().clone(),
            stage: S::NAME.to_owned(),
            waits_for: wait.waits_for,
            until: deadline,
            collection: wait.refusal.collection,
            item: wait.refusal.item,
        };
        let report = envelope.followed_by(Report::from(waiting));
        let posts = vec![self.post_on(work, Outlet::Notify, &report), resend(work, Some(deadline), delay)];
        Followed { posts, counts: vec![Count { delivery: work.delivery, what: What::Waits }] }
    }

    /// Writes a dead letter and tells notify.
    fn refuse(&self, work: &Work<S::Input>, delivery: &Delivery, refused: Refused<S::Input>) -> Followed {
        let whole = &work.received.envelope;
        let (envelope, body) = match &refused.member {
            Some(member) => (member, member.to_json()),
            // A re-sent event starts afresh when it is redriven.
            None if whole.attempt > 0 => (whole, afresh(whole).to_json()),
            None => (whole, work.received.body.clone()),
        };
        info!(code = %refused.refusal.code, reason = refused.refusal.reason, "refused");
        let what = What::Refused(refused.refusal.code.clone());
        work.step.tell("landfall.outcome", "refused");
        work.step.tell("landfall.code", refused.refusal.code.to_string());
        let facts = Facts {
            stage: S::NAME,
            tries: whole.attempt + delivery.receives,
            now: (self.now)(),
            trace: Some(work.step.traceparent()),
        };
        let (letter, report) = facts.of_refusal(envelope, refused.refusal);
        let mut posts = vec![self.letter(work.delivery, body, &letter)];
        posts.extend(report.map(|report| self.post_on(work, Outlet::Notify, &report)));
        Followed { posts, counts: vec![Count { delivery: work.delivery, what }] }
    }

    /// A message for a stage that follows: this one is passed.
    fn post_on<E: Event>(&self, work: &Work<S::Input>, outlet: Outlet, envelope: &Envelope<E>) -> Post {
        let mut post = post(work, outlet, envelope);
        let own = Passed { stage: S::NAME.to_owned(), at: (self.now)() };
        let passed: Vec<_> = envelope.passed.iter().cloned().chain([own]).collect();
        post.message.attributes.insert(PASSED.to_owned(), Passed::write(&passed));
        post
    }

    fn unreadable(&self, index: usize, delivery: &Delivery, unread: &Unread, redrive: u32) -> Followed {
        let reason = chain_of(&unread.why);
        let code = match &unread.why {
            Unreadable::Json { .. } | Unreadable::Kind { .. } => codes::DELIVERY_UNREADABLE,
            Unreadable::Notification { why } if why.contains("version") => codes::DELIVERY_VERSION,
            Unreadable::Notification { .. } => codes::DELIVERY_UNREADABLE,
        };
        error!(stage = S::NAME, delivery.id = delivery.id, %code, reason, "an unreadable message");
        let (tries, now) = (delivery.receives, (self.now)());
        let step = Step::begin(S::NAME, &delivery.attributes);
        step.tell("landfall.outcome", "refused");
        step.tell("landfall.code", code.to_string());
        drop(metrics::received(1, None));
        let counts = vec![Count { delivery: index, what: What::Refused(code.clone()) }];
        let facts = Facts { stage: S::NAME, tries, now, trace: Some(step.traceparent()) };
        let (letter, report) = facts.of_unreadable(&unread.body, Refusal::new(code, reason), redrive);
        let message = Outgoing {
            body: report.to_json(),
            attributes: [(TRACEPARENT.to_owned(), step.traceparent())].into(),
            group: group("", S::NAME),
            delay: Duration::ZERO,
        };
        let letter = self.letter(index, unread.body.clone(), &letter);
        Followed { posts: vec![Post { delivery: index, outlet: Outlet::Notify, message }, letter], counts }
    }

    fn letter(&self, delivery: usize, body: String, letter: &Letter) -> Post {
        Post { delivery, outlet: Outlet::Dead, message: outgoing(body, letter, S::NAME) }
    }

    /// Sends what follows. What a queue does not take now makes its delivery come again; gives the deliveries of which
    /// none will take something, and which are dead letters now.
    async fn post(&self, mut posts: Vec<Post>, deliveries: &[Delivery], verdicts: &mut [Verdict]) -> BTreeSet<usize> {
        let mut unsendable = BTreeSet::new();
        posts.sort_by_key(|post| post.outlet);
        for outlet in [Outlet::Next, Outlet::Own, Outlet::Dead, Outlet::Notify] {
            // A delivery that comes again says everything again.
            let stands = |post: &&Post| post.outlet == outlet && verdicts[post.delivery] == Verdict::Ack;
            let mine: Vec<_> = posts.iter().filter(stands).collect();
            if mine.is_empty() {
                continue;
            }
            let queue = match outlet {
                Outlet::Next => self.outlets.next.as_ref().expect("the last stage's output has no values"),
                Outlet::Notify => &self.outlets.notify,
                Outlet::Own => &self.outlets.own,
                Outlet::Dead => &self.outlets.dead,
            };
            let sent = queue.send(mine.iter().map(|post| post.message.clone()).collect()).await;
            for (post, result) in mine.iter().zip(sent) {
                let Err(failure) = result else { continue };
                let delivery = &deliveries[post.delivery];
                warn!(stage = S::NAME, delivery.id = delivery.id, ?outlet, reason = %failure, "could not be sent on");
                let kept = matches!(failure, QueueError::Refused(_))
                    && outlet != Outlet::Dead
                    && self.dead_letter_unsendable(delivery, &failure).await;
                if kept {
                    unsendable.insert(post.delivery);
                } else {
                    retry(&mut verdicts[post.delivery], self.backoff(delivery.receives));
                }
            }
        }
        unsendable
    }

    /// Keeps a delivery whose consequence no queue takes, whole, as a dead letter; says whether that worked.
    async fn dead_letter_unsendable(&self, delivery: &Delivery, failure: &QueueError) -> bool {
        // What it is about is said in a few words, so that it is announced and does not stay in flight.
        let facts = Facts {
            stage: S::NAME,
            tries: delivery.receives,
            now: (self.now)(),
            trace: delivery.attributes.get(TRACEPARENT).cloned(),
        };
        let refusal = Refusal::new(codes::DELIVERY_UNSENDABLE, failure.to_string());
        let read = S::Input::read(&delivery.body, &*self.provider_of).into_iter().flatten();
        let (letters, reports): (Vec<_>, Vec<_>) =
            read.map(|received| facts.of_refusal(&received.envelope, refusal.clone())).unzip();
        // It is one letter, whole; the first of what it is about stands for all.
        let letter = letters.into_iter().next().unwrap_or_else(|| facts.of_unreadable(&delivery.body, refusal, 0).0);
        let reports = reports.into_iter().flatten().map(|report| message(&report, S::NAME));
        let told = self.outlets.notify.send(reports.collect()).await.into_iter().all(|sent| sent.is_ok());
        let post = self.letter(0, delivery.body.clone(), &letter);
        told && matches!(self.outlets.dead.send(vec![post.message]).await.pop(), Some(Ok(())))
    }

    /// Full jitter: anything up to the doubling limit, so that what failed together does not come back together.
    /// <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>
    fn backoff(&self, tries: u32) -> Duration {
        let top = self.delay(tries.saturating_sub(1));
        rand::rng().random_range(Duration::ZERO..=top).max(Duration::from_millis(500).min(top))
    }

    fn delay(&self, attempt: u32) -> Duration {
        self.policy.delay_min.saturating_mul(1 << attempt.min(16)).min(self.policy.delay_max)
    }
}

/// Why a stage gave no outcome.
enum Unfinished<E> {
    Failed(E),
    Halted(Halt),
}

impl<E: Failure> Unfinished<E> {
    /// Whether the same may go well another time.
    fn may_pass(&self) -> bool {
        match self {
            Self::Failed(failure) => failure.class() == Class::Transient,
            Self::Halted(_) => true,
        }
    }
}

/// Says in a trace what its logs say.
fn tell<E: Event>(step: &Step, envelope: &Envelope<E>, delivery: &Delivery) {
    let object = &envelope.event.cause().object;
    step.tell("event.id", envelope.id.to_string());
    step.tell("event.kind", envelope.event.kind());
    step.tell("object.bucket", object.bucket.clone());
    step.tell("object.key", object.key.clone());
    step.tell("delivery.attempt", i64::from(delivery.receives));
    // <https://opentelemetry.io/docs/specs/semconv/messaging/sqs/>
    step.tell("messaging.system", "aws_sqs");
    step.tell("messaging.message.id", delivery.id.clone());
}

#[derive(Debug, Clone, thiserror::Error)]
enum Halt {
    #[error("the stage panicked: {0}")]
    Panic(String),
    #[error("the stage took longer than its batch may take")]
    TimeOver,
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

fn retry(verdict: &mut Verdict, after: Duration) {
    let after = match verdict {
        Verdict::Ack => after,
        Verdict::Retry { after: before } => after.min(*before),
    };
    *verdict = Verdict::Retry { after };
}

fn post<I: Event, E: Event>(work: &Work<I>, outlet: Outlet, envelope: &Envelope<E>) -> Post {
    let mut message = message(envelope, &envelope.event.cause().object.bucket);
    message.attributes.insert(TRACEPARENT.to_owned(), work.step.traceparent());
    if !envelope.passed.is_empty() {
        message.attributes.insert(PASSED.to_owned(), Passed::write(&envelope.passed));
    }
    Post { delivery: work.delivery, outlet, message }
}

fn resend<I: Event>(work: &Work<I>, deadline: Option<Timestamp>, delay: Duration) -> Post {
    let envelope = &work.received.envelope;
    let again = Envelope { attempt: envelope.attempt + 1, deadline, ..envelope.clone() };
    let mut post = post(work, Outlet::Own, &again);
    post.message.delay = delay.min(DELAY_MAX);
    post
}

/// An event as a message that begins a trace of its own, sent at once; `otherwise` is its group where nobody's it is.
#[must_use]
pub fn message<E: Event>(envelope: &Envelope<E>, otherwise: &str) -> Outgoing {
    Outgoing {
        body: envelope.to_json(),
        attributes: BTreeMap::new(),
        group: group(&envelope.provider, otherwise),
        delay: Duration::ZERO,
    }
}

/// The message group id for a provider's messages: up to 128 printable ASCII characters.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
pub fn group(provider: &str, otherwise: &str) -> String {
    let name = if provider.is_empty() { otherwise } else { provider };
    let safe: String = name.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(128).collect();
    if safe.is_empty() { "_".into() } else { safe }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let by = jiff::SignedDuration::try_from(by).unwrap_or(jiff::SignedDuration::MAX);
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

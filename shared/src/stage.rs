//! What a stage is: a function from a batch of events to one outcome for each.

use std::future::Future;

use jiff::Timestamp;
use landfall_events::{Envelope, Event, Refusal, Report};

/// One step of the pipeline. It names no queue, no Lambda, no environment variable and no wall clock.
pub trait Stage: Send + Sync + 'static {
    /// What it takes.
    type Input: Event;
    /// What the next stage takes.
    type Output: Event;
    /// Why it could not decide.
    type Error: Failure;

    /// The stage's verb, as it stands in logs, letters and resource names.
    const NAME: &'static str;

    /// Handles a batch and returns one result for each event, in the same order.
    fn handle(
        &self,
        batch: &[Envelope<Self::Input>],
        now: Timestamp,
    ) -> impl Future<Output = Vec<Result<Outcome<Self>, Self::Error>>> + Send;

    /// Asks the dependencies whether they would answer now; a poller receives nothing while they do not.
    fn ready(&self) -> impl Future<Output = Result<(), Self::Error>> + Send {
        async { Ok(()) }
    }

    /// Does what is due by time alone, and gives the events that follow for the stage itself. Most stages have nothing.
    fn tend(&self, _now: Timestamp) -> impl Future<Output = Result<Vec<Envelope<Self::Input>>, Self::Error>> + Send {
        async { Ok(Vec::new()) }
    }
}

/// What a stage decided about one event.
#[derive(Debug)]
pub enum Outcome<S: Stage + ?Sized> {
    /// It is settled, with what follows from it.
    Done(Done<S::Input, S::Output>),
    /// What it needs has not landed yet.
    Wait(Wait),
}

/// What follows from a settled event; nothing at all is possible too.
#[derive(Debug)]
pub struct Done<I, O> {
    /// For the next stage.
    pub next: Vec<Envelope<O>>,
    /// For this stage again: the next step of a work that is cut into batches, or an event that it woke.
    pub again: Vec<Envelope<I>>,
    /// For notify.
    pub reports: Vec<Envelope<Report>>,
    /// What is refused, in whole or by member.
    pub refused: Vec<Refused<I>>,
}

impl<I, O> Default for Done<I, O> {
    fn default() -> Self {
        Self { next: Vec::new(), again: Vec::new(), reports: Vec::new(), refused: Vec::new() }
    }
}

/// A refusal of an event or of one member of it.
#[derive(Debug)]
pub struct Refused<I> {
    /// The member that is refused, as an event of its own; `None` for the event itself.
    pub member: Option<Envelope<I>>,
    /// Why.
    pub refusal: Refusal,
}

/// What an event waits for, and what becomes of it when that does not come.
#[derive(Debug)]
pub struct Wait {
    /// What is missing, in words.
    pub waits_for: Vec<String>,
    /// The refusal at the deadline.
    pub refusal: Refusal,
}

impl<S: Stage + ?Sized> Outcome<S> {
    /// Settled, and the next stage goes on with it.
    pub fn next(envelope: Envelope<S::Output>) -> Self {
        Self::Done(Done { next: vec![envelope], ..Done::default() })
    }

    /// Settled, and notify is told.
    pub fn report(report: Envelope<Report>) -> Self {
        Self::Done(Done { reports: vec![report], ..Done::default() })
    }

    /// Settled by refusing the whole event.
    pub fn refused(refusal: Refusal) -> Self {
        Self::Done(Done { refused: vec![Refused { member: None, refusal }], ..Done::default() })
    }

    /// Settled, and nothing follows.
    #[must_use]
    pub fn nothing() -> Self {
        Self::Done(Done::default())
    }
}

/// Whether trying again may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It may pass: a dependency is down, busy or has lost a race.
    Transient,
    /// The same input will meet the same failure.
    Permanent,
}

/// Why a stage could not decide, classified where it is defined.
pub trait Failure: std::error::Error + Send + Sync + 'static {
    /// Whether trying again may help.
    fn class(&self) -> Class;
    /// How a permanent failure is told to the provider.
    fn refusal(&self) -> Refusal;
}

/// How long a stage's dependencies have to say that they answer.
pub const READY_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(3);

/// Whether the stage's dependencies answer, and in time.
pub async fn answers<S: Stage>(stage: &S) -> bool {
    matches!(tokio::time::timeout(READY_TIME_MAX, stage.ready()).await, Ok(Ok(())))
}

/// Writes an error with everything that it was caused by.
#[must_use]
pub fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

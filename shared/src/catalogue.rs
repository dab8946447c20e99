//! The port to the catalogue: pgSTAC and the ledger beside it, changed in one transaction.
//!
//! The ledger holds one row for each (item, source key), and for each landed object that is no item;
//! reduced by S3's order, removals included. What a change means is decided by [`plan`], which is the same
//! for PostgreSQL and for the stand-in in memory; those two only fetch what it looks at and write what it says.

mod plan;
mod postgres;

pub(crate) use plan::record;
pub use plan::{Collections, View, plan};
pub use postgres::{
    Access, AssetHref, Count, Due, Extents, Health, KEEP, LedgerRow, Maintained, Password, PostgresCatalogue, Reaction,
    RowFilter, Told,
};

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use landfall_events::codes::{self, Code};
use landfall_events::report::Effect;
use landfall_events::routed::CollectionReleased;
use landfall_events::status::Outcome;
use landfall_events::{
    Cause, Change, Envelope, Event, EventId, ObjectRef, Passed, Place, Problem, Refusal, Report, Routed, Status,
};
use serde::{Deserialize, Serialize};

use crate::pgstac::Item;
use crate::stage::Class;

/// What one ledger row is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// An item.
    Item {
        /// Its collection.
        collection: String,
        /// Its id.
        item: String,
    },
    /// A collection.
    Collection {
        /// Its id.
        collection: String,
    },
    /// A landed object, or a member of one, that is neither: data, or a document whose ids are not known.
    Object {
        /// The member.
        member: Option<u32>,
    },
}

impl Subject {
    /// The subject of an item where its ids are known, else of the object or member that landed.
    #[must_use]
    pub fn known(collection: Option<&str>, item: Option<&str>, cause: &Cause) -> Self {
        match (collection, item) {
            (Some(collection), Some(item)) => Self::Item { collection: collection.into(), item: item.into() },
            _ => Self::Object { member: cause.member },
        }
    }

    /// The collection, where there is one.
    #[must_use]
    pub fn collection(&self) -> Option<&str> {
        match self {
            Self::Item { collection, .. } | Self::Collection { collection } => Some(collection),
            Self::Object { .. } => None,
        }
    }

    /// The item's id, where it is one.
    #[must_use]
    pub fn item(&self) -> Option<&str> {
        match self {
            Self::Item { item, .. } => Some(item),
            Self::Collection { .. } | Self::Object { .. } => None,
        }
    }
}

/// The text that identifies it among the rows of one key.
impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The length keeps ("a/b", "c") and ("a", "b/c") apart.
            Self::Item { collection, item } => write!(f, "item:{}:{collection}/{item}", collection.len()),
            Self::Collection { collection } => write!(f, "collection:{collection}"),
            Self::Object { member: None } => f.write_str("object"),
            Self::Object { member: Some(member) } => write!(f, "member:{member}"),
        }
    }
}

/// The rule of what an operator has decided to leave as it is.
pub const DROPPED: &str = "dropped";

/// Where a landed document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, PartialOrd, Ord, Hash)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its assets have not landed yet.
    Waiting,
    /// Its collection has not landed yet.
    Parked,
    /// The catalogue shall hold it again, because what has taken its place is gone; it is about to be loaded.
    Ready,
    /// The catalogue holds it.
    Loaded,
    /// It is plain data at its destination.
    Routed,
    /// It was removed from landing; an item is gone from the catalogue too.
    Removed,
    /// It was refused.
    Refused,
    /// It needs nothing done, by a named rule.
    Ignored,
    /// A newer change took its place before it was loaded.
    Superseded,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 9] = [
        Self::Waiting,
        Self::Parked,
        Self::Ready,
        Self::Loaded,
        Self::Routed,
        Self::Removed,
        Self::Refused,
        Self::Ignored,
        Self::Superseded,
    ];

    /// The word in the database and in output.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Parked => "parked",
            Self::Ready => "ready",
            Self::Loaded => "loaded",
            Self::Routed => "routed",
            Self::Removed => "removed",
            Self::Refused => "refused",
            Self::Ignored => "ignored",
            Self::Superseded => "superseded",
        }
    }

    /// What is told of a document in this state: whether it is announced, whether what it waits for is there, why
    /// it was given up.
    #[must_use]
    pub fn outcome(self, announced: bool, goes_on: bool, code: Option<&str>) -> Outcome {
        match self {
            Self::Superseded => Outcome::Superseded,
            Self::Parked if goes_on => Outcome::InFlight,
            Self::Waiting | Self::Parked => Outcome::Waiting,
            Self::Loaded | Self::Routed if announced => Outcome::Completed,
            Self::Loaded | Self::Routed if code == Some(DROPPED) => Outcome::Ignored,
            Self::Loaded | Self::Routed if code.is_some() => Outcome::Refused,
            Self::Refused if announced => Outcome::Refused,
            Self::Ready | Self::Loaded | Self::Routed | Self::Refused => Outcome::InFlight,
            Self::Removed => Outcome::Removed,
            Self::Ignored => Outcome::Ignored,
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// One ledger row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The landed object or member, and the newest change of it that counts for this subject.
    pub cause: Cause,
    /// What it is about.
    pub subject: Subject,
    /// Whose it is.
    pub provider: String,
    /// The redrive generation.
    pub redrive: u32,
    /// Where it is.
    pub state: State,
    /// What the load did.
    pub effect: Option<Effect>,
    /// The event that notify announces for it.
    pub event: EventId,
    /// When that was announced first.
    pub announced: Option<Timestamp>,
    /// The stage that it was refused in or waits in.
    pub stage: Option<String>,
    /// The code of a refusal, or the rule by which it was ignored.
    pub code: Option<String>,
    /// The reason of a refusal.
    pub reason: Option<String>,
    /// The problems of a refusal; of what is loaded, what was warned about or mended.
    pub problems: Vec<Problem>,
    /// What it waits for.
    pub waits_for: Vec<String>,
    /// Until when it waits.
    pub until: Option<Timestamp>,
    /// Where a plain object is now, or an item's document.
    pub destination: Option<String>,
    /// The event that goes on when the collection is there.
    pub parked: Option<String>,
    /// The release that claimed it.
    pub released_by: Option<EventId>,
    /// When we were about to remove the landed object, because it is completed.
    pub cleared: Option<Timestamp>,
    /// The stages that it had passed.
    pub passed: Vec<Passed>,
}

impl Row {
    /// A row of which nothing is known but its cause and state.
    #[must_use]
    pub fn new<E: Event>(envelope: &Envelope<E>, subject: Subject, state: State, event: EventId) -> Self {
        Self {
            cause: envelope.event.cause().clone(),
            subject,
            provider: envelope.provider.clone(),
            redrive: envelope.redrive,
            state,
            effect: None,
            event,
            announced: None,
            stage: None,
            code: None,
            reason: None,
            problems: Vec::new(),
            waits_for: Vec::new(),
            until: None,
            destination: None,
            parked: None,
            released_by: None,
            cleared: None,
            passed: envelope.passed.clone(),
        }
    }
}

impl Row {
    /// Whether it is of an item that an overwritten file provided before: the item is gone, the file is not.
    #[must_use]
    pub fn is_left(&self) -> bool {
        self.state == State::Removed && self.cause.change == Change::Created
    }

    /// What has become of it, where nothing newer has landed under its key; `goes_on` where it is parked and what it
    /// waits for is there.
    #[must_use]
    pub fn outcome(&self, goes_on: bool) -> Outcome {
        self.state.outcome(self.announced.is_some(), goes_on, self.code.as_deref())
    }

    /// What is told of it: `outcome`, and that it was last touched at `since`.
    #[must_use]
    pub fn status(&self, outcome: Outcome, since: Timestamp) -> Status {
        // What was given up once and is completed now is not wrong any more.
        let is_wrong = outcome != Outcome::Completed;
        let status = Status {
            redrive: self.redrive,
            collection: self.subject.collection().map(str::to_owned),
            item: self.subject.item().map(str::to_owned),
            effect: self.effect,
            stage: self.stage.clone().filter(|_| is_wrong),
            code: self.code.clone().filter(|_| is_wrong),
            reason: self.reason.clone().filter(|_| is_wrong),
            problems: self.problems.clone(),
            waits_for: self.waits_for.clone(),
            until: self.until,
            destination: self.destination.clone(),
            event: Some(self.event.0.clone()),
            passed: self.passed.clone(),
            since,
            ..Status::new(self.cause.clone(), &*self.provider, outcome)
        };
        status.with_hint()
    }
}

/// What a change brings.
#[derive(Debug, Clone)]
pub enum Content {
    /// An item, read.
    Item(Arc<Item>),
    /// A collection's document, as JSON text.
    Collection(Arc<str>),
    /// A removal brings nothing.
    Nothing,
}

/// One document's change, as load brings it.
#[derive(Debug, Clone)]
pub struct Load {
    /// The event.
    pub envelope: Envelope<Routed>,
    /// The document to load.
    pub content: Content,
    /// The release that claimed it, where it had been parked.
    pub released_by: Option<EventId>,
}

/// The two parts of what is applied together, as places in it: collections first, so that what came with its
/// collection need not wait for it. A part may be empty.
#[must_use]
pub fn parts(loads: &[&Load]) -> [Vec<usize>; 2] {
    let is_collection = |index: &usize| matches!(loads[*index].envelope.event, Routed::Collection(_));
    let (collections, others) = (0..loads.len()).partition(is_collection);
    [collections, others]
}

/// Results in the order of their places.
#[must_use]
pub fn in_order<T>(mut placed: Vec<(usize, T)>) -> Vec<T> {
    placed.sort_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, result)| result).collect()
}

/// What applying a change did, or had done when it was applied before, and what followed for other items.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// What became of the change.
    pub applied: Applied,
    /// The items that are gone from the catalogue with it.
    pub gone: Vec<Gone>,
    /// The documents that must be loaded again, because what had taken their place is gone.
    pub back: Vec<Back>,
}

impl Settled {
    fn of(applied: Applied) -> Self {
        Self { applied, gone: Vec::new(), back: Vec::new() }
    }
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// The catalogue holds the document. Of a collection: whether items are ready to be released.
    Loaded {
        /// What the load did.
        effect: Effect,
        /// Whether items wait to be released.
        release: bool,
    },
    /// A newer change is there already.
    Superseded,
    /// The item's collection is not there yet.
    Parked {
        /// Until when it waits.
        until: Timestamp,
        /// For which collection.
        collection: String,
    },
    /// The collection belongs to somebody else.
    Owned {
        /// To whom.
        by: String,
    },
    /// The object provides no items any more.
    Removed,
    /// Another member of the same file has the same id.
    Repeated {
        /// Which.
        member: Option<u32>,
    },
    /// It needs nothing done, by this rule.
    Ignored(&'static str),
    /// The object was removed by ourselves, because it is completed: all stays as it is.
    Cleared,
}

/// An item that went with its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gone {
    /// Its collection.
    pub collection: String,
    /// Its id.
    pub item: String,
    /// The member of the object that it had been.
    pub member: Option<u32>,
}

impl Gone {
    /// The id of the report that it went with `cause`.
    #[must_use]
    pub fn event(&self, cause: &Cause, redrive: u32) -> EventId {
        plan::deletion_id(cause, &self.collection, &self.item, redrive)
    }
}

/// A document that the catalogue shall hold again.
#[derive(Debug, Clone, PartialEq)]
pub struct Back {
    /// What landed.
    pub cause: Cause,
    /// Its collection.
    pub collection: String,
    /// Its id.
    pub item: String,
    /// Whose it is.
    pub provider: String,
    /// The generation in which it was handled before.
    pub redrive: u32,
    /// Where its document is.
    pub destination: ObjectRef,
    /// What was warned about or mended.
    pub warnings: Vec<Problem>,
}

impl Back {
    fn of(row: &Row) -> Option<Self> {
        Some(Self {
            cause: row.cause.clone(),
            collection: row.subject.collection()?.to_owned(),
            item: row.subject.item()?.to_owned(),
            provider: row.provider.clone(),
            redrive: row.redrive,
            destination: ObjectRef::parse(row.destination.as_deref()?)?,
            warnings: row.problems.clone(),
        })
    }
}

/// A parked event that goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiter {
    /// The event.
    pub envelope: Envelope<Routed>,
    /// Why it is refused: its time is over, or a try of the same release has refused it.
    pub refusal: Option<Refusal>,
}

/// The release that lets what waits like this row go on, or ends its wait. Its id is not that of the release which
/// the collection's own event sends.
pub(crate) fn due_release(row: &Row, now: Timestamp) -> Option<Envelope<Routed>> {
    let collection = row.subject.collection()?.to_owned();
    let released = CollectionReleased { cause: row.cause.clone(), collection, batch: 0 };
    let envelope = Envelope::new(Routed::from(released), row.provider.clone(), row.redrive);
    let id = EventId::of(&row.cause, &format!("{} due {now}", envelope.event.kind()), row.redrive);
    Some(Envelope { id, ..envelope })
}

impl Waiter {
    /// What an earlier try of the release has settled.
    pub(crate) fn again(row: &Row) -> Option<Self> {
        // A refusal without a code is the plan's, which decides the same again.
        let code = row.code.as_deref().filter(|_| row.state == State::Refused);
        let refusal = code.map(|code| Refusal::new(Code::read(code), row.reason.clone().unwrap_or_default()));
        Some(Self { envelope: envelope_of(row)?, refusal })
    }

    /// What can be loaded now.
    pub(crate) fn ready(row: &Row) -> Option<Self> {
        Some(Self { envelope: envelope_of(row)?, refusal: None })
    }

    /// What has waited too long.
    pub(crate) fn expired(row: &Row) -> Option<Self> {
        let collection = row.subject.collection().unwrap_or_default();
        let reason = format!("the collection {collection:?} has not landed in time");
        Some(Self { envelope: envelope_of(row)?, refusal: Some(Refusal::new(codes::LOAD_COLLECTION_MISSING, reason)) })
    }
}

fn envelope_of(row: &Row) -> Option<Envelope<Routed>> {
    let passed = row.passed.clone();
    Some(Envelope { passed, ..Envelope::from_json(row.parked.as_deref()?).ok()? })
}

/// What the ledger has of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// Whether it is still the newest.
    pub standing: Standing,
    /// The row that says what has become of the report's change, whether by this report or by another.
    pub row: Option<Row>,
}

/// Whether a report still tells the newest that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It does: announce it.
    Current,
    /// It does, and was announced before.
    Announced,
    /// Something newer has happened: do not.
    Superseded,
}

/// What a notice says of the catalogue.
#[derive(Debug, Clone, PartialEq)]
pub enum Claim {
    /// This item is found.
    Item {
        /// Its collection.
        collection: String,
        /// Its id.
        item: String,
        /// Where and when, as far as that is known.
        place: Option<Place>,
    },
    /// This item is not found any more.
    NoItem {
        /// Its collection.
        collection: String,
        /// Its id.
        item: String,
    },
    /// This collection is there.
    Collection {
        /// Its id.
        collection: String,
    },
}

/// Why the catalogue did not do as asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CatalogueError {
    /// It cannot be reached, is starting, busy, or chose us as a deadlock's victim.
    #[error("the catalogue is not available: {0}")]
    Unavailable(String),
    /// It cannot take so much at once, and may take less.
    #[error("the catalogue cannot take the batch at once: {0}")]
    TooMuch(String),
    /// It refuses what is in a document.
    #[error("the catalogue refuses the document: {message} (SQLSTATE {sqlstate})")]
    Refused {
        /// What the refusal of a single document is called.
        code: Code,
        /// The five characters of the SQL standard.
        sqlstate: String,
        /// The server's words.
        message: String,
    },
    /// A collection is not there; only what did not land is told so, all else waits for it.
    #[error("there is no collection {0:?}")]
    Missing(String),
    /// It is not as we expect it: rights, schema, version. An operator can mend that, so nothing is refused for it.
    #[error("the catalogue is not usable: {0}")]
    Unusable(String),
}

impl CatalogueError {
    /// Whether trying again may help.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Unavailable(_) | Self::TooMuch(_) | Self::Unusable(_) => Class::Transient,
            Self::Refused { .. } | Self::Missing(_) => Class::Permanent,
        }
    }
}

/// pgSTAC with the ledger.
#[async_trait]
pub trait Catalogue: Send + Sync {
    /// Applies changes in the order given, collections before all others, and returns what each did. All or nothing
    /// of the others is applied, in one transaction.
    /// Items without a collection are parked until `park_until`.
    async fn apply(&self, loads: &[&Load], park_until: Timestamp) -> Result<Vec<Settled>, CatalogueError>;

    /// Finds up to `most` items that wait for a collection, for the release `id`: all of them where the collection is
    /// there; where it is not, those whose time is over `now`, with the refusal.
    /// What this release has settled before and is not announced yet comes again, and nothing else then.
    async fn releasable(
        &self,
        id: &EventId,
        collection: &str,
        most: usize,
        now: Timestamp,
    ) -> Result<Vec<Waiter>, CatalogueError>;

    /// Records refusals, waits and routed data, and says of every report whether it is still the newest.
    /// With `released_by` they are refusals that this release has found: until they are announced, a repetition of
    /// the release finds them again.
    async fn record(
        &self,
        reports: &[Envelope<Report>],
        released_by: Option<&EventId>,
    ) -> Result<Vec<Recorded>, CatalogueError>;

    /// Says of each claim whether the catalogue answers its users so.
    async fn prove(&self, claims: &[Claim]) -> Result<Vec<bool>, CatalogueError>;

    /// Records that these events were announced.
    async fn announced(&self, events: &[EventId]) -> Result<(), CatalogueError>;

    /// Records that the landed objects of these events are about to be removed by ourselves, and says of which: those
    /// that are loaded or routed, and announced.
    async fn clearing(&self, events: &[EventId]) -> Result<Vec<EventId>, CatalogueError>;

    /// Records that the landed object of an event was not removed after all.
    async fn not_cleared(&self, event: &EventId) -> Result<(), CatalogueError>;

    /// Does what is due by time alone, unless another process is at it, and gives the releases that follow for load.
    async fn tend(&self, now: Timestamp) -> Result<Vec<Envelope<Routed>>, CatalogueError>;

    /// Asks whether it answers.
    async fn ready(&self) -> Result<(), CatalogueError>;
}

//! What a change means for the ledger and the catalogue: decided on what is there, without touching it.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use landfall_events::report::{Effect, OUTDONE, REMOVED};
use landfall_events::routed::{CollectionRouted, ItemRouted, ObjectRemoved};
use landfall_events::{Cause, Envelope, EventId, ObjectRef, Position, Report, Routed};

use super::{Applied, Back, Content, Gone, Load, Recorded, Row, Settled, Standing, State, Subject};
use crate::pgstac::{Held, Item};

/// The collections that a plan may ask about: id → owner, `None` where nobody owns it yet.
pub type Collections = HashMap<String, Option<String>>;

/// The types of the reports that follow a load: with them a row knows the id of its announcement beforehand.
const ITEM_LOADED: &str = "landfall.item.loaded.v1";
const COLLECTION_LOADED: &str = "landfall.collection.loaded.v1";

/// What is known before, and what shall be written: filled by the catalogue for the keys, items and
/// collections that a batch names, changed by [`plan`] and [`record`].
#[derive(Debug, Default)]
pub struct View {
    /// Ledger rows by landed object and subject.
    pub rows: BTreeMap<(ObjectRef, Subject), Row>,
    /// The newest change known of each landed object, over all its rows.
    pub newest: HashMap<ObjectRef, Position>,
    /// The collections that exist, with their owners.
    pub collections: Collections,
    /// The items that exist, as (collection, id).
    pub items: BTreeSet<(String, String)>,

    /// Where pgSTAC holds them.
    pub(crate) held: Held,

    /// Rows to write.
    pub dirty: BTreeSet<(ObjectRef, Subject)>,
    /// Rows to delete.
    pub dropped: BTreeSet<(ObjectRef, Subject)>,
    /// Rows to keep as they are under another subject, before others are written.
    pub moved: Vec<(ObjectRef, Subject, Subject)>,
    /// Items to write or to delete.
    pub item_writes: BTreeMap<(String, String), Option<Arc<Item>>>,
    /// Collections to write.
    pub collection_writes: BTreeMap<String, Arc<str>>,
}

impl View {
    /// Whether something newer is known of this key than `cause`, or, where that was only found by listing, whether it
    /// has been told of by its own event.
    fn is_stale(&self, cause: &Cause) -> bool {
        let newest = self.newest.get(&cause.object);
        newest.is_some_and(|newest| newest.cmp_change(&cause.position(0)) == Ordering::Greater)
            || cause.sequencer.is_none() && self.of_key(&cause.object).any(|row| is_the_same(&row.cause, cause))
    }

    /// The rows of a landed object.
    fn of_key<'v>(&'v self, object: &ObjectRef) -> impl Iterator<Item = &'v Row> {
        let first = Subject::Item { collection: String::new(), item: String::new() };
        let from = self.rows.range((object.clone(), first)..);
        let object = object.clone();
        from.take_while(move |((other, _), _)| *other == object).map(|(_, row)| row)
    }

    /// Writes a row. What else is known of the same member of the same change is replaced by it, and so is what an
    /// older change of the key was before anybody knew what it is. What another member of the same change has come to
    /// under the same subject moves to a row of its own: each member of a file has one.
    fn write(&mut self, row: Row) {
        let object = row.cause.object.clone();
        let position = position(&row);
        let key = (object.clone(), row.subject.clone());
        let of_another = |known: &&Row| {
            known.cause.member != row.cause.member && self_order(known, &row.cause).is_eq() && !known.is_left()
        };
        let moved = self.rows.get(&key).filter(of_another).filter(|known| !self.is_replaced(known, &row)).cloned();
        if let Some(moved) = moved {
            let subject = Subject::Object { member: moved.cause.member };
            let own = (object.clone(), subject.clone());
            if self.dirty.contains(&key) {
                self.dropped.remove(&own);
                self.dirty.insert(own);
            } else {
                self.moved.push((object.clone(), key.1.clone(), subject.clone()));
            }
            self.rows.insert((object.clone(), subject.clone()), Row { subject, ..moved });
        }
        let of_key = self.rows.iter().filter(|((other, _), _)| *other == object);
        let replaced: Vec<_> = of_key
            .filter(|(other, known)| **other != key && self.is_replaced(known, &row))
            .map(|(other, _)| other.clone())
            .collect();
        for other in replaced {
            self.rows.remove(&other);
            self.dirty.remove(&other);
            self.moved.retain(|(object, _, to)| (object, to) != (&other.0, &other.1));
            self.dropped.insert(other);
        }
        let newest = self.newest.entry(object).or_insert_with(|| position.clone());
        if newest.cmp_in_key(&position) == Ordering::Less {
            *newest = position;
        }
        self.dropped.remove(&key);
        self.dirty.insert(key.clone());
        self.rows.insert(key, row);
    }

    /// Whether a row of another subject goes when `row` is written.
    fn is_replaced(&self, known: &Row, row: &Row) -> bool {
        let same_member = known.cause.member == row.cause.member;
        let of_file = matches!(known.subject, Subject::Object { .. }) && known.cause.member.is_none();
        // What the catalogue holds is forgotten only for what the catalogue does.
        let held = known.state == State::Loaded && !matches!(row.state, State::Loaded | State::Removed);
        match position(known).cmp_change(&position(row)) {
            // What went because of this change is said beside it.
            Ordering::Equal => same_member && !held && row.state != State::Removed && known.state != State::Removed,
            Ordering::Less => !held && (of_file || same_member && known.subject.collection().is_none()),
            Ordering::Greater => false,
        }
    }

    fn row(&self, object: &ObjectRef, subject: &Subject) -> Option<&Row> {
        self.rows.get(&(object.clone(), subject.clone()))
    }

    /// The row of exactly this change and generation, or a later generation of it.
    fn settled(&self, cause: &Cause, subject: &Subject, redrive: u32) -> Option<&Row> {
        let row = self.row(&cause.object, subject)?;
        let order = position(row).cmp_change(&cause.position(redrive));
        (order == Ordering::Equal && row.redrive >= redrive).then_some(row)
    }

    /// The member of the same file that was the first to provide the item or collection, where this is another.
    fn of_another_member(&self, cause: &Cause, subject: &Subject) -> Option<Option<u32>> {
        let row = self.row(&cause.object, subject)?;
        let provides = matches!(row.state, State::Loaded | State::Ready | State::Parked | State::Superseded);
        let is_another = row.cause.member != cause.member && self_order(row, cause).is_eq();
        (provides && is_another).then_some(row.cause.member)
    }

    /// Whether the catalogue holds the item by a document of another key.
    fn is_held_by_another(&self, cause: &Cause, subject: &Subject) -> bool {
        let of_another =
            |((object, other), _): &(&(ObjectRef, Subject), &Row)| other == subject && *object != cause.object;
        self.rows.iter().filter(of_another).any(|(_, row)| row.state == State::Loaded)
    }

    /// The object of another key of the provider that says something newer about the item; between keys the
    /// event's time decides, and the key where even that is equal.
    fn outdone_by(&self, cause: &Cause, subject: &Subject, provider: &str) -> Option<ObjectRef> {
        let rivals = self.rows.iter().filter(|((object, other), _)| other == subject && *object != cause.object);
        let mut newer = rivals.filter(|((object, _), row)| {
            // What is only parked may yet be refused: it comes after, when it is loaded.
            let counts = matches!(row.state, State::Loaded | State::Ready) && row.provider == provider;
            counts && (row.cause.event_time, object) > (cause.event_time, &cause.object)
        });
        newer.next().map(|((object, _), _)| object.clone())
    }
}

/// Decides about changes one after the other, each on the ground of those before it.
pub fn plan(view: &mut View, loads: &[&Load], park_until: Timestamp) -> Vec<Settled> {
    loads.iter().map(|load| one(view, load, park_until)).collect()
}

fn one(view: &mut View, load: &Load, park_until: Timestamp) -> Settled {
    let mut settled = Settled::of(Applied::Superseded);
    settled.applied = match &load.envelope.event {
        Routed::Item(routed) => item(view, load, routed, park_until, &mut settled),
        Routed::Collection(routed) => collection(view, load, routed, &mut settled),
        Routed::Removed(removed) => removal(view, &load.envelope, removed, &mut settled),
        Routed::Released(_) => Applied::Ignored("released-apart"),
    };
    settled
}

fn item(view: &mut View, load: &Load, routed: &ItemRouted, park_until: Timestamp, settled: &mut Settled) -> Applied {
    let envelope = &load.envelope;
    let (cause, redrive) = (&routed.cause, envelope.redrive);
    let subject = Subject::Item { collection: routed.collection.clone(), item: routed.item.clone() };
    let owner = view.collections.get(&routed.collection).cloned();
    let owned_by = owner.clone().flatten().filter(|owner| *owner != envelope.provider);
    if owned_by.is_none() && !view.is_stale(cause) {
        view.leave_former(envelope, cause, &subject, settled);
    }
    if let Some(first) = view.of_another_member(cause, &subject).filter(|_| !view.is_stale(cause)) {
        return Applied::Repeated { member: first };
    }
    if let Some(known) = view.settled(cause, &subject, redrive) {
        match known {
            // Its announcement is that of the later generation.
            Row { state: State::Loaded | State::Ready, redrive: later, .. } if *later > redrive => {
                return Applied::Superseded;
            }
            Row { state: State::Loaded | State::Ready, effect: Some(effect), .. } => {
                return Applied::Loaded { effect: *effect, release: false };
            }
            // An event of the next generation brings it back.
            Row { state: State::Ready, .. } => return Applied::Superseded,
            _ => {}
        }
    }
    if view.is_stale(cause) {
        settle_parked(view, load, &subject, State::Superseded);
        return Applied::Superseded;
    }
    if let Some(by) = owned_by {
        settle_parked(view, load, &subject, State::Refused);
        return Applied::Owned { by };
    }
    if let Some(rival) = view.outdone_by(cause, &subject, &envelope.provider) {
        return outdone(view, load, subject, &rival, ITEM_LOADED, &routed.stored.object);
    }
    if owner.is_none() {
        return park(view, envelope, routed, subject, park_until);
    }
    let Content::Item(document) = &load.content else { return Applied::Ignored("no-document") };
    let key = (routed.collection.clone(), routed.item.clone());
    let effect = if view.items.insert(key.clone()) { Effect::Created } else { Effect::Replaced };
    view.item_writes.insert(key, Some(document.clone()));
    let mut row = Row::new(envelope, subject, State::Loaded, EventId::of(cause, ITEM_LOADED, redrive));
    row.effect = Some(effect);
    row.destination = Some(routed.stored.object.to_string());
    row.problems.clone_from(&routed.warnings);
    // What a release claimed is kept until it is announced, so that a repetition can go on with it.
    row.released_by.clone_from(&load.released_by);
    row.parked = load.released_by.is_some().then(|| envelope.to_json());
    view.write(row);
    Applied::Loaded { effect, release: false }
}

fn park(
    view: &mut View,
    envelope: &Envelope<Routed>,
    routed: &ItemRouted,
    subject: Subject,
    park_until: Timestamp,
) -> Applied {
    let collection = routed.collection.clone();
    let settled = view.settled(&routed.cause, &subject, envelope.redrive);
    if let Some(Row { state: State::Parked, until: Some(until), .. }) = settled {
        return Applied::Parked { until: *until, collection };
    }
    let event = EventId::of(&routed.cause, ITEM_LOADED, envelope.redrive);
    let mut row = Row::new(envelope, subject, State::Parked, event);
    row.stage = Some("load".into());
    row.waits_for = vec![format!("collection {collection}")];
    row.until = Some(park_until);
    row.parked = Some(envelope.to_json());
    view.write(row);
    Applied::Parked { until: park_until, collection }
}

/// Writes down that another key's newer document stands in the way, and where this one is, should that key go.
fn outdone(
    view: &mut View,
    load: &Load,
    subject: Subject,
    rival: &ObjectRef,
    kind: &str,
    stored: &ObjectRef,
) -> Applied {
    let cause = landfall_events::Event::cause(&load.envelope.event);
    let event = EventId::of(cause, kind, load.envelope.redrive);
    // What a release has found is kept until notify has heard of it, so that a repetition finds it again.
    let kept = view.row(&cause.object, &subject).filter(|row| self_order(row, cause) == Ordering::Equal);
    let kept = kept.filter(|_| load.released_by.is_some()).and_then(|row| row.parked.clone());
    let mut row = Row::new(&load.envelope, subject, State::Superseded, event);
    row.released_by = load.released_by.clone().filter(|_| kept.is_some());
    row.parked = kept;
    row.code = Some("superseded".into());
    row.reason = Some(format!("{rival} landed later"));
    row.destination = Some(stored.to_string());
    view.write(row);
    Applied::Superseded
}

/// What was parked and will not be loaded must not stay claimable. A refusal that a release has found is kept with
/// it until it is announced, so that a repetition of the release finds it again.
fn settle_parked(view: &mut View, load: &Load, subject: &Subject, state: State) {
    let cause = landfall_events::Event::cause(&load.envelope.event);
    let parked = view
        .row(&cause.object, subject)
        .filter(|row| row.state == State::Parked && self_order(row, cause) == Ordering::Equal);
    if let Some(parked) = parked {
        let kept = parked.parked.clone().filter(|_| state == State::Refused && load.released_by.is_some());
        let released_by = load.released_by.clone();
        let row = Row { state, parked: kept, released_by, waits_for: Vec::new(), until: None, ..parked.clone() };
        view.write(row);
    }
}

fn collection(view: &mut View, load: &Load, routed: &CollectionRouted, settled: &mut Settled) -> Applied {
    let envelope = &load.envelope;
    let (cause, redrive) = (&routed.cause, envelope.redrive);
    let subject = Subject::Collection { collection: routed.collection.clone() };
    let known = view.collections.get(&routed.collection).cloned();
    let owned_by = known.clone().flatten().filter(|owner| *owner != envelope.provider);
    if owned_by.is_none() && !view.is_stale(cause) {
        view.leave_former(envelope, cause, &subject, settled);
    }
    if let Some(first) = view.of_another_member(cause, &subject).filter(|_| !view.is_stale(cause)) {
        return Applied::Repeated { member: first };
    }
    if let Some(Row { state: State::Loaded, effect: Some(effect), .. }) = view.settled(cause, &subject, redrive) {
        return Applied::Loaded { effect: *effect, release: true };
    }
    if view.is_stale(cause) {
        return Applied::Superseded;
    }
    if let Some(by) = owned_by {
        return Applied::Owned { by };
    }
    if let Some(rival) = view.outdone_by(cause, &subject, &envelope.provider) {
        return outdone(view, load, subject, &rival, COLLECTION_LOADED, &routed.stored.object);
    }
    let Content::Collection(document) = &load.content else { return Applied::Ignored("no-document") };
    let effect = if known.is_some() { Effect::Replaced } else { Effect::Created };
    view.collections.insert(routed.collection.clone(), Some(envelope.provider.clone()));
    view.collection_writes.insert(routed.collection.clone(), document.clone());
    let event = EventId::of(cause, COLLECTION_LOADED, redrive);
    let mut row = Row::new(envelope, subject, State::Loaded, event);
    row.effect = Some(effect);
    row.destination = Some(routed.stored.object.to_string());
    row.problems.clone_from(&routed.warnings);
    view.write(row);
    Applied::Loaded { effect, release: true }
}

/// The object is gone from landing: what it alone provided goes from the catalogue.
fn removal(view: &mut View, envelope: &Envelope<Routed>, removed: &ObjectRemoved, settled: &mut Settled) -> Applied {
    let cause = &removed.cause;
    if view.is_stale(cause) {
        return Applied::Superseded;
    }
    let mine: Vec<Row> = view.rows.values().filter(|row| row.cause.object == cause.object).cloned().collect();
    // Ours follows on what was cleared; where something landed since, the removal is the provider's.
    let newest = mine.iter().max_by(|one, other| position(one).cmp_in_key(&position(other)));
    if newest.is_some_and(|row| row.cleared.is_some()) {
        return Applied::Cleared;
    }
    // What was cleared before is completed, and gone from landing by our own doing.
    for row in mine.iter().filter(|row| row.cleared.is_none()) {
        view.withdraw(envelope, cause, row, settled);
    }
    // Deleting a collection would take all its items along: that is an operator's decision.
    let kept_collection = mine.iter().any(|row| matches!(row.subject, Subject::Collection { .. }));
    // Where no item's row holds the removal against late older events, a row for the object itself does.
    let held =
        view.rows.values().any(|row| row.cause.object == cause.object && self_order(row, cause) == Ordering::Equal);
    if !held {
        let event = EventId::of(cause, "landfall.object.removed.v1", envelope.redrive);
        let mut row = Row::new(envelope, Subject::Object { member: None }, State::Removed, event);
        row.code = Some(if kept_collection { "collection-kept" } else { "removed" }.into());
        view.write(row);
    }
    if kept_collection { Applied::Ignored("collection-kept") } else { Applied::Removed }
}

impl View {
    /// Withdraws what a document's key has provided before, where it is something else now. A file of many members
    /// is left alone: nobody knows which of them will not come again.
    fn leave_former(&mut self, envelope: &Envelope<Routed>, cause: &Cause, subject: &Subject, settled: &mut Settled) {
        if cause.member.is_some() {
            return;
        }
        let former = self.rows.values().filter(|row| {
            let of_key = row.cause.object == cause.object && row.cause.member.is_none();
            of_key && row.subject != *subject && row.subject.item().is_some() && row.cleared.is_none()
        });
        for row in former.cloned().collect::<Vec<_>>() {
            self.withdraw(envelope, cause, &row, settled);
        }
    }

    /// A key does not provide an item any more. Where another key does, its newest document comes back; else the item
    /// goes.
    fn withdraw(&mut self, envelope: &Envelope<Routed>, cause: &Cause, row: &Row, settled: &mut Settled) {
        let Subject::Item { collection, item } = &row.subject else { return };
        let again = self_order(row, cause) == Ordering::Equal;
        let rival = self.rival_of(row);
        let gone = Gone { collection: collection.clone(), item: item.clone(), member: row.cause.member };
        let mut dead = Row::new(envelope, row.subject.clone(), State::Removed, row.event.clone());
        (dead.cause, dead.cause.member) = (cause.clone(), row.cause.member);
        match row.state {
            State::Loaded | State::Ready | State::Parked => {
                match rival {
                    // What counts is the newest: it was this one, unless it was still waiting.
                    Some(rival) if row.state == State::Parked && rival.state == State::Loaded => {}
                    Some(mut rival) if key_order(row) > key_order(&rival) => {
                        settled.back.extend(Back::of(&rival));
                        rival.state = State::Ready;
                        (rival.code, rival.reason) = (None, None);
                        self.write(rival);
                    }
                    Some(_) => {}
                    None if row.state == State::Parked => {}
                    None => {
                        let key = (collection.clone(), item.clone());
                        dead.event = deletion_id(cause, collection, item, envelope.redrive);
                        dead.effect = Some(Effect::Deleted);
                        self.items.remove(&key);
                        self.item_writes.insert(key, None);
                        settled.gone.push(gone);
                    }
                }
                self.write(dead);
            }
            // The same again: what it deleted or brought back then is said again.
            State::Removed if again && row.effect.is_some() => settled.gone.push(gone),
            State::Removed if again => {
                let ready = rival.filter(|rival| rival.state == State::Ready);
                settled.back.extend(ready.and_then(|rival| Back::of(&rival)));
            }
            State::Superseded => self.write(dead),
            State::Waiting | State::Routed | State::Removed | State::Refused | State::Ignored => {}
        }
    }

    /// The newest document of another key of the provider for the same item.
    fn rival_of(&self, row: &Row) -> Option<Row> {
        let rivals = self.rows.values().filter(|other| {
            let provides = matches!(other.state, State::Loaded | State::Ready | State::Superseded);
            provides
                && other.subject == row.subject
                && other.cause.object != row.cause.object
                && other.provider == row.provider
                && other.destination.is_some()
        });
        rivals.max_by(|one, other| key_order(one).cmp(&key_order(other))).cloned()
    }
}

/// Whether an event is known of what was found by listing, which knows no more of its time than the second.
fn is_the_same(known: &Cause, listed: &Cause) -> bool {
    known.sequencer.is_some()
        && listed.etag.is_some()
        && (&known.etag, known.member) == (&listed.etag, listed.member)
        && known.event_time.as_second() == listed.event_time.as_second()
}

fn key_order(row: &Row) -> (Timestamp, &ObjectRef) {
    (row.cause.event_time, &row.cause.object)
}

fn position(row: &Row) -> Position {
    row.cause.position(row.redrive)
}

fn self_order(row: &Row, cause: &Cause) -> Ordering {
    row.cause.position(0).cmp_change(&cause.position(0))
}

/// The id of the report that an item went with its object: one removal can take several items along.
pub(super) fn deletion_id(cause: &Cause, collection: &str, item: &str, redrive: u32) -> EventId {
    let whole = cause.of_object();
    EventId::of(&whole, &format!("{ITEM_LOADED} {} {collection}/{item}", collection.len()), redrive)
}

/// Records reports and says of each whether it is still the newest; rows of loads are only looked at.
/// Refusals that a release has found stay with it.
pub(crate) fn record(view: &mut View, reports: &[Envelope<Report>], released_by: Option<&EventId>) -> Vec<Recorded> {
    let one = |report: &Envelope<Report>| {
        let standing = record_one(view, report, released_by);
        let cause = landfall_events::Event::cause(&report.event);
        let at_subject = view.row(&cause.object, &subject_of(&report.event)).filter(|row| row.event == report.id);
        let position = cause.position(report.redrive);
        let is_of_change = |row: &&Row| {
            let of_member = row.cause.object == cause.object && row.cause.member == cause.member;
            // What the same change has taken out of the catalogue is told of its own.
            of_member
                && !row.is_left()
                && self::position(row).cmp_in_key(&position).is_ge()
                && self_order(row, cause).is_eq()
        };
        let row = at_subject.or_else(|| view.rows.values().find(is_of_change)).cloned();
        Recorded { standing, row: row.or_else(|| removed_file(view, report)) }
    };
    reports.iter().map(one).collect()
}

/// What is told of a removed file whose members have the rows: the file itself has none.
fn removed_file(view: &View, report: &Envelope<Report>) -> Option<Row> {
    let Report::Ignored(ignored) = &report.event else { return None };
    if ignored.rule != REMOVED || view.is_stale(&ignored.cause) {
        return None;
    }
    let mut row = Row::new(report, Subject::Object { member: None }, State::Removed, report.id.clone());
    row.code = Some(ignored.rule.clone());
    Some(row)
}

/// The ledger row that a report is about.
pub(crate) fn subject_of(report: &Report) -> Subject {
    match report {
        Report::Item(loaded) => Subject::Item { collection: loaded.collection.clone(), item: loaded.item.clone() },
        Report::Collection(loaded) => Subject::Collection { collection: loaded.collection.clone() },
        Report::Object(_) | Report::Ignored(_) => {
            Subject::Object { member: landfall_events::Event::cause(report).member }
        }
        Report::Refused(refused) => {
            let refusal = &refused.refusal;
            Subject::known(refusal.collection.as_deref(), refusal.item.as_deref(), &refused.cause)
        }
        Report::Waiting(waiting) => {
            Subject::known(waiting.collection.as_deref(), waiting.item.as_deref(), &waiting.cause)
        }
    }
}

fn record_one(view: &mut View, report: &Envelope<Report>, released_by: Option<&EventId>) -> Standing {
    let mut subject = subject_of(&report.event);
    let cause = landfall_events::Event::cause(&report.event);
    let at_subject = view.row(&cause.object, &subject).cloned();
    if let Report::Item(loaded) = &report.event {
        // What another key has made of the item since is announced by its own report.
        match loaded.effect {
            Effect::Deleted if view.is_held_by_another(cause, &subject) => return Standing::Superseded,
            Effect::Deleted => {}
            Effect::Created | Effect::Replaced => {
                if let Some(rival) = view.outdone_by(cause, &subject, &report.provider) {
                    // It was loaded, and comes to its end unannounced.
                    let unannounced =
                        |row: &Row| row.event == report.id && row.state == State::Loaded && row.announced.is_none();
                    if let Some(row) = at_subject.filter(unannounced) {
                        let (code, reason) = (Some("superseded".into()), Some(format!("{rival} landed later")));
                        view.write(Row { state: State::Superseded, code, reason, parked: None, ..row });
                    }
                    return Standing::Superseded;
                }
            }
        }
    }
    if matches!(report.event, Report::Item(_) | Report::Collection(_)) {
        // What load did stands until load does something else with it, whatever was refused meanwhile.
        return match &at_subject {
            Some(row) if row.event == report.id && row.announced.is_some() => Standing::Announced,
            Some(row) if row.event == report.id => Standing::Current,
            _ => Standing::Superseded,
        };
    }
    if view.is_stale(cause) {
        // What a release has found, and what is outdated: it does not wait any more.
        let parked = at_subject.filter(|row| row.state == State::Parked && self_order(row, cause) == Ordering::Equal);
        if let Some(parked) = parked.filter(|_| released_by.is_some()) {
            let (state, waits_for) = (State::Superseded, Vec::new());
            view.write(Row { state, parked: None, waits_for, until: None, ..parked });
        }
        return Standing::Superseded;
    }
    // Of one change, what is known of the same member counts, whatever it was thought to be about.
    let position = cause.position(report.redrive);
    let of_member = |row: &&Row| row.cause.object == cause.object && row.cause.member == cause.member;
    let known = view.rows.values().filter(of_member);
    let known: Vec<Row> =
        known.filter(|row| self::position(row).cmp_change(&position) == Ordering::Equal).cloned().collect();
    if matches!(&report.event, Report::Ignored(ignored) if [OUTDONE, REMOVED].contains(&&*ignored.rule)) {
        // Load has recorded it; what its release has kept it for is done.
        for row in known.into_iter().filter(|row| row.state == State::Superseded && row.parked.is_some()) {
            view.write(Row { parked: None, ..row });
        }
        return Standing::Superseded;
    }
    if let Report::Refused(refused) = &report.event
        && refused.stage == "notify"
    {
        // It stays what it is, and has come to its end all the same: it was not found in time.
        let of_try = |row: &&Row| row.redrive == report.redrive && row.event != report.id;
        let kept = |row: &&Row| matches!(row.state, State::Loaded | State::Routed | State::Removed);
        if let Some(row) = known.iter().filter(of_try).find(kept) {
            if row.announced.is_some() {
                return Standing::Superseded;
            }
            let (stage, code) = (Some(refused.stage.clone()), Some(refused.refusal.code.to_string()));
            view.write(Row { stage, code, reason: Some(refused.refusal.reason.clone()), ..row.clone() });
            return Standing::Current;
        }
    }
    let by_load = matches!(&report.event, Report::Refused(refused) if refused.stage == "load");
    for row in &known {
        if row.event == report.id {
            if row.announced.is_some() {
                return Standing::Announced;
            }
            continue;
        }
        // Of one try, an end that is known is the end, however late something else is said of it.
        let ended = match row.state {
            State::Loaded | State::Routed | State::Removed | State::Superseded => true,
            State::Parked => !by_load,
            State::Ready => false,
            State::Refused | State::Ignored => !matches!(report.event, Report::Refused(_) | Report::Object(_)),
            State::Waiting => false,
        };
        if row.redrive > report.redrive || (row.redrive == report.redrive && ended) {
            return Standing::Superseded;
        }
    }
    // A row that says what the catalogue holds is not written over by what it does not hold; nor one of another
    // member of the same file.
    let is_kept = |row: &Row| {
        let of_another = row.cause.member.is_some() && row.cause.member != cause.member;
        matches!(row.state, State::Loaded | State::Ready) || of_another && self_order(row, cause).is_eq()
    };
    if at_subject.as_ref().is_some_and(is_kept) {
        subject = Subject::Object { member: cause.member };
    }
    let mut row = match &report.event {
        Report::Item(_) | Report::Collection(_) => return Standing::Superseded,
        Report::Object(routed) => {
            let mut row = Row::new(report, subject, State::Routed, report.id.clone());
            row.destination = Some(routed.destination.object.to_string());
            row
        }
        Report::Refused(refused) => {
            let mut row = Row::new(report, subject, State::Refused, report.id.clone());
            row.stage = Some(refused.stage.clone());
            row.code = Some(refused.refusal.code.to_string());
            row.reason = Some(refused.refusal.reason.clone());
            row.problems = refused.refusal.problems.clone();
            row
        }
        Report::Waiting(waiting) => {
            let mut row = Row::new(report, subject, State::Waiting, report.id.clone());
            row.stage = Some(waiting.stage.clone());
            row.waits_for.clone_from(&waiting.waits_for);
            row.until = Some(waiting.until);
            row
        }
        Report::Ignored(ignored) => {
            let mut row = Row::new(report, subject, State::Ignored, report.id.clone());
            row.code = Some(ignored.rule.clone());
            row
        }
    };
    if let Some(id) = released_by {
        row.parked = known.iter().find_map(|row| row.parked.clone());
        row.released_by = Some(id.clone());
    } else if let Some(mine) = known.iter().find(|row| row.event == report.id) {
        (row.parked, row.released_by) = (mine.parked.clone(), mine.released_by.clone());
    }
    view.write(row);
    Standing::Current
}

#[cfg(test)]
mod tests {
    use landfall_events::routed::RoutedObject;
    use landfall_events::status::Outcome;
    use landfall_events::{Change, Document, Event, Sequencer};

    use super::*;

    fn cause(key: &str, sequencer: &str, second: u8) -> Cause {
        Cause {
            object: ObjectRef::new("landing", key),
            change: Change::Created,
            version_id: None,
            etag: Some(format!("e{sequencer}")),
            size: Some(1),
            sequencer: Some(Sequencer::try_from(sequencer.to_owned()).unwrap()),
            event_time: format!("2024-01-01T00:00:{second:02}Z").parse().unwrap(),
            member: None,
            members: None,
        }
    }

    fn stored() -> RoutedObject {
        RoutedObject { object: ObjectRef::new("archive", "x"), size: 1, etag: None, storage_class: None }
    }

    fn document() -> Document {
        Document::Inline(serde_json::value::RawValue::from_string("{}".into()).unwrap())
    }

    fn item(id: &str, cause: Cause) -> Load {
        let routed = ItemRouted {
            cause,
            collection: "c".into(),
            item: id.into(),
            document: document(),
            stored: stored(),
            assets: vec![],
            warnings: vec![],
        };
        let text = format!(
            r#"{{"id":"{id}","collection":"c","geometry":{{"type":"Point","coordinates":[1,2]}},
                "properties":{{"datetime":"2024-01-01T00:00:00Z"}}}}"#
        );
        let content = Content::Item(Arc::new(Item::read(text).unwrap()));
        Load { envelope: Envelope::new(routed.into(), "p", 0), content, released_by: None }
    }

    fn collection(provider: &str, cause: Cause) -> Load {
        let routed = CollectionRouted {
            cause,
            collection: "c".into(),
            document: document(),
            stored: stored(),
            warnings: vec![],
        };
        let content = Content::Collection("{}".into());
        Load { envelope: Envelope::new(routed.into(), provider, 0), content, released_by: None }
    }

    fn removed(cause: Cause) -> Load {
        let cause = Cause { change: Change::Removed, ..cause };
        Load {
            envelope: Envelope::new(ObjectRemoved { cause }.into(), "p", 0),
            content: Content::Nothing,
            released_by: None,
        }
    }

    const CREATED: Applied = Applied::Loaded { effect: Effect::Created, release: false };
    const REPLACED: Applied = Applied::Loaded { effect: Effect::Replaced, release: false };

    fn until() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }

    fn with_collection() -> View {
        View { collections: [("c".to_owned(), Some("p".to_owned()))].into(), ..View::default() }
    }

    fn plan_all(view: &mut View, loads: &[Load]) -> Vec<Settled> {
        plan(view, &loads.iter().collect::<Vec<_>>(), until())
    }

    #[track_caller]
    fn check(view: &mut View, loads: &[Load], expected: &[Applied]) -> Vec<Gone> {
        let settled = plan_all(view, loads);
        let applied: Vec<_> = settled.iter().map(|one| one.applied.clone()).collect();
        assert_eq!(applied, expected);
        settled.into_iter().flat_map(|one| one.gone).collect()
    }

    fn gone(item: &str) -> Gone {
        Gone { collection: "c".into(), item: item.into(), member: None }
    }

    #[test]
    fn a_repetition_gives_the_recorded_outcome_and_writes_nothing() {
        let mut view = with_collection();
        let load = item("i", cause("k", "1", 1));
        check(&mut view, std::slice::from_ref(&load), &[CREATED]);
        view.item_writes.clear();
        check(&mut view, &[load], &[CREATED]);
        assert!(view.item_writes.is_empty());
    }

    #[test]
    fn a_late_older_event_of_the_key_never_overwrites() {
        let mut view = with_collection();
        check(
            &mut view,
            &[item("i", cause("k", "2", 2)), item("i", cause("k", "1", 1))],
            &[CREATED, Applied::Superseded],
        );
        check(&mut view, &[item("other", cause("k", "1", 1))], &[Applied::Superseded]);
        check(&mut view, &[item("i", cause("k", "3", 3))], &[REPLACED]);
    }

    #[test]
    fn between_keys_the_newest_time_wins() {
        let mut view = with_collection();
        let newer = item("i", cause("a", "1", 9));
        check(&mut view, &[newer, item("i", cause("b", "F", 3))], &[CREATED, Applied::Superseded]);
    }

    #[test]
    fn a_late_create_never_resurrects_a_delete() {
        let mut view = with_collection();
        let delete = removed(cause("k", "5", 5));
        let first = check(&mut view, &[item("i", cause("k", "1", 1)), delete.clone()], &[CREATED, Applied::Removed]);
        assert_eq!(view.item_writes.get(&("c".into(), "i".into())), Some(&None));
        let again =
            check(&mut view, &[item("i", cause("k", "4", 4)), delete], &[Applied::Superseded, Applied::Removed]);
        assert_eq!((first, again), (vec![gone("i")], vec![gone("i")]));
        assert_eq!(check(&mut View::default(), &[removed(cause("k", "5", 5))], &[Applied::Removed]), []);
    }

    #[test]
    fn a_removal_before_its_create_wins_too() {
        let mut view = with_collection();
        let late = item("i", cause("k", "4", 4));
        check(&mut view, &[removed(cause("k", "5", 5)), late], &[Applied::Removed, Applied::Superseded]);
    }

    #[test]
    fn an_item_that_another_key_provides_outlives_a_removal() {
        let mut view = with_collection();
        let older = item("i", cause("a", "1", 1));
        let delete = removed(cause("b", "2", 3));
        let loads = [older.clone(), item("i", cause("b", "1", 2)), delete.clone()];
        assert_eq!(check(&mut view, &loads, &[CREATED, REPLACED, Applied::Removed]), []);
        assert!(view.items.contains(&("c".into(), "i".into())));

        // The older document comes back, and a repetition of the removal asks for it until it is there.
        let back = plan_all(&mut view, std::slice::from_ref(&delete)).remove(0).back;
        assert_eq!(back.iter().map(|back| &back.cause).collect::<Vec<_>>(), [older.envelope.event.cause()]);
        let mut restored = older;
        restored.envelope = restored.envelope.redriven(back[0].redrive + 1);
        check(&mut view, &[restored], &[REPLACED]);
        assert_eq!(plan_all(&mut view, &[delete]).remove(0).back, []);
    }

    #[test]
    fn a_repetition_of_an_earlier_generation_is_not_told_the_later_ones_outcome() {
        let mut view = with_collection();
        let first = item("i", cause("k", "1", 1));
        let again = Load { envelope: first.envelope.clone().redriven(1), ..first.clone() };
        check(&mut view, &[first.clone(), again.clone()], &[CREATED, REPLACED]);
        check(&mut view, &[first, again], &[Applied::Superseded, REPLACED]);
    }

    #[test]
    fn what_was_outdone_comes_back_too() {
        let mut view = with_collection();
        let loads = [item("i", cause("b", "1", 2)), item("i", cause("a", "1", 1)), removed(cause("b", "2", 3))];
        let settled = plan_all(&mut view, &loads);
        assert_eq!(settled[2].back.len(), 1);
        // Where it has gone meanwhile, the item goes.
        let gone_too = check(&mut view, &[removed(cause("a", "2", 4))], &[Applied::Removed]);
        assert_eq!(gone_too, [gone("i")]);
    }

    #[test]
    fn an_item_goes_when_its_file_is_another_item_now() {
        let mut view = with_collection();
        let second = item("other", cause("k", "2", 2));
        let gone_then = check(&mut view, &[item("i", cause("k", "1", 1)), second.clone()], &[CREATED, CREATED]);
        assert_eq!(gone_then, [gone("i")]);
        assert_eq!(check(&mut view, &[second], &[CREATED]), [gone("i")]);
        check(&mut view, &[item("i", cause("k", "1", 1))], &[Applied::Superseded]);
    }

    #[test]
    fn an_item_waits_for_its_collection_and_can_be_outdone_meanwhile() {
        let mut view = View::default();
        let parked = Applied::Parked { until: until(), collection: "c".into() };
        let old = item("i", cause("k", "1", 1));
        check(&mut view, &[old.clone(), item("i", cause("k", "2", 2))], &[parked.clone(), parked]);
        check(
            &mut view,
            &[collection("p", cause("m", "1", 1))],
            &[Applied::Loaded { effect: Effect::Created, release: true }],
        );
        check(&mut view, &[old], &[Applied::Superseded]);
    }

    #[test]
    fn a_collection_belongs_to_who_landed_it_first() {
        let mut view = View::default();
        let created = Applied::Loaded { effect: Effect::Created, release: true };
        let owned = Applied::Owned { by: "p".into() };
        check(
            &mut view,
            &[collection("p", cause("m", "1", 1)), collection("q", cause("n", "1", 2))],
            &[created, owned.clone()],
        );
        let mut theirs = item("i", cause("k", "1", 1));
        theirs.envelope.provider = "q".into();
        check(&mut view, &[theirs], &[owned]);
    }

    #[test]
    fn a_removed_collection_document_keeps_the_collection() {
        let mut view = View::default();
        let created = Applied::Loaded { effect: Effect::Created, release: true };
        let loads = [collection("p", cause("m", "1", 1)), removed(cause("m", "2", 2))];
        check(&mut view, &loads, &[created, Applied::Ignored("collection-kept")]);
        assert!(view.collections.contains_key("c"));
    }

    fn record_all(view: &mut View, reports: &[Envelope<Report>]) -> Vec<Standing> {
        record(view, reports, None).into_iter().map(|recorded| recorded.standing).collect()
    }

    fn refused(cause: Cause, redrive: u32) -> Envelope<Report> {
        let refusal = landfall_events::Refusal::new(landfall_events::codes::STAC_SCHEMA, "no");
        let refused = landfall_events::report::Refused { cause, stage: "validate".into(), refusal };
        Envelope::new(refused.into(), "p", redrive)
    }

    #[test]
    fn a_refusal_that_is_superseded_is_not_announced() {
        let mut view = with_collection();
        assert_eq!(record_all(&mut view, &[refused(cause("k", "1", 1), 0)]), [Standing::Current]);
        check(&mut view, &[item("i", cause("k", "2", 2))], &[CREATED]);
        assert_eq!(record_all(&mut view, &[refused(cause("k", "1", 1), 0)]), [Standing::Superseded]);
    }

    #[test]
    fn a_document_is_in_one_state_after_its_redrive() {
        let mut view = with_collection();
        record_all(&mut view, &[refused(cause("k", "1", 1), 0)]);
        let mut again = item("i", cause("k", "1", 1));
        again.envelope = again.envelope.redriven(1);
        check(&mut view, &[again], &[CREATED]);
        assert_eq!(view.rows.len(), 1);
        assert_eq!(record_all(&mut view, &[refused(cause("k", "1", 1), 0)]), [Standing::Superseded]);
        assert_eq!(view.rows.len(), 1);
    }

    #[test]
    fn a_wait_that_is_reported_late_does_not_hide_what_came_of_it() {
        let mut view = with_collection();
        let late = landfall_events::report::Waiting {
            cause: cause("k", "1", 1),
            stage: "route".into(),
            waits_for: vec!["x".into()],
            until: until(),
            collection: Some("c".into()),
            item: Some("i".into()),
        };
        check(&mut view, &[item("i", cause("k", "1", 1))], &[CREATED]);
        record_all(&mut view, &[Envelope::new(late.into(), "p", 0)]);
        assert_eq!(view.rows.values().map(|row| row.state).collect::<Vec<_>>(), [State::Loaded]);
    }

    #[test]
    fn what_was_loaded_and_is_outdone_before_it_is_announced_comes_to_its_end() {
        let mut view = with_collection();
        check(&mut view, &[item("i", cause("old", "1", 1)), item("i", cause("new", "1", 2))], &[CREATED, REPLACED]);
        let loaded = landfall_events::report::ItemLoaded {
            cause: cause("old", "1", 1),
            collection: "c".into(),
            item: "i".into(),
            effect: Effect::Created,
            document: None,
            assets: Vec::new(),
            place: None,
        };
        let report: Envelope<Report> = Envelope::new(loaded.into(), "p", 0);

        for _ in 0..2 {
            let recorded = record(&mut view, std::slice::from_ref(&report), None).remove(0);
            assert_eq!(recorded.standing, Standing::Superseded);
            assert_eq!(recorded.row.unwrap().outcome(false), Outcome::Superseded);
        }
        // When the newer goes, its document comes back.
        let gone = removed(cause("new", "2", 3));
        let settled = plan(&mut view, &[&gone], until()).remove(0);
        assert_eq!(settled.back.iter().map(|back| &*back.cause.object.key).collect::<Vec<_>>(), ["old"]);
    }

    #[test]
    fn a_removed_file_is_told_of_where_its_members_have_the_rows() {
        let mut view = with_collection();
        let file = cause("k", "1", 1);
        check(
            &mut view,
            &[item("i", file.of_member(1, 1)), item("i", cause("other", "1", 0))],
            &[CREATED, Applied::Superseded],
        );
        let gone = Cause { change: Change::Removed, etag: None, ..cause("k", "2", 2) };
        check(&mut view, &[self::removed(cause("k", "2", 2))], &[Applied::Removed]);
        let ignored = landfall_events::report::Ignored { cause: gone.clone(), rule: REMOVED.into() };
        let report: Envelope<Report> = Envelope::new(ignored.into(), "p", 0);

        let recorded = record(&mut view, std::slice::from_ref(&report), None).remove(0);

        let row = recorded.row.unwrap();
        assert_eq!((row.state, row.cause, recorded.standing), (State::Removed, gone, Standing::Superseded));
        // Where it has landed again since, the removal is not what is told.
        check(
            &mut view,
            &[item("i", cause("k", "3", 3).of_member(1, 1))],
            &[Applied::Loaded { effect: Effect::Replaced, release: false }],
        );
        assert_eq!(record(&mut view, &[report], None).remove(0).row, None);
    }

    #[test]
    fn a_foreign_providers_document_stands_in_nobodys_way() {
        let mut view = View::default();
        let parked = Applied::Parked { until: until(), collection: "c".into() };
        let mut theirs = item("i", cause("q/k", "1", 9));
        theirs.envelope.provider = "q".into();
        check(&mut view, &[item("i", cause("p/k", "1", 1)), theirs.clone()], &[parked.clone(), parked]);
        plan_all(&mut view, &[collection("p", cause("m", "1", 1))]);
        check(&mut view, &[item("i", cause("p/k", "1", 1)), theirs], &[CREATED, Applied::Owned { by: "p".into() }]);
    }

    #[test]
    fn a_repeated_id_in_one_file_is_said_and_does_not_hide_the_first() {
        let mut view = with_collection();
        let file = cause("k", "1", 1);
        let (first, second) = (item("i", file.of_member(1, 3)), item("i", file.of_member(3, 3)));
        let repeated = Applied::Repeated { member: Some(1) };
        check(&mut view, &[first.clone(), second.clone()], &[CREATED, repeated.clone()]);
        check(&mut view, &[second, first], &[repeated, CREATED]);
    }

    #[test]
    fn a_refused_overwrite_leaves_what_the_catalogue_holds() {
        let mut view = with_collection();
        check(&mut view, &[item("i", cause("k", "1", 1))], &[CREATED]);
        let mut refusal = refused(cause("k", "2", 2), 0);
        if let Report::Refused(refused) = &mut refusal.event {
            refused.refusal = refused.refusal.clone().of_item("c", "i");
        }
        assert_eq!(record_all(&mut view, &[refusal]), [Standing::Current]);
        // The first is what the catalogue holds: its report is still true.
        let loaded = landfall_events::report::ItemLoaded {
            cause: cause("k", "1", 1),
            collection: "c".into(),
            item: "i".into(),
            effect: Effect::Created,
            document: None,
            assets: vec![],
            place: None,
        };
        assert_eq!(record_all(&mut view, &[Envelope::new(loaded.into(), "p", 0)]), [Standing::Current]);
        assert_eq!(check(&mut view, &[removed(cause("k", "3", 3))], &[Applied::Removed]), [gone("i")]);
    }

    fn refused_item(cause: Cause) -> Envelope<Report> {
        let mut report = refused(cause, 0);
        if let Report::Refused(refused) = &mut report.event {
            refused.refusal = refused.refusal.clone().of_item("c", "i");
        }
        report
    }

    fn states(view: &View) -> Vec<State> {
        view.rows.values().map(|row| row.state).collect()
    }

    #[test]
    fn what_waits_outdated_is_not_found_by_its_release_again() {
        let mut view = View::default();
        let parked = item("i", cause("k", "1", 1));
        let waits = Applied::Parked { until: until(), collection: "c".into() };
        check(&mut view, &[parked], &[waits]);
        // The key holds something else now that is no document.
        assert_eq!(record_all(&mut view, &[refused(cause("k", "2", 2), 0)]), [Standing::Current]);
        assert_eq!(states(&view), [State::Parked, State::Refused]);
        let release = EventId("r".into());
        let recorded = record(&mut view, &[refused_item(cause("k", "1", 1))], Some(&release));
        assert_eq!(recorded[0].standing, Standing::Superseded);
        assert_eq!(states(&view), [State::Superseded, State::Refused]);
        assert!(view.rows.values().all(|row| row.parked.is_none()));
    }

    #[test]
    fn a_member_that_waits_is_kept_when_another_of_the_same_id_is_refused() {
        let mut view = View::default();
        let first = cause("k", "1", 1).of_member(1, 3);
        check(&mut view, &[item("i", first)], &[Applied::Parked { until: until(), collection: "c".into() }]);
        let third = refused_item(cause("k", "1", 1).of_member(3, 3));
        assert_eq!(record_all(&mut view, &[third]), [Standing::Current]);
        assert_eq!(states(&view), [State::Parked, State::Refused]);
        assert!(view.rows.values().any(|row| row.parked.is_some()));
    }

    fn members(view: &View) -> BTreeMap<Option<u32>, State> {
        view.rows.values().map(|row| (row.cause.member, row.state)).collect()
    }

    fn waiting(cause: Cause) -> Envelope<Report> {
        let waiting = landfall_events::report::Waiting {
            cause,
            stage: "route".into(),
            waits_for: vec!["x".into()],
            until: until(),
            collection: Some("c".into()),
            item: Some("i".into()),
        };
        Envelope::new(waiting.into(), "p", 0)
    }

    #[test]
    fn members_of_the_same_id_have_a_row_each_whatever_they_come_to() {
        let file = cause("k", "1", 1);
        let (one, two) = (file.of_member(1, 2), file.of_member(2, 2));
        let repeated = Applied::Repeated { member: Some(1) };
        let current = [Standing::Current; 2];
        let both = |one, two| BTreeMap::from([(Some(1), one), (Some(2), two)]);

        let mut view = with_collection();
        let refusals = [refused_item(one.clone()), refused_item(two.clone())];
        assert_eq!(record_all(&mut view, &refusals), current);
        assert_eq!(members(&view), both(State::Refused, State::Refused));
        assert_eq!(record_all(&mut view, &refusals), current, "said again");
        assert_eq!(members(&view), both(State::Refused, State::Refused));
        // One of them is mended by whoever refused it.
        let mut again = item("i", two.clone());
        again.envelope = again.envelope.redriven(1);
        check(&mut view, &[again], &[CREATED]);
        assert_eq!(members(&view), both(State::Refused, State::Loaded));

        let mut view = with_collection();
        record_all(&mut view, &[waiting(one.clone()), waiting(two.clone())]);
        assert_eq!(members(&view), both(State::Waiting, State::Waiting));
        check(&mut view, &[item("i", two.clone())], &[CREATED]);
        assert_eq!(members(&view), both(State::Waiting, State::Loaded));
        check(&mut view, &[item("i", one.clone())], &[Applied::Repeated { member: Some(2) }]);
        assert_eq!(record_all(&mut view, &[refused_item(one.clone())]), [Standing::Current]);
        assert_eq!(members(&view), both(State::Refused, State::Loaded));

        let mut view = with_collection();
        let newer = item("i", cause("newer", "9", 9));
        let loads = [newer, item("i", one.clone()), item("i", two.clone())];
        check(&mut view, &loads, &[CREATED, Applied::Superseded, repeated.clone()]);
        record_all(&mut view, &[refused_item(two.clone())]);
        view.rows.retain(|(object, _), _| *object.key == *"k");
        assert_eq!(members(&view), both(State::Superseded, State::Refused));

        let mut view = View::default();
        let collections = [one.clone(), two.clone()].map(|cause| collection("p", cause));
        let created = Applied::Loaded { effect: Effect::Created, release: true };
        check(&mut view, &collections, &[created, repeated.clone()]);

        // A repeated one that is sent again is repeated again.
        let mut view = with_collection();
        let mut again = item("i", two.clone());
        again.envelope = again.envelope.redriven(1);
        check(&mut view, &[item("i", one), item("i", two), again], &[CREATED, repeated.clone(), repeated]);
    }

    #[test]
    fn what_only_waits_stands_in_nobodys_way() {
        let mut view = View::default();
        let waits = Applied::Parked { until: until(), collection: "c".into() };
        check(&mut view, &[item("i", cause("newer", "1", 9))], &[waits]);
        plan_all(&mut view, &[collection("p", cause("m", "1", 1))]);
        let older = item("i", cause("older", "1", 3));
        let mut left = View { rows: view.rows.clone(), collections: view.collections.clone(), ..View::default() };
        check(&mut view, &[older.clone(), item("i", cause("newer", "1", 9))], &[CREATED, REPLACED]);
        // Where it goes before it is loaded, what was loaded meanwhile stays as it is.
        check(&mut left, &[older], &[CREATED]);
        let settled = plan_all(&mut left, &[removed(cause("newer", "2", 10))]).remove(0);
        assert_eq!((settled.gone, settled.back), (vec![], vec![]));
        assert_eq!(states(&left), [State::Loaded, State::Removed, State::Loaded]);
    }

    #[test]
    fn what_was_found_by_listing_is_not_loaded_beside_its_own_event() {
        let mut view = with_collection();
        let event = cause("k", "1", 1);
        let mut listed = Cause { sequencer: None, ..event.clone() };
        listed.event_time = "2024-01-01T00:00:01.999Z".parse().unwrap();
        check(&mut view, &[item("i", event), item("i", listed.clone())], &[CREATED, Applied::Superseded]);
        // Another content of the same second is another change.
        listed.etag = Some("other".into());
        check(&mut view, &[item("i", listed)], &[REPLACED]);
    }

    #[test]
    fn a_late_ignored_or_refused_report_does_not_erase_a_load() {
        let mut view = with_collection();
        check(&mut view, &[item("i", cause("k", "1", 1))], &[CREATED]);
        let ignored = landfall_events::report::Ignored { cause: cause("k", "1", 1), rule: "overwritten".into() };
        let reports = [Envelope::new(ignored.into(), "p", 0), refused(cause("k", "1", 1), 0)];
        assert_eq!(record_all(&mut view, &reports), [Standing::Superseded; 2]);
        assert_eq!(view.rows.values().map(|row| row.state).collect::<Vec<_>>(), [State::Loaded]);
    }

    #[test]
    fn what_another_key_outdoes_has_a_row_that_says_so() {
        let mut view = with_collection();
        let loads = [item("i", cause("b", "1", 9)), item("i", cause("a", "1", 1))];
        check(&mut view, &loads, &[CREATED, Applied::Superseded]);
        let states: Vec<_> = view.rows.values().map(|row| row.state).collect();
        assert_eq!(states, [State::Superseded, State::Loaded]);
    }
}

//! The ports in memory, for unit tests and the fault sweep: a small world that can fail at any single call,
//! before it or, as a crash would, after it.

mod objects;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use landfall_events::{Envelope, EventId, Notice, ObjectRef, Report, Routed, codes};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::catalogue::{
    Applied, Catalogue, CatalogueError, Claim, Load, Recorded, Row, Settled, State, Subject, View, Waiter, due_release,
    in_order, parts, plan,
};
use crate::locked;
use crate::queue::{BATCH_BYTES_MAX, Delivery, Outgoing, Queue, QueueError};
use crate::topic::{TopicError, Topics};

pub use objects::{MemoryObject, MemoryObjects};

/// When a port call shall fail, counted over all ports of a world from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// Never.
    Never,
    /// The n-th call fails and has no effect.
    Fail(u64),
    /// The n-th call has its effect, and then whoever called it is gone.
    CrashAfter(u64),
}

/// Counts the port calls of a world and lets one of them fail.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<(u64, Option<Strike>)>,
    crashed: Notify,
}

impl Faults {
    /// Arms one strike and counts calls from here.
    pub fn arm(&self, strike: Strike) {
        *locked(&self.state) = (0, Some(strike));
    }

    /// Whether the armed strike has not happened yet.
    pub fn is_armed(&self) -> bool {
        matches!(locked(&self.state).1, Some(Strike::Fail(_) | Strike::CrashAfter(_)))
    }

    /// Returns when a crash has struck.
    pub async fn crashed(&self) {
        self.crashed.notified().await;
    }

    /// Runs one call: `effect` changes the world, `failed` is the answer without any effect.
    async fn call<T>(&self, effect: impl FnOnce() -> T, failed: impl FnOnce() -> T) -> T {
        enum Fate {
            Works,
            Fails,
            Crashes,
        }
        // Others may come between any two calls.
        tokio::task::yield_now().await;
        let fate = {
            let (calls, strike) = &mut *locked(&self.state);
            *calls += 1;
            let fate = match strike {
                Some(Strike::Fail(n)) if n == calls => Fate::Fails,
                Some(Strike::CrashAfter(n)) if n == calls => Fate::Crashes,
                _ => Fate::Works,
            };
            if !matches!(fate, Fate::Works) {
                *strike = Some(Strike::Never);
            }
            fate
        };
        match fate {
            Fate::Works => effect(),
            Fate::Fails => failed(),
            Fate::Crashes => {
                effect();
                self.crashed.notify_one();
                std::future::pending().await
            }
        }
    }
}

/// A queue in memory: visibility, delays and receive counts by tokio's clock, which a test can pause.
#[derive(Clone, Default)]
pub struct MemoryQueue {
    faults: Arc<Faults>,
    state: Arc<Mutex<QueueState>>,
}

#[derive(Default)]
struct QueueState {
    next: u64,
    messages: Vec<Held>,
}

struct Held {
    id: u64,
    receipt: u64,
    message: Outgoing,
    visible: Instant,
    receives: u32,
}

impl MemoryQueue {
    /// An empty queue of a world.
    #[must_use]
    pub fn new(faults: Arc<Faults>) -> Self {
        Self { faults, state: Arc::default() }
    }

    /// Puts a message in from outside the world.
    pub fn push(&self, body: &str, attributes: BTreeMap<String, String>) {
        locked(&self.state).push(Outgoing { body: body.into(), attributes, group: "_".into(), delay: Duration::ZERO });
    }

    /// All messages that it holds, visible or not.
    #[must_use]
    pub fn messages(&self) -> Vec<Outgoing> {
        locked(&self.state).messages.iter().map(|held| held.message.clone()).collect()
    }

    /// The highest receive count among the messages that it holds.
    #[must_use]
    pub fn receives_max(&self) -> u32 {
        locked(&self.state).messages.iter().map(|held| held.receives).max().unwrap_or(0)
    }

    /// When the next message becomes visible; `None` where it is empty.
    #[must_use]
    pub fn next_visible(&self) -> Option<Instant> {
        locked(&self.state).messages.iter().map(|held| held.visible).min()
    }

    /// Takes all messages out.
    #[must_use]
    pub fn drain(&self) -> Vec<Outgoing> {
        locked(&self.state).messages.drain(..).map(|held| held.message).collect()
    }
}

impl QueueState {
    fn push(&mut self, message: Outgoing) {
        self.next += 1;
        let visible = Instant::now() + message.delay;
        self.messages.push(Held { id: self.next, receipt: 0, message, visible, receives: 0 });
    }

    fn held(&mut self, receipt: &str) -> Option<&mut Held> {
        let receipt: u64 = receipt.parse().ok()?;
        self.messages.iter_mut().find(|held| held.receipt == receipt && receipt != 0)
    }
}

fn down() -> QueueError {
    QueueError::Unavailable("struck".into())
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn send(&self, messages: Vec<Outgoing>) -> Vec<Result<(), QueueError>> {
        let count = messages.len();
        let effect = || {
            let mut state = locked(&self.state);
            let push = |message: Outgoing| {
                if message.bytes() > BATCH_BYTES_MAX || message.body.is_empty() {
                    return Err(QueueError::Refused("the size".into()));
                }
                state.push(message);
                Ok(())
            };
            messages.into_iter().map(push).collect()
        };
        self.faults.call(effect, || vec![Err(down()); count]).await
    }

    async fn receive(&self, most: usize, visibility: Duration, wait: Duration) -> Result<Vec<Delivery>, QueueError> {
        let deadline = Instant::now() + wait;
        while Instant::now() < deadline && self.next_visible().is_none_or(|next| next > Instant::now()) {
            // A message may be sent meanwhile: look at least every second.
            let look = Instant::now() + Duration::from_secs(1);
            let next = self.next_visible().unwrap_or(look);
            tokio::time::sleep_until(next.min(look).min(deadline)).await;
        }
        let effect = || {
            let mut state = locked(&self.state);
            let now = Instant::now();
            let QueueState { next, messages } = &mut *state;
            let visible = messages.iter_mut().filter(|held| held.visible <= now).take(most);
            let receive = |held: &mut Held| {
                *next += 1;
                held.receipt = *next;
                held.receives += 1;
                held.visible = now + visibility;
                Delivery {
                    id: held.id.to_string(),
                    receipt: held.receipt.to_string(),
                    body: held.message.body.clone(),
                    attributes: held.message.attributes.clone(),
                    receives: held.receives,
                }
            };
            Ok(visible.map(receive).collect())
        };
        self.faults.call(effect, || Err(down())).await
    }

    async fn delete(&self, receipts: &[String]) -> Vec<Result<(), QueueError>> {
        let effect = || {
            let mut state = locked(&self.state);
            let delete = |receipt: &String| match state.held(receipt).map(|held| held.id) {
                Some(id) => {
                    state.messages.retain(|held| held.id != id);
                    Ok(())
                }
                None => Err(QueueError::Lost(receipt.clone())),
            };
            receipts.iter().map(delete).collect()
        };
        self.faults.call(effect, || vec![Err(down()); receipts.len()]).await
    }

    async fn set_visibility(&self, receipts: &[(String, Duration)]) -> Vec<Result<(), QueueError>> {
        let effect = || {
            let mut state = locked(&self.state);
            let set = |(receipt, visibility): &(String, Duration)| match state.held(receipt) {
                Some(held) => {
                    held.visible = Instant::now() + *visibility;
                    Ok(())
                }
                None => Err(QueueError::Lost(receipt.clone())),
            };
            receipts.iter().map(set).collect()
        };
        self.faults.call(effect, || vec![Err(down()); receipts.len()]).await
    }
}

/// Topics in memory: they keep what was published.
#[derive(Clone)]
pub struct MemoryTopics {
    faults: Arc<Faults>,
    published: Arc<Mutex<Vec<Notice>>>,
}

impl MemoryTopics {
    /// Topics of a world.
    #[must_use]
    pub fn new(faults: Arc<Faults>) -> Self {
        Self { faults, published: Arc::default() }
    }

    /// All that was published, in order, repetitions included.
    #[must_use]
    pub fn published(&self) -> Vec<Notice> {
        locked(&self.published).clone()
    }
}

#[async_trait]
impl Topics for MemoryTopics {
    async fn publish(&self, notices: &[Notice]) -> Vec<Result<(), TopicError>> {
        let effect = || {
            locked(&self.published).extend_from_slice(notices);
            vec![Ok(()); notices.len()]
        };
        let failed = || vec![Err(TopicError::Unavailable("struck".into())); notices.len()];
        self.faults.call(effect, failed).await
    }
}

/// A catalogue in memory: the same plan, kept in maps.
#[derive(Clone)]
pub struct MemoryCatalogue {
    faults: Arc<Faults>,
    state: Arc<Mutex<Kept>>,
}

/// What a catalogue in memory holds.
#[derive(Debug, Default, Clone)]
pub struct Kept {
    /// Ledger rows.
    pub rows: BTreeMap<(ObjectRef, Subject), Row>,
    /// Items by (collection, id).
    pub items: BTreeMap<(String, String), String>,
    /// Collections by id.
    pub collections: BTreeMap<String, String>,
    owners: HashMap<String, Option<String>>,
    /// Whether nobody finds what was loaded, as on a replica that lags behind.
    lags: bool,
}

impl Kept {
    fn view(&self) -> View {
        let mut view = View {
            rows: self.rows.clone(),
            collections: self.owners.clone(),
            items: self.items.keys().cloned().collect::<BTreeSet<_>>(),
            ..View::default()
        };
        for row in self.rows.values() {
            let position = row.cause.position(row.redrive);
            let newest = view.newest.entry(row.cause.object.clone()).or_insert_with(|| position.clone());
            if newest.cmp_in_key(&position).is_lt() {
                *newest = position;
            }
        }
        view
    }

    fn keep(&mut self, view: View) {
        self.rows = view.rows;
        self.owners = view.collections;
        for (key, document) in view.item_writes {
            match document {
                Some(item) => self.items.insert(key, item.text.clone()),
                None => self.items.remove(&key),
            };
        }
        for (collection, document) in view.collection_writes {
            self.collections.insert(collection, document.to_string());
        }
    }

    fn apply(&mut self, loads: &[&Load], park_until: Timestamp) -> Result<Vec<Settled>, CatalogueError> {
        let mut view = self.view();
        let mut settled = plan(&mut view, loads, park_until);
        // As a database does, it looks at what is written and not at what is parked.
        if view.item_writes.values().flatten().any(|item| item.text.contains("\"poison\"")) {
            let (sqlstate, message) = ("22P02".into(), "poison".into());
            return Err(CatalogueError::Refused { code: codes::LOAD_REFUSED, sqlstate, message });
        }
        self.keep(view);
        for (load, one) in loads.iter().zip(&mut settled) {
            if let (Routed::Collection(routed), Applied::Loaded { release, .. }) =
                (&load.envelope.event, &mut one.applied)
            {
                *release = self.is_parked(&routed.collection);
            }
        }
        Ok(settled)
    }

    fn is_parked(&self, collection: &str) -> bool {
        self.rows.values().any(|row| row.state == State::Parked && row.subject.collection() == Some(collection))
    }
}

impl MemoryCatalogue {
    /// Lets it be found, or not, what is loaded.
    pub fn lag(&self, lags: bool) {
        locked(&self.state).lags = lags;
    }

    /// An empty catalogue of a world.
    #[must_use]
    pub fn new(faults: Arc<Faults>) -> Self {
        Self { faults, state: Arc::default() }
    }

    /// All that it holds.
    #[must_use]
    pub fn kept(&self) -> Kept {
        locked(&self.state).clone()
    }
}

fn away() -> CatalogueError {
    CatalogueError::Unavailable("struck".into())
}

#[async_trait]
impl Catalogue for MemoryCatalogue {
    async fn apply(&self, loads: &[&Load], park_until: Timestamp) -> Result<Vec<Settled>, CatalogueError> {
        let effect = || {
            let mut kept = locked(&self.state);
            let mut settled = Vec::with_capacity(loads.len());
            for indices in parts(loads) {
                let part: Vec<&Load> = indices.iter().map(|&index| loads[index]).collect();
                settled.extend(indices.into_iter().zip(kept.apply(&part, park_until)?));
            }
            Ok(in_order(settled))
        };
        self.faults.call(effect, || Err(away())).await
    }

    async fn releasable(
        &self,
        id: &EventId,
        collection: &str,
        most: usize,
        now: Timestamp,
    ) -> Result<Vec<Waiter>, CatalogueError> {
        let effect = || {
            let kept = locked(&self.state);
            let rows = || kept.rows.values().filter(|row| row.parked.is_some());
            let mine: Vec<_> =
                rows().filter(|row| row.released_by.as_ref() == Some(id)).filter_map(Waiter::again).collect();
            if !mine.is_empty() {
                return Ok(mine);
            }
            let parked =
                rows().filter(|row| row.state == State::Parked && row.subject.collection() == Some(collection));
            Ok(if kept.owners.contains_key(collection) {
                parked.take(most).filter_map(Waiter::ready).collect()
            } else {
                let due = parked.filter(|row| row.until.is_some_and(|until| until <= now));
                due.take(most).filter_map(Waiter::expired).collect()
            })
        };
        self.faults.call(effect, || Err(away())).await
    }

    async fn record(
        &self,
        reports: &[Envelope<Report>],
        released_by: Option<&EventId>,
    ) -> Result<Vec<Recorded>, CatalogueError> {
        let effect = || {
            let mut kept = locked(&self.state);
            let mut view = kept.view();
            let standings = crate::catalogue::record(&mut view, reports, released_by);
            kept.keep(view);
            Ok(standings)
        };
        self.faults.call(effect, || Err(away())).await
    }

    async fn prove(&self, claims: &[Claim]) -> Result<Vec<bool>, CatalogueError> {
        let look = || {
            let kept = locked(&self.state);
            let there =
                |collection: &String, item: &String| kept.items.contains_key(&(collection.clone(), item.clone()));
            let holds = |claim: &Claim| match claim {
                Claim::Item { collection, item, .. } => !kept.lags && there(collection, item),
                Claim::NoItem { collection, item } => !kept.lags && !there(collection, item),
                Claim::Collection { collection } => !kept.lags && kept.collections.contains_key(collection),
            };
            Ok(claims.iter().map(holds).collect())
        };
        self.faults.call(look, || Err(away())).await
    }

    async fn announced(&self, events: &[EventId]) -> Result<(), CatalogueError> {
        let effect = || {
            let mut kept = locked(&self.state);
            for row in kept.rows.values_mut().filter(|row| events.contains(&row.event)) {
                row.announced = row.announced.or(Some(Timestamp::UNIX_EPOCH));
                row.parked = None;
            }
            Ok(())
        };
        self.faults.call(effect, || Err(away())).await
    }

    async fn clearing(&self, events: &[EventId]) -> Result<Vec<EventId>, CatalogueError> {
        let effect = || {
            let mut kept = locked(&self.state);
            let settled =
                |row: &&mut Row| matches!(row.state, State::Loaded | State::Routed) && row.announced.is_some();
            let rows = kept.rows.values_mut().filter(|row| events.contains(&row.event)).filter(settled);
            let clear = |row: &mut Row| {
                row.cleared = row.cleared.or(Some(Timestamp::UNIX_EPOCH));
                row.event.clone()
            };
            Ok(rows.map(clear).collect())
        };
        self.faults.call(effect, || Err(away())).await
    }

    async fn not_cleared(&self, event: &EventId) -> Result<(), CatalogueError> {
        let effect = || {
            let mut kept = locked(&self.state);
            kept.rows.values_mut().filter(|row| row.event == *event).for_each(|row| row.cleared = None);
            Ok(())
        };
        self.faults.call(effect, || Err(away())).await
    }

    async fn tend(&self, now: Timestamp) -> Result<Vec<Envelope<Routed>>, CatalogueError> {
        let effect = || {
            let kept = locked(&self.state);
            let is_due = |row: &&Row| {
                let there = row.subject.collection().is_some_and(|id| kept.owners.contains_key(id));
                row.state == State::Parked && (there || row.until.is_some_and(|until| until <= now))
            };
            let mut seen = BTreeSet::new();
            let due = kept.rows.values().filter(is_due).filter(|row| seen.insert(row.subject.collection()));
            Ok(due.filter_map(|row| due_release(row, now)).collect())
        };
        self.faults.call(effect, || Err(away())).await
    }

    async fn ready(&self) -> Result<(), CatalogueError> {
        self.faults.call(|| Ok(()), || Err(away())).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> Outgoing {
        Outgoing { body: body.into(), attributes: BTreeMap::new(), group: "g".into(), delay: Duration::ZERO }
    }

    const VISIBILITY: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_received_message_is_invisible_until_its_time_or_its_delete() {
        let queue = MemoryQueue::new(Arc::default());
        queue.send(vec![message("a")]).await.remove(0).unwrap();
        let first = queue.receive(10, VISIBILITY, Duration::ZERO).await.unwrap();
        assert_eq!(first[0].receives, 1);
        assert!(queue.receive(10, VISIBILITY, Duration::ZERO).await.unwrap().is_empty());

        tokio::time::advance(VISIBILITY).await;
        let second = queue.receive(10, VISIBILITY, Duration::ZERO).await.unwrap();
        assert_eq!(second[0].receives, 2);
        // The older receipt no longer settles it.
        assert!(queue.delete(&[first[0].receipt.clone()]).await[0].is_err());
        assert!(queue.delete(&[second[0].receipt.clone()]).await[0].is_ok());
        assert!(queue.messages().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_message_comes_after_its_delay() {
        let queue = MemoryQueue::new(Arc::default());
        queue.send(vec![Outgoing { delay: Duration::from_secs(5), ..message("a") }]).await.remove(0).unwrap();
        assert!(queue.receive(10, VISIBILITY, Duration::ZERO).await.unwrap().is_empty());
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(queue.receive(10, VISIBILITY, Duration::ZERO).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_strike_hits_the_call_it_is_armed_for_and_no_other() {
        let faults = Arc::new(Faults::default());
        let queue = MemoryQueue::new(faults.clone());
        faults.arm(Strike::Fail(2));
        assert!(queue.send(vec![message("a")]).await[0].is_ok());
        assert!(queue.send(vec![message("b")]).await[0].is_err());
        assert!(queue.send(vec![message("c")]).await[0].is_ok());
        assert!(!faults.is_armed());
        assert_eq!(queue.messages().len(), 2);
    }

    #[tokio::test]
    async fn a_crash_leaves_the_effect_and_never_returns() {
        let faults = Arc::new(Faults::default());
        let queue = MemoryQueue::new(faults.clone());
        faults.arm(Strike::CrashAfter(1));
        tokio::select! {
            _ = queue.send(vec![message("a")]) => panic!("a crashed call returned"),
            () = faults.crashed() => {}
        }
        assert_eq!(queue.messages().len(), 1);
    }
}

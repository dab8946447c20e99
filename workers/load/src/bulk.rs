//! Many items at once, from a stream instead of a queue: `landfall load`.
//!
//! They go the same way into the catalogue as those of the pipeline, but for the ledger: what did not land has no order
//! but that of the stream. It refuses to hold more than a few batches in memory.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use landfall_events::codes::{self, Code};
use landfall_shared::catalogue::{CatalogueError, Extents, PostgresCatalogue};
use landfall_shared::locked;
use landfall_shared::pgstac::Item;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::bisection::{Attempt, by_halves};
use crate::shard;

/// The most items of a batch: each may take an advisory lock, and PostgreSQL's table of locks is small.
const BATCH_MAX: usize = 1000;

/// The most bytes of a batch's documents; a single one may be larger.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Why one document of a stream is not loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its number in the stream, from 1.
    pub number: u64,
    /// Its id, where it has one.
    pub id: Option<String>,
    /// The code.
    pub code: Code,
    /// Why.
    pub reason: String,
}

/// How far a load is.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Documents that are in the catalogue.
    pub loaded: u64,
    /// Documents that are not, and why.
    pub rejected: Vec<Rejected>,
    /// All documents up to this number are settled: loaded or rejected.
    pub settled: u64,
}

/// One item on its way.
struct Numbered {
    number: u64,
    item: Item,
}

/// A load that takes documents one by one.
pub struct Bulk {
    shards: Vec<Shard>,
    workers: JoinSet<Result<Extents, CatalogueError>>,
    state: Arc<Mutex<State>>,
    catalogue: PostgresCatalogue,
    /// Of what an earlier load has settled.
    extents: Extents,
}

struct Shard {
    to: mpsc::Sender<Vec<Numbered>>,
    batch: Vec<Numbered>,
    bytes: usize,
}

#[derive(Default)]
struct State {
    progress: Progress,
    /// The last number that was taken.
    taken: u64,
    /// The first number of each batch that is not settled.
    open: BTreeSet<u64>,
}

impl State {
    /// The number of the next document.
    fn take(&mut self) -> u64 {
        self.taken += 1;
        self.taken
    }

    fn settle(&mut self) {
        let open = self.open.first().copied();
        self.progress.settled = open.map_or(self.taken, |open| open - 1);
    }
}

impl Bulk {
    /// Begins a load over so many connections; its first document has the number after `settled`.
    #[must_use]
    pub fn begin(catalogue: PostgresCatalogue, connections: usize, settled: u64) -> Self {
        let state = Arc::new(Mutex::new(State { taken: settled, ..State::default() }));
        let mut workers = JoinSet::new();
        let shards = (0..connections.max(1)).map(|_| {
            let (to, from) = mpsc::channel(1);
            workers.spawn(work(catalogue.clone(), from, state.clone()));
            Shard { to, batch: Vec::new(), bytes: 0 }
        });
        let shards = shards.collect();
        Self { shards, workers, state, catalogue, extents: Extents::default() }
    }

    /// How far it is; what was rejected is handed out once.
    pub fn progress(&self) -> Progress {
        let mut state = locked(&self.state);
        let rejected = std::mem::take(&mut state.progress.rejected);
        Progress { rejected, ..state.progress.clone() }
    }

    /// Takes a document that could not be read.
    pub fn reject(&mut self, code: Code, id: Option<String>, reason: String) {
        let mut state = locked(&self.state);
        let number = state.take();
        state.progress.rejected.push(Rejected { number, id, code, reason });
        state.settle();
    }

    /// Takes an item that an earlier load has settled, for the extents of the collections alone.
    pub fn settled(&mut self, text: String) {
        if let Ok(item) = Item::read(text) {
            self.extents.add(&item);
        }
    }

    /// Takes an item's JSON text. Of one id, the last of a stream counts.
    ///
    /// # Errors
    /// [`CatalogueError`], where the load cannot go on.
    pub async fn item(&mut self, text: String) -> Result<(), CatalogueError> {
        let item = match Item::read(text) {
            Ok(item) => item,
            Err(unfit) => {
                let reason = format!("{}{}", unfit.reason, at(unfit.pointer));
                self.reject(unfit.code, unfit.id, reason);
                return Ok(());
            }
        };
        let shard = shard(&(&item.collection, &item.id), self.shards.len());
        let shard = &mut self.shards[shard];
        let number = {
            let mut state = locked(&self.state);
            let number = state.take();
            if shard.batch.is_empty() {
                state.open.insert(number);
            }
            number
        };
        shard.bytes += item.text.len();
        shard.batch.push(Numbered { number, item });
        if shard.batch.len() < BATCH_MAX && shard.bytes < BATCH_BYTES_MAX {
            return Ok(());
        }
        shard.bytes = 0;
        let batch = std::mem::take(&mut shard.batch);
        if shard.to.send(batch).await.is_err() {
            return Err(self.failure().await);
        }
        Ok(())
    }

    /// Takes a collection's JSON text, before the items that follow it.
    ///
    /// # Errors
    /// [`CatalogueError`], where the load cannot go on.
    pub async fn collection(&mut self, text: &str) -> Result<(), CatalogueError> {
        let loaded = self.catalogue.load_collection(text).await;
        let mut state = locked(&self.state);
        let number = state.take();
        match loaded {
            Ok(()) => state.progress.loaded += 1,
            Err(CatalogueError::Refused { code, message, .. }) => {
                state.progress.rejected.push(Rejected { number, id: None, code, reason: message });
            }
            Err(error) => return Err(error),
        }
        state.settle();
        Ok(())
    }

    /// Waits until all is settled, and widens the extents of the collections.
    ///
    /// # Errors
    /// [`CatalogueError`], where the load could not be finished.
    pub async fn finish(mut self) -> Result<Progress, CatalogueError> {
        for shard in std::mem::take(&mut self.shards) {
            if !shard.batch.is_empty() && shard.to.send(shard.batch).await.is_err() {
                return Err(self.failure().await);
            }
        }
        let mut extents = std::mem::take(&mut self.extents);
        while let Some(ended) = self.workers.join_next().await {
            extents.extend(&ended.map_err(|error| CatalogueError::Unavailable(error.to_string()))??);
        }
        self.catalogue.widen(&extents).await?;
        Ok(self.progress())
    }

    /// Why a worker has ended before its time.
    async fn failure(&mut self) -> CatalogueError {
        while let Some(ended) = self.workers.join_next().await {
            if let Ok(Err(error)) = ended {
                return error;
            }
        }
        CatalogueError::Unavailable("a worker has ended".into())
    }
}

fn at(pointer: &str) -> String {
    if pointer.is_empty() { String::new() } else { format!(" (at {pointer})") }
}

/// Loads one shard's batches, one after the other.
async fn work(
    catalogue: PostgresCatalogue,
    mut from: mpsc::Receiver<Vec<Numbered>>,
    state: Arc<Mutex<State>>,
) -> Result<Extents, CatalogueError> {
    let mut extents = Extents::default();
    while let Some(batch) = from.recv().await {
        let results = load(&catalogue, &batch).await?;
        let mut state = locked(&state);
        for (numbered, result) in batch.iter().zip(results) {
            match result {
                None => {
                    state.progress.loaded += 1;
                    extents.add(&numbered.item);
                }
                Some((code, reason)) => {
                    let id = Some(numbered.item.id.clone());
                    state.progress.rejected.push(Rejected { number: numbered.number, id, code, reason });
                }
            }
        }
        if let Some(first) = batch.first() {
            state.open.remove(&first.number);
        }
        state.settle();
    }
    Ok(extents)
}

type Refused = Option<(Code, String)>;

/// Loads a batch; says of each item why it is refused, where it is.
async fn load(catalogue: &PostgresCatalogue, batch: &[Numbered]) -> Result<Vec<Refused>, CatalogueError> {
    let mut results: Vec<Refused> = vec![None; batch.len()];
    let mut pending: Vec<usize> = (0..batch.len()).collect();
    loop {
        let attempt = |indices: Vec<usize>| async move {
            let items: Vec<&Item> = indices.iter().map(|&index| &batch[index].item).collect();
            Attempt::of(catalogue.load(&items).await.map(|()| indices))
        };
        let mut missing = None;
        for (index, result) in by_halves(pending.clone(), attempt).await {
            match result {
                Ok(_) => {}
                Err(CatalogueError::Refused { code, message, .. }) => results[index] = Some((code, message)),
                Err(CatalogueError::Missing(collection)) => missing = Some(collection),
                Err(error) => return Err(error),
            }
        }
        // The rest of the batch goes in without the items of a collection that is not there.
        let Some(collection) = missing else { return Ok(results) };
        pending.retain(|&index| {
            let there = batch[index].item.collection != collection;
            if !there {
                let reason = format!("there is no collection {collection:?}: load it first");
                results[index] = Some((codes::LOAD_COLLECTION_MISSING, reason));
            }
            there && results[index].is_none()
        });
        if pending.is_empty() {
            return Ok(results);
        }
    }
}

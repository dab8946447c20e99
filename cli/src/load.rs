//! `landfall load`: files of STAC into the catalogue, past the pipeline.

mod documents;
mod journal;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use landfall_events::codes;
use landfall_load::bulk::{Bulk, Progress, Rejected};
use landfall_shared::catalogue::PostgresCatalogue;
use tokio::sync::mpsc;

use crate::deployment::{Database, Place};
use crate::output::{self, End, Format, SetUp};
use documents::Document;
use journal::{Journal, Known};

/// What is loaded.
#[derive(Debug, Clone, clap::Args)]
pub struct Load {
    /// Items and collections as ndjson, JSON, item collections, also .gz; - is standard input. A collection must come
    /// before its items
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    database: Database,
    /// Connections that load at a time
    #[arg(long, short = 'n', default_value_t = 4)]
    connections: usize,
    /// Begin anew, where an earlier load of the same files was interrupted
    #[arg(long)]
    anew: bool,
}

/// How often what is done is written down and shown.
const TICK: Duration = Duration::from_millis(500);

/// The most rejected documents that are told one by one.
const REJECTED_MAX: usize = 1000;

/// Runs the command.
///
/// # Errors
/// [`SetUp`] where a file cannot be read or the database not be reached.
pub async fn run(load: &Load, place: &Place, format: Format) -> anyhow::Result<End> {
    let total = documents::bytes(&load.files)?;
    let catalogue = load.database.catalogue(place, load.connections.max(1)).await?;
    let database = catalogue.identity().await.map_err(set_up)?;
    let journal = Journal::open(&place.state, &load.files, &database)?;
    let before = if load.anew { Known::default() } else { journal.known() };
    if before.settled > 0 {
        eprintln!(
            "landfall: going on after {} documents that an earlier load has settled, {} of them refused (--anew begins \
             anew)",
            before.settled, before.refused
        );
    }
    let begun = Instant::now();
    let files = load.files.clone();
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}")?;
    let bar = total.map_or_else(ProgressBar::new_spinner, |total| ProgressBar::new(total).with_style(style));
    let (to, from) = mpsc::channel(256);
    let reading = bar.clone();
    let reader = std::thread::spawn(move || documents::read(&files, &reading, &to));
    let mut told = Told::after(before, format);
    let ended = feed(catalogue, load, from, &bar, &journal, &mut told).await;
    bar.finish_and_clear();
    let read = reader.join().map_err(|_| anyhow::anyhow!("the reader has panicked"))?;
    if let Err(error) = ended {
        let settled = told.known.settled;
        if settled == 0 {
            return Err(error);
        }
        journal.write(told.known)?;
        return Err(error.context(format!("{settled} documents are settled; the same command goes on after them")));
    }
    read?;
    journal.remove()?;
    told.end(begun.elapsed())
}

async fn feed(
    catalogue: PostgresCatalogue,
    load: &Load,
    mut from: mpsc::Receiver<Document>,
    bar: &ProgressBar,
    journal: &Journal,
    told: &mut Told,
) -> anyhow::Result<()> {
    let skip = told.known.settled;
    let mut bulk = Bulk::begin(catalogue, load.connections, skip);
    let (mut number, mut ticked) = (0, Instant::now());
    while let Some(document) = from.recv().await {
        number += 1;
        if number <= skip {
            if let Document::Item(text) = document {
                bulk.settled(text);
            }
            continue;
        }
        match document {
            Document::Item(text) => bulk.item(text).await.map_err(set_up)?,
            Document::Collection(text) => bulk.collection(&text).await.map_err(set_up)?,
            Document::Unreadable(why) => bulk.reject(codes::LOAD_JSON, None, why),
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            told.take(bulk.progress(), bar)?;
            journal.write(told.known)?;
        }
    }
    told.take(bulk.finish().await.map_err(set_up)?, bar)
}

/// What an operator must mend ends the command with 2.
fn set_up(error: landfall_shared::catalogue::CatalogueError) -> anyhow::Error {
    SetUp(error.to_string()).into()
}

/// What is said of a load.
struct Told {
    /// What earlier loads of the same files have settled.
    before: Known,
    known: Known,
    /// The numbers of what was refused and is not settled yet, because something before it is under way.
    ahead: BTreeSet<u64>,
    rejected: Vec<Rejected>,
    count: u64,
    loaded: u64,
    format: Format,
}

impl Told {
    fn after(before: Known, format: Format) -> Self {
        let (ahead, rejected) = (BTreeSet::new(), Vec::new());
        let loaded = before.settled - before.refused;
        Self { before, known: before, ahead, rejected, count: before.refused, loaded, format }
    }

    fn take(&mut self, progress: Progress, bar: &ProgressBar) -> anyhow::Result<()> {
        self.loaded = self.before.settled - self.before.refused + progress.loaded;
        bar.set_message(format!("{} loaded", self.loaded));
        self.ahead.extend(progress.rejected.iter().map(|one| one.number));
        let later = self.ahead.split_off(&(progress.settled + 1));
        self.known.refused += std::mem::replace(&mut self.ahead, later).len() as u64;
        self.known.settled = progress.settled;
        for one in progress.rejected {
            self.count += 1;
            if self.rejected.len() >= REJECTED_MAX {
                continue;
            }
            if self.format == Format::Human {
                let id = one.id.as_deref().map(|id| format!(" {}", output::visible(id))).unwrap_or_default();
                let line = format!("{}  document {}{id}: {}", one.code, one.number, output::visible(&one.reason));
                bar.suspend(|| output::line(&line))?;
            }
            self.rejected.push(one);
        }
        Ok(())
    }

    fn end(self, took: Duration) -> anyhow::Result<End> {
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = (self.loaded + self.before.refused - self.before.settled) as f64 / took.as_secs_f64().max(1e-3);
        match self.format {
            Format::Json => {
                let rejected = self.rejected.iter().map(|one| {
                    serde_json::json!({"document": one.number, "id": one.id, "code": one.code, "reason": one.reason})
                });
                output::json(
                    &serde_json::json!({"loaded": self.loaded, "refused": self.count, "seconds": took.as_secs_f64(),
                    "problems": rejected.collect::<Vec<_>>()}),
                )?;
            }
            Format::Human => {
                let told = self.before.refused + self.rejected.len() as u64;
                if self.count > told {
                    output::line(&format!("… and {} more", self.count - told))?;
                }
                let line = format!(
                    "{} loaded, {} refused, {:.1} s ({rate:.0}/s)",
                    self.loaded,
                    self.count,
                    took.as_secs_f64()
                );
                output::line(&line)?;
            }
        }
        Ok(if self.count == 0 { End::Good } else { End::Problems })
    }
}

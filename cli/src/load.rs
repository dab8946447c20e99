//! `landfall load`: files of STAC into the catalogue, past the pipeline.

mod documents;
mod journal;

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
use journal::Journal;

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
    let catalogue = load.database.catalogue(place, load.connections.max(1)).await?;
    let journal = Journal::open(&place.state, &load.files)?;
    let skip = if load.anew { 0 } else { journal.settled() };
    if skip > 0 {
        eprintln!("landfall: going on after {skip} documents that an earlier load has settled (--anew begins anew)");
    }
    let begun = Instant::now();
    let (total, files) = (documents::bytes(&load.files)?, load.files.clone());
    let style = ProgressStyle::with_template("{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {msg}")?;
    let bar = total.map_or_else(ProgressBar::new_spinner, |total| ProgressBar::new(total).with_style(style));
    let (to, from) = mpsc::channel(256);
    let reading = bar.clone();
    let reader = std::thread::spawn(move || documents::read(&files, &reading, &to));
    let mut told = Told { rejected: Vec::new(), count: 0, loaded: 0, settled: skip, format };
    let ended = feed(catalogue, load, skip, from, &bar, &journal, &mut told).await;
    bar.finish_and_clear();
    let read = reader.join().map_err(|_| anyhow::anyhow!("the reader has panicked"))?;
    if let Err(error) = ended {
        journal.write(told.settled)?;
        return Err(
            error.context(format!("{} documents are settled; the same command goes on after them", told.settled))
        );
    }
    read?;
    journal.remove()?;
    told.end(begun.elapsed())
}

async fn feed(
    catalogue: PostgresCatalogue,
    load: &Load,
    skip: u64,
    mut from: mpsc::Receiver<Document>,
    bar: &ProgressBar,
    journal: &Journal,
    told: &mut Told,
) -> anyhow::Result<()> {
    let mut bulk = Bulk::begin(catalogue, load.connections, skip);
    let (mut number, mut ticked) = (0, Instant::now());
    while let Some(document) = from.recv().await {
        number += 1;
        if number <= skip {
            continue;
        }
        match document {
            Document::Item(text) => bulk.item(text).await.map_err(set_up)?,
            Document::Collection(text) => bulk.collection(&text).await.map_err(set_up)?,
            Document::Unreadable(why) => bulk.reject(codes::LOAD_JSON, why),
        }
        if ticked.elapsed() >= TICK {
            ticked = Instant::now();
            told.take(bulk.progress(), bar)?;
            journal.write(told.settled)?;
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
    rejected: Vec<Rejected>,
    count: u64,
    loaded: u64,
    settled: u64,
    format: Format,
}

impl Told {
    fn take(&mut self, progress: Progress, bar: &ProgressBar) -> anyhow::Result<()> {
        self.loaded = progress.loaded;
        self.settled = progress.settled;
        bar.set_message(format!("{} loaded", progress.loaded));
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
        let rate = self.loaded as f64 / took.as_secs_f64().max(1e-3);
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
                if self.count > self.rejected.len() as u64 {
                    output::line(&format!("… and {} more", self.count - self.rejected.len() as u64))?;
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

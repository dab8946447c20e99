//! The notify stage: the ledger is told, then the subscribers.
//!
//! It publishes what is still the newest, and refuses to announce what something newer has superseded.

use std::sync::Arc;

use jiff::Timestamp;
use landfall_events::{Envelope, EventId, Never, Notice, Refusal, Report, codes};
use landfall_shared::catalogue::{Catalogue, CatalogueError, Standing};
use landfall_shared::stage::{Class, Failure, Outcome, Stage};
use landfall_shared::topic::{TopicError, Topics};
use landfall_shared::worker::Surroundings;
use tracing::info;

/// The stage.
pub struct Notify {
    catalogue: Arc<dyn Catalogue>,
    topics: Arc<dyn Topics>,
}

/// Why it could not decide.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The ledger did not do as asked.
    #[error("could not record")]
    Record(#[source] CatalogueError),
    /// The topic did not take the notice.
    #[error("could not announce")]
    Publish(#[source] TopicError),
}

impl Failure for Error {
    fn class(&self) -> Class {
        match self {
            Self::Record(source) => source.class(),
            Self::Publish(TopicError::Unavailable(_)) => Class::Transient,
            // The same bytes would be refused again.
            Self::Publish(TopicError::Refused(_)) => Class::Permanent,
        }
    }

    fn refusal(&self) -> Refusal {
        match self {
            Self::Record(source) => Refusal::new(codes::LOAD_REFUSED, source.to_string()),
            Self::Publish(source) => Refusal::new(codes::DELIVERY_UNSENDABLE, source.to_string()),
        }
    }
}

impl Stage for Notify {
    type Input = Report;
    type Output = Never;
    type Error = Error;

    const NAME: &'static str = "notify";

    async fn handle(&self, batch: &[Envelope<Report>], _now: Timestamp) -> Vec<Result<Outcome<Self>, Error>> {
        match self.announce(batch).await {
            // One report that the ledger cannot hold must not hold the others up.
            Err(error) if error.class() == Class::Permanent && batch.len() > 1 => {
                let mut results = Vec::with_capacity(batch.len());
                for report in batch {
                    let one = self.announce(std::slice::from_ref(report)).await;
                    results.push(one.and_then(|mut one| one.pop().expect("there is one result for one report")));
                }
                results
            }
            Ok(results) => results,
            Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
        }
        .into_iter()
        .map(|result| result.map(|()| Outcome::nothing()))
        .collect()
    }

    async fn ready(&self) -> Result<(), Error> {
        self.catalogue.ready().await.map_err(Error::Record)
    }
}

impl Notify {
    /// Builds the stage on what surrounds it.
    ///
    /// # Errors
    /// Where the catalogue or a topic is not configured.
    pub fn new(surroundings: &Surroundings) -> anyhow::Result<Self> {
        Ok(Self::with(surroundings.catalogue()?, surroundings.topics()?))
    }

    /// Builds the stage on ports.
    pub fn with(catalogue: Arc<dyn Catalogue>, topics: Arc<dyn Topics>) -> Self {
        Self { catalogue, topics }
    }

    /// Records all, publishes what stands, and records that it was published.
    async fn announce(&self, reports: &[Envelope<Report>]) -> Result<Vec<Result<(), Error>>, Error> {
        let standings = self.catalogue.record(reports, None).await.map_err(Error::Record)?;
        let mut results = vec![Ok(()); reports.len()];
        let mut notices = Vec::new();
        let mut of_notice = Vec::new();
        for (index, (report, standing)) in reports.iter().zip(standings).enumerate() {
            match (standing, Notice::of(report)) {
                (Standing::Current, Some(notice)) => {
                    notices.push(notice);
                    of_notice.push(index);
                }
                (Standing::Current, None) | (Standing::Announced, _) => {}
                (Standing::Superseded, _) => info!(event.id = %report.id, "superseded, not announced"),
            }
        }
        if notices.is_empty() {
            return Ok(results);
        }
        let published = self.topics.publish(&notices).await;
        let mut announced: Vec<EventId> = Vec::new();
        for ((index, notice), result) in of_notice.into_iter().zip(&notices).zip(published) {
            match result {
                Ok(()) => announced.push(notice.id.clone()),
                Err(error) => results[index] = Err(Error::Publish(error)),
            }
        }
        self.catalogue.announced(&announced).await.map_err(Error::Record)?;
        Ok(results)
    }
}

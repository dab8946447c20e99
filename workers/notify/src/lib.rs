//! The notify stage: the ledger is told, then the subscribers.
//!
//! It publishes what is still the newest and what its receivers will find: the catalogue is searched as they do, and what
//! was routed is looked at. It refuses to announce what something newer has superseded. What is announced, it clears from
//! landing where the configuration says so; never before, and nothing that was written since. What has become of each
//! object is written for its provider too.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use landfall_events::notice::Style;
use landfall_events::report::Effect;
use landfall_events::routed::RoutedObject;
use landfall_events::status::{Outcome, Passed};
use landfall_events::{Cause, Envelope, Event, EventId, Never, Notice, Refusal, Report, codes};
use landfall_shared::catalogue::{Catalogue, CatalogueError, Claim, Recorded, Standing};
use landfall_shared::config::{AfterRoute, Landings, Notices};
use landfall_shared::metrics;
use landfall_shared::objects::{Objects, ObjectsError};
use landfall_shared::stage::{self, Class, Failure, Stage, Wait};
use landfall_shared::statuses::Statuses;
use landfall_shared::topic::{TopicError, Topics};
use landfall_shared::worker::Surroundings;
use tracing::{info, warn};

/// The stage.
pub struct Notify {
    catalogue: Arc<dyn Catalogue>,
    topics: Arc<dyn Topics>,
    objects: Arc<dyn Objects>,
    statuses: Statuses,
    landings: Landings,
    style: Style,
    assets_max: usize,
}

/// Routed objects that are looked at a time.
const CONCURRENCY: usize = 32;

/// The tag of a landed object that is completed.
const TAG: (&str, &str) = ("landfall", "completed");

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html>
const TAGS_MAX: usize = 10;

/// Why it could not decide.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The ledger did not do as asked.
    #[error("could not record")]
    Record(#[source] CatalogueError),
    /// What it would say is not so yet.
    #[error("what is to be announced cannot be found: {0}")]
    Unproven(String),
    /// A routed object could not be looked at.
    #[error("could not look at what was routed")]
    Look(#[source] ObjectsError),
    /// The topic did not take the notice.
    #[error("could not announce")]
    Publish(#[source] TopicError),
    /// The provider could not be told.
    #[error("could not write the provider's status")]
    Tell(#[source] ObjectsError),
    /// A completed object could not be cleared from landing.
    #[error("could not clear what is completed")]
    Clear(#[source] ObjectsError),
}

impl Failure for Error {
    fn class(&self) -> Class {
        match self {
            Self::Record(source) => source.class(),
            Self::Publish(TopicError::Unavailable(_)) => Class::Transient,
            // The same bytes would be refused again.
            Self::Publish(TopicError::Refused(_)) => Class::Permanent,
            Self::Unproven(_) => Class::Transient,
            Self::Look(source) | Self::Tell(source) | Self::Clear(source) => source.class(),
        }
    }

    fn refusal(&self) -> Refusal {
        match self {
            Self::Record(source) => Refusal::new(codes::LOAD_REFUSED, source.to_string()),
            Self::Publish(source) => Refusal::new(codes::DELIVERY_UNSENDABLE, source.to_string()),
            Self::Unproven(_) => Refusal::new(codes::NOTIFY_NOT_FOUND, self.to_string()),
            Self::Look(source) => Refusal::new(codes::NOTIFY_NOT_FOUND, source.to_string()),
            Self::Tell(source) | Self::Clear(source) => Refusal::new(codes::GAVE_UP, source.to_string()),
        }
    }
}

impl Stage for Notify {
    type Input = Report;
    type Output = Never;
    type Error = Error;

    const NAME: &'static str = "notify";

    async fn handle(&self, batch: &[Envelope<Report>], now: Timestamp) -> Vec<Result<stage::Outcome<Self>, Error>> {
        match self.announce(batch, now).await {
            // One report that the ledger cannot hold must not hold the others up.
            Err(error) if error.class() == Class::Permanent && batch.len() > 1 => {
                let mut results = Vec::with_capacity(batch.len());
                for report in batch {
                    let one = self.announce(std::slice::from_ref(report), now).await;
                    results.push(one.and_then(|mut one| one.pop().expect("there is one result for one report")));
                }
                results
            }
            Ok(results) => results,
            Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
        }
        .into_iter()
        .map(|result| match result {
            Ok(()) => Ok(stage::Outcome::nothing()),
            // It is looked at again, until the deadline.
            Err(error @ Error::Unproven(_)) => {
                Ok(stage::Outcome::Wait(Wait { waits_for: vec![error.to_string()], refusal: error.refusal() }))
            }
            Err(error) => Err(error),
        })
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
        let (objects, landings) = (surroundings.objects.clone(), surroundings.landings.clone());
        let catalogue = Arc::new(surroundings.catalogue()?);
        let (topics, work) = (surroundings.topics()?, &surroundings.work_bucket);
        Ok(Self::with(catalogue, topics, objects, work, landings, &surroundings.config.notify))
    }

    /// Builds the stage on ports.
    pub fn with(
        catalogue: Arc<dyn Catalogue>,
        topics: Arc<dyn Topics>,
        objects: Arc<dyn Objects>,
        work_bucket: &str,
        landings: Landings,
        notices: &Notices,
    ) -> Self {
        let (style, assets_max) = (notices.style(), notices.assets_max);
        let statuses = Statuses::new(objects.clone(), work_bucket);
        Self { catalogue, topics, objects, statuses, landings, style, assets_max }
    }

    /// Records all, publishes what stands and can be found, records that it was published, and tells the providers.
    async fn announce(&self, reports: &[Envelope<Report>], now: Timestamp) -> Result<Vec<Result<(), Error>>, Error> {
        let recorded = self.catalogue.record(reports, None).await.map_err(Error::Record)?;
        let mut results = vec![Ok(()); reports.len()];
        let (mut current, mut settled) = (Vec::new(), Vec::new());
        for (index, (report, recorded)) in reports.iter().zip(&recorded).enumerate() {
            match recorded.standing {
                Standing::Current => current.push(index),
                Standing::Announced => settled.push(index),
                Standing::Superseded => {
                    metrics::superseded();
                    info!(event.id = %report.id, "superseded, not announced");
                }
            }
        }
        let (mut notices, mut of_notice) = (Vec::new(), Vec::new());
        for (index, proven) in current.iter().zip(self.prove(reports, &current).await?) {
            match (proven, Notice::of(&reports[*index], &self.style)) {
                (Ok(()), Some(notice)) => {
                    notices.push(notice);
                    of_notice.push(*index);
                }
                (Ok(()), None) => {}
                (Err(error), _) => results[*index] = Err(error),
            }
        }
        if !notices.is_empty() {
            let published = self.topics.publish(&notices).await;
            let mut announced: Vec<EventId> = Vec::new();
            for ((index, notice), result) in of_notice.into_iter().zip(&notices).zip(published) {
                match result {
                    Ok(()) => {
                        announced.push(notice.id.clone());
                        settled.push(index);
                    }
                    Err(error) => results[index] = Err(Error::Publish(error)),
                }
            }
            self.catalogue.announced(&announced).await.map_err(Error::Record)?;
        }
        self.tell(reports, recorded, &settled, &mut results, now).await;
        self.clear(reports, &settled, &mut results).await?;
        Ok(results)
    }

    /// Writes what has become of each for its provider. What is still under way is not told.
    async fn tell(
        &self,
        reports: &[Envelope<Report>],
        recorded: Vec<Recorded>,
        settled: &[usize],
        results: &mut [Result<(), Error>],
        now: Timestamp,
    ) {
        let mut statuses = Vec::new();
        for (index, (report, recorded)) in reports.iter().zip(recorded).enumerate() {
            let Some(mut row) = recorded.row.filter(|_| results[index].is_ok()) else { continue };
            if row.event == report.id {
                row.passed.clone_from(&report.passed);
                row.announced = row.announced.or_else(|| settled.contains(&index).then_some(now));
            }
            row.passed.extend(row.announced.map(|at| Passed { stage: Self::NAME.to_owned(), at }));
            let outcome = row.outcome(false);
            if outcome != Outcome::InFlight && !row.is_left() && !row.provider.is_empty() {
                statuses.push((index, row.status(outcome, now)));
            }
        }
        let writes: Vec<_> =
            statuses.iter().map(|(index, status)| async { (*index, self.statuses.write(status).await) }).collect();
        let written: Vec<_> = futures::stream::iter(writes).buffer_unordered(CONCURRENCY).collect().await;
        for (index, result) in written {
            if let Err(error) = result {
                results[index] = Err(Error::Tell(error));
            }
        }
    }

    /// Looks whether receivers of these reports' notices will find what they say.
    async fn prove(&self, reports: &[Envelope<Report>], current: &[usize]) -> Result<Vec<Result<(), Error>>, Error> {
        let claims: Vec<Option<Claim>> = current.iter().map(|&index| claim(&reports[index].event)).collect();
        let asked: Vec<Claim> = claims.iter().flatten().cloned().collect();
        let answers =
            if asked.is_empty() { Vec::new() } else { self.catalogue.prove(&asked).await.map_err(Error::Record)? };
        let mut answers = answers.into_iter();
        let mut proofs = Vec::with_capacity(current.len());
        for (&index, claim) in current.iter().zip(claims) {
            let report = &reports[index].event;
            let holds = claim.is_none_or(|_| answers.next().expect("there is one answer for each claim"));
            proofs.push(if holds {
                self.look(report).await
            } else {
                Err(Error::Unproven(format!("the catalogue does not answer so for {}", report.cause().object)))
            });
        }
        Ok(proofs)
    }

    /// Looks at what was routed: it must be there, and as large as it was written.
    async fn look(&self, report: &Report) -> Result<(), Error> {
        let routed = match report {
            Report::Item(loaded) => loaded.assets.as_slice(),
            Report::Object(routed) => std::slice::from_ref(&routed.destination),
            Report::Collection(_) | Report::Refused(_) | Report::Waiting(_) | Report::Ignored(_) => &[],
        };
        let step = routed.len().div_ceil(self.assets_max.max(1)).max(1);
        let some = if self.assets_max == 0 { &[] } else { routed };
        let looks: Vec<_> = some.iter().step_by(step).map(|asset| self.look_at(asset)).collect();
        futures::stream::iter(looks).buffer_unordered(CONCURRENCY).try_collect::<()>().await
    }

    async fn look_at(&self, routed: &RoutedObject) -> Result<(), Error> {
        match self.objects.head(&routed.object).await.map_err(Error::Look)? {
            Some(there) if there.size == routed.size => Ok(()),
            Some(there) => {
                let (object, has, written) = (&routed.object, there.size, routed.size);
                Err(Error::Unproven(format!("{object} has {has} bytes, and {written} were written")))
            }
            None => Err(Error::Unproven(format!("{} is gone", routed.object))),
        }
    }

    /// Removes or marks the landed objects of what is announced, where the configuration says so. The ledger is told
    /// before it, so that the removal is not taken for the provider's.
    async fn clear(
        &self,
        reports: &[Envelope<Report>],
        settled: &[usize],
        results: &mut [Result<(), Error>],
    ) -> Result<(), Error> {
        let wanted = settled.iter().filter_map(|&index| {
            let cause = completed(&reports[index].event)?;
            let after = self.landings.site(&cause.object)?.after_route;
            (after != AfterRoute::Keep).then_some((index, cause, after))
        });
        let wanted: Vec<_> = wanted.collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let deleted = wanted.iter().filter(|(.., after)| *after == AfterRoute::Delete);
        let deleted: Vec<EventId> = deleted.map(|(index, ..)| reports[*index].id.clone()).collect();
        let clearing = if deleted.is_empty() {
            Vec::new()
        } else {
            self.catalogue.clearing(&deleted).await.map_err(Error::Record)?
        };
        for (index, cause, after) in wanted {
            let id = &reports[index].id;
            let done = match after {
                AfterRoute::Delete if clearing.contains(id) => self.delete(id, cause).await,
                AfterRoute::Tag => self.tag(cause).await,
                AfterRoute::Delete | AfterRoute::Keep => Ok(()),
            };
            if let Err(error) = done {
                results[index] = Err(error);
            }
        }
        Ok(())
    }

    /// Deletes what was completed, and nothing that was written since.
    async fn delete(&self, id: &EventId, cause: &Cause) -> Result<(), Error> {
        match self.objects.delete(&cause.object, cause.etag.as_deref()).await {
            Ok(()) => Ok(()),
            // It was overwritten, or was deleted by an earlier try, which a condition does not tell apart.
            Err(ObjectsError::Changed(object)) => match self.objects.head(&object).await.map_err(Error::Clear)? {
                Some(_) => self.catalogue.not_cleared(id).await.map_err(Error::Record),
                None => Ok(()),
            },
            Err(error) => Err(Error::Clear(error)),
        }
    }

    /// Tags what was completed. S3 has no condition for that: what is overwritten in this moment is tagged too early,
    /// and is completed a moment later.
    async fn tag(&self, cause: &Cause) -> Result<(), Error> {
        let Some(there) = self.objects.head(&cause.object).await.map_err(Error::Clear)? else { return Ok(()) };
        if cause.etag.as_ref().is_some_and(|etag| *etag != there.etag) {
            return Ok(());
        }
        let mut tags = self.objects.tags(&cause.object).await.map_err(Error::Clear)?;
        if tags.insert(TAG.0.to_owned(), TAG.1.to_owned()).as_deref() == Some(TAG.1) {
            return Ok(());
        }
        if tags.len() > TAGS_MAX {
            warn!(object.key = cause.object.key, "has as many tags as there can be, and is not tagged as completed");
            return Ok(());
        }
        self.objects.set_tags(&cause.object, &tags).await.map_err(Error::Clear)
    }
}

/// What a report's notice says of the catalogue; `None` where it says nothing of it.
fn claim(report: &Report) -> Option<Claim> {
    match report {
        Report::Item(loaded) => {
            let (collection, item) = (loaded.collection.clone(), loaded.item.clone());
            Some(match loaded.effect {
                Effect::Deleted => Claim::NoItem { collection, item },
                Effect::Created | Effect::Replaced => Claim::Item { collection, item, place: loaded.place.clone() },
            })
        }
        Report::Collection(loaded) if loaded.effect != Effect::Deleted => {
            Some(Claim::Collection { collection: loaded.collection.clone() })
        }
        Report::Collection(_) | Report::Object(_) | Report::Refused(_) | Report::Waiting(_) | Report::Ignored(_) => {
            None
        }
    }
}

/// The landed object that a report completes as a whole. A member of a file completes no file.
fn completed(report: &Report) -> Option<&Cause> {
    let is_there = match report {
        Report::Item(loaded) => loaded.effect != Effect::Deleted,
        Report::Collection(loaded) => loaded.effect != Effect::Deleted,
        Report::Object(_) => true,
        Report::Refused(_) | Report::Waiting(_) | Report::Ignored(_) => false,
    };
    let cause = report.cause();
    (is_there && cause.member.is_none() && cause.etag.is_some()).then_some(cause)
}

//! What has become of each landed object, in the work bucket: what a provider may read with rights on S3 alone.

use std::sync::Arc;

use bytes::Bytes;
use landfall_events::{ObjectRef, Status};
use tracing::warn;

use crate::objects::{Objects, ObjectsError, Over, Properties};

/// The statuses in the work bucket.
#[derive(Clone)]
pub struct Statuses {
    objects: Arc<dyn Objects>,
    work_bucket: String,
}

/// The most bytes of one that are read.
pub const BYTES_MAX: u64 = 1024 * 1024;

/// How often another writer may come between a look and a write.
const TRIES_MAX: usize = 8;

impl Statuses {
    /// Statuses in this work bucket.
    pub fn new(objects: Arc<dyn Objects>, work_bucket: &str) -> Self {
        Self { objects, work_bucket: work_bucket.to_owned() }
    }

    /// Writes a status, unless a newer or more final one of the same object or member is there.
    ///
    /// # Errors
    /// [`ObjectsError`]; [`ObjectsError::Changed`] where others keep coming between.
    pub async fn write(&self, status: &Status) -> Result<(), ObjectsError> {
        let object = ObjectRef::new(&self.work_bucket, status.kept_at());
        let body = Bytes::from(serde_json::to_vec(status).expect("a status has string keys and finite numbers only"));
        let properties = Properties::of_type("application/json");
        let mut over = None;
        for _ in 0..TRIES_MAX {
            let over_what = over.as_deref().map_or(Over::Nothing, Over::This);
            match self.objects.put(&object, body.clone(), &properties, over_what).await {
                Err(ObjectsError::Changed(_)) => {}
                done => return done.map(|_| ()),
            }
            match self.objects.get(&object, None, BYTES_MAX).await {
                Ok((before, info)) => {
                    let before = serde_json::from_slice::<Status>(&before);
                    if before.is_err() {
                        warn!(%object, "what is there is no status, and is written over");
                    }
                    if before.is_ok_and(|before| before == *status || !status.replaces(&before)) {
                        return Ok(());
                    }
                    over = Some(info.etag);
                }
                // It was removed between the two.
                Err(ObjectsError::Missing(_)) => over = None,
                Err(error) => return Err(error),
            }
        }
        Err(ObjectsError::Changed(object))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use landfall_events::status::Outcome;
    use landfall_events::{Cause, Change, Sequencer};

    use super::*;
    use crate::memory::MemoryObjects;

    fn status(sequencer: &str, outcome: Outcome) -> Status {
        let cause = Cause {
            object: ObjectRef::new("landing", "sbn/a b"),
            change: Change::Created,
            version_id: None,
            etag: Some("e".into()),
            size: Some(1),
            sequencer: Some(Sequencer::try_from(sequencer.to_owned()).unwrap()),
            event_time: Timestamp::UNIX_EPOCH,
            member: None,
            members: None,
        };
        Status::new(cause, "sbn", outcome)
    }

    #[tokio::test]
    async fn the_newest_and_most_final_stays_in_whatever_order_they_come() {
        let objects = Arc::new(MemoryObjects::new(Arc::default()));
        let statuses = Statuses::new(objects.clone(), "work");
        let (waiting, completed) = (status("1", Outcome::Waiting), status("1", Outcome::Completed));
        let (newer, object) = (status("2", Outcome::Refused), ObjectRef::new("work", completed.kept_at()));
        let held = async || {
            let (body, _) = objects.get(&object, None, BYTES_MAX).await.unwrap();
            serde_json::from_slice::<Status>(&body).unwrap()
        };
        for (written, expected) in [
            (&waiting, &waiting),
            (&completed, &completed),
            (&waiting, &completed),
            (&newer, &newer),
            (&completed, &newer),
        ] {
            statuses.write(written).await.unwrap();
            assert_eq!(held().await, *expected);
        }
    }

    #[tokio::test]
    async fn what_is_no_status_is_written_over() {
        let objects = Arc::new(MemoryObjects::new(Arc::default()));
        let one = status("1", Outcome::Completed);
        let object = ObjectRef::new("work", one.kept_at());
        objects.put(&object, Bytes::from_static(b"{"), &Properties::default(), Over::Anything).await.unwrap();
        Statuses::new(objects.clone(), "work").write(&one).await.unwrap();
        let (body, _) = objects.get(&object, None, BYTES_MAX).await.unwrap();
        assert_eq!(serde_json::from_slice::<Status>(&body).unwrap(), one);
    }
}

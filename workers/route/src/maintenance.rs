//! What a crash between any two calls may leave behind: uploads in parts that nobody goes on with.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use landfall_shared::objects::{Objects, ObjectsError, OpenUpload};

use crate::work::{OpenCopy, Work};

/// What a sweep found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Uploads that are open and young enough to be gone on with.
    pub open: Vec<OpenUpload>,
    /// Uploads that were aborted, or would be.
    pub stale: Vec<OpenUpload>,
}

/// Whether a sweep changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// It only looks.
    Look,
    /// It aborts what is stale.
    Abort,
}

/// Looks for uploads that were begun before `now - age`, and aborts them: those that we have written down, wherever they
/// go to, and all that are open in `buckets`, which are ours alone.
///
/// # Errors
/// The object store's.
pub async fn sweep(
    objects: Arc<dyn Objects>,
    work_bucket: &str,
    buckets: &[String],
    age: SignedDuration,
    now: Timestamp,
    how: Sweep,
) -> Result<Swept, ObjectsError> {
    let work = Work::new(objects.clone(), work_bucket);
    let mut swept = Swept::default();
    let is_stale = |upload: &OpenUpload| upload.begun.is_none_or(|begun| now.duration_since(begun) > age);
    // What we have written down, wherever it goes to; then what a crash has kept from being written down.
    let written = work.open_copies().await?;
    let upload =
        |open: &OpenCopy| OpenUpload { object: open.to.clone(), upload: open.upload.clone(), begun: Some(open.begun) };
    let mut found: Vec<(OpenUpload, Option<&OpenCopy>)> =
        written.iter().map(|open| (upload(open), Some(open))).collect();
    for bucket in buckets {
        let others = objects.uploads(bucket).await?;
        found.extend(
            others
                .into_iter()
                .filter(|other| written.iter().all(|open| open.upload != other.upload))
                .map(|other| (other, None)),
        );
    }
    for (upload, written) in found {
        if !is_stale(&upload) {
            swept.open.push(upload);
            continue;
        }
        if how == Sweep::Abort {
            objects.abort(&upload.object, &upload.upload).await?;
            if let Some(open) = written {
                work.forget(open).await?;
            }
        }
        swept.stale.push(upload);
    }
    Ok(swept)
}

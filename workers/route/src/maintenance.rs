//! What a crash between any two calls may leave behind: uploads in parts that nobody goes on with.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use landfall_shared::objects::{Objects, ObjectsError, OpenUpload};

use crate::work::Work;

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

/// Looks for uploads to `buckets` that were begun before `now - age`, by us or by others, and aborts them.
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
    let is_stale = |begun: Option<Timestamp>| begun.is_none_or(|begun| now.duration_since(begun) > age);
    // What we have written down, wherever it goes to.
    for open in work.open_copies().await? {
        let upload = OpenUpload { object: open.to.clone(), upload: open.upload.clone(), begun: Some(open.begun) };
        if !is_stale(upload.begun) {
            swept.open.push(upload);
            continue;
        }
        if how == Sweep::Abort {
            objects.abort(&open.to, &open.upload).await?;
            work.forget(&open).await?;
        }
        swept.stale.push(upload);
    }
    // What a crash has kept from being written down.
    for bucket in buckets {
        for upload in objects.uploads(bucket).await? {
            let is_known = swept.open.iter().chain(&swept.stale).any(|known| known.upload == upload.upload);
            if is_known {
                continue;
            }
            if !is_stale(upload.begun) {
                swept.open.push(upload);
                continue;
            }
            if how == Sweep::Abort {
                objects.abort(&upload.object, &upload.upload).await?;
            }
            swept.stale.push(upload);
        }
    }
    Ok(swept)
}

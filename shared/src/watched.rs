//! A file that workers look at while they run: from a disk or from S3, read again when it changes, and never
//! replaced by a bad one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use landfall_events::ObjectRef;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::metrics::FILE_REFUSED;
use crate::objects::{Objects, ObjectsError};

/// How long a look at the file is good for.
const FRESH: Duration = Duration::from_secs(2);

/// What is wrong with a file that was read.
pub type Wrong = Box<dyn std::error::Error + Send + Sync>;

type Read<T> = Arc<dyn Fn(&[u8]) -> Result<T, Wrong> + Send + Sync>;

/// Where the file is, how it is read, and the last good one.
pub struct Watched<T> {
    name: &'static str,
    place: Place,
    bytes_max: u64,
    read: Read<T>,
    kept: Mutex<Option<Kept<T>>>,
}

enum Place {
    Object(Arc<dyn Objects>, ObjectRef),
    File(std::path::PathBuf),
}

struct Kept<T> {
    value: Arc<T>,
    version: String,
    looked: Instant,
}

/// Why there is nothing to use.
#[derive(Debug, thiserror::Error)]
pub enum WatchedError {
    /// It could not be read from S3.
    #[error("could not read the {name}")]
    Read {
        /// What it is.
        name: &'static str,
        /// Why.
        source: ObjectsError,
    },
    /// It could not be read from the disk.
    #[error("could not read the {name} {path}")]
    File {
        /// What it is.
        name: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It was read and is wrong, and there was no good one before.
    #[error("the {name} cannot be used")]
    Wrong {
        /// What it is.
        name: &'static str,
        /// Why.
        source: Wrong,
    },
}

impl WatchedError {
    /// Whether the file is simply not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Read { source: ObjectsError::Missing(_), .. } => true,
            Self::File { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Read { .. } | Self::Wrong { .. } => false,
        }
    }
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Watches `place`: a file's path, or `s3://bucket/key`. `name` is what messages call it.
    pub fn new(
        name: &'static str,
        objects: Arc<dyn Objects>,
        place: &str,
        bytes_max: u64,
        read: impl Fn(&[u8]) -> Result<T, Wrong> + Send + Sync + 'static,
    ) -> Self {
        let place = match ObjectRef::parse(place) {
            Some(object) => Place::Object(objects, object),
            None => Place::File(place.into()),
        };
        Self { name, place, bytes_max, read: Arc::new(read), kept: Mutex::new(None) }
    }

    /// What is in force: the newest good version. A bad new version is told once, loudly.
    ///
    /// # Errors
    /// [`WatchedError`] where there has never been a good one.
    pub async fn current(&self) -> Result<Arc<T>, WatchedError> {
        // It is counted from nothing: the first that is refused is seen as one more.
        ::metrics::counter!(FILE_REFUSED, "file" => self.name).increment(0);
        let mut kept = self.kept.lock().await;
        let Some(known) = &mut *kept else {
            let version = self.version().await?;
            let value = self.read(self.bytes().await?).await;
            let value = Arc::new(value.map_err(|source| WatchedError::Wrong { name: self.name, source })?);
            info!(version, "the {} is read", self.name);
            *kept = Some(Kept { value: value.clone(), version, looked: Instant::now() });
            return Ok(value);
        };
        if known.looked.elapsed() < FRESH {
            return Ok(known.value.clone());
        }
        // One looks; the others go on with what is in force.
        known.looked = Instant::now();
        let (value, version) = (known.value.clone(), known.version.clone());
        drop(kept);
        Ok(self.newer(&version).await.unwrap_or(value))
    }

    /// A newer good version than the one that is known; none where there is none, or it cannot be looked at.
    async fn newer(&self, known: &str) -> Option<Arc<T>> {
        let version = self.version().await.map_err(|error| self.stays(&error)).ok()?;
        if version == known {
            return None;
        }
        let bytes = self.bytes().await.map_err(|error| self.stays(&error)).ok()?;
        let read = self.read(bytes).await;
        let mut kept = self.kept.lock().await;
        let kept = kept.as_mut()?;
        kept.version.clone_from(&version);
        match read {
            Ok(value) => {
                info!(version, "the {} is read", self.name);
                kept.value = Arc::new(value);
                Some(kept.value.clone())
            }
            Err(wrong) => {
                let reason = crate::stage::chain_of(&*wrong);
                ::metrics::counter!(FILE_REFUSED, "file" => self.name).increment(1);
                error!(version, reason, "the new {} is refused; the last good one stays in force", self.name);
                None
            }
        }
    }

    /// Reads a version where it holds nobody up; what panics is wrong too.
    async fn read(&self, bytes: Bytes) -> Result<T, Wrong> {
        let read = self.read.clone();
        tokio::task::spawn_blocking(move || read(&bytes)).await.unwrap_or_else(|panic| Err(panic.into()))
    }

    /// What was good stays in force while the file is gone, too large or out of reach.
    fn stays(&self, error: &WatchedError) {
        let reason = crate::stage::chain_of(error);
        warn!(reason, "the {} cannot be looked at; the last good one stays in force", self.name);
    }

    async fn version(&self) -> Result<String, WatchedError> {
        match &self.place {
            Place::Object(objects, object) => {
                let info = objects.head(object).await.map_err(|source| self.unread(source))?;
                Ok(info.ok_or_else(|| self.unread(ObjectsError::Missing(object.clone())))?.etag)
            }
            Place::File(path) => {
                let metadata = std::fs::metadata(path).map_err(|source| self.unopened(path, source))?;
                let modified = metadata.modified().map_err(|source| self.unopened(path, source))?;
                Ok(format!("{modified:?} {}", metadata.len()))
            }
        }
    }

    async fn bytes(&self) -> Result<Bytes, WatchedError> {
        match &self.place {
            Place::Object(objects, object) => {
                let read = objects.get(object, None, self.bytes_max).await;
                Ok(read.map_err(|source| self.unread(source))?.0)
            }
            Place::File(path) => {
                let size = std::fs::metadata(path).map_err(|source| self.unopened(path, source))?.len();
                if size > self.bytes_max {
                    return Err(self.unopened(path, std::io::ErrorKind::FileTooLarge.into()));
                }
                Ok(std::fs::read(path).map_err(|source| self.unopened(path, source))?.into())
            }
        }
    }

    fn unread(&self, source: ObjectsError) -> WatchedError {
        WatchedError::Read { name: self.name, source }
    }

    fn unopened(&self, path: &std::path::Path, source: std::io::Error) -> WatchedError {
        WatchedError::File { name: self.name, path: path.display().to_string(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryObjects;

    #[tokio::test(start_paused = true)]
    async fn a_good_version_stays_in_force_until_there_is_a_better_one() {
        let objects = Arc::new(MemoryObjects::new(Arc::default()));
        let place = ObjectRef::new("work", "config/number");
        let read = |bytes: &[u8]| Ok(std::str::from_utf8(bytes)?.parse::<u32>()?);
        let watched = Watched::new("number", objects.clone(), &place.to_string(), 4, read);
        let recorder = metrics_util::debugging::DebuggingRecorder::new();
        let counted = recorder.snapshotter();
        let _guard = ::metrics::set_default_local_recorder(&recorder);
        let current = async || {
            tokio::time::advance(FRESH).await;
            watched.current().await.map(|value| *value).map_err(|error| error.is_missing())
        };

        assert_eq!(current().await, Err(true), "there is none yet");
        objects.land(&place, "no");
        assert_eq!(current().await, Err(false), "there has been no good one");
        objects.land(&place, "1");
        assert_eq!(current().await, Ok(1));
        for bad in ["no", "12345"] {
            objects.land(&place, bad);
            assert_eq!(current().await, Ok(1), "{bad}");
        }
        objects.remove(&place);
        assert_eq!(current().await, Ok(1), "it is gone");
        objects.land(&place, "2");
        assert_eq!(current().await, Ok(2));

        let counted = counted.snapshot().into_vec();
        let [(key, _, _, value)] = &counted[..] else { panic!("{counted:?}") };
        let labels: Vec<_> = key.key().labels().map(|label| (label.key(), label.value())).collect();
        assert_eq!((key.key().name(), &labels[..]), (FILE_REFUSED, &[("file", "number")][..]));
        // The second bad one was too large to be read at all.
        assert_eq!(*value, metrics_util::debugging::DebugValue::Counter(1));
    }
}

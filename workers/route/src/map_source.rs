//! The bucket map in force: read from a file or from S3, looked at again when it changes, never replaced by a bad one.

use std::sync::Arc;
use std::time::Duration;

use landfall_events::ObjectRef;
use landfall_shared::documents::DOCUMENT_BYTES_MAX;
use landfall_shared::objects::{Objects, ObjectsError};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{error, info};

use crate::bucket_map::{BucketMap, MapError};

/// How long a look at the map is good for.
const FRESH: Duration = Duration::from_secs(2);

/// Where the map comes from, and the last good one.
pub struct MapSource {
    place: Place,
    forbidden: Vec<String>,
    kept: Mutex<Option<Kept>>,
}

enum Place {
    Object(Arc<dyn Objects>, ObjectRef),
    File(std::path::PathBuf),
}

struct Kept {
    map: Arc<BucketMap>,
    version: String,
    looked: Instant,
}

/// Why there is no map.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It could not be read.
    #[error("could not read the bucket map")]
    Read(#[source] ObjectsError),
    /// The file could not be read.
    #[error("could not read the bucket map")]
    File(#[source] std::io::Error),
    /// It was read and is wrong.
    #[error(transparent)]
    Map(#[from] MapError),
}

impl MapSource {
    /// Takes the map from `place`: a file's path, or `s3://bucket/key`.
    pub fn new(objects: Arc<dyn Objects>, place: &str, forbidden: &[&str]) -> Self {
        let place = match ObjectRef::parse(place) {
            Some(object) => Place::Object(objects, object),
            None => Place::File(place.into()),
        };
        let forbidden = forbidden.iter().map(|&bucket| bucket.to_owned()).collect();
        Self { place, forbidden, kept: Mutex::new(None) }
    }

    /// The map in force: the newest good one.
    ///
    /// # Errors
    /// [`SourceError`] where there has never been a good one, or it cannot be looked at and is not fresh.
    pub async fn map(&self) -> Result<Arc<BucketMap>, SourceError> {
        let mut kept = self.kept.lock().await;
        if let Some(kept) = &*kept
            && kept.looked.elapsed() < FRESH
        {
            return Ok(kept.map.clone());
        }
        let version = self.version().await?;
        if let Some(kept) = &mut *kept
            && kept.version == version
        {
            kept.looked = Instant::now();
            return Ok(kept.map.clone());
        }
        let text = self.text().await?;
        let forbidden: Vec<&str> = self.forbidden.iter().map(String::as_str).collect();
        match (BucketMap::parse(&text, &forbidden), &mut *kept) {
            (Ok(map), slot) => {
                info!(version, "the bucket map is read");
                let map = Arc::new(map);
                *slot = Some(Kept { map: map.clone(), version, looked: Instant::now() });
                Ok(map)
            }
            (Err(wrong), Some(kept)) => {
                error!(version, reason = %wrong, "the new bucket map is refused; the last good one stays in force");
                (kept.version, kept.looked) = (version, Instant::now());
                Ok(kept.map.clone())
            }
            (Err(wrong), None) => Err(wrong.into()),
        }
    }

    async fn version(&self) -> Result<String, SourceError> {
        match &self.place {
            Place::Object(objects, object) => {
                let info = objects.head(object).await.map_err(SourceError::Read)?;
                Ok(info.ok_or_else(|| SourceError::Read(ObjectsError::Missing(object.clone())))?.etag)
            }
            Place::File(path) => {
                let modified = std::fs::metadata(path).and_then(|file| file.modified()).map_err(SourceError::File)?;
                Ok(format!("{modified:?}"))
            }
        }
    }

    async fn text(&self) -> Result<String, SourceError> {
        match &self.place {
            Place::Object(objects, object) => {
                let (body, _) = objects.get(object, None, DOCUMENT_BYTES_MAX).await.map_err(SourceError::Read)?;
                Ok(String::from_utf8_lossy(&body).into_owned())
            }
            Place::File(path) => std::fs::read_to_string(path).map_err(SourceError::File),
        }
    }
}

//! Where schemas come from on a disk: one bundle file, or a folder that mirrors their URLs.

use std::io;
use std::path::Path;

use crate::schemas::{BUNDLE_BYTES_MAX, Bundle, BundleError, Lock, Locked, SCHEMA_BYTES_MAX, Status};

/// Why no bundle could be read.
#[derive(Debug, thiserror::Error)]
pub enum BundleFileError {
    /// The disk did not give it.
    #[error("could not read {path}")]
    Read {
        /// The file or folder.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It was read and is wrong.
    #[error("{path} cannot be used")]
    Bundle {
        /// The file.
        path: String,
        /// Why.
        source: BundleError,
    },
}

/// Reads a bundle file, or a folder that mirrors URLs as host/path, as it is: each file below a host's folder
/// that holds text is a schema under `https://host/path`.
///
/// # Errors
/// [`BundleFileError`].
pub fn read(path: &Path) -> Result<Bundle, BundleFileError> {
    let named = || path.display().to_string();
    let failed = |source: io::Error| BundleFileError::Read { path: named(), source };
    let wrong = |source: BundleError| BundleFileError::Bundle { path: named(), source };
    if path.is_dir() {
        let mut bundle = Bundle::default();
        for entry in walkdir::WalkDir::new(path).min_depth(2).sort_by_file_name() {
            let entry = entry.map_err(|error| failed(error.into()))?;
            let size = entry.metadata().map_err(|error| failed(error.into()))?.len();
            if !entry.file_type().is_file() || size > SCHEMA_BYTES_MAX {
                continue;
            }
            // What is not text is no schema.
            let Ok(text) = String::from_utf8(std::fs::read(entry.path()).map_err(&failed)?) else { continue };
            let url = url_of(entry.path().strip_prefix(path).unwrap_or(entry.path()));
            let licence = Lock::shipped().get(&url).map_or_else(String::new, |locked| locked.licence.clone());
            let locked = Locked { url, sha256: None, licence, status: Status::Good, of: None, note: None };
            bundle.insert(locked, Some(text)).map_err(&wrong)?;
        }
        return Ok(bundle);
    }
    let size = std::fs::metadata(path).map_err(&failed)?.len();
    if size > BUNDLE_BYTES_MAX {
        return Err(wrong(BundleError::Unknown));
    }
    Bundle::read(&std::fs::read(path).map_err(failed)?).map_err(wrong)
}

/// The URL that a path under a mirror stands for.
fn url_of(path: &Path) -> String {
    let steps: Vec<_> = path.iter().map(|step| step.to_string_lossy()).collect();
    format!("https://{}", steps.join("/"))
}

//! How far a load is, so that the same command goes on after an interruption.

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A file that says how many documents of these files are settled. There is none for standard input.
pub(super) struct Journal {
    place: Option<PathBuf>,
    known: Known,
}

/// What is known of a load.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// So many documents from the first on are settled.
    pub(super) settled: u64,
    /// So many of them are refused.
    pub(super) refused: u64,
}

impl Journal {
    /// Finds what an earlier load of the same, unchanged files into the same database has written.
    pub(super) fn open(state: &Path, files: &[PathBuf], database: &str) -> anyhow::Result<Self> {
        if files.iter().any(|file| file.as_os_str() == "-") {
            return Ok(Self { place: None, known: Known::default() });
        }
        let mut hasher = Sha256::new();
        hasher.update(database);
        for file in files {
            let metadata = file.metadata()?;
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            hasher.update(std::path::absolute(file)?.as_os_str().as_encoded_bytes());
            hasher.update(format!("\0{}\0{}\0", metadata.len(), modified.as_nanos()));
        }
        let place = state.join("loads").join(format!("{}.json", &hex::encode(hasher.finalize())[..32]));
        let known = std::fs::read(&place).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Ok(Self { place: Some(place), known })
    }

    /// How far it was.
    pub(super) fn known(&self) -> Known {
        self.known
    }

    /// Writes down how far it is now.
    pub(super) fn write(&self, known: Known) -> anyhow::Result<()> {
        let Some(place) = &self.place else { return Ok(()) };
        std::fs::create_dir_all(place.parent().unwrap_or(Path::new(".")))?;
        // A reader sees the old or the new.
        let new = place.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&known)?)?;
        Ok(std::fs::rename(new, place)?)
    }

    /// All is done.
    pub(super) fn remove(&self) -> anyhow::Result<()> {
        match &self.place {
            Some(place) if place.exists() => Ok(std::fs::remove_file(place)?),
            _ => Ok(()),
        }
    }
}

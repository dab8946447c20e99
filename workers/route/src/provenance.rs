//! Where an object at a destination comes from: written as user metadata with it, and read to decide what is newer.

use std::collections::BTreeMap;

use jiff::Timestamp;
use landfall_events::{Cause, ObjectRef, Sequencer};
use landfall_shared::objects::ObjectInfo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::checksums;

/// How the names of our metadata start.
pub(crate) const OURS: &str = "landfall-";

const SOURCE: &str = "landfall-source";
const ETAG: &str = "landfall-etag";
const PROVIDER: &str = "landfall-provider";
const LANDED: &str = "landfall-landed";
const VERSION: &str = "landfall-version";
const SEQUENCER: &str = "landfall-sequencer";
const SHA256: &str = "landfall-sha256";
const CHECKED: &str = "landfall-checked";
const ITEM: &str = "landfall-item";

/// The longest source that is written out; a longer one is written as its hash.
const SOURCE_BYTES_MAX: usize = 768;

/// All user metadata together, names and values.
/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>
pub(crate) const METADATA_BYTES_MAX: usize = 2 * 1024;

/// What stays as it is in metadata, which takes ASCII only.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/').remove(b':');

/// Where an object comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Provenance {
    source: String,
    etag: String,
    provider: String,
    landed: Option<Timestamp>,
    version: Option<String>,
    sequencer: Option<Sequencer>,
    sha256: Option<String>,
    checked: Option<String>,
    item: Option<String>,
    content: Option<ObjectInfo>,
}

/// How what is at a destination stands to what has landed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing is there, or something older.
    Older,
    /// It is of the same source, or has the same content.
    Same,
    /// It is newer.
    Newer,
    /// It is of another source that has nothing to do with this one: another provider's, or no part of the same item.
    Taken(String),
}

impl Provenance {
    /// Of a copy of what the source holds now; the event counts where it is about that.
    pub(crate) fn of_copy(
        from: &ObjectRef,
        source: &ObjectInfo,
        provider: &str,
        cause: Option<&Cause>,
        item: Option<&str>,
        checked: Option<&str>,
    ) -> Self {
        let about = cause.filter(|cause| cause.etag.as_deref() == Some(&source.etag));
        let hash = source.checksum.as_ref().filter(|checksum| checksum.algorithm == "SHA256");
        Self {
            source: source_of(from),
            etag: source.etag.clone(),
            provider: encoded(&provider.to_lowercase()),
            landed: source.modified,
            version: source.version_id.clone(),
            sequencer: about.and_then(|cause| cause.sequencer.clone()),
            sha256: hash.and_then(checksums::bytes_of).map(hex::encode),
            checked: checked.map(str::to_owned),
            item: item.map(encoded),
            content: Some(source.clone()),
        }
    }

    /// Of a document that was rewritten to this text.
    pub(crate) fn of_document(cause: &Cause, provider: &str, item: &str, text: &str) -> Self {
        Self {
            source: source_of(&cause.object),
            etag: cause.etag.clone().unwrap_or_default(),
            provider: encoded(&provider.to_lowercase()),
            landed: Some(cause.event_time),
            version: cause.version_id.clone(),
            sequencer: cause.sequencer.clone(),
            sha256: Some(hex::encode(Sha256::digest(text))),
            checked: None,
            item: Some(encoded(item)),
            content: None,
        }
    }

    /// The user metadata that says so, as much as fits beside what is there already, the most needed first.
    pub(crate) fn metadata(&self, beside: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let landed = self.landed.map(|landed| landed.to_string());
        let sequencer = self.sequencer.as_ref().map(ToString::to_string);
        let pairs = [
            (SOURCE, Some(self.source.clone())),
            (ETAG, Some(self.etag.clone())),
            (PROVIDER, Some(self.provider.clone())),
            (LANDED, landed),
            (ITEM, self.item.clone()),
            (SHA256, self.sha256.clone()),
            (VERSION, self.version.clone()),
            (SEQUENCER, sequencer),
            (CHECKED, self.checked.clone()),
        ];
        let taken = beside.iter().map(|(name, value)| name.len() + value.len()).sum();
        let mut free = METADATA_BYTES_MAX.saturating_sub(taken);
        let mut metadata = BTreeMap::new();
        for (index, (name, value)) in pairs.into_iter().enumerate() {
            let Some(value) = value.filter(|value| !value.is_empty() && value.is_ascii()) else { continue };
            let bytes = name.len() + value.len();
            // Without the first four nothing could be decided: rather the store refuses them.
            if bytes <= free || index < 4 {
                free = free.saturating_sub(bytes);
                metadata.insert(name.to_owned(), value);
            }
        }
        metadata
    }

    /// Compares with what is at the destination.
    pub(crate) fn standing(&self, there: Option<&ObjectInfo>) -> Standing {
        let Some(there) = there else { return Standing::Older };
        let says = |name: &str| there.metadata.get(name).map(String::as_str);
        let Some(source) = says(SOURCE) else {
            let same = self.content.as_ref().is_some_and(|content| equal(content, there) == Some(true));
            return match (there.modified, self.landed) {
                _ if same => Standing::Same,
                // What somebody put there after this landed is not for us to replace.
                (Some(theirs), Some(ours)) if theirs > ours => Standing::Newer,
                _ => Standing::Older,
            };
        };
        if says(PROVIDER).is_some_and(|provider| provider != self.provider) {
            return Standing::Taken(source.to_owned());
        }
        let is_document = self.content.is_none();
        if source == self.source {
            let theirs = says(SEQUENCER).and_then(|text| Sequencer::try_from(text.to_owned()).ok());
            let newer = theirs.zip(self.sequencer.as_ref()).is_some_and(|(theirs, ours)| theirs > *ours);
            return match (is_document, says(ETAG) == Some(&self.etag)) {
                // A document is what its event says; another rewriting of the same one is written anew.
                (true, _) if newer => Standing::Newer,
                (true, same) if same && says(SHA256) == self.sha256.as_deref() => Standing::Same,
                (true, _) => Standing::Older,
                // An object is what its source holds now, whatever landed in between.
                (false, true) => Standing::Same,
                (false, false) => Standing::Older,
            };
        }
        // Of one item, dropped at another place, the newer stands; anything else would be lost.
        if self.item.is_none() || says(ITEM) != self.item.as_deref() {
            return Standing::Taken(source.to_owned());
        }
        let theirs = says(LANDED).and_then(|text| text.parse::<Timestamp>().ok());
        match (theirs, self.landed) {
            (Some(theirs), Some(ours)) if (theirs, source) > (ours, &self.source) => Standing::Newer,
            _ => Standing::Older,
        }
    }
}

/// Whether an object was copied from this source, or made of this document.
pub(crate) fn is_of(there: &ObjectInfo, source: &ObjectRef) -> bool {
    there.metadata.get(SOURCE).is_some_and(|there| *there == source_of(source))
}

/// Whether it was copied from a source with this entity tag.
pub(crate) fn is_of_content(there: &ObjectInfo, etag: &str) -> bool {
    there.metadata.get(ETAG).is_some_and(|there| there == etag)
}

/// The checksum that an object's source was held against when it was copied.
pub(crate) fn checked(there: &ObjectInfo) -> Option<&str> {
    there.metadata.get(CHECKED).map(String::as_str)
}

/// Whether two objects hold the same bytes, as far as that is known without reading them.
pub(crate) fn equal(one: &ObjectInfo, other: &ObjectInfo) -> Option<bool> {
    if one.size != other.size {
        return Some(false);
    }
    match (&one.checksum, &other.checksum) {
        (Some(one), Some(other)) if one.algorithm == other.algorithm => Some(one.value == other.value),
        // Tags that differ say nothing: they depend on parts and on encryption.
        _ => (one.etag == other.etag).then_some(true),
    }
}

/// A source as a URL, a very long one as its hash.
fn source_of(object: &ObjectRef) -> String {
    let url = encoded(&object.to_string());
    if url.len() <= SOURCE_BYTES_MAX { url } else { format!("sha256:{}", hex::encode(Sha256::digest(url))) }
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, PLAIN).to_string()
}

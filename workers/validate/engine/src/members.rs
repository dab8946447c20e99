//! Envelopes: files that hold several documents, taken apart without changing a byte of any.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::value::RawValue;

/// What a file holds.
#[derive(Debug)]
pub enum Members<'a> {
    /// One document: the file itself.
    One,
    /// An item collection: its features are items.
    Features(Vec<Member<'a>>),
    /// A list of collections, as `GET /collections` has it.
    Collections(Vec<Member<'a>>),
    /// Lines of documents; a line that is not JSON is one of them all the same.
    Lines(Vec<Member<'a>>),
}

/// One document of several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// From 1; of a line, the line's number.
    pub number: u32,
    /// Its bytes; a line may be anything.
    pub bytes: &'a [u8],
}

/// Takes a file apart by its name and content. What is no envelope, and an envelope that is broken, is one document.
#[must_use]
pub fn split<'a>(file_name: &str, bytes: &'a [u8]) -> Members<'a> {
    let lower = file_name.to_ascii_lowercase();
    if lower.ends_with(".ndjson") || lower.ends_with(".jsonl") {
        let lines = bytes.split(|byte| *byte == b'\n').zip(1..);
        let lines = lines.filter(|(line, _)| !line.trim_ascii().is_empty());
        return Members::Lines(lines.map(|(bytes, number)| Member { number, bytes }).collect());
    }
    // Of members with one name the last counts, as everywhere.
    let Ok(envelope) = serde_json::from_slice::<HashMap<Cow<'_, str>, &RawValue>>(bytes) else { return Members::One };
    let list = |name: &str| {
        let raw = envelope.get(name)?;
        let members: Vec<&'a RawValue> = serde_json::from_str(raw.get()).ok()?;
        let numbered = members.into_iter().zip(1..);
        Some(numbered.map(|(raw, number)| Member { number, bytes: raw.get().as_bytes() }).collect())
    };
    let kind = envelope.get("type").map(|kind| serde_json::from_str::<String>(kind.get()).unwrap_or_default());
    match kind.as_deref() {
        Some("FeatureCollection") => list("features").map_or(Members::One, Members::Features),
        None => list("collections").map_or(Members::One, Members::Collections),
        Some(_) => Members::One,
    }
}

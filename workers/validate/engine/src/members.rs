//! Envelopes: files that hold several documents, taken apart without changing a byte of any.

use serde::Deserialize;
use serde_json::value::RawValue;

/// What a file holds.
#[derive(Debug)]
pub enum Members<'a> {
    /// One document: the file itself.
    One,
    /// An item collection: its features.
    Features(Vec<&'a RawValue>),
    /// Lines of documents, with their numbers from 1; a line that is not JSON is one of them all the same.
    Lines(Vec<(u32, &'a str)>),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(borrow)]
    features: Option<Vec<&'a RawValue>>,
}

/// Takes a file apart by its name and content.
#[must_use]
pub fn split<'a>(file_name: &str, text: &'a str) -> Members<'a> {
    let lower = file_name.to_ascii_lowercase();
    if lower.ends_with(".ndjson") || lower.ends_with(".jsonl") {
        let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
        return Members::Lines(lines.map(|(line, number)| (number, line)).collect());
    }
    match serde_json::from_str::<Envelope<'_>>(text) {
        Ok(Envelope { kind: Some(kind), features: Some(features) }) if kind == "FeatureCollection" => {
            Members::Features(features)
        }
        _ => Members::One,
    }
}

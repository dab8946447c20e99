//! Envelopes: files that hold several documents, taken apart without changing a byte of any.

use serde::Deserialize;
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
    /// Its text.
    pub text: &'a str,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(borrow)]
    features: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    collections: Option<Vec<&'a RawValue>>,
}

/// Takes a file apart by its name and content. What is no envelope, and an envelope that is broken, is one document.
#[must_use]
pub fn split<'a>(file_name: &str, text: &'a str) -> Members<'a> {
    let lower = file_name.to_ascii_lowercase();
    if lower.ends_with(".ndjson") || lower.ends_with(".jsonl") {
        let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
        return Members::Lines(lines.map(|(text, number)| Member { number, text }).collect());
    }
    let numbered = |list: Vec<&'a RawValue>| {
        list.into_iter().zip(1..).map(|(raw, number)| Member { number, text: raw.get() }).collect()
    };
    match serde_json::from_str::<Envelope<'_>>(text) {
        Ok(Envelope { kind: Some(kind), features: Some(features), .. }) if kind == "FeatureCollection" => {
            Members::Features(numbered(features))
        }
        Ok(Envelope { kind: None, collections: Some(collections), .. }) => Members::Collections(numbered(collections)),
        _ => Members::One,
    }
}

//! Documents of files, one by one, as the text that they are: a file may be larger than memory.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context;
use flate2::bufread::MultiGzDecoder;
use indicatif::ProgressBar;
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::mpsc::Sender;

use crate::output::SetUp;

/// The largest single document, in bytes.
const DOCUMENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One document.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Document {
    /// An item.
    Item(String),
    /// A collection.
    Collection(String),
    /// Something else, and why it cannot be loaded.
    Unreadable(String),
}

/// The bytes of all files; `None` where standard input is among them.
pub(super) fn bytes(files: &[PathBuf]) -> anyhow::Result<Option<u64>> {
    let mut sum = 0;
    for file in files {
        if is_standard_input(file) {
            return Ok(None);
        }
        let metadata = file.metadata().map_err(|error| SetUp(format!("{}: {error}", file.display())))?;
        if !metadata.is_file() {
            return Err(SetUp(format!("{} is no file", file.display())).into());
        }
        sum += metadata.len();
    }
    Ok(Some(sum))
}

fn is_standard_input(file: &Path) -> bool {
    file.as_os_str() == "-"
}

/// Reads all documents of all files, in their order, until nobody takes them any more.
pub(super) fn read(files: &[PathBuf], bar: &ProgressBar, to: &Sender<Document>) -> anyhow::Result<()> {
    for file in files {
        let source: Box<dyn Read> = if is_standard_input(file) {
            Box::new(std::io::stdin().lock())
        } else {
            Box::new(bar.wrap_read(File::open(file).map_err(|error| SetUp(format!("{}: {error}", file.display())))?))
        };
        let mut source = BufReader::with_capacity(1 << 18, source);
        let packed = source.fill_buf()?.starts_with(&[0x1F, 0x8B]);
        let source: Box<dyn BufRead> = if packed {
            Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(source)))
        } else {
            Box::new(source)
        };
        match documents(source, &mut |document| to.blocking_send(document).is_ok()) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("in {}", file.display())),
        }
    }
    Ok(())
}

/// Reads the documents of one file; `false` where they are not taken any more.
fn documents(mut source: Box<dyn BufRead + '_>, take: &mut dyn FnMut(Document) -> bool) -> anyhow::Result<bool> {
    let mut line = Vec::new();
    let mut is_first = true;
    loop {
        line.clear();
        if (&mut source).take(DOCUMENT_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)? == 0 {
            return Ok(true);
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let text = std::str::from_utf8(&line).ok().filter(|text| is_whole(text));
        // Where the first line is no document of its own, the file is one JSON text over many lines, or one large one.
        if is_first && (text.is_none() || text.is_some_and(holds_many)) {
            let rest = std::io::Cursor::new(std::mem::take(&mut line)).chain(source);
            return one_text(rest, take);
        }
        is_first = false;
        let document = match text {
            Some(text) => document(text.trim().to_owned()),
            None if line.len() > DOCUMENT_BYTES_MAX => anyhow::bail!("a line is larger than 64 MiB"),
            None => Document::Unreadable("the line is not a JSON text".into()),
        };
        if !take(document) {
            return Ok(false);
        }
    }
}

fn is_whole(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

fn holds_many(text: &str) -> bool {
    text.trim_start().starts_with('[') || kind(text).as_deref() == Some("FeatureCollection")
}

/// The `type` of an object.
fn kind(text: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Kind {
        r#type: String,
    }
    serde_json::from_str::<Kind>(text).ok().map(|kind| kind.r#type)
}

fn document(text: String) -> Document {
    match kind(&text).as_deref() {
        Some("Feature") => Document::Item(text),
        Some("Collection") => Document::Collection(text),
        Some(other) => Document::Unreadable(format!("{:?} is neither an item nor a collection", short(other))),
        None => Document::Unreadable("the document has no type".into()),
    }
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// Reads the documents of one JSON text: an item, a collection, a list of them, or an item collection.
fn one_text(source: impl Read, take: &mut dyn FnMut(Document) -> bool) -> anyhow::Result<bool> {
    let mut is_taken = true;
    let mut reader = serde_json::Deserializer::from_reader(BufReader::new(source));
    let read = Text { take, is_taken: &mut is_taken }.deserialize(&mut reader);
    match read.and_then(|()| reader.end()) {
        Err(_) if !is_taken => Ok(false),
        Err(error) => Err(SetUp(format!("this is not JSON: {error}")).into()),
        Ok(()) => Ok(is_taken),
    }
}

struct Text<'t> {
    take: &'t mut dyn FnMut(Document) -> bool,
    is_taken: &'t mut bool,
}

impl Text<'_> {
    fn take<E: serde::de::Error>(&mut self, document: Document) -> Result<(), E> {
        *self.is_taken = (self.take)(document);
        if *self.is_taken { Ok(()) } else { Err(E::custom("nobody takes it any more")) }
    }
}

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<(), D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an item, a collection, or a list of them")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> Result<(), A::Error> {
        while let Some(raw) = values.next_element::<Box<RawValue>>()? {
            self.take(document(raw.get().to_owned()))?;
        }
        Ok(())
    }

    /// The members of `features` go out as they come; of anything else, the text is put together again.
    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let (mut whole, mut has_features) = (String::from("{"), false);
        while let Some(name) = members.next_key::<String>()? {
            if name == "features" {
                has_features = true;
                members.next_value_seed(Text { take: &mut *self.take, is_taken: &mut *self.is_taken })?;
                continue;
            }
            let value: Box<RawValue> = members.next_value()?;
            if !has_features {
                if whole.len() > 1 {
                    whole.push(',');
                }
                whole.push_str(&serde_json::to_string(&name).map_err(A::Error::custom)?);
                whole.push(':');
                whole.push_str(value.get());
            }
        }
        if has_features {
            return Ok(());
        }
        whole.push('}');
        self.take(document(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(text: &str) -> Vec<Document> {
        let mut all = Vec::new();
        let source = Box::new(std::io::Cursor::new(text.as_bytes().to_vec()));
        documents(source, &mut |document| {
            all.push(document);
            true
        })
        .unwrap();
        all
    }

    fn item(n: u32) -> Document {
        Document::Item(format!(r#"{{"type":"Feature","n":{n}.0}}"#))
    }

    #[test]
    fn lines_lists_and_item_collections_hold_the_same_documents() {
        let one = r#"{"type":"Feature","n":1.0}"#;
        let two = r#"{"type":"Feature","n":2.0}"#;
        for text in [
            format!("{one}\n\n{two}\n"),
            format!("{one}\n{two}"),
            format!("[{one},{two}]"),
            format!("[\n  {one},\n  {two}\n]\n"),
            format!(r#"{{"type":"FeatureCollection","features":[{one},{two}]}}"#),
            format!("{{\n\"features\": [\n{one}, {two}],\n\"type\":\"FeatureCollection\"}}"),
        ] {
            assert_eq!(read_all(&text), [item(1), item(2)], "{text}");
        }
    }

    #[test]
    fn one_document_may_stand_over_many_lines_and_keeps_its_digits() {
        assert_eq!(read_all("{\n  \"type\": \"Feature\",\n  \"n\": 1.0\n}\n"), [item(1)]);
        let collection = read_all("{\"type\":\n\"Collection\"}");
        assert_eq!(collection, [Document::Collection(r#"{"type":"Collection"}"#.into())]);
    }

    #[test]
    fn what_is_no_document_is_said_and_the_next_line_read() {
        let all = read_all(
            "{\"type\":\"Feature\",\"n\":1.0}\n{\"type\":\n{\"type\":\"Catalog\"}\n7\n{\"type\":\"Feature\",\"n\":2.0}\n",
        );
        assert_eq!((&all[0], &all[4]), (&item(1), &item(2)));
        assert!(all[1..4].iter().all(|document| matches!(document, Document::Unreadable(_))));
    }

    #[test]
    fn reading_ends_where_nobody_takes_it() {
        let source = Box::new(std::io::Cursor::new(b"[{\"type\":\"Feature\"},{\"type\":\"Feature\"}]".to_vec()));
        let mut count = 0;
        let ended = documents(source, &mut |_| {
            count += 1;
            false
        });
        assert!(!ended.unwrap());
        assert_eq!(count, 1);
    }
}

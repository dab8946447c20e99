//! A folder as a dataset: what the rules that look at more than one document need to know.

use std::collections::HashMap;

use indicatif::ProgressBar;
use landfall_stac::{Dataset, Document, Members, split};
use rayon::prelude::*;

use super::sources::{self, Origin};

/// Reads every document once and notes what the rules need; what cannot be read is told when it is judged.
pub(super) fn read(files: &[Origin], bar: &ProgressBar) -> Dataset {
    let note = |mut dataset: Dataset, file: &Origin| {
        bar.inc(1);
        if let (true, Ok(bytes)) = (file.is_document, sources::file(&file.file)) {
            each(&file.path, &bytes, &mut |text| {
                if let Ok(document) = Document::read(text) {
                    dataset.note(&document.root, &file.path);
                }
            });
        }
        dataset
    };
    files.par_iter().fold(Dataset::default, note).reduce(Dataset::default, Dataset::merged)
}

fn each(path: &str, bytes: &[u8], note: &mut dyn FnMut(&[u8])) {
    match split(path, bytes) {
        Members::One => note(bytes),
        Members::Features(members) | Members::Collections(members) | Members::Lines(members) => {
            members.iter().for_each(|member| note(member.bytes));
        }
    }
}

/// The names of all files, without their case.
#[derive(Debug, Default)]
pub(super) struct Names(HashMap<String, Vec<String>>);

/// Gathers the names.
pub(super) fn names(files: &[Origin]) -> Names {
    let mut names: HashMap<String, Vec<String>> = HashMap::new();
    for file in files {
        names.entry(file.path.to_lowercase()).or_default().push(file.path.clone());
    }
    Names(names)
}

impl Names {
    /// Another path that differs from this one in case only.
    pub(super) fn folds_with(&self, path: &str) -> Option<&str> {
        self.0.get(&path.to_lowercase())?.iter().find(|other| *other != path).map(String::as_str)
    }
}

//! Holds the engine against a corpus of labelled documents. It lies beside the project and is not part of it:
//! where it is absent, the tests say so and end.

#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::path::{Path, PathBuf};

use landfall_stac::{FileJudgement, Judge, Place, Profile, Schemas, bundle_files};

struct Row {
    path: String,
    verdict: String,
    ingest: String,
    failing: String,
    note: String,
}

fn fixtures() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../shared/fixtures");
    if folder.join("stac/manifest.tsv").is_file() {
        return Some(folder);
    }
    eprintln!("SKIPPED: the labelled corpus is not beside the project ({})", folder.display());
    None
}

fn rows(fixtures: &Path) -> Vec<Row> {
    let manifest = std::fs::read_to_string(fixtures.join("stac/manifest.tsv")).unwrap();
    let row = |line: &str| {
        let fields: Vec<&str> = line.split('\t').collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or_default().to_owned();
        Row { path: field(0), verdict: field(1), ingest: field(2), failing: field(6), note: field(11) }
    };
    manifest.lines().skip(1).map(row).filter(|row| !row.note.contains("DISPUTED")).collect()
}

/// The verdict that a row asks for under a profile.
fn expected(row: &Row, profile: &str) -> &'static str {
    let strict = match row.verdict.as_str() {
        "valid" => "valid",
        "invalid" | "policy" => "invalid",
        "unsupported" => "unsupported",
        "parse-error" => "unparseable",
        // A format alone: under ingest, a date and time must be one, a space in it apart, and IRIs may be odd.
        "invalid-format" => {
            let is_lenient = ["iri", "space", "href", "datetime-space", "tiled-assets"];
            let lenient = is_lenient.iter().any(|word| row.note.contains(word) || row.path.contains(word));
            let spaced = row.note.contains("is not a \"date-time\"");
            let unknown = row.path.contains("extensions-shortname");
            if profile == "ingest" && (lenient || spaced) && !unknown { "valid" } else { "invalid" }
        }
        other => panic!("the manifest has an unknown verdict {other}"),
    };
    if profile == "ingest" && row.ingest == "valid" { "valid" } else { strict }
}

fn disagreements(profile: &str) -> Vec<String> {
    let Some(fixtures) = fixtures() else { return vec![] };
    let schemas = Schemas::new(bundle_files::read(&fixtures.join("schemas")).unwrap());
    let profile_read = Profile::shipped(profile).unwrap();
    let judge = Judge { schemas: &schemas, profile: &profile_read, today: jiff::civil::date(2026, 1, 1) };
    let rows = rows(&fixtures);
    assert!(rows.len() > 600, "the corpus has {} rows", rows.len());
    let mut disagreements = Vec::new();
    for row in &rows {
        let bytes = std::fs::read(fixtures.join("stac").join(&row.path)).unwrap();
        let file_name = row.path.rsplit('/').next().unwrap();
        let judged = judge.judge_file(file_name, &bytes, Place::default(), None);
        let (word, expected) = (judged.word(), expected(row, profile));
        if word != expected {
            disagreements.push(format!(
                "{}: {word}, not {expected} ({} {})\n    {}",
                row.path,
                row.verdict,
                row.note,
                first(&judged)
            ));
        }
        for (_, judgement) in judged.judgements() {
            for list in [&judgement.findings, &judgement.warnings] {
                let bytes: usize = list.iter().map(|problem| serde_json::to_string(problem).unwrap().len()).sum();
                assert!(
                    list.len() <= 16 && bytes <= 8 * 1024,
                    "{}: {} findings in {bytes} bytes",
                    row.path,
                    list.len()
                );
            }
            let told = judgement.findings.iter().all(|problem| problem.code.as_str().starts_with("stac."));
            assert!(told, "{}", row.path);
        }
    }
    disagreements
}

fn first(judged: &FileJudgement<'_>) -> String {
    let all = judged.judgements().flat_map(|(_, judgement)| judgement.findings.iter().chain(&judgement.warnings));
    all.take(3)
        .map(|problem| format!("{} {} {}", problem.code, problem.pointer, problem.message))
        .collect::<Vec<_>>()
        .join("; ")
}

#[test]
fn every_labelled_document_has_its_verdict_under_strict() {
    let disagreements = disagreements("strict");
    assert!(disagreements.is_empty(), "{} disagreements:\n{}", disagreements.len(), disagreements.join("\n"));
}

#[test]
fn every_labelled_document_has_its_verdict_under_ingest() {
    let disagreements = disagreements("ingest");
    assert!(disagreements.is_empty(), "{} disagreements:\n{}", disagreements.len(), disagreements.join("\n"));
}

/// Our own place where the manifest names another: the link is missing among the links.
const OTHERWISE: &str = "collection-no-link.json";

/// The manifest names `schema:/pointer`, as the published schemas have it.
#[test]
fn the_place_that_is_named_is_the_one_that_is_wrong() {
    let Some(fixtures) = fixtures() else { return };
    let schemas = Schemas::new(bundle_files::read(&fixtures.join("schemas")).unwrap());
    let profile = Profile::shipped("strict").unwrap();
    let judge = Judge { schemas: &schemas, profile: &profile, today: jiff::civil::date(2026, 1, 1) };
    let mut wrong = Vec::new();
    let is_judged =
        |row: &&Row| row.verdict == "invalid" && row.path.starts_with("mutant/") && !row.path.ends_with(OTHERWISE);
    for row in rows(&fixtures).iter().filter(is_judged) {
        let places = row.failing.split("; ").filter_map(|place| place.split_once(':').map(|(_, pointer)| pointer));
        let places: Vec<&str> = places.collect();
        // A place at the root names the alternatives that failed there: ours go deeper.
        if places.is_empty() || places.contains(&"/") {
            continue;
        }
        let bytes = std::fs::read(fixtures.join("stac").join(&row.path)).unwrap();
        let judgement = judge.judge(&bytes, Place::default());
        let found: Vec<&str> = judgement.findings.iter().map(|problem| problem.pointer.as_str()).collect();
        if !places.iter().all(|place| found.iter().any(|pointer| pointer.starts_with(place))) {
            wrong.push(format!("{}: {found:?}, not {places:?}", row.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

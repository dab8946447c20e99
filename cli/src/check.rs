//! `landfall check`: what the pipeline would say, before anything is uploaded.
//!
//! It judges with the engine of the validate stage. It refuses to change what it reads.

mod dataset;
mod report;
mod sources;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::civil::Date;
use landfall_events::{Problem, Severity, codes};
use landfall_stac::{
    Action, Aspect, Dataset, FileJudgement, Judge, Judgement, Place as Spot, Profile, Schemas, Verdict, bundle_files,
};
use landfall_validate::refusals::{is_no_document, unfit};
use rayon::prelude::*;

use crate::deployment::Place;
use crate::output::{End, SetUp};
use report::{Report, Summary};
use sources::{Origin, Source};

/// Files that are judged between two writes: what is told of them is held in memory together.
const CHUNK: usize = 1_024;

/// The most findings that are told of one file with many members.
const FILE_FINDINGS_MAX: usize = 100;

/// What is checked, and by which rules.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Files, folders, `-` for standard input, or s3://bucket/prefix
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<String>,
    /// A profile's name, or a YAML file with one
    #[arg(long, default_value = "ingest", value_name = "NAME|FILE")]
    profile: String,
    /// A schema bundle, or a folder that mirrors schemas' URLs as host/path
    #[arg(long, env = "LANDFALL_SCHEMAS", value_name = "BUNDLE|DIR")]
    schemas: Option<PathBuf>,
    /// Tell of every file, not only of those with something to say
    #[arg(long, short)]
    verbose: bool,
}

/// The form of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Text for people.
    Human,
    /// One JSON object a file, one a line.
    Json,
    /// JUnit's XML: a test case a file.
    Junit,
    /// SARIF 2.1.0: a result a finding.
    Sarif,
}

/// What is told of one file.
#[derive(Debug)]
pub(crate) struct Checked {
    path: String,
    word: &'static str,
    findings: Vec<Told>,
    left_out: usize,
    warnings: Vec<Told>,
    /// Of a file with several documents: how many have which verdict.
    members: Option<std::collections::BTreeMap<&'static str, usize>>,
    /// Whether the pipeline would pass it on as data.
    data: bool,
    /// Whether it is valid and cannot be loaded all the same.
    unfit: bool,
}

/// A problem, and the member that has it.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Told {
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
    #[serde(flatten)]
    problem: Problem,
}

/// Judges everything that is named.
///
/// # Errors
/// [`SetUp`] where a path, the profile or the schemas cannot be read, and where documents could not be judged.
pub async fn run(check: &Check, place: &Place, form: Form) -> anyhow::Result<End> {
    let profile = profile(&check.profile)?;
    let schemas = schemas(check.schemas.as_deref(), &place.state)?;
    let checker = Checker { profile, schemas, today: jiff::Zoned::now().date() };
    let mut sources = Vec::new();
    for path in &check.paths {
        sources.push(Source::find(path, place).await?);
    }
    let mut report = Report::new(form, check.verbose)?;
    for source in &sources {
        checker.source(source, &mut report).await?;
    }
    let summary = report.finish(&checker.profile)?;
    match summary {
        Summary { refused: 0, unusable: 0, .. } => Ok(End::Good),
        Summary { refused: 0, unusable, .. } => Err(SetUp(format!(
            "{unusable} documents could not be judged for want of schemas: `landfall schemas fetch` gets them"
        ))
        .into()),
        Summary { .. } => Ok(End::Problems),
    }
}

/// A profile by its name, or from a file with what lies beside it.
fn profile(named: &str) -> anyhow::Result<Arc<Profile>> {
    let path = Path::new(named);
    let is_file = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    if !is_file {
        return Profile::shipped(named).map_err(|error| SetUp(error.to_string()).into());
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let own = format!("{stem}.yaml");
    let read = |name: &str| {
        let file = if name == own { path.to_owned() } else { folder.join(name) };
        std::fs::read_to_string(file).map_err(|error| error.to_string())
    };
    if !path.is_file() {
        return Err(SetUp(format!("there is no file {named}")).into());
    }
    let profile = Profile::read(&stem, &read);
    Ok(Arc::new(profile.map_err(|error| SetUp(landfall_shared::stage::chain_of(&error)))?))
}

/// The schemas that are named, or those that `landfall schemas fetch` got, or none.
fn schemas(named: Option<&Path>, state: &Path) -> anyhow::Result<Schemas> {
    let fetched = crate::schemas::fetched(state);
    let path = match named {
        Some(path) => path,
        None if fetched.is_file() => &fetched,
        None => {
            eprintln!(
                "no schema bundle: documents that declare extensions cannot be judged; `landfall schemas fetch` gets one"
            );
            return Ok(Schemas::new(landfall_stac::Bundle::default()));
        }
    };
    let bundle = bundle_files::read(path).map_err(|error| SetUp(landfall_shared::stage::chain_of(&error)))?;
    if bundle.is_empty() {
        return Err(SetUp(format!("{} holds no schemas", path.display())).into());
    }
    Ok(Schemas::new(bundle))
}

/// Everything that judging takes.
struct Checker {
    profile: Arc<Profile>,
    schemas: Schemas,
    today: Date,
}

impl Checker {
    async fn source(&self, source: &Source, report: &mut Report) -> anyhow::Result<()> {
        match source {
            Source::Local { files, is_folder } => self.local(files, *is_folder, report),
            Source::Input(bytes) => {
                let name = if sources::is_lines(bytes) { "-.ndjson" } else { "-.json" };
                report.write(&self.judged("-", "-", name, bytes, None, true))
            }
            Source::Bucket { client, objects } => {
                for object in objects {
                    let checked = match sources::object(client, object).await {
                        Ok(bytes) => self.judged(&object.url, &object.path, &object.path, &bytes, None, false),
                        Err(error) => Checked::unreadable(&object.url, &format!("{error:#}")),
                    };
                    report.write(&checked)?;
                }
                Ok(())
            }
        }
    }

    fn local(&self, files: &[Origin], is_folder: bool, report: &mut Report) -> anyhow::Result<()> {
        let whole = is_folder && self.profile.looks_at_trees();
        let bar = bar(files.len() * if whole { 2 } else { 1 });
        let dataset = if whole { Some(dataset::read(files, &bar)) } else { None };
        let names = if whole { dataset::names(files) } else { Default::default() };
        for chunk in files.chunks(CHUNK) {
            let judged: Vec<_> = chunk
                .par_iter()
                .map(|file| {
                    let checked = self.file(file, dataset.as_ref(), !is_folder);
                    let misnamed = if whole { self.profile_names(file, &names) } else { vec![] };
                    bar.inc(1);
                    with_names(checked, file, misnamed)
                })
                .collect();
            for checked in judged.into_iter().flatten() {
                bar.suspend(|| report.write(&checked))?;
            }
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// Judges one file; `None` for one that is data by its name.
    fn file(&self, file: &Origin, dataset: Option<&Dataset>, is_named: bool) -> Option<Checked> {
        if !file.is_document && !is_named {
            return None;
        }
        let name = file.path.rsplit('/').next().unwrap_or_default();
        Some(match sources::file(&file.file) {
            Ok(bytes) => self.judged(&file.shown, &file.path, name, &bytes, dataset, is_named),
            Err(error) => Checked::unreadable(&file.shown, &error),
        })
    }

    fn judged(
        &self,
        shown: &str,
        path: &str,
        name: &str,
        bytes: &[u8],
        dataset: Option<&Dataset>,
        is_named: bool,
    ) -> Checked {
        let mut checked = Checked::new(shown);
        if self.profile.is_ignored(path) && !is_named {
            return Checked { word: "not-stac", data: true, ..checked };
        }
        let judge = Judge { schemas: &self.schemas, profile: &self.profile, today: self.today };
        let judged = judge.judge_file(name, bytes, Spot { path: Some(path), dataset, ..Spot::default() }, None);
        checked.word = judged.word();
        let envelope = match &judged {
            FileJudgement::One(_) => None,
            FileJudgement::Several(envelope, _) => Some(*envelope),
        };
        for (number, judgement) in judged.judgements() {
            let told = |problem: &Problem| {
                let mut problem = problem.clone();
                let (line, pointer) = match (envelope, number) {
                    (Some(landfall_stac::Envelope::Lines), number) => (number, String::new()),
                    (Some(envelope), Some(number)) => (None, envelope.pointer(number)),
                    _ => (None, String::new()),
                };
                problem.pointer.insert_str(0, &pointer);
                Told { line, problem }
            };
            if number.is_some() {
                *checked.members.get_or_insert_default().entry(judgement.verdict.word()).or_default() += 1;
            }
            let room = FILE_FINDINGS_MAX.saturating_sub(checked.findings.len());
            checked.left_out += judgement.left_out + judgement.findings.len().saturating_sub(room);
            checked.findings.extend(judgement.findings.iter().take(room).map(told));
            let room = FILE_FINDINGS_MAX.saturating_sub(checked.warnings.len());
            checked.warnings.extend(judgement.warnings.iter().take(room).map(told));
        }
        // Where the profile says which paths are metadata, what lies elsewhere and is no STAC is data.
        let is_metadata = is_named || self.profile.metadata_globs().is_empty() || self.profile.is_metadata(path);
        let nothing_stac = judged.judgements().all(|(_, judgement)| is_no_document(judgement));
        let says_nothing = self.profile.metadata_globs().is_empty() && !is_named && checked.word == "not-stac";
        checked.data = nothing_stac && (!is_metadata || says_nothing);
        if self.profile.action(Aspect::CollectionMissing) != Action::Ignore {
            judged.judgements().for_each(|(_, judgement)| checked.tell_unfit(judgement));
        }
        checked
    }

    fn profile_names(&self, file: &Origin, names: &dataset::Names) -> Vec<Problem> {
        let judge = Judge { schemas: &self.schemas, profile: &self.profile, today: self.today };
        judge.judge_name(&file.path, names.folds_with(&file.path))
    }
}

/// Adds what is wrong with a file's name to what is told of the file; a data file is told of only then.
fn with_names(checked: Option<Checked>, file: &Origin, misnamed: Vec<Problem>) -> Option<Checked> {
    if misnamed.is_empty() {
        return checked;
    }
    let mut checked = checked.unwrap_or_else(|| Checked { word: "valid", data: true, ..Checked::new(&file.shown) });
    for problem in misnamed {
        let told = Told { line: None, problem };
        if told.problem.severity == Severity::Error {
            (checked.word, checked.data) = ("invalid", false);
            checked.findings.push(told);
        } else {
            checked.warnings.push(told);
        }
    }
    Some(checked)
}

impl Checked {
    fn new(path: &str) -> Self {
        let path = path.to_owned();
        Self {
            path,
            word: "valid",
            findings: vec![],
            left_out: 0,
            warnings: vec![],
            members: None,
            data: false,
            unfit: false,
        }
    }

    /// Tells what is STAC and cannot be loaded: the pipeline refuses it, under any profile that is for ingest.
    fn tell_unfit(&mut self, judgement: &Judgement) {
        let Verdict::Valid(kind) = &judgement.verdict else { return };
        let Some(refusal) = unfit(kind) else { return };
        self.unfit = true;
        // A missing collection is warned of already.
        if refusal.code != codes::STAC_COLLECTION_MISSING {
            self.word = "invalid";
            self.findings.push(Told { line: None, problem: Problem::new(refusal.code, "", refusal.reason) });
        }
    }

    /// A file that could not be read: it is told of like any other, so that a report is always whole.
    fn unreadable(path: &str, error: &dyn std::fmt::Display) -> Self {
        let problem = Problem::new(codes::STAC_UNPARSEABLE, "", format!("the file could not be read: {error}"));
        Self { word: "unparseable", findings: vec![Told { line: None, problem }], ..Self::new(path) }
    }

    /// Whether the pipeline would refuse it, or a part of it.
    fn is_refused(&self) -> bool {
        !self.data && (self.unfit || !matches!(self.word, "valid" | "unusable"))
    }
}

fn bar(files: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files {per_sec}");
    ProgressBar::new(files as u64).with_style(style.unwrap_or(ProgressStyle::default_bar()))
}

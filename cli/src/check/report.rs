//! What is found, as people or programs want it, written as it comes.

use std::collections::BTreeMap;
use std::io::{BufWriter, Stdout, Write};

use landfall_events::{Severity, codes};
use landfall_stac::Profile;
use quick_xml::events::{BytesEnd, BytesStart, BytesText, Event};
use serde_json::json;

use super::{Checked, Form, Told};
use crate::output::visible;

/// How many files came to what.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) files: usize,
    pub(super) valid: usize,
    pub(super) refused: usize,
    pub(super) unusable: usize,
    pub(super) data: usize,
    /// Files by code: with an error, with a warning.
    codes: BTreeMap<String, (usize, usize)>,
}

/// A report that is being written.
pub(super) struct Report {
    form: Form,
    is_verbose: bool,
    out: BufWriter<Stdout>,
    summary: Summary,
    is_first: bool,
}

const SARIF_HEAD: &str = concat!(
    r#"{"$schema":"https://json.schemastore.org/sarif-2.1.0.json","version":"2.1.0","runs":[{"tool":{"driver":{"name":"landfall","version":""#,
    env!("CARGO_PKG_VERSION"),
    r#""}},"columnKind":"unicodeCodePoints","results":["#
);

impl Report {
    pub(super) fn new(form: Form, is_verbose: bool) -> anyhow::Result<Self> {
        let mut out = BufWriter::new(std::io::stdout());
        match form {
            Form::Human | Form::Json => {}
            Form::Junit => write!(
                out,
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"landfall check\"><testsuite name=\"landfall check\">\n"
            )?,
            Form::Sarif => write!(out, "{SARIF_HEAD}")?,
        }
        Ok(Self { form, is_verbose, out, summary: Summary::default(), is_first: true })
    }

    /// Writes what is told of one file.
    pub(super) fn write(&mut self, checked: &Checked) -> anyhow::Result<()> {
        self.summary.count(checked);
        match self.form {
            Form::Human => self.human(checked),
            Form::Json => self.json(checked),
            Form::Junit => self.junit(checked),
            Form::Sarif => self.sarif(checked),
        }
    }

    /// Ends the report.
    pub(super) fn finish(mut self, profile: &Profile) -> anyhow::Result<Summary> {
        match self.form {
            Form::Human => self.summary.write(&mut self.out, profile)?,
            Form::Json => {}
            Form::Junit => writeln!(self.out, "</testsuite></testsuites>")?,
            Form::Sarif => writeln!(self.out, "]}}]}}")?,
        }
        self.out.flush()?;
        Ok(self.summary)
    }

    fn human(&mut self, checked: &Checked) -> anyhow::Result<()> {
        let data = checked.data && checked.warnings.is_empty();
        let has_more = !checked.findings.is_empty() || !checked.warnings.is_empty();
        if !self.is_verbose && (data || !has_more) {
            return Ok(());
        }
        let out = &mut self.out;
        let counts =
            checked.members.iter().flatten().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>();
        let counts = if counts.is_empty() { String::new() } else { format!(" ({})", counts.join(", ")) };
        let as_data = if checked.data { ", passed on as data" } else { "" };
        writeln!(out, "{}: {}{counts}{as_data}", visible(&checked.path), checked.word)?;
        for told in checked.findings.iter().chain(&checked.warnings) {
            let problem = &told.problem;
            let line = told.line.map(|line| format!("line {line} ")).unwrap_or_default();
            let pointer = if problem.pointer.is_empty() { "the document" } else { &problem.pointer };
            let grade = match (problem.severity, problem.patched) {
                (Severity::Error, _) => "error  ",
                (Severity::Warning, false) => "warning",
                (Severity::Warning, true) => "patched",
            };
            writeln!(out, "  {grade} {line}{} [{}]", visible(pointer), problem.code)?;
            let found = problem.value.as_ref().map(|value| format!(": {}", visible(value))).unwrap_or_default();
            writeln!(out, "          {}{found}", visible(&problem.message))?;
            if let Some(hint) = &problem.hint {
                writeln!(out, "          → {}", visible(hint))?;
            }
        }
        if checked.left_out > 0 {
            writeln!(out, "  … and {} more", checked.left_out)?;
        }
        Ok(())
    }

    fn json(&mut self, checked: &Checked) -> anyhow::Result<()> {
        let patches: Vec<&Told> = checked.warnings.iter().filter(|told| told.problem.patched).collect();
        let mut object = json!({
            "path": checked.path, "verdict": checked.word, "warnings": checked.warnings, "findings": checked.findings,
            "patches": patches, "data": checked.data, "refused": checked.is_refused(),
        });
        if checked.left_out > 0 {
            object["left_out"] = checked.left_out.into();
        }
        if let Some(members) = &checked.members {
            object["members"] = json!(members);
        }
        Ok(writeln!(self.out, "{object}")?)
    }

    fn junit(&mut self, checked: &Checked) -> anyhow::Result<()> {
        let mut xml = quick_xml::Writer::new(&mut self.out);
        let mut case = BytesStart::new("testcase");
        case.push_attribute(("classname", "landfall"));
        case.push_attribute(("name", visible(&checked.path).as_str()));
        xml.write_event(Event::Start(case))?;
        if checked.is_refused() || checked.word == "unusable" {
            let name = if checked.word == "unusable" { "error" } else { "failure" };
            let mut failure = BytesStart::new(name);
            failure.push_attribute(("type", checked.word));
            let told: Vec<&Told> = checked.findings.iter().chain(&checked.warnings).collect();
            let first = told.first().map(|told| line_of(told)).unwrap_or_default();
            failure.push_attribute(("message", first.as_str()));
            xml.write_event(Event::Start(failure))?;
            let all: Vec<String> = told.into_iter().map(line_of).collect();
            xml.write_event(Event::Text(BytesText::new(&all.join("\n"))))?;
            xml.write_event(Event::End(BytesEnd::new(name)))?;
        }
        xml.write_event(Event::End(BytesEnd::new("testcase")))?;
        Ok(writeln!(self.out)?)
    }

    fn sarif(&mut self, checked: &Checked) -> anyhow::Result<()> {
        let findings = checked.findings.iter().filter(|_| !checked.data);
        for told in findings.chain(&checked.warnings) {
            let problem = &told.problem;
            let level = match problem.severity {
                Severity::Error => "error",
                Severity::Warning if problem.patched => "note",
                Severity::Warning => "warning",
            };
            let mut physical = json!({"artifactLocation": {"uri": uri(&checked.path)}});
            if let Some(line) = told.line {
                physical["region"] = json!({"startLine": line});
            }
            let pointer = json!([{"fullyQualifiedName": problem.pointer, "kind": "element"}]);
            let result = json!({
                "ruleId": problem.code, "level": level, "message": {"text": line_of(told)},
                "locations": [{"physicalLocation": physical, "logicalLocations": pointer}],
            });
            write!(self.out, "{}{result}", if self.is_first { "\n" } else { ",\n" })?;
            self.is_first = false;
        }
        Ok(())
    }
}

/// A problem in one line.
fn line_of(told: &Told) -> String {
    let problem = &told.problem;
    let line = told.line.map(|line| format!("line {line}: ")).unwrap_or_default();
    let pointer = if problem.pointer.is_empty() { String::new() } else { format!("{}: ", problem.pointer) };
    let hint = problem.hint.as_ref().map(|hint| format!(" → {hint}")).unwrap_or_default();
    visible(&format!("[{}] {line}{pointer}{}{hint}", problem.code, problem.message))
}

/// A path as a URI reference; a colon would make a scheme of what is before it.
fn uri(path: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
    let (start, rest) = path.strip_prefix("s3://").map_or(("", path), |rest| ("s3://", rest));
    format!("{start}{}", percent_encoding::utf8_percent_encode(rest, KEPT))
}

impl Summary {
    fn count(&mut self, checked: &Checked) {
        self.files += 1;
        self.refused += usize::from(checked.is_refused());
        self.unusable += usize::from(checked.word == "unusable");
        self.data += usize::from(checked.data);
        self.valid += usize::from(checked.word == "valid" && !checked.data);
        let mut seen: BTreeMap<&str, Severity> = BTreeMap::new();
        let findings = checked.findings.iter().filter(|_| !checked.data);
        for told in checked.warnings.iter().chain(findings) {
            seen.insert(told.problem.code.as_str(), told.problem.severity);
        }
        for (code, severity) in seen {
            let (errors, warnings) = self.codes.entry(code.to_owned()).or_default();
            match severity {
                Severity::Error => *errors += 1,
                Severity::Warning => *warnings += 1,
            }
        }
    }

    fn write(&self, out: &mut impl Write, profile: &Profile) -> anyhow::Result<()> {
        let Self { files, valid, refused, unusable, data, .. } = self;
        let mut text =
            format!("{files} files under the profile {}: {valid} valid, {refused} would be refused", profile.name());
        for (count, words) in [(unusable, "could not be judged"), (data, "data")] {
            if *count > 0 {
                text.push_str(&format!(", {count} {words}"));
            }
        }
        writeln!(out, "{text}")?;
        for (code, (errors, warnings)) in &self.codes {
            let rule = profile.rules.iter().find(|rule| rule.code.as_str() == code);
            let meaning = codes::explain(code).map(|known| known.cause.to_owned());
            let meaning = meaning.or_else(|| rule.and_then(|rule| rule.message.clone())).unwrap_or_default();
            writeln!(
                out,
                "  {errors:>6} errors {warnings:>6} warnings  {code}  {}",
                meaning.split(". ").next().unwrap_or_default()
            )?;
        }
        Ok(())
    }
}

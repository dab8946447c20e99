//! What a provider is told: where, what was expected, what stood there, and what to do about it, within bounds.

use std::fmt::{self, Write as _};

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use landfall_events::refusal::PROBLEMS_MAX;
use landfall_events::{Code, Problem, codes};

use crate::closed_prefix;
use crate::dom::Value;
use crate::profile::Aspect;
use crate::representation::Dom;

/// The longest excerpt of a stranger's value that is shown, in bytes.
const VALUE_BYTES_MAX: usize = 80;

/// The longest pointer, message, expectation or rule that is shown, in bytes.
const TEXT_BYTES_MAX: usize = 400;

/// All problems of one document together, as JSON, in bytes.
pub const PROBLEMS_BYTES_MAX: usize = 8 * 1024;

/// From this many values on, a document is cut down before its errors are gathered: each error takes memory,
/// and alternatives multiply them.
const EXPLAINED_VALUES_MAX: usize = 50_000;

/// The longest arrays that are kept when a document is cut down.
const KEPT_ELEMENTS: usize = 256;

/// A problem without more than its place and message.
pub(crate) fn problem(code: Code, pointer: &str, message: impl Into<String>) -> Problem {
    Problem::new(code, short(pointer, TEXT_BYTES_MAX), message)
}

/// Cuts problems down to what a notice, a dead letter and a status line can carry.
/// The first is always kept; returns how many were left out beside them.
pub(crate) fn bounded(mut problems: Vec<Problem>) -> (Vec<Problem>, usize) {
    problems.iter_mut().for_each(shorten);
    let mut bytes = 0;
    let fits = |problem: &Problem| {
        bytes += serde_json::to_vec(problem).map_or(0, |json| json.len() + 1);
        bytes <= PROBLEMS_BYTES_MAX
    };
    let kept = problems.iter().take(PROBLEMS_MAX).map(fits).take_while(|fits| *fits).count().max(1);
    let left_out = problems.len().saturating_sub(kept);
    problems.truncate(kept);
    (problems, left_out)
}

/// Cuts every text of a problem: whatever wrote it, one problem stays a fraction of what fits.
fn shorten(problem: &mut Problem) {
    let texts = [&mut problem.hint, &mut problem.rule, &mut problem.expected, &mut problem.value];
    for text in texts.into_iter().flatten().chain([&mut problem.pointer, &mut problem.message]) {
        *text = short(text, TEXT_BYTES_MAX);
    }
}

/// Gathers what a schema finds wrong with a document that it does not take; at least one problem.
pub(crate) fn explain(root: &Value<'_>, validator: &Validator<Dom>, url: &str) -> Vec<(Problem, Aspect)> {
    let small = (count(root) > EXPLAINED_VALUES_MAX).then(|| cut(root));
    let judged = small.as_ref().unwrap_or(root);
    let mut problems = Vec::new();
    if count(judged) <= EXPLAINED_VALUES_MAX {
        let document = Judged { root: judged, url };
        for error in validator.iter_errors(judged).take(4 * PROBLEMS_MAX) {
            document.tell(&error, &mut problems);
        }
    }
    told_once(&mut problems);
    if problems.is_empty() {
        let mut whole =
            problem(codes::STAC_SCHEMA, "", "the document breaks this schema; it is too large to say where");
        whole.rule = Some(short(url, TEXT_BYTES_MAX));
        problems.push((whole, Aspect::Schema));
    }
    problems
}

/// A value that is no date and time breaks the pattern for its zone too: that is one fault.
fn told_once(problems: &mut Vec<(Problem, Aspect)>) {
    let is = |problem: &Problem, keyword: &str| problem.keyword.as_deref() == Some(keyword);
    let by_format = problems.iter().filter(|(problem, aspect)| is(problem, "format") && *aspect == Aspect::Schema);
    let places: Vec<String> = by_format.map(|(problem, _)| problem.pointer.clone()).collect();
    problems.retain(|(problem, _)| !is(problem, "pattern") || !places.contains(&problem.pointer));
}

fn count(value: &Value<'_>) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(count).sum::<usize>(),
        Value::Object(members) => 1 + members.iter().map(|(_, value)| count(value)).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

/// A copy with the starts of its arrays only: places stay what they are.
fn cut<'v>(value: &'v Value<'_>) -> Value<'v> {
    match value {
        Value::Array(values) => Value::Array(values.iter().take(KEPT_ELEMENTS).map(cut).collect()),
        Value::Object(members) => {
            Value::Object(members.iter().map(|(name, value)| (name.as_ref().into(), cut(value))).collect())
        }
        Value::String(text) => Value::String(text.as_ref().into()),
        Value::Number(number) => Value::Number(number.clone()),
        Value::Bool(value) => Value::Bool(*value),
        Value::Null => Value::Null,
    }
}

struct Judged<'d> {
    root: &'d Value<'d>,
    url: &'d str,
}

impl Judged<'_> {
    /// Says an error of the schema engine in our words; of alternatives, the one that was meant.
    fn tell(&self, error: &ValidationError<'_>, problems: &mut Vec<(Problem, Aspect)>) {
        if problems.len() >= 4 * PROBLEMS_MAX {
            return;
        }
        if let ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } = error.kind()
            && let Some(branch) = meant(context, error.instance_path().as_str().len())
        {
            branch.iter().for_each(|error| self.tell(error, problems));
            return;
        }
        let pointer = error.instance_path().to_string();
        let in_time = pointer.contains("datetime") || pointer.starts_with("/extent/temporal");
        let code = if in_time { codes::STAC_DATETIME } else { codes::STAC_SCHEMA };
        let found = self.root.pointer(&pointer);
        let Told { message, expected, hint } = told(error, found);
        let mut told = problem(code, &pointer, short(&message, TEXT_BYTES_MAX));
        told.rule = Some(short(self.url, TEXT_BYTES_MAX));
        let keyword = match error.kind().keyword() {
            closed_prefix::KEYWORD => "additionalProperties",
            other => other,
        };
        told.keyword = Some(keyword.to_owned());
        told.expected = expected.map(|text| short(&text, TEXT_BYTES_MAX));
        told.hint = hint.map(|text| short(&text, TEXT_BYTES_MAX));
        told.value = found.map(masked);
        // A pattern and a format often say the same thing of the same value.
        if !problems.iter().any(|(other, _)| other.pointer == told.pointer && other.message == told.message) {
            problems.push((told, aspect(error, found)));
        }
    }
}

/// Which kind of finding an error is, as far as profiles tell them apart.
#[allow(clippy::wildcard_enum_match_arm, reason = "all other kinds are broken rules")]
fn aspect(error: &ValidationError<'_>, found: Option<&Value<'_>>) -> Aspect {
    match error.kind() {
        ValidationErrorKind::Format { format } => match format.as_str() {
            "iri" | "iri-reference" | "uri" | "uri-reference" => Aspect::Iri,
            "date-time" if found.and_then(Value::as_str).is_some_and(is_spaced) => Aspect::DatetimeSpace,
            _ => Aspect::Schema,
        },
        _ => Aspect::Schema,
    }
}

/// Whether a datetime would be right with a `T` in the place of its space, which readers of RFC 3339 may allow.
/// <https://www.rfc-editor.org/rfc/rfc3339#section-5.6>
fn is_spaced(text: &str) -> bool {
    text.as_bytes().get(10) == Some(&b' ') && text.replacen(' ', "T", 1).parse::<jiff::Timestamp>().is_ok()
}

/// The branch of alternatives that came closest: not one for another type of document, then the one whose faults
/// lie deepest, then the one with the fewest.
#[allow(clippy::wildcard_enum_match_arm, reason = "only three kinds can tell types of documents apart")]
fn meant<'e, 'i>(branches: &'e [Vec<ValidationError<'i>>], depth: usize) -> Option<&'e [ValidationError<'i>]> {
    let is_other = |error: &ValidationError<'_>| {
        let path = &error.instance_path().as_str()[depth.min(error.instance_path().as_str().len())..];
        match error.kind() {
            ValidationErrorKind::Constant { .. } | ValidationErrorKind::Enum { .. } => path == "/type",
            ValidationErrorKind::Type { .. } => path.is_empty(),
            _ => false,
        }
    };
    let deepest = |branch: &[ValidationError<'_>]| {
        branch.iter().map(|error| error.instance_path().as_str().matches('/').count()).max().unwrap_or_default()
    };
    let rank = |branch: &&Vec<ValidationError<'_>>| {
        let others = branch.iter().any(is_other);
        (others, std::cmp::Reverse(deepest(branch)), branch.len())
    };
    let best = branches.iter().filter(|branch| !branch.is_empty()).min_by_key(rank)?;
    // Where every alternative is for something else, none of them was meant.
    (!best.iter().any(is_other)).then_some(best)
}

struct Told {
    message: String,
    expected: Option<String>,
    hint: Option<String>,
}

#[allow(clippy::wildcard_enum_match_arm, reason = "the rarer kinds of the schema engine keep its own words")]
fn told(error: &ValidationError<'_>, found: Option<&Value<'_>>) -> Told {
    let say =
        |message: String, expected: String, hint: String| Told { message, expected: Some(expected), hint: Some(hint) };
    let is = found.map_or("nothing", kind_of);
    match error.kind() {
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            say(format!("the member {name:?} is missing"), format!("a member {name:?}"), format!("add {name:?}"))
        }
        ValidationErrorKind::Type { kind } => {
            let types: Vec<String> = match kind {
                TypeKind::Single(kind) => vec![article(&kind.to_string())],
                TypeKind::Multiple(kinds) => kinds.iter().map(|kind| article(&kind.to_string())).collect(),
            };
            let types = types.join(" or ");
            say(format!("this is {is}, not {types}"), types.clone(), format!("make it {types}"))
        }
        ValidationErrorKind::Enum { options } => {
            let options = short(&options.to_string(), 2 * VALUE_BYTES_MAX);
            say(
                "this is none of the values that are allowed".into(),
                format!("one of {options}"),
                format!("use one of {options}"),
            )
        }
        ValidationErrorKind::Constant { expected_value } => {
            let value = short(&expected_value.to_string(), 2 * VALUE_BYTES_MAX);
            say("this is not the value that is asked for".into(), value.clone(), format!("set it to {value}"))
        }
        ValidationErrorKind::Format { format } => match format.as_str() {
            "date-time" => say(
                "this is not an RFC 3339 date and time".into(),
                "a date and time as RFC 3339 has it".into(),
                "write it as 2024-05-17T10:15:00Z".into(),
            ),
            "iri" | "uri" => say(
                format!("this is not an absolute {}", format.to_uppercase()),
                format!("an absolute {}", format.to_uppercase()),
                "write the whole URL, with its scheme, and percent-encode spaces, braces and backslashes".into(),
            ),
            "iri-reference" | "uri-reference" => say(
                "this is not a URL or a relative reference".into(),
                "a URL or a relative reference".into(),
                "percent-encode spaces, braces and backslashes".into(),
            ),
            other => say(format!("this is not a valid {other}"), other.to_owned(), format!("write it as a {other}")),
        },
        ValidationErrorKind::Pattern { pattern } => {
            let in_time = error.instance_path().as_str().contains("datetime");
            let hint = if in_time {
                "write it in UTC, as 2024-05-17T10:15:00Z"
            } else {
                "write it in the form that is expected"
            };
            say(
                "this is not written in the form that is asked for".into(),
                format!("text that matches {pattern}"),
                hint.into(),
            )
        }
        ValidationErrorKind::MinItems { limit } => say(
            format!("there are fewer than {limit} elements"),
            format!("at least {limit} elements"),
            "add what is missing".into(),
        ),
        ValidationErrorKind::MaxItems { limit } => say(
            format!("there are more than {limit} elements"),
            format!("at most {limit} elements"),
            "remove what is too much".into(),
        ),
        ValidationErrorKind::MinLength { limit } => say(
            format!("this is shorter than {limit} characters"),
            format!("at least {limit} characters"),
            "fill it in, or remove it where it is optional".into(),
        ),
        ValidationErrorKind::Minimum { limit } => {
            say(format!("this is less than {limit}"), format!("{limit} or more"), "correct the number".into())
        }
        ValidationErrorKind::Maximum { limit } => {
            say(format!("this is more than {limit}"), format!("{limit} or less"), "correct the number".into())
        }
        ValidationErrorKind::ExclusiveMinimum { limit } => {
            say(format!("this is not more than {limit}"), format!("more than {limit}"), "correct the number".into())
        }
        ValidationErrorKind::ExclusiveMaximum { limit } => {
            say(format!("this is not less than {limit}"), format!("less than {limit}"), "correct the number".into())
        }
        ValidationErrorKind::UniqueItems => say(
            "an element stands here more than once".into(),
            "elements that differ".into(),
            "remove the repetitions".into(),
        ),
        ValidationErrorKind::AdditionalProperties { unexpected } => unknown(&unexpected.join(", ")),
        ValidationErrorKind::Custom { message, .. } => unknown(message),
        ValidationErrorKind::FalseSchema => {
            say("this must not be here".into(), "nothing here".into(), "remove it, or add what it belongs to".into())
        }
        ValidationErrorKind::Contains => say(
            "no element is what is asked for".into(),
            "an element of the form that the schema asks for".into(),
            "add the element".into(),
        ),
        ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => say(
            "this fits none of the forms that are allowed".into(),
            "one of the forms of the schema".into(),
            "see the schema named for the forms that there are".into(),
        ),
        ValidationErrorKind::OneOfMultipleValid { .. } => say(
            "this fits several forms of which only one is allowed".into(),
            "exactly one of the forms of the schema".into(),
            "remove what makes it fit the others".into(),
        ),
        ValidationErrorKind::Not { .. } => say(
            "this is a form that is not allowed".into(),
            "anything but the form that the schema excludes".into(),
            "see the schema named for what is excluded".into(),
        ),
        _ => Told { message: error.masked().to_string(), expected: None, hint: None },
    }
}

fn unknown(names: &str) -> Told {
    Told {
        message: format!("members that the schema does not know: {}", short(names, 2 * VALUE_BYTES_MAX)),
        expected: Some("no other members".into()),
        hint: Some("correct their spelling, or remove them".into()),
    }
}

fn article(kind: &str) -> String {
    match kind {
        "null" => "null".into(),
        "array" | "object" | "integer" => format!("an {kind}"),
        _ => format!("a {kind}"),
    }
}

fn kind_of(value: &Value<'_>) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A value as JSON, cut to [`VALUE_BYTES_MAX`], with nothing that a terminal or a log would act on.
pub(crate) fn masked(value: &Value<'_>) -> String {
    let mut start = Start(String::new());
    // An error here says that enough is written.
    let _enough: fmt::Result = write!(start, "{value}");
    short(&start.0, VALUE_BYTES_MAX)
}

/// The start of a text that is being written; it ends the writing when there is enough.
struct Start(String);

impl fmt::Write for Start {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = (VALUE_BYTES_MAX + 8).saturating_sub(self.0.len());
        self.0.extend(text.chars().take(room));
        if self.0.len() > VALUE_BYTES_MAX { Err(fmt::Error) } else { Ok(()) }
    }
}

/// A text without control characters, cut to so many bytes.
pub(crate) fn short(text: &str, bytes_max: usize) -> String {
    let visible = |c: char| if c.is_control() || is_bidi(c) { '\u{FFFD}' } else { c };
    let mut cut = String::new();
    for c in text.chars().map(visible) {
        if cut.len() + c.len_utf8() > bytes_max {
            while cut.len() + '…'.len_utf8() > bytes_max {
                cut.pop();
            }
            cut.push('…');
            break;
        }
        cut.push(c);
    }
    cut
}

/// Characters that turn the direction of text around, and could make a line read as something else.
/// <https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>
fn is_bidi(c: char) -> bool {
    matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

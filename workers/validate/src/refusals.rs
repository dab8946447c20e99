//! A judgement as the stage needs it: what goes on, what is refused and with which words, what may be data.

use landfall_events::{Code, Problem, Refusal, codes};
use landfall_stac::{Judgement, Kind, Verdict};

/// The longest ids that are taken, in bytes: they go into keys of the ledger's indexes, which hold 2,704 bytes in all.
/// <https://www.postgresql.org/docs/15/btree-implementation.html>
pub(crate) const ID_BYTES_MAX: usize = 512;

/// What becomes of a document.
pub(crate) enum Outlook {
    /// It goes on.
    Document(Kind, Judgement),
    /// Not STAC at all: data, unless its path says metadata.
    NoDocument(Refusal),
    /// It is refused, wherever it lies.
    Refused(Refusal),
}

/// Whether a document is none that was meant as STAC, as far as can be seen: data, unless its path says metadata.
#[must_use]
pub fn is_no_document(judgement: &Judgement) -> bool {
    match &judgement.verdict {
        Verdict::NotStac | Verdict::Unparseable => true,
        // GeoJSON without `stac_version`, a list, a number: near to STAC, and not STAC. What is too large is not read.
        Verdict::Invalid => {
            let codes = [codes::STAC_NOT_STAC, codes::STAC_TOO_LARGE];
            judgement.findings.iter().all(|finding| codes.contains(&finding.code))
        }
        Verdict::Valid(_) | Verdict::ExtensionUnknown | Verdict::Unusable | Verdict::UnsupportedVersion => false,
    }
}

/// Says what becomes of a judged document.
pub(crate) fn outlook(judgement: Judgement) -> Outlook {
    match &judgement.verdict {
        Verdict::Valid(kind) => match unfit(kind) {
            Some(refusal) => Outlook::Refused(refusal),
            None => Outlook::Document(kind.clone(), judgement),
        },
        _ if is_no_document(&judgement) => Outlook::NoDocument(refusal(judgement)),
        Verdict::Invalid
        | Verdict::NotStac
        | Verdict::Unparseable
        | Verdict::ExtensionUnknown
        | Verdict::Unusable
        | Verdict::UnsupportedVersion => Outlook::Refused(refusal(judgement)),
    }
}

/// What is valid STAC and cannot be loaded.
#[must_use]
pub fn unfit(kind: &Kind) -> Option<Refusal> {
    let ids = match kind {
        Kind::Item { collection: None, id } => {
            let mut refusal = Refusal::new(codes::STAC_COLLECTION_MISSING, "the item names no collection");
            refusal.item = Some(id.clone()).filter(|id| id.len() <= ID_BYTES_MAX);
            return Some(refusal);
        }
        Kind::Item { collection, id } => [Some(id), collection.as_ref()],
        Kind::Collection { id } | Kind::Catalog { id } => [Some(id), None],
    };
    let longest = ids.into_iter().flatten().map(String::len).max()?;
    let reason = || format!("an id is {longest} bytes long; {ID_BYTES_MAX} are taken");
    (longest > ID_BYTES_MAX).then(|| Refusal::new(codes::STAC_SCHEMA, reason()))
}

/// Refuses with all findings; under their own code where they share one.
fn refusal(judgement: Judgement) -> Refusal {
    let short = |id: Option<String>| id.filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX);
    let problems = judgement.findings;
    let reason = match problems.as_slice() {
        [] => "the document is not taken".to_owned(),
        [only] => told(only),
        [first, ..] => format!("{} problems; the first: {}", problems.len() + judgement.left_out, told(first)),
    };
    let collection = short(judgement.collection);
    Refusal { code: shared_code(&problems), reason, problems, collection, item: short(judgement.id) }
}

/// Takes the ids off refusals of members that share one with another member of their file: each is known by its place
/// then, and has a line of its own wherever it is listed.
pub(crate) fn told_apart(members: &mut [(u32, &[u8], Outlook)]) {
    let named = |outlook: &Outlook| match outlook {
        Outlook::Document(_, judgement) => (judgement.collection.clone(), judgement.id.clone()),
        Outlook::NoDocument(refusal) | Outlook::Refused(refusal) => (refusal.collection.clone(), refusal.item.clone()),
    };
    let mut counts = std::collections::HashMap::new();
    for (.., outlook) in members.iter() {
        *counts.entry(named(outlook)).or_insert(0) += 1;
    }
    for (.., outlook) in members {
        let is_shared = counts.get(&named(outlook)).is_some_and(|count| *count > 1);
        if let (true, Outlook::NoDocument(refusal) | Outlook::Refused(refusal)) = (is_shared, outlook) {
            (refusal.collection, refusal.item) = (None, None);
        }
    }
}

fn told(problem: &Problem) -> String {
    if problem.pointer.is_empty() {
        problem.message.clone()
    } else {
        format!("{}: {}", problem.pointer, problem.message)
    }
}

fn shared_code(problems: &[Problem]) -> Code {
    let first = problems.first().map(|first| first.code.clone());
    first.filter(|code| problems.iter().all(|problem| problem.code == *code)).unwrap_or(codes::STAC_SCHEMA)
}

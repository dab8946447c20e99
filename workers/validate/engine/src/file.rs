//! A whole file: one document, or an envelope of several, each judged by itself.

use std::collections::BTreeSet;

use landfall_events::{Problem, codes};

use crate::dom::{NOT_UTF8, Unreadable, text};
use crate::findings::problem;
use crate::judge::{Judge, Judgement, Kind, Place, Verdict};
use crate::members::{Member, Members, split};

/// The most members of one file that are taken: each becomes messages, which are held in memory together.
pub const MEMBERS_MAX: usize = 10_000;

/// The members of a file with too many that are looked at to see whether it is STAC at all.
const SAMPLE: usize = 16;

/// After so many findings in one file, one is told of each member.
const TOLD_MAX: usize = 2_000;

/// What is found about a file.
#[derive(Debug)]
pub enum FileJudgement<'t> {
    /// It is one document, or an envelope that is broken.
    One(Judgement),
    /// It holds several; one bad member does not sink the rest.
    Several(Envelope, Vec<(Member<'t>, Judgement)>),
}

/// What holds several documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Envelope {
    /// An item collection.
    Features,
    /// A list of collections.
    Collections,
    /// Lines of ndjson.
    Lines,
}

impl Envelope {
    /// Where a member stands in the file, as the start of a JSON Pointer; empty for lines, which have numbers.
    #[must_use]
    pub fn pointer(self, number: u32) -> String {
        let index = number.saturating_sub(1);
        match self {
            Self::Features => format!("/features/{index}"),
            Self::Collections => format!("/collections/{index}"),
            Self::Lines => String::new(),
        }
    }

    /// Why a kind of document is no member of it.
    fn refuses(self, kind: &Kind) -> Option<&'static str> {
        match (self, kind) {
            (Self::Features, Kind::Item { .. })
            | (Self::Collections, Kind::Collection { .. })
            | (Self::Lines, Kind::Item { .. } | Kind::Collection { .. }) => None,
            (Self::Features, _) => Some("a feature of an item collection is an item"),
            (Self::Collections, _) => Some("a member of `collections` is a collection"),
            (Self::Lines, Kind::Catalog { .. }) => Some("a line is an item or a collection"),
        }
    }
}

impl Judge<'_> {
    /// Judges a file by its name and bytes; of several members, only the one of this number where one is given.
    pub fn judge_file<'t>(
        &self,
        file_name: &str,
        bytes: &'t [u8],
        place: Place<'_>,
        only: Option<u32>,
    ) -> FileJudgement<'t> {
        // What is not text at all is told where documents are read; of lines, each is told by itself.
        let is_text = !matches!(text(bytes), Err(Unreadable::Encoding(found)) if found != NOT_UTF8);
        let is_small = bytes.len() <= crate::DOCUMENT_BYTES_MAX;
        let members = if is_text && is_small { split(file_name, bytes) } else { Members::One };
        let (envelope, members) = match members {
            Members::One => return FileJudgement::One(self.judge(bytes, place)),
            Members::Features(members) => (Envelope::Features, members),
            Members::Collections(members) => (Envelope::Collections, members),
            Members::Lines(members) => (Envelope::Lines, members),
        };
        if members.len() > MEMBERS_MAX {
            // A long list of something else is no fault of anyone's.
            let is_stac = |member: &Member<'_>| self.judge(member.bytes, place).verdict != Verdict::NotStac;
            if !members.iter().take(SAMPLE).any(is_stac) {
                return FileJudgement::One(Judgement::not_stac());
            }
            let message = format!("the file has {} members; {MEMBERS_MAX} are taken", members.len());
            let problem = problem(codes::STAC_TOO_MANY, "", message);
            return FileJudgement::One(Judgement::because(Verdict::Invalid, problem));
        }
        let wanted = members.into_iter().filter(|member| only.is_none_or(|only| only == member.number));
        let mut told = 0;
        let judged = wanted.map(|member| {
            let mut judgement = self.judge(member.bytes, Place { is_member: true, ..place });
            if let Verdict::Valid(kind) = &judgement.verdict
                && let Some(reason) = envelope.refuses(kind)
            {
                let problem = problem(codes::STAC_NOT_STAC, "/type", reason);
                judgement = Judgement {
                    collection: judgement.collection,
                    id: judgement.id,
                    ..Judgement::because(Verdict::Invalid, problem)
                };
            }
            // A file with very many faults is told in full at its start.
            let kept = if told < TOLD_MAX { judgement.findings.len() } else { 1 };
            judgement.left_out += judgement.findings.len().saturating_sub(kept);
            judgement.findings.truncate(kept);
            told += judgement.findings.len();
            (member, judgement)
        });
        FileJudgement::Several(envelope, judged.collect())
    }
}

impl FileJudgement<'_> {
    /// The word for the file as a whole, for the output of `landfall check`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        let members = match self {
            Self::One(judgement) => return judgement.verdict.word(),
            Self::Several(_, members) => members,
        };
        let words: BTreeSet<&str> = members.iter().map(|(_, judgement)| judgement.verdict.word()).collect();
        let is_only = |allowed: &[&str]| words.iter().all(|word| allowed.contains(word));
        match words.first() {
            None => "valid",
            Some(only) if words.len() == 1 => only,
            // Some are good and some are not, or not for one reason: the file is not good.
            Some(_) if is_only(&["unusable", "valid"]) => "unusable",
            Some(_) => "invalid",
        }
    }

    /// Each judgement, with the member's number where there are several.
    pub fn judgements(&self) -> impl Iterator<Item = (Option<u32>, &Judgement)> {
        let (one, several) = match self {
            Self::One(judgement) => (Some((None, judgement)), [].as_slice()),
            Self::Several(_, members) => (None, members.as_slice()),
        };
        one.into_iter().chain(several.iter().map(|(member, judgement)| (Some(member.number), judgement)))
    }
}

impl Judge<'_> {
    /// Judges a path by the profile's rules for names; `folds_with` is another path that differs from it in case only.
    #[must_use]
    pub fn judge_name(&self, path: &str, folds_with: Option<&str>) -> Vec<Problem> {
        self.profile.rules.iter().filter_map(|rule| rule.on_path(path, folds_with)).collect()
    }
}

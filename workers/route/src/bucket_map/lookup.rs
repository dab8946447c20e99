//! Which rule hits a path, found without going through the rules one by one.

use std::collections::HashMap;

use aho_corasick::{AhoCorasick, Anchored, Input, MatchKind, StartKind};
use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

/// The rules of one provider, compiled. A rule is known by its number in the file's order.
#[derive(Debug)]
pub(super) enum Lookup {
    /// Generation A: the longest prefix at a component boundary.
    Longest(HashMap<String, usize>),
    /// Generations B and C: the first in file order.
    First(First),
}

/// Rules in file order, apart by the collections that they are for.
#[derive(Debug)]
pub(super) struct First {
    any: Matcher,
    by_collection: HashMap<String, Matcher>,
    by_collections: Vec<(Regex, Matcher)>,
}

/// Paths in file order.
#[derive(Debug)]
struct Matcher {
    starts: AhoCorasick,
    of_start: Vec<usize>,
    globs: RegexSet,
    of_glob: Vec<usize>,
}

/// What a rule asks of a path and a collection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Condition<'a> {
    pub(super) prefix: Option<&'a str>,
    pub(super) collection: Option<&'a str>,
}

/// What is known of the collection that an object belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of<'a> {
    /// Rules for collections do not hit.
    None,
    /// This one.
    Collection(&'a str),
    /// Rules for any collection hit: to find out whether it would matter.
    Whichever,
}

impl Lookup {
    pub(super) fn longest<'a>(prefixes: impl Iterator<Item = &'a str>) -> Self {
        Self::Longest(prefixes.enumerate().map(|(rule, prefix)| (trimmed(prefix).to_owned(), rule)).collect())
    }

    /// Compiles conditions in file order.
    pub(super) fn first<'a>(conditions: impl Iterator<Item = Condition<'a>>) -> Result<Self, regex::Error> {
        let mut any = Vec::new();
        let mut by_collection: HashMap<&str, Vec<_>> = HashMap::new();
        for (rule, Condition { prefix, collection }) in conditions.enumerate() {
            let path = (rule, prefix.unwrap_or_default());
            match collection {
                None => any.push(path),
                Some(collection) => by_collection.entry(collection).or_default().push(path),
            }
        }
        let mut first = First { any: Matcher::new(&any)?, by_collection: HashMap::new(), by_collections: Vec::new() };
        for (collection, paths) in by_collection {
            let matcher = Matcher::new(&paths)?;
            if is_glob(collection) {
                first.by_collections.push((glob(collection)?, matcher));
            } else {
                first.by_collection.insert(collection.to_owned(), matcher);
            }
        }
        Ok(Self::First(first))
    }

    /// Whether a document's collection can make a difference for a path.
    pub(super) fn minds_collections(&self, path: &str) -> bool {
        match self {
            Self::First(first) if first.by_collection.is_empty() && first.by_collections.is_empty() => false,
            Self::Longest(_) => false,
            Self::First(_) => self.hit(path, Of::Whichever) != self.hit(path, Of::None),
        }
    }

    /// The rule that hits.
    pub(super) fn hit(&self, path: &str, of: Of<'_>) -> Option<usize> {
        match self {
            Self::Longest(prefixes) => {
                let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
                let mut ends: Vec<_> = ends.collect();
                ends.reverse();
                ends.into_iter().find_map(|end| prefixes.get(&path[..end]).copied())
            }
            Self::First(first) => first.hit(path, of),
        }
    }
}

impl First {
    fn hit(&self, path: &str, of: Of<'_>) -> Option<usize> {
        let any = self.any.hit(path);
        let special: Option<usize> = match of {
            Of::None => None,
            Of::Collection(collection) => {
                let exact = self.by_collection.get(collection).and_then(|matcher| matcher.hit(path));
                let globs = self.by_collections.iter().filter(|(glob, _)| glob.is_match(collection));
                globs.filter_map(|(_, matcher)| matcher.hit(path)).chain(exact).min()
            }
            Of::Whichever => {
                let globs = self.by_collections.iter().map(|(_, matcher)| matcher);
                self.by_collection.values().chain(globs).filter_map(|matcher| matcher.hit(path)).min()
            }
        };
        any.into_iter().chain(special).min()
    }
}

impl Matcher {
    fn new(paths: &[(usize, &str)]) -> Result<Self, regex::Error> {
        // Anchored and leftmost-first is "the first in order that the path starts with".
        let starts = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostFirst)
            .start_kind(StartKind::Anchored)
            .build(paths.iter().map(|(_, prefix)| prefix));
        let starts = starts.expect("a bucket map is far smaller than the limits of an automaton");
        let globs: Vec<_> = paths.iter().filter(|(_, prefix)| is_glob(prefix)).collect();
        let (of_start, of_glob) = (paths.iter().map(|(rule, _)| *rule), globs.iter().map(|(rule, _)| *rule));
        let (of_start, of_glob) = (of_start.collect(), of_glob.collect());
        let globs =
            RegexSetBuilder::new(globs.iter().map(|(_, glob)| translated(glob))).size_limit(REGEX_BYTES_MAX).build()?;
        Ok(Self { starts, of_start, globs, of_glob })
    }

    fn hit(&self, path: &str) -> Option<usize> {
        let input = Input::new(path).anchored(Anchored::Yes);
        let start = self.starts.find(input).map(|found| self.of_start[found.pattern().as_usize()]);
        if self.of_glob.is_empty() {
            return start;
        }
        let globs = self.globs.matches(path).into_iter().map(|glob| self.of_glob[glob]);
        globs.chain(start).min()
    }
}

/// A prefix of generation A without the slash at its end, which a boundary has anyway.
pub(super) fn trimmed(prefix: &str) -> &str {
    prefix.trim_end_matches('/')
}

/// Whether a pattern has something that matches other than itself.
pub(super) fn is_glob(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// Compiles a pattern as Python's `fnmatch` reads it: `*`, `?`, `[…]`, `[!…]`, all of which take `/`; nothing else is
/// special. <https://docs.python.org/3/library/fnmatch.html>
pub(super) fn glob(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(&translated(pattern)).size_limit(REGEX_BYTES_MAX).build()
}

/// The memory that compiled globs may take.
const REGEX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The same pattern as a regular expression over the whole path.
fn translated(pattern: &str) -> String {
    let mut text = String::from(r"(?s)\A");
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match (c, class(rest)) {
            ('*', _) => text.push_str(".*"),
            ('?', _) => text.push('.'),
            ('[', Some((class, after))) => {
                let (not, members) = class.strip_prefix('!').map_or(("", class), |members| ("^", members));
                match (not, escaped_class(members).as_str()) {
                    // Only ranges that end before they start: nothing is in the class.
                    ("", "") => text.push_str(r"[^\x00-\x{10FFFF}]"),
                    (_, "") => text.push('.'),
                    (not, members) => text.push_str(&format!("[{not}{members}]")),
                }
                rest = after;
            }
            (other, _) => text.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    text + r"\z"
}

/// A class's members, of which only the dash between two others means something: the range from one to the other.
fn escaped_class(members: &str) -> String {
    let code = |c: char| format!(r"\u{{{:X}}}", u32::from(c));
    let mut text = String::new();
    let mut members = members.chars();
    while let Some(first) = members.next() {
        let mut ahead = members.clone();
        if let (Some('-'), Some(last)) = (ahead.next(), ahead.next()) {
            if first <= last {
                text.push_str(&format!("{}-{}", code(first), code(last)));
            }
            members = ahead;
        } else {
            text.push_str(&code(first));
        }
    }
    text
}

/// Splits what follows an opening bracket into its class and the rest; `None` where nothing closes it.
fn class(rest: &str) -> Option<(&str, &str)> {
    let start = usize::from(rest.starts_with('!'));
    let start = start + usize::from(rest[start..].starts_with(']'));
    let end = start + rest[start..].find(']')?;
    Some((&rest[..end], &rest[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected as `fnmatch.fnmatchcase` of Python 3.11 answers.
    #[track_caller]
    fn check(pattern: &str, path: &str, expected: bool) {
        assert_eq!(glob(pattern).unwrap().is_match(path), expected, "{pattern} {path}");
    }

    #[test]
    fn a_glob_reads_as_fnmatch_does() {
        check("manifests/*", "manifests/a/b", true);
        check("manifests/*", "manifests", false);
        check("*/browse/*.png", "m/x/browse/p/q.png", true);
        check("a**b", "a/x/b", true);
        check("**/a", "a", false);
        check("**/a", "/a", true);
        check("a?c", "a/c", true);
        check("run[0-9]/", "run7/", true);
        check("run[!0-9]", "run7", false);
        check("run[!0-9]", "runx", true);
        check("a[]]b", "a]b", true);
        check("a[!]]b", "axb", true);
        check("a[b", "a[b", true);
        check("a[b*", "a[bcd", true);
        check("[^a]", "^", true);
        check("[^a]", "b", false);
        check("[^]", "^", true);
        check("{a,b}", "a", false);
        check("{a,b}*", "{a,b}c", true);
        check("a\\*", "a\\x", true);
        check("[*]*", "*x", true);
        check("[*]*", "xx", false);
        check("A*", "ab", false);
        check("*ü?", "xüé", true);
        check("[ü-ý]", "ü", true);
        check("[!é]", "é", false);
        check("[a-]", "-", true);
        check("[--0]", ".", true);
        check("[a&&b~~c]", "&", true);
        check("a\nb*", "a\nbc\n", true);
        check("a.c", "abc", false);
        check("[a9-0]x*", "axy", true);
        check("[9-0]x", "9x", false);
        check("[!9-0]x", "9x", true);
    }
}

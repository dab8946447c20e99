//! How a command answers: for people or for programs.

use clap::ValueEnum;
use serde::Serialize;

/// The form of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub enum Format {
    /// Text for people.
    #[default]
    Human,
    /// JSON for programs.
    Json,
}

/// How a command ended; its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All is good: 0.
    Good,
    /// The work found problems: 1.
    Problems,
}

/// Something is wrong with the set-up or the usage, and not with the work: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SetUp(pub String);

/// Prints a value as one line of JSON.
///
/// # Errors
/// Where standard output is closed.
pub fn json<T: Serialize>(value: &T) -> anyhow::Result<()> {
    line(&serde_json::to_string(value)?)
}

/// Prints a line; unlike `println!` it does not panic where standard output is closed.
///
/// # Errors
/// Where standard output is closed.
pub fn line(text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    Ok(writeln!(std::io::stdout().lock(), "{text}")?)
}

/// A table for people: aligned columns without lines, as `kubectl` prints them.
#[must_use]
pub fn table(head: &[&str]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Dynamic);
    table.set_header(head.to_vec());
    table
}

/// Makes a stranger's text harmless for a terminal, and for XML, which has no place for some characters.
/// <https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>, <https://www.w3.org/TR/xml/#charsets>
#[must_use]
pub fn visible(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
            || matches!(c, '\u{FFFE}' | '\u{FFFF}')
    };
    text.chars().map(|c| if hidden(c) { '\u{FFFD}' } else { c }).collect()
}

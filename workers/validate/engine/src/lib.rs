//! Judges STAC documents offline: core STAC 1.0.0 and 1.1.0, every extension of a schema bundle, and the rules of
//! an archive's own profile.
//!
//! This crate has no network code, and opens no file but the schema bundle that its caller names: nothing that a
//! document names is fetched, opened or resolved.

pub mod bundle_files;
mod closed_prefix;
mod core_rules;
pub mod dataset;
pub mod dom;
mod extensions;
mod file;
mod findings;
mod geometry;
mod judge;
mod members;
mod patch;
pub mod profile;
mod representation;
mod rules;
pub mod schemas;

pub use core_rules::core_schema;
pub use dataset::Dataset;
pub use dom::{Document, Unreadable};
pub use file::{Envelope, FileJudgement, MEMBERS_MAX};
pub use findings::PROBLEMS_BYTES_MAX;
pub use judge::{Judge, Judgement, Kind, Place, Verdict};
pub use members::{Member, Members, split};
pub use profile::{Action, Aspect, Profile, ProfileError};
pub use rules::RuleError;
pub use schemas::{Bundle, BundleError, Lock, Locked, Schemas, Status};

/// The largest document that is judged, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 8 * 1024 * 1024;

#[cfg(test)]
mod tests;

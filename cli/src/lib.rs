//! The `landfall` command: for providers, operators and local runs.
//!
//! It refuses to do a stage's work: it puts, asks, re-sends and starts things.

pub mod backfill;
pub mod check;
pub mod deployment;
pub mod dlq;
pub mod doctor;
pub mod load;
pub mod local;
pub mod maintain;
pub mod map;
pub mod migrate;
pub mod notices;
pub mod output;
pub mod put;
pub mod reconcile;
pub mod schemas;
pub mod status;

use landfall_load::Load;
use landfall_notify::Notify;
use landfall_route::Route;
use landfall_shared::{Chain, StageName};
use landfall_validate::Validate;

/// The pipeline: the one place where the chain is named.
#[must_use]
pub fn stages() -> Vec<StageName> {
    Chain::start().then::<Validate>().then::<Route>().then::<Load>().end::<Notify>()
}

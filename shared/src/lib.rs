//! How it is run: what a stage is, the one function that decides about deliveries, and the ports to the outside.
//!
//! This crate knows queues, topics, objects and the catalogue; it refuses to know what validating, routing,
//! loading or notifying means.

pub mod aws;
pub mod catalogue;
pub mod chain;
pub mod config;
pub mod documents;
mod environment;
pub mod lambda;
pub mod letters;
pub mod memory;
pub mod metrics;
pub mod objects;
pub mod pgstac;
pub mod poller;
pub mod queue;
pub mod runner;
pub mod stage;
pub mod statuses;
pub mod telemetry;
pub mod testing;
pub mod topic;
pub mod watched;
pub mod worker;

pub use chain::{Chain, StageName};
pub use runner::{Outlets, Policy, Runner, Verdict};
pub use stage::{Class, Done, Failure, Outcome, Refused, Stage, Wait};

/// Locks what is shared. Where another thread has panicked while it held it, what it left is used.
pub fn locked<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

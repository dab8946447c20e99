//! What is said: the events between the stages, the notices and the dead letters.
//!
//! This crate holds data and its wire forms only. It refuses to do I/O, to read a clock or to know
//! which service carries a message.

pub mod cause;
pub mod codes;
pub mod document;
pub mod envelope;
pub mod landed;
pub mod letter;
pub mod notice;
pub mod refusal;
pub mod report;
pub mod routed;
pub mod status;
pub mod validated;

pub use cause::{Cause, Change, ObjectRef, Position, Sequencer};
pub use codes::Code;
pub use document::Document;
pub use envelope::{Envelope, Event, EventId, Never, Received, Unread, Unreadable};
pub use landed::Landed;
pub use letter::Letter;
pub use notice::Notice;
pub use refusal::{Problem, Refusal, Severity};
pub use report::{Place, Report};
pub use routed::Routed;
pub use status::{Passed, Status};
pub use validated::Validated;

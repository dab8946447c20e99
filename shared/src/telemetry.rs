//! Logs, and the trace context that travels in message attributes.

use std::fmt;
use std::io::IsTerminal;

use rand::RngCore;
use tracing_subscriber::EnvFilter;

/// The W3C trace context of one step. <https://www.w3.org/TR/trace-context/#traceparent-header>
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: String,
    span_id: String,
    flags: String,
}

impl TraceParent {
    /// Follows the trace of a received message, or starts one where it has none that can be read.
    #[must_use]
    pub fn follow(received: Option<&str>) -> Self {
        received.and_then(Self::parse).unwrap_or_else(|| Self {
            trace_id: random_hex(16),
            span_id: random_hex(8),
            flags: "01".into(),
        })
    }

    /// The next step of the same trace.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: random_hex(8), ..self.clone() }
    }

    /// The trace's id, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let zero = |part: &str| part.bytes().all(|b| b == b'0');
        // Version ff is invalid; later versions may append parts.
        let version_fits = hex(version, 2) && version != "ff" && (version != "00" || parts.next().is_none());
        let ids_fit = hex(trace_id, 32) && hex(span_id, 16) && !zero(trace_id) && !zero(span_id);
        (version_fits && ids_fit && hex(flags, 2)).then(|| Self {
            trace_id: trace_id.to_owned(),
            span_id: span_id.to_owned(),
            flags: flags.to_owned(),
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{}", self.trace_id, self.span_id, self.flags)
    }
}

fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    rand::rng().fill_bytes(&mut buffer);
    hex::encode(buffer)
}

/// Starts logging to standard output: JSON lines, or text where a person watches a terminal.
/// `RUST_LOG` sets the level; `info` is the default, and `warn` for the SDK's own crates.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new("info,aws_config=warn,aws_smithy_runtime=warn,hyper=warn,lambda_runtime=warn")
    });
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    if std::io::stdout().is_terminal() {
        subscriber.init();
    } else {
        subscriber.json().flatten_event(true).with_current_span(true).with_span_list(false).init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_is_followed() {
        let child = TraceParent::follow(Some(SAMPLE)).child().to_string();
        assert_eq!(child[..36], SAMPLE[..36]);
        assert_ne!(child, SAMPLE);
        assert!(TraceParent::parse(&child).is_some());
    }

    #[track_caller]
    fn check_starts_afresh(received: &str) {
        assert_eq!(TraceParent::parse(received), None, "{received}");
    }

    #[test]
    fn what_is_no_trace_context_starts_a_trace() {
        check_starts_afresh("");
        check_starts_afresh("00-00000000000000000000000000000000-b7ad6b7169203331-01");
        check_starts_afresh("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        check_starts_afresh("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01");
        check_starts_afresh("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x");
    }
}

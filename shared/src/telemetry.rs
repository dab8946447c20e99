//! Logs and traces.
//!
//! Each event that a stage handles is a span of a trace, whose W3C context travels in message attributes to what follows
//! from it, and in `AWSTraceHeader` for X-Ray; never in a message's bytes. Spans go by OTLP to the collector that the
//! environment names; without one, only the context travels.

use std::collections::{BTreeMap, HashMap};
use std::io::IsTerminal;
use std::sync::OnceLock;

use landfall_events::letter::TRACEPARENT;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{Link, SpanContext, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_aws::trace::xray_propagator::{span_context_from_str, span_context_to_string};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::runtime::Tokio;
use opentelemetry_sdk::trace::SdkTracerProvider;
use opentelemetry_sdk::trace::span_processor_with_async_runtime::BatchSpanProcessor;
use tracing::warn;
use tracing_subscriber::EnvFilter;

/// The environment's names of a collector's address; the exporter reads them and the rest of `OTEL_…` itself.
/// <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>
pub const COLLECTORS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Makes the spans. Before traces are started there is nobody who gets them; ids are made all the same.
fn provider() -> &'static SdkTracerProvider {
    PROVIDER.get_or_init(|| SdkTracerProvider::builder().build())
}

/// Starts logging to standard output: JSON lines, or text where a person watches a terminal.
/// `RUST_LOG` sets the level; `info` is the default, and `warn` for the SDK's own crates.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(
            "info,aws_config=warn,aws_smithy_runtime=warn,hyper=warn,lambda_runtime=warn,opentelemetry=warn,opentelemetry_sdk=warn",
        )
    });
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter);
    if std::io::stdout().is_terminal() {
        subscriber.init();
    } else {
        subscriber.json().flatten_event(true).with_current_span(true).with_span_list(false).init();
    }
}

/// Sends a stage's spans to the collector, where the environment names one. Within a Tokio runtime; call it once.
pub fn start_traces(stage: &'static str) {
    if !COLLECTORS.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty())) {
        return;
    }
    match SpanExporter::builder().with_http().build() {
        Ok(exporter) => {
            let resource = Resource::builder();
            let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
                Some(_) => resource,
                None => resource.with_service_name(format!("landfall-{stage}")),
            };
            let exported = SdkTracerProvider::builder()
                .with_resource(resource.build())
                .with_span_processor(BatchSpanProcessor::builder(exporter, Tokio).build());
            if PROVIDER.set(exported.build()).is_err() {
                warn!(stage, "spans were made before traces were started; none are sent");
            }
        }
        Err(error) => warn!(stage, reason = %error, "no spans are sent"),
    }
}

/// The longest that is waited for the collector: an invocation's answer must not be lost with its spans.
const FLUSH_MAX: std::time::Duration = std::time::Duration::from_millis(800);

/// Sends the spans that are not sent yet: before a function is frozen, and at the end of a process. What cannot be sent
/// is told and lost.
pub async fn flush_traces() {
    let Some(provider) = PROVIDER.get() else { return };
    // It blocks its thread until the collector has answered.
    match tokio::time::timeout(FLUSH_MAX, tokio::task::spawn_blocking(|| provider.force_flush())).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => warn!(reason = %error, "spans could not be sent"),
        Ok(Err(error)) => warn!(reason = %error, "spans could not be sent"),
        Err(_) => warn!("the collector does not answer; spans are lost"),
    }
}

/// What a stage does with one event: a span that ends when this is dropped.
pub(crate) struct Step(Context);

impl Step {
    /// Goes on with the trace of a received message, or starts one where it has none that can be read.
    pub(crate) fn begin(stage: &'static str, received: &BTreeMap<String, String>) -> Self {
        let carried: HashMap<String, String> =
            received.get(TRACEPARENT).map(|text| (TRACEPARENT.to_owned(), text.clone())).into_iter().collect();
        let before = TraceContextPropagator::new().extract_with_context(&Context::new(), &carried);
        let tracer = provider().tracer("landfall");
        let span = tracer.span_builder(stage).with_kind(SpanKind::Consumer).start_with_context(&tracer, &before);
        Self(before.with_span(span))
    }

    fn context(&self) -> SpanContext {
        self.0.span().span_context().clone()
    }

    /// The trace's id, 32 hexadecimal digits.
    pub(crate) fn trace_id(&self) -> String {
        self.context().trace_id().to_string()
    }

    /// What a message that follows from this step carries. <https://www.w3.org/TR/trace-context/#traceparent-header>
    pub(crate) fn traceparent(&self) -> String {
        written(&self.context())
    }

    /// Says something of it: fields of the log, under the same names.
    pub(crate) fn tell(&self, name: &'static str, value: impl Into<Value>) {
        self.0.span().set_attribute(KeyValue::new(name, value));
    }

    /// Says that it was not done, and why.
    pub(crate) fn fail(&self, why: &str) {
        self.0.span().set_status(Status::error(why.to_owned()));
    }
}

/// A batch that is handled: a span linked to the steps of all its events, that ends when this is dropped.
pub(crate) struct Batch(#[expect(dead_code, reason = "it is held until the batch is done")] Context);

impl Batch {
    pub(crate) fn begin<'s>(stage: &'static str, steps: impl Iterator<Item = &'s Step>) -> Self {
        let links: Vec<_> = steps.map(|step| Link::with_context(step.context())).collect();
        let tracer = provider().tracer("landfall");
        let size = KeyValue::new("batch.size", i64::try_from(links.len()).unwrap_or(i64::MAX));
        let span = tracer
            .span_builder(format!("{stage} batch"))
            .with_kind(SpanKind::Internal)
            .with_links(links)
            .with_attributes([size])
            .start_with_context(&tracer, &Context::new());
        Self(Context::new().with_span(span))
    }
}

fn written(context: &SpanContext) -> String {
    let mut carried = HashMap::new();
    let of_span = Context::new().with_remote_span_context(context.clone());
    TraceContextPropagator::new().inject_context(&of_span, &mut carried);
    carried.remove(TRACEPARENT).unwrap_or_default()
}

/// The same context as X-Ray writes it, for the system attribute `AWSTraceHeader` of a message.
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html>
pub(crate) fn aws_trace_header(attributes: &BTreeMap<String, String>) -> Option<String> {
    let carried: HashMap<String, String> = [(TRACEPARENT.to_owned(), attributes.get(TRACEPARENT)?.clone())].into();
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carried);
    span_context_to_string(context.span().span_context())
}

/// Takes X-Ray's context over where a message has no other: of what an AWS service has sent.
pub(crate) fn take_aws_trace_header(attributes: &mut BTreeMap<String, String>, header: Option<&str>) {
    let context = header.and_then(span_context_from_str).filter(SpanContext::is_valid);
    if let Some(context) = context {
        attributes.entry(TRACEPARENT.to_owned()).or_insert_with(|| written(&context));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn received(traceparent: &str) -> BTreeMap<String, String> {
        [(TRACEPARENT.to_owned(), traceparent.to_owned())].into()
    }

    #[test]
    fn a_trace_is_followed() {
        let step = Step::begin("load", &received(SAMPLE));
        let next = step.traceparent();
        assert_eq!((&next[..36], step.trace_id().as_str()), (&SAMPLE[..36], &SAMPLE[3..35]));
        assert_ne!(next, SAMPLE);
        assert_eq!(Step::begin("notify", &received(&next)).trace_id(), step.trace_id());
    }

    #[test]
    fn what_is_not_sampled_is_followed_too() {
        let unsampled = SAMPLE.replace("-01", "-00");
        let next = Step::begin("load", &received(&unsampled)).traceparent();
        assert_eq!((&next[..36], &next[52..]), (&SAMPLE[..36], "-00"));
    }

    #[track_caller]
    fn check_starts_afresh(text: &str) {
        let started = Step::begin("load", &received(text)).traceparent();
        assert!(started.len() == 55 && started.ends_with("-01"), "{started}");
        assert_ne!(started[..36], SAMPLE[..36]);
    }

    #[test]
    fn what_is_no_trace_context_starts_a_trace() {
        check_starts_afresh("");
        check_starts_afresh("00-00000000000000000000000000000000-b7ad6b7169203331-01");
        check_starts_afresh("ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        check_starts_afresh("00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01");
    }

    #[test]
    fn x_rays_header_says_the_same_and_gives_way_to_w3c() {
        let header = aws_trace_header(&received(SAMPLE)).unwrap();
        assert_eq!(header, "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1");
        let mut without = BTreeMap::new();
        take_aws_trace_header(&mut without, Some(&header));
        assert_eq!(without, received(SAMPLE));
        let other = SAMPLE.replace('b', "c");
        let mut with = received(&other);
        take_aws_trace_header(&mut with, Some(&header));
        assert_eq!(with, received(&other));
        let mut none = BTreeMap::new();
        for header in [None, Some(""), Some("Root=x;Parent=y"), Some("Self=1")] {
            take_aws_trace_header(&mut none, header);
        }
        assert_eq!(none, BTreeMap::new());
        assert_eq!(aws_trace_header(&received("nonsense")), None);
    }
}

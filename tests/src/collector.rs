//! A collector that keeps the spans it is sent by OTLP over HTTP.

use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use landfall_shared::locked;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

/// The collector; it ends with the runtime.
pub struct Collector {
    /// Where it listens.
    pub endpoint: String,
    spans: Arc<Mutex<Vec<(String, Span)>>>,
}

impl Collector {
    /// Begins to listen at a free port of loopback.
    ///
    /// # Errors
    /// Where nothing can listen.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let spans: Arc<Mutex<Vec<(String, Span)>>> = Arc::default();
        let kept = spans.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                    let kept = kept.clone();
                    async move {
                        assert_eq!(request.uri().path(), "/v1/traces");
                        let body = request.into_body().collect().await?.to_bytes();
                        keep(&kept, &body);
                        anyhow::Ok(Response::new(Empty::<Bytes>::new()))
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { endpoint, spans })
    }

    /// Every span so far, with the service that made it.
    #[must_use]
    pub fn spans(&self) -> Vec<(String, Span)> {
        locked(&self.spans).clone()
    }
}

fn keep(kept: &Mutex<Vec<(String, Span)>>, body: &[u8]) {
    let request = ExportTraceServiceRequest::decode(body).expect("it is OTLP");
    for of_resource in request.resource_spans {
        let attributes = of_resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service = attributes.into_iter().find(|attribute| attribute.key == "service.name");
        let service = service.and_then(|attribute| attribute.value?.value);
        let service = service.as_ref().and_then(text).unwrap_or_default().to_owned();
        let spans = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        locked(kept).extend(spans.map(|span| (service.clone(), span)));
    }
}

fn text(value: &Value) -> Option<&str> {
    if let Value::StringValue(text) = value { Some(text) } else { None }
}

/// A text attribute of a span.
#[must_use]
pub fn attribute<'s>(span: &'s Span, name: &str) -> Option<&'s str> {
    let found = span.attributes.iter().find(|attribute| attribute.key == name)?;
    text(found.value.as_ref()?.value.as_ref()?)
}

//! The Lambda runtime's interface for one process, on loopback: it is given events one after the other, and says when it
//! asked for one and when it answered.
//!
//! <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

/// The interface; it ends with the runtime of the test.
pub struct RuntimeApi {
    /// What `AWS_LAMBDA_RUNTIME_API` says.
    pub address: String,
    events: mpsc::UnboundedSender<String>,
    said: mpsc::UnboundedReceiver<(Instant, Said)>,
}

/// What the process has said.
enum Said {
    /// It asks for an event.
    Ready,
    /// It answers.
    Answer(String),
    /// It fails, with this.
    Failure(String),
}

impl Said {
    fn unwanted(self) -> anyhow::Error {
        match self {
            Self::Failure(why) => anyhow::anyhow!("the process failed: {why}"),
            Self::Ready | Self::Answer(_) => anyhow::anyhow!("the process said what nobody has asked for"),
        }
    }
}

/// How long a process may take for one thing.
const TIME_MAX: Duration = Duration::from_secs(60);

impl RuntimeApi {
    /// Begins to listen at a free port of loopback.
    ///
    /// # Errors
    /// Where nothing can listen.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let ((events, given), (say, said)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
        let given = Arc::new(Mutex::new(given));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (given, say) = (given.clone(), say.clone());
                let service = hyper::service::service_fn(move |request| serve(request, given.clone(), say.clone()));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { address, events, said })
    }

    /// Waits until the process asks for its first event, and says when that was.
    ///
    /// # Errors
    /// Where it does not, or says that it cannot.
    pub async fn ready(&mut self) -> anyhow::Result<Instant> {
        match self.next().await? {
            (at, Said::Ready) => Ok(at),
            (_, other) => Err(other.unwanted()),
        }
    }

    /// Gives it an event, and waits for its answer and for its asking again; says when the answer came.
    ///
    /// # Errors
    /// Where it fails.
    pub async fn invoke(&mut self, event: String) -> anyhow::Result<(Instant, String)> {
        self.events.send(event)?;
        let (at, answer) = match self.next().await? {
            (at, Said::Answer(answer)) => (at, answer),
            (_, other) => return Err(other.unwanted()),
        };
        self.ready().await?;
        Ok((at, answer))
    }

    async fn next(&mut self) -> anyhow::Result<(Instant, Said)> {
        let said = tokio::time::timeout(TIME_MAX, self.said.recv()).await.context("the process says nothing")?;
        said.context("nobody listens")
    }
}

type Given = Arc<Mutex<mpsc::UnboundedReceiver<String>>>;

async fn serve(
    request: Request<Incoming>,
    given: Given,
    say: mpsc::UnboundedSender<(Instant, Said)>,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let at = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    if method == Method::GET && path.ends_with("/invocation/next") {
        say.send((at, Said::Ready))?;
        // Where no event comes, nothing is answered, as Lambda does with a process that it freezes.
        let event = given.lock().await.recv().await.context("there are no more events")?;
        let deadline = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + TIME_MAX;
        let response = Response::builder()
            .header("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
            .header("lambda-runtime-deadline-ms", deadline.as_millis().to_string())
            .header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:us-east-1:000000000000:function:f");
        return Ok(response.body(Full::from(event))?);
    }
    let body = String::from_utf8_lossy(&request.into_body().collect().await?.to_bytes()).into_owned();
    say.send((at, if path.ends_with("/response") { Said::Answer(body) } else { Said::Failure(body) }))?;
    Ok(Response::builder().status(StatusCode::ACCEPTED).body(Full::default())?)
}

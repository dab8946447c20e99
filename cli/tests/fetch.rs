//! Fetching schemas, from servers of our own that speak TLS on loopback. The command line has no way to name them.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use landfall::schemas::{FetchError, Fetcher, Host, PublicHosts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

const LISTED: [&str; 2] = ["schemas.example", "mirror.example"];

/// One server for every host name; it answers by path and remembers what it was asked.
struct Server {
    address: SocketAddr,
    authority: Vec<u8>,
    asked: Arc<Mutex<Vec<String>>>,
}

struct OnLoopback {
    address: SocketAddr,
    authority: Vec<u8>,
}

impl Host for OnLoopback {
    async fn addresses(&self, _: &str) -> std::io::Result<Vec<SocketAddr>> {
        Ok(vec![self.address])
    }

    fn authorities(&self) -> Vec<reqwest::Certificate> {
        vec![reqwest::Certificate::from_der(&self.authority).unwrap()]
    }
}

impl Server {
    async fn start(answers: BTreeMap<&'static str, String>) -> Self {
        let names = LISTED.iter().chain(&["other.example"]).map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let authority = made.cert.der().to_vec();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, answers, log) = (acceptor.clone(), answers.clone(), log.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let mut request = vec![0; 4096];
                    let length = stream.read(&mut request).await.unwrap_or(0);
                    let request = String::from_utf8_lossy(&request[..length]).into_owned();
                    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                    let host =
                        request.lines().find_map(|line| line.to_lowercase().strip_prefix("host: ").map(str::to_owned));
                    log.lock().unwrap().push(format!("{}{path}", host.unwrap_or_default()));
                    let not_found =
                        "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned();
                    let answer = answers.get(path.as_str()).cloned().unwrap_or(not_found);
                    stream.write_all(answer.as_bytes()).await.ok();
                    stream.shutdown().await.ok();
                });
            }
        });
        Self { address, authority, asked }
    }

    fn fetcher(&self) -> Fetcher {
        let hosts = LISTED.map(str::to_owned).to_vec();
        Fetcher::new(hosts, OnLoopback { address: self.address, authority: self.authority.clone() }).unwrap()
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}

#[tokio::test]
async fn schemas_come_from_listed_hosts_within_limits() {
    let server = Server::start(BTreeMap::from([
        ("/good", ok("{}")),
        ("/moved", redirect("https://mirror.example/good")),
        ("/elsewhere", redirect("https://other.example/good")),
        ("/inside", redirect("https://127.0.0.1/good")),
        ("/plain", redirect("http://schemas.example/good")),
        ("/port", redirect("https://schemas.example:8443/good")),
        ("/circle", redirect("https://schemas.example/circle")),
        ("/large", ok(&"x".repeat(1024 * 1024 + 1))),
        ("/endless", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_owned() + &"x".repeat(3 * 1024 * 1024)),
    ]))
    .await;
    let fetcher = server.fetcher();
    let get = async |path: &str| fetcher.one(&format!("https://schemas.example{path}")).await;

    assert_eq!(get("/good").await.unwrap(), "{}");
    assert_eq!(get("/moved").await.unwrap(), "{}");
    for path in ["/elsewhere", "/inside", "/plain", "/port", "/circle", "/missing"] {
        assert!(matches!(get(path).await, Err(FetchError::Http(_))), "{path}");
    }
    for path in ["/large", "/endless"] {
        assert!(matches!(get(path).await, Err(FetchError::TooLarge)), "{path}");
    }
    assert!(
        matches!(fetcher.one("https://other.example/good").await, Err(FetchError::Host(host)) if host == "other.example")
    );
    assert!(matches!(fetcher.one("http://schemas.example/good").await, Err(FetchError::Url)));
    let asked = server.asked.lock().unwrap().clone();
    assert!(asked.iter().all(|asked| !asked.contains("other.example") && !asked.contains("127.0.0.1")), "{asked:?}");
    assert_eq!(asked.iter().filter(|asked| *asked == "schemas.example/circle").count(), 5, "{asked:?}");
}

#[tokio::test]
async fn a_server_that_is_not_who_it_says_is_not_believed() {
    let server = Server::start(BTreeMap::from([("/good", ok("{}"))])).await;
    let stranger = Server::start(BTreeMap::new()).await;
    let at = OnLoopback { address: server.address, authority: stranger.authority };
    let fetcher = Fetcher::new(LISTED.map(str::to_owned).to_vec(), at).unwrap();

    assert!(matches!(fetcher.one("https://schemas.example/good").await, Err(FetchError::Http(_))));
    assert!(server.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_listed_name_at_an_inner_address_is_not_asked() {
    let fetcher = Fetcher::new(vec!["localhost".to_owned()], PublicHosts).unwrap();

    let error = fetcher.one("https://localhost/schema.json").await.unwrap_err();

    let said = landfall_shared::stage::chain_of(&error);
    assert!(said.contains("no public address"), "{said}");
}

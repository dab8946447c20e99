//! Reads published schemas from the network: over https, from hosts on a list, at public addresses, within limits.
//!
//! It refuses everything else, also when a host on the list redirects to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use landfall_stac::schemas::{SCHEMA_BYTES_MAX, sha256};
use landfall_stac::{Bundle, Lock, Locked};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Schemas that are fetched at a time.
const CONCURRENCY: usize = 8;

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 4;

/// After so many failures and no success, nobody answers and no more are tried.
const FAILURES_MAX: usize = 16;

/// Why a schema was not had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL is none that is fetched.
    #[error("only https URLs without user, password, port and fragment are fetched")]
    Url,
    /// Its host is not on the list.
    #[error("the host {0} is not on the list; --allow-host adds it")]
    Host(String),
    /// Nobody answered as it should be.
    #[error("could not be fetched")]
    Http(#[from] reqwest::Error),
    /// It is too large.
    #[error("it is larger than {SCHEMA_BYTES_MAX} bytes")]
    TooLarge,
    /// It is not text.
    #[error("it is not UTF-8")]
    Text,
    /// Its bytes are not those that are locked.
    #[error("its sha256 is {found}, and {expected} is locked")]
    Altered {
        /// What is locked.
        expected: String,
        /// What came.
        found: String,
    },
    /// The mirror does not hold it.
    #[error("the mirror does not hold it")]
    Missing,
    /// Nobody answered before, and it was not tried.
    #[error("not tried: no host answered")]
    NotTried,
}

/// A schema with its text, as far as it was had; an alias has none.
pub(super) type Fetched = (Locked, Result<Option<String>, FetchError>);

/// Says where a host is. Tests put their own in; the command line cannot.
pub trait Host: Send + Sync + 'static {
    /// The addresses of a host; none that must not be asked.
    fn addresses(&self, host: &str) -> impl Future<Output = std::io::Result<Vec<SocketAddr>>> + Send;

    /// The authorities that are trusted beside the machine's own.
    fn authorities(&self) -> Vec<reqwest::Certificate> {
        Vec::new()
    }
}

/// The hosts of the internet, at public addresses only.
pub struct PublicHosts;

impl Host for PublicHosts {
    async fn addresses(&self, host: &str) -> std::io::Result<Vec<SocketAddr>> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 443)).await?.collect();
        match found.iter().find(|address| !is_public(address.ip())) {
            Some(address) => {
                Err(std::io::Error::other(format!("{host} is at {}, which is no public address", address.ip())))
            }
            None => Ok(found),
        }
    }
}

struct Resolver<H>(Arc<H>);

impl<H: Host> Resolve for Resolver<H> {
    fn resolve(&self, name: Name) -> Resolving {
        let hosts = self.0.clone();
        Box::pin(async move {
            let addresses = hosts.addresses(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Fetches schemas.
pub struct Fetcher {
    client: reqwest::Client,
    hosts: Arc<Vec<String>>,
}

impl Fetcher {
    /// Fetches from these hosts, which are where `at` says.
    ///
    /// # Errors
    /// Where the machine's authorities cannot be read.
    pub fn new(hosts: Vec<String>, at: impl Host) -> Result<Self, FetchError> {
        // Another part of the program may have chosen one already.
        let _chosen_before = rustls::crypto::ring::default_provider().install_default();
        let hosts = Arc::new(hosts);
        let allowed = hosts.clone();
        let redirects = reqwest::redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > REDIRECTS_MAX {
                return attempt.error("too many redirects");
            }
            match check(attempt.url(), &allowed) {
                Ok(()) => attempt.follow(),
                Err(error) => attempt.error(error),
            }
        });
        let mut client = reqwest::Client::builder()
            .https_only(true)
            .no_proxy()
            .redirect(redirects)
            .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(30))
            .tls_certs_merge(at.authorities());
        client = client.dns_resolver(Resolver(Arc::new(at)));
        Ok(Self { client: client.build()?, hosts })
    }

    /// Fetches one schema.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn one(&self, url: &str) -> Result<String, FetchError> {
        let url = Url::parse(url).map_err(|_| FetchError::Url)?;
        check(&url, &self.hosts)?;
        let answer = self.client.get(url).send().await?.error_for_status()?;
        let mut bytes = Vec::new();
        let mut body = answer.bytes_stream();
        while let Some(chunk) = body.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() as u64 > SCHEMA_BYTES_MAX {
                return Err(FetchError::TooLarge);
            }
        }
        String::from_utf8(bytes).map_err(|_| FetchError::Text)
    }

    /// Fetches every locked schema; takes from `before` what is still what is locked.
    pub(super) async fn all(&self, lock: &Lock, before: &Bundle) -> Vec<Fetched> {
        let bar = ProgressBar::new(lock.schemas.len() as u64);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} schemas {msg}");
        bar.set_style(style.unwrap_or(ProgressStyle::default_bar()));
        let (had, failed) = (std::sync::atomic::AtomicUsize::new(0), std::sync::atomic::AtomicUsize::new(0));
        let order = std::sync::atomic::Ordering::Relaxed;
        let one = async |locked: &Locked| {
            let kept = before
                .entries()
                .find(|(old, text)| old.url == locked.url && old.sha256 == locked.sha256 && text.is_some());
            let text = match (&locked.of, kept) {
                (Some(_), _) => Ok(None),
                (None, Some((_, text))) => Ok(text.map(str::to_owned)),
                (None, None) if had.load(order) == 0 && failed.load(order) >= FAILURES_MAX => Err(FetchError::NotTried),
                (None, None) => self.one(&locked.url).await.and_then(|text| matching(locked, text)).map(Some),
            };
            (if text.is_ok() { &had } else { &failed }).fetch_add(1, order);
            bar.inc(1);
            (locked.clone(), text)
        };
        let each: Vec<_> = lock.schemas.iter().map(one).collect();
        let all = futures::stream::iter(each).buffered(CONCURRENCY).collect().await;
        bar.finish_and_clear();
        all
    }
}

/// Takes every locked schema from a mirror.
pub(super) fn from_bundle(lock: &Lock, mirror: &Bundle) -> Vec<Fetched> {
    let one = |locked: &Locked| {
        let text = match locked.of {
            Some(_) => Ok(None),
            None => {
                let found = mirror.entries().find(|(held, _)| held.url == locked.url).and_then(|(_, text)| text);
                found.ok_or(FetchError::Missing).and_then(|text| matching(locked, text.to_owned())).map(Some)
            }
        };
        (locked.clone(), text)
    };
    lock.schemas.iter().map(one).collect()
}

fn matching(locked: &Locked, text: String) -> Result<String, FetchError> {
    let found = sha256(text.as_bytes());
    match &locked.sha256 {
        Some(expected) if *expected != found => Err(FetchError::Altered { expected: expected.clone(), found }),
        _ => Ok(text),
    }
}

fn check(url: &Url, hosts: &[String]) -> Result<(), FetchError> {
    let plain =
        url.username().is_empty() && url.password().is_none() && url.port().is_none() && url.fragment().is_none();
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        "https" if plain && !host.is_empty() => {}
        _ => return Err(FetchError::Url),
    }
    if hosts.iter().any(|allowed| allowed == host) { Ok(()) } else { Err(FetchError::Host(host.to_owned())) }
}

/// The host of a URL that can be fetched.
pub(super) fn host_of(url: &str) -> Option<String> {
    Url::parse(url).ok()?.host_str().map(str::to_owned)
}

/// Whether an address is one of the public internet.
/// <https://www.iana.org/assignments/iana-ipv4-special-registry/> and
/// <https://www.iana.org/assignments/iana-ipv6-special-registry/>
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let shared = a == 100 && (64..128).contains(&b);
    let protocols = a == 192 && b == 0 && c == 0;
    let relay = a == 192 && b == 88 && c == 99;
    let benchmarks = a == 198 && (b == 18 || b == 19);
    !(a == 0
        || a >= 224
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || shared
        || protocols
        || relay
        || benchmarks)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(address) = address.to_ipv4_mapped() {
        return is_public_v4(address);
    }
    // Only 2000::/3 is global unicast; within it, protocol assignments with Teredo, documentation and 6to4 are not.
    let [a, b, ..] = address.segments();
    let special = match a {
        0x2001 => b < 0x0200 || b == 0x0db8,
        0x2002 => true,
        0x3fff => b < 0x1000,
        _ => false,
    };
    a & 0xe000 == 0x2000 && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_asked() {
        for public in
            ["1.1.1.1", "185.199.108.153", "100.63.0.1", "172.32.0.1", "2606:50c0:8000::153", "::ffff:1.1.1.1"]
        {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for inner in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "192.0.0.8",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "203.0.113.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2001::1",
            "2002:a9fe:a9fe::1",
            "2001:db8::1",
            "::7f00:1",
        ] {
            assert!(!is_public(inner.parse().unwrap()), "{inner}");
        }
    }

    #[test]
    fn only_plain_https_urls_of_listed_hosts_are_fetched() {
        let hosts = ["a.example".to_owned()];
        let check = |url: &str| check(&Url::parse(url).unwrap(), &hosts).is_ok();
        assert!(check("https://a.example/x/schema.json"));
        assert!(check("https://a.example:443/x"));
        for url in [
            "http://a.example/x",
            "https://a.example:8443/x",
            "https://u@a.example/x",
            "https://u:p@a.example/x",
            "https://b.example/x",
            "https://a.example.b.example/x",
            "https://xa.example/x",
            "https://127.0.0.1/x",
            "https://[::1]/x",
            "https://a.example/x#y",
            "file:///etc/passwd",
            "ftp://a.example/x",
        ] {
            assert!(!check(url), "{url}");
        }
    }
}

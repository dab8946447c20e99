//! Connections to PostgreSQL: TLS, the password's source, the settings of a session, and what stands between.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts};
use futures::future::BoxFuture;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::{debug, info};

use super::super::CatalogueError;
use crate::aws::DatabasePassword;
use crate::locked;

/// Settings of every session: pgSTAC's names are found, and no statement, lock or forgotten transaction holds the
/// others up for long. Large documents are compressed by lz4, which costs half of what pglz does. Plans are kept whatever
/// the values: ours look rows up one by one, and planning them anew costs more than that does.
const SESSION: &str = "set search_path = pgstac, public; set pgstac.use_queue = true; set timezone = 'UTC';
    set lock_timeout = '10s'; set statement_timeout = '60s'; set idle_in_transaction_session_timeout = '60s';
    set work_mem = '32MB'; set synchronous_commit = on; set plan_cache_mode = force_generic_plan;
    do $$ begin set default_toast_compression = 'lz4'; exception when others then null; end $$";

/// How long one try to connect may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Where the password comes from.
#[derive(Clone, Default)]
pub enum Password {
    /// The URL holds it, or none is needed.
    #[default]
    InUrl,
    /// This file holds it, read for every connection: it may be changed.
    File(PathBuf),
    /// AWS gives it: a secret, or a token of the role that we have.
    Aws(Arc<DatabasePassword>),
}

/// How to reach the database.
#[derive(Clone)]
pub struct Access {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    password: Password,
}

impl Access {
    /// Reads a URL as libpq does: `postgresql://user@host/database?sslmode=verify-full&sslrootcert=ca.pem`.
    ///
    /// Where TLS is spoken, the server's certificate and name are verified, by the machine's authorities or those of
    /// `sslrootcert`. `sslmode` is `disable`, `prefer` (the default: TLS where the server offers it), or `require`,
    /// `verify-ca`, `verify-full`, which all mean the same here.
    /// <https://www.postgresql.org/docs/15/libpq-ssl.html>
    ///
    /// # Errors
    /// [`CatalogueError::Unusable`] where it cannot be understood, or the authorities not be read.
    pub fn new(url: &str) -> Result<Self, CatalogueError> {
        let unusable = |why: String| CatalogueError::Unusable(why);
        let (url, authorities) = without_parameter(url, "sslrootcert");
        let (url, mode) = without_parameter(&url, "sslmode");
        let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
            // The error does not repeat the URL, which may hold a password.
            unusable(format!("the database's URL cannot be understood: {}", crate::stage::chain_of(&error)))
        })?;
        config.ssl_mode(match mode.as_deref() {
            None | Some("prefer" | "allow") => SslMode::Prefer,
            Some("disable") => SslMode::Disable,
            Some("require" | "verify-ca" | "verify-full") => SslMode::Require,
            Some(other) => return Err(unusable(format!("sslmode={other} is not known"))),
        });
        config
            .application_name("landfall")
            .connect_timeout(CONNECT_TIME_MAX)
            .tcp_user_timeout(Duration::from_secs(20))
            .keepalives_idle(Duration::from_secs(30));
        let tls = (config.get_ssl_mode() != SslMode::Disable).then(|| tls(authorities.as_deref())).transpose()?;
        Ok(Self { config, tls, password: Password::default() })
    }

    /// The same with a password from elsewhere.
    #[must_use]
    pub fn with_password(mut self, password: Password) -> Self {
        self.password = password;
        self
    }

    /// Whether its URL has a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// Host, port and user, as far as they are known: what a token is for.
    #[must_use]
    pub fn endpoint(&self) -> (String, u16, String) {
        let host = self.config.get_hosts().first().map(|host| match host {
            tokio_postgres::config::Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            tokio_postgres::config::Host::Unix(path) => path.display().to_string(),
        });
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        (host.unwrap_or_else(|| "localhost".into()), port, self.config.get_user().unwrap_or_default().to_owned())
    }
}

/// Takes a parameter out of a URL's query, or out of libpq's `key=value` form.
fn without_parameter(url: &str, name: &str) -> (String, Option<String>) {
    let is_url = url.contains("://");
    let separators: &[char] = if is_url { &['?', '&'] } else { &[' '] };
    let mut found = None;
    let mut kept: Vec<&str> = Vec::new();
    for part in url.split(separators) {
        match part.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
            Some(value) => {
                found = Some(percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned());
            }
            None => kept.push(part),
        }
    }
    if !is_url {
        return (kept.join(" "), found);
    }
    let (first, rest) = kept.split_at(1.min(kept.len()));
    let query = rest.join("&");
    let query = if query.is_empty() { query } else { format!("?{query}") };
    (format!("{}{query}", first.join("")), found)
}

fn tls(authorities: Option<&str>) -> Result<MakeRustlsConnect, CatalogueError> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Some(path) => {
            let unreadable = |error: &dyn std::fmt::Display| {
                CatalogueError::Unusable(format!("could not read sslrootcert {path}: {error}"))
            };
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))? {
                let certificate = certificate.map_err(|error| unreadable(&error))?;
                roots.add(certificate).map_err(|error| unreadable(&error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| CatalogueError::Unusable(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// A pool of sessions.
#[derive(Clone)]
pub(super) struct Sessions {
    pool: Pool,
    connector: Arc<Connector>,
    vetted: Arc<OnceCell<()>>,
}

/// Connects with the newest password that is known.
struct Connector {
    access: Access,
    password: Mutex<Option<String>>,
}

impl Sessions {
    pub(super) fn new(access: Access, connections_max: usize) -> Result<Self, CatalogueError> {
        let config = access.config.clone();
        let connector = Arc::new(Connector { access, password: Mutex::new(None) });
        let manager = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_connect(config, Shared(connector.clone()), manager))
            .max_size(connections_max)
            .runtime(Runtime::Tokio1)
            .timeouts(Timeouts {
                wait: Some(Duration::from_secs(30)),
                create: Some(Duration::from_secs(10)),
                recycle: None,
            })
            .build()
            .map_err(|error| CatalogueError::Unusable(error.to_string()))?;
        Ok(Self { pool, connector, vetted: Arc::default() })
    }

    /// A session; the first is got after a look at what stands between the database and us.
    pub(super) async fn client(&self) -> Result<Object, CatalogueError> {
        self.connector.renew_password().await?;
        self.vetted.get_or_try_init(|| self.vet()).await?;
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error.into(),
            other @ (PoolError::Timeout(_)
            | PoolError::Closed
            | PoolError::NoRuntimeSpecified
            | PoolError::PostCreateHook(_)) => CatalogueError::Unavailable(other.to_string()),
        })
    }

    /// Forgets what is prepared: the tables behind it have changed.
    pub(super) fn forget_statements(&self) {
        self.pool.manager().statement_caches.clear();
    }

    /// Refuses a pooler that gives each transaction another session: advisory locks, settings and prepared statements
    /// would be other people's. It is seen where one client's transaction moves another client's settings away.
    async fn vet(&self) -> Result<(), CatalogueError> {
        let connect = async || {
            let (client, task) = self.connector.connect_with(&self.connector.access.config).await?;
            Ok::<_, CatalogueError>((client, Ends(task)))
        };
        let (ours, _ours) = connect().await?;
        let (other, _other) = connect().await?;
        let mark = format!("{:016x}", rand::random::<u64>());
        // In plain queries: a prepared statement is closed some time after its answer, and where our session is busy with
        // that, the pooler gives the other client a new one and leaves us ours.
        let look = async {
            ours.batch_execute(&format!("select set_config('landfall.session', '{mark}', false)")).await?;
            other.batch_execute("begin; select 1").await?;
            let seen = ours.simple_query("select current_setting('landfall.session', true)").await?;
            other.batch_execute("rollback").await?;
            let is_mark = |message: &SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some(mark.as_str()));
            Ok::<_, tokio_postgres::Error>(seen.iter().any(is_mark))
        };
        let same = match tokio::time::timeout(CONNECT_TIME_MAX, look).await {
            Ok(Ok(same)) => same,
            Ok(Err(error)) => return Err(error.into()),
            // A pool of one server connection makes us wait for ourselves.
            Err(_) => false,
        };
        if same {
            debug!("sessions are our own");
            return Ok(());
        }
        Err(CatalogueError::Unusable(
            "a pooler in transaction mode stands before the database, and gives each transaction another session; \
             connect to the database itself, or set pool_mode=session"
                .into(),
        ))
    }
}

/// A connection's task, which ends with us.
struct Ends(JoinHandle<()>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connector {
    /// Gets the password where it comes from elsewhere and may have changed.
    async fn renew_password(&self) -> Result<(), CatalogueError> {
        let password = match &self.access.password {
            Password::InUrl => return Ok(()),
            Password::File(path) => tokio::fs::read_to_string(path)
                .await
                .map(|text| text.trim_end_matches(['\n', '\r']).to_owned())
                .map_err(|error| {
                    CatalogueError::Unusable(format!("could not read the password in {}: {error}", path.display()))
                })?,
            Password::Aws(source) => source
                .current(&self.access.endpoint())
                .await
                .map_err(|why| CatalogueError::Unavailable(format!("could not get the database's password: {why}")))?,
        };
        *locked(&self.password) = Some(password);
        Ok(())
    }

    async fn connect_with(&self, config: &Config) -> Result<(Client, JoinHandle<()>), tokio_postgres::Error> {
        let mut config = config.clone();
        if let Some(password) = locked(&self.password).as_deref() {
            config.password(password);
        }
        let begun = Instant::now();
        let connected = match &self.access.tls {
            Some(tls) => {
                let connected = config.connect(tls.clone()).await;
                connected.map(|(client, connection)| (client, tokio::spawn(async { report(connection.await) })))
            }
            None => {
                let connected = config.connect(NoTls).await;
                connected.map(|(client, connection)| (client, tokio::spawn(async { report(connection.await) })))
            }
        };
        if let (Err(error), Password::Aws(source)) = (&connected, &self.access.password)
            && error.code().is_some_and(|code| code.code().starts_with("28"))
        {
            source.forget().await;
        }
        let (client, task) = connected?;
        if let Err(error) = client.batch_execute(SESSION).await {
            task.abort();
            return Err(error);
        }
        debug!(took_ms = begun.elapsed().as_millis() as u64, "connected to the database");
        Ok((client, task))
    }
}

fn report(ended: Result<(), tokio_postgres::Error>) {
    if let Err(error) = ended {
        info!(reason = crate::stage::chain_of(&error), "a connection to the database has ended");
    }
}

struct Shared(Arc<Connector>);

impl Connect for Shared {
    fn connect(&self, config: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        let config = config.clone();
        Box::pin(async move { self.0.connect_with(&config).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(url: &str, rest: &str, value: Option<&str>) {
        assert_eq!(without_parameter(url, "sslmode"), (rest.to_owned(), value.map(str::to_owned)));
    }

    #[test]
    fn a_parameter_is_taken_out_wherever_it_stands() {
        check("postgresql://h/d", "postgresql://h/d", None);
        check("postgresql://h/d?sslmode=require", "postgresql://h/d", Some("require"));
        check("postgresql://h/d?a=b&sslmode=verify-full&c=d", "postgresql://h/d?a=b&c=d", Some("verify-full"));
        check("host=h sslmode=disable user=u", "host=h user=u", Some("disable"));
    }

    #[test]
    fn what_is_not_understood_is_said_without_the_password() {
        for url in [
            "postgresql://u:secret@h:port/d",
            "postgresql://u:secret@h/d?sslmode=maybe",
            "postgresql://u:secret@h/d?sslrootcert=/no/such",
        ] {
            let error = Access::new(url).err().unwrap().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}

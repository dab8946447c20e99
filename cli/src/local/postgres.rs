//! A private PostgreSQL cluster with PostGIS and pgSTAC 0.10.0.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use landfall_shared::catalogue::PostgresCatalogue;
use nix::unistd::User;
use rand::Rng;
use tokio::process::{Child, Command};
use tokio_postgres::NoTls;

use super::{Layout, process};
use crate::output::SetUp;

/// The folder of PostgreSQL's server programs: Debian's newest, or the one that `PATH` leads to.
#[must_use]
pub fn binaries() -> Option<PathBuf> {
    let mut versions: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    versions.sort();
    let on_path =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let mut folders = versions.into_iter().rev().chain(on_path);
    folders.find(|folder| folder.join("initdb").exists() && folder.join("postgres").exists())
}

/// Whether this PostgreSQL has PostGIS.
#[must_use]
pub fn has_postgis(bin: &Path) -> bool {
    let version = bin.parent().and_then(Path::file_name).unwrap_or_default();
    let debian = Path::new("/usr/share/postgresql").join(version).join("extension/postgis.control");
    let relative = bin.join("../share/extension/postgis.control");
    debian.exists() || relative.exists()
}

/// A cluster: where its data lies, and how to reach it.
#[derive(Debug, Clone)]
pub struct Cluster {
    data: PathBuf,
    bin: PathBuf,
    port: u16,
    password: String,
    owner: Option<User>,
    log: PathBuf,
}

/// The database in the cluster.
const DATABASE: &str = "landfall";

impl Cluster {
    /// Makes the cluster in the state folder, or finds the one that is there.
    ///
    /// # Errors
    /// [`SetUp`] where programs or the user for them are missing; else what `initdb` says.
    pub async fn prepare(layout: &Layout, port: u16) -> anyhow::Result<Self> {
        let bin = binaries().ok_or_else(|| SetUp("PostgreSQL's server programs are missing".into()))?;
        // PostgreSQL refuses to run as root: Debian's package brings a user for it.
        let owner = if nix::unistd::geteuid().is_root() {
            let user = User::from_name("postgres")?;
            Some(user.ok_or_else(|| SetUp("root cannot run PostgreSQL, and there is no user postgres".into()))?)
        } else {
            None
        };
        let data = data_folder(layout, owner.as_ref())?;
        let secret = layout.state.join("postgres.password");
        let password = match std::fs::read_to_string(&secret) {
            Ok(password) if data.join("PG_VERSION").exists() => password,
            _ => {
                let password: String =
                    rand::rng().sample_iter(rand::distr::Alphanumeric).take(32).map(char::from).collect();
                super::write_private(&secret, &password)?;
                password
            }
        };
        let log = layout.state.join("postgres.log");
        let cluster = Self { data, bin, port, password, owner, log };
        if !cluster.data.join("PG_VERSION").exists() {
            cluster.initialise().await?;
        }
        Ok(cluster)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        if let Some(owner) = &self.owner {
            command.uid(owner.uid.as_raw()).gid(owner.gid.as_raw()).env("HOME", "/");
        }
        command.current_dir("/");
        command
    }

    async fn initialise(&self) -> anyhow::Result<()> {
        let secret = self.data.with_extension("secret");
        super::write_private(&secret, &self.password)?;
        if let Some(owner) = &self.owner {
            std::os::unix::fs::chown(&secret, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
        }
        let mut command = self.command("initdb");
        command.arg("-D").arg(&self.data).arg("--pwfile").arg(&secret);
        command.args(["-U", "postgres", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--data-checksums"]);
        let output = command.output().await.context("could not start initdb")?;
        std::fs::remove_file(&secret)?;
        if !output.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// Where it does not answer; with the end of its log.
    pub async fn start(&self) -> anyhow::Result<Child> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.data);
        for setting in [
            format!("port={}", self.port),
            "listen_addresses=127.0.0.1".into(),
            "unix_socket_directories=".into(),
            "shared_buffers=256MB".into(),
            "max_wal_size=2GB".into(),
        ] {
            command.arg("-c").arg(setting);
        }
        // Where this start is given up, nothing stays behind.
        command.kill_on_drop(true);
        let mut child = process::start(command, &self.log)?;
        for _ in 0..600 {
            if let Some(status) = child.try_wait()? {
                bail!("PostgreSQL ended ({status}):\n{}", process::tail(&self.log));
            }
            if tokio_postgres::connect(&self.url("postgres"), NoTls).await.is_ok() {
                return Ok(child);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("PostgreSQL does not answer after a minute:\n{}", process::tail(&self.log))
    }

    /// Makes the database with PostGIS, pgSTAC and the ledger, where it is not there yet.
    ///
    /// # Errors
    /// What PostgreSQL says.
    pub async fn migrate(&self, layout: &Layout) -> anyhow::Result<()> {
        let (client, connection) = tokio_postgres::connect(&self.url("postgres"), NoTls).await?;
        let driver = tokio::spawn(connection);
        let sql = "select count(*) from pg_database where datname = $1";
        let there: i64 = client.query_one(sql, &[&DATABASE]).await?.get(0);
        if there == 0 {
            client.batch_execute(&format!("create database {DATABASE}")).await?;
        }
        drop(client);
        driver.await.ok();

        let catalogue = PostgresCatalogue::new(&self.database_url(), 1)?;
        if !catalogue.has_pgstac().await? {
            let file = layout.pgstac_sql().ok_or_else(|| SetUp("pypgstac 0.10.0 is missing".into()))?;
            catalogue.install_pgstac(&std::fs::read_to_string(file)?).await.context("pgSTAC's migration failed")?;
        }
        catalogue.migrate().await?;
        Ok(())
    }

    fn url(&self, database: &str) -> String {
        format!("postgresql://postgres:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    /// How workers and people reach the catalogue.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.url(DATABASE)
    }
}

/// The cluster's folder: in the state folder, unless PostgreSQL's user cannot get there (a clone below `/root`).
fn data_folder(layout: &Layout, owner: Option<&User>) -> anyhow::Result<PathBuf> {
    let Some(owner) = owner else { return Ok(layout.state.join("postgres")) };
    let open = |folder: &Path| folder.metadata().is_ok_and(|folder| folder.permissions().mode() & 0o001 != 0);
    let parent = if layout.state.ancestors().all(open) {
        layout.state.join("postgres")
    } else {
        let hash = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(layout.state.as_os_str().as_encoded_bytes()));
        PathBuf::from("/var/tmp").join(format!("landfall-{}", &hash[..16]))
    };
    match std::fs::symlink_metadata(&parent) {
        Ok(there) if !there.is_dir() || (there.uid() != 0 && there.uid() != owner.uid.as_raw()) => {
            bail!(SetUp(format!("{} is there and is not ours", parent.display())));
        }
        Ok(_) => {}
        Err(_) => std::fs::create_dir(&parent)?,
    }
    std::fs::set_permissions(&parent, std::fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(&parent, Some(owner.uid.as_raw()), Some(owner.gid.as_raw()))?;
    Ok(parent.join("data"))
}

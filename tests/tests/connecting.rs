//! What stands between the catalogue's database and us: TLS, a password from elsewhere, a pooler.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use landfall_shared::aws::DatabasePassword;
use landfall_shared::catalogue::{Access, Catalogue, CatalogueError, Password, PostgresCatalogue};
use landfall_tests::real_world::{Aws, Database, program};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::process::{Child, Command};

/// Writes a file that the server may read, and nobody else.
fn write_for(owner: (u32, u32), path: PathBuf, text: &str) -> PathBuf {
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(owner.0), Some(owner.1)).unwrap();
    path
}

/// Has the server speak TLS with a certificate for these names; gives the authority that has signed it.
async fn speak_tls(database: &Database, names: &[&str]) -> PathBuf {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = Issuer::new(params, authority_key);
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &issuer).unwrap();

    let data: String = database.client.query_one("show data_directory", &[]).await.unwrap().get(0);
    let owner = std::fs::metadata(&data).map(|data| (data.uid(), data.gid())).unwrap();
    let data = Path::new(&data);
    write_for(owner, data.join("server.crt"), &certificate.pem());
    write_for(owner, data.join("server.key"), &key.serialize_pem());
    database.client.batch_execute("alter system set ssl = on").await.unwrap();
    database.client.batch_execute("select pg_reload_conf()").await.unwrap();
    // The server's processes take the change on when they see the signal.
    for _ in 0..200 {
        let client = database.connect().await.unwrap();
        if client.query_one("show ssl", &[]).await.unwrap().get::<_, &str>(0) == "on" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let path = database.scratch("authority.pem");
    std::fs::write(&path, authority.pem()).unwrap();
    path
}

async fn ready(url: &str) -> Result<(), CatalogueError> {
    PostgresCatalogue::new(url, 1)?.ready().await
}

/// How many of our own sessions are there, over TLS and not.
async fn sessions(database: &Database) -> (i64, i64) {
    let sql = "select count(*) filter (where s.ssl), count(*) filter (where not s.ssl) from pg_stat_ssl s
        join pg_stat_activity a using (pid) where a.application_name = 'landfall'";
    let row = database.client.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn tls_is_spoken_with_nobody_but_the_server_that_is_meant() {
    let database = Database::start().await.unwrap();
    let with = |parameters: &str| format!("{}?{parameters}", database.url);
    ready(&with("sslmode=prefer")).await.unwrap();
    let plain = ready(&with("sslmode=require")).await;
    assert!(matches!(plain, Err(CatalogueError::Unusable(_))), "the server speaks none: {plain:?}");

    let authority = speak_tls(&database, &["127.0.0.1"]).await;
    let authority = authority.to_str().unwrap();
    let catalogue = PostgresCatalogue::new(&with(&format!("sslmode=verify-full&sslrootcert={authority}")), 1).unwrap();
    catalogue.ready().await.unwrap();
    assert_eq!(sessions(&database).await, (1, 0));
    drop(catalogue);
    let offered = PostgresCatalogue::new(&with(&format!("sslrootcert={authority}")), 1).unwrap();
    offered.ready().await.unwrap();
    let refused = PostgresCatalogue::new(&with("sslmode=disable"), 1).unwrap();
    refused.ready().await.unwrap();
    drop((offered, refused));

    // By authorities of the machine alone it is nobody that is known, nor by another's.
    for unknown in [with("sslmode=require"), with("sslmode=prefer")] {
        let error = ready(&unknown).await.unwrap_err();
        assert!(matches!(&error, CatalogueError::Unusable(why) if why.contains("certificate")), "{error:?}");
    }
    let authority = speak_tls(&database, &["database.example"]).await;
    let error = ready(&with(&format!("sslmode=require&sslrootcert={}", authority.display()))).await.unwrap_err();
    assert!(matches!(&error, CatalogueError::Unusable(why) if why.contains("certificate")), "{error:?}");
}

#[tokio::test]
async fn a_password_in_a_file_may_be_changed_while_we_run() {
    let database = Database::start().await.unwrap();
    database.client.batch_execute("create role someone login password 'first'").await.unwrap();
    let at = database.url.split_once('@').unwrap().1;
    let file = database.scratch("password");
    std::fs::write(&file, "first\n").unwrap();
    let url = format!("postgresql://someone@{at}");
    let open = || PostgresCatalogue::open(Access::new(&url).unwrap().with_password(Password::File(file.clone())), 1);
    let catalogue = open().unwrap();
    catalogue.ready().await.unwrap();

    std::fs::write(&file, "second").unwrap();
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'someone'";
    database.client.batch_execute(&format!("alter role someone password 'second'; {cut}")).await.unwrap();
    let mut again = catalogue.ready().await;
    // The session that was cut is seen to be so when it is used.
    if again.is_err() {
        again = catalogue.ready().await;
    }
    again.unwrap();

    std::fs::write(&file, "wrong").unwrap();
    let error = open().unwrap().ready().await.unwrap_err();
    assert!(matches!(&error, CatalogueError::Unusable(why) if why.contains("28P01")), "{error:?}");
    std::fs::remove_file(&file).unwrap();
    let error = open().unwrap().ready().await.unwrap_err();
    assert!(matches!(&error, CatalogueError::Unusable(why) if why.contains("could not read")), "{error:?}");
}

#[tokio::test]
async fn a_password_in_the_url_of_a_command_counts_before_the_workers() {
    let database = Database::start().await.unwrap();
    let plan = async |url: &str| {
        let mut command = program("landfall");
        command.args(["migrate", "--plan", "--database", url]).env("LANDFALL_DATABASE_PASSWORD_FILE", "/no/such/file");
        command.output().await.unwrap()
    };
    let own = plan(&database.url).await;
    assert_eq!(own.status.code(), Some(0), "{own:?}");
    let at = database.url.split_once('@').unwrap().1;
    let workers = plan(&format!("postgresql://postgres@{at}")).await;
    assert_eq!(workers.status.code(), Some(2), "{workers:?}");
    assert!(String::from_utf8_lossy(&workers.stderr).contains("/no/such/file"), "{workers:?}");
}

/// A pooler before a database; stopped with the test.
async fn pooler(database: &Database, mode: &str) -> (Child, String) {
    let config: tokio_postgres::Config = database.url.parse().unwrap();
    let password = String::from_utf8(config.get_password().unwrap().to_vec()).unwrap();
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = probe.local_addr().unwrap().port();
    drop(probe);
    let text = format!(
        "[databases]\nlandfall = host=127.0.0.1 port={} user=postgres password={password}\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n",
        config.get_ports()[0]
    );
    let file = database.scratch(&format!("{mode}.ini"));
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("/usr/sbin/pgbouncer");
    if nix::unistd::geteuid().is_root() {
        command.args(["-u", "postgres"]);
    }
    let log = std::fs::File::create(database.scratch(&format!("{mode}.log"))).unwrap();
    command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let url = format!("postgresql://someone@127.0.0.1:{port}/landfall");
    for _ in 0..100 {
        assert!(child.try_wait().unwrap().is_none(), "{:?}", std::fs::read_to_string(file.with_extension("log")));
        if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            return (child, url);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the pooler does not answer");
}

#[tokio::test]
async fn a_pooler_is_good_where_a_session_stays_ones_own() {
    let database = Database::start().await.unwrap();
    let (_session, url) = pooler(&database, "session").await;
    ready(&url).await.unwrap();
    let (_transaction, url) = pooler(&database, "transaction").await;
    let error = ready(&url).await.unwrap_err();
    assert!(matches!(&error, CatalogueError::Unusable(why) if why.contains("pool_mode=session")), "{error:?}");
}

#[tokio::test]
async fn a_secret_that_is_rotated_is_asked_for_again() {
    let (database, aws) = (Database::start().await.unwrap(), Aws::start().await.unwrap());
    let secrets = aws_sdk_secretsmanager::Client::new(&aws.sdk);
    // As RDS keeps it.
    let text = |password: &str| serde_json::json!({"username": "someone", "password": password}).to_string();
    secrets.create_secret().name("database").secret_string(text("first")).send().await.unwrap();
    database.client.batch_execute("create role someone login password 'first'").await.unwrap();
    let at = database.url.split_once('@').unwrap().1;
    let access = Access::new(&format!("postgresql://someone@{at}")).unwrap();
    let password = Password::Aws(Arc::new(DatabasePassword::secret(&aws.sdk, "database")));
    let catalogue = PostgresCatalogue::open(access.with_password(password), 1).unwrap();
    catalogue.ready().await.unwrap();

    secrets.put_secret_value().secret_id("database").secret_string(text("second")).send().await.unwrap();
    let cut = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'someone'";
    database.client.batch_execute(&format!("alter role someone password 'second'; {cut}")).await.unwrap();

    // The first try finds out that the session is cut, or that the password is refused: each makes it ask anew.
    let mut again = Err(CatalogueError::Unavailable(String::new()));
    for _ in 0..3 {
        again = catalogue.ready().await;
    }
    again.unwrap();
}

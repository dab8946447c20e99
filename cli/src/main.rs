//! The `landfall` command.
// Its one future is that of every command, each of many calls of the AWS SDK within each other.
#![recursion_limit = "256"]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use landfall::deployment::Place;
use landfall::local::supervisor::{self, Options};
use landfall::output::{self, End, Format, SetUp};
use landfall::{backfill, check, dlq, doctor, load, maintain, map, migrate, notices, put, reconcile, schemas, status};
use landfall_events::codes;
use landfall_stac::Profile;

/// Landfall: from dropped files to a searchable, announced archive.
///
/// Exit codes: 0 all good, 1 the work found problems, 2 wrong usage or set-up.
#[derive(Debug, Parser)]
#[command(version, after_help = "Example:\n  landfall up --detach && landfall put dataset/ && landfall status --wait")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The form of the output; `check` has junit and sarif too
    #[arg(long, global = true, value_enum, default_value = "human")]
    format: check::Form,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts a whole Landfall on this machine
    #[command(after_help = "Example:\n  landfall up --detach\n  landfall down")]
    Up {
        /// Return when it is ready, and leave it running
        #[arg(long, short)]
        detach: bool,
        /// A configuration file in place of the one in the work bucket
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Run the stages as functions in ministack, under the template's roles, on a fresh state folder
        #[arg(long)]
        lambda: bool,
    },
    /// Stops it; its data stays
    #[command(after_help = "Example:\n  landfall down")]
    Down,
    /// Puts files or folders into the landing bucket
    #[command(after_help = "Example:\n  landfall put dataset/ --provider sbn --prefix C1")]
    Put(put::Put),
    /// Says where each landed object is and what is wrong with it
    #[command(after_help = "Example:\n  landfall status sbn/C1/ --wait\n  landfall status --since 10m --format json")]
    Status(status::Status),
    /// Lists, shows and redrives dead letters
    #[command(subcommand, after_help = "Example:\n  landfall dlq ls")]
    Dlq(dlq::Dlq),
    /// Prints the notices that subscribers receive
    #[command(after_help = "Example:\n  landfall notices --follow")]
    Notices(notices::Notices),
    /// Looks through bucket maps, explains and tests them, and puts one in force
    #[command(
        subcommand,
        after_help = "Example:\n  landfall map lint bucket-map.yaml && landfall map set bucket-map.yaml"
    )]
    Map(map::Map),
    /// Loads files of STAC into the catalogue, past the pipeline
    #[command(
        after_help = "Example:\n  landfall load collection.json items.ndjson.gz --database postgresql://loader@db/stac\n  cat items.ndjson | landfall load -"
    )]
    Load(load::Load),
    /// Feeds what is in a bucket already into the pipeline
    #[command(
        after_help = "Example:\n  landfall backfill s3://landing/sbn/ --dry-run\n  landfall backfill s3://landing --rate 200"
    )]
    Backfill(backfill::Backfill),
    /// Holds landing, destinations, pgSTAC and ledger against each other
    #[command(after_help = "Example:\n  landfall reconcile --prefix sbn/\n  landfall reconcile --grace 1h --fix")]
    Reconcile(reconcile::Reconcile),
    /// Looks whether a deployment is wired as it should be, and says what to do about each thing that is not
    #[command(after_help = "Example:\n  landfall doctor\n  landfall doctor --stack landfall --format json")]
    Doctor,
    /// Brings the ledger's schema up to date
    #[command(after_help = "Example:\n  landfall migrate --plan\n  landfall migrate --grant loader")]
    Migrate(migrate::Migrate),
    /// Finds what crashes have left behind, and puts it right
    #[command(after_help = "Example:\n  landfall maintain --dry-run\n  landfall maintain --older-than 3d")]
    Maintain(maintain::Maintain),
    /// Says what the pipeline would say of files, before they are uploaded
    #[command(
        after_help = "Example:\n  landfall check dataset/\n  landfall check dataset/ --profile dedl-user-generated --format sarif > findings.sarif\n  cat items.ndjson | landfall check -"
    )]
    Check(check::Check),
    /// Gets and lists the published schemas of extensions
    #[command(subcommand, after_help = "Example:\n  landfall schemas fetch")]
    Schemas(schemas::SchemasCommand),
    /// Explains a code, or lists all
    #[command(after_help = "Example:\n  landfall explain route.unmapped")]
    Explain {
        /// The code
        code: Option<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = run(&cli).await;
    match result {
        Ok(End::Good) => ExitCode::SUCCESS,
        Ok(End::Problems) => ExitCode::from(1),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("landfall: {error:#}");
            ExitCode::from(if error.downcast_ref::<SetUp>().is_some() { 2 } else { 1 })
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<End> {
    let place = &cli.place;
    let format = || plain(cli.format);
    match &cli.command {
        Command::Up { detach, config, lambda } => {
            let options = Options { config: config.clone(), lambda: *lambda };
            if *detach {
                supervisor::up_detached(&place.state, &options, format()?).await
            } else {
                supervisor::up(&place.state, &options, format()?).await
            }
        }
        Command::Down => supervisor::down(&place.state, format()?).await,
        Command::Put(put) => put::run(put, place, format()?).await,
        Command::Status(status) => status::run(status, place, format()?).await,
        Command::Dlq(dlq) => dlq::run(dlq, place, format()?).await,
        Command::Notices(notices) => notices::run(notices, place, format()?).await,
        Command::Map(map) => map::run(map, place, format()?).await,
        Command::Backfill(backfill) => backfill::run(backfill, place, format()?).await,
        Command::Reconcile(reconcile) => reconcile::run(reconcile, place, format()?).await,
        Command::Load(load) => load::run(load, place, format()?).await,
        Command::Doctor => doctor::run(place, format()?).await,
        Command::Migrate(migrate) => migrate::run(migrate, place, format()?).await,
        Command::Maintain(maintain) => maintain::run(maintain, place, format()?).await,
        Command::Check(check) => check::run(check, place, cli.format).await,
        Command::Schemas(command) => schemas::run(command, place, format()?).await,
        Command::Explain { code } => explain(code.as_deref(), format()?),
    }
}

/// All commands but one have two forms.
fn plain(form: check::Form) -> anyhow::Result<Format> {
    match form {
        check::Form::Human => Ok(Format::Human),
        check::Form::Json => Ok(Format::Json),
        check::Form::Junit | check::Form::Sarif => {
            Err(SetUp("only `landfall check` writes junit and sarif".into()).into())
        }
    }
}

fn explain(code: Option<&str>, format: Format) -> anyhow::Result<End> {
    let known: Vec<_> = match code {
        Some(code) => codes::explain(code).into_iter().collect(),
        None => codes::all().collect(),
    };
    if let (Some(code), []) = (code, known.as_slice()) {
        return explain_rule(code, format);
    }
    for one in known {
        match format {
            Format::Json => output::json(&one)?,
            Format::Human => output::line(&format!("{}\n  {}\n  {}\n", one.code, one.cause, one.hint))?,
        }
    }
    Ok(End::Good)
}

/// Explains a rule of a shipped profile.
fn explain_rule(code: &str, format: Format) -> anyhow::Result<End> {
    let found = Profile::shipped_names().into_iter().find_map(|name| {
        let profile = Profile::shipped(name).ok()?;
        profile.rules.iter().find(|rule| rule.code.as_str() == code).cloned().map(|rule| (name, rule))
    });
    let Some((profile, rule)) = found else {
        anyhow::bail!(SetUp(format!("there is no code {code:?}; `landfall explain` lists all")));
    };
    let cause = rule.message.unwrap_or_else(|| format!("A rule of the profile {profile} is broken."));
    let (hint, source) = (rule.hint.unwrap_or_default(), rule.source.unwrap_or_default());
    match format {
        Format::Json => {
            let known =
                serde_json::json!({"code": code, "cause": cause, "hint": hint, "profile": profile, "source": source});
            output::json(&known)?;
        }
        Format::Human => output::line(&format!("{code}\n  {cause}\n  {hint}\n  (profile {profile}; {source})"))?,
    }
    Ok(End::Good)
}

/// `landfall status | head` is no failure.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let broken = |error: &std::io::Error| error.kind() == std::io::ErrorKind::BrokenPipe;
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(broken)
}

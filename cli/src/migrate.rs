//! `landfall migrate`: the ledger's schema, and the rights of a worker's role.

use std::path::PathBuf;

use crate::deployment::{Database, Place};
use crate::output::{self, End, Format, SetUp};

/// What is migrated.
#[derive(Debug, Clone, clap::Args)]
pub struct Migrate {
    #[command(flatten)]
    database: Database,
    /// Only say what would be done; exit 1 where that is something
    #[arg(long)]
    plan: bool,
    /// Install pgSTAC from this file where it is not there: pgstac.0.10.0.sql of the wheel pypgstac
    #[arg(long, value_name = "FILE")]
    pgstac: Option<PathBuf>,
    /// Give this role what a worker needs, and no more
    #[arg(long, value_name = "ROLE")]
    grant: Option<String>,
}

/// What must be there before us.
const LACKING: &str = "install pgSTAC first, with `pypgstac migrate`, or give its SQL with --pgstac";

/// Runs the command.
///
/// # Errors
/// [`SetUp`] where the database cannot be reached or lacks pgSTAC.
pub async fn run(command: &Migrate, place: &Place, format: Format) -> anyhow::Result<End> {
    let catalogue = command.database.catalogue(place, 1).await?;
    let set_up = |error: landfall_shared::catalogue::CatalogueError| SetUp(error.to_string());
    let mut steps = Vec::new();
    if !catalogue.has_pgstac().await.map_err(set_up)? {
        steps.push(match &command.pgstac {
            Some(file) => format!("install pgSTAC from {}", file.display()),
            None if command.plan => LACKING.to_owned(),
            None => return Err(SetUp(LACKING.into()).into()),
        });
    }
    steps.extend(catalogue.plan_of_migration().await.map_err(set_up)?);
    steps.extend(command.grant.as_ref().map(|role| format!("give the role {role} what a worker needs")));
    if command.plan {
        tell(&steps, "planned", format)?;
        return Ok(if steps.is_empty() { End::Good } else { End::Problems });
    }
    if let Some(file) = &command.pgstac {
        let sql = std::fs::read_to_string(file).map_err(|error| SetUp(format!("{}: {error}", file.display())))?;
        catalogue.install_pgstac(&sql).await.map_err(set_up)?;
    }
    catalogue.migrate().await.map_err(set_up)?;
    if let Some(role) = &command.grant {
        catalogue.grant(role).await.map_err(set_up)?;
    }
    tell(&steps, "done", format)?;
    Ok(End::Good)
}

fn tell(steps: &[String], word: &str, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => output::json(&serde_json::json!({word: steps})),
        Format::Human if steps.is_empty() => output::line("the schema is up to date"),
        Format::Human => steps.iter().try_for_each(|step| output::line(&format!("{word}: {}", output::visible(step)))),
    }
}

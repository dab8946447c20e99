//! `landfall migrate`: the ledger's schema, and the rights of a worker's role.

use std::path::PathBuf;

use landfall_shared::catalogue::{migrate, plan_of_migration};

use crate::deployment::{self, Place};
use crate::output::{self, End, Format, SetUp};

/// What is migrated.
#[derive(Debug, Clone, clap::Args)]
pub struct Migrate {
    /// The catalogue's database; else LANDFALL_DATABASE_URL, else that of the deployment
    #[arg(long, value_name = "URL", env = "LANDFALL_DATABASE_URL", hide_env_values = true)]
    database: Option<String>,
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

/// Runs the command.
///
/// # Errors
/// [`SetUp`] where the database cannot be reached or lacks pgSTAC.
pub async fn run(command: &Migrate, place: &Place, format: Format) -> anyhow::Result<End> {
    let catalogue = deployment::catalogue(command.database.as_deref(), place, 1).await?;
    let set_up = |error: landfall_shared::catalogue::CatalogueError| SetUp(error.to_string());
    let mut steps = plan_of_migration(&catalogue).await.map_err(set_up)?;
    if command.plan {
        steps.extend(command.grant.as_ref().map(|role| format!("give the role {role} what a worker needs")));
        tell(&steps, "planned", format)?;
        return Ok(if steps.is_empty() { End::Good } else { End::Problems });
    }
    if let Some(file) = &command.pgstac {
        let sql = std::fs::read_to_string(file).map_err(|error| SetUp(format!("{}: {error}", file.display())))?;
        if catalogue.install_pgstac(&sql).await.map_err(set_up)? {
            steps[0] = format!("install pgSTAC from {}", file.display());
        }
    } else if steps.first().is_some_and(|step| step.starts_with("install pgSTAC")) {
        return Err(SetUp(steps.swap_remove(0)).into());
    }
    migrate(&catalogue).await.map_err(set_up)?;
    if let Some(role) = &command.grant {
        catalogue.grant(role).await.map_err(set_up)?;
        steps.push(format!("give the role {role} what a worker needs"));
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

//! `landfall map`: the bucket map in force.

use std::path::PathBuf;

use anyhow::Context;
use clap::Subcommand;
use landfall_route::BucketMap;

use crate::deployment::Place;
use crate::output::{self, End, Format, SetUp};

/// What is done with the bucket map.
#[derive(Debug, Subcommand)]
pub enum Map {
    /// Checks a bucket map and puts it in force; route takes it within seconds
    #[command(after_help = "Example:\n  landfall map set bucket-map.yaml")]
    Set {
        /// The YAML file
        file: PathBuf,
    },
}

/// Runs a sub-command.
///
/// # Errors
/// [`SetUp`] where the file cannot be read.
pub async fn run(map: &Map, place: &Place, format: Format) -> anyhow::Result<End> {
    let Map::Set { file } = map;
    let text = std::fs::read_to_string(file).map_err(|error| SetUp(format!("{}: {error}", file.display())))?;
    let connected = place.connect().await?;
    let (landing, work) = (connected.deployment.output("LandingBucket")?, connected.deployment.output("WorkBucket")?);
    if let Err(wrong) = BucketMap::parse(&text, &[landing, work]) {
        match format {
            Format::Json => output::json(&serde_json::json!({"error": wrong.to_string()}))?,
            Format::Human => output::line(&format!("not put in force: {wrong}"))?,
        }
        return Ok(End::Problems);
    }
    let request = connected.s3().put_object().bucket(work).key("config/bucket-map.yaml").body(text.into_bytes().into());
    request.send().await.context("could not write the bucket map")?;
    match format {
        Format::Json => output::json(&serde_json::json!({"map": format!("s3://{work}/config/bucket-map.yaml")}))?,
        Format::Human => output::line(&format!("in force: s3://{work}/config/bucket-map.yaml"))?,
    }
    Ok(End::Good)
}

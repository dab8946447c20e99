//! What Landfall's programs find in their environment.

use crate::config::ConfigError;

/// A variable of the environment that Landfall's programs read.
#[derive(Debug, Clone, Copy)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Who reads it.
    pub of: &'static str,
    /// Its value where it is not set; `required` where it must be.
    pub default: &'static str,
    /// What it says.
    pub what: &'static str,
}

const fn variable(name: &'static str, of: &'static str, default: &'static str, what: &'static str) -> Variable {
    Variable { name, of, default, what }
}

/// All of them.
pub const VARIABLES: [Variable; 33] = [
    variable("LANDFALL_QUEUE", "workers", "required", "The URL of the stage's queue"),
    variable("LANDFALL_QUEUE_NEXT", "workers", "none", "The URL of the next stage's queue; notify has none"),
    variable("LANDFALL_QUEUE_NOTIFY", "workers", "required", "The URL of notify's queue, for reports"),
    variable("LANDFALL_QUEUE_DEAD", "workers", "required", "The URL of the stage's dead-letter queue"),
    variable("LANDFALL_LANDING_BUCKET", "workers; `status --as-provider`", "required", "Where providers drop files"),
    variable("LANDFALL_WORK_BUCKET", "workers; `status --as-provider`", "required", "Landfall's own bucket"),
    variable("LANDFALL_CONFIG", "workers", "defaults", "`landfall.toml`: a path or `s3://bucket/key`"),
    variable(
        "LANDFALL_SCHEMAS",
        "validate; `check`",
        "beside the program",
        "The schema bundle: a path or `s3://bucket/key`",
    ),
    variable(
        "LANDFALL_PROFILES",
        "validate",
        "shipped ones",
        "A folder or `s3://bucket/prefix/` with profiles of one's own",
    ),
    variable("LANDFALL_BUCKET_MAP", "route", "required", "The bucket map: a path or `s3://bucket/key`"),
    variable("LANDFALL_TOPIC_COMPLETED", "notify", "required", "The ARN of the topic for completions"),
    variable("LANDFALL_TOPIC_REJECTED", "notify", "required", "The ARN of the topic for rejections"),
    variable(
        "LANDFALL_DATABASE_URL",
        "load, notify; commands",
        "required",
        "`postgresql://user@host:port/database`, with `sslmode` and `sslrootcert`",
    ),
    variable(
        "LANDFALL_DATABASE_PASSWORD_FILE",
        "load, notify; commands",
        "none",
        "A file with the password, read again for each connection",
    ),
    variable(
        "LANDFALL_DATABASE_SECRET",
        "load, notify; commands",
        "none",
        "The secret in Secrets Manager with the password",
    ),
    variable(
        "LANDFALL_DATABASE_IAM",
        "load, notify; commands",
        "false",
        "Whether a token of the role at hand is the password",
    ),
    variable("LANDFALL_DATABASE_CONNECTIONS", "load, notify", "4", "The most connections of one worker"),
    variable("LANDFALL_IN_FLIGHT_MAX", "pollers", "100", "The most messages that are held at a time"),
    variable("LANDFALL_BATCH_MAX", "pollers", "by stage", "The most messages of one batch"),
    variable("LANDFALL_BATCH_BYTES_MAX", "pollers", "4194304", "The most bytes of one batch's bodies"),
    variable("LANDFALL_BATCH_WAIT_MS", "pollers", "by stage", "How long the first message of a batch waits for others"),
    variable("LANDFALL_VISIBILITY_S", "pollers", "30", "Seconds that a message stays invisible without a sign of life"),
    variable("LANDFALL_METRICS_LISTEN", "pollers", "none", "The address at which Prometheus finds metrics"),
    variable("LANDFALL_HEALTH_FILE", "pollers", "none", "The file that says that the worker lives"),
    variable("LANDFALL_DEPLOYMENT", "maintenance as a function", "required there", "The stack's outputs, as JSON"),
    variable("LANDFALL_STACK", "commands", "none", "The CloudFormation stack that is meant, in the place of `--stack`"),
    variable("LANDFALL_STATE", "commands", "`.landfall`", "The folder of the local deployment"),
    variable("LANDFALL_TOOLS", "`up`", "`.landfall/tools`", "The folder of what `make setup` has installed"),
    variable("RUST_LOG", "all", "info", "The level of the log"),
    variable("OTEL_EXPORTER_OTLP_ENDPOINT", "workers", "none", "The collector of traces"),
    variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "workers", "none", "The same, of traces alone, with its whole path"),
    variable("OTEL_SERVICE_NAME", "workers", "`landfall-STAGE`", "The name of the service in traces"),
    variable("AWS_LAMBDA_RUNTIME_API", "workers", "none", "Set by Lambda: the program serves as a function then"),
];

/// Reads settings from the environment and gathers what is missing or wrong.
#[derive(Debug, Default)]
pub struct Environment {
    wrong: Vec<String>,
}

impl Environment {
    /// A variable that must be there.
    pub fn required(&mut self, name: &str) -> String {
        match std::env::var(name) {
            Ok(value) if !value.is_empty() => value,
            _ => {
                self.wrong.push(format!("{name} (not set)"));
                String::new()
            }
        }
    }

    /// A variable with a default.
    pub fn or<T: std::str::FromStr>(&mut self, name: &str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }

    /// A variable that need not be there.
    pub fn optional<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
        let read = value.parse().ok();
        if read.is_none() {
            self.wrong.push(format!("{name} (not a valid value)"));
        }
        read
    }

    /// All that was wrong, at once.
    ///
    /// # Errors
    /// [`ConfigError::Environment`].
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.wrong.is_empty() { Ok(()) } else { Err(ConfigError::Environment(self.wrong)) }
    }
}

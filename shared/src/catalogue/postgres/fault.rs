//! What PostgreSQL says, sorted by SQLSTATE into what to do about it.
//! <https://www.postgresql.org/docs/15/errcodes-appendix.html>

use landfall_events::codes::{self, Code};
use tokio_postgres::error::DbError;

use super::super::CatalogueError;
use crate::pgstac::WriteError;
use crate::stage::chain_of;

/// What PostgreSQL met.
#[derive(Debug)]
pub(super) enum Fault {
    /// Somebody else was faster, or the server was short of something for a moment: the same transaction can be tried
    /// again at once.
    Race(String),
    /// What is known of the catalogue is old: it is to be read again, partitions to be ensured, then tried again.
    Stale(String),
    /// Sorted already.
    Passed(CatalogueError),
}

/// What is done about an error of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reaction {
    /// The same transaction is tried again at once, a few times.
    Retry,
    /// What is known of the catalogue is read again, partitions are ensured, and it is tried again.
    Reread,
    /// Half of the batch is tried.
    Split,
    /// It is tried again later, over another connection.
    Reconnect,
    /// Only an operator can help: nothing is taken on for a while, and it is said loudly.
    Stop,
    /// The document is refused, once it stands alone.
    Refuse(Code),
}

impl Reaction {
    /// Decides by the SQLSTATE.
    #[must_use]
    pub fn to(error: &tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            return if is_of_the_way(error) { Self::Reconnect } else { Self::Stop };
        };
        let code = db.code().code();
        match code {
            // A deadlock's victim, a serialization failure, a lock that was not to be had in time, an object in use, a
            // statement that took too long, its own or a transaction's that held it up; connections or another
            // configured limit used up.
            "40P01" | "40001" | "55P03" | "55006" | "57014" | "53300" | "53400" => Self::Retry,
            // The lock table is full.
            "53200" => Self::Split,
            // A partition's bounds are narrower now, the partition is gone or divided anew, or the collection is gone.
            "23514" | "23503" | "42P10" => Self::Reread,
            "42P01" if db.message().contains("_items_") => Self::Reread,
            // A table has got other columns since a statement was prepared.
            "0A000" if db.message().contains("cached plan") => Self::Reread,
            // The disk is full.
            "53100" => Self::Stop,
            // A primary that is a standby now: the next connection finds the new one.
            "25006" | "57P01" | "57P02" | "57P03" | "57P05" => Self::Reconnect,
            // A pooler that does not know our parameters.
            "08P01" if db.message().contains("startup parameter") => Self::Stop,
            // Passwords, databases, rights, functions, columns.
            _ if matches!(&code[..2], "28" | "3D" | "42") => Self::Stop,
            _ => match of_document(code, db) {
                Some(refused) => Self::Refuse(refused),
                None if matches!(&code[..2], "08" | "53" | "55" | "57" | "58" | "25" | "XX") => Self::Reconnect,
                None => Self::Stop,
            },
        }
    }
}

impl Fault {
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Race(_) | Self::Stale(_))
    }

    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        let db = error.as_db_error();
        let sqlstate = db.map(|db| db.code().code().to_owned()).unwrap_or_default();
        let message = db.map_or_else(|| chain_of(error), said);
        match Reaction::to(error) {
            Reaction::Retry => Self::Race(message),
            Reaction::Reread => Self::Stale(message),
            Reaction::Split => Self::Passed(CatalogueError::TooMuch(message)),
            Reaction::Reconnect => Self::Passed(CatalogueError::Unavailable(message)),
            Reaction::Stop if sqlstate == "53100" => {
                Self::Passed(CatalogueError::Unusable(format!("the disk is full: {message}")))
            }
            Reaction::Stop => Self::Passed(CatalogueError::Unusable(format!("{message} (SQLSTATE {sqlstate})"))),
            Reaction::Refuse(code) => Self::Passed(CatalogueError::Refused { code, sqlstate, message }),
        }
    }
}

/// Whether the way to the server is interrupted; all else that is not the server's own word is ours to mend: settings,
/// certificates, a statement that does not fit its values.
fn is_of_the_way(error: &tokio_postgres::Error) -> bool {
    let io = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    let is_certificate = io.is_some_and(|io| io.kind() == std::io::ErrorKind::InvalidData);
    error.is_closed() || io.is_some() && !is_certificate || error.to_string().contains("timeout")
}

/// The code of a refusal, where it is a document's content that the database refuses.
fn of_document(sqlstate: &str, db: &DbError) -> Option<Code> {
    Some(match sqlstate {
        "22P05" => codes::LOAD_NUL,
        "22P02" | "22021" => codes::LOAD_JSON,
        "22003" => codes::LOAD_NUMBER,
        "22007" | "22008" => codes::LOAD_DATETIME,
        "23502" if db.column() == Some("geometry") => codes::LOAD_GEOMETRY,
        "23502" if db.column() == Some("id") => codes::LOAD_ID,
        "23502" => codes::LOAD_NULL,
        "23505" => codes::LOAD_DUPLICATE,
        "21000" => codes::LOAD_REPEATED,
        // pgSTAC raises it for datetimes only.
        "P0001" => codes::LOAD_DATETIME,
        // PostGIS raises it for geometries; all else that is internal to the server is not the document's fault.
        "XX000" if of_postgis(db) => codes::LOAD_GEOMETRY,
        "54000" => codes::LOAD_TOO_LARGE,
        _ if sqlstate.starts_with("22") || sqlstate.starts_with("23") || sqlstate.starts_with("54") => {
            codes::LOAD_REFUSED
        }
        _ => return None,
    })
}

fn of_postgis(db: &DbError) -> bool {
    let words = ["geojson", "geometry", "wkb", "parse error", "unexpected character", "offset"];
    let message = db.message().to_lowercase();
    words.iter().any(|word| message.contains(word)) || db.file().is_some_and(|file| file.starts_with("lwgeom"))
}

fn said(db: &DbError) -> String {
    let constraint = db.constraint().map(|name| format!(" ({name})")).unwrap_or_default();
    format!("{}{constraint}", db.message())
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::of(&error)
    }
}

impl From<WriteError> for Fault {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Database(error) => Self::of(&error),
            WriteError::Unprepared => Self::Stale("a partition is not known any more".into()),
            WriteError::Short { written, found } => {
                Self::Passed(CatalogueError::Unusable(format!("pgSTAC took {written} items and holds {found} of them")))
            }
        }
    }
}

impl From<CatalogueError> for Fault {
    fn from(error: CatalogueError) -> Self {
        Self::Passed(error)
    }
}

impl From<Fault> for CatalogueError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Race(message) | Fault::Stale(message) => Self::Unavailable(message),
            Fault::Passed(error) => error,
        }
    }
}

impl From<tokio_postgres::Error> for CatalogueError {
    fn from(error: tokio_postgres::Error) -> Self {
        Fault::of(&error).into()
    }
}

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

impl Fault {
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Race(_) | Self::Stale(_))
    }

    pub(super) fn of(error: &tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => Self::of_server(db),
            // The connection is gone, or never was.
            None if error.code().is_none() && chain_of(error).contains("invalid configuration") => {
                Self::Passed(CatalogueError::Unusable(chain_of(error)))
            }
            None => Self::Passed(CatalogueError::Unavailable(chain_of(error))),
        }
    }

    fn of_server(db: &DbError) -> Self {
        let (code, message) = (db.code().code(), said(db));
        let unavailable = |message| Self::Passed(CatalogueError::Unavailable(message));
        let unusable = |message| Self::Passed(CatalogueError::Unusable(format!("{message} (SQLSTATE {code})")));
        match code {
            // A deadlock's victim, a serialization failure, a lock that was not to be had in time, an object in use, a
            // statement that took too long: ours or a transaction's that held it up.
            "40P01" | "40001" | "55P03" | "55006" | "57014" => Self::Race(message),
            // The lock table is full: half of the batch may fit.
            "53200" => Self::Passed(CatalogueError::TooMuch(message)),
            // Connections or a configured limit are used up.
            "53300" | "53400" => Self::Race(message),
            // Nobody can help but an operator.
            "53100" => unusable(format!("the disk is full: {message}")),
            // A partition's bounds are narrower now, the partition is gone or divided anew, or the collection is gone.
            "23514" | "23503" => Self::Stale(message),
            "42P01" if db.message().contains("_items_") => Self::Stale(message),
            "42P10" => Self::Stale(message),
            // A primary that is a standby now: the next connection finds the new one.
            "25006" | "57P01" | "57P02" | "57P03" | "57P05" => unavailable(message),
            // A pooler that does not know our parameters.
            "08P01" if message.contains("startup parameter") => unusable(message),
            _ if code.starts_with("08") => unavailable(message),
            // Passwords, databases, rights, functions, columns.
            _ if code.starts_with("28") || code.starts_with("3D") || code.starts_with("42") => unusable(message),
            _ => match of_document(code, db) {
                Some(refused) => {
                    Self::Passed(CatalogueError::Refused { code: refused, sqlstate: code.to_owned(), message })
                }
                None if matches!(&code[..2], "53" | "55" | "57" | "58" | "25" | "XX") => unavailable(message),
                None => unusable(message),
            },
        }
    }
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

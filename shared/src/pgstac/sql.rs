//! Values as PostgreSQL takes them in binary, without a detour through other types.

use bytes::{BufMut, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

type Fault = Box<dyn std::error::Error + Sync + Send>;

/// JSON text for a `jsonb`: every digit of it arrives.
#[derive(Debug)]
pub(crate) struct RawJson<'t>(pub(crate) &'t str);

impl ToSql for RawJson<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Fault> {
        // The version of jsonb's binary form.
        // <https://github.com/postgres/postgres/blob/REL_15_STABLE/src/backend/utils/adt/jsonb.c#L85>
        out.put_u8(1);
        out.put_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::JSONB
    }

    to_sql_checked!();
}

/// Bytes as a type's own binary form, EWKB for a `geometry`.
#[derive(Debug)]
pub(crate) struct Binary<'t>(pub(crate) &'t [u8]);

impl ToSql for Binary<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Fault> {
        out.put_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(kind: &Type) -> bool {
        kind.name() == "geometry"
    }

    to_sql_checked!();
}

/// A name as an SQL identifier.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

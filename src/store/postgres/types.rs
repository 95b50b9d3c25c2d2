//! Values as PostgreSQL stores them: `uuid`, `timestamptz`, `jsonb`, `text[]`.

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    pg::{Pg, PgValue, data_types::PgTimestamp},
    serialize::{self, Output, ToSql},
    sql_types,
};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    model::{
        role::Permissions,
        user::{Attributes, Roles},
    },
};

/// Microseconds from 1970 to 2000, where PostgreSQL's time begins.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql_types::Uuid)]
pub(super) struct DbId(pub(super) Uuid);

impl ToSql<sql_types::Uuid, Pg> for DbId {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<sql_types::Uuid, Pg>::to_sql(&self.0, out)
    }
}

impl FromSql<sql_types::Uuid, Pg> for DbId {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        FromSql::<sql_types::Uuid, Pg>::from_sql(value).map(Self)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql_types::Timestamptz)]
pub(super) struct DbTime(pub(super) Timestamp);

impl ToSql<sql_types::Timestamptz, Pg> for DbTime {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let micros = self.0.as_millis().saturating_mul(1000) - POSTGRES_EPOCH_MICROS;
        ToSql::<sql_types::Timestamptz, Pg>::to_sql(&PgTimestamp(micros), &mut out.reborrow())
    }
}

impl FromSql<sql_types::Timestamptz, Pg> for DbTime {
    /// Never fails for a time: `infinity` becomes the last one there is, so that one odd row cannot
    /// spoil the batch that it is read in.
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let PgTimestamp(micros) = FromSql::<sql_types::Timestamptz, Pg>::from_sql(value)?;
        let micros = micros.saturating_add(POSTGRES_EPOCH_MICROS);
        Ok(Self(Timestamp::from_millis(micros.div_euclid(1000))))
    }
}

#[derive(Debug, Clone, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql_types::Jsonb)]
pub(super) struct DbJson(Option<Value>);

impl From<&Attributes> for DbJson {
    fn from(attributes: &Attributes) -> Self {
        Self(Some(Value::Object(attributes.as_map().clone())))
    }
}

impl DbJson {
    /// The object, if it is one.
    pub(super) fn object(&self) -> Option<Map<String, Value>> {
        self.0.as_ref()?.as_object().cloned()
    }
}

impl ToSql<sql_types::Jsonb, Pg> for DbJson {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let value = self.0.as_ref().ok_or("there is nothing to write")?;
        ToSql::<sql_types::Jsonb, Pg>::to_sql(value, out)
    }
}

impl FromSql<sql_types::Jsonb, Pg> for DbJson {
    /// Never fails: numbers and depths that no JSON of ours has, but `jsonb` has, become nothing, so
    /// that one odd row cannot spoil the batch that it is read in.
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        Ok(Self(FromSql::<sql_types::Jsonb, Pg>::from_sql(value).ok()))
    }
}

#[derive(Debug, Clone, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql_types::Array<sql_types::Text>)]
pub(super) struct DbNames(Vec<String>);

impl From<&Roles> for DbNames {
    fn from(roles: &Roles) -> Self {
        Self(roles.to_vec())
    }
}

impl From<&Permissions> for DbNames {
    fn from(permissions: &Permissions) -> Self {
        Self(permissions.to_vec())
    }
}

impl DbNames {
    /// One role, for asking who has it.
    pub(super) fn of(role: &str) -> Self {
        Self(vec![role.to_owned()])
    }

    /// The permissions, if each is a name.
    pub(super) fn permissions(&self) -> Option<Permissions> {
        Permissions::stored(self.0.iter().cloned())
    }

    /// The roles, if each is a name.
    pub(super) fn roles(&self) -> Option<Roles> {
        Roles::parse(self.0.iter().cloned()).ok()
    }
}

impl ToSql<sql_types::Array<sql_types::Text>, Pg> for DbNames {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        ToSql::<sql_types::Array<sql_types::Text>, Pg>::to_sql(&self.0, out)
    }
}

impl FromSql<sql_types::Array<sql_types::Text>, Pg> for DbNames {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        FromSql::<sql_types::Array<sql_types::Text>, Pg>::from_sql(value).map(Self)
    }
}

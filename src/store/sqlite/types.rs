//! Values as SQLite stores them: ids as 16 bytes, times as milliseconds, the rest as JSON text.

use diesel::{
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    serialize::{self, IsNull, Output, ToSql},
    sql_types,
    sqlite::{Sqlite, SqliteValue},
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql_types::Binary)]
pub(super) struct DbId(pub(super) Uuid);

impl ToSql<sql_types::Binary, Sqlite> for DbId {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        ToSql::<sql_types::Binary, Sqlite>::to_sql(self.0.as_bytes().as_slice(), out)
    }
}

impl FromSql<sql_types::Binary, Sqlite> for DbId {
    fn from_sql(mut value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        Ok(Self(Uuid::from_slice(value.read_blob())?))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql_types::BigInt)]
pub(super) struct DbTime(pub(super) Timestamp);

impl ToSql<sql_types::BigInt, Sqlite> for DbTime {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.as_millis());
        Ok(IsNull::No)
    }
}

impl FromSql<sql_types::BigInt, Sqlite> for DbTime {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        let millis = <i64 as FromSql<sql_types::BigInt, Sqlite>>::from_sql(value)?;
        Ok(Self(Timestamp::from_millis(millis)))
    }
}

#[derive(Debug, Clone, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql_types::Text)]
pub(super) struct DbJson(String);

impl From<&Attributes> for DbJson {
    fn from(attributes: &Attributes) -> Self {
        Self(attributes.to_json())
    }
}

impl DbJson {
    /// The object, if it is one.
    pub(super) fn object(&self) -> Option<Map<String, Value>> {
        serde_json::from_str(&self.0).ok()
    }
}

impl ToSql<sql_types::Text, Sqlite> for DbJson {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        ToSql::<sql_types::Text, Sqlite>::to_sql(self.0.as_str(), out)
    }
}

impl FromSql<sql_types::Text, Sqlite> for DbJson {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        <String as FromSql<sql_types::Text, Sqlite>>::from_sql(value).map(Self)
    }
}

#[derive(Debug, Clone, AsExpression, FromSqlRow)]
#[diesel(sql_type = sql_types::Text)]
pub(super) struct DbNames(String);

impl From<&Roles> for DbNames {
    fn from(roles: &Roles) -> Self {
        Self(Value::from(roles.to_vec()).to_string())
    }
}

impl From<&Permissions> for DbNames {
    fn from(permissions: &Permissions) -> Self {
        Self(Value::from(permissions.to_vec()).to_string())
    }
}

impl DbNames {
    /// The permissions, if they are a list of names.
    pub(super) fn permissions(&self) -> Option<Permissions> {
        let names: Vec<String> = serde_json::from_str(&self.0).ok()?;
        Permissions::stored(names)
    }

    /// The roles, if they are a list of names.
    pub(super) fn roles(&self) -> Option<Roles> {
        let names: Vec<String> = serde_json::from_str(&self.0).ok()?;
        Roles::parse(names).ok()
    }
}

impl ToSql<sql_types::Text, Sqlite> for DbNames {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        ToSql::<sql_types::Text, Sqlite>::to_sql(self.0.as_str(), out)
    }
}

impl FromSql<sql_types::Text, Sqlite> for DbNames {
    fn from_sql(value: SqliteValue<'_, '_, '_>) -> deserialize::Result<Self> {
        <String as FromSql<sql_types::Text, Sqlite>>::from_sql(value).map(Self)
    }
}

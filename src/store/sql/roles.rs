//! Roles that administrators make, and which of them make administrators.
//!
//! Decides, behind the guard row, whether an administrator is left after a change of a role; for changes of
//! users `standing` does. What a user may do is for the use cases.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    Conn, audit,
    faults::{Fault, from_diesel},
    lock_last_admin,
    rows::{RoleRow, status_text},
    schema::{roles, users},
    types::{DbId, DbTime},
};
use crate::{
    ids::UserId,
    model::{
        audit::{Event, Occasion},
        role::{AdminRoles, FixedRoles, RoleDefinition, StoredRole},
    },
    store::{DeleteRole, PutRole, StoreResult},
};

pub(super) async fn list(conn: &mut Conn) -> StoreResult<Vec<StoredRole>> {
    let rows = roles::table.order(roles::name).select(RoleRow::as_select());
    let rows: Vec<RoleRow> = rows.load(conn).await.map_err(from_diesel)?;
    rows.into_iter().map(RoleRow::parse).collect()
}

pub(super) async fn named(conn: &mut Conn, names: &[String]) -> StoreResult<Vec<RoleDefinition>> {
    let rows = roles::table
        .filter(roles::name.eq_any(names))
        .select(RoleRow::as_select());
    let rows: Vec<RoleRow> = rows.load(conn).await.map_err(from_diesel)?;
    rows.into_iter().map(|row| Ok(row.parse()?.role)).collect()
}

pub(super) async fn put(
    conn: &mut Conn,
    role: &RoleDefinition,
    fixed: &FixedRoles,
    by: &Occasion,
) -> StoreResult<PutRole> {
    let changed: Result<PutRole, Fault> = write_tx!(conn, async |tx| {
        lock_last_admin(tx).await?;
        if !role.makes_administrators() && takes_the_last(tx, &role.name, fixed).await? {
            return Ok(PutRole::LastAdmin);
        }
        let before = roles::table.find(&role.name).select(roles::updated_at);
        let before = before.first::<DbTime>(tx).await.optional()?;
        let updated_at = before.map_or(by.at, |before| by.at.max(before.0));
        let row = RoleRow::new(role, updated_at);
        diesel::insert_into(roles::table)
            .values(&row)
            .on_conflict(roles::name)
            .do_update()
            .set(&row)
            .execute(tx)
            .await?;
        audit::write(tx, by, &[Event::role_stored(role)]).await?;
        Ok(PutRole::Stored(StoredRole {
            role: role.clone(),
            updated_at,
        }))
    });
    Ok(changed?)
}

pub(super) async fn delete(
    conn: &mut Conn,
    name: &str,
    fixed: &FixedRoles,
    by: &Occasion,
) -> StoreResult<DeleteRole> {
    let changed: Result<DeleteRole, Fault> = write_tx!(conn, async |tx| {
        lock_last_admin(tx).await?;
        if takes_the_last(tx, name, fixed).await? {
            return Ok(DeleteRole::LastAdmin);
        }
        let deleted = diesel::delete(roles::table.find(name)).execute(tx).await?;
        if deleted == 0 {
            return Ok(DeleteRole::Unknown);
        }
        audit::write(tx, by, &[Event::role_deleted(name)]).await?;
        Ok(DeleteRole::Deleted)
    });
    Ok(changed?)
}

/// Whether the only active administrators are so by this role alone; the guard row is held.
async fn takes_the_last(tx: &mut Conn, name: &str, fixed: &FixedRoles) -> Result<bool, Fault> {
    let before = admin_roles(tx, fixed).await?;
    if fixed.get(name).is_some() || !before.iter().any(|role| role == name) {
        return Ok(false);
    }
    let after = before.clone().without(name);
    Ok(is_any_active(tx, &before, None).await? && !is_any_active(tx, &after, None).await?)
}

/// The roles that make administrators now. One that makes no sense grants nothing, and must not keep others
/// from being deactivated.
pub(super) async fn admin_roles(tx: &mut Conn, fixed: &FixedRoles) -> Result<AdminRoles, Fault> {
    let rows: Vec<RoleRow> = roles::table.select(RoleRow::as_select()).load(tx).await?;
    let stored: Vec<RoleDefinition> = rows
        .into_iter()
        .filter_map(|row| Some(row.parse().ok()?.role))
        .collect();
    Ok(fixed.administrators(&stored))
}

/// Whether an active user holds one of these roles, other than the one that is left out.
pub(super) async fn is_any_active(
    tx: &mut Conn,
    among: &AdminRoles,
    but: Option<UserId>,
) -> Result<bool, Fault> {
    let left_out = but.map_or_else(uuid::Uuid::nil, UserId::as_uuid);
    for role in among.iter() {
        let found = users::table
            .filter(users::id.ne(DbId(left_out)))
            .filter(users::status.eq(status_text(true)))
            .filter(has_role!(role))
            .select(users::id)
            .limit(1);
        if !found.load::<DbId>(tx).await?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

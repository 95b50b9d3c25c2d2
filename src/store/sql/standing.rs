//! Who may log in and who is an administrator; the last one stays.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    Conn,
    audit::Log,
    faults::Fault,
    lock_last_admin, lock_user,
    roles::{admin_roles, is_any_active},
    rows::{UserRow, status_text},
    schema::users,
    sessions::close_all,
    types::{DbId, DbNames, DbTime},
};
use crate::{
    clock::Timestamp,
    ids::UserId,
    model::{
        audit::{Event, EventKind, Occasion},
        role::{AdminRoles, FixedRoles},
        session::CloseReason,
        user::{Roles, User, UserStatus},
    },
    store::{ChangeStanding, StoreResult},
};

pub(super) async fn set_roles(
    conn: &mut Conn,
    id: UserId,
    roles: &Roles,
    fixed: &FixedRoles,
    by: &Occasion,
) -> StoreResult<ChangeStanding> {
    let now = by.at;
    let changed: Result<ChangeStanding, Fault> = write_tx!(conn, async |tx| {
        let mut log = Log::new(by);
        // The guard comes before any user's row, always, so that two changes cannot wait for each
        // other.
        lock_last_admin(tx).await?;
        let Some(before) = lock_user(tx, id).await? else {
            return Ok(ChangeStanding::Gone);
        };
        let before = before.parse()?.user;
        let admins = admin_roles(tx, fixed).await?;
        if !admins.is_among(roles) && is_only_admin(tx, &before, &admins).await? {
            return Ok(ChangeStanding::LastAdmin);
        }
        let columns = (
            users::roles.eq(DbNames::from(roles)),
            users::updated_at.eq(DbTime(now.max(before.updated_at))),
        );
        diesel::update(users::table.find(DbId(id.as_uuid())))
            .set(columns)
            .execute(tx)
            .await?;
        log.add(Event::roles_changed(id, &before.roles, roles));
        log.write(tx).await?;
        Ok(ChangeStanding::Changed(Box::new(reread(tx, id).await?)))
    });
    Ok(changed?)
}

pub(super) async fn deactivate(
    conn: &mut Conn,
    id: UserId,
    credential_version: Option<i64>,
    fixed: &FixedRoles,
    by: &Occasion,
) -> StoreResult<ChangeStanding> {
    let now = by.at;
    let changed: Result<ChangeStanding, Fault> = write_tx!(conn, async |tx| {
        let mut log = Log::new(by);
        lock_last_admin(tx).await?;
        let Some(before) = lock_user(tx, id).await? else {
            return Ok(ChangeStanding::Gone);
        };
        let before = before.parse()?;
        if credential_version.is_some_and(|version| version != before.credential_version) {
            return Ok(ChangeStanding::CredentialsChanged);
        }
        let before = before.user;
        let admins = admin_roles(tx, fixed).await?;
        if is_only_admin(tx, &before, &admins).await? {
            return Ok(ChangeStanding::LastAdmin);
        }
        let since = match before.status {
            UserStatus::Active => now,
            UserStatus::Deactivated { at } => at,
        };
        write_status(tx, &before, Some(since), now).await?;
        log.add(Event::done(EventKind::AccountDeactivated).about(id));
        close_all(tx, id, None, CloseReason::AccountDeactivated, &mut log).await?;
        log.write(tx).await?;
        Ok(ChangeStanding::Changed(Box::new(reread(tx, id).await?)))
    });
    Ok(changed?)
}

pub(super) async fn activate(
    conn: &mut Conn,
    id: UserId,
    by: &Occasion,
) -> StoreResult<ChangeStanding> {
    let now = by.at;
    let changed: Result<ChangeStanding, Fault> = write_tx!(conn, async |tx| {
        let mut log = Log::new(by);
        let Some(before) = lock_user(tx, id).await? else {
            return Ok(ChangeStanding::Gone);
        };
        let before = before.parse()?.user;
        write_status(tx, &before, None, now).await?;
        log.add(Event::done(EventKind::AccountActivated).about(id));
        log.write(tx).await?;
        Ok(ChangeStanding::Changed(Box::new(reread(tx, id).await?)))
    });
    Ok(changed?)
}

async fn write_status(
    tx: &mut Conn,
    before: &User,
    deactivated_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Fault> {
    let columns = (
        users::status.eq(status_text(deactivated_at.is_none())),
        users::deactivated_at.eq(deactivated_at.map(DbTime)),
        users::updated_at.eq(DbTime(now.max(before.updated_at))),
    );
    let row = users::table.find(DbId(before.id.as_uuid()));
    diesel::update(row).set(columns).execute(tx).await?;
    Ok(())
}

/// Whether a user is an active administrator and nobody else is.
pub(super) async fn is_only_admin(
    tx: &mut Conn,
    user: &User,
    admins: &AdminRoles,
) -> Result<bool, Fault> {
    let is_admin = user.is_active() && admins.is_among(&user.roles);
    Ok(is_admin && !is_any_active(tx, admins, Some(user.id)).await?)
}

/// A user whose row this change holds, as the change leaves it.
pub(super) async fn reread(tx: &mut Conn, id: UserId) -> Result<User, Fault> {
    let row = users::table
        .find(DbId(id.as_uuid()))
        .select(UserRow::as_select());
    Ok(row.first(tx).await?.parse()?)
}

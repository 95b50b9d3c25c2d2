//! Erasing a person: the user with everything that is theirs, and the key of their audit details.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    Conn,
    audit::{self, Log},
    faults::Fault,
    lock_last_admin, lock_user, purge,
    roles::admin_roles,
    schema::{kept_addresses, mail_outbox, pending_registrations, users},
    sessions::close_all,
    standing::is_only_admin,
    types::DbId,
};
use crate::{
    ids::UserId,
    model::{
        audit::{Event, EventKind, Occasion},
        role::FixedRoles,
        session::CloseReason,
    },
    store::{EraseUser, StoreResult},
};

/// Sessions, secrets and devices go with the user's row; what only names the user or their address goes here.
pub(super) async fn erase(
    conn: &mut Conn,
    id: UserId,
    fixed: &FixedRoles,
    by: &Occasion,
) -> StoreResult<EraseUser> {
    let erased: Result<EraseUser, Fault> = write_tx!(conn, async |tx| {
        lock_last_admin(tx).await?;
        let Some(locked) = lock_user(tx, id).await? else {
            return Ok(EraseUser::Gone);
        };
        let user = locked.parse()?.user;
        let admins = admin_roles(tx, fixed).await?;
        if is_only_admin(tx, &user, &admins).await? {
            return Ok(EraseUser::LastAdmin);
        }
        let mut log = Log::new(by);
        close_all(tx, id, None, CloseReason::Revoked, &mut log).await?;
        log.add(Event::done(EventKind::AccountErased).about(id));
        // Before the key is dropped: who erases themselves is still somebody.
        log.write(tx).await?;
        let row = DbId(id.as_uuid());
        let address = user.email.canonical().to_owned();
        let of_user = mail_outbox::user_id.eq(row);
        let to_user = mail_outbox::recipient_canonical.eq(&address);
        diesel::delete(mail_outbox::table.filter(of_user.or(to_user)))
            .execute(tx)
            .await?;
        let waiting = pending_registrations::email_canonical.eq(&address);
        diesel::delete(pending_registrations::table.filter(waiting))
            .execute(tx)
            .await?;
        let kept = kept_addresses::user_id.eq(row);
        diesel::delete(kept_addresses::table.filter(kept))
            .execute(tx)
            .await?;
        diesel::delete(users::table.find(row)).execute(tx).await?;
        audit::forget(tx, &[row]).await?;
        Ok(EraseUser::Erased)
    });
    let erased = erased?;
    if erased == EraseUser::Erased {
        purge(conn).await;
    }
    Ok(erased)
}

//! Users: made, read, listed, changed.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    Backend, Conn,
    addresses::{claim, leave},
    audit::{self, Log},
    faults::{Fault, Taken, from_diesel},
    lock_user, outbox,
    rows::{CredentialsRow, NewSecretRow, NewUserRow, UserRow, limit_column, status_text},
    schema::{one_time_secrets, users},
    sessions::{close_overdue, close_surplus, open_rows},
    types::{DbId, DbJson, DbTime},
};
use crate::{
    clock::Timestamp,
    ids::UserId,
    model::{
        audit::{Event, Occasion},
        mail::{NewLetter, Voiding},
        session::{CloseReason, IdleRule},
        token::NewOneTimeSecret,
        user::{
            NewUser, OnLimit, SessionLimit, SessionLimitOverride, User, UserCredentials, UserPatch,
        },
    },
    store::{CreateUser, LoginName, StoreResult, UpdateUser, UserFilter},
};

pub(super) async fn create(
    conn: &mut Conn,
    new: &NewUser,
    link: Option<&NewOneTimeSecret>,
    letter: Option<&NewLetter>,
    by: &Occasion,
) -> StoreResult<CreateUser> {
    let now = by.at;
    let made: Result<(), Fault> = write_tx!(conn, async |tx| {
        diesel::insert_into(users::table)
            .values(NewUserRow::from(new))
            .execute(tx)
            .await?;
        claim(tx, &new.user.email, new.user.id, now).await?;
        if let Some(link) = link {
            let row = NewSecretRow::new(link, now);
            diesel::insert_into(one_time_secrets::table)
                .values(row)
                .execute(tx)
                .await?;
        }
        if let Some(letter) = letter {
            outbox::insert(tx, letter).await?;
        }
        audit::begin(tx, by, new.user.id).await?;
        audit::write(tx, by, &[Event::account_created(new)]).await
    });
    match made {
        Ok(()) => Ok(CreateUser::Created),
        Err(fault) => match fault.taken() {
            Some(Taken::Email) => Ok(CreateUser::EmailTaken),
            Some(Taken::Username) => Ok(CreateUser::UsernameTaken),
            None => Err(fault.into()),
        },
    }
}

pub(super) async fn find(conn: &mut Conn, id: UserId) -> StoreResult<Option<User>> {
    let row = users::table
        .find(DbId(id.as_uuid()))
        .select(UserRow::as_select())
        .first(conn)
        .await;
    row.optional()
        .map_err(from_diesel)?
        .map(UserRow::parse)
        .transpose()
}

pub(super) async fn by_login(
    conn: &mut Conn,
    name: &LoginName,
) -> StoreResult<Option<UserCredentials>> {
    let select = CredentialsRow::as_select();
    let row = match name {
        LoginName::Email(email) => {
            let found = users::table.filter(users::email_canonical.eq(email.canonical()));
            found.select(select).first(conn).await
        }
        LoginName::Username(username) => {
            let found = users::table.filter(users::username_canonical.eq(username.canonical()));
            found.select(select).first(conn).await
        }
    };
    row.optional()
        .map_err(from_diesel)?
        .map(CredentialsRow::parse)
        .transpose()
}

pub(super) async fn credentials(
    conn: &mut Conn,
    id: UserId,
) -> StoreResult<Option<UserCredentials>> {
    let found = users::table.find(DbId(id.as_uuid()));
    let row = found.select(CredentialsRow::as_select()).first(conn).await;
    row.optional()
        .map_err(from_diesel)?
        .map(CredentialsRow::parse)
        .transpose()
}

/// A pattern that matches `text` literally, anywhere (ASVS 1.2.9).
pub(super) fn containing(text: &str) -> String {
    let literal = text
        .replace('\\', "\\\\")
        .replace('%', "\\%")
        .replace('_', "\\_");
    format!("%{literal}%")
}

pub(super) async fn list(conn: &mut Conn, filter: &UserFilter) -> StoreResult<Vec<User>> {
    let mut query = users::table
        .select(UserRow::as_select())
        .into_boxed::<Backend>();
    query = query.filter(users::id.ne(DbId(UserId::CANARY.as_uuid())));
    if let Some(text) = &filter.text {
        let pattern = containing(&text.to_lowercase());
        let email = users::email_canonical
            .like(pattern.clone())
            .escape('\\')
            .nullable();
        let username = users::username_canonical.like(pattern).escape('\\');
        query = query.filter(email.or(username));
    }
    if let Some(active) = filter.active {
        query = query.filter(users::status.eq(status_text(active)));
    }
    if let Some(role) = &filter.role {
        query = query.filter(has_role!(role));
    }
    if let Some(before) = filter.before {
        query = query.filter(users::id.lt(DbId(before.as_uuid())));
    }
    let newest_first = query.order(users::id.desc()).limit(i64::from(filter.limit));
    let rows = newest_first
        .load::<UserRow>(conn)
        .await
        .map_err(from_diesel)?;
    rows.into_iter().map(UserRow::parse).collect()
}

pub(super) async fn update(
    conn: &mut Conn,
    id: UserId,
    patch: &UserPatch,
    notice: Option<&NewLetter>,
    limit: SessionLimit,
    idle: IdleRule,
    by: &Occasion,
) -> StoreResult<UpdateUser> {
    let now = by.at;
    let updated: Result<Option<User>, Fault> = write_tx!(conn, async |tx| {
        let Some(before) = lock_user(tx, id).await? else {
            return Ok(None);
        };
        let before = before.parse()?.user;
        let mut log = Log::new(by);
        log.add(Event::account_changed(id, patch));
        write_patch(tx, &before, patch, now.max(before.updated_at)).await?;
        if let Some(new) = &patch.email
            && new.canonical() != before.email.canonical()
        {
            claim(tx, new, id, now).await?;
            outbox::void_secrets(tx, &before, Voiding::Moved, now).await?;
            leave(tx, &before, new, notice, now).await?;
        }
        if let Some(max) = patch.max_sessions {
            let own = SessionLimitOverride {
                max,
                on_limit: None,
            };
            let open = open_rows(tx, id).await?;
            let live = close_overdue(tx, open, idle, &mut log).await?;
            let max = limit.with(own).max;
            close_surplus(tx, live, max, CloseReason::LimitLowered, &mut log).await?;
        }
        log.write(tx).await?;
        let row = users::table
            .find(DbId(id.as_uuid()))
            .select(UserRow::as_select());
        Ok(Some(row.first(tx).await?.parse()?))
    });
    match updated {
        Ok(Some(user)) => Ok(UpdateUser::Updated(Box::new(user))),
        Ok(None) => Ok(UpdateUser::Gone),
        Err(fault) => match fault.taken() {
            Some(Taken::Email) => Ok(UpdateUser::EmailTaken),
            Some(Taken::Username) => Ok(UpdateUser::UsernameTaken),
            None => Err(fault.into()),
        },
    }
}

/// One statement for each group of columns that belong together; the row is locked.
async fn write_patch(
    tx: &mut Conn,
    before: &User,
    patch: &UserPatch,
    now: Timestamp,
) -> Result<(), Fault> {
    let row = users::table.find(DbId(before.id.as_uuid()));
    diesel::update(row)
        .set(users::updated_at.eq(DbTime(now)))
        .execute(tx)
        .await?;
    if let Some(username) = &patch.username {
        let written = username.as_ref().map(|name| name.as_str().to_owned());
        let canonical = username.as_ref().map(|name| name.canonical().to_owned());
        let columns = (
            users::username.eq(written),
            users::username_canonical.eq(canonical),
        );
        diesel::update(row).set(columns).execute(tx).await?;
    }
    if let Some(attributes) = &patch.attributes {
        let column = users::attributes.eq(DbJson::from(attributes));
        diesel::update(row).set(column).execute(tx).await?;
    }
    if let Some(email) = &patch.email {
        let written = users::email.eq(email.as_str().to_owned());
        let canonical = users::email_canonical.eq(email.canonical().to_owned());
        diesel::update(row)
            .set((written, canonical))
            .execute(tx)
            .await?;
    }
    if let Some(verified) = patch.verified_at(before, now) {
        let column = users::email_verified_at.eq(verified.map(DbTime));
        diesel::update(row).set(column).execute(tx).await?;
        if verified.is_some() {
            let column = users::provisional_until.eq(None::<DbTime>);
            diesel::update(row).set(column).execute(tx).await?;
        }
    }
    if let Some(max) = patch.max_sessions {
        let column = users::max_sessions.eq(limit_column(max));
        diesel::update(row).set(column).execute(tx).await?;
    }
    if let Some(on_limit) = patch.on_session_limit {
        let column = users::on_session_limit.eq(on_limit.map(OnLimit::as_str));
        diesel::update(row).set(column).execute(tx).await?;
    }
    Ok(())
}

//! Letters that wait: stored with what causes them, claimed by lease, settled under a fence.
//!
//! Claiming and settling hold no row but the letter's. What a letter needs right before it is sent is for
//! [`super::preparing`].

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{
    Backend, Conn, audit, due_letters,
    faults::{Fault, from_diesel},
    rows::{LetterRow, NewLetterRow},
    schema::mail_outbox,
    secrets,
    types::{DbId, DbTime},
};
use crate::{
    clock::{Span, Timestamp},
    email::EmailAddress,
    ids::LetterId,
    model::{
        audit::{Event, EventKind, Occasion},
        mail::{Letter, LetterKind, LetterState, NewLetter, Settlement, Voiding},
        token::Purpose,
        user::User,
    },
    store::{ChangeLetter, LetterFilter, Prepared, ReadyLetter, StoreResult},
};

const WAITING: &str = LetterState::Waiting.as_str();
/// Why nothing is sent to somebody who may not log in.
pub(super) const DEACTIVATED: &str = "the account is deactivated";

/// Stores a letter in the transaction of what causes it.
pub(super) async fn insert(tx: &mut Conn, letter: &NewLetter) -> Result<(), Fault> {
    let row = NewLetterRow::try_from(letter)?;
    diesel::insert_into(mail_outbox::table)
        .values(row)
        .execute(tx)
        .await?;
    Ok(())
}

pub(super) async fn add(
    conn: &mut Conn,
    letter: &NewLetter,
    quiet_since: Timestamp,
    by: &Occasion,
) -> StoreResult<bool> {
    let added: Result<bool, Fault> = write_tx!(conn, async |tx| {
        let canonical = letter.to.as_ref().map(EmailAddress::canonical);
        let mut same = mail_outbox::table
            .filter(mail_outbox::recipient_canonical.eq(canonical))
            .filter(mail_outbox::kind.eq(letter.kind.as_str()))
            .filter(mail_outbox::created_at.gt(DbTime(quiet_since)))
            .select(mail_outbox::id)
            .into_boxed::<Backend>();
        if let Some(user) = letter.user_id {
            same = same.filter(mail_outbox::user_id.eq(DbId(user.as_uuid())));
            same = match letter.credential_version {
                Some(version) => same.filter(mail_outbox::credential_version.eq(version)),
                None => same.filter(mail_outbox::credential_version.is_null()),
            };
        }
        if same.first::<DbId>(tx).await.optional()?.is_some() {
            return Ok(false);
        }
        insert(tx, letter).await?;
        let requested = Event::letter_requested(letter.kind, letter.user_id);
        audit::write(tx, by, &[requested]).await?;
        Ok(true)
    });
    Ok(added?)
}

/// Gives up the letters of these kinds that wait for a user or for their address.
pub(super) async fn drop_of(
    tx: &mut Conn,
    user: &User,
    kinds: impl Iterator<Item = LetterKind>,
    since: Timestamp,
    now: Timestamp,
) -> Result<(), Fault> {
    let kinds = kinds.map(LetterKind::as_str);
    let of_user = mail_outbox::user_id.eq(DbId(user.id.as_uuid()));
    let to_user = mail_outbox::recipient_canonical.eq(user.email.canonical().to_owned());
    let waiting = mail_outbox::table
        .filter(mail_outbox::state.eq(WAITING))
        .filter(mail_outbox::kind.eq_any(kinds))
        .filter(mail_outbox::created_at.ge(DbTime(since)))
        .filter(of_user.or(to_user));
    diesel::update(waiting)
        .set((
            mail_outbox::state.eq(LetterState::Dropped.as_str()),
            mail_outbox::settled_at.eq(DbTime(now)),
            mail_outbox::leased_until.eq(None::<DbTime>),
            mail_outbox::last_error.eq("what it was for is over"),
        ))
        .execute(tx)
        .await?;
    Ok(())
}

/// Voids open secrets, those of letters that wait among them.
pub(super) async fn void_secrets(
    tx: &mut Conn,
    owner: &User,
    voiding: Voiding,
    now: Timestamp,
) -> Result<(), Fault> {
    void_secrets_since(tx, owner, voiding, Timestamp::EPOCH, now).await
}

/// As [`void_secrets`]; of notices only those that were caused since then.
pub(super) async fn void_secrets_since(
    tx: &mut Conn,
    owner: &User,
    voiding: Voiding,
    notices_since: Timestamp,
    now: Timestamp,
) -> Result<(), Fault> {
    let is_notice = |purpose: &Purpose| *purpose == Purpose::NotMe;
    let (notices, others): (Vec<_>, Vec<_>) =
        voiding.purposes().iter().copied().partition(is_notice);
    secrets::void(tx, owner.id, &others, Timestamp::EPOCH, now).await?;
    secrets::void(tx, owner.id, &notices, notices_since, now).await?;
    let is_notice = |kind: &LetterKind| kind.purpose() == Some(Purpose::NotMe);
    let (notices, others): (Vec<_>, Vec<_>) = voiding.letters().iter().partition(|k| is_notice(k));
    drop_of(tx, owner, others.into_iter(), Timestamp::EPOCH, now).await?;
    drop_of(tx, owner, notices.into_iter(), notices_since, now).await
}

/// Whether anything is due: an idle poll writes nothing.
pub(super) async fn is_any_due(conn: &mut Conn, now: Timestamp) -> StoreResult<bool> {
    let due = mail_outbox::table
        .filter(mail_outbox::state.eq(WAITING))
        .filter(mail_outbox::due_at.le(DbTime(now)))
        .select(mail_outbox::id);
    let first = due.first::<DbId>(conn).await.optional();
    Ok(first.map_err(from_diesel)?.is_some())
}

pub(super) async fn claim(
    conn: &mut Conn,
    most: u32,
    lease: Span,
    now: Timestamp,
) -> StoreResult<Vec<Letter>> {
    let claimed: Result<Vec<LetterRow>, Fault> = write_tx!(conn, async |tx| {
        let mut claimed = Vec::new();
        let until = DbTime(now.plus(lease));
        for id in due_letters(tx, most, now).await? {
            let columns = (
                mail_outbox::fence.eq(mail_outbox::fence + 1),
                mail_outbox::attempts.eq(mail_outbox::attempts + 1),
                mail_outbox::due_at.eq(until),
                mail_outbox::leased_until.eq(until),
            );
            let row = diesel::update(mail_outbox::table.find(id))
                .set(columns)
                .returning(LetterRow::as_returning())
                .get_result::<LetterRow>(tx)
                .await?;
            claimed.push(row);
        }
        Ok(claimed)
    });
    sound_ones(claimed?)
}

/// Corrupt letters keep their lease like the others, so that they hold up nothing; the error is told where
/// there is nothing else to tell.
fn sound_ones(claimed: Vec<LetterRow>) -> StoreResult<Vec<Letter>> {
    let (mut sound, mut corrupt) = (Vec::new(), None);
    for row in claimed {
        match row.parse() {
            Ok(letter) => sound.push(letter),
            Err(error) => {
                tracing::error!(%error, "a letter cannot be read");
                corrupt = Some(error);
            }
        }
    }
    match corrupt {
        Some(error) if sound.is_empty() => Err(error),
        _ => Ok(sound),
    }
}

pub(super) async fn settle(
    conn: &mut Conn,
    id: LetterId,
    fence: i64,
    settlement: &Settlement,
    now: Timestamp,
) -> StoreResult<bool> {
    let claimed = mail_outbox::table
        .find(DbId(id.as_uuid()))
        .filter(mail_outbox::fence.eq(fence))
        .filter(mail_outbox::state.eq(WAITING));
    let (state, due_at, error) = match settlement {
        Settlement::Sent => (LetterState::Sent, None, None),
        Settlement::Dropped { reason } => (LetterState::Dropped, None, Some(reason)),
        Settlement::Dead { error } => (LetterState::Dead, None, Some(error)),
        Settlement::Again { at, error } => (LetterState::Waiting, Some(DbTime(*at)), Some(error)),
    };
    let settled_at = due_at.is_none().then_some(DbTime(now));
    let columns = (
        mail_outbox::state.eq(state.as_str()),
        mail_outbox::due_at.eq(due_at.unwrap_or(DbTime(now))),
        mail_outbox::leased_until.eq(None::<DbTime>),
        mail_outbox::last_error.eq(error),
        mail_outbox::settled_at.eq(settled_at),
    );
    let settled = diesel::update(claimed).set(columns).execute(conn).await;
    Ok(settled.map_err(from_diesel)? == 1)
}

pub(super) async fn find(conn: &mut Conn, id: LetterId) -> StoreResult<Option<Letter>> {
    let row = mail_outbox::table
        .find(DbId(id.as_uuid()))
        .select(LetterRow::as_select());
    let row = row.first(conn).await.optional().map_err(from_diesel)?;
    row.map(LetterRow::parse).transpose()
}

pub(super) async fn list(conn: &mut Conn, filter: &LetterFilter) -> StoreResult<Vec<Letter>> {
    let mut query = mail_outbox::table
        .select(LetterRow::as_select())
        .into_boxed::<Backend>();
    if let Some(state) = filter.state {
        query = query.filter(mail_outbox::state.eq(state.as_str()));
    }
    if let Some(before) = filter.before {
        query = query.filter(mail_outbox::id.lt(DbId(before.as_uuid())));
    }
    let newest_first = query
        .order(mail_outbox::id.desc())
        .limit(i64::from(filter.limit));
    let rows = newest_first.load::<LetterRow>(conn).await;
    let rows = rows.map_err(from_diesel)?;
    rows.into_iter().map(LetterRow::parse).collect()
}

/// Makes a letter wait again, or gives it up, unless it was sent or is being sent.
pub(super) async fn change(
    conn: &mut Conn,
    id: LetterId,
    to: LetterState,
    by: &Occasion,
) -> StoreResult<ChangeLetter> {
    let changed: Result<ChangeLetter, Fault> =
        write_tx!(conn, async |tx| { change_in(tx, id, to, by).await });
    Ok(changed?)
}

async fn change_in(
    tx: &mut Conn,
    id: LetterId,
    to: LetterState,
    by: &Occasion,
) -> Result<ChangeLetter, Fault> {
    let now = by.at;
    let free = mail_outbox::leased_until
        .is_null()
        .or(mail_outbox::leased_until.le(DbTime(now)));
    let dropped = to == LetterState::Dropped;
    let (sent, over) = (LetterState::Sent.as_str(), LetterState::Dropped.as_str());
    let for_good: &[&str] = if dropped { &[sent] } else { &[sent, over] };
    let changeable = mail_outbox::table
        .find(DbId(id.as_uuid()))
        .filter(mail_outbox::state.ne_all(for_good))
        .filter(mail_outbox::state.ne(WAITING).or(free.assume_not_null()));
    let columns = (
        mail_outbox::state.eq(to.as_str()),
        mail_outbox::due_at.eq(DbTime(now)),
        mail_outbox::leased_until.eq(None::<DbTime>),
        mail_outbox::settled_at.eq(dropped.then_some(DbTime(now))),
        mail_outbox::last_error.eq(dropped.then_some("dropped by an administrator")),
    );
    let changed = diesel::update(changeable)
        .set(columns)
        .returning(LetterRow::as_returning())
        .get_result::<LetterRow>(tx)
        .await;
    if let Some(row) = changed.optional()? {
        let letter = row.parse()?;
        let kind = if dropped {
            EventKind::LetterDropped
        } else {
            EventKind::LetterRetried
        };
        let event = Event::letter_changed(kind, id, letter.new.user_id);
        audit::write(tx, by, &[event]).await?;
        return Ok(ChangeLetter::Changed(Box::new(letter)));
    }
    Ok(match find(tx, id).await?.map(|letter| letter.state) {
        Some(LetterState::Sent) => ChangeLetter::AlreadySent,
        Some(LetterState::Dropped) => ChangeLetter::AlreadyDropped,
        Some(_) => ChangeLetter::InFlight,
        None => ChangeLetter::Unknown,
    })
}

/// What the owner of an address is told that somebody else asked for.
pub(super) fn taken(to: &EmailAddress, owner: User) -> Prepared {
    if !owner.is_active() {
        return Prepared::Obsolete(DEACTIVATED);
    }
    Prepared::Ready(Box::new(ReadyLetter {
        kind: LetterKind::AddressTaken,
        to: to.clone(),
        user: Some(owner),
        has_code: false,
    }))
}

/// How many letters wait, and since when the oldest does.
pub(super) async fn waiting(conn: &mut Conn) -> StoreResult<(u64, Option<Timestamp>)> {
    use diesel::dsl::{count_star, min};
    let waiting = mail_outbox::table
        .filter(mail_outbox::state.eq(LetterState::Waiting.as_str()))
        .select((count_star(), min(mail_outbox::created_at)));
    let found = waiting.first::<(i64, Option<DbTime>)>(conn).await;
    let (count, oldest) = found.map_err(from_diesel)?;
    Ok((u64::try_from(count).unwrap_or(0), oldest.map(|at| at.0)))
}

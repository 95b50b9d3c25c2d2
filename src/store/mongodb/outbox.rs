//! Letters: the collection `mail_outbox`.
//!
//! Decides what a letter looks like there and how workers share it out: claiming, settling, retrying and
//! dropping are each one conditional update of one document, the latter two with a record. Whom a letter is for, and the secret in it,
//! are decided in `preparing`.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawDocument, doc},
    options::ReturnDocument,
};

use super::{
    MongoStore, audit,
    documents::{id_bson, time_bson, user_key},
    owners::insert,
    rows::{Row, count, email, id, owned_text, text, time, whole},
    transaction::{Step, Stopped, Transaction},
};
use crate::{
    clock::{Span, Timestamp},
    email::EmailAddress,
    ids::{LetterId, UserId},
    model::{
        audit::{Event, EventKind, Occasion},
        mail::{Letter, LetterKind, LetterState, NewLetter, Settlement, Voiding},
        token::Purpose,
    },
    store::{ChangeLetter, LetterFilter, StoreResult},
};

/// One document per letter.
pub(super) const MAIL_OUTBOX: &str = "mail_outbox";

/// Why an administrator's letter was dropped.
const BY_ADMINISTRATOR: &str = "dropped by an administrator";

/// A letter's id as BSON.
pub(super) fn letter_key(id: LetterId) -> Bson {
    id_bson(id.as_uuid())
}

/// A new document of `mail_outbox`.
pub(super) fn letter_document(new: &NewLetter) -> Document {
    let to = new.to.as_ref();
    // Texts and a flag: nothing that JSON could not write.
    let details = serde_json::to_value(&new.details).unwrap_or_default();
    doc! {
        "_id": letter_key(new.id),
        "kind": new.kind.as_str(),
        "user_id": new.user_id.map(user_key),
        "registration_id": new.registration_id.map(|id| id_bson(id.as_uuid())),
        "recipient": to.map(EmailAddress::as_str),
        "recipient_canonical": to.map(EmailAddress::canonical),
        "language": new.language.as_deref(),
        "details": details.to_string(),
        "credential_version": new.credential_version,
        "created_at": time_bson(new.created_at),
        "state": LetterState::Waiting.as_str(),
        "attempts": 0_i32,
        "due_at": time_bson(new.created_at),
        "leased_until": null,
        "fence": 0_i64,
        "last_error": null,
        "settled_at": null,
    }
}

/// Reads a letter.
pub(super) fn read_letter(document: &RawDocument) -> StoreResult<Letter> {
    let key = Row::of(MAIL_OUTBOX, document, uuid::Uuid::nil()).required("_id", id)?;
    let row = Row::of(MAIL_OUTBOX, document, key);
    let new = NewLetter {
        id: key.into(),
        kind: row.required("kind", |v| LetterKind::parse(text(v)?))?,
        user_id: row.optional("user_id", id)?.map(Into::into),
        registration_id: row.optional("registration_id", id)?.map(Into::into),
        to: row.optional("recipient", email)?,
        language: row.optional("language", owned_text)?,
        details: row.required("details", |v| serde_json::from_str(text(v)?).ok())?,
        credential_version: row.optional("credential_version", whole)?,
        created_at: row.required("created_at", time)?,
    };
    Ok(Letter {
        new,
        state: row.required("state", |v| LetterState::parse(text(v)?))?,
        attempts: row.required("attempts", count)?,
        due_at: row.required("due_at", time)?,
        fence: row.required("fence", whole)?,
        last_error: row.optional("last_error", owned_text)?,
        settled_at: row.optional("settled_at", time)?,
    })
}

/// Stores a letter with the change that causes it.
pub(super) async fn store_letter(
    store: &MongoStore,
    session: &mut ClientSession,
    letter: Option<&NewLetter>,
) -> Result<(), Stopped> {
    match letter {
        Some(letter) => insert(store, session, MAIL_OUTBOX, &letter_document(letter)).await,
        None => Ok(()),
    }
}

/// Why letters that wait are dropped.
const fn reason(voiding: Voiding) -> &'static str {
    match voiding {
        Voiding::PasswordChanged | Voiding::PasswordReset => "voided by a new password",
        Voiding::Disowned => "voided by the account's owner",
        Voiding::Moved => "voided by a new address",
    }
}

/// Which kinds of letters are made void; of notices those that were not caused before `notices_since`.
fn voided(voiding: Voiding, notices_since: Option<Timestamp>) -> Document {
    let names =
        |kinds: &[LetterKind]| -> Vec<_> { kinds.iter().map(|kind| kind.as_str()).collect() };
    let Some(since) = notices_since else {
        return doc! { "kind": { "$in": names(voiding.letters()) } };
    };
    let is_notice = |kind: &LetterKind| kind.purpose() == Some(Purpose::NotMe);
    let (notices, others): (Vec<_>, Vec<_>) =
        voiding.letters().iter().copied().partition(is_notice);
    doc! { "$or": [
        { "kind": { "$in": names(&others) } },
        { "kind": { "$in": names(&notices) }, "created_at": { "$gte": time_bson(since) } },
    ] }
}

/// Drops the letters that wait for a user, or for one of its addresses, and would bring secrets that are
/// made void.
pub(super) async fn drop_waiting(
    store: &MongoStore,
    session: &mut ClientSession,
    (user, addresses): (UserId, &[&str]),
    voiding: Voiding,
    notices_since: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Stopped> {
    let mut waiting = voided(voiding, notices_since);
    waiting.insert("state", LetterState::Waiting.as_str());
    let with = |key: &str, value: Bson| {
        let mut branch = waiting.clone();
        branch.insert(key, value);
        branch
    };
    let addresses: Vec<Bson> = addresses.iter().copied().map(Bson::from).collect();
    // Each branch whole, so that each finds its index.
    let theirs = doc! { "$or": [
        with("user_id", user_key(user)),
        with("recipient_canonical", Bson::Document(doc! { "$in": addresses })),
    ] };
    store
        .collection(MAIL_OUTBOX)
        .update_many(theirs, dropped(reason(voiding), now))
        .session(session)
        .await?;
    Ok(())
}

/// The update after which a letter is in this state for good.
fn settled(state: LetterState, error: Option<&str>, now: Timestamp) -> Document {
    doc! { "$set": {
        "state": state.as_str(),
        "settled_at": time_bson(now),
        "leased_until": null,
        "last_error": error,
    } }
}

fn dropped(reason: &str, now: Timestamp) -> Document {
    settled(LetterState::Dropped, Some(reason), now)
}

fn settling(settlement: &Settlement, now: Timestamp) -> Document {
    match settlement {
        Settlement::Sent => settled(LetterState::Sent, None, now),
        Settlement::Dropped { reason } => dropped(reason, now),
        Settlement::Dead { error } => settled(LetterState::Dead, Some(error), now),
        Settlement::Again { at, error } => doc! { "$set": {
            "due_at": time_bson(*at),
            "leased_until": null,
            "last_error": error,
        } },
    }
}

fn due(now: Timestamp) -> Document {
    doc! { "state": LetterState::Waiting.as_str(), "due_at": { "$lte": time_bson(now) } }
}

fn in_flight(now: Timestamp) -> Document {
    doc! {
        "state": LetterState::Waiting.as_str(),
        "leased_until": { "$gt": time_bson(now) },
    }
}

/// Stores a letter, unless there was one of its kind lately.
pub(super) struct AddLetter {
    pub(super) letter: NewLetter,
    pub(super) quiet_since: Timestamp,
    pub(super) by: Occasion,
}

#[async_trait]
impl Transaction for AddLetter {
    type Outcome = bool;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<bool>, Stopped> {
        let letter = &self.letter;
        if let Some(to) = &letter.to {
            let mut lately = doc! {
                "recipient_canonical": to.canonical(),
                "kind": letter.kind.as_str(),
                "created_at": { "$gt": time_bson(self.quiet_since) },
            };
            if let Some(user) = letter.user_id {
                lately.insert("user_id", user_key(user));
                lately.insert("credential_version", letter.credential_version);
            }
            let letters = store.collection(MAIL_OUTBOX);
            let find = letters.find_one(lately).projection(doc! { "_id": 1 });
            if find.session(&mut *session).await?.is_some() {
                return Ok(Step::Commit(false));
            }
        }
        store_letter(store, session, Some(letter)).await?;
        let requested = Event::letter_requested(letter.kind, letter.user_id);
        audit::write(store, session, &self.by, &[requested]).await?;
        Ok(Step::Commit(true))
    }
}

/// Makes a letter due or gives it up, if it is neither settled for good nor being sent.
pub(super) struct ChangeByHand {
    pub(super) id: LetterId,
    /// Given up; otherwise due.
    pub(super) drops: bool,
    pub(super) by: Occasion,
}

impl ChangeByHand {
    /// The states that a letter cannot be changed in.
    const fn settled(&self) -> &[LetterState] {
        if self.drops {
            &[LetterState::Sent]
        } else {
            &[LetterState::Sent, LetterState::Dropped]
        }
    }

    fn update(&self) -> Document {
        if self.drops {
            return dropped(BY_ADMINISTRATOR, self.by.at);
        }
        doc! { "$set": {
            "state": LetterState::Waiting.as_str(),
            "due_at": time_bson(self.by.at),
            "leased_until": null,
            "last_error": null,
            "settled_at": null,
        } }
    }
}

#[async_trait]
impl Transaction for ChangeByHand {
    type Outcome = ChangeLetter;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<ChangeLetter>, Stopped> {
        let states: Vec<_> = self.settled().iter().map(|state| state.as_str()).collect();
        let over = doc! { "state": { "$in": states } };
        let changeable = doc! { "_id": letter_key(self.id), "$nor": [over, in_flight(self.by.at)] };
        let letters = store.collection(MAIL_OUTBOX);
        let changed = letters
            .find_one_and_update(changeable, self.update())
            .return_document(ReturnDocument::After)
            .session(&mut *session)
            .await?;
        if let Some(document) = changed {
            let letter = read_letter(&document)?;
            let kind = if self.drops {
                EventKind::LetterDropped
            } else {
                EventKind::LetterRetried
            };
            let event = Event::letter_changed(kind, self.id, letter.new.user_id);
            audit::write(store, session, &self.by, &[event]).await?;
            return Ok(Step::Commit(ChangeLetter::Changed(Box::new(letter))));
        }
        let found = letters.find_one(doc! { "_id": letter_key(self.id) });
        let found = found.session(session).await?;
        let found = found.map(|document| read_letter(&document)).transpose()?;
        Ok(Step::Commit(match found.map(|letter| letter.state) {
            None => ChangeLetter::Unknown,
            Some(LetterState::Sent) => ChangeLetter::AlreadySent,
            Some(LetterState::Dropped) => ChangeLetter::AlreadyDropped,
            Some(_) => ChangeLetter::InFlight,
        }))
    }
}

impl MongoStore {
    async fn is_any_letter(&self, condition: Document) -> StoreResult<bool> {
        let (letters, limit) = (self.collection(MAIL_OUTBOX), self.operation_timeout);
        let find = async move {
            let find = letters.find_one(condition).projection(doc! { "_id": 1 });
            find.max_time(limit).await
        };
        Ok(self.bounded(find).await?.is_some())
    }

    /// Looks first, so that polling for nothing writes nothing. What is claimed already is handed out
    /// even if the next claim fails: nobody else is given it before the lease ends.
    pub(super) async fn claim(
        &self,
        most: u32,
        lease: Span,
        now: Timestamp,
    ) -> StoreResult<Vec<Letter>> {
        let mut claimed = Vec::new();
        if most == 0 || !self.is_any_letter(due(now)).await? {
            return Ok(claimed);
        }
        for _ in 0..most {
            match self.claim_one(lease, now).await {
                Ok(Some(letter)) => claimed.push(letter),
                Err(error) if claimed.is_empty() => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "a letter cannot be claimed");
                    break;
                }
                Ok(None) => break,
            }
        }
        Ok(claimed)
    }

    async fn claim_one(&self, lease: Span, now: Timestamp) -> StoreResult<Option<Letter>> {
        let until = time_bson(now.plus(lease));
        let claim = doc! {
            "$inc": { "fence": 1_i64, "attempts": 1_i32 },
            "$set": { "due_at": until.clone(), "leased_until": until },
        };
        let (letters, limit) = (self.collection(MAIL_OUTBOX), self.operation_timeout);
        let update = async move {
            letters
                .find_one_and_update(due(now), claim)
                .sort(doc! { "due_at": 1 })
                .return_document(ReturnDocument::After)
                .max_time(limit)
                .await
        };
        let found = self.bounded(update).await?;
        found.map(|document| read_letter(&document)).transpose()
    }

    pub(super) async fn settle(
        &self,
        id: LetterId,
        fence: i64,
        settlement: &Settlement,
        now: Timestamp,
    ) -> StoreResult<bool> {
        let claimed = doc! {
            "_id": letter_key(id),
            "fence": fence,
            "state": LetterState::Waiting.as_str(),
        };
        let (letters, update) = (self.collection(MAIL_OUTBOX), settling(settlement, now));
        let update = async move { letters.update_one(claimed, update).await };
        Ok(self.bounded(update).await?.matched_count > 0)
    }

    pub(super) async fn read_letters(&self, filter: &LetterFilter) -> StoreResult<Vec<Letter>> {
        // To the server a limit of 0 means none.
        if filter.limit == 0 {
            return Ok(Vec::new());
        }
        let mut listed = Document::new();
        if let Some(state) = filter.state {
            listed.insert("state", state.as_str());
        }
        if let Some(before) = filter.before {
            listed.insert("_id", doc! { "$lt": letter_key(before) });
        }
        let (letters, limit) = (self.collection(MAIL_OUTBOX), self.operation_timeout);
        let most = i64::from(filter.limit);
        self.bounded(async move {
            let find = letters.find(listed).sort(doc! { "_id": -1 });
            let mut cursor = find.limit(most).max_time(limit).await?;
            let mut found = Vec::new();
            while cursor.advance().await? {
                found.push(read_letter(cursor.current()));
            }
            Ok(found)
        })
        .await?
        .into_iter()
        .collect()
    }

    pub(super) async fn read_one_letter(&self, id: LetterId) -> StoreResult<Option<Letter>> {
        let found = self
            .read_one(MAIL_OUTBOX, letter_key(id), Document::new())
            .await?;
        found.map(|document| read_letter(&document)).transpose()
    }
}

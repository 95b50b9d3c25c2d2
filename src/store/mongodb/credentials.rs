//! Setting passwords.
//!
//! Both ways, with the current password and with a one-time secret, write the user's document on the
//! condition that it is as expected, and void in the same transaction what would undo it: open secrets of
//! the user and letters that wait to bring more of them. Which secret is good is decided in `secrets`.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, doc},
    options::ReturnDocument,
};

use super::{
    MongoStore,
    audit::Log,
    documents::{USERS, time_bson, user_key},
    outbox::{drop_waiting, store_letter},
    owners::has_address,
    rows::{Row, owned_text, read_ended, read_sessions, time},
    secrets::{Spending, Verdict, judge, spend, void_secrets},
    sessions::{ending, is_open_but, is_open_one, sessions_where, with_closed},
    transaction::{Step, Stopped, Transaction},
};
use crate::{
    clock::Timestamp,
    ids::{SessionId, UserId},
    model::{
        audit::{Event, EventKind, Occasion},
        mail::{NewLetter, Voiding},
        session::CloseReason,
        token::{Proof, Purpose},
        user::{PasswordHash, User},
    },
    store::{Redeem, SetPassword},
};

/// Replaces the password that `credential_version` was read with.
///
/// Of two at once the server lets one go on; the other is repeated and finds another version.
pub(super) struct ReplacePassword {
    pub(super) id: UserId,
    pub(super) hash: PasswordHash,
    pub(super) credential_version: i64,
    pub(super) keep: Option<SessionId>,
    pub(super) letter: Option<NewLetter>,
    pub(super) by: Occasion,
}

/// Spends a one-time secret for setting a password.
///
/// Spending writes the secret's document, so of two at once one is repeated and finds it spent.
pub(super) struct RedeemSecret {
    pub(super) proof: Proof,
    pub(super) hash: PasswordHash,
    pub(super) letter: Option<NewLetter>,
    pub(super) by: Occasion,
}

/// Says whose password a one-time secret would set; writes nothing but that a wrong code was tried.
pub(super) struct JudgeProof {
    pub(super) proof: Proof,
    pub(super) now: Timestamp,
}

/// What setting a password writes.
struct Change<'a> {
    hash: &'a PasswordHash,
    keep: Option<SessionId>,
    /// Whether it was shown on the way that the user's address is theirs.
    verifies: bool,
    /// What it is in the audit trail.
    event: EventKind,
    by: &'a Occasion,
}

/// What setting a password found.
struct Changed {
    closed: u64,
    /// When the user of the kept session last proved who they are.
    authenticated_at: Option<Timestamp>,
    /// The user's address in canonical form.
    address: String,
}

/// Sets the password of the active user that `condition` finds and closes its sessions but the kept one.
/// `None` if there is no such user.
async fn set_password(
    store: &MongoStore,
    session: &mut ClientSession,
    id: UserId,
    condition: Document,
    change: &Change<'_>,
) -> Result<Option<Changed>, Stopped> {
    let mut active = doc! { "_id": user_key(id), "deactivated_at": null };
    active.extend(condition);
    let mut projection = ending(change.keep, CloseReason::PasswordChanged);
    projection.insert("email_canonical", 1);
    if let Some(keep) = change.keep {
        projection.insert("sessions", sessions_where(is_open_one("$$s", keep)));
    }
    let before = store
        .collection(USERS)
        .find_one_and_update(active, setting(change))
        .return_document(ReturnDocument::Before)
        .projection(projection)
        .session(&mut *session)
        .await?;
    let Some(before) = before else {
        return Ok(None);
    };
    let ended = read_ended(&before, id)?;
    let mut log = Log::new(change.by);
    log.add(Event::done(change.event).about(id));
    log.add_ends(id, &ended);
    log.write(store, session).await?;
    let authenticated_at = match change.keep {
        Some(_) => read_sessions(&before, id)?
            .first()
            .map(|(id, kept)| Row::session(kept, *id).required("authenticated_at", time))
            .transpose()?
            .map(|earlier| earlier.max(change.by.at)),
        None => None,
    };
    Ok(Some(Changed {
        closed: ended.len() as u64,
        authenticated_at,
        address: Row::user(&before, id).required("email_canonical", owned_text)?,
    }))
}

/// The update that sets a password.
fn setting(change: &Change<'_>) -> Vec<Document> {
    let (keep, now) = (change.keep, change.by.at);
    let mut fields = doc! {
        "password_hash": { "$literal": change.hash.expose() },
        "credential_version": { "$add": ["$credential_version", 1] },
        "updated_at": { "$max": ["$updated_at", time_bson(now)] },
        "sessions": with_closed(is_open_but(keep), CloseReason::PasswordChanged.as_str(), now),
    };
    if change.verifies {
        let verified_at = doc! { "$ifNull": ["$email_verified_at", time_bson(now)] };
        fields.insert("email_verified_at", verified_at);
        fields.insert("provisional_until", Bson::Null);
    }
    let mut stages = vec![doc! { "$set": fields }];
    if let Some(keep) = keep {
        stages.push(reauthenticated(keep, now));
    }
    stages
}

/// A stage that notes that the user of an open session has just proved who they are.
fn reauthenticated(session: SessionId, now: Timestamp) -> Document {
    let is_kept = is_open_one("$$s", session);
    let later = doc! { "$max": ["$$s.authenticated_at", time_bson(now)] };
    doc! { "$set": { "sessions": { "$map": {
        "input": "$sessions",
        "as": "s",
        "in": { "$cond": [
            is_kept,
            { "$mergeObjects": ["$$s", { "authenticated_at": later }] },
            "$$s",
        ] },
    } } } }
}

impl ReplacePassword {
    /// `None` if the user is not as expected.
    async fn replace(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Option<SetPassword>, Stopped> {
        let expected = doc! { "credential_version": self.credential_version };
        let change = Change {
            hash: &self.hash,
            keep: self.keep,
            verifies: false,
            event: EventKind::PasswordChanged,
            by: &self.by,
        };
        let changed = set_password(store, session, self.id, expected, &change).await?;
        let Some(changed) = changed else {
            return Ok(None);
        };
        let (voiding, now) = (Voiding::PasswordChanged, self.by.at);
        void_secrets(store, session, self.id, voiding.purposes(), None, now).await?;
        let theirs = (self.id, &[changed.address.as_str()][..]);
        drop_waiting(store, session, theirs, voiding, None, now).await?;
        let letter = self.letter.clone().map(|letter| letter.about(self.id));
        store_letter(store, session, letter.as_ref()).await?;
        Ok(Some(SetPassword::Changed {
            closed: changed.closed,
            authenticated_at: changed.authenticated_at,
        }))
    }
}

#[async_trait]
impl Transaction for ReplacePassword {
    type Outcome = SetPassword;

    fn user(&self) -> Option<UserId> {
        Some(self.id)
    }

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<SetPassword>, Stopped> {
        if let Some(changed) = self.replace(store, session).await? {
            return Ok(Step::Commit(changed));
        }
        let found = store
            .collection(USERS)
            .find_one(doc! { "_id": user_key(self.id) })
            .projection(doc! { "deactivated_at": 1 })
            .session(session)
            .await?;
        let Some(user) = found else {
            return Ok(Step::Abort(SetPassword::Gone));
        };
        let deactivated = Row::user(&user, self.id).optional("deactivated_at", time)?;
        Ok(Step::Abort(if deactivated.is_some() {
            SetPassword::NotActive
        } else {
            SetPassword::CredentialsChanged
        }))
    }
}

impl JudgeProof {
    fn spending(proof: &Proof, now: Timestamp) -> Spending<'_> {
        Spending {
            proof,
            by_link: &[Purpose::SetPassword, Purpose::ResetPassword],
            by_code: Some(Purpose::ResetPassword),
            now,
        }
    }
}

#[async_trait]
impl Transaction for JudgeProof {
    type Outcome = Option<User>;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<Option<User>>, Stopped> {
        let spending = Self::spending(&self.proof, self.now);
        match judge(store, session, &spending).await? {
            Verdict::Good((_, owner)) => Ok(Step::Abort(Some(owner.user))),
            refused => Ok(refused.refusal(None)),
        }
    }
}

#[async_trait]
impl Transaction for RedeemSecret {
    type Outcome = Redeem;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<Redeem>, Stopped> {
        let now = self.by.at;
        let spending = JudgeProof::spending(&self.proof, now);
        let spent = match spend(store, session, &spending).await? {
            Verdict::Good(spent) => spent,
            refused => return Ok(refused.refusal(Redeem::Refused)),
        };
        let had_password = spent.owner.password_hash.is_some();
        let owner = spent.owner.user;
        let mailed_to = spent.address.as_ref();
        let change = Change {
            hash: &self.hash,
            keep: None,
            verifies: mailed_to.is_some_and(|address| has_address(&owner, address)),
            event: EventKind::PasswordReset,
            by: &self.by,
        };
        let changed = set_password(store, session, owner.id, Document::new(), &change).await?;
        if changed.is_none() {
            return Ok(Step::Abort(Redeem::Refused));
        }
        let voiding = Voiding::PasswordReset;
        void_secrets(store, session, owner.id, voiding.purposes(), None, now).await?;
        let theirs = (owner.id, &[owner.email.canonical()][..]);
        drop_waiting(store, session, theirs, voiding, None, now).await?;
        // A first password is no news.
        let letter = self.letter.clone().filter(|_| had_password);
        let letter = letter.map(|letter| letter.about(owner.id).to(&owner.email));
        store_letter(store, session, letter.as_ref()).await?;
        Ok(Step::Commit(Redeem::Redeemed(owner.id)))
    }
}

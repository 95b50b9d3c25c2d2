//! Preparing a letter to be sent.
//!
//! Decides whom a claimed letter is for by now, whether what it is about is over, and stores the secret
//! that goes into it. Everything that voids secrets writes the user's document, and so does this: of two
//! at once one is repeated and sees what the other did.

use async_trait::async_trait;
use mongodb::{ClientSession, bson::doc};

use super::{
    MongoStore,
    outbox::{MAIL_OUTBOX, letter_key, read_letter},
    owners::{has_address, user_by_address, user_by_id},
    registrations::{Registration, newest_waiting, waiting_with_id},
    secrets::{Mailed, Over, void_older_changes},
    transaction::{Step, Stopped, Transaction},
};
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    model::{
        mail::{Letter, LetterKind, LetterState, NewLetter},
        user::{User, UserCredentials},
    },
    store::{PrepareLetter, Prepared, ReadyLetter},
};

const DEACTIVATED: Over = Over("the account is deactivated");
const NOBODY: Over = Over("nobody has the address");

/// Looks up whom a letter is for and stores its secret.
pub(super) struct Prepare {
    pub(super) letter: PrepareLetter,
    pub(super) now: Timestamp,
}

/// Whom a letter is for.
enum Addressee {
    /// An account.
    User(Box<User>),
    /// A registration that waits.
    Registration(Box<Registration>),
}

/// What a letter is about by now, to where and whom.
struct Found {
    kind: LetterKind,
    to: EmailAddress,
    addressee: Addressee,
}

/// What was found, or why there is nothing to send.
type Lookup = Result<Result<Found, Over>, Stopped>;

impl Found {
    fn user(kind: LetterKind, to: EmailAddress, user: User) -> Self {
        let addressee = Addressee::User(Box::new(user));
        Self {
            kind,
            to,
            addressee,
        }
    }

    fn registration(to: EmailAddress, registration: Registration) -> Self {
        Self {
            kind: LetterKind::ConfirmRegistration,
            to,
            addressee: Addressee::Registration(Box::new(registration)),
        }
    }

    fn ready(self, has_code: bool) -> Prepared {
        Prepared::Ready(Box::new(ReadyLetter {
            kind: self.kind,
            to: self.to,
            user: match self.addressee {
                Addressee::User(user) => Some(*user),
                Addressee::Registration(_) => None,
            },
            has_code,
        }))
    }
}

/// The letter that tells the owner of an address that somebody asked for an account with it.
fn taken(owner: UserCredentials, to: &EmailAddress) -> Result<Found, Over> {
    if owner.user.is_active() {
        let kind = LetterKind::AddressTaken;
        Ok(Found::user(kind, to.clone(), owner.user))
    } else {
        Err(DEACTIVATED)
    }
}

impl Prepare {
    async fn claimed(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Option<Letter>, Stopped> {
        let letters = store.collection(MAIL_OUTBOX);
        let key = doc! { "_id": letter_key(self.letter.id) };
        let Some(document) = letters.find_one(key).session(session).await? else {
            return Ok(None);
        };
        let letter = read_letter(&document)?;
        let is_ours = letter.state == LetterState::Waiting && letter.fence == self.letter.fence;
        Ok(Some(letter).filter(|_| is_ours))
    }

    async fn look_up(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        new: &NewLetter,
    ) -> Lookup {
        match new.kind {
            LetterKind::VerifyEmail | LetterKind::ResetPassword => {
                self.owner(store, session, new).await
            }
            LetterKind::ConfirmRegistration | LetterKind::AddressTaken => {
                self.registration(store, session, new).await
            }
            LetterKind::ConfirmNewEmail => self.changing(store, session, new).await,
            LetterKind::Invitation => invited(store, session, new).await,
            LetterKind::EmailChanged
            | LetterKind::PasswordChanged
            | LetterKind::RefreshReused
            | LetterKind::NewDevice => notified(store, session, new).await,
        }
    }

    /// For the owner of the address, or for a registration that waits for it.
    async fn owner(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        new: &NewLetter,
    ) -> Lookup {
        let verifies = new.kind == LetterKind::VerifyEmail;
        let owner = match (new.user_id, &new.to) {
            (Some(_), _) => named(store, session, new).await?,
            (None, Some(to)) => user_by_address(store, session, to).await?,
            (None, None) => None,
        };
        let (Some(owner), to) = (owner, &new.to) else {
            let (true, None, Some(to)) = (verifies, new.user_id, &new.to) else {
                return Ok(Err(NOBODY));
            };
            let waiting = newest_waiting(store, session, to, self.now).await?;
            let found = waiting.map(|one| Found::registration(to.clone(), one));
            return Ok(found.ok_or(NOBODY));
        };
        if !owner.user.is_active() {
            return Ok(Err(DEACTIVATED));
        }
        if verifies && owner.user.email_verified_at.is_some() {
            return Ok(Err(Over("the address is verified already")));
        }
        let to = to.clone().unwrap_or_else(|| owner.user.email.clone());
        Ok(Ok(Found::user(new.kind, to, owner.user)))
    }

    async fn registration(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        new: &NewLetter,
    ) -> Lookup {
        const GONE: Over = Over("the registration is over");
        let Some(to) = &new.to else {
            return Ok(Err(GONE));
        };
        if let Some(owner) = user_by_address(store, session, to).await? {
            // An account that is younger than the letter is the one that it was for.
            return Ok(if owner.user.created_at >= new.created_at {
                Err(GONE)
            } else {
                taken(owner, to)
            });
        }
        let Some(id) = new.registration_id else {
            return Ok(Err(GONE));
        };
        let waiting = waiting_with_id(store, session, id, to, self.now).await?;
        let found = waiting.map(|one| Found::registration(to.clone(), one));
        Ok(found.ok_or(GONE))
    }

    async fn changing(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        new: &NewLetter,
    ) -> Lookup {
        const GIVEN_UP: Over = Over("the change was given up");
        let (Some(id), Some(to)) = (new.user_id, &new.to) else {
            return Ok(Err(GIVEN_UP));
        };
        let Some(found) = user_by_id(store, session, id).await? else {
            return Ok(Err(GIVEN_UP));
        };
        let is_current = new.credential_version == Some(found.credential_version);
        if !found.user.is_active() || !is_current {
            return Ok(Err(GIVEN_UP));
        }
        match user_by_address(store, session, to).await? {
            Some(owner) if owner.user.id != id => {
                void_older_changes(store, session, id, new, self.now).await?;
                return Ok(taken(owner, to));
            }
            Some(owner) if owner.user.email_verified_at.is_some() && owner.user.email == *to => {
                return Ok(Err(Over("the account has the address already")));
            }
            _ => {}
        }
        Ok(Ok(Found::user(new.kind, to.clone(), found.user)))
    }

    /// Stores the secret of a letter that has one and says whether it has a code.
    async fn store_secret(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        found: &Found,
        new: &NewLetter,
    ) -> Result<Result<bool, Over>, Stopped> {
        let user = match &found.addressee {
            Addressee::User(user) => user,
            Addressee::Registration(registration) => {
                let (letter, now) = (&self.letter, self.now);
                let has_code = registration.store_secret(store, session, letter, now);
                return has_code.await.map(Ok);
            }
        };
        // Neither a letter that only tells holds one, nor one that has become another kind.
        let Some(purpose) = new.purpose().and(found.kind.purpose()) else {
            return Ok(Ok(false));
        };
        let secret = Mailed {
            letter: &self.letter,
            user: user.id,
            purpose,
            to: &found.to,
            created_at: new.created_at,
            now: self.now,
        };
        secret.store(store, session).await
    }
}

/// The user that the letter names, unless it goes to an address that is not theirs.
async fn named(
    store: &MongoStore,
    session: &mut ClientSession,
    new: &NewLetter,
) -> Result<Option<UserCredentials>, Stopped> {
    let Some(id) = new.user_id else {
        return Ok(None);
    };
    let found = user_by_id(store, session, id).await?;
    let is_theirs = |user: &User| new.to.as_ref().is_none_or(|to| has_address(user, to));
    Ok(found.filter(|found| is_theirs(&found.user)))
}

async fn invited(store: &MongoStore, session: &mut ClientSession, new: &NewLetter) -> Lookup {
    let found = named(store, session, new).await?;
    let is_open = |found: &UserCredentials| found.user.is_active() && found.password_hash.is_none();
    let Some(found) = found.filter(is_open) else {
        return Ok(Err(Over("the invitation is over")));
    };
    let to = new.to.clone().unwrap_or_else(|| found.user.email.clone());
    Ok(Ok(Found::user(new.kind, to, found.user)))
}

/// A notice also goes to an address that is its user's no more.
async fn notified(store: &MongoStore, session: &mut ClientSession, new: &NewLetter) -> Lookup {
    let found = match new.user_id {
        Some(id) => user_by_id(store, session, id).await?,
        None => None,
    };
    let Some(user) = found.map(|found| found.user) else {
        return Ok(Err(Over("there is no such account")));
    };
    if !user.is_active() {
        return Ok(Err(DEACTIVATED));
    }
    let to = new.to.clone().unwrap_or_else(|| user.email.clone());
    Ok(Ok(Found::user(new.kind, to, user)))
}

#[async_trait]
impl Transaction for Prepare {
    type Outcome = Prepared;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<Prepared>, Stopped> {
        let Some(letter) = self.claimed(store, session).await? else {
            return Ok(Step::Abort(Prepared::Lost));
        };
        let found = match self.look_up(store, session, &letter.new).await? {
            Ok(found) => found,
            // What was voided on the way stays so.
            Err(Over(reason)) => return Ok(Step::Commit(Prepared::Obsolete(reason))),
        };
        let stored = self.store_secret(store, session, &found, &letter.new);
        Ok(match stored.await? {
            Ok(has_code) => Step::Commit(found.ready(has_code)),
            Err(Over(reason)) => Step::Abort(Prepared::Obsolete(reason)),
        })
    }
}

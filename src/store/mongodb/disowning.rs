//! Taking an account back from whoever changed it.
//!
//! The reader of a notice says that it was somebody else: what that somebody could hold (sessions, the
//! password, open secrets, the address) is taken away in one transaction, and a letter for setting a new
//! password goes to the address that the notice went to. Links of older notices stay good: the notice may
//! itself be of somebody else's doing.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, doc},
    options::ReturnDocument,
};

use super::{
    MongoStore,
    audit::Log,
    documents::{USERS, email_key, time_bson, user_key},
    outbox::{drop_waiting, store_letter},
    owners::{Renaming, has_address, is_free, rename, still_there},
    rows::read_ended,
    secrets::{Spending, Verdict, spend, void_secrets},
    sessions::{ending, is_open_but, with_closed},
    transaction::{Step, Stopped, Transaction},
};
use crate::{
    email::EmailAddress,
    ids::UserId,
    model::{
        audit::{Event, EventKind, Occasion},
        mail::{NewLetter, Voiding},
        session::CloseReason,
        token::{Proof, Purpose, SecretHash},
        user::User,
    },
    store::StoreError,
};

/// Spends the link of a notice.
pub(super) struct Disown {
    pub(super) proof: Proof,
    pub(super) reset: Option<NewLetter>,
    pub(super) notice: Option<NewLetter>,
    pub(super) by: Occasion,
}

/// What becomes of the address that the notice went to.
enum WayBack {
    /// It is the user's.
    Unneeded,
    /// It is the user's again.
    Restored(EmailAddress),
    /// It is another user's by now.
    Taken,
}

impl WayBack {
    const fn restored(&self) -> Option<&EmailAddress> {
        match self {
            Self::Restored(address) => Some(address),
            Self::Unneeded | Self::Taken => None,
        }
    }
}

impl Disown {
    pub(super) fn new(
        link: &SecretHash,
        reset: Option<&NewLetter>,
        notice: Option<&NewLetter>,
        by: &Occasion,
    ) -> Self {
        Self {
            proof: Proof::Link(*link),
            reset: reset.cloned(),
            notice: notice.cloned(),
            by: by.clone(),
        }
    }

    /// Gives the user the address back that the notice went to, if it is another one and nobody else has it.
    async fn take_back(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        user: &User,
        address: Option<EmailAddress>,
    ) -> Result<WayBack, Stopped> {
        let Some(address) = address.filter(|address| !has_address(user, address)) else {
            return Ok(WayBack::Unneeded);
        };
        if !is_free(store, session, user.id, &address, self.by.at).await? {
            return Ok(WayBack::Taken);
        }
        let renaming = Renaming {
            user: user.id,
            old: Some(email_key(&user.email)),
            new: Some(email_key(&address)),
            kept_until: None,
            now: self.by.at,
        };
        if rename(store, session, &renaming).await? {
            Ok(WayBack::Restored(address))
        } else {
            // It is free in this snapshot, so only somebody who takes it right now can be in the way.
            let what = "the address was taken at the same time";
            Err(StoreError::Unavailable(what.into()).into())
        }
    }

    /// Stores the letters; none where an administrator has to decide.
    async fn tell(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        user: &User,
        way_back: &WayBack,
    ) -> Result<(), Stopped> {
        let (reset_to, notice_to) = match way_back {
            WayBack::Restored(address) => (address, Some(&user.email)),
            WayBack::Unneeded => (&user.email, None),
            WayBack::Taken => return Ok(()),
        };
        let letters = [(&self.reset, Some(reset_to)), (&self.notice, notice_to)];
        for (letter, to) in letters {
            if let (Some(letter), Some(to)) = (letter, to) {
                let letter = letter.clone().about(user.id).to(to);
                store_letter(store, session, Some(&letter)).await?;
            }
        }
        Ok(())
    }

    fn update(&self, restored: Option<&EmailAddress>) -> Vec<Document> {
        let mut fields = doc! {
            "password_hash": null,
            "credential_version": { "$add": ["$credential_version", 1] },
            "updated_at": { "$max": ["$updated_at", time_bson(self.by.at)] },
            "sessions": with_closed(is_open_but(None), CloseReason::Revoked.as_str(), self.by.at),
        };
        if let Some(address) = restored {
            fields.insert("email", doc! { "$literal": address.as_str() });
            fields.insert("email_canonical", doc! { "$literal": address.canonical() });
            fields.insert("email_verified_at", time_bson(self.by.at));
            fields.insert("provisional_until", Bson::Null);
        }
        vec![doc! { "$set": fields }]
    }
}

#[async_trait]
impl Transaction for Disown {
    type Outcome = Option<UserId>;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<Option<UserId>>, Stopped> {
        let spending = Spending {
            proof: &self.proof,
            by_link: &[Purpose::NotMe],
            by_code: None,
            now: self.by.at,
        };
        let spent = match spend(store, session, &spending).await? {
            Verdict::Good(spent) => spent,
            refused => return Ok(refused.refusal(None)),
        };
        let user = spent.owner.user;
        let way_back = self.take_back(store, session, &user, spent.address);
        let way_back = way_back.await?;
        let restored = way_back.restored();
        let before = store
            .collection(USERS)
            .find_one_and_update(doc! { "_id": user_key(user.id) }, self.update(restored))
            .return_document(ReturnDocument::Before)
            .projection(ending(None, CloseReason::Revoked))
            .session(&mut *session)
            .await?;
        let before = still_there(before, user.id)?;
        let mut log = Log::new(&self.by);
        log.add(Event::done(EventKind::AccountReclaimed).about(user.id));
        log.add_ends(user.id, &read_ended(&before, user.id)?);
        log.write(store, session).await?;
        let (voiding, since) = (Voiding::Disowned, Some(spent.created_at));
        let purposes = voiding.purposes();
        void_secrets(store, session, user.id, purposes, since, self.by.at).await?;
        let address = restored.unwrap_or(&user.email);
        let addresses = [user.email.canonical(), address.canonical()];
        let theirs = (user.id, &addresses[..]);
        drop_waiting(store, session, theirs, voiding, since, self.by.at).await?;
        self.tell(store, session, &user, &way_back).await?;
        Ok(Step::Commit(Some(user.id)))
    }
}

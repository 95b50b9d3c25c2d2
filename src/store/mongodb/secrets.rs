//! One-time secrets: storing, spending and voiding them inside a transaction.
//!
//! Decides which secret a proof shows and whether it is good, counts wrong codes, and keeps at most one
//! open secret of a user for each purpose. What a spent secret brings about is decided by whoever spends
//! it.

use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawDocument, doc},
};
use uuid::Uuid;

use super::{
    MongoStore,
    codes::Code,
    documents::{ONE_TIME_SECRETS, hash_bson, id_bson, time_bson, user_key},
    owners::{has_address, hold_user, insert, user_by_address, user_by_id},
    rows::{Row, email, hash, id, text, time},
    transaction::{Step, Stopped},
};
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::UserId,
    model::{
        mail::NewLetter,
        token::{CodeOwner, Proof, Purpose},
        user::UserCredentials,
    },
    store::{PrepareLetter, StoreResult},
};

/// What a proof turned out to be.
pub(super) enum Verdict<T> {
    /// Good.
    Good(T),
    /// A wrong code, which was counted.
    Counted,
    /// No good; nothing was written.
    Refused,
}

impl<T> Verdict<T> {
    /// How a transaction ends whose proof was not good: what was counted stays.
    pub(super) fn refusal<O>(&self, outcome: O) -> Step<O> {
        match self {
            Self::Counted => Step::Commit(outcome),
            Self::Good(_) | Self::Refused => Step::Abort(outcome),
        }
    }
}

/// Which secrets can be spent.
pub(super) struct Spending<'a> {
    pub(super) proof: &'a Proof,
    /// What a link's secret may be good for.
    pub(super) by_link: &'a [Purpose],
    /// What a code's secret is good for, if there are codes for it.
    pub(super) by_code: Option<Purpose>,
    pub(super) now: Timestamp,
}

/// A secret that was spent.
pub(super) struct Spent {
    /// The address it was mailed to.
    pub(super) address: Option<EmailAddress>,
    /// When its letter was caused.
    pub(super) created_at: Timestamp,
    /// Whose it was, as they were before.
    pub(super) owner: UserCredentials,
}

/// A secret as stored.
pub(super) struct Secret {
    key: Bson,
    id: Uuid,
    created_at: Timestamp,
    user_id: UserId,
    purpose: String,
    address: Option<EmailAddress>,
    expires_at: Timestamp,
    is_open: bool,
    code: Code,
}

impl Secret {
    fn read(document: &RawDocument) -> StoreResult<Self> {
        // Errors name the secret's id, never its hash.
        let unnamed = Row::of(ONE_TIME_SECRETS, document, Uuid::nil());
        let id_of_row = unnamed.required("id", id)?;
        let row = Row::of(ONE_TIME_SECRETS, document, id_of_row);
        Ok(Self {
            id: id_of_row,
            created_at: row.required("created_at", time)?,
            key: hash_bson(&row.required("_id", hash)?),
            user_id: row.required("user_id", id)?.into(),
            purpose: row.required("purpose", text)?.to_owned(),
            address: row.optional("address", email)?,
            expires_at: row.required("expires_at", time)?,
            is_open: row.optional("used_at", time)?.is_none(),
            code: Code::read(&row)?,
        })
    }

    fn is(&self, purpose: Purpose) -> bool {
        self.purpose == purpose.as_str()
    }

    fn is_good_for(&self, purposes: &[Purpose], now: Timestamp) -> bool {
        self.is_open && self.expires_at > now && purposes.iter().any(|one| self.is(*one))
    }

    /// What was mailed to show whose an address is, shows nothing of another one.
    fn fits(&self, owner: &UserCredentials) -> bool {
        let purpose = Purpose::parse(&self.purpose);
        match &self.address {
            Some(address) if purpose.is_some_and(Purpose::is_for_own_address) => {
                has_address(&owner.user, address)
            }
            Some(_) => true,
            None => self.is(Purpose::SetPassword),
        }
    }
}

async fn find_secret(
    store: &MongoStore,
    session: &mut ClientSession,
    condition: Document,
) -> Result<Option<Secret>, Stopped> {
    let found = store
        .collection(ONE_TIME_SECRETS)
        .find_one(condition)
        .sort(doc! { "created_at": -1, "id": -1 })
        .session(session)
        .await?;
    let found = found.map(|document| Secret::read(&document));
    found.transpose().map_err(Stopped::from)
}

/// Spends the secret that a proof shows, whose user is active.
pub(super) async fn spend(
    store: &MongoStore,
    session: &mut ClientSession,
    spending: &Spending<'_>,
) -> Result<Verdict<Spent>, Stopped> {
    let (secret, owner) = match judge(store, session, spending).await? {
        Verdict::Good(good) => good,
        Verdict::Counted => return Ok(Verdict::Counted),
        Verdict::Refused => return Ok(Verdict::Refused),
    };
    let spent = doc! { "$set": {
        "used_at": time_bson(spending.now), "tries": 0_i32, "tries_since": null,
    } };
    store
        .collection(ONE_TIME_SECRETS)
        .update_one(doc! { "_id": secret.key }, spent)
        .session(session)
        .await?;
    Ok(Verdict::Good(Spent {
        address: secret.address,
        created_at: secret.created_at,
        owner,
    }))
}

/// Whether the secret that a proof shows could be spent, and whose it is; that user is active.
pub(super) async fn judge(
    store: &MongoStore,
    session: &mut ClientSession,
    spending: &Spending<'_>,
) -> Result<Verdict<(Secret, UserCredentials)>, Stopped> {
    let judged = match spending.proof {
        Proof::Link(_) => judge_link(store, session, spending).await?,
        Proof::Code { owner, .. } => judge_code(store, session, spending, owner).await?,
    };
    Ok(match judged {
        Verdict::Good((secret, owner)) if !secret.fits(&owner) => Verdict::Refused,
        judged => judged,
    })
}

async fn judge_link(
    store: &MongoStore,
    session: &mut ClientSession,
    spending: &Spending<'_>,
) -> Result<Verdict<(Secret, UserCredentials)>, Stopped> {
    let Proof::Link(link) = spending.proof else {
        return Ok(Verdict::Refused);
    };
    let key = doc! { "_id": hash_bson(link) };
    let found = find_secret(store, session, key).await?;
    let Some(secret) = found.filter(|one| one.is_good_for(spending.by_link, spending.now)) else {
        return Ok(Verdict::Refused);
    };
    let owner = user_by_id(store, session, secret.user_id).await?;
    Ok(match owner.filter(|owner| owner.user.is_active()) {
        Some(owner) => Verdict::Good((secret, owner)),
        None => Verdict::Refused,
    })
}

/// Only the newest secret has a code, so a wrong one is counted there.
async fn judge_code(
    store: &MongoStore,
    session: &mut ClientSession,
    spending: &Spending<'_>,
    owner: &CodeOwner,
) -> Result<Verdict<(Secret, UserCredentials)>, Stopped> {
    let owner = match owner {
        CodeOwner::Address(address) => user_by_address(store, session, address).await?,
        CodeOwner::User(id) => user_by_id(store, session, *id).await?,
    };
    let owner = owner.filter(|owner| owner.user.is_active());
    let (Some(owner), Some(purpose)) = (owner, spending.by_code) else {
        return Ok(Verdict::Refused);
    };
    let newest = doc! { "user_id": user_key(owner.user.id), "purpose": purpose.as_str() };
    let Some(secret) = find_secret(store, session, newest).await? else {
        return Ok(Verdict::Refused);
    };
    let now = spending.now;
    if secret.is_good_for(&[purpose], now) && secret.code.accepts(spending.proof, now) {
        return Ok(Verdict::Good((secret, owner)));
    }
    if !secret.is_open || !secret.code.may_be_tried() {
        return Ok(Verdict::Refused);
    }
    store
        .collection(ONE_TIME_SECRETS)
        .update_one(doc! { "_id": secret.key }, secret.code.one_try_more(now))
        .session(session)
        .await?;
    Ok(Verdict::Counted)
}

/// Voids the open secrets of a user for some purposes; of those in notices the ones that were not caused
/// before `notices_since`.
pub(super) async fn void_secrets(
    store: &MongoStore,
    session: &mut ClientSession,
    user: UserId,
    purposes: &[Purpose],
    notices_since: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Stopped> {
    let purposes: Vec<_> = purposes.iter().map(|purpose| purpose.as_str()).collect();
    let mut open = doc! {
        "user_id": user_key(user),
        "used_at": null,
        "purpose": { "$in": purposes },
    };
    if let Some(since) = notices_since {
        let late = doc! { "created_at": { "$gte": time_bson(since) } };
        let other = doc! { "purpose": { "$ne": Purpose::NotMe.as_str() } };
        open.insert("$or", vec![other, late]);
    }
    void(store, session, open, now).await
}

/// Voids a user's open secrets for another address that are older than a letter, as storing the secret of
/// that letter would: whether somebody has the address must not show in what becomes of them.
pub(super) async fn void_older_changes(
    store: &MongoStore,
    session: &mut ClientSession,
    user: UserId,
    letter: &NewLetter,
    now: Timestamp,
) -> Result<(), Stopped> {
    let created_at = time_bson(letter.created_at);
    let older = doc! {
        "user_id": user_key(user),
        "used_at": null,
        "purpose": Purpose::ChangeEmail.as_str(),
        "$or": [
            { "created_at": { "$lt": created_at.clone() } },
            { "created_at": created_at, "id": { "$lt": id_bson(letter.id.as_uuid()) } },
        ],
    };
    void(store, session, older, now).await?;
    hold_user(store, session, user).await
}

async fn void(
    store: &MongoStore,
    session: &mut ClientSession,
    open: Document,
    now: Timestamp,
) -> Result<(), Stopped> {
    store
        .collection(ONE_TIME_SECRETS)
        .update_many(open, doc! { "$set": { "used_at": time_bson(now) } })
        .session(session)
        .await?;
    Ok(())
}

/// The secret that goes into a letter.
pub(super) struct Mailed<'a> {
    /// The letter's id is the secret's.
    pub(super) letter: &'a PrepareLetter,
    pub(super) user: UserId,
    pub(super) purpose: Purpose,
    pub(super) to: &'a EmailAddress,
    /// When the letter was caused: of two letters the later one's secret stays.
    pub(super) created_at: Timestamp,
    pub(super) now: Timestamp,
}

/// Why a letter's secret is not stored.
pub(super) struct Over(pub(super) &'static str);

impl Mailed<'_> {
    /// Stores the secret in place of those in earlier letters and says whether it has a code.
    pub(super) async fn store(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Result<bool, Over>, Stopped> {
        let own = id_bson(self.letter.id.as_uuid());
        let before = find_secret(store, session, doc! { "id": &own }).await?;
        if before.as_ref().is_some_and(|before| !before.is_open) {
            return Ok(Err(Over("its secret was used or voided")));
        }
        let mut code = Code::default();
        // Each notice goes to its reader for good: a later one takes nothing away.
        if self.purpose != Purpose::NotMe {
            if let Some(newest) = find_secret(store, session, self.all()).await? {
                // One that is over takes nobody's place: of two nodes' letters the later may be dated
                // earlier.
                if newest.is_open && self.is_older_than(&newest) {
                    return Ok(Err(Over("a newer letter has taken its place")));
                }
                code = newest.code.inherited(self.now);
            }
            let mut open = self.all();
            open.insert("used_at", Bson::Null);
            void(store, session, open, self.now).await?;
        }
        let given = self.letter.code.filter(|_| self.purpose.has_code());
        let code = code.renewed(given, self.now);
        if let Some(before) = before {
            let secrets = store.collection(ONE_TIME_SECRETS);
            let replaced = secrets.delete_one(doc! { "_id": before.key });
            replaced.session(&mut *session).await?;
        }
        let document = self.document(&code);
        insert(store, session, ONE_TIME_SECRETS, &document).await?;
        hold_user(store, session, self.user).await?;
        Ok(Ok(code.exists()))
    }

    /// The secrets of the same user for the same purpose.
    fn all(&self) -> Document {
        doc! { "user_id": user_key(self.user), "purpose": self.purpose.as_str() }
    }

    fn is_older_than(&self, secret: &Secret) -> bool {
        let own = (self.created_at, self.letter.id.as_uuid());
        own < (secret.created_at, secret.id)
    }

    fn document(&self, code: &Code) -> Document {
        let expires_at = self.purpose.link_expires_at(self.created_at, self.now);
        let mut document = doc! {
            "_id": hash_bson(&self.letter.link),
            "id": id_bson(self.letter.id.as_uuid()),
            "user_id": user_key(self.user),
            "purpose": self.purpose.as_str(),
            "address": self.to.as_str(),
            "created_at": time_bson(self.created_at),
            "expires_at": time_bson(expires_at),
            "used_at": null,
        };
        document.extend(code.fields());
        document
    }
}

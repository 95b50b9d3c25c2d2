//! Registrations that wait for their address: the collection `pending_registrations`.
//!
//! Decides what one looks like and how it becomes an account. Its secret stands in its own document, since
//! it has no user yet; what is written there decides between preparing a letter, counting a wrong code
//! and confirming, which all write it.

use async_trait::async_trait;
use mongodb::{
    ClientSession,
    bson::{Bson, Document, RawDocument, doc},
};

use super::{
    MongoStore, audit,
    codes::{Code, is_remembered},
    documents::{attributes_bson, hash_bson, id_bson, time_bson},
    outbox::store_letter,
    owners::insert,
    rows::{Row, email, id, json_object, text, time},
    secrets::Verdict,
    transaction::{Step, Stopped, Transaction},
    users::CreateUserWithNames,
};
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    ids::{RegistrationId, UserId},
    model::{
        account::{NewRegistration, WaitingRegistration},
        audit::{Event, EventKind, Occasion},
        mail::NewLetter,
        token::{CodeOwner, Proof, Purpose},
        user::{Attributes, NewUser, PasswordHash, Roles, SessionLimitOverride, User, UserStatus},
    },
    secret::SecretString,
    store::{ConfirmRegistration, CreateUser, PrepareLetter, StoreResult},
    username::Username,
};

/// One document per registration that waits.
pub(super) const PENDING_REGISTRATIONS: &str = "pending_registrations";

/// Writes a registration and its letter.
pub(super) struct AddRegistration {
    pub(super) registration: NewRegistration,
    pub(super) letter: NewLetter,
    pub(super) by: Occasion,
}

#[async_trait]
impl Transaction for AddRegistration {
    type Outcome = ();

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<()>, Stopped> {
        let document = registration_document(&self.registration);
        insert(store, session, PENDING_REGISTRATIONS, &document).await?;
        store_letter(store, session, Some(&self.letter)).await?;
        let requested = Event::done(EventKind::RegistrationRequested);
        audit::write(store, session, &self.by, &[requested]).await?;
        Ok(Step::Commit(()))
    }
}

fn registration_document(new: &NewRegistration) -> Document {
    let username = new.username.as_ref();
    let mut document = doc! {
        "_id": key(new.id),
        "email": new.email.as_str(),
        "email_canonical": new.email.canonical(),
        "username": username.map(Username::as_str),
        "attributes": attributes_bson(&new.attributes),
        "password_hash": new.password_hash.expose(),
        "created_at": time_bson(new.created_at),
        "expires_at": time_bson(new.expires_at),
        "link_hash": null,
        "link_expires_at": null,
    };
    document.extend(Code::default().fields());
    document
}

fn key(id: RegistrationId) -> Bson {
    id_bson(id.as_uuid())
}

/// A registration as stored.
pub(super) struct Registration {
    pub(super) id: RegistrationId,
    email: EmailAddress,
    username: Option<Username>,
    attributes: Attributes,
    password_hash: PasswordHash,
    expires_at: Timestamp,
    code: Code,
}

impl Registration {
    fn read(document: &RawDocument) -> StoreResult<Self> {
        let unnamed = Row::of(PENDING_REGISTRATIONS, document, uuid::Uuid::nil());
        let id = unnamed.required("_id", id)?;
        let row = Row::of(PENDING_REGISTRATIONS, document, id);
        Ok(Self {
            id: id.into(),
            email: row.required("email", email)?,
            username: row.optional("username", |v| Username::parse(text(v)?).ok())?,
            attributes: Attributes::stored(
                row.required("attributes", |v| json_object(v.as_document()?))?,
            ),
            password_hash: row.required("password_hash", |v| text(v).map(SecretString::from))?,
            expires_at: row.required("expires_at", time)?,
            code: Code::read(&row)?,
        })
    }

    /// The account that it becomes.
    fn account(&self, id: UserId, now: Timestamp) -> NewUser {
        NewUser {
            user: User {
                id,
                email: self.email.clone(),
                email_verified_at: Some(now),
                username: self.username.clone(),
                attributes: self.attributes.clone(),
                roles: Roles::default(),
                status: UserStatus::Active,
                session_limit: SessionLimitOverride::default(),
                created_at: now,
                updated_at: now,
            },
            password_hash: Some(self.password_hash.clone()),
            provisional_until: None,
        }
    }
}

/// Registrations for an address that were not given up yet.
fn waiting_for(address: &EmailAddress, now: Timestamp) -> Document {
    doc! {
        "email_canonical": address.canonical(),
        "expires_at": { "$gt": time_bson(now) },
    }
}

/// Where a proof's registration is found; a code never belongs to a user who has none.
fn shown_by(proof: &Proof, now: Timestamp) -> Option<Document> {
    match proof {
        Proof::Link(link) => Some(doc! {
            "link_hash": hash_bson(link),
            "link_expires_at": { "$gt": time_bson(now) },
            "expires_at": { "$gt": time_bson(now) },
        }),
        Proof::Code { owner, .. } => match owner {
            CodeOwner::Address(address) => Some(waiting_for(address, now)),
            CodeOwner::User(_) => None,
        },
    }
}

fn newest_first() -> Document {
    doc! { "created_at": -1, "_id": -1 }
}

async fn find_registration(
    store: &MongoStore,
    session: &mut ClientSession,
    condition: Document,
) -> Result<Option<Registration>, Stopped> {
    let found = store
        .collection(PENDING_REGISTRATIONS)
        .find_one(condition)
        .sort(newest_first())
        .session(session)
        .await?;
    let found = found.map(|document| Registration::read(&document));
    found.transpose().map_err(Stopped::from)
}

/// The registration with this id, if it still waits for this address.
pub(super) async fn waiting_with_id(
    store: &MongoStore,
    session: &mut ClientSession,
    id: RegistrationId,
    address: &EmailAddress,
    now: Timestamp,
) -> Result<Option<Registration>, Stopped> {
    let mut condition = waiting_for(address, now);
    condition.insert("_id", key(id));
    find_registration(store, session, condition).await
}

/// The newest registration that waits for this address.
pub(super) async fn newest_waiting(
    store: &MongoStore,
    session: &mut ClientSession,
    address: &EmailAddress,
    now: Timestamp,
) -> Result<Option<Registration>, Stopped> {
    find_registration(store, session, waiting_for(address, now)).await
}

impl Registration {
    /// Stores the secret that goes into a letter and says whether it has a code.
    pub(super) async fn store_secret(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        letter: &PrepareLetter,
        now: Timestamp,
    ) -> Result<bool, Stopped> {
        let code = self.inherited(store, session, now).await?;
        let code = code.renewed(letter.code, now);
        let until = now.plus(Purpose::ConfirmRegistration.link_ttl());
        let mut fields = code.fields();
        fields.insert("link_hash", hash_bson(&letter.link));
        fields.insert("link_expires_at", time_bson(until.min(self.expires_at)));
        self.change(store, session, doc! { "$set": fields }).await?;
        Ok(code.exists())
    }

    /// The wrong tries for the address that are remembered: the most that one of its registrations has,
    /// for a new one could otherwise be tried before it takes over what there is.
    async fn inherited(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        now: Timestamp,
    ) -> Result<Code, Stopped> {
        let tried = doc! {
            "email_canonical": self.email.canonical(),
            "tries_since": is_remembered(now),
        };
        let most = store
            .collection(PENDING_REGISTRATIONS)
            .find_one(tried)
            .sort(doc! { "tries": -1 })
            .session(session)
            .await?;
        let most = most.map(|document| Self::read(&document)).transpose()?;
        Ok(most.map(|one| one.code.inherited(now)).unwrap_or_default())
    }

    async fn change(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
        update: Document,
    ) -> Result<(), Stopped> {
        store
            .collection(PENDING_REGISTRATIONS)
            .update_one(doc! { "_id": key(self.id) }, update)
            .session(session)
            .await?;
        Ok(())
    }
}

/// Makes the account of a registration.
///
/// Of two at once one is repeated and finds the registration gone, for it is deleted with the others.
pub(super) struct Confirm {
    pub(super) proof: Proof,
    pub(super) expected: Option<RegistrationId>,
    pub(super) user: UserId,
    pub(super) by: Occasion,
}

impl Confirm {
    /// The registration that the proof shows, if it is the expected one.
    async fn judge(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Verdict<Registration>, Stopped> {
        let Some(condition) = shown_by(&self.proof, self.by.at) else {
            return Ok(Verdict::Refused);
        };
        let Some(found) = find_registration(store, session, condition).await? else {
            return Ok(Verdict::Refused);
        };
        let is_expected = self.expected == Some(found.id);
        let is_link = matches!(self.proof, Proof::Link(_));
        if is_expected && (is_link || found.code.accepts(&self.proof, self.by.at)) {
            return Ok(Verdict::Good(found));
        }
        if is_link || !found.code.may_be_tried() {
            return Ok(Verdict::Refused);
        }
        let counted = found.code.one_try_more(self.by.at);
        found.change(store, session, counted).await?;
        Ok(Verdict::Counted)
    }
}

#[async_trait]
impl Transaction for Confirm {
    type Outcome = ConfirmRegistration;

    async fn run(
        &self,
        store: &MongoStore,
        session: &mut ClientSession,
    ) -> Result<Step<ConfirmRegistration>, Stopped> {
        let registration = match self.judge(store, session).await? {
            Verdict::Good(registration) => registration,
            refused => return Ok(refused.refusal(ConfirmRegistration::Refused)),
        };
        let account = registration.account(self.user, self.by.at);
        let create = CreateUserWithNames::new(&account, None, None, &self.by);
        let (Step::Commit(created) | Step::Abort(created)) = create.run(store, session).await?;
        let refused = match created {
            CreateUser::Created => None,
            CreateUser::EmailTaken => Some(ConfirmRegistration::EmailTaken),
            CreateUser::UsernameTaken => Some(ConfirmRegistration::UsernameTaken),
        };
        if let Some(refused) = refused {
            return Ok(Step::Abort(refused));
        }
        store
            .collection(PENDING_REGISTRATIONS)
            .delete_many(doc! { "email_canonical": registration.email.canonical() })
            .session(session)
            .await?;
        Ok(Step::Commit(ConfirmRegistration::Created(Box::new(
            account.user,
        ))))
    }
}

impl MongoStore {
    pub(super) async fn find_waiting_registration(
        &self,
        proof: &Proof,
        now: Timestamp,
    ) -> StoreResult<Option<WaitingRegistration>> {
        let Some(condition) = shown_by(proof, now) else {
            return Ok(None);
        };
        let (registrations, limit) = (
            self.collection(PENDING_REGISTRATIONS),
            self.operation_timeout,
        );
        let find = async move {
            let find = registrations.find_one(condition).sort(newest_first());
            find.max_time(limit).await
        };
        let Some(document) = self.bounded(find).await? else {
            return Ok(None);
        };
        let found = Registration::read(&document)?;
        Ok(Some(WaitingRegistration {
            id: found.id,
            password_hash: found.password_hash,
        }))
    }
}

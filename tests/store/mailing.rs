//! Letters and the secrets in them as the cases need them.

use doorward::{
    clock::{Span, Timestamp},
    entropy::SystemEntropy,
    ids::{LetterId, RegistrationId, UserId},
    model::{
        account::NewRegistration,
        mail::{Letter, LetterKind, NewLetter},
        token::{CodeOwner, Proof, SecretHash},
        user::Attributes,
    },
    store::{LetterFilter, PrepareLetter, Prepared, ReadyLetter, Store},
};

use super::sample::{address, hash};

use crate::harness::occasions::by;

/// For how long the cases claim letters.
pub const LEASE: Span = Span::secs(60);

/// A letter of this kind, caused at `now`.
pub fn letter(kind: LetterKind, now: Timestamp) -> NewLetter {
    NewLetter::fresh(kind, now, &SystemEntropy)
}

/// A letter of this kind to an address, caused at `now`.
pub fn letter_to(kind: LetterKind, email: &str, now: Timestamp) -> NewLetter {
    letter(kind, now).to(&address(email))
}

/// Stores a letter that nothing is in the way of.
pub async fn store_letter(store: &dyn Store, letter: &NewLetter) -> LetterId {
    let never = letter.created_at.plus(Span::days(9999));
    let stored = store
        .add_letter(letter, never, &by(letter.created_at))
        .await;
    assert!(stored.expect("an answer"), "a letter was stored lately");
    letter.id
}

/// A letter that exists.
pub async fn read(store: &dyn Store, id: LetterId) -> Letter {
    let found = store.letter(id).await.expect("an answer");
    found.expect("the letter exists")
}

/// Every letter, newest first.
pub async fn all_letters(store: &dyn Store) -> Vec<Letter> {
    let filter = LetterFilter {
        limit: 1000,
        ..LetterFilter::default()
    };
    store.list_letters(&filter).await.expect("an answer")
}

/// The kinds of every letter, newest first.
pub async fn kinds(store: &dyn Store) -> Vec<LetterKind> {
    let letters = all_letters(store).await;
    letters.iter().map(|letter| letter.new.kind).collect()
}

/// Claims as many letters as are due.
pub async fn claim(store: &dyn Store, now: Timestamp) -> Vec<Letter> {
    let claimed = store.claim_letters(1000, LEASE, now).await;
    claimed.expect("an answer")
}

/// The secret in a letter's link.
pub fn link_of(letter: LetterId) -> SecretHash {
    SecretHash::of(&format!("link {letter}"))
}

/// The code in a letter.
pub fn code_of(letter: LetterId) -> SecretHash {
    SecretHash::of(&format!("code {letter}"))
}

/// Shows the link of a letter.
pub fn by_link(letter: LetterId) -> Proof {
    Proof::Link(link_of(letter))
}

/// Types the code of a letter, as the owner of an address.
pub fn by_code(letter: LetterId, email: &str) -> Proof {
    typed(CodeOwner::Address(address(email)), code_of(letter))
}

/// Types the code of a letter, as a user.
pub fn by_users_code(letter: LetterId, user: UserId) -> Proof {
    typed(CodeOwner::User(user), code_of(letter))
}

/// Types a code that is in no letter, as the owner of an address.
pub fn by_wrong_code(email: &str) -> Proof {
    typed(
        CodeOwner::Address(address(email)),
        SecretHash::of("a wrong one"),
    )
}

fn typed(owner: CodeOwner, code: SecretHash) -> Proof {
    let under_an_older_key = SecretHash::of("the same code under another key");
    Proof::Code {
        owner,
        hashes: vec![under_an_older_key, code],
    }
}

/// Prepares a letter under the claim that there is.
pub async fn prepare(store: &dyn Store, id: LetterId, now: Timestamp) -> Prepared {
    claim(store, now).await;
    let asked = asked(id, read(store, id).await.fence);
    let prepared = store.prepare_letter(&asked, now).await;
    prepared.expect("an answer")
}

/// A letter's preparation under this claim.
pub fn asked(id: LetterId, fence: i64) -> PrepareLetter {
    PrepareLetter {
        id,
        fence,
        link: link_of(id),
        code: Some(code_of(id)),
    }
}

/// Prepares a letter that is to be sent.
pub async fn ready(store: &dyn Store, id: LetterId, now: Timestamp) -> ReadyLetter {
    match prepare(store, id, now).await {
        Prepared::Ready(ready) => *ready,
        other => panic!("{other:?}"),
    }
}

pub async fn is_obsolete(store: &dyn Store, id: LetterId, now: Timestamp) -> bool {
    matches!(prepare(store, id, now).await, Prepared::Obsolete(_))
}

/// Stores a letter and prepares it at the time that caused it, as if it were sent.
pub async fn mail(store: &dyn Store, letter: &NewLetter) -> LetterId {
    let id = store_letter(store, letter).await;
    ready(store, id, letter.created_at).await;
    id
}

/// Mails a letter of this kind to an address, as one is asked for that may be anybody's.
pub async fn mail_to(store: &dyn Store, kind: LetterKind, email: &str, now: Timestamp) -> LetterId {
    mail(store, &letter_to(kind, email, now)).await
}

/// A letter to the address that a user wants to have, as of the user's present password.
pub async fn new_address_letter(
    store: &dyn Store,
    user: UserId,
    email: &str,
    now: Timestamp,
) -> NewLetter {
    let mut letter = letter_to(LetterKind::ConfirmNewEmail, email, now).about(user);
    let found = store.user_credentials(user).await.expect("an answer");
    letter.credential_version = found.map(|found| found.credential_version);
    letter
}

/// Mails a letter to the address that a user wants to have.
pub async fn mail_new_address(
    store: &dyn Store,
    user: UserId,
    email: &str,
    now: Timestamp,
) -> LetterId {
    let letter = new_address_letter(store, user, email, now).await;
    mail(store, &letter).await
}

/// Mails a notice of a new device to a user's present address.
pub async fn mail_notice(store: &dyn Store, user: UserId, now: Timestamp) -> LetterId {
    mail(store, &letter(LetterKind::NewDevice, now).about(user)).await
}

/// A registration that waits for a day, with the password `chosen`.
pub fn registration(email: &str, now: Timestamp) -> NewRegistration {
    NewRegistration {
        id: RegistrationId::fresh(now, &SystemEntropy),
        email: address(email),
        username: None,
        attributes: Attributes::default(),
        password_hash: hash("chosen"),
        created_at: now,
        expires_at: now.plus(Span::days(1)),
    }
}

/// The letter of a registration.
pub fn letter_of(registration: &NewRegistration) -> NewLetter {
    let kind = LetterKind::ConfirmRegistration;
    let mut letter = letter(kind, registration.created_at).to(&registration.email);
    letter.registration_id = Some(registration.id);
    letter
}

/// Stores a registration with its letter.
pub async fn register(store: &dyn Store, registration: &NewRegistration) -> LetterId {
    let letter = letter_of(registration);
    let by = by(letter.created_at);
    let added = store.add_registration(registration, &letter, &by).await;
    added.expect("stored");
    letter.id
}

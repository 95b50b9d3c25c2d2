//! Mailed secrets: good for one thing and a time, and void once another way to the password was taken.

use std::sync::Arc;

use doorward::{
    clock::{Span, Timestamp},
    ids::{LetterId, UserId},
    model::{
        mail::{LetterKind, LetterState, Settlement},
        token::{Proof, Purpose},
        user::{NewUser, UserPatch},
    },
    store::{ChangeEmail, CreateUser, Redeem, SetPassword, Store},
};

use super::{
    mailing::{
        by_link, claim, kinds, letter, letter_to, link_of, mail, mail_new_address, mail_notice,
        mail_to, new_address_letter, read, store_letter,
    },
    sample::{
        IDLE, NOW, SINGLE, add, add_invited, add_user, address, at, built_in, credentials, hash,
        new_link, new_user, stored_hash, two_nodes, user,
    },
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race, rounds},
};

for_each_store! {
    a_link_is_good_for_its_time,
    a_link_for_a_password_is_good_for_its_time,
    a_link_is_good_for_its_purpose_only,
    a_mailed_secret_verifies_the_address,
    an_administrators_link_verifies_nothing,
    a_redeemed_secret_voids_all_others_but_those_of_notices,
    a_redeemed_secret_drops_what_waits_for_its_user_or_address,
    a_letter_dropped_in_flight_cannot_be_settled,
    a_redeemed_secret_of_a_user_with_a_password_is_told_of,
    a_deactivated_users_mailed_link_is_refused_and_not_spent,
    a_link_that_went_to_another_address_is_refused,
    a_new_password_voids_what_sets_one_or_moves_the_account,
    a_new_password_drops_what_waits_to_bring_such_secrets,
    a_refused_password_voids_nothing,
    one_of_fifty_concurrent_uses_of_a_link_wins,
}

const ANN: &str = "ann@example.org";

async fn redeem(store: &dyn Store, proof: &Proof, now: Timestamp) -> Redeem {
    let outcome = store
        .redeem_set_password(proof, &hash("mailed"), None, &by(now))
        .await;
    outcome.expect("an answer")
}

async fn verifies(store: &dyn Store, id: LetterId, now: Timestamp) -> bool {
    let verified = store.verify_email(&by_link(id), &by(now)).await;
    verified.expect("an answer").is_some()
}

async fn disowns(store: &dyn Store, id: LetterId, now: Timestamp) -> bool {
    let disowned = store.disown(&link_of(id), None, None, &by(now)).await;
    disowned.expect("an answer").is_some()
}

async fn changes(store: &dyn Store, id: LetterId, now: Timestamp) -> bool {
    let changed = store.change_email(&by_link(id), None, &by(now)).await;
    matches!(changed.expect("an answer"), ChangeEmail::Changed(_))
}

async fn set_password(store: &dyn Store, user: UserId, version: i64) -> SetPassword {
    let outcome = store
        .set_password(user, &hash("set"), version, None, None, &by(at(1)))
        .await;
    outcome.expect("an answer")
}

async fn add_without_password(store: &dyn Store, email: &str) -> UserId {
    let new = NewUser {
        password_hash: None,
        ..new_user(email)
    };
    add(store, &new).await
}

/// A user with a password and an administrator's link besides.
async fn add_with_link(store: &dyn Store, email: &str) -> (UserId, Proof) {
    let new = new_user(email);
    let link = new_link(new.user.id);
    let made = store.create_user(&new, Some(&link), None, &by(NOW)).await;
    assert_eq!(made.expect("an answer"), CreateUser::Created);
    (new.user.id, Proof::Link(link.hash))
}

/// ASVS 6.4.1, 6.5.5.
async fn a_link_is_good_for_its_time(database: Database) {
    let store = database.open().await;
    for (n, last_moment) in [(0, false), (1, true)] {
        let email = format!("ann{n}@example.org");
        let ann = add_without_password(&*store, &email).await;
        let early = Span::millis(i64::from(last_moment));
        let end = |purpose: Purpose| NOW.plus(purpose.link_ttl()).minus(early);
        let notice = mail_notice(&*store, ann, NOW).await;
        let change = mail_new_address(&*store, ann, &email.replace("ann", "new"), NOW).await;
        let verify = mail_to(&*store, LetterKind::VerifyEmail, &email, NOW).await;
        let verified = verifies(&*store, verify, end(Purpose::VerifyEmail)).await;
        assert_eq!(verified, last_moment);
        let changed = changes(&*store, change, end(Purpose::ChangeEmail)).await;
        assert_eq!(changed, last_moment);
        let disowned = disowns(&*store, notice, end(Purpose::NotMe)).await;
        assert_eq!(disowned, last_moment);
    }
}

async fn a_link_for_a_password_is_good_for_its_time(database: Database) {
    let store = database.open().await;
    for (kind, purpose) in [
        (LetterKind::ResetPassword, Purpose::ResetPassword),
        (LetterKind::Invitation, Purpose::SetPassword),
    ] {
        let email = format!("{}@example.org", kind.as_str());
        let ann = add_without_password(&*store, &email).await;
        let id = mail(&*store, &letter(kind, NOW).about(ann)).await;
        let end = NOW.plus(purpose.link_ttl());
        assert_eq!(redeem(&*store, &by_link(id), end).await, Redeem::Refused);
        let last_moment = end.minus(Span::millis(1));
        let outcome = redeem(&*store, &by_link(id), last_moment).await;
        assert_eq!(outcome, Redeem::Redeemed(ann));
    }
}

/// ASVS 6.6.2.
async fn a_link_is_good_for_its_purpose_only(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let notice = mail_notice(&*store, ann, NOW).await;
    let change = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    let verify = mail_to(&*store, LetterKind::VerifyEmail, ANN, NOW).await;
    let reset = mail_to(&*store, LetterKind::ResetPassword, ANN, NOW).await;
    for other in [notice, change, reset] {
        assert!(!verifies(&*store, other, NOW).await);
    }
    for other in [notice, verify, reset] {
        assert!(!changes(&*store, other, NOW).await);
    }
    for other in [change, verify, reset] {
        assert!(!disowns(&*store, other, NOW).await);
    }
    for other in [notice, change, verify] {
        let outcome = redeem(&*store, &by_link(other), NOW).await;
        assert_eq!(outcome, Redeem::Refused);
    }
    assert!(verifies(&*store, verify, NOW).await);
    let outcome = redeem(&*store, &by_link(reset), NOW).await;
    assert_eq!(outcome, Redeem::Redeemed(ann));
}

async fn a_mailed_secret_verifies_the_address(database: Database) {
    let store = database.open().await;
    let ann = add_without_password(&*store, ANN).await;
    let invitation = mail(&*store, &letter(LetterKind::Invitation, NOW).about(ann)).await;
    redeem(&*store, &by_link(invitation), at(1)).await;
    assert_eq!(user(&*store, ann).await.email_verified_at, Some(at(1)));
    let bob = add_user(&*store, "bob@example.org").await;
    let kind = LetterKind::ResetPassword;
    for (seconds, expected) in [(2, 2), (3, 2)] {
        let reset = mail_to(&*store, kind, "bob@example.org", at(seconds)).await;
        redeem(&*store, &by_link(reset), at(seconds)).await;
        let verified = user(&*store, bob).await.email_verified_at;
        assert_eq!(verified, Some(at(expected)), "the first time counts");
    }
}

async fn an_administrators_link_verifies_nothing(database: Database) {
    let store = database.open().await;
    let (ann, link) = add_invited(&*store, ANN).await;
    let outcome = redeem(&*store, &Proof::Link(link), at(1)).await;
    assert_eq!(outcome, Redeem::Redeemed(ann));
    assert_eq!(user(&*store, ann).await.email_verified_at, None);
}

/// Somebody who has moved the account can reset its password by mail, and must not take the owner's way back
/// by that.
async fn a_redeemed_secret_voids_all_others_but_those_of_notices(database: Database) {
    let store = database.open().await;
    let (ann, link) = add_with_link(&*store, ANN).await;
    let bob = add_user(&*store, "bob@example.org").await;
    let of_bob = mail_notice(&*store, bob, NOW).await;
    let notice = mail_notice(&*store, ann, NOW).await;
    let change = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    let verify = mail_to(&*store, LetterKind::VerifyEmail, ANN, NOW).await;
    let reset = mail_to(&*store, LetterKind::ResetPassword, ANN, NOW).await;
    let outcome = redeem(&*store, &by_link(reset), NOW).await;
    assert_eq!(outcome, Redeem::Redeemed(ann));
    assert_eq!(redeem(&*store, &link, NOW).await, Redeem::Refused);
    assert!(!verifies(&*store, verify, NOW).await);
    assert!(!changes(&*store, change, NOW).await);
    assert!(disowns(&*store, notice, NOW).await);
    assert!(disowns(&*store, of_bob, NOW).await);
}

/// Letters that bring secrets: by the user's id, and by the address alone.
async fn waiting_letters(store: &dyn Store, user: UserId, email: &str) -> Vec<LetterId> {
    let mut letters = vec![
        new_address_letter(store, user, "new@example.org", NOW).await,
        letter(LetterKind::Invitation, NOW).about(user),
    ];
    for kind in [LetterKind::ResetPassword, LetterKind::VerifyEmail] {
        letters.push(letter_to(kind, email, NOW));
        letters.push(letter(kind, NOW).about(user));
    }
    letters.push(letter(LetterKind::PasswordChanged, NOW).about(user));
    let mut ids = Vec::new();
    for letter in letters {
        ids.push(store_letter(store, &letter).await);
    }
    ids
}

async fn states(store: &dyn Store, ids: &[LetterId]) -> Vec<(LetterKind, LetterState)> {
    let mut states = Vec::new();
    for id in ids {
        let letter = read(store, *id).await;
        assert_eq!(
            letter.settled_at.is_some(),
            letter.state != LetterState::Waiting
        );
        states.push((letter.new.kind, letter.state));
    }
    states
}

async fn a_redeemed_secret_drops_what_waits_for_its_user_or_address(database: Database) {
    let store = database.open().await;
    let (ann, link) = add_with_link(&*store, ANN).await;
    let bob = add_user(&*store, "bob@example.org").await;
    let of_ann = waiting_letters(&*store, ann, "Ann@Example.org").await;
    let of_bob = waiting_letters(&*store, bob, "bob@example.org").await;
    let outcome = redeem(&*store, &link, at(1)).await;
    assert_eq!(outcome, Redeem::Redeemed(ann));
    for (kind, state) in states(&*store, &of_ann).await {
        let is_notice = kind == LetterKind::PasswordChanged;
        assert_eq!(state == LetterState::Waiting, is_notice, "{kind:?}");
        assert_eq!(state == LetterState::Dropped, !is_notice, "{kind:?}");
    }
    for (kind, state) in states(&*store, &of_bob).await {
        assert_eq!(state, LetterState::Waiting, "{kind:?}");
    }
}

async fn a_letter_dropped_in_flight_cannot_be_settled(database: Database) {
    let store = database.open().await;
    let (ann, link) = add_with_link(&*store, ANN).await;
    let reset = letter_to(LetterKind::ResetPassword, ANN, NOW);
    let reset = store_letter(&*store, &reset).await;
    claim(&*store, NOW).await;
    let outcome = redeem(&*store, &link, at(1)).await;
    assert_eq!(outcome, Redeem::Redeemed(ann));
    let settled = store
        .settle_letter(reset, 1, &Settlement::Sent, at(2))
        .await;
    assert!(!settled.expect("an answer"));
    assert_eq!(read(&*store, reset).await.state, LetterState::Dropped);
}

async fn a_redeemed_secret_of_a_user_with_a_password_is_told_of(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let reset = mail_to(&*store, LetterKind::ResetPassword, ANN, NOW).await;
    let notice = letter(LetterKind::PasswordChanged, at(1)).in_language(Some("de"));
    let redeem = async || {
        let outcome = store
            .redeem_set_password(&by_link(reset), &hash("new"), Some(&notice), &by(at(1)))
            .await;
        outcome.expect("an answer")
    };
    assert_eq!(redeem().await, Redeem::Redeemed(ann));
    assert_eq!(redeem().await, Redeem::Refused);
    assert_eq!(
        read(&*store, notice.id).await.new,
        notice.clone().about(ann).to(&address(ANN))
    );
    assert_eq!(kinds(&*store).await.len(), 2);
}

async fn a_deactivated_users_mailed_link_is_refused_and_not_spent(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let notice = mail_notice(&*store, ann, NOW).await;
    let change = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    let verify = mail_to(&*store, LetterKind::VerifyEmail, ANN, NOW).await;
    let reset = mail_to(&*store, LetterKind::ResetPassword, ANN, NOW).await;
    let spend_all = async || {
        [
            verifies(&*store, verify, at(1)).await,
            redeem(&*store, &by_link(reset), at(1)).await != Redeem::Refused,
            changes(&*store, change, at(1)).await,
            disowns(&*store, notice, at(1)).await,
        ]
    };
    store
        .deactivate_user(ann, None, &built_in(), &by(NOW))
        .await
        .expect("an answer");
    assert_eq!(spend_all().await, [false; 4]);
    assert_eq!(user(&*store, ann).await.email_verified_at, None);
    store.activate_user(ann, &by(NOW)).await.expect("an answer");
    assert_eq!(spend_all().await, [true, true, false, true]);
}

async fn a_link_that_went_to_another_address_is_refused(database: Database) {
    let store = database.open().await;
    let ann = add_without_password(&*store, ANN).await;
    let verify = mail_to(&*store, LetterKind::VerifyEmail, ANN, NOW).await;
    let reset = mail_to(&*store, LetterKind::ResetPassword, ANN, NOW).await;
    let invitation = mail(&*store, &letter(LetterKind::Invitation, NOW).about(ann)).await;
    let patch = UserPatch {
        email: Some(address("new@example.org")),
        ..UserPatch::default()
    };
    let moved = store
        .update_user(ann, &patch, None, SINGLE, IDLE, &by(NOW))
        .await;
    moved.expect("an answer");
    assert!(!verifies(&*store, verify, NOW).await);
    for id in [reset, invitation] {
        let outcome = redeem(&*store, &by_link(id), NOW).await;
        assert_eq!(outcome, Redeem::Refused);
    }
    assert_eq!(stored_hash(&*store, ann).await, None);
}

/// ASVS 6.4.1.
async fn a_new_password_voids_what_sets_one_or_moves_the_account(database: Database) {
    let store = database.open().await;
    let (ann, link) = add_with_link(&*store, ANN).await;
    let notice = mail_notice(&*store, ann, NOW).await;
    let change = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    let verify = mail_to(&*store, LetterKind::VerifyEmail, ANN, NOW).await;
    let reset = mail_to(&*store, LetterKind::ResetPassword, ANN, NOW).await;
    let version = credentials(&*store, ann).await.credential_version;
    let set = set_password(&*store, ann, version).await;
    assert!(matches!(set, SetPassword::Changed { .. }));
    assert_eq!(redeem(&*store, &link, at(2)).await, Redeem::Refused);
    let outcome = redeem(&*store, &by_link(reset), at(2)).await;
    assert_eq!(outcome, Redeem::Refused);
    assert!(!changes(&*store, change, at(2)).await);
    assert!(verifies(&*store, verify, at(2)).await, "stays good");
    assert!(disowns(&*store, notice, at(2)).await, "stays good");
}

async fn a_new_password_drops_what_waits_to_bring_such_secrets(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let waiting = waiting_letters(&*store, ann, ANN).await;
    let version = credentials(&*store, ann).await.credential_version;
    set_password(&*store, ann, version).await;
    for (kind, state) in states(&*store, &waiting).await {
        let stays = [LetterKind::VerifyEmail, LetterKind::PasswordChanged].contains(&kind);
        let expected = if stays {
            LetterState::Waiting
        } else {
            LetterState::Dropped
        };
        assert_eq!(state, expected, "{kind:?}");
    }
}

async fn a_refused_password_voids_nothing(database: Database) {
    let store = database.open().await;
    let (ann, link) = add_with_link(&*store, ANN).await;
    let waiting = waiting_letters(&*store, ann, ANN).await;
    let version = credentials(&*store, ann).await.credential_version;
    let refused = set_password(&*store, ann, version - 1).await;
    assert_eq!(refused, SetPassword::CredentialsChanged);
    for (kind, state) in states(&*store, &waiting).await {
        assert_eq!(state, LetterState::Waiting, "{kind:?}");
    }
    let outcome = redeem(&*store, &link, NOW).await;
    assert_eq!(outcome, Redeem::Redeemed(ann));
}

async fn one_of_fifty_concurrent_uses_of_a_link_wins(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], ANN).await;
    for round in 0..rounds(30) {
        let now = at(i64::try_from(round).expect("small"));
        let reset = mail_to(&*nodes[0], LetterKind::ResetPassword, ANN, now).await;
        let before = credentials(&*nodes[0], ann).await.credential_version;
        let racers = (0..50).map(|n| {
            let store = Arc::clone(&nodes[n % 2]);
            async move { redeem(&*store, &by_link(reset), now).await }
        });
        let outcomes = race(racers).await;
        let won = outcomes.iter().filter(|one| **one != Redeem::Refused);
        assert_eq!(won.count(), 1, "round {round}");
        let after = credentials(&*nodes[1], ann).await.credential_version;
        assert_eq!(after, before + 1);
    }
}

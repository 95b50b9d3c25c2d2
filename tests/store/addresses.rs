//! Addresses verified, changed and given back.

use std::sync::Arc;

use doorward::{
    clock::{Span, Timestamp},
    ids::{LetterId, UserId},
    model::{
        mail::{LetterKind, LetterState, NewLetter},
        session::CloseReason,
        token::{Proof, SecretHash},
        user::{User, UserPatch},
    },
    store::{ChangeEmail, CreateUser, Redeem, Store, UpdateUser},
};

use super::{
    mailing::{
        by_code, by_link, by_users_code, kinds, letter, letter_to, link_of, mail, mail_new_address,
        mail_notice, mail_to, prepare, read, ready, register, registration, store_letter,
    },
    sample::{
        IDLE, NOW, SINGLE, add_user, address, at, by_email, closed, credentials, hash, login_finds,
        new_user, open_ids, open_one, state, stored_hash, two_nodes, user,
    },
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race, rounds},
};

for_each_store! {
    an_address_is_verified_by_link_or_code_and_once,
    no_good_secret_verifies_an_address,
    one_of_fifty_concurrent_verifications_wins,
    a_new_address_is_the_users_and_the_old_one_free,
    a_new_address_is_told_to_the_old_one,
    an_address_written_in_another_way_is_told_to_nobody,
    an_address_that_was_taken_meanwhile_leaves_the_secret_unspent,
    a_change_that_is_refused_stores_no_notice,
    secrets_for_the_old_address_are_void,
    one_of_fifty_concurrent_changes_wins,
    two_users_who_want_one_address_do_not_both_get_it,
    a_disowned_account_has_neither_sessions_nor_password,
    a_disowned_account_has_its_address_back,
    an_address_that_was_never_verified_is_told_nothing_and_free,
    an_address_that_was_left_is_kept_for_its_account,
    a_disowned_account_sends_nothing_if_the_old_address_is_taken,
    an_older_notice_outlives_the_denial_of_a_newer_one,
    who_loses_the_address_is_told,
    a_disowned_account_keeps_the_address_that_the_notice_went_to,
    a_disowned_account_has_no_open_secret,
    a_disowned_account_is_had_back_by_its_letter,
    no_good_link_disowns_nothing,
    one_of_fifty_concurrent_disownings_wins,
    an_address_cannot_be_taken_while_it_is_given_back,
}

const ANN: &str = "ann@example.org";

async fn verify(store: &dyn Store, proof: &Proof, now: Timestamp) -> Option<User> {
    let verified = store.verify_email(proof, &by(now)).await;
    verified.expect("an answer")
}

async fn change(store: &dyn Store, proof: &Proof, notice: Option<&NewLetter>) -> ChangeEmail {
    let changed = store.change_email(proof, notice, &by(at(1))).await;
    changed.expect("an answer")
}

async fn disown(store: &dyn Store, link: SecretHash, reset: Option<&NewLetter>) -> Option<UserId> {
    let disowned = store.disown(&link, reset, None, &by(at(1))).await;
    disowned.expect("an answer")
}

fn is_changed(outcome: &ChangeEmail) -> bool {
    matches!(outcome, ChangeEmail::Changed(_))
}

/// Notes by hand that a user's address is verified.
async fn verified_by_hand(store: &dyn Store, user: UserId) {
    let patch = UserPatch {
        email_verified: Some(true),
        ..UserPatch::default()
    };
    let by = by(NOW);
    let done = store.update_user(user, &patch, None, SINGLE, IDLE, &by);
    done.await.expect("an answer");
}

/// Gives a user with a verified address another one by hand and mails the notice of it to the old one.
async fn moved_by_somebody(store: &dyn Store, user: UserId, email: &str) -> LetterId {
    verified_by_hand(store, user).await;
    let notice = letter(LetterKind::EmailChanged, NOW);
    let patch = UserPatch {
        email: Some(address(email)),
        ..UserPatch::default()
    };
    let done = store
        .update_user(user, &patch, Some(&notice), SINGLE, IDLE, &by(NOW))
        .await;
    done.expect("an answer");
    ready(store, notice.id, NOW).await;
    notice.id
}

async fn an_address_is_verified_by_link_or_code_and_once(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    for (email, is_link) in [(ANN, true), ("bob@example.org", false)] {
        let id = add_user(&*store, email).await;
        let letter = mail_to(&*store, LetterKind::VerifyEmail, email, NOW).await;
        let proof = if is_link {
            by_link(letter)
        } else {
            by_code(letter, email)
        };
        let verified = verify(&*store, &proof, at(1)).await.expect("verified");
        assert_eq!(verified.email_verified_at, Some(at(1)));
        assert_eq!(verified, user(&*other_node, id).await);
        assert_eq!(verify(&*other_node, &proof, at(2)).await, None);
        assert_eq!(user(&*store, id).await, verified);
    }
}

async fn no_good_secret_verifies_an_address(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let unknown = Proof::Link(SecretHash::of("unknown"));
    assert_eq!(verify(&*store, &unknown, NOW).await, None);
    let waiting = register(&*store, &registration("bob@example.org", NOW)).await;
    ready(&*store, waiting, NOW).await;
    assert_eq!(verify(&*store, &by_link(waiting), NOW).await, None);
    let typed = by_code(waiting, "bob@example.org");
    assert_eq!(verify(&*store, &typed, NOW).await, None);
    assert_eq!(user(&*store, ann).await.email_verified_at, None);
}

async fn one_of_fifty_concurrent_verifications_wins(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..rounds(30) {
        let email = format!("ann{round}@example.org");
        add_user(&*nodes[0], &email).await;
        let letter = mail_to(&*nodes[0], LetterKind::VerifyEmail, &email, NOW).await;
        let racers = (0..50).map(|n| {
            let store = Arc::clone(&nodes[n % 2]);
            let (link, code) = (by_link(letter), by_code(letter, &email));
            let proof = if round % 2 == 0 { link } else { code };
            async move { verify(&*store, &proof, NOW).await.is_some() }
        });
        let outcomes = race(racers).await;
        assert_eq!(outcomes.iter().filter(|won| **won).count(), 1);
    }
}

async fn a_new_address_is_the_users_and_the_old_one_free(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, ANN).await;
    let letter = mail_new_address(&*store, ann, "New@example.org", NOW).await;
    let outcome = change(&*store, &by_link(letter), None).await;
    let now = user(&*other_node, ann).await;
    assert_eq!(now.email.as_str(), "New@example.org");
    assert_eq!(
        (now.email_verified_at, now.updated_at),
        (Some(at(1)), at(1))
    );
    assert_eq!(outcome, ChangeEmail::Changed(Box::new(now)));
    let by_new = by_email("new@example.org");
    assert_eq!(login_finds(&*other_node, &by_new).await, Some(ann));
    assert_eq!(login_finds(&*other_node, &by_email(ANN)).await, None);
    let again = change(&*other_node, &by_link(letter), None).await;
    assert_eq!(again, ChangeEmail::Refused);
    let other = add_user(&*other_node, ANN).await;
    assert_eq!(login_finds(&*store, &by_email(ANN)).await, Some(other));
}

async fn a_new_address_is_told_to_the_old_one(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "Ann@Example.org").await;
    verified_by_hand(&*store, ann).await;
    let id = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    let notice = letter(LetterKind::EmailChanged, at(1));
    let outcome = change(&*store, &by_users_code(id, ann), Some(&notice)).await;
    assert!(is_changed(&outcome));
    let stored = read(&*store, notice.id).await.new;
    assert_eq!(stored, notice.about(ann).to(&address("Ann@Example.org")));
    assert_eq!(stored.to.expect("one").as_str(), "Ann@Example.org");
}

async fn an_address_that_was_never_verified_is_told_nothing_and_free(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let id = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    let notice = letter(LetterKind::EmailChanged, at(1));
    assert!(is_changed(
        &change(&*store, &by_link(id), Some(&notice)).await
    ));
    assert_eq!(kinds(&*store).await, [LetterKind::ConfirmNewEmail]);
    add_user(&*store, ANN).await;
}

/// Whoever was told at the old address can bring it back, so nobody else may have it meanwhile.
async fn an_address_that_was_left_is_kept_for_its_account(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, ANN).await;
    let bob = add_user(&*store, "bob@example.org").await;
    moved_by_somebody(&*store, ann, "new@example.org").await;
    assert_eq!(login_finds(&*store, &by_email(ANN)).await, None);
    let taking = async |n: i64| {
        let (late, when) = (new_user(ANN), by(NOW.plus(Span::days(n))));
        other_node.create_user(&late, None, None, &when).await
    };
    assert!(matches!(taking(13).await, Ok(CreateUser::EmailTaken)));
    let id = mail_new_address(&*store, bob, ANN, NOW).await;
    let outcome = change(&*store, &by_link(id), None).await;
    assert_eq!(outcome, ChangeEmail::Taken);
    let to_ann = UserPatch {
        email: Some(address(ANN)),
        ..UserPatch::default()
    };
    let updating = async |user| {
        let updated = store
            .update_user(user, &to_ann, None, SINGLE, IDLE, &by(NOW))
            .await;
        updated.expect("an answer")
    };
    assert_eq!(updating(bob).await, UpdateUser::EmailTaken);
    assert!(
        matches!(updating(ann).await, UpdateUser::Updated(_)),
        "its own"
    );
    moved_by_somebody(&*store, ann, "newer@example.org").await;
    assert!(matches!(taking(15).await, Ok(CreateUser::Created)));
}

async fn an_address_written_in_another_way_is_told_to_nobody(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let id = mail_new_address(&*store, ann, "Ann@Example.org", NOW).await;
    let notice = letter(LetterKind::EmailChanged, at(1));
    let outcome = change(&*store, &by_link(id), Some(&notice)).await;
    assert!(is_changed(&outcome));
    let now = user(&*store, ann).await;
    assert_eq!(now.email.as_str(), "Ann@Example.org");
    assert_eq!(now.email_verified_at, Some(at(1)));
    assert_eq!(kinds(&*store).await, [LetterKind::ConfirmNewEmail]);
    assert_eq!(login_finds(&*store, &by_email(ANN)).await, Some(ann));
}

async fn an_address_that_was_taken_meanwhile_leaves_the_secret_unspent(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let id = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    let other = add_user(&*store, "New@example.org").await;
    let notice = letter(LetterKind::EmailChanged, at(1));
    for proof in [by_link(id), by_users_code(id, ann)] {
        let outcome = change(&*store, &proof, Some(&notice)).await;
        assert_eq!(outcome, ChangeEmail::Taken);
    }
    assert_eq!(user(&*store, ann).await.email, address(ANN));
    assert_eq!(kinds(&*store).await, [LetterKind::ConfirmNewEmail]);
    let away = UserPatch {
        email: Some(address("other@example.org")),
        ..UserPatch::default()
    };
    let by = by(NOW);
    let done = store.update_user(other, &away, None, SINGLE, IDLE, &by);
    done.await.expect("an answer");
    let outcome = change(&*store, &by_users_code(id, ann), None).await;
    assert!(is_changed(&outcome), "{outcome:?}");
}

async fn a_change_that_is_refused_stores_no_notice(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let id = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    let notice = letter(LetterKind::EmailChanged, at(1));
    let unknown = Proof::Link(SecretHash::of("unknown"));
    let stranger = by_users_code(LetterId::from(ann.as_uuid()), ann);
    for proof in [unknown, stranger] {
        let outcome = change(&*store, &proof, Some(&notice)).await;
        assert_eq!(outcome, ChangeEmail::Refused);
    }
    assert_eq!(kinds(&*store).await, [LetterKind::ConfirmNewEmail]);
    assert!(is_changed(&change(&*store, &by_link(id), None).await));
}

async fn secrets_for_the_old_address_are_void(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let verification = mail_to(&*store, LetterKind::VerifyEmail, ANN, NOW).await;
    let reset = mail_to(&*store, LetterKind::ResetPassword, ANN, NOW).await;
    let there = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    assert!(is_changed(&change(&*store, &by_link(there), None).await));
    let back = mail_new_address(&*store, ann, ANN, at(2)).await;
    assert!(is_changed(&change(&*store, &by_link(back), None).await));
    assert_eq!(verify(&*store, &by_link(verification), at(3)).await, None);
    for proof in [by_link(reset), by_code(reset, ANN)] {
        let outcome = store
            .redeem_set_password(&proof, &hash("x"), None, &by(at(3)))
            .await;
        assert_eq!(outcome.expect("an answer"), Redeem::Refused);
    }
}

async fn one_of_fifty_concurrent_changes_wins(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..rounds(30) {
        let ann = add_user(&*nodes[0], &format!("ann{round}@example.org")).await;
        let new = format!("new{round}@example.org");
        let id = mail_new_address(&*nodes[0], ann, &new, NOW).await;
        let racers = (0..50).map(|n| {
            let store = Arc::clone(&nodes[n % 2]);
            let (link, code) = (by_link(id), by_users_code(id, ann));
            let proof = if round % 2 == 0 { link } else { code };
            async move { change(&*store, &proof, None).await }
        });
        let outcomes = race(racers).await;
        let won = outcomes.iter().filter(|one| is_changed(one)).count();
        let lost = outcomes.iter().filter(|one| **one == ChangeEmail::Refused);
        assert_eq!((won, lost.count()), (1, 49), "{outcomes:?}");
    }
}

async fn two_users_who_want_one_address_do_not_both_get_it(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..rounds(50) {
        let new = format!("new{round}@example.org");
        let mut letters = Vec::new();
        for name in ["ann", "bob"] {
            let id = add_user(&*nodes[0], &format!("{name}{round}@example.org")).await;
            letters.push(mail_new_address(&*nodes[0], id, &new, NOW).await);
        }
        let racers = (0..2).map(|n| {
            let (store, proof) = (Arc::clone(&nodes[n]), by_link(letters[n]));
            async move { change(&*store, &proof, None).await }
        });
        let outcomes = race(racers).await;
        let won = outcomes.iter().filter(|one| is_changed(one)).count();
        let taken = outcomes.iter().filter(|one| **one == ChangeEmail::Taken);
        assert_eq!((won, taken.count()), (1, 1), "{outcomes:?}");
    }
}

async fn a_disowned_account_has_neither_sessions_nor_password(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, ANN).await;
    let bob = add_user(&*store, "bob@example.org").await;
    let of_bob = open_one(&*store, bob, NOW).await;
    let session = open_one(&*store, ann, NOW).await;
    open_one(&*store, ann, NOW).await;
    let before = credentials(&*store, ann).await.credential_version;
    let notice = mail_notice(&*store, ann, NOW).await;
    assert_eq!(disown(&*store, link_of(notice), None).await, Some(ann));
    let ended = closed(CloseReason::Revoked, at(1));
    assert_eq!(state(&*other_node, ann, session).await, ended);
    assert_eq!(open_ids(&*other_node, ann).await, []);
    assert_eq!(open_ids(&*other_node, bob).await, [of_bob]);
    assert_eq!(stored_hash(&*other_node, ann).await, None);
    let after = credentials(&*other_node, ann).await;
    assert_eq!(after.credential_version, before + 1);
    assert_eq!(after.user.email, address(ANN));
}

async fn a_disowned_account_has_its_address_back(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "Ann@Example.org").await;
    let notice = moved_by_somebody(&*store, ann, "thief@example.org").await;
    let reset = letter(LetterKind::ResetPassword, at(1));
    let disowned = disown(&*store, link_of(notice), Some(&reset)).await;
    assert_eq!(disowned, Some(ann));
    let now = user(&*other_node, ann).await;
    assert_eq!(now.email.as_str(), "Ann@Example.org");
    assert_eq!(now.email_verified_at, Some(at(1)));
    assert_eq!(login_finds(&*other_node, &by_email(ANN)).await, Some(ann));
    let stored = read(&*store, reset.id).await.new;
    assert_eq!(stored, reset.about(ann).to(&now.email));
    add_user(&*store, "thief@example.org").await;
}

/// An account that is moved without anybody being told keeps nothing; whoever has the address by then stays.
async fn a_disowned_account_sends_nothing_if_the_old_address_is_taken(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let notice = letter_to(LetterKind::NewDevice, ANN, NOW).about(ann);
    let notice = mail(&*store, &notice).await;
    let id = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    assert!(is_changed(&change(&*store, &by_link(id), None).await));
    let bob = add_user(&*store, ANN).await;
    let before = kinds(&*store).await.len();
    let reset = letter(LetterKind::ResetPassword, at(1));
    let disowned = disown(&*store, link_of(notice), Some(&reset)).await;
    assert_eq!(disowned, Some(ann));
    assert_eq!(user(&*store, ann).await.email, address("new@example.org"));
    assert_eq!(login_finds(&*store, &by_email(ANN)).await, Some(bob));
    assert_eq!(stored_hash(&*store, ann).await, None);
    assert_eq!(kinds(&*store).await.len(), before);
}

/// Or somebody who moved the account could deny a notice of their own making.
async fn an_older_notice_outlives_the_denial_of_a_newer_one(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let way_back = moved_by_somebody(&*store, ann, "thief@example.org").await;
    let own = letter_to(LetterKind::PasswordChanged, "thief@example.org", at(1)).about(ann);
    let own = mail(&*store, &own).await;
    let later = letter_to(LetterKind::NewDevice, "thief@example.org", at(2)).about(ann);
    let later = mail(&*store, &later).await;
    let waiting = letter_to(LetterKind::NewDevice, "thief@example.org", at(3)).about(ann);
    let waiting = store_letter(&*store, &waiting).await;
    assert_eq!(disown(&*store, link_of(later), None).await, Some(ann));
    assert_eq!(disown(&*store, link_of(own), None).await, Some(ann));
    assert_eq!(disown(&*store, link_of(way_back), None).await, Some(ann));
    assert_eq!(user(&*store, ann).await.email, address(ANN));
    assert_eq!(read(&*store, waiting).await.state, LetterState::Dropped);
}

/// ASVS 6.3.7.
async fn who_loses_the_address_is_told(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let way_back = moved_by_somebody(&*store, ann, "new@example.org").await;
    let (reset, told) = (
        letter(LetterKind::ResetPassword, at(1)),
        letter(LetterKind::EmailChanged, at(1)).only_telling(),
    );
    let link = link_of(way_back);
    let disowned = store
        .disown(&link, Some(&reset), Some(&told), &by(at(1)))
        .await;
    assert_eq!(disowned.expect("an answer"), Some(ann));
    let stored = read(&*store, told.id).await.new;
    assert_eq!(
        stored,
        told.clone().about(ann).to(&address("new@example.org"))
    );
    let ready = ready(&*store, told.id, at(2)).await;
    assert_eq!(
        (ready.to, ready.has_code),
        (address("new@example.org"), false)
    );
    assert_eq!(
        disown(&*store, link_of(told.id), None).await,
        None,
        "no link"
    );
}

async fn a_disowned_account_keeps_the_address_that_the_notice_went_to(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "Ann@Example.org").await;
    let notice = letter_to(LetterKind::NewDevice, ANN, NOW).about(ann);
    let notice = mail(&*store, &notice).await;
    assert_eq!(disown(&*store, link_of(notice), None).await, Some(ann));
    let now = user(&*store, ann).await;
    assert_eq!(now.email.as_str(), "Ann@Example.org");
    assert_eq!(now.email_verified_at, None);
}

async fn a_disowned_account_has_no_open_secret(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let reset = mail_to(&*store, LetterKind::ResetPassword, ANN, NOW).await;
    let verification = mail_to(&*store, LetterKind::VerifyEmail, ANN, NOW).await;
    let new = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    let other = mail_notice(&*store, ann, NOW).await;
    let notice = mail_notice(&*store, ann, NOW).await;
    assert_eq!(disown(&*store, link_of(notice), None).await, Some(ann));
    assert_eq!(verify(&*store, &by_link(verification), at(1)).await, None);
    let changed = change(&*store, &by_link(new), None).await;
    assert_eq!(changed, ChangeEmail::Refused);
    assert_eq!(disown(&*store, link_of(other), None).await, None);
    let redeemed = store
        .redeem_set_password(&by_link(reset), &hash("x"), None, &by(at(1)))
        .await;
    assert_eq!(redeemed.expect("an answer"), Redeem::Refused);
    for id in [reset, verification, new, other, notice] {
        let prepared = prepare(&*store, id, at(100)).await;
        let is_ready = matches!(prepared, doorward::store::Prepared::Ready(_));
        assert!(!is_ready, "{prepared:?}");
    }
}

async fn a_disowned_account_is_had_back_by_its_letter(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let notice = moved_by_somebody(&*store, ann, "thief@example.org").await;
    let thiefs = mail_to(&*store, LetterKind::ResetPassword, "thief@example.org", NOW).await;
    let reset = letter(LetterKind::ResetPassword, at(1));
    disown(&*store, link_of(notice), Some(&reset)).await;
    let ready = ready(&*store, reset.id, at(2)).await;
    assert_eq!((ready.to, ready.has_code), (address(ANN), true));
    let redeem = async |id| {
        let outcome = store
            .redeem_set_password(&by_link(id), &hash("own"), None, &by(at(3)))
            .await;
        outcome.expect("an answer")
    };
    assert_eq!(redeem(thiefs).await, Redeem::Refused);
    assert_eq!(redeem(reset.id).await, Redeem::Redeemed(ann));
    open_one(&*store, ann, at(4)).await;
}

async fn no_good_link_disowns_nothing(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let session = open_one(&*store, ann, NOW).await;
    let reset = mail_to(&*store, LetterKind::ResetPassword, ANN, NOW).await;
    let letter = letter(LetterKind::ResetPassword, at(1));
    for link in [link_of(reset), SecretHash::of("unknown")] {
        assert_eq!(disown(&*store, link, Some(&letter)).await, None);
    }
    assert_eq!(open_ids(&*store, ann).await, [session]);
    assert!(stored_hash(&*store, ann).await.is_some());
    assert_eq!(kinds(&*store).await.len(), 1);
}

async fn one_of_fifty_concurrent_disownings_wins(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..rounds(30) {
        let ann = add_user(&*nodes[0], &format!("ann{round}@example.org")).await;
        let thief = format!("thief{round}@example.org");
        let notice = moved_by_somebody(&*nodes[0], ann, &thief).await;
        let before = kinds(&*nodes[0]).await.len();
        let racers = (0..50).map(|n| {
            let store = Arc::clone(&nodes[n % 2]);
            let reset = letter(LetterKind::ResetPassword, at(1));
            async move { disown(&*store, link_of(notice), Some(&reset)).await }
        });
        let outcomes = race(racers).await;
        let won = outcomes.iter().filter(|one| **one == Some(ann)).count();
        assert_eq!(won, 1, "{outcomes:?}");
        assert_eq!(kinds(&*nodes[0]).await.len(), before + 1);
    }
}

async fn an_address_cannot_be_taken_while_it_is_given_back(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..rounds(100) {
        let email = format!("ann{round}@example.org");
        let ann = add_user(&*nodes[0], &email).await;
        let thief = format!("thief{round}@example.org");
        let notice = moved_by_somebody(&*nodes[0], ann, &thief).await;
        let taking = {
            let (store, bob) = (Arc::clone(&nodes[1]), new_user(&email));
            // Kept for the account, whichever comes first.
            tokio::spawn(async move {
                (
                    bob.user.id,
                    store.create_user(&bob, None, None, &by(NOW)).await,
                )
            })
        };
        if round % 2 == 0 {
            tokio::task::yield_now().await;
        }
        let disowned = disown(&*nodes[0], link_of(notice), None).await;
        assert_eq!(disowned, Some(ann), "round {round}");
        let (bob, made) = taking.await.expect("no panic");
        assert_eq!(made.expect("an answer"), CreateUser::EmailTaken, "{bob}");
        let by_email = by_email(&email);
        assert_eq!(login_finds(&*nodes[1], &by_email).await, Some(ann));
        assert_eq!(user(&*nodes[1], ann).await.email, address(&email));
        assert_eq!(stored_hash(&*nodes[1], ann).await, None);
    }
}

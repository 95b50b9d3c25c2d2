//! Typed codes: five tries, ten minutes, and wrong ones that a new code inherits.

use std::sync::Arc;

use doorward::{
    clock::{Span, Timestamp},
    ids::{LetterId, UserId},
    model::{
        mail::{CODE_TRIES, CODE_TTL, LetterKind, TRIES_REMEMBERED},
        token::Proof,
    },
    store::{ChangeEmail, Redeem, Store},
};

use super::{
    mailing::{
        by_code, by_link, by_users_code, by_wrong_code, letter, letter_to, mail_new_address,
        mail_to, ready, store_letter,
    },
    sample::{NOW, add_invited, add_user, at, built_in, hash, two_nodes, user},
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race, rounds},
};

for_each_store! {
    a_code_is_right_at_once_and_only_once,
    a_code_is_right_after_four_wrong_ones,
    after_five_wrong_ones_the_right_code_is_refused_and_the_link_is_not,
    wrong_tries_are_inherited_by_a_newer_letter,
    after_five_wrong_ones_a_newer_letter_has_no_code,
    wrong_tries_are_forgotten_after_an_hour,
    a_letter_prepared_again_forgets_what_is_forgotten,
    a_success_by_code_or_link_clears_wrong_tries,
    a_code_expires_before_its_link,
    a_letter_prepared_again_has_its_code_for_ten_minutes_more,
    the_code_of_an_older_letter_is_refused,
    a_code_is_good_for_its_purpose_and_user_only,
    wrong_tries_of_one_purpose_are_none_of_another,
    a_deactivated_users_code_is_refused_and_not_counted,
    a_code_is_refused_where_there_is_none,
    whose_a_secret_is_can_be_asked_without_spending_it,
    asking_whose_a_code_is_counts_as_a_try,
    fifty_questions_at_once_leave_no_try,
    a_new_address_is_confirmed_by_its_users_code,
    fifty_wrong_codes_at_once_leave_no_try,
    one_of_fifty_concurrent_uses_of_a_code_wins,
}

const ANN: &str = "ann@example.org";

async fn redeem(store: &dyn Store, proof: &Proof, now: Timestamp) -> bool {
    let outcome = store
        .redeem_set_password(proof, &hash("typed"), None, &by(now))
        .await;
    outcome.expect("an answer") != Redeem::Refused
}

async fn redeems(store: &dyn Store, letter: LetterId, now: Timestamp) -> bool {
    redeem(store, &by_code(letter, ANN), now).await
}

async fn guess(store: &dyn Store, times: i32, now: Timestamp) {
    for _ in 0..times {
        assert!(!redeem(store, &by_wrong_code(ANN), now).await);
    }
}

async fn mail_reset(store: &dyn Store, now: Timestamp) -> LetterId {
    mail_to(store, LetterKind::ResetPassword, ANN, now).await
}

/// Prepares a fresh letter and says whether it has a code.
async fn has_code(store: &dyn Store, now: Timestamp) -> (LetterId, bool) {
    let letter = letter_to(LetterKind::ResetPassword, ANN, now);
    let id = store_letter(store, &letter).await;
    (id, ready(store, id, now).await.has_code)
}

async fn a_code_is_right_at_once_and_only_once(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, ANN).await;
    let reset = mail_reset(&*store, NOW).await;
    let outcome = other_node
        .redeem_set_password(
            &by_code(reset, "Ann@Example.org"),
            &hash("x"),
            None,
            &by(NOW),
        )
        .await;
    assert_eq!(outcome.expect("an answer"), Redeem::Redeemed(ann));
    assert!(!redeems(&*store, reset, NOW).await);
    assert!(!redeem(&*store, &by_link(reset), NOW).await);
}

async fn a_code_is_right_after_four_wrong_ones(database: Database) {
    let store = database.open().await;
    add_user(&*store, ANN).await;
    let reset = mail_reset(&*store, NOW).await;
    guess(&*store, CODE_TRIES - 1, NOW).await;
    assert!(redeems(&*store, reset, NOW).await);
}

/// ASVS 6.6.3.
async fn after_five_wrong_ones_the_right_code_is_refused_and_the_link_is_not(database: Database) {
    let store = database.open().await;
    add_user(&*store, ANN).await;
    let reset = mail_reset(&*store, NOW).await;
    guess(&*store, CODE_TRIES, NOW).await;
    assert!(!redeems(&*store, reset, NOW).await);
    assert!(redeem(&*store, &by_link(reset), NOW).await);
}

async fn wrong_tries_are_inherited_by_a_newer_letter(database: Database) {
    let store = database.open().await;
    add_user(&*store, ANN).await;
    mail_reset(&*store, NOW).await;
    guess(&*store, 2, NOW).await;
    mail_reset(&*store, at(60)).await;
    guess(&*store, 2, at(60)).await;
    let (newest, has_code) = has_code(&*store, at(120)).await;
    assert!(has_code);
    guess(&*store, 1, at(120)).await;
    assert!(!redeems(&*store, newest, at(120)).await);
}

async fn after_five_wrong_ones_a_newer_letter_has_no_code(database: Database) {
    let store = database.open().await;
    add_user(&*store, ANN).await;
    mail_reset(&*store, NOW).await;
    guess(&*store, CODE_TRIES, NOW).await;
    for seconds in [60, 120] {
        let (newer, has_code) = has_code(&*store, at(seconds)).await;
        assert!(!has_code);
        assert!(!redeems(&*store, newer, at(seconds)).await);
    }
    let (newest, _) = has_code(&*store, at(180)).await;
    assert!(redeem(&*store, &by_link(newest), at(180)).await);
}

async fn wrong_tries_are_forgotten_after_an_hour(database: Database) {
    let store = database.open().await;
    add_user(&*store, ANN).await;
    mail_reset(&*store, NOW).await;
    guess(&*store, 1, NOW).await;
    guess(&*store, CODE_TRIES - 1, at(300)).await;
    let hour = NOW.plus(TRIES_REMEMBERED);
    let (_, too_early) = has_code(&*store, hour.minus(Span::millis(1))).await;
    assert!(!too_early, "counted from the first");
    let (newest, in_time) = has_code(&*store, hour).await;
    assert!(in_time);
    guess(&*store, CODE_TRIES - 1, hour).await;
    assert!(redeems(&*store, newest, hour).await);
}

async fn a_letter_prepared_again_forgets_what_is_forgotten(database: Database) {
    let store = database.open().await;
    add_user(&*store, ANN).await;
    let reset = mail_reset(&*store, NOW).await;
    guess(&*store, CODE_TRIES, NOW).await;
    assert!(!ready(&*store, reset, at(100)).await.has_code);
    let hour = NOW.plus(TRIES_REMEMBERED);
    assert!(ready(&*store, reset, hour).await.has_code);
    guess(&*store, CODE_TRIES - 1, hour).await;
    assert!(redeems(&*store, reset, hour).await);
}

async fn a_success_by_code_or_link_clears_wrong_tries(database: Database) {
    let store = database.open().await;
    add_user(&*store, ANN).await;
    let first = mail_reset(&*store, NOW).await;
    guess(&*store, CODE_TRIES - 1, NOW).await;
    assert!(redeems(&*store, first, NOW).await);
    mail_reset(&*store, at(60)).await;
    guess(&*store, CODE_TRIES, at(60)).await;
    let (second, is_left) = has_code(&*store, at(120)).await;
    assert!(!is_left);
    assert!(redeem(&*store, &by_link(second), at(120)).await);
    let (third, is_new) = has_code(&*store, at(180)).await;
    assert!(is_new);
    guess(&*store, CODE_TRIES - 1, at(180)).await;
    assert!(redeems(&*store, third, at(180)).await);
}

/// ASVS 6.5.5.
async fn a_code_expires_before_its_link(database: Database) {
    let store = database.open().await;
    add_user(&*store, ANN).await;
    let end = NOW.plus(CODE_TTL);
    let reset = mail_reset(&*store, NOW).await;
    assert!(!redeems(&*store, reset, end).await);
    assert!(redeem(&*store, &by_link(reset), end).await);
    let start = at(3600);
    let reset = mail_reset(&*store, start).await;
    let last_moment = start.plus(CODE_TTL).minus(Span::millis(1));
    assert!(redeems(&*store, reset, last_moment).await);
}

async fn a_letter_prepared_again_has_its_code_for_ten_minutes_more(database: Database) {
    let store = database.open().await;
    add_user(&*store, ANN).await;
    let reset = mail_reset(&*store, NOW).await;
    guess(&*store, CODE_TRIES - 1, NOW).await;
    assert!(ready(&*store, reset, at(500)).await.has_code);
    assert!(redeems(&*store, reset, at(1099)).await);
}

/// ASVS 6.6.2.
async fn the_code_of_an_older_letter_is_refused(database: Database) {
    let store = database.open().await;
    add_user(&*store, ANN).await;
    let older = mail_reset(&*store, NOW).await;
    let newer = mail_reset(&*store, at(1)).await;
    for _ in 1..CODE_TRIES {
        assert!(!redeems(&*store, older, at(2)).await);
    }
    assert!(redeems(&*store, newer, at(2)).await);
}

/// ASVS 6.6.2.
async fn a_code_is_good_for_its_purpose_and_user_only(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    add_user(&*store, "bob@example.org").await;
    let reset = mail_reset(&*store, NOW).await;
    let verify = mail_to(&*store, LetterKind::VerifyEmail, ANN, NOW).await;
    let of_bob = mail_to(&*store, LetterKind::ResetPassword, "bob@example.org", NOW).await;
    let verified = store.verify_email(&by_code(reset, ANN), &by(NOW)).await;
    assert_eq!(verified.expect("an answer"), None);
    assert!(!redeems(&*store, verify, NOW).await);
    assert!(!redeems(&*store, of_bob, NOW).await);
    let changed = store
        .change_email(&by_users_code(reset, ann), None, &by(NOW))
        .await;
    assert_eq!(changed.expect("an answer"), ChangeEmail::Refused);
    assert!(redeems(&*store, reset, NOW).await);
}

async fn wrong_tries_of_one_purpose_are_none_of_another(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let verify = mail_to(&*store, LetterKind::VerifyEmail, ANN, NOW).await;
    mail_reset(&*store, NOW).await;
    guess(&*store, CODE_TRIES, NOW).await;
    let verified = store.verify_email(&by_code(verify, ANN), &by(NOW)).await;
    let verified = verified.expect("an answer").expect("the right code");
    assert_eq!(verified, user(&*store, ann).await);
}

async fn a_deactivated_users_code_is_refused_and_not_counted(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let reset = mail_reset(&*store, NOW).await;
    store
        .deactivate_user(ann, None, &built_in(), &by(NOW))
        .await
        .expect("an answer");
    guess(&*store, CODE_TRIES, NOW).await;
    assert!(!redeems(&*store, reset, NOW).await);
    store.activate_user(ann, &by(NOW)).await.expect("an answer");
    assert!(redeems(&*store, reset, NOW).await);
}

async fn a_code_is_refused_where_there_is_none(database: Database) {
    let store = database.open().await;
    guess(&*store, 1, NOW).await;
    let (ann, _) = add_invited(&*store, ANN).await;
    guess(&*store, 1, NOW).await;
    let invitation = letter(LetterKind::Invitation, at(1)).about(ann);
    let invitation = store_letter(&*store, &invitation).await;
    assert!(!ready(&*store, invitation, at(1)).await.has_code);
    assert!(!redeems(&*store, invitation, at(1)).await);
    assert!(redeem(&*store, &by_link(invitation), at(1)).await);
}

async fn owner(store: &dyn Store, proof: &Proof, now: Timestamp) -> Option<UserId> {
    let owner = store.owner_of_proof(proof, now).await;
    owner.expect("an answer").map(|user| user.id)
}

async fn whose_a_secret_is_can_be_asked_without_spending_it(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, ANN).await;
    let bob = add_user(&*store, "bob@example.org").await;
    let verify = mail_to(&*store, LetterKind::VerifyEmail, ANN, NOW).await;
    assert_eq!(owner(&*store, &by_link(verify), NOW).await, None);
    let reset = mail_reset(&*store, NOW).await;
    for _ in 0..=CODE_TRIES {
        assert_eq!(owner(&*store, &by_link(reset), NOW).await, Some(ann));
        assert_eq!(
            owner(&*other_node, &by_code(reset, ANN), NOW).await,
            Some(ann)
        );
    }
    assert_eq!(
        owner(&*store, &by_code(reset, "bob@example.org"), NOW).await,
        None
    );
    store
        .deactivate_user(ann, None, &built_in(), &by(NOW))
        .await
        .expect("an answer");
    assert_eq!(owner(&*store, &by_link(reset), NOW).await, None);
    assert_eq!(owner(&*store, &by_code(reset, ANN), NOW).await, None);
    store.activate_user(ann, &by(NOW)).await.expect("an answer");
    assert!(redeem(&*store, &by_link(reset), NOW).await);
    assert_eq!(owner(&*store, &by_link(reset), NOW).await, None, "spent");
    let late = mail_reset(&*store, at(60)).await;
    let over = at(60 * 60 * 24 * 30);
    assert_eq!(owner(&*store, &by_link(late), over).await, None, "too old");
    assert_ne!(ann, bob);
}

/// ASVS 6.6.3.
async fn asking_whose_a_code_is_counts_as_a_try(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let reset = mail_reset(&*store, NOW).await;
    for _ in 0..CODE_TRIES - 1 {
        assert_eq!(owner(&*store, &by_wrong_code(ANN), NOW).await, None);
    }
    assert_eq!(owner(&*store, &by_code(reset, ANN), NOW).await, Some(ann));
    guess(&*store, 1, NOW).await;
    assert_eq!(owner(&*store, &by_code(reset, ANN), NOW).await, None);
    assert!(!redeems(&*store, reset, NOW).await);
    assert_eq!(owner(&*store, &by_link(reset), NOW).await, Some(ann));
}

/// ASVS 6.6.3, 15.4.2.
async fn fifty_questions_at_once_leave_no_try(database: Database) {
    let nodes = two_nodes(&database).await;
    add_user(&*nodes[0], ANN).await;
    let reset = mail_reset(&*nodes[0], NOW).await;
    let racers = (0..50).map(|n| {
        let store = Arc::clone(&nodes[n % 2]);
        async move { store.owner_of_proof(&by_wrong_code(ANN), NOW).await }
    });
    for answer in race(racers).await {
        assert!(answer.expect("an answer").is_none());
    }
    assert_eq!(owner(&*nodes[0], &by_code(reset, ANN), NOW).await, None);
}

async fn a_new_address_is_confirmed_by_its_users_code(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, ANN).await;
    let bob = add_user(&*store, "bob@example.org").await;
    let change = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    let spend = async |proof: Proof| {
        let outcome = store.change_email(&proof, None, &by(at(1))).await;
        outcome.expect("an answer")
    };
    assert_eq!(
        spend(by_users_code(change, bob)).await,
        ChangeEmail::Refused
    );
    let to_new = by_code(change, "new@example.org");
    assert_eq!(spend(to_new).await, ChangeEmail::Refused);
    let changed = spend(by_users_code(change, ann)).await;
    let now = user(&*store, ann).await;
    assert_eq!(now.email.as_str(), "new@example.org");
    assert_eq!(changed, ChangeEmail::Changed(Box::new(now)));
}

async fn fifty_wrong_codes_at_once_leave_no_try(database: Database) {
    let nodes = two_nodes(&database).await;
    add_user(&*nodes[0], ANN).await;
    let reset = mail_reset(&*nodes[0], NOW).await;
    let racers = (0..50).map(|n| {
        let store = Arc::clone(&nodes[n % 2]);
        async move { guess(&*store, 1, NOW).await }
    });
    race(racers).await;
    assert!(!redeems(&*nodes[0], reset, NOW).await);
    assert!(!has_code(&*nodes[1], at(60)).await.1);
}

async fn one_of_fifty_concurrent_uses_of_a_code_wins(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann: UserId = add_user(&*nodes[0], ANN).await;
    for round in 0..rounds(30) {
        let now = at(600 * i64::try_from(round).expect("small"));
        let reset = mail_reset(&*nodes[0], now).await;
        let racers = (0..50).map(|n| {
            let store = Arc::clone(&nodes[n % 2]);
            async move { redeems(&*store, reset, now).await }
        });
        let outcomes = race(racers).await;
        let won = outcomes.iter().filter(|won| **won).count();
        assert_eq!(won, 1, "round {round} for {ann}");
    }
}

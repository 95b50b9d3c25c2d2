//! Registrations that wait for their address: shown, confirmed once, ended together.

use std::sync::Arc;

use doorward::{
    clock::{Span, Timestamp},
    ids::{LetterId, RegistrationId, UserId},
    model::{
        account::{NewRegistration, WaitingRegistration},
        mail::{CODE_TRIES, CODE_TTL, LetterKind, TRIES_REMEMBERED},
        token::{Proof, SecretHash},
        user::{Roles, SessionLimitOverride, User, UserPatch, UserStatus},
    },
    store::{ConfirmRegistration, Store, UpdateUser, UserFilter},
};
use serde_json::json;

use super::{
    mailing::{
        by_code, by_link, by_users_code, by_wrong_code, kinds, letter_to, mail_to, ready, register,
        registration, store_letter,
    },
    sample::{
        IDLE, NOW, SINGLE, add, add_user, address, at, attributes, by_email, by_username,
        fresh_user_id, login_finds, name, named_user, stored_hash, two_nodes, user,
    },
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race, rounds},
};

for_each_store! {
    a_registration_is_stored_whatever_there_is,
    a_registration_is_shown_by_its_link,
    the_newest_registration_is_shown_by_its_address,
    a_registration_becomes_an_account_by_link,
    a_registration_becomes_an_account_by_code,
    a_registration_becomes_an_account_once,
    a_taken_address_makes_no_account,
    a_taken_name_makes_no_account_until_it_is_free,
    a_link_without_the_expected_registration_is_refused_and_not_spent,
    a_code_without_the_expected_registration_counts_as_wrong,
    after_five_wrong_codes_only_the_link_is_right,
    wrong_tries_are_inherited_by_a_newer_registration,
    wrong_tries_before_its_letter_do_not_hide_those_before,
    wrong_tries_for_an_address_are_forgotten_after_an_hour,
    a_letter_asked_for_again_takes_the_place_of_the_link_and_keeps_the_tries,
    a_registrations_code_expires_before_its_link,
    an_older_registration_has_its_link_and_no_code,
    all_registrations_of_an_address_end_with_one,
    what_has_expired_is_refused,
    a_code_of_a_user_shows_no_registration,
    one_of_fifty_concurrent_confirmations_wins,
    two_racing_registrations_of_an_address_make_one_account,
    two_racing_registrations_of_a_name_make_one_account,
}

const ANN: &str = "ann@example.org";

/// Stores a registration and prepares its letter.
async fn wait(store: &dyn Store, registration: &NewRegistration) -> LetterId {
    let id = register(store, registration).await;
    ready(store, id, registration.created_at).await;
    id
}

async fn shown(store: &dyn Store, proof: &Proof, now: Timestamp) -> Option<RegistrationId> {
    let shown = store.waiting_registration(proof, now).await;
    let shown: Option<WaitingRegistration> = shown.expect("an answer");
    shown.map(|shown| shown.id)
}

async fn confirm(
    store: &dyn Store,
    proof: &Proof,
    expected: Option<RegistrationId>,
    now: Timestamp,
) -> ConfirmRegistration {
    let user = fresh_user_id();
    let outcome = store
        .confirm_registration(proof, expected, user, &by(now))
        .await
        .expect("an answer");
    if let ConfirmRegistration::Created(made) = &outcome {
        assert_eq!(made.id, user);
    }
    outcome
}

fn created(outcome: ConfirmRegistration) -> User {
    match outcome {
        ConfirmRegistration::Created(user) => *user,
        other => panic!("{other:?}"),
    }
}

async fn guess(store: &dyn Store, times: i32, now: Timestamp) {
    for _ in 0..times {
        let proof = by_wrong_code(ANN);
        let expected = shown(store, &proof, now).await;
        let outcome = confirm(store, &proof, expected, now).await;
        assert_eq!(outcome, ConfirmRegistration::Refused);
    }
}

async fn a_registration_is_stored_whatever_there_is(database: Database) {
    let store = database.open().await;
    add(&*store, &named_user(ANN, "ann")).await;
    for _ in 0..2 {
        let mut again = registration("Ann@example.org", NOW);
        again.username = Some(name("ANN"));
        register(&*store, &again).await;
    }
    assert_eq!(kinds(&*store).await, [LetterKind::ConfirmRegistration; 2]);
    let filter = UserFilter {
        limit: 10,
        ..UserFilter::default()
    };
    let listed = store.list_users(&filter).await;
    assert_eq!(listed.expect("an answer").len(), 1);
}

async fn a_registration_is_shown_by_its_link(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = registration(ANN, NOW);
    let letter = register(&*store, &ann).await;
    assert_eq!(shown(&*store, &by_link(letter), NOW).await, None);
    ready(&*store, letter, NOW).await;
    for _ in 0..2 {
        let found = other_node
            .waiting_registration(&by_link(letter), at(1))
            .await;
        let found = found.expect("an answer").expect("it waits");
        assert_eq!(found.id, ann.id);
        assert_eq!(found.password_hash.expose(), ann.password_hash.expose());
    }
    let unknown = Proof::Link(SecretHash::of("unknown"));
    assert_eq!(shown(&*store, &unknown, NOW).await, None);
}

async fn the_newest_registration_is_shown_by_its_address(database: Database) {
    let store = database.open().await;
    let newer = registration("Ann@example.org", at(1));
    let older = registration(ANN, NOW);
    assert_eq!(shown(&*store, &by_wrong_code(ANN), NOW).await, None);
    let letter = wait(&*store, &newer).await;
    wait(&*store, &older).await;
    for _ in 0..=CODE_TRIES {
        let found = shown(&*store, &by_wrong_code("ann@Example.org"), at(2)).await;
        assert_eq!(found, Some(newer.id), "whatever the code");
    }
    let outcome = confirm(&*store, &by_code(letter, ANN), Some(newer.id), at(2)).await;
    assert!(created(outcome).email_verified_at.is_some(), "not counted");
}

async fn a_registration_becomes_an_account_by_link(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = NewRegistration {
        username: Some(name("Ann")),
        attributes: attributes(json!({"plan": "pro", "name": ["Änn \"'", null, 1.5]})),
        ..registration("Ann@example.org", NOW)
    };
    let letter = wait(&*store, &ann).await;
    let made = created(confirm(&*store, &by_link(letter), Some(ann.id), at(9)).await);
    let expected = User {
        id: made.id,
        email: ann.email.clone(),
        email_verified_at: Some(at(9)),
        username: ann.username.clone(),
        attributes: ann.attributes.clone(),
        roles: Roles::default(),
        status: UserStatus::Active,
        session_limit: SessionLimitOverride::default(),
        created_at: at(9),
        updated_at: at(9),
    };
    assert_eq!(made, expected);
    assert_eq!(user(&*other_node, made.id).await, expected);
    let hash = stored_hash(&*other_node, made.id).await;
    assert_eq!(hash.as_ref(), Some(ann.password_hash.expose()));
    for login in [by_email(ANN), by_username("ann")] {
        assert_eq!(login_finds(&*other_node, &login).await, Some(made.id));
    }
}

async fn a_registration_becomes_an_account_by_code(database: Database) {
    let store = database.open().await;
    let ann = registration(ANN, NOW);
    let letter = wait(&*store, &ann).await;
    guess(&*store, CODE_TRIES - 1, NOW).await;
    let typed = by_code(letter, "Ann@example.org");
    let made = created(confirm(&*store, &typed, Some(ann.id), at(1)).await);
    assert_eq!(made.email_verified_at, Some(at(1)));
}

async fn a_registration_becomes_an_account_once(database: Database) {
    let store = database.open().await;
    let ann = registration(ANN, NOW);
    let letter = wait(&*store, &ann).await;
    created(confirm(&*store, &by_link(letter), Some(ann.id), NOW).await);
    for proof in [by_link(letter), by_code(letter, ANN)] {
        assert_eq!(shown(&*store, &proof, NOW).await, None);
        let again = confirm(&*store, &proof, Some(ann.id), NOW).await;
        assert_eq!(again, ConfirmRegistration::Refused);
    }
}

async fn a_taken_address_makes_no_account(database: Database) {
    let store = database.open().await;
    let mut ann = registration(ANN, NOW);
    ann.username = Some(name("ann"));
    let letter = wait(&*store, &ann).await;
    let other = add_user(&*store, "Ann@example.org").await;
    for proof in [by_link(letter), by_code(letter, ANN)] {
        let outcome = confirm(&*store, &proof, Some(ann.id), NOW).await;
        assert_eq!(outcome, ConfirmRegistration::EmailTaken);
    }
    assert_eq!(login_finds(&*store, &by_email(ANN)).await, Some(other));
    assert_eq!(login_finds(&*store, &by_username("ann")).await, None);
    assert_eq!(user(&*store, other).await.email_verified_at, None);
}

async fn a_taken_name_makes_no_account_until_it_is_free(database: Database) {
    let store = database.open().await;
    let mut ann = registration(ANN, NOW);
    ann.username = Some(name("ann"));
    let letter = wait(&*store, &ann).await;
    let other = add(&*store, &named_user("other@example.org", "Ann")).await;
    for proof in [by_link(letter), by_code(letter, ANN)] {
        let outcome = confirm(&*store, &proof, Some(ann.id), NOW).await;
        assert_eq!(outcome, ConfirmRegistration::UsernameTaken);
    }
    assert_eq!(login_finds(&*store, &by_email(ANN)).await, None);
    let patch = UserPatch {
        username: Some(None),
        ..UserPatch::default()
    };
    let given_up = store
        .update_user(other, &patch, None, SINGLE, IDLE, &by(NOW))
        .await;
    assert!(matches!(given_up, Ok(UpdateUser::Updated(_))));
    created(confirm(&*store, &by_code(letter, ANN), Some(ann.id), NOW).await);
}

async fn a_link_without_the_expected_registration_is_refused_and_not_spent(database: Database) {
    let store = database.open().await;
    let (ann, bob) = (registration(ANN, NOW), registration("bob@example.org", NOW));
    let letter = wait(&*store, &ann).await;
    wait(&*store, &bob).await;
    for expected in [None, Some(bob.id)] {
        for _ in 0..=CODE_TRIES {
            let outcome = confirm(&*store, &by_link(letter), expected, NOW).await;
            assert_eq!(outcome, ConfirmRegistration::Refused);
        }
    }
    created(confirm(&*store, &by_code(letter, ANN), Some(ann.id), NOW).await);
}

/// ASVS 6.6.3.
async fn a_code_without_the_expected_registration_counts_as_wrong(database: Database) {
    let store = database.open().await;
    for (n, is_other) in [(0, false), (1, true)] {
        let email = format!("ann{n}@example.org");
        let ann = registration(&email, NOW);
        let other = Some(registration(&email, NOW).id).filter(|_| is_other);
        let letter = wait(&*store, &ann).await;
        let typed = by_code(letter, &email);
        for _ in 0..CODE_TRIES {
            let outcome = confirm(&*store, &typed, other, NOW).await;
            assert_eq!(outcome, ConfirmRegistration::Refused);
        }
        let right = confirm(&*store, &typed, Some(ann.id), NOW).await;
        assert_eq!(right, ConfirmRegistration::Refused);
    }
}

async fn after_five_wrong_codes_only_the_link_is_right(database: Database) {
    let store = database.open().await;
    let ann = registration(ANN, NOW);
    let letter = wait(&*store, &ann).await;
    guess(&*store, CODE_TRIES, NOW).await;
    let right = confirm(&*store, &by_code(letter, ANN), Some(ann.id), NOW).await;
    assert_eq!(right, ConfirmRegistration::Refused);
    created(confirm(&*store, &by_link(letter), Some(ann.id), NOW).await);
}

async fn wrong_tries_are_inherited_by_a_newer_registration(database: Database) {
    let store = database.open().await;
    wait(&*store, &registration(ANN, NOW)).await;
    guess(&*store, CODE_TRIES, NOW).await;
    for seconds in [1, 2] {
        let newer = registration("Ann@example.org", at(seconds));
        let letter = register(&*store, &newer).await;
        assert!(!ready(&*store, letter, at(seconds)).await.has_code);
    }
    let other = registration("bob@example.org", at(3));
    let letter = register(&*store, &other).await;
    assert!(ready(&*store, letter, at(3)).await.has_code);
}

async fn wrong_tries_before_its_letter_do_not_hide_those_before(database: Database) {
    let store = database.open().await;
    wait(&*store, &registration(ANN, NOW)).await;
    guess(&*store, CODE_TRIES, NOW).await;
    for seconds in [1, 2] {
        let newer = registration(ANN, at(seconds));
        let letter = register(&*store, &newer).await;
        guess(&*store, 1, at(seconds)).await;
        assert!(!ready(&*store, letter, at(seconds)).await.has_code);
    }
}

async fn wrong_tries_for_an_address_are_forgotten_after_an_hour(database: Database) {
    let store = database.open().await;
    let first = register(&*store, &registration(ANN, NOW)).await;
    ready(&*store, first, NOW).await;
    guess(&*store, CODE_TRIES, NOW).await;
    let hour = NOW.plus(TRIES_REMEMBERED);
    let last_moment = hour.minus(Span::millis(1));
    assert!(!ready(&*store, first, last_moment).await.has_code);
    let newer = registration(ANN, hour);
    let letter = register(&*store, &newer).await;
    assert!(ready(&*store, letter, hour).await.has_code);
    guess(&*store, CODE_TRIES - 1, hour).await;
    created(confirm(&*store, &by_code(letter, ANN), Some(newer.id), hour).await);
}

async fn a_letter_asked_for_again_takes_the_place_of_the_link_and_keeps_the_tries(
    database: Database,
) {
    let store = database.open().await;
    let ann = registration(ANN, NOW);
    let first = wait(&*store, &ann).await;
    guess(&*store, 3, NOW).await;
    let again = mail_to(&*store, LetterKind::VerifyEmail, ANN, at(60)).await;
    assert_eq!(shown(&*store, &by_link(first), at(61)).await, None);
    assert_eq!(shown(&*store, &by_link(again), at(61)).await, Some(ann.id));
    guess(&*store, 1, at(61)).await;
    let older = confirm(&*store, &by_code(first, ANN), Some(ann.id), at(61)).await;
    assert_eq!(older, ConfirmRegistration::Refused, "the fifth");
    let right = confirm(&*store, &by_code(again, ANN), Some(ann.id), at(61)).await;
    assert_eq!(right, ConfirmRegistration::Refused);
    let letter = letter_to(LetterKind::VerifyEmail, ANN, at(120));
    let letter = store_letter(&*store, &letter).await;
    assert!(!ready(&*store, letter, at(120)).await.has_code);
    created(confirm(&*store, &by_link(letter), Some(ann.id), at(120)).await);
}

/// ASVS 6.5.5.
async fn a_registrations_code_expires_before_its_link(database: Database) {
    let store = database.open().await;
    let end = NOW.plus(CODE_TTL);
    let ann = registration(ANN, NOW);
    let letter = wait(&*store, &ann).await;
    let late = confirm(&*store, &by_code(letter, ANN), Some(ann.id), end).await;
    assert_eq!(late, ConfirmRegistration::Refused);
    created(confirm(&*store, &by_link(letter), Some(ann.id), end).await);
}

async fn an_older_registration_has_its_link_and_no_code(database: Database) {
    let store = database.open().await;
    let (older, newer) = (registration(ANN, NOW), registration(ANN, at(1)));
    let of_older = wait(&*store, &older).await;
    wait(&*store, &newer).await;
    for expected in [older.id, newer.id] {
        let outcome = confirm(&*store, &by_code(of_older, ANN), Some(expected), at(2)).await;
        assert_eq!(outcome, ConfirmRegistration::Refused);
    }
    created(confirm(&*store, &by_link(of_older), Some(older.id), at(2)).await);
}

async fn all_registrations_of_an_address_end_with_one(database: Database) {
    let store = database.open().await;
    let (first, second) = (
        registration(ANN, NOW),
        registration("Ann@example.org", at(1)),
    );
    let bob = registration("bob@example.org", NOW);
    let of_first = wait(&*store, &first).await;
    let of_second = wait(&*store, &second).await;
    let of_bob = wait(&*store, &bob).await;
    created(confirm(&*store, &by_link(of_second), Some(second.id), at(2)).await);
    assert_eq!(shown(&*store, &by_link(of_first), at(2)).await, None);
    let outcome = confirm(&*store, &by_link(of_first), Some(first.id), at(2)).await;
    assert_eq!(outcome, ConfirmRegistration::Refused);
    created(confirm(&*store, &by_link(of_bob), Some(bob.id), at(2)).await);
}

async fn what_has_expired_is_refused(database: Database) {
    let store = database.open().await;
    let ann = NewRegistration {
        expires_at: at(300),
        ..registration(ANN, NOW)
    };
    let letter = wait(&*store, &ann).await;
    for proof in [by_link(letter), by_code(letter, ANN)] {
        assert_eq!(shown(&*store, &proof, at(300)).await, None);
        let outcome = confirm(&*store, &proof, Some(ann.id), at(300)).await;
        assert_eq!(outcome, ConfirmRegistration::Refused);
    }
    created(confirm(&*store, &by_link(letter), Some(ann.id), at(299)).await);
    let bob = NewRegistration {
        expires_at: NOW.plus(Span::days(9)),
        ..registration("bob@example.org", NOW)
    };
    let letter = wait(&*store, &bob).await;
    let end_of_link = NOW.plus(Span::days(1));
    assert_eq!(shown(&*store, &by_link(letter), end_of_link).await, None);
    let outcome = confirm(&*store, &by_link(letter), Some(bob.id), end_of_link).await;
    assert_eq!(outcome, ConfirmRegistration::Refused);
}

async fn a_code_of_a_user_shows_no_registration(database: Database) {
    let store = database.open().await;
    let ann: UserId = add_user(&*store, ANN).await;
    let bob = registration("bob@example.org", NOW);
    let letter = wait(&*store, &bob).await;
    let of_user = by_users_code(letter, ann);
    assert_eq!(shown(&*store, &of_user, NOW).await, None);
    let outcome = confirm(&*store, &of_user, Some(bob.id), NOW).await;
    assert_eq!(outcome, ConfirmRegistration::Refused);
    let verification = mail_to(&*store, LetterKind::VerifyEmail, ANN, NOW).await;
    for proof in [by_link(verification), by_code(verification, ANN)] {
        assert_eq!(shown(&*store, &proof, NOW).await, None);
    }
    assert_eq!(user(&*store, ann).await.email, address(ANN));
}

async fn one_of_fifty_concurrent_confirmations_wins(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..rounds(30) {
        let email = format!("ann{round}@example.org");
        let ann = registration(&email, NOW);
        let letter = wait(&*nodes[0], &ann).await;
        let racers = (0..50).map(|n| {
            let store = Arc::clone(&nodes[n % 2]);
            let (link, code) = (by_link(letter), by_code(letter, &email));
            let proof = if round % 2 == 0 { link } else { code };
            async move { confirm(&*store, &proof, Some(ann.id), NOW).await }
        });
        let outcomes = race(racers).await;
        assert_eq!(number_created(&outcomes), 1, "{outcomes:?}");
    }
}

fn number_created(outcomes: &[ConfirmRegistration]) -> usize {
    let is_created = |one: &&_| matches!(one, ConfirmRegistration::Created(_));
    outcomes.iter().filter(is_created).count()
}

/// Confirms two registrations at once, each on a node of its own.
async fn race_two(nodes: &[Arc<dyn Store>; 2], waiting: [&NewRegistration; 2]) {
    let mut proofs = Vec::new();
    for one in waiting {
        proofs.push((by_link(wait(&*nodes[0], one).await), one.id));
    }
    let racers = proofs.into_iter().zip(nodes).map(|((proof, id), node)| {
        let store = Arc::clone(node);
        async move { confirm(&*store, &proof, Some(id), at(1)).await }
    });
    let outcomes = race(racers.collect::<Vec<_>>()).await;
    assert_eq!(number_created(&outcomes), 1, "{outcomes:?}");
}

async fn two_racing_registrations_of_an_address_make_one_account(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..rounds(100) {
        let email = format!("ann{round}@example.org");
        let [first, second] = [0, 1].map(|n| registration(&email, at(n)));
        race_two(&nodes, [&first, &second]).await;
        let found = login_finds(&*nodes[1], &by_email(&email)).await;
        assert!(found.is_some());
    }
}

async fn two_racing_registrations_of_a_name_make_one_account(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..rounds(100) {
        let [first, second] = ["ann", "bob"].map(|who| NewRegistration {
            username: Some(name(&format!("name{round}"))),
            ..registration(&format!("{who}{round}@example.org"), NOW)
        });
        race_two(&nodes, [&first, &second]).await;
    }
}

//! What is over is removed in batches, what is not stays, and one node at a time does it.

use doorward::{
    clock::{Span, Timestamp},
    ids::{LetterId, UserId},
    model::{
        device::NewDevice,
        mail::{LetterKind, Settlement},
        quota::{Draw, Quota},
        role::FixedRoles,
        session::CloseReason,
        token::SecretHash,
        user::{NewUser, UserPatch},
    },
    store::{
        ChangeEmail, ChangeLetter, ChangeStanding, CreateUser, Leftover, Prepared, Redeem, Store,
        Take, UpdateUser,
    },
};
use uuid::Uuid;

use super::{
    mailing::{
        all_letters, by_link, by_wrong_code, claim, is_obsolete, letter, letter_to,
        mail_new_address, mail_to, prepare, read, ready, register, registration, store_letter,
    },
    sample::{
        IDLE, Login, NOW, SINGLE, add, add_invited, add_user, at, by_email, hash, limit,
        login_finds, new_user, open_one, roles, two_nodes, view,
    },
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race},
};

for_each_store! {
    sessions_go_by_the_end_that_they_would_have_had,
    a_batch_is_no_larger_than_asked_for,
    a_spent_secret_goes_after_its_letter,
    letters_that_wait_stay,
    registrations_go_when_they_are_over,
    an_address_is_kept_until_its_time,
    an_account_that_was_never_verified_goes_with_everything,
    whoever_was_verified_once_stays,
    an_account_with_a_role_or_without_leave_stays,
    verifying_and_removing_race,
    counters_and_devices_go_when_they_count_for_nothing,
    one_holder_has_a_lease,
}

async fn sweep(store: &dyn Store, what: Leftover, before: Timestamp) -> u32 {
    store
        .sweep(what, before, 100, &by(NOW))
        .await
        .expect("an answer")
}

fn days(n: i64) -> Timestamp {
    NOW.plus(Span::days(n))
}

/// ASVS 14.2.7.
async fn sessions_go_by_the_end_that_they_would_have_had(database: Database) {
    let store = database.open().await;
    let user = add_user(&*store, "ann@example.org").await;
    let old = open_one(&*store, user, NOW).await;
    let login = Login::of(&*store, user).await.under(limit(100));
    let closed = login.open(&*store, NOW).await.id;
    let reason = CloseReason::LoggedOut;
    let by = by(at(1));
    let close = store.close_session(user, closed, reason, None, &by);
    close.await.expect("an answer");
    let young = login.open(&*store, days(1)).await.id;

    assert_eq!(sweep(&*store, Leftover::Sessions, days(30)).await, 0);
    assert!(
        view(&*store, user, closed).await.is_some(),
        "still told why"
    );

    let later = days(30).plus(Span::secs(1));
    assert!(sweep(&*store, Leftover::Sessions, later).await > 0);
    assert!(view(&*store, user, old).await.is_none());
    assert!(view(&*store, user, closed).await.is_none());
    assert!(view(&*store, user, young).await.is_some());
    assert_eq!(sweep(&*store, Leftover::Sessions, later).await, 0);
}

async fn a_batch_is_no_larger_than_asked_for(database: Database) {
    let store = database.open().await;
    for n in 0..5 {
        let user = add_user(&*store, &format!("user{n}@example.org")).await;
        open_one(&*store, user, NOW).await;
    }
    let mut batches = Vec::new();
    for _ in 0..4 {
        let swept = store.sweep(Leftover::Sessions, days(31), 2, &by(NOW)).await;
        batches.push(swept.expect("an answer"));
    }
    assert_eq!(batches, [2, 2, 1, 0]);
}

/// A letter that is tried again makes its secret anew, so what was spent must be remembered until then.
async fn a_spent_secret_goes_after_its_letter(database: Database) {
    let store = database.open().await;
    add_user(&*store, "ann@example.org").await;
    let letter = letter_to(LetterKind::VerifyEmail, "ann@example.org", NOW);
    let id = store_letter(&*store, &letter).await;
    ready(&*store, id, NOW).await;
    let spent = store.verify_email(&by_link(id), &by(at(1))).await;
    assert!(spent.expect("an answer").is_some());
    let fence = read(&*store, id).await.fence;
    let dead = Settlement::Dead {
        error: "refused".to_owned(),
    };
    let settled = store.settle_letter(id, fence, &dead, at(2)).await;
    assert!(settled.expect("an answer"));

    assert_eq!(sweep(&*store, Leftover::OneTimeSecrets, days(60)).await, 0);
    let retried = store
        .retry_letter(id, &by(days(60)))
        .await
        .expect("an answer");
    assert!(matches!(retried, ChangeLetter::Changed(_)), "{retried:?}");
    assert!(is_obsolete(&*store, id, days(60)).await);

    let fence = read(&*store, id).await.fence;
    let settled = store.settle_letter(id, fence, &dead, days(60)).await;
    assert!(settled.expect("an answer"));
    assert_eq!(sweep(&*store, Leftover::Letters, days(61)).await, 1);
    assert_eq!(sweep(&*store, Leftover::OneTimeSecrets, days(61)).await, 1);
    // Without a letter: an administrator's link, once it has expired.
    add_invited(&*store, "ben@example.org").await;
    assert_eq!(sweep(&*store, Leftover::OneTimeSecrets, days(1)).await, 0);
    assert_eq!(sweep(&*store, Leftover::OneTimeSecrets, days(2)).await, 1);
}

async fn letters_that_wait_stay(database: Database) {
    let store = database.open().await;
    add_user(&*store, "ann@example.org").await;
    let kind = LetterKind::ResetPassword;
    let sent = mail_to(&*store, kind, "ann@example.org", NOW).await;
    let fence = read(&*store, sent).await.fence;
    let settled = store.settle_letter(sent, fence, &Settlement::Sent, at(1));
    assert!(settled.await.expect("an answer"));
    let waiting = store_letter(&*store, &letter_to(kind, "ann@example.org", at(61))).await;
    claim(&*store, at(62)).await;

    assert_eq!(sweep(&*store, Leftover::Letters, at(1)).await, 0);
    assert_eq!(sweep(&*store, Leftover::Letters, days(99)).await, 1);
    let left: Vec<_> = all_letters(&*store)
        .await
        .iter()
        .map(|l| l.new.id)
        .collect();
    assert_eq!(left, [waiting]);
}

async fn registrations_go_when_they_are_over(database: Database) {
    let store = database.open().await;
    register(&*store, &registration("ann@example.org", NOW)).await;
    let young = register(&*store, &registration("ben@example.org", days(1))).await;
    assert_eq!(sweep(&*store, Leftover::Registrations, days(1)).await, 0);
    let later = days(1).plus(Span::secs(1));
    assert_eq!(sweep(&*store, Leftover::Registrations, later).await, 1);
    assert!(matches!(
        prepare(&*store, young, later).await,
        Prepared::Ready(_)
    ));
}

async fn an_address_is_kept_until_its_time(database: Database) {
    let store = database.open().await;
    let user = add_user(&*store, "ann@example.org").await;
    let kind = LetterKind::VerifyEmail;
    let verify = mail_to(&*store, kind, "ann@example.org", NOW).await;
    let verified = store.verify_email(&by_link(verify), &by(at(1))).await;
    assert!(verified.expect("an answer").is_some());
    let change = mail_new_address(&*store, user, "new@example.org", at(2)).await;
    // Without a notice there would be nothing to keep it for.
    let notice = letter(LetterKind::EmailChanged, at(3));
    let proof = by_link(change);
    let changed = store.change_email(&proof, Some(&notice), &by(at(3))).await;
    assert!(matches!(changed, Ok(ChangeEmail::Changed(_))));

    assert_eq!(sweep(&*store, Leftover::KeptAddresses, days(14)).await, 0);
    let other = new_user("ann@example.org");
    let taken = store.create_user(&other, None, None, &by(NOW)).await;
    assert_eq!(taken.expect("an answer"), CreateUser::EmailTaken);
    assert_eq!(sweep(&*store, Leftover::KeptAddresses, days(15)).await, 1);
    add_user(&*store, "ann@example.org").await;
    assert_eq!(
        login_finds(&*store, &by_email("new@example.org")).await,
        Some(user)
    );
}

/// Stores a user who has a week to verify the address.
async fn add_provisional(store: &dyn Store, email: &str) -> UserId {
    let new = NewUser {
        provisional_until: Some(days(7)),
        ..new_user(email)
    };
    add(store, &new).await
}

async fn redeem(store: &dyn Store, letter: LetterId) -> Redeem {
    let (proof, new) = (by_link(letter), hash("new"));
    let redeemed = store
        .redeem_set_password(&proof, &new, None, &by(at(1)))
        .await;
    redeemed.expect("an answer")
}

async fn exists(store: &dyn Store, user: UserId) -> bool {
    store.user(user).await.expect("an answer").is_some()
}

async fn an_account_that_was_never_verified_goes_with_everything(database: Database) {
    let store = database.open().await;
    let user = add_provisional(&*store, "ann@example.org").await;
    let session = open_one(&*store, user, NOW).await;
    let reset = mail_to(&*store, LetterKind::ResetPassword, "ann@example.org", NOW).await;
    assert_eq!(sweep(&*store, Leftover::Accounts, days(7)).await, 0);
    assert!(exists(&*store, user).await);

    assert_eq!(sweep(&*store, Leftover::Accounts, days(8)).await, 1);
    assert!(!exists(&*store, user).await);
    assert!(view(&*store, user, session).await.is_none());
    assert_eq!(redeem(&*store, reset).await, Redeem::Refused);
    let again = add_user(&*store, "ann@example.org").await;
    assert_ne!(again, user);
}

async fn whoever_was_verified_once_stays(database: Database) {
    let store = database.open().await;
    let kind = LetterKind::VerifyEmail;
    let by_letter = add_provisional(&*store, "ann@example.org").await;
    let letter = mail_to(&*store, kind, "ann@example.org", NOW).await;
    let verified = store.verify_email(&by_link(letter), &by(at(1))).await;
    assert!(verified.expect("an answer").is_some());

    let by_reset = add_provisional(&*store, "ben@example.org").await;
    let letter = mail_to(&*store, LetterKind::ResetPassword, "ben@example.org", NOW).await;
    let redeemed = redeem(&*store, letter).await;
    assert_eq!(redeemed, Redeem::Redeemed(by_reset));

    let by_new_address = add_provisional(&*store, "cyd@example.org").await;
    let letter = mail_new_address(&*store, by_new_address, "cy@example.org", NOW).await;
    let changed = store.change_email(&by_link(letter), None, &by(at(1))).await;
    changed.expect("an answer");

    let by_administrator = add_provisional(&*store, "dan@example.org").await;
    let patch = UserPatch {
        email_verified: Some(true),
        ..UserPatch::default()
    };
    patched(&*store, by_administrator, &patch).await;

    // Whatever becomes of their addresses afterwards.
    let unverified = UserPatch {
        email_verified: Some(false),
        ..UserPatch::default()
    };
    let all = [by_letter, by_reset, by_new_address, by_administrator];
    for user in all {
        patched(&*store, user, &unverified).await;
    }
    assert_eq!(sweep(&*store, Leftover::Accounts, days(99)).await, 0);
    for user in all {
        assert!(exists(&*store, user).await, "{user}");
    }
}

async fn patched(store: &dyn Store, user: UserId, patch: &UserPatch) {
    let outcome = store
        .update_user(user, patch, None, SINGLE, IDLE, &by(at(2)))
        .await;
    let outcome = outcome.expect("an answer");
    assert!(matches!(outcome, UpdateUser::Updated(_)), "{outcome:?}");
}

async fn an_account_with_a_role_or_without_leave_stays(database: Database) {
    let store = database.open().await;
    let stays = add_user(&*store, "ann@example.org").await;
    let editor = add_provisional(&*store, "ben@example.org").await;
    let given = store
        .set_roles(
            editor,
            &roles(["editor"]),
            &FixedRoles::default(),
            &by(at(1)),
        )
        .await;
    assert!(matches!(given, Ok(ChangeStanding::Changed(_))), "{given:?}");
    let banned = add_provisional(&*store, "cyd@example.org").await;
    let deactivated = store
        .deactivate_user(banned, None, &FixedRoles::default(), &by(at(1)))
        .await;
    assert!(matches!(deactivated, Ok(ChangeStanding::Changed(_))));
    assert_eq!(sweep(&*store, Leftover::Accounts, days(99)).await, 0);
    for user in [stays, editor, banned] {
        assert!(exists(&*store, user).await);
    }
}

/// Whoever is told that the address is verified has an account.
async fn verifying_and_removing_race(database: Database) {
    let nodes = two_nodes(&database).await;
    for n in 0..20 {
        let email = format!("user{n}@example.org");
        let user = add_provisional(&*nodes[0], &email).await;
        let letter = mail_to(&*nodes[0], LetterKind::VerifyEmail, &email, days(6)).await;
        let [one, other] = nodes.clone();
        let verify: std::pin::Pin<Box<dyn Future<Output = bool> + Send>> = Box::pin(async move {
            let verified = one.verify_email(&by_link(letter), &by(days(6))).await;
            verified.expect("an answer").is_some()
        });
        let remove = Box::pin(async move { sweep(&*other, Leftover::Accounts, days(8)).await > 0 });
        let answers = race([verify, remove]).await;
        assert_ne!(answers[0], answers[1], "verified and removed: {answers:?}");
        assert_eq!(exists(&*nodes[1], user).await, answers[0]);
        // So that the next round begins with nobody to remove.
        let wrong = nodes[0]
            .verify_email(&by_wrong_code(&email), &by(days(6)))
            .await;
        assert!(wrong.expect("an answer").is_none());
    }
}

async fn counters_and_devices_go_when_they_count_for_nothing(database: Database) {
    let store = database.open().await;
    let user = add_user(&*store, "ann@example.org").await;
    let draw = Draw {
        key: SecretHash::of("ann"),
        account: None,
        quota: Some(Quota::new(1, Span::secs(60))),
        permits: 1,
        failures: None,
    };
    let taken = store.take(&draw, NOW).await.expect("an answer");
    assert_eq!(taken, Take::Admitted);
    let device = NewDevice {
        hash: SecretHash::of("a device"),
        user_id: user,
        created_at: NOW,
        expires_at: at(60),
    };
    store.add_device(&device, 20).await.expect("stored");
    for what in [Leftover::Counters, Leftover::Devices] {
        assert_eq!(sweep(&*store, what, at(60)).await, 0, "{what:?}");
    }
    let owner = store.device_owner(&device.hash, at(59)).await;
    assert_eq!(owner.expect("an answer"), Some(user));
    for what in [Leftover::Counters, Leftover::Devices] {
        assert_eq!(sweep(&*store, what, at(61)).await, 1, "{what:?}");
        assert_eq!(sweep(&*store, what, at(61)).await, 0, "{what:?}");
    }
}

async fn one_holder_has_a_lease(database: Database) {
    let nodes = two_nodes(&database).await;
    let racers = (0..50).map(|n| {
        let node = nodes[n % 2].clone();
        let holder = Uuid::from_u128(n as u128 + 1);
        async move { node.take_lease("test", holder, at(60), NOW).await }
    });
    let taken: Vec<bool> = race(racers)
        .await
        .into_iter()
        .map(|taken| taken.expect("an answer"))
        .collect();
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 1, "{taken:?}");
    let winner = taken.iter().position(|taken| *taken).expect("one has it");
    let (winner, other) = (winner as u128 + 1, (winner as u128 + 1) % 50 + 1);
    let asks =
        |holder: u128, now| nodes[0].take_lease("test", Uuid::from_u128(holder), at(90), now);
    assert!(!asks(other, at(59)).await.expect("an answer"));
    assert!(asks(winner, at(59)).await.expect("an answer"), "renewed");
    assert!(!asks(other, at(89)).await.expect("an answer"));
    assert!(asks(other, at(90)).await.expect("an answer"), "it is over");
    let another = nodes[0].take_lease("another", Uuid::from_u128(7), at(60), NOW);
    assert!(another.await.expect("an answer"));
}

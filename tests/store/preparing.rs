//! Letters prepared: whom each kind is for by then, and which secret is left.

use std::sync::Arc;

use doorward::{
    clock::{Span, Timestamp},
    ids::{LetterId, UserId},
    model::{
        mail::{LetterKind, Settlement},
        token::Proof,
        user::{NewUser, User, UserPatch},
    },
    store::{ChangeEmail, CreateUser, Prepared, Redeem, SetPassword, Store},
};

use super::{
    mailing::{
        asked, by_link, claim, is_obsolete, letter, letter_of, letter_to, link_of, mail,
        mail_new_address, mail_notice, mail_to, new_address_letter, prepare, read, ready, register,
        registration, store_letter,
    },
    sample::{
        IDLE, NOW, SINGLE, add, add_user, address, at, built_in, credentials, fresh_user_id, hash,
        new_user, new_user_at, two_nodes, user,
    },
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, rounds},
};

for_each_store! {
    a_letter_to_the_own_address_is_for_whoever_has_it,
    a_letter_without_an_address_goes_to_its_users,
    a_letter_to_an_address_that_is_its_users_no_more_is_over,
    a_verified_address_is_not_verified_again,
    an_invitation_is_over_once_there_is_a_password,
    a_deactivated_user_gets_no_letters,
    a_new_address_is_confirmed_under_the_password_that_asked_for_it,
    a_new_address_that_somebody_has_tells_its_owner,
    the_own_address_can_only_be_written_in_another_way,
    a_notice_goes_to_its_address_or_to_its_users,
    a_registrations_letter_is_for_it_as_long_as_it_waits,
    a_registration_for_a_taken_address_tells_its_owner,
    a_verification_is_for_the_newest_registration_where_there_is_no_user,
    a_letter_that_was_lost_is_lost,
    preparing_twice_keeps_one_secret,
    a_used_secret_is_not_brought_back,
    a_voided_secret_is_not_brought_back,
    a_newer_letter_voids_the_secret_of_an_older_one,
    an_older_letter_does_not_take_the_place_of_a_newer_one,
    a_letter_that_is_dated_before_a_used_one_is_sent_all_the_same,
    secrets_of_other_purposes_and_users_stay,
    notices_do_not_void_each_other,
    preparing_and_voiding_leave_no_open_secret,
}

fn is_for(prepared: &Prepared, kind: LetterKind, to: &str, owner: Option<UserId>) -> bool {
    let Prepared::Ready(ready) = prepared else {
        panic!("{prepared:?}")
    };
    let found = ready.user.as_ref().map(|user| user.id);
    ready.kind == kind && ready.to.as_str() == to && found == owner
}

/// Whether a link verifies an address; it is spent then.
async fn verifies(store: &dyn Store, id: LetterId, now: Timestamp) -> bool {
    let verified = store.verify_email(&by_link(id), &by(now)).await;
    verified.expect("an answer").is_some()
}

/// Whether a link sets a password; it is spent then.
async fn redeems(store: &dyn Store, link: &Proof, now: Timestamp) -> bool {
    let redeemed = store
        .redeem_set_password(link, &hash("by link"), None, &by(now))
        .await;
    redeemed.expect("an answer") != Redeem::Refused
}

/// Whether a link is good for anything that there is; it is spent then.
async fn opens(store: &dyn Store, id: LetterId, now: Timestamp) -> bool {
    let changed = store.change_email(&by_link(id), None, &by(now)).await;
    let disowned = store.disown(&link_of(id), None, None, &by(now)).await;
    verifies(store, id, now).await
        || redeems(store, &by_link(id), now).await
        || changed.expect("an answer") != ChangeEmail::Refused
        || disowned.expect("an answer").is_some()
}

async fn deactivate(store: &dyn Store, user: UserId) {
    let done = store
        .deactivate_user(user, None, &built_in(), &by(NOW))
        .await;
    done.expect("an answer");
}

async fn give_address(store: &dyn Store, user: UserId, email: &str) {
    let patch = UserPatch {
        email: Some(address(email)),
        ..UserPatch::default()
    };
    let done = store
        .update_user(user, &patch, None, SINGLE, IDLE, &by(NOW))
        .await;
    done.expect("an answer");
}

async fn set_password(store: &dyn Store, user: UserId, now: Timestamp) {
    let version = credentials(store, user).await.credential_version;
    let outcome = store
        .set_password(user, &hash("new"), version, None, None, &by(now))
        .await;
    let outcome = outcome.expect("an answer");
    assert!(matches!(outcome, SetPassword::Changed { .. }));
}

async fn add_without_password(store: &dyn Store, email: &str) -> UserId {
    let new = NewUser {
        password_hash: None,
        ..new_user(email)
    };
    add(store, &new).await
}

const TO_OWN: [LetterKind; 2] = [LetterKind::VerifyEmail, LetterKind::ResetPassword];

async fn a_letter_to_the_own_address_is_for_whoever_has_it(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    for kind in TO_OWN {
        let unnamed = letter_to(kind, "Ann@Example.org", NOW);
        let id = store_letter(&*store, &unnamed).await;
        let ready = ready(&*store, id, at(1)).await;
        assert_eq!((ready.kind, ready.has_code), (kind, true));
        assert_eq!(ready.user, Some(user(&*store, ann).await));
        assert_eq!(ready.to.as_str(), "Ann@Example.org", "as it was asked for");
        let named = letter_to(kind, "ann@example.org", at(1)).about(ann);
        let id = store_letter(&*store, &named).await;
        let prepared = prepare(&*store, id, at(1)).await;
        assert!(is_for(&prepared, kind, "ann@example.org", Some(ann)));
        let to_nobody = letter_to(kind, "nobody@example.org", NOW);
        let id = store_letter(&*store, &to_nobody).await;
        assert!(is_obsolete(&*store, id, at(1)).await);
        let gone = letter_to(kind, "ann@example.org", NOW).about(fresh_user_id());
        let id = store_letter(&*store, &gone).await;
        assert!(is_obsolete(&*store, id, at(1)).await);
        let id = store_letter(&*store, &letter(kind, NOW)).await;
        assert!(is_obsolete(&*store, id, at(1)).await);
    }
}

async fn a_letter_without_an_address_goes_to_its_users(database: Database) {
    let store = database.open().await;
    let ann = add_without_password(&*store, "ann@example.org").await;
    for kind in [
        LetterKind::VerifyEmail,
        LetterKind::ResetPassword,
        LetterKind::Invitation,
        LetterKind::PasswordChanged,
    ] {
        let id = store_letter(&*store, &letter(kind, NOW).about(ann)).await;
        let prepared = prepare(&*store, id, at(1)).await;
        assert!(is_for(&prepared, kind, "ann@example.org", Some(ann)));
    }
}

async fn a_letter_to_an_address_that_is_its_users_no_more_is_over(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    for kind in TO_OWN {
        give_address(&*store, ann, "new@example.org").await;
        let named = letter_to(kind, "ann@example.org", NOW).about(ann);
        let unnamed = letter_to(kind, "ann@example.org", at(1));
        let named = store_letter(&*store, &named).await;
        let unnamed = store_letter(&*store, &unnamed).await;
        assert!(is_obsolete(&*store, named, at(2)).await);
        assert!(is_obsolete(&*store, unnamed, at(2)).await);
        give_address(&*store, ann, "ann@example.org").await;
    }
}

async fn a_verified_address_is_not_verified_again(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let first = mail_to(&*store, LetterKind::VerifyEmail, "ann@example.org", NOW).await;
    assert!(verifies(&*store, first, NOW).await);
    let named = letter_to(LetterKind::VerifyEmail, "ann@example.org", at(1));
    for again in [
        named.clone(),
        letter(LetterKind::VerifyEmail, at(1)).about(ann),
    ] {
        let id = store_letter(&*store, &again).await;
        assert!(is_obsolete(&*store, id, at(1)).await);
    }
    mail_to(&*store, LetterKind::ResetPassword, "ann@example.org", NOW).await;
}

async fn an_invitation_is_over_once_there_is_a_password(database: Database) {
    let store = database.open().await;
    let ann = add_without_password(&*store, "ann@example.org").await;
    let invitation = |now| letter_to(LetterKind::Invitation, "ann@example.org", now).about(ann);
    let id = store_letter(&*store, &invitation(NOW)).await;
    let ready = ready(&*store, id, NOW).await;
    assert_eq!(
        (ready.kind, ready.has_code),
        (LetterKind::Invitation, false)
    );
    assert!(
        redeems(
            &*store,
            &by_link(id),
            NOW.plus(Span::days(3)).minus(Span::millis(1))
        )
        .await
    );
    let id = store_letter(&*store, &invitation(at(1))).await;
    assert!(is_obsolete(&*store, id, at(1)).await);
}

async fn a_deactivated_user_gets_no_letters(database: Database) {
    let store = database.open().await;
    let ann = add_without_password(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let mut letters = vec![
        new_address_letter(&*store, ann, "new@example.org", NOW).await,
        new_address_letter(&*store, bob, "ann@example.org", NOW).await,
    ];
    for kind in LetterKind::ALL {
        if kind != LetterKind::ConfirmNewEmail {
            letters.push(letter_to(kind, "ann@example.org", at(1)).about(ann));
        }
    }
    deactivate(&*store, ann).await;
    for letter in letters {
        let id = store_letter(&*store, &letter).await;
        assert!(is_obsolete(&*store, id, at(1)).await, "{:?}", letter.kind);
    }
}

async fn a_new_address_is_confirmed_under_the_password_that_asked_for_it(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let asked = new_address_letter(&*store, ann, "new@example.org", NOW).await;
    let id = store_letter(&*store, &asked).await;
    let ready = ready(&*store, id, NOW).await;
    assert_eq!(ready.kind, LetterKind::ConfirmNewEmail);
    assert!(ready.has_code);
    assert_eq!(ready.to.as_str(), "new@example.org");
    assert_eq!(ready.user.map(|user: User| user.id), Some(ann));
    let stale = new_address_letter(&*store, ann, "new@example.org", at(1)).await;
    set_password(&*store, ann, at(1)).await;
    let unversioned = letter_to(LetterKind::ConfirmNewEmail, "x@example.org", at(1)).about(ann);
    let of_nobody = letter_to(LetterKind::ConfirmNewEmail, "x@example.org", at(1));
    let to_nowhere = letter(LetterKind::ConfirmNewEmail, at(1)).about(ann);
    for letter in [stale, unversioned, of_nobody, to_nowhere] {
        let id = store_letter(&*store, &letter).await;
        assert!(is_obsolete(&*store, id, at(1)).await);
    }
}

async fn a_new_address_that_somebody_has_tells_its_owner(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let letter = new_address_letter(&*store, ann, "Bob@example.org", NOW).await;
    let id = store_letter(&*store, &letter).await;
    let prepared = prepare(&*store, id, NOW).await;
    let kind = LetterKind::AddressTaken;
    assert!(is_for(&prepared, kind, "Bob@example.org", Some(bob)));
    assert!(!opens(&*store, id, NOW).await);
}

async fn the_own_address_can_only_be_written_in_another_way(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let verified = mail_to(&*store, LetterKind::VerifyEmail, "ann@example.org", NOW).await;
    assert!(verifies(&*store, verified, NOW).await);
    let same = new_address_letter(&*store, ann, "ann@example.org", NOW).await;
    let id = store_letter(&*store, &same).await;
    assert!(is_obsolete(&*store, id, NOW).await);
    let id = mail_new_address(&*store, ann, "Ann@example.org", at(1)).await;
    let changed = store.change_email(&by_link(id), None, &by(at(1))).await;
    assert!(matches!(changed, Ok(ChangeEmail::Changed(_))));
    assert_eq!(user(&*store, ann).await.email.as_str(), "Ann@example.org");
}

async fn a_notice_goes_to_its_address_or_to_its_users(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    for kind in [
        LetterKind::EmailChanged,
        LetterKind::PasswordChanged,
        LetterKind::RefreshReused,
        LetterKind::NewDevice,
    ] {
        let own = store_letter(&*store, &letter(kind, NOW).about(ann)).await;
        let prepared = prepare(&*store, own, NOW).await;
        assert!(is_for(&prepared, kind, "ann@example.org", Some(ann)));
        let old = letter_to(kind, "old@example.org", NOW).about(ann);
        let old = store_letter(&*store, &old).await;
        let ready = ready(&*store, old, NOW).await;
        assert_eq!(
            (ready.to.as_str(), ready.has_code),
            ("old@example.org", false)
        );
        for nobodys in [
            letter_to(kind, "ann@example.org", NOW),
            letter(kind, NOW).about(fresh_user_id()),
        ] {
            let id = store_letter(&*store, &nobodys).await;
            assert!(is_obsolete(&*store, id, NOW).await);
        }
    }
}

async fn a_registrations_letter_is_for_it_as_long_as_it_waits(database: Database) {
    let store = database.open().await;
    let ann = registration("Ann@example.org", NOW);
    let id = register(&*store, &ann).await;
    let prepared = ready(&*store, id, at(1)).await;
    assert_eq!(prepared.kind, LetterKind::ConfirmRegistration);
    assert_eq!((prepared.user, prepared.has_code), (None, true));
    assert_eq!(prepared.to.as_str(), "Ann@example.org");
    let again = letter_of(&ann);
    let again = store_letter(&*store, &again).await;
    ready(&*store, again, ann.expires_at.minus(Span::millis(1))).await;
    let late = store_letter(&*store, &letter_of(&ann)).await;
    assert!(is_obsolete(&*store, late, ann.expires_at).await);
    let unknown = letter_of(&registration("ann@example.org", NOW));
    let unknown = store_letter(&*store, &unknown).await;
    assert!(is_obsolete(&*store, unknown, at(1)).await);
}

async fn a_registration_for_a_taken_address_tells_its_owner(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let id = register(&*store, &registration("Ann@example.org", at(1))).await;
    let ready = ready(&*store, id, at(1)).await;
    assert_eq!(
        (ready.kind, ready.has_code),
        (LetterKind::AddressTaken, false)
    );
    assert_eq!(ready.user.map(|user| user.id), Some(ann));
    assert_eq!(ready.to.as_str(), "Ann@example.org");
    let waiting = store.waiting_registration(&by_link(id), at(1)).await;
    assert!(waiting.expect("an answer").is_none());

    let id = register(&*store, &registration("bob@example.org", at(1))).await;
    add(&*store, &new_user_at("bob@example.org", at(2))).await;
    let is_over = is_obsolete(&*store, id, at(3)).await;
    assert!(is_over, "whose account is younger is told nothing of it");
}

async fn a_verification_is_for_the_newest_registration_where_there_is_no_user(database: Database) {
    let store = database.open().await;
    let first = registration("ann@example.org", NOW);
    let second = registration("ann@example.org", at(1));
    register(&*store, &second).await;
    register(&*store, &first).await;
    let again = letter_to(LetterKind::VerifyEmail, "Ann@example.org", at(2));
    let id = store_letter(&*store, &again).await;
    let prepared = prepare(&*store, id, at(2)).await;
    let kind = LetterKind::ConfirmRegistration;
    assert!(is_for(&prepared, kind, "Ann@example.org", None));
    let waiting = store.waiting_registration(&by_link(id), at(2)).await;
    let waiting = waiting.expect("an answer").expect("one waits");
    assert_eq!(waiting.id, second.id);
    let reset = letter_to(LetterKind::ResetPassword, "ann@example.org", at(2));
    let id = store_letter(&*store, &reset).await;
    assert!(is_obsolete(&*store, id, at(2)).await);
}

async fn a_letter_that_was_lost_is_lost(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    add_user(&*store, "ann@example.org").await;
    let letter = letter_to(LetterKind::ResetPassword, "ann@example.org", NOW);
    let id = store_letter(&*store, &letter).await;
    claim(&*store, NOW).await;
    claim(&*other_node, at(60)).await;
    let prepare = async |id, fence| {
        let prepared = store.prepare_letter(&asked(id, fence), at(60)).await;
        prepared.expect("an answer")
    };
    let unknown = LetterId::from(fresh_user_id().as_uuid());
    assert_eq!(prepare(unknown, 1).await, Prepared::Lost);
    assert_eq!(prepare(id, 1).await, Prepared::Lost);
    assert!(!opens(&*store, id, at(60)).await);
    assert!(matches!(prepare(id, 2).await, Prepared::Ready(_)));
    let settled = store.settle_letter(id, 2, &Settlement::Sent, at(60)).await;
    assert!(settled.expect("an answer"));
    assert_eq!(prepare(id, 2).await, Prepared::Lost);
}

async fn preparing_twice_keeps_one_secret(database: Database) {
    let store = database.open().await;
    add_user(&*store, "ann@example.org").await;
    let letter = letter_to(LetterKind::ResetPassword, "ann@example.org", NOW);
    let id = mail(&*store, &letter).await;
    ready(&*store, id, at(3000)).await;
    let an_hour_after_the_first = at(3600);
    let link = by_link(id);
    assert!(redeems(&*store, &link, an_hour_after_the_first).await);
    assert!(!redeems(&*store, &link, an_hour_after_the_first).await);
}

async fn a_used_secret_is_not_brought_back(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let verify = mail_to(&*store, LetterKind::VerifyEmail, "ann@example.org", NOW).await;
    assert!(verifies(&*store, verify, NOW).await);
    let change = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    let changed = store.change_email(&by_link(change), None, &by(NOW)).await;
    assert!(matches!(changed, Ok(ChangeEmail::Changed(_))));
    let notice = mail_notice(&*store, ann, NOW).await;
    let disowned = store.disown(&link_of(notice), None, None, &by(NOW)).await;
    assert_eq!(disowned.expect("an answer"), Some(ann));
    let reset = mail_to(&*store, LetterKind::ResetPassword, "new@example.org", NOW).await;
    assert!(redeems(&*store, &by_link(reset), NOW).await);
    for id in [verify, change, notice, reset] {
        let prepared = prepare(&*store, id, at(100)).await;
        assert!(!matches!(prepared, Prepared::Ready(_)), "{prepared:?}");
        assert!(!opens(&*store, id, at(100)).await);
    }
}

async fn a_voided_secret_is_not_brought_back(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let reset = mail_to(&*store, LetterKind::ResetPassword, "ann@example.org", NOW).await;
    set_password(&*store, ann, at(1)).await;
    let prepared = prepare(&*store, reset, at(100)).await;
    assert!(!matches!(prepared, Prepared::Ready(_)), "{prepared:?}");
    assert!(!opens(&*store, reset, at(100)).await);
}

async fn a_newer_letter_voids_the_secret_of_an_older_one(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    for kind in TO_OWN {
        let older = mail_to(&*store, kind, "ann@example.org", NOW).await;
        let newer = mail_to(&*store, kind, "ann@example.org", at(1)).await;
        assert!(!opens(&*store, older, at(2)).await);
        assert!(opens(&*store, newer, at(2)).await);
    }
    let older = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    let newer = mail_new_address(&*store, ann, "newer@example.org", at(1)).await;
    assert!(!opens(&*store, older, at(2)).await);
    assert!(opens(&*store, newer, at(2)).await);
}

async fn an_older_letter_does_not_take_the_place_of_a_newer_one(database: Database) {
    let store = database.open().await;
    add_user(&*store, "ann@example.org").await;
    let kind = LetterKind::ResetPassword;
    let older = store_letter(&*store, &letter_to(kind, "ann@example.org", NOW)).await;
    let newer = mail_to(&*store, kind, "ann@example.org", at(1)).await;
    assert!(is_obsolete(&*store, older, at(2)).await);
    assert!(redeems(&*store, &by_link(newer), at(2)).await, "unharmed");
}

/// Of two nodes' letters the later may be dated earlier, by as much as their clocks differ.
async fn a_letter_that_is_dated_before_a_used_one_is_sent_all_the_same(database: Database) {
    let store = database.open().await;
    add_user(&*store, "ann@example.org").await;
    let kind = LetterKind::ResetPassword;
    let used = mail_to(&*store, kind, "ann@example.org", at(1)).await;
    assert!(redeems(&*store, &by_link(used), at(2)).await);
    let later = mail_to(&*store, kind, "ann@example.org", NOW).await;
    assert!(redeems(&*store, &by_link(later), at(3)).await);
}

async fn secrets_of_other_purposes_and_users_stay(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    add_user(&*store, "bob@example.org").await;
    let change = mail_new_address(&*store, ann, "new@example.org", NOW).await;
    let verify = mail_to(&*store, LetterKind::VerifyEmail, "ann@example.org", NOW).await;
    let of_bob = mail_to(&*store, LetterKind::ResetPassword, "bob@example.org", NOW).await;
    let reset = mail_to(&*store, LetterKind::ResetPassword, "ann@example.org", NOW).await;
    assert!(verifies(&*store, verify, NOW).await);
    let changed = store.change_email(&by_link(change), None, &by(NOW)).await;
    assert!(matches!(changed, Ok(ChangeEmail::Changed(_))));
    assert!(
        !redeems(&*store, &by_link(reset), NOW).await,
        "went to the old address"
    );
    assert!(redeems(&*store, &by_link(of_bob), NOW).await);
}

async fn notices_do_not_void_each_other(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let newer = mail_notice(&*store, ann, at(1)).await;
    let older = mail_notice(&*store, ann, NOW).await;
    let third = mail_notice(&*store, ann, at(2)).await;
    assert!(opens(&*store, newer, at(3)).await);
    assert!(!opens(&*store, third, at(3)).await, "a later one is void");
    assert!(opens(&*store, older, at(3)).await, "an earlier one stays");
}

/// What voids secrets while a letter is prepared.
#[derive(Debug, Clone, Copy)]
enum Voiding {
    Redeem,
    SetPassword,
    Disown,
    ChangeEmail,
}

async fn preparing_and_voiding_leave_no_open_secret(database: Database) {
    let nodes = two_nodes(&database).await;
    let ways = [
        Voiding::Redeem,
        Voiding::SetPassword,
        Voiding::Disown,
        Voiding::ChangeEmail,
    ];
    for round in 0..rounds(120).max(24) {
        let voiding = ways[round % 4];
        let email = format!("ann{round}@example.org");
        let store = &nodes[0];
        let new = new_user(&email);
        let admins = super::sample::new_link(new.user.id);
        let made = store.create_user(&new, Some(&admins), None, &by(NOW)).await;
        assert_eq!(made.expect("an answer"), CreateUser::Created);
        let ann = new.user.id;
        let notice = mail_notice(&**store, ann, NOW).await;
        let change = format!("new{round}@example.org");
        let change = mail_new_address(&**store, ann, &change, NOW).await;
        let reset = letter_to(LetterKind::ResetPassword, &email, NOW);
        let id = store_letter(&**store, &reset).await;
        claim(&**store, NOW).await;
        let asked = asked(id, read(&**store, id).await.fence);
        let other_node = Arc::clone(&nodes[1]);
        let preparing = tokio::spawn(async move { other_node.prepare_letter(&asked, NOW).await });
        if round % 3 == 0 {
            tokio::task::yield_now().await;
        }
        match voiding {
            Voiding::Redeem => {
                assert!(redeems(&**store, &Proof::Link(admins.hash), NOW).await);
            }
            Voiding::SetPassword => set_password(&**store, ann, NOW).await,
            Voiding::Disown => {
                let done = store.disown(&link_of(notice), None, None, &by(NOW)).await;
                assert_eq!(done.expect("an answer"), Some(ann));
            }
            Voiding::ChangeEmail => {
                let done = store.change_email(&by_link(change), None, &by(NOW)).await;
                assert!(matches!(done, Ok(ChangeEmail::Changed(_))));
            }
        }
        let prepared = preparing.await.expect("no panic").expect("an answer");
        let is_open = opens(&**store, id, at(1)).await;
        assert!(!is_open, "{voiding:?} {prepared:?} in round {round}");
    }
}

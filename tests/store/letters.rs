//! Letters: stored with what causes them, shared out among workers, settled, retried and dropped.

use std::{collections::HashSet, sync::Arc};

use doorward::{
    clock::Span,
    ids::{LetterId, RegistrationId},
    model::{
        mail::{Letter, LetterDetails, LetterKind, LetterState, NewLetter, Settlement},
        session::CloseReason,
        token::Proof,
        user::UserPatch,
    },
    store::{
        ChangeLetter, CloseSession, CreateUser, LetterFilter, OpenSession, Redeem, SetPassword,
        Store, StoreError, UpdateUser,
    },
};

use super::{
    mailing::{LEASE, all_letters, claim, kinds, letter, letter_to, read, store_letter},
    sample::{
        IDLE, Login, NOW, SINGLE, add, add_invited, add_user, address, at, built_in, credentials,
        fresh_session_id, fresh_user_id, hash, name, named_user, new_link, new_user, open_one,
        reject, two_nodes,
    },
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race, rounds},
};

for_each_store! {
    a_letter_comes_back_as_it_was_stored,
    a_letter_is_stored_with_a_user_and_only_then,
    a_letter_is_stored_with_a_new_password_and_only_then,
    a_letter_is_stored_with_a_redeemed_link_if_there_was_a_password,
    a_letter_is_stored_with_a_session_and_only_then,
    a_letter_is_stored_by_whoever_closes_a_reused_session,
    a_notice_is_stored_with_another_address_and_goes_to_the_old_one,
    a_letter_is_not_stored_again_in_its_quiet_time,
    each_letter_is_given_to_one_of_many_claimers,
    a_lease_returns_after_its_time_and_not_before,
    the_longest_waiting_are_claimed_first,
    an_old_fence_settles_nothing,
    a_settled_letter_is_never_claimed,
    a_letter_that_failed_for_now_is_claimed_again_when_it_is_due,
    letters_are_listed_by_state_and_page_newest_first,
    a_waiting_letter_is_retried_and_dropped,
    a_letter_in_flight_is_left_alone,
    a_sent_letter_is_left_alone,
    a_letter_that_was_given_up_is_retried_and_dropped,
    an_unknown_letter_is_unknown,
    a_corrupt_letter_is_named_and_holds_up_no_other,
}

fn only(found: &[LetterKind], expected: LetterKind) {
    assert_eq!(found, [expected]);
}

/// ASVS 1.2.4.
async fn a_letter_comes_back_as_it_was_stored(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let full = NewLetter {
        user_id: Some(fresh_user_id()),
        registration_id: Some(RegistrationId::from(fresh_user_id().as_uuid())),
        to: Some(address("Ann.O'Neil+tag@Example.org")),
        language: Some("pt-br".to_owned()),
        details: LetterDetails {
            device: Some("Ann's \"Gerät\" \\ 電話\n$where; --".to_owned()),
            address: Some("2001:db8::1".to_owned()),
            only_tells: true,
        },
        credential_version: Some(i64::MAX),
        ..letter(LetterKind::NewDevice, NOW)
    };
    let mut letters = vec![full];
    letters.extend(LetterKind::ALL.map(|kind| letter(kind, at(1))));
    for new in letters {
        store_letter(&*store, &new).await;
        let expected = Letter {
            state: LetterState::Waiting,
            attempts: 0,
            due_at: new.created_at,
            fence: 0,
            last_error: None,
            settled_at: None,
            new,
        };
        assert_eq!(read(&*other_node, expected.new.id).await, expected);
    }
}

async fn a_letter_is_stored_with_a_user_and_only_then(database: Database) {
    let store = database.open().await;
    let create = async |new, kind| {
        let letter = letter(kind, NOW);
        let outcome = store.create_user(&new, None, Some(&letter), &by(NOW)).await;
        outcome.expect("an answer")
    };
    let ann = named_user("ann@example.org", "ann");
    let made = create(ann, LetterKind::Invitation).await;
    assert_eq!(made, CreateUser::Created);
    for (new, expected) in [
        (new_user("Ann@example.org"), CreateUser::EmailTaken),
        (
            named_user("bob@example.org", "Ann"),
            CreateUser::UsernameTaken,
        ),
    ] {
        assert_eq!(create(new, LetterKind::VerifyEmail).await, expected);
        only(&kinds(&*store).await, LetterKind::Invitation);
    }
}

async fn a_letter_is_stored_with_a_new_password_and_only_then(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let version = credentials(&*store, ann).await.credential_version;
    let set = async |user, version| {
        let letter = letter(LetterKind::PasswordChanged, NOW).about(user);
        let outcome = store
            .set_password(user, &hash("new"), version, None, Some(&letter), &by(NOW))
            .await;
        outcome.expect("an answer")
    };
    let stale = set(ann, version - 1).await;
    assert_eq!(stale, SetPassword::CredentialsChanged);
    assert_eq!(set(fresh_user_id(), 1).await, SetPassword::Gone);
    assert_eq!(kinds(&*store).await, []);
    assert!(matches!(
        set(ann, version).await,
        SetPassword::Changed { .. }
    ));
    only(&kinds(&*store).await, LetterKind::PasswordChanged);
    store
        .deactivate_user(ann, None, &built_in(), &by(NOW))
        .await
        .expect("an answer");
    assert_eq!(set(ann, version + 1).await, SetPassword::NotActive);
    only(&kinds(&*store).await, LetterKind::PasswordChanged);
}

async fn a_letter_is_stored_with_a_redeemed_link_if_there_was_a_password(database: Database) {
    let store = database.open().await;
    let redeem = async |link| {
        let letter = letter(LetterKind::PasswordChanged, NOW);
        let proof = Proof::Link(link);
        let outcome = store
            .redeem_set_password(&proof, &hash("linked"), Some(&letter), &by(NOW))
            .await;
        outcome.expect("an answer")
    };
    let (ann, link) = add_invited(&*store, "ann@example.org").await;
    assert_eq!(redeem(link).await, Redeem::Redeemed(ann));
    assert_eq!(redeem(link).await, Redeem::Refused);
    assert_eq!(kinds(&*store).await, [], "a first password is no news");

    let bob = new_user("bob@example.org");
    let link = new_link(bob.user.id);
    let made = store.create_user(&bob, Some(&link), None, &by(NOW)).await;
    assert_eq!(made.expect("an answer"), CreateUser::Created);
    assert_eq!(redeem(link.hash).await, Redeem::Redeemed(bob.user.id));
    assert_eq!(redeem(link.hash).await, Redeem::Refused);
    let letters = all_letters(&*store).await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].new.user_id, Some(bob.user.id));
}

async fn a_letter_is_stored_with_a_session_and_only_then(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let open = async |login: Login| {
        let mut request = login.under(reject(1)).request(NOW);
        request.letter = Some(letter(LetterKind::NewDevice, NOW).about(ann));
        let outcome = store.open_session(&request, &by(NOW)).await;
        outcome.expect("an answer")
    };
    let login = Login::of(&*store, ann).await;
    let stale = Login {
        version: login.version - 1,
        ..login.clone()
    };
    assert_eq!(open(stale).await, OpenSession::CredentialsChanged);
    assert_eq!(kinds(&*store).await, []);
    let opened = open(login.clone()).await;
    assert!(matches!(opened, OpenSession::Opened { .. }), "{opened:?}");
    assert_eq!(open(login.clone()).await, OpenSession::Refused { open: 1 });
    let user = fresh_user_id();
    let unknown = Login {
        user,
        ..login.clone()
    };
    assert_eq!(open(unknown).await, OpenSession::Gone);
    store
        .deactivate_user(ann, None, &built_in(), &by(NOW))
        .await
        .expect("an answer");
    assert_eq!(open(login).await, OpenSession::NotActive);
    only(&kinds(&*store).await, LetterKind::NewDevice);
}

async fn a_letter_is_stored_by_whoever_closes_a_reused_session(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    let session = open_one(&*nodes[0], ann, NOW).await;
    let racers = (0..10).map(|n| {
        let store = Arc::clone(&nodes[n % 2]);
        let letter = letter(LetterKind::RefreshReused, NOW).about(ann);
        async move {
            let outcome = store
                .close_reused_session(ann, session, Some(&letter), &by(NOW))
                .await;
            outcome.expect("an answer")
        }
    });
    let outcomes = race(racers).await;
    let closed = |outcome: &&CloseSession| **outcome == CloseSession::Closed;
    assert_eq!(outcomes.iter().filter(closed).count(), 1, "{outcomes:?}");
    let letter = letter(LetterKind::RefreshReused, NOW).about(ann);
    let unknown = nodes[0]
        .close_reused_session(ann, fresh_session_id(), Some(&letter), &by(NOW))
        .await;
    assert_eq!(unknown.expect("an answer"), CloseSession::Unknown);
    only(&kinds(&*nodes[1]).await, LetterKind::RefreshReused);
    let ended = super::sample::state(&*nodes[1], ann, session).await;
    let expected = super::sample::closed(CloseReason::RefreshReused, NOW);
    assert_eq!(ended, expected);
}

async fn a_notice_is_stored_with_another_address_and_goes_to_the_old_one(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let verified = UserPatch {
        email_verified: Some(true),
        ..UserPatch::default()
    };
    let occasion = by(NOW);
    let done = store.update_user(ann, &verified, None, SINGLE, IDLE, &occasion);
    done.await.expect("an answer");
    add(&*store, &named_user("bob@example.org", "bob")).await;
    let notice = letter(LetterKind::EmailChanged, NOW);
    let change = async |patch| {
        let outcome = store
            .update_user(ann, &patch, Some(&notice), SINGLE, IDLE, &by(at(1)))
            .await;
        outcome.expect("an answer")
    };
    let to = |email| UserPatch {
        email: Some(address(email)),
        email_verified: Some(true),
        ..UserPatch::default()
    };
    let taken_name = UserPatch {
        username: Some(Some(name("bob"))),
        ..to("new@example.org")
    };
    assert_eq!(change(to("Bob@example.org")).await, UpdateUser::EmailTaken);
    assert_eq!(change(taken_name).await, UpdateUser::UsernameTaken);
    let only_written_so = change(to("Ann@Example.org")).await;
    assert!(matches!(only_written_so, UpdateUser::Updated(_)));
    assert_eq!(kinds(&*store).await, []);
    let another = change(to("new@example.org")).await;
    assert!(matches!(another, UpdateUser::Updated(_)));
    let stored = read(&*store, notice.id).await.new;
    assert_eq!(stored.user_id, Some(ann));
    let to = stored.to.expect("an address");
    assert_eq!(to.as_str(), "Ann@Example.org", "as it was written then");
}

async fn a_letter_is_not_stored_again_in_its_quiet_time(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let kind = LetterKind::ResetPassword;
    let add = async |email, kind, now: i64, quiet_since: i64| {
        let letter = letter_to(kind, email, at(now));
        let stored = other_node
            .add_letter(&letter, at(quiet_since), &by(NOW))
            .await;
        stored.expect("an answer")
    };
    store_letter(&*store, &letter_to(kind, "Ann@example.org", NOW)).await;
    assert!(!add("ann@Example.org", kind, 59, -1).await);
    assert!(add("bob@example.org", kind, 59, -1).await);
    let other_kind = LetterKind::VerifyEmail;
    assert!(add("ann@example.org", other_kind, 59, -1).await);
    assert!(
        add("ann@example.org", kind, 60, 0).await,
        "not caused after that time"
    );
    assert!(!add("ann@example.org", kind, 61, 59).await);
    let to_nobody = letter(kind, at(60)).about(fresh_user_id());
    for again in [to_nobody.clone(), letter(kind, at(60))] {
        let stored = store.add_letter(&again, NOW, &by(NOW)).await;
        assert!(stored.expect("an answer"), "no address, nothing to compare");
    }
    assert_eq!(all_letters(&*store).await.len(), 6);
}

async fn each_letter_is_given_to_one_of_many_claimers(database: Database) {
    let nodes = two_nodes(&database).await;
    for round in 0..rounds(20) {
        let now = at(1000 * i64::try_from(round).expect("small"));
        let mut stored = HashSet::new();
        for _ in 0..30 {
            let letter = letter(LetterKind::NewDevice, now);
            stored.insert(store_letter(&*nodes[0], &letter).await);
        }
        let racers = (0..8).map(|n| {
            let store = Arc::clone(&nodes[n % 2]);
            async move {
                let mut mine = Vec::new();
                loop {
                    let claimed = store.claim_letters(4, Span::days(99), now).await;
                    let claimed = claimed.expect("an answer");
                    assert!(claimed.len() <= 4);
                    if claimed.is_empty() {
                        return mine;
                    }
                    mine.extend(claimed);
                }
            }
        });
        let mut claimed: Vec<_> = race(racers).await.into_iter().flatten().collect();
        // Whoever passes by what another is claiming may leave before that one is done.
        claimed.extend(
            nodes[1]
                .claim_letters(99, Span::days(99), now)
                .await
                .expect("an answer"),
        );
        assert!(
            claimed
                .iter()
                .all(|one| (one.fence, one.attempts) == (1, 1))
        );
        let ids: HashSet<_> = claimed.iter().map(|one| one.new.id).collect();
        assert_eq!((claimed.len(), ids), (30, stored), "round {round}");
    }
}

async fn a_lease_returns_after_its_time_and_not_before(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let id = store_letter(&*store, &letter(LetterKind::NewDevice, NOW)).await;
    let first = claim(&*store, NOW).await;
    assert_eq!((first[0].fence, first[0].due_at), (1, NOW.plus(LEASE)));
    let end = NOW.plus(LEASE);
    assert_eq!(claim(&*other_node, end.minus(Span::millis(1))).await, []);
    let second = claim(&*other_node, end).await;
    assert_eq!((second[0].new.id, second[0].fence), (id, 2));
    assert_eq!(second[0].attempts, 2);
    assert_eq!(read(&*store, id).await, second[0]);
}

async fn the_longest_waiting_are_claimed_first(database: Database) {
    let store = database.open().await;
    let add =
        async |seconds| store_letter(&*store, &letter(LetterKind::NewDevice, at(seconds))).await;
    let (second, later, first, third) = (add(2).await, add(100).await, add(1).await, add(3).await);
    let claim = async |most, seconds| {
        let claimed = store.claim_letters(most, LEASE, at(seconds)).await;
        let claimed = claimed.expect("an answer");
        claimed.iter().map(|one| one.new.id).collect::<Vec<_>>()
    };
    assert_eq!(claim(0, 5).await, []);
    assert_eq!(claim(2, 5).await, [first, second]);
    assert_eq!(claim(9, 5).await, [third]);
    assert_eq!(claim(9, 5).await, []);
    assert_eq!(
        claim(1, 100).await.len(),
        1,
        "leases ended before it was due"
    );
    assert!(claim(9, 100).await.contains(&later));
}

/// Every way to settle, and the state after it.
fn settlements() -> [(Settlement, LetterState, Option<&'static str>); 4] {
    let again = Settlement::Again {
        at: at(300),
        error: "busy".to_owned(),
    };
    let dead = Settlement::Dead {
        error: "no such mailbox".to_owned(),
    };
    let dropped = Settlement::Dropped {
        reason: "over".to_owned(),
    };
    [
        (Settlement::Sent, LetterState::Sent, None),
        (again, LetterState::Waiting, Some("busy")),
        (dead, LetterState::Dead, Some("no such mailbox")),
        (dropped, LetterState::Dropped, Some("over")),
    ]
}

async fn settle(store: &dyn Store, id: LetterId, fence: i64, settlement: &Settlement) -> bool {
    let settled = store.settle_letter(id, fence, settlement, at(7)).await;
    settled.expect("an answer")
}

async fn an_old_fence_settles_nothing(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    for (settlement, state, error) in settlements() {
        let id = store_letter(&*store, &letter(LetterKind::NewDevice, NOW)).await;
        claim(&*store, NOW).await;
        claim(&*other_node, at(60)).await;
        let before = read(&*store, id).await;
        for fence in [0, 1, 3] {
            assert!(!settle(&*store, id, fence, &settlement).await);
            assert_eq!(read(&*store, id).await, before);
        }
        assert!(settle(&*other_node, id, 2, &settlement).await);
        let after = read(&*store, id).await;
        assert_eq!((after.state, after.last_error.as_deref()), (state, error));
        let is_over = state != LetterState::Waiting;
        assert_eq!(after.settled_at, is_over.then_some(at(7)));
        let again = settle(&*other_node, id, 2, &Settlement::Sent).await;
        assert_eq!(again, !is_over, "what is over cannot be settled again");
    }
    let unknown = LetterId::from(fresh_user_id().as_uuid());
    assert!(!settle(&*store, unknown, 0, &Settlement::Sent).await);
}

async fn a_settled_letter_is_never_claimed(database: Database) {
    let store = database.open().await;
    for (settlement, state, _) in settlements() {
        if state == LetterState::Waiting {
            continue;
        }
        let id = store_letter(&*store, &letter(LetterKind::NewDevice, NOW)).await;
        claim(&*store, NOW).await;
        assert!(settle(&*store, id, 1, &settlement).await);
        assert_eq!(claim(&*store, NOW.plus(Span::days(999))).await, []);
    }
}

async fn a_letter_that_failed_for_now_is_claimed_again_when_it_is_due(database: Database) {
    let store = database.open().await;
    let id = store_letter(&*store, &letter(LetterKind::NewDevice, NOW)).await;
    claim(&*store, NOW).await;
    let again = Settlement::Again {
        at: at(300),
        error: "busy".to_owned(),
    };
    assert!(settle(&*store, id, 1, &again).await);
    assert_eq!(read(&*store, id).await.due_at, at(300));
    assert_eq!(claim(&*store, at(299)).await, []);
    let claimed = claim(&*store, at(300)).await;
    assert_eq!((claimed[0].fence, claimed[0].attempts), (2, 2));
    assert_eq!(claimed[0].last_error.as_deref(), Some("busy"));
    assert!(settle(&*store, id, 2, &Settlement::Sent).await);
    assert_eq!(read(&*store, id).await.last_error, None);
}

async fn letters_are_listed_by_state_and_page_newest_first(database: Database) {
    let store = database.open().await;
    let mut expected = [const { Vec::new() }; 4];
    for (n, (settlement, state, _)) in settlements().iter().cycle().take(12).enumerate() {
        let seconds = i64::try_from(n).expect("small");
        let id = store_letter(&*store, &letter(LetterKind::NewDevice, at(seconds))).await;
        claim(&*store, at(seconds)).await;
        assert!(settle(&*store, id, 1, settlement).await);
        let of_state = LetterState::ALL.iter().position(|one| one == state);
        expected[of_state.expect("a state")].insert(0, id);
    }
    let list = async |state, before, limit| {
        let filter = LetterFilter {
            state,
            before,
            limit,
        };
        let listed = store.list_letters(&filter).await.expect("an answer");
        listed.iter().map(|one| one.new.id).collect::<Vec<_>>()
    };
    for (state, expected) in LetterState::ALL.into_iter().zip(expected) {
        assert_eq!(list(Some(state), None, 99).await, expected);
        let page = list(Some(state), None, 2).await;
        assert_eq!(page, expected[..2]);
        assert_eq!(list(Some(state), Some(page[1]), 2).await, expected[2..]);
    }
    let all = list(None, None, 99).await;
    assert_eq!(all.len(), 12);
    assert!(all.is_sorted_by(|a, b| a > b));
    assert_eq!(list(None, Some(all[4]), 3).await, all[5..8]);
    assert_eq!(list(None, None, 0).await, []);
}

async fn retry(store: &dyn Store, id: LetterId, seconds: i64) -> ChangeLetter {
    store
        .retry_letter(id, &by(at(seconds)))
        .await
        .expect("an answer")
}

async fn drop_letter(store: &dyn Store, id: LetterId, seconds: i64) -> ChangeLetter {
    store
        .drop_letter(id, &by(at(seconds)))
        .await
        .expect("an answer")
}

fn changed(outcome: ChangeLetter) -> Letter {
    match outcome {
        ChangeLetter::Changed(letter) => *letter,
        other => panic!("{other:?}"),
    }
}

/// Retries the letter, which is then due, and drops it, after which it never is.
async fn is_retried_and_dropped(store: &dyn Store, id: LetterId) {
    let retried = changed(retry(store, id, 20).await);
    assert_eq!(retried, read(store, id).await);
    assert_eq!(
        (retried.state, retried.due_at, retried.settled_at),
        (LetterState::Waiting, at(20), None)
    );
    let dropped = changed(drop_letter(store, id, 21).await);
    assert_eq!(dropped, read(store, id).await);
    assert_eq!(
        (dropped.state, dropped.settled_at),
        (LetterState::Dropped, Some(at(21)))
    );
    assert!(dropped.last_error.is_some(), "says why");
    assert_eq!(claim(store, at(9999)).await, []);
    let again = retry(store, id, 22).await;
    assert_eq!(again, ChangeLetter::AlreadyDropped, "it may be over");
}

async fn a_waiting_letter_is_retried_and_dropped(database: Database) {
    let store = database.open().await;
    let id = store_letter(&*store, &letter(LetterKind::NewDevice, at(500))).await;
    is_retried_and_dropped(&*store, id).await;
}

async fn a_letter_in_flight_is_left_alone(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let id = store_letter(&*store, &letter(LetterKind::NewDevice, NOW)).await;
    let claimed = claim(&*store, NOW).await.remove(0);
    for seconds in [0, 59] {
        let outcome = retry(&*other_node, id, seconds).await;
        assert_eq!(outcome, ChangeLetter::InFlight);
        let outcome = drop_letter(&*other_node, id, seconds).await;
        assert_eq!(outcome, ChangeLetter::InFlight);
    }
    assert_eq!(read(&*store, id).await, claimed);
    changed(drop_letter(&*other_node, id, 60).await);
    assert!(
        !settle(&*store, id, 1, &Settlement::Sent).await,
        "whoever had it is too late"
    );
}

async fn a_sent_letter_is_left_alone(database: Database) {
    let store = database.open().await;
    let id = store_letter(&*store, &letter(LetterKind::NewDevice, NOW)).await;
    claim(&*store, NOW).await;
    assert!(settle(&*store, id, 1, &Settlement::Sent).await);
    let sent = read(&*store, id).await;
    assert_eq!(retry(&*store, id, 99).await, ChangeLetter::AlreadySent);
    let outcome = drop_letter(&*store, id, 99).await;
    assert_eq!(outcome, ChangeLetter::AlreadySent);
    assert_eq!(read(&*store, id).await, sent);
}

async fn a_letter_that_was_given_up_is_retried_and_dropped(database: Database) {
    let store = database.open().await;
    for (settlement, state, _) in settlements() {
        if [LetterState::Sent, LetterState::Dropped].contains(&state) {
            continue;
        }
        let id = store_letter(&*store, &letter(LetterKind::NewDevice, NOW)).await;
        claim(&*store, NOW).await;
        assert!(settle(&*store, id, 1, &settlement).await);
        is_retried_and_dropped(&*store, id).await;
    }
}

async fn an_unknown_letter_is_unknown(database: Database) {
    let store = database.open().await;
    let unknown = LetterId::from(fresh_user_id().as_uuid());
    assert_eq!(store.letter(unknown).await.expect("an answer"), None);
    assert_eq!(retry(&*store, unknown, 0).await, ChangeLetter::Unknown);
    assert_eq!(
        drop_letter(&*store, unknown, 0).await,
        ChangeLetter::Unknown
    );
}

async fn a_corrupt_letter_is_named_and_holds_up_no_other(database: Database) {
    let store = database.open().await;
    let corrupt = store_letter(&*store, &letter(LetterKind::NewDevice, NOW)).await;
    let sound = store_letter(&*store, &letter(LetterKind::NewDevice, at(1))).await;
    database.corrupt_letter_row(corrupt).await;
    let Err(StoreError::Corrupt { table, column, row }) = store.letter(corrupt).await else {
        panic!("not corrupt")
    };
    assert_eq!(
        (table, column, row),
        ("mail_outbox", "kind", corrupt.to_string())
    );
    assert_eq!(read(&*store, sound).await.new.id, sound);
    let mut claimed = Vec::new();
    let mut errors = 0;
    for seconds in [2, 3, 4, 70, 80] {
        match store.claim_letters(9, Span::days(1), at(seconds)).await {
            Ok(some) => claimed.extend(some.iter().map(|one| one.new.id)),
            Err(StoreError::Corrupt { .. }) => errors += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(claimed, [sound]);
    assert!(errors <= 1, "each lease fails once at most");
}

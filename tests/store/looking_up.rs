//! The hot read: a batch of sessions with their users, as they are now.

use std::{sync::Arc, thread};

use doorward::{
    clock::Span,
    ids::{SessionId, UserId},
    model::session::{CloseReason, SessionState, SessionView},
    store::{Store, settings::Backend},
};

use super::sample::{
    Login, NOW, add_user, at, attributes, built_in, closed, fresh_session_id, fresh_user_id, limit,
    named_user, open_ids, open_one, roles, state, two_nodes, user, view,
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race, rounds},
};

for_each_store! {
    nothing_asked_is_nothing_answered,
    two_sessions_of_one_user_are_found_in_one_batch,
    answers_come_in_the_order_asked_with_duplicates_and_strangers,
    another_users_session_is_not_found,
    a_batch_of_256_is_answered_in_order,
    a_view_shows_the_user_as_it_is_now,
    closed_sessions_are_found_with_their_reason,
    the_last_twenty_closed_sessions_are_still_known,
    no_read_that_begins_after_a_change_misses_it,
    what_is_read_at_once_is_what_a_batch_reads,
    open_sessions_are_listed_newest_first_and_only_the_users_own,
    concurrent_batches_do_not_mix,
}

/// Who was found at each place of the batch.
async fn look_up(
    store: &dyn Store,
    wanted: &[(UserId, SessionId)],
) -> Vec<Option<(UserId, SessionId)>> {
    let found = store.live_sessions(wanted).await.expect("an answer");
    let whose = |view: SessionView| (view.user.id, view.session_id);
    found
        .into_iter()
        .map(|row| row.expect("a sound row").map(whose))
        .collect()
}

async fn nothing_asked_is_nothing_answered(database: Database) {
    assert_eq!(look_up(&*database.open().await, &[]).await, []);
}

async fn two_sessions_of_one_user_are_found_in_one_batch(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let first = open_one(&*store, ann, NOW).await;
    let second = open_one(&*store, ann, at(1)).await;
    let found = look_up(&*store, &[(ann, first), (ann, second)]).await;
    assert_eq!(found, [Some((ann, first)), Some((ann, second))]);
    let found = store
        .live_sessions(&[(ann, second), (ann, first)])
        .await
        .expect("an answer");
    let ends: Vec<_> = found
        .into_iter()
        .map(|row| row.expect("a sound row").expect("found").expires_at)
        .collect();
    assert_eq!(
        ends,
        [at(1).plus(Span::days(30)), NOW.plus(Span::days(30))],
        "each its own"
    );
}

async fn answers_come_in_the_order_asked_with_duplicates_and_strangers(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let of_ann = [
        open_one(&*store, ann, NOW).await,
        open_one(&*store, ann, NOW).await,
    ];
    let of_bob = open_one(&*store, bob, NOW).await;
    let unknown = fresh_session_id();
    let wanted = [
        (bob, of_bob),
        (ann, of_ann[1]),
        (ann, unknown),
        (bob, of_bob),
        (fresh_user_id(), of_ann[0]),
        (ann, of_ann[0]),
        (bob, of_ann[0]),
        (ann, of_ann[1]),
        (fresh_user_id(), fresh_session_id()),
    ];
    let expected = [true, true, false, true, false, true, false, true, false];
    let expected: Vec<_> = wanted
        .iter()
        .zip(expected)
        .map(|(key, there)| there.then_some(*key))
        .collect();
    assert_eq!(look_up(&*store, &wanted).await, expected);
}

async fn another_users_session_is_not_found(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let of_ann = open_one(&*store, ann, NOW).await;
    assert_eq!(view(&*store, bob, of_ann).await, None);
}

async fn a_batch_of_256_is_answered_in_order(database: Database) {
    let store = database.open().await;
    let mut wanted = Vec::new();
    for n in 0..32 {
        let id = add_user(&*store, &format!("user{n}@example.org")).await;
        let login = Login::of(&*store, id).await.under(limit(8));
        for second in 0..8 {
            wanted.push((id, login.open(&*store, at(second)).await.id));
        }
    }
    // So that neighbours in the batch are strangers to each other.
    wanted.sort_by_key(|(_, session)| session.as_uuid().as_u128().reverse_bits());
    let expected: Vec<_> = wanted.iter().map(|key| Some(*key)).collect();
    assert_eq!(look_up(&*store, &wanted).await, expected);
}

async fn a_view_shows_the_user_as_it_is_now(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let mut new = named_user("ann@example.org", "ann");
    new.user.attributes = attributes(serde_json::json!({"plan": {"seats": [1, 2.5, null]}}));
    let ann = super::sample::add(&*store, &new).await;
    let session = open_one(&*store, ann, NOW).await;
    let seen = view(&*other_node, ann, session)
        .await
        .expect("the session exists");
    assert_eq!(seen.user, new.user);
    store
        .set_roles(ann, &roles(["writer"]), &built_in(), &by(at(1)))
        .await
        .expect("an answer");
    let seen = view(&*other_node, ann, session)
        .await
        .expect("the session exists");
    assert_eq!(seen.user, user(&*store, ann).await);
    assert_eq!(seen.user.roles, roles(["writer"]));
}

async fn closed_sessions_are_found_with_their_reason(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    for reason in [
        CloseReason::LoggedOut,
        CloseReason::Revoked,
        CloseReason::Replaced,
        CloseReason::LimitLowered,
        CloseReason::PasswordChanged,
        CloseReason::AccountDeactivated,
        CloseReason::Expired,
        CloseReason::Idle,
    ] {
        let session = open_one(&*store, ann, NOW).await;
        store
            .close_session(ann, session, reason, None, &by(at(1)))
            .await
            .expect("an answer");
        assert_eq!(state(&*store, ann, session).await, closed(reason, at(1)));
    }
}

async fn the_last_twenty_closed_sessions_are_still_known(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let login = Login::of(&*store, ann).await;
    let mut sessions = Vec::new();
    for n in 0..21 {
        sessions.push(login.open(&*store, at(n)).await.id);
    }
    let newest = sessions.pop().expect("an open one");
    for (session, n) in sessions.iter().zip(1..) {
        assert_eq!(
            state(&*store, ann, *session).await,
            closed(CloseReason::Replaced, at(n))
        );
    }
    assert_eq!(state(&*store, ann, newest).await, SessionState::Open);
}

/// ASVS 7.4.1.
async fn no_read_that_begins_after_a_change_misses_it(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    for round in 0..rounds(300) {
        let session = open_one(&*store, ann, NOW).await;
        assert_eq!(
            state(&*other_node, ann, session).await,
            SessionState::Open,
            "round {round}"
        );
        store
            .close_sessions(ann, None, CloseReason::Revoked, &by(NOW))
            .await
            .expect("an answer");
        let expected = closed(CloseReason::Revoked, NOW);
        if let Some(found) = other_node.live_session_at_once(ann, session) {
            let found = found.expect("the session exists").state;
            assert_eq!(found, expected, "round {round}, at once");
        }
        assert_eq!(
            state(&*other_node, ann, session).await,
            expected,
            "round {round}"
        );
    }
}

async fn what_is_read_at_once_is_what_a_batch_reads(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let of_ann = open_one(&*store, ann, NOW).await;
    let nobodys = (fresh_user_id(), fresh_session_id());
    // Where there is one core all lookups are handed to other threads.
    let has_cores = thread::available_parallelism().is_ok_and(|n| n.get() > 1);
    let in_process = database.backend() == Backend::Sqlite && has_cores;
    for (user, session) in [(ann, of_ann), (bob, of_ann), nobodys] {
        let expected = view(&*store, user, session).await;
        let found = store.live_session_at_once(user, session);
        assert_eq!(found, in_process.then_some(expected));
    }
}

async fn open_sessions_are_listed_newest_first_and_only_the_users_own(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    open_one(&*store, bob, NOW).await;
    let mut sessions = Vec::new();
    for n in 0..4 {
        sessions.push(open_one(&*store, ann, at(n)).await);
    }
    store
        .close_session_by_id(sessions[2], CloseReason::Revoked, &by(at(9)))
        .await
        .expect("an answer");
    assert_eq!(
        open_ids(&*store, ann).await,
        [sessions[3], sessions[1], sessions[0]]
    );
    assert_eq!(open_ids(&*store, fresh_user_id()).await, []);
}

async fn concurrent_batches_do_not_mix(database: Database) {
    let store = database.open().await;
    let mut keys = Vec::new();
    for n in 0..20 {
        let id = add_user(&*store, &format!("user{n}@example.org")).await;
        keys.push((id, open_one(&*store, id, NOW).await));
    }
    let racers = (0..100).map(|n| {
        let store = Arc::clone(&store);
        let wanted: Vec<_> = (0..=n % 7)
            .map(|i| keys[(n + i * 3) % keys.len()])
            .collect();
        async move {
            let expected: Vec<_> = wanted.iter().map(|key| Some(*key)).collect();
            assert_eq!(look_up(&*store, &wanted).await, expected);
        }
    });
    race(racers).await;
}

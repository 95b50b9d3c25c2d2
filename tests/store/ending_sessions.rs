//! Sessions ended, one or all; an end is for good and keeps its reason.

use std::{collections::BTreeSet, sync::Arc};

use doorward::{
    clock::{Span, Timestamp},
    model::session::{CloseReason, SessionState},
    store::{CloseSession, Seen},
};

use super::sample::{
    NOW, add_user, at, closed, fresh_session_id, fresh_user_id, open_ids, open_one, state,
    two_nodes, view,
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race},
};

for_each_store! {
    a_session_is_closed_once_and_keeps_its_reason,
    a_session_is_closed_by_its_id_alone,
    a_stranger_closes_nothing,
    an_idle_session_is_closed_only_while_unused,
    one_of_sixteen_concurrent_closers_closes,
    all_sessions_but_one_are_closed_and_counted,
    all_sessions_are_closed_and_counted,
    of_an_unknown_user_nothing_is_closed,
    authentication_is_renewed_for_an_open_session_only,
    authentication_never_goes_back,
    of_renewals_at_once_one_is_noted_and_all_are_told,
}

/// ASVS 7.4.1.
async fn a_session_is_closed_once_and_keeps_its_reason(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let other = open_one(&*store, ann, NOW).await;
    let close = async |reason, now| {
        let outcome = store
            .close_session(ann, session, reason, None, &by(now))
            .await;
        outcome.expect("an answer")
    };
    assert_eq!(
        close(CloseReason::LoggedOut, at(1)).await,
        CloseSession::Closed
    );
    assert_eq!(
        close(CloseReason::Revoked, at(2)).await,
        CloseSession::AlreadyClosed
    );
    let by_id = other_node
        .close_session_by_id(session, CloseReason::Revoked, &by(at(3)))
        .await;
    assert_eq!(by_id.expect("an answer"), CloseSession::AlreadyClosed);
    let expected = closed(CloseReason::LoggedOut, at(1));
    assert_eq!(state(&*other_node, ann, session).await, expected);
    assert_eq!(open_ids(&*other_node, ann).await, [other]);
}

async fn a_session_is_closed_by_its_id_alone(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let outcome = store
        .close_session_by_id(session, CloseReason::Revoked, &by(at(1)))
        .await;
    assert_eq!(outcome.expect("an answer"), CloseSession::Closed);
    assert_eq!(
        state(&*other_node, ann, session).await,
        closed(CloseReason::Revoked, at(1))
    );
    let unknown = store
        .close_session_by_id(fresh_session_id(), CloseReason::Revoked, &by(at(1)))
        .await;
    assert_eq!(unknown.expect("an answer"), CloseSession::Unknown);
}

async fn a_stranger_closes_nothing(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    for (user, session) in [
        (bob, session),
        (fresh_user_id(), session),
        (ann, fresh_session_id()),
    ] {
        let outcome = store
            .close_session(user, session, CloseReason::Revoked, None, &by(at(1)))
            .await;
        assert_eq!(outcome.expect("an answer"), CloseSession::Unknown);
    }
    assert_eq!(state(&*store, ann, session).await, SessionState::Open);
}

async fn an_idle_session_is_closed_only_while_unused(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    store
        .note_seen(&[Seen {
            user_id: ann,
            session_id: session,
            at: at(10),
        }])
        .await
        .expect("noted");
    let close_if_unseen_since = async |since| {
        let outcome = store
            .close_session(ann, session, CloseReason::Idle, Some(since), &by(at(20)))
            .await;
        outcome.expect("an answer")
    };
    for used_since in [NOW, at(10).minus(Span::millis(1))] {
        assert_eq!(
            close_if_unseen_since(used_since).await,
            CloseSession::AlreadyClosed
        );
        assert_eq!(state(&*store, ann, session).await, SessionState::Open);
    }
    assert_eq!(close_if_unseen_since(at(10)).await, CloseSession::Closed);
    assert_eq!(
        state(&*store, ann, session).await,
        closed(CloseReason::Idle, at(20))
    );
    assert_eq!(
        close_if_unseen_since(at(10)).await,
        CloseSession::AlreadyClosed
    );
}

async fn one_of_sixteen_concurrent_closers_closes(database: Database) {
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    for round in 0..10 {
        let session = open_one(&*nodes[0], ann, NOW).await;
        let racers = (0..16).map(|n| {
            let store = Arc::clone(&nodes[n % 2]);
            let now = at(i64::try_from(n).expect("small"));
            async move {
                let outcome = if n < 8 {
                    store
                        .close_session(ann, session, CloseReason::LoggedOut, None, &by(now))
                        .await
                } else {
                    store
                        .close_session_by_id(session, CloseReason::LoggedOut, &by(now))
                        .await
                };
                (now, outcome.expect("an answer"))
            }
        });
        let outcomes = race(racers).await;
        let winners: Vec<_> = outcomes
            .iter()
            .filter(|(_, outcome)| *outcome == CloseSession::Closed)
            .collect();
        assert_eq!(winners.len(), 1, "round {round}: {outcomes:?}");
        let expected = closed(CloseReason::LoggedOut, winners[0].0);
        assert_eq!(state(&*nodes[0], ann, session).await, expected);
    }
}

async fn all_sessions_but_one_are_closed_and_counted(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let of_bob = open_one(&*store, bob, NOW).await;
    let ended = open_one(&*store, ann, NOW).await;
    store
        .close_session_by_id(ended, CloseReason::LoggedOut, &by(NOW))
        .await
        .expect("an answer");
    let kept = open_one(&*store, ann, NOW).await;
    let others = [
        open_one(&*store, ann, NOW).await,
        open_one(&*store, ann, NOW).await,
    ];
    let outcome = store
        .close_sessions(ann, Some(kept), CloseReason::Revoked, &by(at(1)))
        .await;
    assert_eq!(outcome.expect("an answer"), Some(2));
    for session in others {
        assert_eq!(
            state(&*other_node, ann, session).await,
            closed(CloseReason::Revoked, at(1))
        );
    }
    assert_eq!(
        state(&*other_node, ann, ended).await,
        closed(CloseReason::LoggedOut, NOW)
    );
    assert_eq!(open_ids(&*other_node, ann).await, [kept]);
    assert_eq!(open_ids(&*other_node, bob).await, [of_bob]);
}

async fn all_sessions_are_closed_and_counted(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let of_bob = open_one(&*store, bob, NOW).await;
    for expected in [0, 3] {
        for _ in 0..expected {
            open_one(&*store, ann, NOW).await;
        }
        let outcome = store
            .close_sessions(ann, None, CloseReason::Revoked, &by(at(1)))
            .await;
        assert_eq!(outcome.expect("an answer"), Some(expected));
        assert_eq!(open_ids(&*store, ann).await, []);
    }
    // A session to keep that is another's keeps nothing.
    open_one(&*store, ann, NOW).await;
    let outcome = store
        .close_sessions(ann, Some(of_bob), CloseReason::Revoked, &by(at(1)))
        .await;
    assert_eq!(outcome.expect("an answer"), Some(1));
    assert_eq!(open_ids(&*store, bob).await, [of_bob]);
}

async fn of_an_unknown_user_nothing_is_closed(database: Database) {
    let store = database.open().await;
    let outcome = store
        .close_sessions(fresh_user_id(), None, CloseReason::Revoked, &by(NOW))
        .await;
    assert_eq!(outcome.expect("an answer"), None);
}

async fn authentication_is_renewed_for_an_open_session_only(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let other = open_one(&*store, ann, NOW).await;
    let renewed = store
        .renew_authentication(ann, session, NOW, &by(at(5)))
        .await;
    assert_eq!(renewed.expect("an answer"), Some(at(5)));
    let seen = view(&*other_node, ann, session)
        .await
        .expect("the session exists");
    assert_eq!((seen.authenticated_at, seen.last_seen_at), (at(5), NOW));
    let seen = view(&*other_node, ann, other)
        .await
        .expect("the session exists");
    assert_eq!(seen.authenticated_at, NOW);

    store
        .close_session_by_id(session, CloseReason::LoggedOut, &by(at(6)))
        .await
        .expect("an answer");
    for (user, session) in [(ann, session), (bob, other), (ann, fresh_session_id())] {
        let renewed = store
            .renew_authentication(user, session, at(5), &by(at(7)))
            .await;
        assert_eq!(renewed.expect("an answer"), None);
    }
    let seen = view(&*other_node, ann, session)
        .await
        .expect("the session exists");
    assert_eq!(seen.authenticated_at, at(5));
    let seen = view(&*other_node, ann, other)
        .await
        .expect("the session exists");
    assert_eq!(seen.authenticated_at, NOW);
}

async fn authentication_never_goes_back(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let earlier = NOW.minus(Span::secs(1));
    let renewed = store
        .renew_authentication(ann, session, NOW, &by(earlier))
        .await;
    assert_eq!(renewed.expect("an answer"), Some(NOW));
    let seen = view(&*store, ann, session)
        .await
        .expect("the session exists");
    assert_eq!(seen.authenticated_at, NOW);
}

/// Somebody who presses the button twice gets two answers that agree.
async fn of_renewals_at_once_one_is_noted_and_all_are_told(database: Database) {
    let stores = two_nodes(&database).await;
    let ann = add_user(&*stores[0], "ann@example.org").await;
    let session = open_one(&*stores[0], ann, NOW).await;
    let renewals = (0..20_i64).map(|n| {
        let store = Arc::clone(&stores[usize::from(n % 2 == 0)]);
        async move {
            let by = by(at(5 + n));
            let renewed = store.renew_authentication(ann, session, NOW, &by);
            renewed.await.expect("an answer").expect("it is open")
        }
    });
    let told: BTreeSet<Timestamp> = race(renewals).await.into_iter().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let seen = view(&*stores[1], ann, session).await;
    assert!(told.contains(&seen.expect("the session exists").authenticated_at));
}

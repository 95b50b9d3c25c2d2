//! Refresh tokens at rest: one hash after the other, each traded once.

use std::sync::Arc;

use doorward::{
    clock::{Span, Timestamp},
    ids::{SessionId, UserId},
    model::{
        session::{CloseReason, RefreshState},
        token::SecretHash,
    },
    store::{RotateRefresh, Store},
};

use super::sample::{
    IDLE, Login, NOW, add_user, at, built_in, fresh_session_id, fresh_user_id, limit, open_one,
    state, two_nodes, view,
};
use crate::harness::occasions::by;
use crate::{
    for_each_store,
    harness::{backend::Database, race, rounds},
};

for_each_store! {
    a_new_session_has_the_hash_it_was_opened_with,
    the_current_token_is_traded_for_its_successor,
    only_the_current_token_is_traded,
    of_fifty_trades_at_once_one_succeeds,
    a_session_that_is_not_live_trades_nothing,
    a_session_in_a_cookie_trades_nothing,
    a_trade_leaves_other_sessions_alone,
    a_generation_is_noted_once_it_exists_and_never_backwards,
}

fn hash(text: &str) -> SecretHash {
    SecretHash::of(text)
}

fn trade(user: UserId, session: SessionId, presented: &str, successor: &str) -> RotateRefresh {
    RotateRefresh {
        user,
        session,
        presented: hash(presented),
        successor: hash(successor),
        generation: 1,
        idle: IDLE,
    }
}

async fn traded(store: &dyn Store, trade: &RotateRefresh, now: Timestamp) -> Option<Timestamp> {
    store.rotate_refresh(trade, now).await.expect("an answer")
}

async fn refresh_state(store: &dyn Store, user: UserId, session: SessionId) -> RefreshState {
    let found = store.refresh_state(user, session).await.expect("an answer");
    found.expect("the session exists")
}

async fn a_new_session_has_the_hash_it_was_opened_with(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let fresh = refresh_state(&*other_node, ann, session).await;
    assert_eq!(fresh.current, Some(hash("first")));
    assert_eq!((fresh.previous, fresh.rotated_at), (None, None));
    assert_eq!((fresh.generation, fresh.view.generation_used), (0, 0));
    let seen = view(&*store, ann, session).await;
    assert_eq!(Some(fresh.view), seen);
    for (user, session) in [
        (ann, fresh_session_id()),
        (fresh_user_id(), session),
        (fresh_user_id(), fresh_session_id()),
    ] {
        let found = store.refresh_state(user, session).await;
        assert_eq!(found.expect("an answer"), None);
    }
}

async fn the_current_token_is_traded_for_its_successor(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let before = refresh_state(&*store, ann, session).await;
    let ends = traded(&*store, &trade(ann, session, "first", "second"), at(5)).await;
    assert_eq!(ends, Some(before.view.expires_at));
    let after = refresh_state(&*other_node, ann, session).await;
    assert_eq!(after.current, Some(hash("second")));
    assert_eq!(after.previous, Some(hash("first")));
    assert_eq!((after.generation, after.rotated_at), (1, Some(at(5))));
    assert_eq!(after.view, before.view, "nothing else has changed");
}

async fn only_the_current_token_is_traded(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let first = trade(ann, session, "first", "second");
    traded(&*store, &first, at(1)).await.expect("traded");
    let before = refresh_state(&*store, ann, session).await;
    for wrong in [
        first,
        trade(ann, session, "third", "fourth"),
        trade(bob, session, "second", "third"),
        trade(ann, fresh_session_id(), "second", "third"),
    ] {
        assert_eq!(traded(&*store, &wrong, at(2)).await, None, "{wrong:?}");
    }
    assert_eq!(refresh_state(&*store, ann, session).await, before);
}

/// ASVS 2.3.4, 15.4.2.
async fn of_fifty_trades_at_once_one_succeeds(database: Database) {
    let stores = two_nodes(&database).await;
    let ann = add_user(&*stores[0], "ann@example.org").await;
    let session = open_one(&*stores[0], ann, NOW).await;
    let mut current = "first".to_owned();
    for round in 0..rounds(20) {
        let trades = (0..50).map(|n| {
            let store = Arc::clone(&stores[n % 2]);
            let successor = format!("{round} {n}");
            let trade = trade(ann, session, &current, &successor);
            async move { traded(&*store, &trade, NOW).await.map(|_| successor) }
        });
        let won: Vec<String> = race(trades).await.into_iter().flatten().collect();
        assert_eq!(won.len(), 1, "{won:?}");
        let after = refresh_state(&*stores[1], ann, session).await;
        assert_eq!(after.current, Some(hash(&won[0])));
        assert_eq!(after.previous, Some(hash(&current)));
        current.clone_from(&won[0]);
    }
}

/// ASVS 7.3.1, 7.3.2, 7.4.1, 10.4.8.
async fn a_session_that_is_not_live_trades_nothing(database: Database) {
    let store = database.open().await;
    let month = Span::days(30);
    let idle = Span::days(7).plus(Span::secs(30));
    for (case, now) in [
        ("closed", at(2)),
        ("deactivated", at(2)),
        ("deactivated by hand", at(2)),
        ("expired", NOW.plus(month)),
        ("idle", NOW.plus(idle).plus(Span::millis(1))),
    ] {
        let email = format!("{}@example.org", case.replace(' ', "."));
        let ann = add_user(&*store, &email).await;
        let session = open_one(&*store, ann, NOW).await;
        match case {
            "closed" => {
                let reason = CloseReason::LoggedOut;
                let closed = store
                    .close_session(ann, session, reason, None, &by(at(1)))
                    .await;
                closed.expect("an answer");
            }
            "deactivated" => {
                let changed = store
                    .deactivate_user(ann, None, &built_in(), &by(at(1)))
                    .await;
                changed.expect("an answer");
            }
            "deactivated by hand" => database.deactivate_user_row(ann, at(1)).await,
            _ => {}
        }
        let before = refresh_state(&*store, ann, session).await;
        let outcome = traded(&*store, &trade(ann, session, "first", "second"), now).await;
        assert_eq!(outcome, None, "{case}");
        assert_eq!(refresh_state(&*store, ann, session).await, before, "{case}");
    }
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let last = NOW.plus(idle);
    let outcome = traded(&*store, &trade(ann, session, "first", "second"), last).await;
    assert!(outcome.is_some(), "the last moment");
}

async fn a_session_in_a_cookie_trades_nothing(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let login = Login::of(&*store, ann).await.under(limit(100));
    let mut request = login.request(NOW);
    request.session.refresh = None;
    let session = request.session.id;
    store
        .open_session(&request, &by(NOW))
        .await
        .expect("an answer");
    let outcome = traded(&*store, &trade(ann, session, "first", "second"), at(1)).await;
    assert_eq!(outcome, None);
    assert_eq!(refresh_state(&*store, ann, session).await.current, None);
}

async fn a_trade_leaves_other_sessions_alone(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let [phone, laptop] = [
        open_one(&*store, ann, NOW).await,
        open_one(&*store, ann, at(1)).await,
    ];
    let before = refresh_state(&*store, ann, phone).await;
    let second = trade(ann, laptop, "first", "second");
    traded(&*store, &second, at(2)).await.expect("traded");
    assert_eq!(refresh_state(&*store, ann, phone).await, before);
    let reason = CloseReason::RefreshReused;
    let closed = store
        .close_session(ann, laptop, reason, None, &by(at(3)))
        .await;
    closed.expect("an answer");
    assert_eq!(
        state(&*store, ann, laptop).await,
        super::sample::closed(reason, at(3))
    );
    traded(&*store, &trade(ann, phone, "first", "second"), at(4))
        .await
        .expect("traded");
}

async fn a_generation_is_noted_once_it_exists_and_never_backwards(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, ann, NOW).await;
    let other = open_one(&*store, ann, NOW).await;
    let note = async |generation| {
        let noted = store.note_generation(ann, session, generation).await;
        noted.expect("an answer");
        let seen = view(&*other_node, ann, session).await;
        seen.expect("the session exists").generation_used
    };
    assert_eq!(note(1).await, 0, "there is no such generation yet");
    for (presented, successor, generation) in [("first", "second", 1), ("second", "third", 2)] {
        let trade = RotateRefresh {
            generation,
            ..trade(ann, session, presented, successor)
        };
        traded(&*store, &trade, at(1)).await.expect("traded");
    }
    assert_eq!(note(2).await, 2);
    assert_eq!(note(1).await, 2, "never backwards");
    let untouched = view(&*store, ann, other).await.expect("the session exists");
    assert_eq!(untouched.generation_used, 0);
}

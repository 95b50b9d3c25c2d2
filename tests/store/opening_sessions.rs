//! Sessions opened: one step with eviction or refusal, with what is overdue closed first.

use doorward::{
    clock::Span,
    ids::UserId,
    model::{
        session::{CloseReason, Device, SessionState},
        user::{OnLimit, SessionLimit, SessionLimitOverride},
    },
    store::{OpenSession, Store},
};

use super::sample::{
    IDLE, Login, NOW, SINGLE, add, add_user, at, built_in, closed, credentials, fresh_user_id,
    hash, limit, new_user, open_ids, open_one, reject, state, stored_hash, two_nodes, view,
};
use crate::harness::occasions::by;
use crate::{for_each_store, harness::backend::Database};

for_each_store! {
    a_session_is_opened_and_read_back_as_it_was_asked_for,
    a_device_is_kept_as_it_was_told,
    a_newer_session_replaces_the_older_one,
    the_oldest_make_way_under_a_limit_of_three,
    a_lowered_policy_takes_hold_at_the_next_login,
    reject_refuses_and_writes_nothing,
    a_closed_session_takes_no_place,
    a_users_own_limit_goes_before_the_policy,
    no_limit_is_a_thousand,
    expired_sessions_are_closed_first,
    idle_sessions_are_closed_first,
    under_reject_overdue_sessions_do_not_lock_the_owner_out,
    a_deactivated_user_opens_nothing,
    an_unknown_user_opens_nothing,
    an_older_password_opens_nothing,
    a_rehash_is_stored_and_changes_no_version,
    other_users_sessions_are_left_alone,
}

fn opened_evicting(outcome: OpenSession) -> Vec<doorward::ids::SessionId> {
    match outcome {
        OpenSession::Opened { evicted, .. } => evicted,
        other => panic!("{other:?}"),
    }
}

async fn a_session_is_opened_and_read_back_as_it_was_asked_for(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let request = Login::of(&*store, ann).await.request(NOW);
    let outcome = store
        .open_session(&request, &by(at(1)))
        .await
        .expect("an answer");
    let OpenSession::Opened { session, evicted } = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(evicted, []);
    assert_eq!((session.id, session.user_id), (request.session.id, ann));
    assert_eq!(session.created_at, at(1));
    assert_eq!(session.authenticated_at, at(1));
    assert_eq!(session.last_seen_at, at(1));
    assert_eq!(session.expires_at, request.session.expires_at);
    assert_eq!(session.auth_methods, request.session.auth_methods);
    assert_eq!(session.state, SessionState::Open);
    assert_eq!(
        other_node.open_sessions_of(ann).await.expect("an answer"),
        std::slice::from_ref(&session)
    );
    let seen = view(&*other_node, ann, session.id)
        .await
        .expect("the session exists");
    assert_eq!(seen.session_id, session.id);
    assert_eq!(seen.user, super::sample::user(&*store, ann).await);
    assert_eq!(
        (seen.state, seen.authenticated_at),
        (SessionState::Open, at(1))
    );
    assert_eq!(
        (seen.last_seen_at, seen.expires_at),
        (at(1), request.session.expires_at)
    );
}

async fn a_device_is_kept_as_it_was_told(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let login = Login::of(&*store, ann).await;
    for device in [
        Device::default(),
        Device {
            name: Some("Ann's phone 📱".to_owned()),
            user_agent: Some("x".repeat(256)),
            address: Some("2001:db8::1".parse().expect("an address")),
        },
        Device {
            name: Some(String::new()),
            user_agent: None,
            address: Some([192, 0, 2, 1].into()),
        },
    ] {
        let mut request = login.request(NOW);
        request.session.device = device.clone();
        let outcome = store
            .open_session(&request, &by(NOW))
            .await
            .expect("an answer");
        let OpenSession::Opened { session, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(session.device, device);
        assert_eq!(
            store.open_sessions_of(ann).await.expect("an answer")[0].device,
            device
        );
    }
}

async fn a_newer_session_replaces_the_older_one(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let login = Login::of(&*store, ann).await;
    let first = login.open(&*store, NOW).await.id;
    assert_eq!(
        opened_evicting(login.try_open(&*other_node, at(1)).await),
        [first]
    );
    assert_eq!(
        state(&*store, ann, first).await,
        closed(CloseReason::Replaced, at(1))
    );
    assert_eq!(open_ids(&*store, ann).await.len(), 1);
}

async fn the_oldest_make_way_under_a_limit_of_three(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let login = Login::of(&*store, ann).await.under(limit(3));
    let mut sessions = Vec::new();
    for n in 0..6 {
        let request = login.request(at(n));
        sessions.push(request.session.id);
        let outcome = store
            .open_session(&request, &by(at(n)))
            .await
            .expect("an answer");
        let n = sessions.len() - 1;
        let expected = if n < 3 { vec![] } else { vec![sessions[n - 3]] };
        assert_eq!(opened_evicting(outcome), expected);
    }
    assert_eq!(
        open_ids(&*store, ann).await,
        [sessions[5], sessions[4], sessions[3]]
    );
}

async fn a_lowered_policy_takes_hold_at_the_next_login(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let login = Login::of(&*store, ann).await.under(limit(5));
    let mut sessions = Vec::new();
    for n in 0..5 {
        sessions.push(login.open(&*store, at(n)).await.id);
    }
    let outcome = login.clone().under(limit(2)).try_open(&*store, at(9)).await;
    assert_eq!(opened_evicting(outcome), sessions[..4], "the oldest first");
    assert_eq!(open_ids(&*store, ann).await.len(), 2);
    let outcome = login.under(reject(1)).try_open(&*store, at(10)).await;
    assert_eq!(outcome, OpenSession::Refused { open: 2 });
}

async fn reject_refuses_and_writes_nothing(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let mut login = Login::of(&*store, ann).await.under(reject(2));
    let sessions = [
        login.open(&*store, NOW).await.id,
        login.open(&*store, at(1)).await.id,
    ];
    login.rehash = Some(hash("rehash"));
    let request = login.request(at(2));
    let outcome = store
        .open_session(&request, &by(at(2)))
        .await
        .expect("an answer");
    assert_eq!(outcome, OpenSession::Refused { open: 2 });
    assert_eq!(open_ids(&*store, ann).await, [sessions[1], sessions[0]]);
    assert_eq!(view(&*store, ann, request.session.id).await, None);
    assert_eq!(
        stored_hash(&*store, ann).await,
        Some(hash("first").expose().clone())
    );
}

async fn a_closed_session_takes_no_place(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let login = Login::of(&*store, ann).await.under(reject(1));
    for n in 0..25 {
        let session = login.open(&*store, at(n)).await.id;
        store
            .close_session_by_id(session, CloseReason::LoggedOut, &by(at(n)))
            .await
            .expect("an answer");
    }
    login.open(&*store, at(30)).await;
}

async fn a_users_own_limit_goes_before_the_policy(database: Database) {
    let store = database.open().await;
    let own = |max, on_limit| SessionLimitOverride { max, on_limit };
    let cases = [
        (own(Some(2), None), limit(1), 2, false),
        (own(None, Some(OnLimit::Reject)), limit(1), 1, true),
        (
            own(Some(1), Some(OnLimit::EvictOldest)),
            reject(5),
            1,
            false,
        ),
        (own(Some(3), Some(OnLimit::Reject)), limit(1), 3, true),
    ];
    for (n, (own, policy, open, refuses)) in cases.into_iter().enumerate() {
        let mut new = new_user(&format!("user{n}@example.org"));
        new.user.session_limit = own;
        let id = add(&*store, &new).await;
        let login = Login::of(&*store, id).await.under(policy);
        for second in 0..4 {
            login.try_open(&*store, at(second)).await;
        }
        assert_eq!(open_ids(&*store, id).await.len(), open, "{own:?}");
        let outcome = login.try_open(&*store, at(9)).await;
        assert_eq!(
            matches!(outcome, OpenSession::Refused { .. }),
            refuses,
            "{own:?}"
        );
    }
}

async fn no_limit_is_a_thousand(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let unlimited = SessionLimit::new(0, OnLimit::Reject);
    let login = Login::of(&*store, ann).await.under(unlimited);
    for n in 0..40 {
        login.open(&*store, at(n)).await;
    }
    assert_eq!(open_ids(&*store, ann).await.len(), 40);
}

/// A user with a session opened at `NOW` and one opened a day later.
async fn with_two_sessions(
    store: &dyn Store,
) -> (UserId, doorward::ids::SessionId, doorward::ids::SessionId) {
    let ann = add_user(store, "ann@example.org").await;
    let old = open_one(store, ann, NOW).await;
    let young = open_one(store, ann, NOW.plus(Span::days(1))).await;
    (ann, old, young)
}

async fn expired_sessions_are_closed_first(database: Database) {
    let store = database.open().await;
    let (ann, old, young) = with_two_sessions(&*store).await;
    let mut login = Login::of(&*store, ann).await.under(limit(2));
    login.rehash = None;
    let end_of_old = NOW.plus(Span::days(30));
    let mut request = login.request(end_of_old);
    request.idle.idle_ttl = Span::days(400);
    let outcome = store
        .open_session(&request, &by(end_of_old))
        .await
        .expect("an answer");
    assert_eq!(opened_evicting(outcome), [], "the place was free");
    assert_eq!(
        state(&*store, ann, old).await,
        closed(CloseReason::Expired, end_of_old)
    );
    assert_eq!(open_ids(&*store, ann).await, [request.session.id, young]);
}

async fn idle_sessions_are_closed_first(database: Database) {
    let store = database.open().await;
    let (ann, old, young) = with_two_sessions(&*store).await;
    let login = Login::of(&*store, ann).await.under(limit(3));
    let last_moment = NOW.plus(IDLE.idle_ttl).plus(IDLE.flush);
    let on_time = login.open(&*store, last_moment).await.id;
    assert_eq!(state(&*store, ann, old).await, SessionState::Open);
    let too_late = last_moment.plus(Span::millis(1));
    let outcome = login.try_open(&*store, too_late).await;
    assert_eq!(opened_evicting(outcome), [], "the place was free");
    assert_eq!(
        state(&*store, ann, old).await,
        closed(CloseReason::Idle, too_late)
    );
    for session in [young, on_time] {
        assert_eq!(state(&*store, ann, session).await, SessionState::Open);
    }
}

async fn under_reject_overdue_sessions_do_not_lock_the_owner_out(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let login = Login::of(&*store, ann).await.under(reject(1));
    let mut now = NOW;
    let mut last = login.open(&*store, now).await;
    assert_eq!(
        login.try_open(&*store, at(1)).await,
        OpenSession::Refused { open: 1 }
    );
    for (wait, reason) in [
        (Span::days(8), CloseReason::Idle),
        (Span::days(31), CloseReason::Expired),
    ] {
        now = now.plus(wait);
        let next = login.open(&*store, now).await;
        assert_eq!(state(&*store, ann, last.id).await, closed(reason, now));
        last = next;
    }
}

async fn a_deactivated_user_opens_nothing(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let mut login = Login::of(&*store, ann).await;
    login.rehash = Some(hash("rehash"));
    store
        .deactivate_user(ann, None, &built_in(), &by(NOW))
        .await
        .expect("an answer");
    assert_eq!(login.try_open(&*store, at(1)).await, OpenSession::NotActive);
    assert_eq!(open_ids(&*store, ann).await, []);
    assert_eq!(
        stored_hash(&*store, ann).await,
        Some(hash("first").expose().clone())
    );
}

async fn an_unknown_user_opens_nothing(database: Database) {
    let store = database.open().await;
    let nobody = Login {
        user: fresh_user_id(),
        version: 1,
        limit: SINGLE,
        rehash: None,
    };
    assert_eq!(nobody.try_open(&*store, NOW).await, OpenSession::Gone);
    assert_eq!(open_ids(&*store, nobody.user).await, []);
}

/// ASVS 15.4.2.
async fn an_older_password_opens_nothing(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let mut stale = Login::of(&*store, ann).await;
    stale.rehash = Some(hash("rehash of the old one"));
    store
        .set_password(ann, &hash("second"), stale.version, None, None, &by(NOW))
        .await
        .expect("an answer");
    let session = open_one(&*store, ann, NOW).await;
    for version in [stale.version, stale.version + 2] {
        let stale = Login {
            version,
            ..stale.clone()
        };
        assert_eq!(
            stale.try_open(&*store, at(1)).await,
            OpenSession::CredentialsChanged
        );
        assert_eq!(
            open_ids(&*store, ann).await,
            [session],
            "nothing was evicted"
        );
        assert_eq!(
            stored_hash(&*store, ann).await,
            Some(hash("second").expose().clone())
        );
    }
}

async fn a_rehash_is_stored_and_changes_no_version(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let mut login = Login::of(&*store, ann).await;
    login.rehash = Some(hash("stronger"));
    login.open(&*store, NOW).await;
    assert_eq!(
        stored_hash(&*store, ann).await,
        Some(hash("stronger").expose().clone())
    );
    assert_eq!(
        credentials(&*store, ann).await.credential_version,
        login.version
    );
    login.rehash = None;
    login.open(&*store, at(1)).await;
    assert_eq!(
        stored_hash(&*store, ann).await,
        Some(hash("stronger").expose().clone())
    );
}

async fn other_users_sessions_are_left_alone(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let of_bob = open_one(&*store, bob, NOW).await;
    let login = Login::of(&*store, ann).await;
    for day in [0, 31, 62] {
        login.open(&*store, NOW.plus(Span::days(day))).await;
    }
    assert_eq!(state(&*store, bob, of_bob).await, SessionState::Open);
}

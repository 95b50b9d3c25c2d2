//! What is MongoDB's own: pipelines, embedded sessions, transactions. The contract that all databases
//! share is tested in `tests/store`.

use std::{env, sync::Arc};

use futures_util::future::join_all;
use mongodb::bson::{Bson, Document, doc};
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    MongoStore,
    documents::{LOGIN_NAMES, USERS, opened_session, session_document, session_key, user_key},
};
use crate::{
    clock::{Span, Timestamp},
    email::EmailAddress,
    entropy::{SystemEntropy, random_bytes},
    ids::{OneTimeSecretId, SessionId, UserId},
    model::{
        session::{AuthMethod, CloseReason, Device, IdleRule, NewSession, SessionState},
        token::{LinkSecret, NewOneTimeSecret, Purpose},
        user::{
            Attributes, NewUser, OnLimit, Roles, SessionLimit, SessionLimitOverride, User,
            UserPatch, UserStatus,
        },
    },
    secret::SecretString,
    store::{
        ChangeStanding, CloseSession, CreateUser, LoginName, Migrations, OpenSession,
        OpenSessionRequest, Redeem, Seen, SetPassword, Store, StoreError, UpdateUser, UserFilter,
        settings::MongoSettings,
    },
    username::Username,
};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const ONE: SessionLimit = SessionLimit {
    max: 1,
    on_limit: OnLimit::EvictOldest,
};

/// A database of its own, dropped at the end of a test that succeeds.
struct Fixture {
    store: MongoStore,
    settings: MongoSettings,
}

impl Fixture {
    async fn empty() -> Self {
        let url = env::var("DOORWARD_TEST_MONGODB_URL").expect(
            "this test needs a real server: set DOORWARD_TEST_MONGODB_URL or run ./tests/run",
        );
        let chance = u64::from_be_bytes(random_bytes(&SystemEntropy));
        let settings = MongoSettings {
            url: url.into(),
            database: format!("doorward_unit_{chance:016x}"),
            ..MongoSettings::default()
        };
        let store = MongoStore::connect(&settings).await.expect("connected");
        Self { store, settings }
    }

    async fn new() -> Self {
        let fixture = Self::empty().await;
        fixture.store.apply().await.expect("migrated");
        fixture
    }

    async fn done(self) {
        self.store.database.drop().await.expect("dropped");
        self.store.close().await;
    }

    async fn add(&self, user: &NewUser) -> UserId {
        let created = self.store.create_user(user, None).await;
        assert_eq!(created.expect("stored"), CreateUser::Created);
        user.user.id
    }

    async fn open(&self, request: &OpenSessionRequest, now: Timestamp) -> OpenSession {
        self.store.open_session(request, now).await.expect("asked")
    }

    async fn change_by_hand(&self, user: UserId, change: Document) {
        let users = self.store.collection(USERS);
        let changed = users.update_one(doc! { "_id": user_key(user) }, change);
        assert_eq!(changed.await.expect("changed").modified_count, 1);
    }

    async fn state(&self, user: UserId, session: SessionId) -> Option<SessionState> {
        let views = self.store.live_sessions(&[(user, session)]).await;
        let view = views.expect("read").remove(0).expect("whole");
        view.map(|view| view.state)
    }
}

fn new_user(name: &str) -> NewUser {
    let Ok(serde_json::Value::Object(attributes)) = serde_json::to_value(json!({
        "plan": "$password_hash", "seats": 5, "whole": 5.0, "ratio": 0.1, "none": null,
        "tags": ["a", { "b": [true, -1, 9_007_199_254_740_992_i64] }],
    })) else {
        unreachable!("an object");
    };
    NewUser {
        user: User {
            id: UserId::fresh(NOW, &SystemEntropy),
            email: EmailAddress::parse(&format!("{name}@Example.org")).expect("valid"),
            email_verified_at: None,
            username: Some(Username::parse(name).expect("valid")),
            attributes: Attributes::parse(attributes).expect("valid"),
            roles: Roles::default(),
            status: UserStatus::Active,
            session_limit: SessionLimitOverride::default(),
            created_at: NOW,
            updated_at: NOW,
        },
        password_hash: Some("$scrypt$first".into()),
    }
}

fn new_admin(name: &str) -> NewUser {
    let mut user = new_user(name);
    user.user.roles = Roles::admin();
    user
}

fn request(user: UserId, limit: SessionLimit) -> OpenSessionRequest {
    OpenSessionRequest {
        session: NewSession {
            id: SessionId::fresh(NOW, &SystemEntropy),
            user_id: user,
            expires_at: NOW.plus(Span::days(30)),
            auth_methods: vec![AuthMethod::Password],
            device: Device {
                name: Some("$password_hash".into()),
                user_agent: Some("$$ROOT".into()),
                address: Some([127, 0, 0, 1].into()),
            },
        },
        credential_version: 0,
        limit,
        idle: IdleRule {
            idle_ttl: Span::days(7),
            flush: Span::secs(30),
        },
        rehash: None,
    }
}

fn opened(outcome: OpenSession) -> (SessionId, Vec<SessionId>) {
    match outcome {
        OpenSession::Opened { session, evicted } => (session.id, evicted),
        other => panic!("not opened: {other:?}"),
    }
}

fn closed(reason: CloseReason, at: Timestamp) -> Option<SessionState> {
    let state = SessionState::Closed { at, reason };
    state.into()
}

#[tokio::test]
async fn what_is_stored_comes_back_unchanged() {
    let db = Fixture::new().await;
    let new = new_user("Ann");
    let id = db.add(&new).await;
    assert_eq!(
        db.store.user(id).await.expect("read"),
        Some(new.user.clone())
    );
    for name in [
        LoginName::Email(EmailAddress::parse("ANN@example.org").expect("valid")),
        LoginName::Username(Username::parse("aNN").expect("valid")),
    ] {
        let found = db.store.user_by_login(&name).await.expect("read");
        let found = found.expect("found");
        assert_eq!(found.user, new.user);
        assert_eq!(found.password_hash.expect("set").expose(), "$scrypt$first");
    }
    // What looks like an expression of a pipeline is stored as the text it is.
    let OpenSession::Opened { session, .. } = db.open(&request(id, ONE), NOW).await else {
        panic!("not opened");
    };
    assert_eq!(
        db.store.open_sessions_of(id).await.expect("read"),
        [session]
    );
    let patch = UserPatch {
        attributes: Some(new.user.attributes.clone()),
        email: Some(EmailAddress::parse("$roles@example.org").expect("valid")),
        ..UserPatch::default()
    };
    let updated = db.store.update_user(id, &patch, ONE, NOW).await;
    let UpdateUser::Updated(user) = updated.expect("asked") else {
        panic!("not updated");
    };
    assert_eq!(user.attributes, new.user.attributes);
    assert_eq!(user.email.as_str(), "$roles@example.org");
    db.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_logins_leave_one_session() {
    let db = Fixture::new().await;
    let id = db.add(&new_user("ann")).await;
    let other = MongoStore::connect(&db.settings).await.expect("connected");
    for limit in [1, 3] {
        let limit = SessionLimit::new(limit, OnLimit::EvictOldest);
        let mut logins = JoinSet::new();
        for n in 0..64 {
            let store = if n % 2 == 0 { &db.store } else { &other }.clone();
            let request = request(id, limit);
            logins.spawn(async move { store.open_session(&request, NOW).await });
        }
        let mut evicted = 0;
        for outcome in logins.join_all().await {
            evicted += opened(outcome.expect("asked")).1.len();
        }
        let open = db.store.open_sessions_of(id).await.expect("read");
        assert_eq!(open.len(), limit.max as usize);
        assert!(evicted >= 64 - limit.max as usize, "{evicted}");
    }
    other.close().await;
    db.done().await;
}

#[tokio::test]
async fn reject_refuses_exactly_the_surplus() {
    let db = Fixture::new().await;
    let id = db.add(&new_user("ann")).await;
    let limit = SessionLimit::new(3, OnLimit::Reject);
    let logins = (0..16).map(|_| async { db.open(&request(id, limit), NOW).await });
    let outcomes = join_all(logins).await;
    let is_refused = |outcome: &&OpenSession| **outcome == OpenSession::Refused { open: 3 };
    assert_eq!(outcomes.iter().filter(is_refused).count(), 13);

    // Sessions past their time do not lock their owner out, and say why they ended.
    let before = db.store.open_sessions_of(id).await.expect("read");
    let (idle, expired) = (before[0].id, before[1].id);
    let later = NOW.plus(Span::days(8));
    let seen: Vec<Seen> = before[1..]
        .iter()
        .map(|session| Seen {
            user_id: id,
            session_id: session.id,
            at: later,
        })
        .collect();
    db.store.note_seen(&seen).await.expect("noted");
    let past =
        doc! { "$set": { "sessions.$[s].expires_at": mongodb::bson::DateTime::from_millis(0) } };
    let users = db.store.collection(USERS);
    users
        .update_one(doc! { "_id": user_key(id) }, past)
        .array_filters([doc! { "s.id": session_key(expired) }])
        .await
        .expect("changed");
    opened(db.open(&request(id, limit), later).await);
    opened(db.open(&request(id, limit), later).await);
    let refused = db.open(&request(id, limit), later).await;
    assert_eq!(refused, OpenSession::Refused { open: 3 });
    assert_eq!(db.state(id, idle).await, closed(CloseReason::Idle, later));
    assert_eq!(
        db.state(id, expired).await,
        closed(CloseReason::Expired, later)
    );

    // The user's own limit goes before the policy, whatever kind of number a shell wrote.
    db.change_by_hand(id, doc! { "$set": { "max_sessions": 4.0 } })
        .await;
    opened(db.open(&request(id, limit), later).await);
    db.change_by_hand(id, doc! { "$set": { "on_session_limit": "evict_oldest" } })
        .await;
    let (_, evicted) = opened(db.open(&request(id, limit), later).await);
    assert_eq!(evicted, [before[2].id]);
    db.change_by_hand(id, doc! { "$set": { "max_sessions": 0 } })
        .await;
    let (_, evicted) = opened(db.open(&request(id, limit), later).await);
    assert_eq!(evicted, []);
    db.done().await;
}

#[tokio::test]
async fn a_login_that_may_not_open_writes_nothing() {
    let db = Fixture::new().await;
    let id = db.add(&new_user("ann")).await;
    let nobody = UserId::fresh(NOW, &SystemEntropy);
    assert_eq!(db.open(&request(nobody, ONE), NOW).await, OpenSession::Gone);

    let (kept, _) = opened(db.open(&request(id, ONE), NOW).await);
    let users = db.store.collection(USERS);
    let document = async || {
        users
            .find_one(doc! { "_id": user_key(id) })
            .await
            .expect("read")
    };
    let before = document().await;
    let mut stale = request(id, ONE);
    stale.credential_version = 7;
    stale.rehash = Some("$scrypt$stale".into());
    assert_eq!(db.open(&stale, NOW).await, OpenSession::CredentialsChanged);
    assert_eq!(document().await, before);

    let mut fresh = request(id, ONE);
    fresh.rehash = Some("$scrypt$newer".into());
    let (_, evicted) = opened(db.open(&fresh, NOW).await);
    assert_eq!(evicted, [kept]);
    let credentials = db
        .store
        .user_credentials(id)
        .await
        .expect("read")
        .expect("there");
    assert_eq!(
        credentials.password_hash.expect("set").expose(),
        "$scrypt$newer"
    );
    assert_eq!(credentials.credential_version, 0);

    db.store
        .deactivate_user(id, NOW)
        .await
        .expect("deactivated");
    assert_eq!(
        db.open(&request(id, ONE), NOW).await,
        OpenSession::NotActive
    );
    db.done().await;
}

#[tokio::test]
async fn the_last_twenty_closed_sessions_are_kept() {
    let db = Fixture::new().await;
    let id = db.add(&new_user("ann")).await;
    let mut sessions = Vec::new();
    for n in 0..23 {
        let at = NOW.plus(Span::secs(n));
        sessions.push(opened(db.open(&request(id, ONE), at).await).0);
    }
    for (n, session) in sessions.iter().enumerate() {
        let state = db.state(id, *session).await;
        match n {
            0 | 1 => assert_eq!(state, None, "{n}"),
            22 => assert_eq!(state, Some(SessionState::Open)),
            _ => {
                let at = NOW.plus(Span::secs(i64::try_from(n).expect("small") + 1));
                assert_eq!(state, closed(CloseReason::Replaced, at), "{n}");
            }
        }
    }
    // A thousand at once: all are named, though most are gone at once.
    let many = SessionLimit::new(0, OnLimit::EvictOldest);
    let filler: Vec<_> = (0..999)
        .map(|_| session_document(&opened_session(&request(id, many).session, NOW)))
        .collect();
    let push = doc! { "$push": { "sessions": { "$each": filler } } };
    db.change_by_hand(id, push).await;
    let (_, evicted) = opened(db.open(&request(id, many), NOW).await);
    assert_eq!(evicted, [sessions[22]]);
    let (_, evicted) = opened(db.open(&request(id, ONE), NOW).await);
    assert_eq!(evicted.len(), 1000);
    db.done().await;
}

#[tokio::test]
async fn nonsense_spoils_nobody_elses_answer() {
    let db = Fixture::new().await;
    let mut wanted = Vec::new();
    for name in ["ann", "bob", "cid", "dan", "eve"] {
        let id = db.add(&new_user(name)).await;
        let (session, _) = opened(db.open(&request(id, ONE), NOW).await);
        wanted.push((id, session));
    }
    let three = SessionLimit::new(3, OnLimit::EvictOldest);
    let (second, _) = opened(db.open(&request(wanted[0].0, three), NOW).await);
    wanted.push((wanted[0].0, second));
    wanted.push((wanted[1].0, second));
    for (n, change) in [
        (1, doc! { "$set": { "sessions": "none" } }),
        (2, doc! { "$set": { "roles": [1] } }),
        (3, doc! { "$set": { "sessions.0.expires_at": "soon" } }),
        (4, doc! { "$set": { "sessions.0.close_reason": "banana" } }),
    ] {
        db.change_by_hand(wanted[n].0, change).await;
    }
    let mut linear = db.settings.clone();
    linear.linearizable = true;
    let linear = MongoStore::connect(&linear).await.expect("connected");
    for store in [&db.store, &linear] {
        let views = store.live_sessions(&wanted).await.expect("read");
        for n in [0, 5] {
            let view = views[n].as_ref().expect("whole").as_ref().expect("there");
            assert_eq!((view.user.id, view.session_id), wanted[n]);
        }
        let corrupt: Vec<_> = views
            .into_iter()
            .filter_map(|view| match view {
                Err(StoreError::Corrupt { table, column, row }) => Some((table, column, row)),
                _ => None,
            })
            .collect();
        let [ann_in_bob, ..] = [("users", "sessions", wanted[1].0.to_string())];
        assert_eq!(
            corrupt,
            [
                ann_in_bob.clone(),
                ("users", "roles", wanted[2].0.to_string()),
                ("users.sessions", "expires_at", wanted[3].1.to_string()),
                ("users.sessions", "close_reason", wanted[4].1.to_string()),
                ann_in_bob,
            ]
        );
    }
    linear.close().await;
    db.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_sixty_four_registrations_gets_the_name() {
    let db = Fixture::new().await;
    let mut registrations = JoinSet::new();
    for n in 0..64 {
        let mut new = new_user("ann");
        new.user.username = Username::parse(&format!("ann{n}")).ok();
        let store = db.store.clone();
        registrations.spawn(async move { store.create_user(&new, None).await });
    }
    let outcomes = registrations.join_all().await;
    let count = |wanted: CreateUser| {
        let is_wanted =
            |outcome: &&Result<CreateUser, StoreError>| *outcome.as_ref().expect("asked") == wanted;
        outcomes.iter().filter(is_wanted).count()
    };
    assert_eq!(count(CreateUser::Created), 1);
    assert_eq!(count(CreateUser::EmailTaken), 63);
    // Who was refused has left no other name behind.
    let names = db.store.collection(LOGIN_NAMES);
    assert_eq!(names.count_documents(doc! {}).await.expect("counted"), 2);
    let mut bob = new_user("bob");
    bob.user.username = db.store.list_users(&all()).await.expect("read")[0]
        .username
        .clone();
    let taken = db.store.create_user(&bob, None).await.expect("asked");
    assert_eq!(taken, CreateUser::UsernameTaken);
    assert_eq!(names.count_documents(doc! {}).await.expect("counted"), 2);
    db.done().await;
}

fn all() -> UserFilter {
    UserFilter {
        limit: 100,
        ..UserFilter::default()
    }
}

#[tokio::test]
async fn names_move_with_their_user() {
    let db = Fixture::new().await;
    let ann = db.add(&new_user("ann")).await;
    let bob = db.add(&new_user("bob")).await;
    let name = |text: &str| Username::parse(text).ok();
    let rename = async |id, username: Option<Username>| {
        let patch = UserPatch {
            username: Some(username),
            ..UserPatch::default()
        };
        db.store
            .update_user(id, &patch, ONE, NOW)
            .await
            .expect("asked")
    };
    assert_eq!(rename(bob, name("ANN")).await, UpdateUser::UsernameTaken);
    assert!(matches!(
        rename(ann, name("ANN")).await,
        UpdateUser::Updated(_)
    ));
    assert!(matches!(rename(ann, None).await, UpdateUser::Updated(_)));
    assert!(matches!(
        rename(bob, name("ann")).await,
        UpdateUser::Updated(_)
    ));
    let by_name = LoginName::Username(name("ann").expect("valid"));
    let found = db.store.user_by_login(&by_name).await.expect("read");
    assert_eq!(found.map(|found| found.user.id), Some(bob));

    let patch = UserPatch {
        email: EmailAddress::parse("BOB@example.org").ok(),
        email_verified: Some(true),
        ..UserPatch::default()
    };
    let update = async |id, patch| {
        db.store
            .update_user(id, patch, ONE, NOW)
            .await
            .expect("asked")
    };
    assert_eq!(update(ann, &patch).await, UpdateUser::EmailTaken);
    let UpdateUser::Updated(user) = update(bob, &patch).await else {
        panic!("not updated");
    };
    assert_eq!(user.email.as_str(), "BOB@example.org");
    assert_eq!(user.email_verified_at, Some(NOW));
    // Documents that contradict each other are not taken for absence.
    db.change_by_hand(bob, doc! { "$set": { "username": Bson::Null } })
        .await;
    let torn = db.store.user_by_login(&by_name).await;
    assert!(matches!(torn, Err(StoreError::Corrupt { .. })), "{torn:?}");
    db.done().await;
}

#[tokio::test]
async fn a_lowered_limit_closes_the_oldest() {
    let db = Fixture::new().await;
    let id = db.add(&new_user("ann")).await;
    let five = SessionLimit::new(5, OnLimit::EvictOldest);
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.push(opened(db.open(&request(id, five), NOW).await).0);
    }
    let patch = UserPatch {
        session_limit: Some(SessionLimitOverride {
            max: Some(2),
            on_limit: None,
        }),
        ..UserPatch::default()
    };
    let updated = db
        .store
        .update_user(id, &patch, five, NOW)
        .await
        .expect("asked");
    assert!(matches!(updated, UpdateUser::Updated(_)));
    let open = db.store.open_sessions_of(id).await.expect("read");
    let open: Vec<_> = open.into_iter().map(|session| session.id).collect();
    assert_eq!(open.len(), 2);
    assert!(sessions[3..].iter().all(|session| open.contains(session)));
    assert_eq!(
        db.state(id, sessions[0]).await,
        closed(CloseReason::LimitLowered, NOW)
    );
    db.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_who_remove_each_other_leave_one() {
    let db = Fixture::new().await;
    for round in 0..20 {
        let mut admins = Vec::new();
        for n in 0..4 {
            admins.push(db.add(&new_admin(&format!("admin{n}r{round}"))).await);
        }
        let mut removals = JoinSet::new();
        for (n, id) in admins.clone().into_iter().enumerate() {
            let store = db.store.clone();
            removals.spawn(async move {
                if n % 2 == 0 {
                    store.set_roles(id, &Roles::default(), NOW).await
                } else {
                    store.deactivate_user(id, NOW).await
                }
            });
        }
        let outcomes = removals.join_all().await;
        let refused = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Ok(ChangeStanding::LastAdmin)))
            .count();
        assert_eq!(refused, 1, "{outcomes:?}");
        for id in admins {
            db.store
                .collection(USERS)
                .delete_one(doc! { "_id": user_key(id) })
                .await
                .expect("ok");
        }
    }
    let gone = db
        .store
        .deactivate_user(UserId::fresh(NOW, &SystemEntropy), NOW)
        .await;
    assert_eq!(gone.expect("asked"), ChangeStanding::Gone);
    db.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_password_changes_wins() {
    let db = Fixture::new().await;
    let new = new_user("ann");
    let link = LinkSecret::fresh(&SystemEntropy);
    let secret = NewOneTimeSecret {
        id: OneTimeSecretId::fresh(NOW, &SystemEntropy),
        user_id: new.user.id,
        purpose: Purpose::SetPassword,
        hash: link.hash(),
        expires_at: NOW.plus(Span::days(1)),
    };
    db.store
        .create_user(&new, Some(&secret))
        .await
        .expect("stored");
    let id = new.user.id;
    let hash = SecretString::from("$scrypt$second");

    db.store
        .deactivate_user(id, NOW)
        .await
        .expect("deactivated");
    let refused = db.store.redeem_set_password(&link.hash(), &hash, NOW).await;
    assert_eq!(refused.expect("asked"), Redeem::Refused);
    db.store.activate_user(id, NOW).await.expect("activated");
    let late = NOW.plus(Span::days(1));
    let refused = db
        .store
        .redeem_set_password(&link.hash(), &hash, late)
        .await;
    assert_eq!(refused.expect("asked"), Redeem::Refused);

    let mut redemptions = JoinSet::new();
    for _ in 0..16 {
        let (store, hash, link) = (db.store.clone(), hash.clone(), link.hash());
        redemptions.spawn(async move { store.redeem_set_password(&link, &hash, NOW).await });
    }
    let outcomes = redemptions.join_all().await;
    let redeemed = outcomes.iter().filter(
        |outcome| matches!(outcome.as_ref().expect("asked"), Redeem::Redeemed(who) if *who == id),
    );
    assert_eq!(redeemed.count(), 1);

    let two = SessionLimit::new(2, OnLimit::EvictOldest);
    let mut login = request(id, two);
    login.credential_version = 1;
    let (first, _) = opened(db.open(&login, NOW).await);
    login.session.id = SessionId::fresh(NOW, &SystemEntropy);
    let (keep, _) = opened(db.open(&login, NOW).await);
    let later = NOW.plus(Span::secs(9));
    let mut changes = JoinSet::new();
    for _ in 0..16 {
        let (store, hash) = (db.store.clone(), hash.clone());
        changes.spawn(async move { store.set_password(id, &hash, 1, Some(keep), later).await });
    }
    let outcomes: Vec<_> = changes
        .join_all()
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    let count = |wanted| {
        outcomes
            .iter()
            .filter(|outcome| **outcome == wanted)
            .count()
    };
    assert_eq!(count(SetPassword::Changed { closed: 1 }), 1);
    assert_eq!(count(SetPassword::CredentialsChanged), 15);
    let open = db.store.open_sessions_of(id).await.expect("read");
    assert_eq!(
        (open.len(), open[0].id, open[0].authenticated_at),
        (1, keep, later)
    );
    assert_eq!(
        db.state(id, first).await,
        closed(CloseReason::PasswordChanged, later)
    );
    db.done().await;
}

#[tokio::test]
async fn sessions_are_closed_once_and_touched_while_open() {
    let db = Fixture::new().await;
    let id = db.add(&new_user("ann")).await;
    let three = SessionLimit::new(3, OnLimit::EvictOldest);
    let (a, _) = opened(db.open(&request(id, three), NOW).await);
    let (b, _) = opened(db.open(&request(id, three), NOW).await);
    let (c, _) = opened(db.open(&request(id, three), NOW).await);
    let later = NOW.plus(Span::secs(5));
    let at = |session_id, at| Seen {
        user_id: id,
        session_id,
        at,
    };
    db.store
        .note_seen(&[at(b, later), at(a, later)])
        .await
        .expect("noted");
    db.store.note_seen(&[at(a, NOW)]).await.expect("noted");
    let close = async |session, unseen| {
        let closed = db
            .store
            .close_session(id, session, CloseReason::Idle, unseen, later);
        closed.await.expect("asked")
    };
    assert_eq!(close(a, Some(NOW)).await, CloseSession::AlreadyClosed);
    assert!(
        db.store
            .renew_authentication(id, a, later)
            .await
            .expect("asked")
    );
    assert_eq!(close(a, Some(later)).await, CloseSession::Closed);
    assert_eq!(close(a, None).await, CloseSession::AlreadyClosed);
    assert!(
        !db.store
            .renew_authentication(id, a, later)
            .await
            .expect("asked")
    );
    let stranger = SessionId::fresh(NOW, &SystemEntropy);
    assert_eq!(close(stranger, None).await, CloseSession::Unknown);
    let by_id = async |session| {
        let closed = db
            .store
            .close_session_by_id(session, CloseReason::Revoked, later);
        closed.await.expect("asked")
    };
    assert_eq!(by_id(b).await, CloseSession::Closed);
    assert_eq!(by_id(b).await, CloseSession::AlreadyClosed);
    assert_eq!(by_id(stranger).await, CloseSession::Unknown);
    let all = db
        .store
        .close_sessions(id, Some(c), CloseReason::LoggedOut, later)
        .await;
    assert_eq!(all.expect("asked"), Some(0));
    let all = db
        .store
        .close_sessions(id, None, CloseReason::LoggedOut, later)
        .await;
    assert_eq!(all.expect("asked"), Some(1));
    let nobody = UserId::fresh(NOW, &SystemEntropy);
    let none = db
        .store
        .close_sessions(nobody, None, CloseReason::LoggedOut, later)
        .await;
    assert_eq!(none.expect("asked"), None);
    db.done().await;
}

#[tokio::test]
async fn users_are_found_by_literal_text() {
    let db = Fixture::new().await;
    let mut ids = Vec::new();
    for name in ["a.n_n", "aXn_n", "bob"] {
        ids.push(db.add(&new_user(name)).await);
    }
    ids.sort_unstable_by(|a, b| b.cmp(a));
    let listed = async |filter: UserFilter| {
        let users = db.store.list_users(&filter).await.expect("read");
        users.into_iter().map(|user| user.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(all()).await, ids);
    let text = |text: &str| UserFilter {
        text: Some(text.into()),
        ..all()
    };
    assert_eq!(listed(text("A.N")).await.len(), 1);
    assert_eq!(listed(text("n_n@ex")).await.len(), 2);
    assert_eq!(listed(text(".*")).await.len(), 0);
    let page = UserFilter {
        before: Some(ids[0]),
        limit: 1,
        ..all()
    };
    assert_eq!(listed(page).await, [ids[1]]);
    db.store
        .set_roles(ids[2], &Roles::admin(), NOW)
        .await
        .expect("set");
    db.store
        .deactivate_user(ids[0], NOW)
        .await
        .expect("deactivated");
    let active = UserFilter {
        active: Some(true),
        ..all()
    };
    assert_eq!(listed(active).await, ids[1..]);
    let admins = UserFilter {
        role: Some("admin".into()),
        ..all()
    };
    assert_eq!(listed(admins).await, [ids[2]]);
    db.done().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_migrate_once() {
    let db = Fixture::empty().await;
    assert_eq!(db.store.pending().await.expect("read").len(), 1);
    let mut processes = JoinSet::new();
    for _ in 0..4 {
        let store = Arc::new(MongoStore::connect(&db.settings).await.expect("connected"));
        processes.spawn(async move {
            let applied = store.apply().await.expect("applied");
            store.close().await;
            applied
        });
    }
    let applied: Vec<String> = processes.join_all().await.into_iter().flatten().collect();
    assert_eq!(applied, ["0001_users_and_sessions"]);
    assert!(db.store.pending().await.expect("read").is_empty());
    assert_eq!(db.store.revert(9).await.expect("reverted"), applied);
    assert_eq!(db.store.pending().await.expect("read"), applied);
    let left = db
        .store
        .database
        .list_collection_names()
        .await
        .expect("read");
    assert!(
        left.iter().all(|name| name.starts_with("schema_")),
        "{left:?}"
    );
    assert_eq!(db.store.apply().await.expect("applied"), applied);
    db.done().await;
}

//! What is MongoDB's own: pipelines that must not read values as expressions, sessions embedded in
//! their user, documents without a schema.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use doorward::{
    entropy::SystemEntropy,
    ids::{SessionId, UserId},
    model::{
        session::{CloseReason, SessionState},
        user::UserPatch,
    },
    store::{
        Migrations, OpenSession, Store, StoreError, UpdateUser, mongodb::MongoStore, open::open,
        settings::Backend,
    },
};
use mongodb::{
    Client, Collection,
    bson::{Binary, Bson, DateTime, Document, doc, spec::BinarySubtype},
    options::ClientOptions,
};
use serde_json::json;
use tokio::time::timeout;

use super::sample::{
    IDLE, Login, NOW, SINGLE, add_user, address, at, attributes, by_username, closed,
    fresh_session_id, limit, login_finds, named_user, new_user, open_ids, open_one, reject, roles,
    state, stored_hash, two_nodes, user, view,
};
use crate::harness::{backend::Database, occasions::by, race, until};

fn key(user: UserId) -> Document {
    let bytes = user.as_uuid().as_bytes().to_vec();
    let subtype = BinarySubtype::Uuid;
    doc! {"_id": Binary { subtype, bytes }}
}

async fn users(database: &Database) -> Collection<Document> {
    database.mongo().await.collection("users")
}

async fn document(database: &Database, user: UserId) -> Document {
    let found = users(database).await.find_one(key(user)).await;
    found.expect("an answer").expect("the user exists")
}

async fn change(database: &Database, user: UserId, change: Document) {
    let changed = users(database).await.update_one(key(user), change).await;
    assert_eq!(changed.expect("an answer").modified_count, 1);
}

/// ASVS 1.2.4, 1.3.2: nothing a client sends becomes part of a statement.
#[tokio::test(flavor = "multi_thread")]
async fn what_looks_like_an_expression_stays_a_text() {
    let database = Database::fresh(Backend::Mongodb).await;
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let mut request = Login::of(&*store, ann).await.request(NOW);
    request.session.device.name = Some("$password_hash".to_owned());
    request.session.device.user_agent = Some("$$ROOT".to_owned());
    request.rehash = Some("$password_hash".into());
    let outcome = store
        .open_session(&request, &by(NOW))
        .await
        .expect("an answer");
    let OpenSession::Opened { session, .. } = outcome else {
        panic!("{outcome:?}")
    };
    let open = store.open_sessions_of(ann).await.expect("an answer");
    assert_eq!(open, [session]);
    let stored = stored_hash(&*store, ann).await;
    assert_eq!(stored.as_deref(), Some("$password_hash"));

    let patch = UserPatch {
        attributes: Some(attributes(
            json!({"plan": "$roles", "deep": {"a": ["$$NOW", 1, 1.0]}}),
        )),
        email: Some(address("$roles@example.org")),
        ..UserPatch::default()
    };
    let outcome = store
        .update_user(ann, &patch, None, SINGLE, IDLE, &by(NOW))
        .await;
    let UpdateUser::Updated(updated) = outcome.expect("an answer") else {
        panic!("not updated")
    };
    assert_eq!(Some(&updated.attributes), patch.attributes.as_ref());
    assert_eq!(updated.email.as_str(), "$roles@example.org");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_login_leaves_the_document_as_it_was() {
    let database = Database::fresh(Backend::Mongodb).await;
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let login = Login::of(&*store, ann).await.under(reject(1));
    login.open(&*store, NOW).await;
    let before = document(&database, ann).await;
    let mut stale = login.clone();
    stale.version += 1;
    stale.rehash = Some("$scrypt$other".into());
    assert_eq!(
        stale.try_open(&*store, at(1)).await,
        OpenSession::CredentialsChanged
    );
    let refused = OpenSession::Refused { open: 1 };
    assert_eq!(login.try_open(&*store, at(1)).await, refused);
    assert_eq!(document(&database, ann).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_sessions_are_forgotten_by_the_time_of_their_end() {
    let database = Database::fresh(Backend::Mongodb).await;
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let two = Login::of(&*store, ann).await.under(limit(2));
    // The oldest session of all is used to the end, so it ends after most of the others.
    let oldest = two.open(&*store, NOW).await.id;
    let mut others = Vec::new();
    for n in 1..=25 {
        let other = two.open(&*store, at(n)).await.id;
        let by = by(at(n));
        let ended = store.close_session(ann, other, CloseReason::LoggedOut, None, &by);
        ended.await.expect("an answer");
        others.push(other);
    }
    let single = two.under(SINGLE);
    single.open(&*store, at(30)).await;
    let replaced = closed(CloseReason::Replaced, at(30));
    assert_eq!(state(&*store, ann, oldest).await, replaced);
    assert_eq!(view(&*store, ann, others[0]).await, None);
    let logged_out = closed(CloseReason::LoggedOut, at(25));
    assert_eq!(state(&*store, ann, others[24]).await, logged_out);
    let kept = document(&database, ann).await;
    assert_eq!(kept.get_array("sessions").map(Vec::len).ok(), Some(21));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_replaced_sessions_are_all_named() {
    let database = Database::fresh(Backend::Mongodb).await;
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let login = Login::of(&*store, ann).await.under(limit(1000));
    let first = login.open(&*store, NOW).await.id;
    let sessions = document(&database, ann).await;
    let like = sessions.get_array("sessions").expect("a list")[0].clone();
    let more: Vec<Bson> = (1..1000)
        .map(|_| {
            let mut one = like.as_document().expect("a session").clone();
            let id = fresh_session_id().as_uuid();
            let subtype = BinarySubtype::Uuid;
            one.insert(
                "id",
                Binary {
                    subtype,
                    bytes: id.as_bytes().to_vec(),
                },
            );
            Bson::Document(one)
        })
        .collect();
    change(
        &database,
        ann,
        doc! {"$push": {"sessions": {"$each": more}}},
    )
    .await;
    let evicted = async |login: &Login| match login.try_open(&*store, at(1)).await {
        OpenSession::Opened { evicted, .. } => evicted,
        other => panic!("{other:?}"),
    };
    assert_eq!(evicted(&login).await, [first]);
    assert_eq!(evicted(&login.under(SINGLE)).await.len(), 1000);
    let kept = document(&database, ann).await;
    assert_eq!(kept.get_array("sessions").map(Vec::len).ok(), Some(21));
}

/// They stand in line for the user's document, and take nobody else's turn meanwhile. Refused by the server and
/// tried again, most would not get through at all.
/// Who has many users has them counted by several commands, of which none takes long.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_users_sessions_are_all_counted() {
    let database = Database::fresh(Backend::Mongodb).await;
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    open_one(&*store, ann, NOW).await;
    let count = async |now| store.count_live_sessions(now).await.expect("a count");
    assert_eq!(count(at(1)).await, 1);

    let like = document(&database, ann).await;
    let others = (1..10_000).map(|_| {
        let mut other = like.clone();
        other.extend(key(UserId::fresh(NOW, &SystemEntropy)));
        other
    });
    let made = users(&database).await.insert_many(others).await;
    assert_eq!(made.expect("room for them").inserted_ids.len(), 9_999);
    assert_eq!(count(at(1)).await, 10_000);
    assert_eq!(count(at(100_000_000)).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_logins_of_one_user_keep_nobody_else_waiting() {
    const RACERS: usize = 200;
    let database = Database::fresh(Backend::Mongodb).await;
    let nodes = two_nodes(&database).await;
    let ann = add_user(&*nodes[0], "ann@example.org").await;
    let bob = add_user(&*nodes[0], "bob@example.org").await;
    let login = Login::of(&*nodes[0], ann).await;
    let others = Login::of(&*nodes[0], bob).await;
    let answered = Arc::new(AtomicUsize::new(0));
    let racers = (0..RACERS).map(|n| {
        let (store, login) = (Arc::clone(&nodes[n % 2]), login.clone());
        let answered = Arc::clone(&answered);
        async move {
            login.open(&*store, NOW).await;
            answered.fetch_add(1, Ordering::Relaxed);
        }
    });
    let first_answered = || async { answered.load(Ordering::Relaxed) > 0 };
    let other = async {
        until("they are at work", first_answered).await;
        others.open(&*nodes[0], NOW).await;
        answered.load(Ordering::Relaxed)
    };
    let (_, before_other) = tokio::join!(race(racers), other);
    assert!(before_other < RACERS / 2, "{before_other}");
    assert_eq!(open_ids(&*nodes[1], ann).await.len(), 1);
}

/// However many there are: here all connections but those for lookups are taken by one.
#[tokio::test(flavor = "multi_thread")]
async fn who_logs_in_keeps_no_lookup_waiting() {
    let database = Database::fresh(Backend::Mongodb).await;
    let mut settings = database.settings().clone();
    let narrow = format!("{}&maxPoolSize=1", settings.mongodb.url.expose());
    settings.mongodb.url = narrow.into();
    let store = open(&settings).await.expect("opened").store;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let of_bob = open_one(&*store, bob, NOW).await;
    let login = Login::of(&*store, ann).await;
    // Which is tried again as long as somebody else changes the user.
    let other = database.mongo().await;
    let mut session = other.client().start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    let users = other.collection::<Document>("users");
    let held = users
        .update_one(key(ann), doc! {"$set": {"held": true}})
        .session(&mut session);
    assert_eq!(held.await.expect("changed").modified_count, 1);
    let looked_up = AtomicBool::new(false);
    let logged_in = async {
        login.open(&*store, NOW).await;
        assert!(looked_up.load(Ordering::Relaxed), "the login was first");
    };
    let lookups = async {
        for _ in 0..100 {
            view(&*store, bob, of_bob).await.expect("a session");
        }
        looked_up.store(true, Ordering::Relaxed);
        session.abort_transaction().await.expect("aborted");
    };
    tokio::join!(logged_in, lookups);
    store.close().await;
}

/// The server itself would give it up after a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_of_a_node_that_is_gone_is_ended() {
    let database = Database::fresh(Backend::Mongodb).await;
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let url = database.settings().mongodb.url.expose();
    let mut options = ClientOptions::parse(url).await.expect("valid");
    options.app_name = Some("doorward".to_owned());
    let gone = Client::with_options(options).expect("a client");
    let mut session = gone.start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    let same = gone.database(&database.settings().mongodb.database);
    let users = same.collection::<Document>("users");
    let held = users
        .update_one(key(ann), doc! {"$set": {"held": true}})
        .session(&mut session);
    assert_eq!(held.await.expect("changed").modified_count, 1);
    let login = Login::of(&*store, ann).await;
    let opened = timeout(Duration::from_secs(20), login.open(&*store, NOW)).await;
    opened.expect("long before the server gives it up");
}

/// A shell writes doubles.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_count_whatever_their_type() {
    let database = Database::fresh(Backend::Mongodb).await;
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let login = Login::of(&*store, ann).await.under(reject(1));
    let by_hand = doc! {"$set": {"max_sessions": 2.0, "credential_version": 7.0}};
    change(&database, ann, by_hand).await;
    let changed = OpenSession::CredentialsChanged;
    assert_eq!(login.try_open(&*store, NOW).await, changed);
    let login = Login {
        version: 7,
        ..login
    };
    login.open(&*store, NOW).await;
    login.open(&*store, NOW).await;
    let refused = OpenSession::Refused { open: 2 };
    assert_eq!(login.try_open(&*store, NOW).await, refused);
    assert_eq!(user(&*store, ann).await.session_limit.max, Some(2));
    let zero = doc! {"$set": {"max_sessions": 0}};
    change(&database, ann, zero).await;
    login.open(&*store, NOW).await;
}

/// One batch, five users, each with other nonsense; also when documents are read one by one.
#[tokio::test(flavor = "multi_thread")]
async fn nonsense_of_any_type_spoils_nobody_elses_answer() {
    let database = Database::fresh(Backend::Mongodb).await;
    let store = database.open().await;
    let mut wanted: Vec<(UserId, SessionId)> = Vec::new();
    for n in 0..5 {
        let user = add_user(&*store, &format!("user{n}@example.org")).await;
        let login = Login::of(&*store, user).await;
        wanted.push((user, login.open(&*store, NOW).await.id));
    }
    let first = Login::of(&*store, wanted[0].0).await.under(limit(2));
    wanted.push((wanted[0].0, first.open(&*store, NOW).await.id));
    for (n, by_hand) in [
        (1, doc! {"sessions": "none"}),
        (2, doc! {"roles": [1]}),
        (3, doc! {"sessions.0.expires_at": "soon"}),
        (4, doc! {"sessions.0.close_reason": "banana"}),
    ] {
        change(&database, wanted[n].0, doc! {"$set": by_hand}).await;
    }
    let corrupt = [
        ("users", "sessions", wanted[1].0.to_string()),
        ("users", "roles", wanted[2].0.to_string()),
        ("users.sessions", "expires_at", wanted[3].1.to_string()),
        ("users.sessions", "close_reason", wanted[4].1.to_string()),
    ];
    for linearizable in [false, true] {
        let mut settings = database.settings().mongodb.clone();
        settings.linearizable = linearizable;
        let store = MongoStore::connect(&settings).await.expect("connected");
        let found = store.live_sessions(&wanted).await.expect("an answer");
        let mut named = Vec::new();
        for (asked, answer) in wanted.iter().zip(found) {
            match answer {
                Err(StoreError::Corrupt { table, column, row }) => named.push((table, column, row)),
                Ok(Some(view)) => {
                    assert_eq!((view.user.id, view.session_id), *asked);
                    assert_eq!(view.state, SessionState::Open);
                    assert_eq!(view.user.id, wanted[0].0);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(named, corrupt);
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_contradicts_its_user_is_no_absence() {
    let database = Database::fresh(Backend::Mongodb).await;
    let store = database.open().await;
    let new = named_user("ann@example.org", "ann");
    let ann = super::sample::add(&*store, &new).await;
    assert_eq!(login_finds(&*store, &by_username("ann")).await, Some(ann));
    change(&database, ann, doc! {"$set": {"username": null}}).await;
    let torn = store.user_by_login(&by_username("ann")).await;
    let Err(StoreError::Corrupt { table, column, row }) = torn else {
        panic!("{torn:?}")
    };
    assert_eq!(
        (table, column, row),
        ("login_names", "user_id", ann.to_string())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linearizable_store_decides_alike() {
    let database = Database::fresh(Backend::Mongodb).await;
    let mut settings = database.settings().mongodb.clone();
    settings.linearizable = true;
    let store = MongoStore::connect(&settings).await.expect("connected");
    let mut new = new_user("ann@example.org");
    new.user.roles = roles(["admin", "writer"]);
    let ann = super::sample::add(&store, &new).await;
    assert_eq!(user(&store, ann).await, new.user);
    let login = Login::of(&store, ann).await;
    let session = login.open(&store, NOW).await;
    let open = store.open_sessions_of(ann).await.expect("an answer");
    assert_eq!(open, std::slice::from_ref(&session));
    let ended = at(1);
    store
        .close_sessions(ann, None, CloseReason::Revoked, &by(ended))
        .await
        .expect("an answer");
    let revoked = closed(CloseReason::Revoked, ended);
    assert_eq!(state(&store, ann, session.id).await, revoked);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_back_leaves_no_collection() {
    let database = Database::fresh(Backend::Mongodb).await;
    let settings = &database.settings().mongodb;
    let store = MongoStore::connect(settings).await.expect("connected");
    let mut reverted = store.revert(usize::MAX).await.expect("reverted");
    reverted.reverse();
    assert_eq!(store.pending().await.expect("an answer"), reverted);
    let left = database.mongo().await.list_collection_names().await;
    assert_eq!(left.expect("an answer"), ["schema_migrations"]);
    // A process that died while migrating does not keep the others out for ever.
    let leases = database
        .mongo()
        .await
        .collection::<Document>("schema_migrations");
    let dead = doc! {"$set": {"holder": "nobody", "until": DateTime::from_millis(1)}};
    leases
        .update_one(doc! {"_id": "lease"}, dead)
        .await
        .expect("changed");
    assert_eq!(store.apply().await.expect("applied"), reverted);
    // A newer version's change is named, not passed over.
    leases
        .insert_one(doc! {"_id": "9999_later"})
        .await
        .expect("inserted");
    let refused = store.revert(1).await.expect_err("refused");
    assert!(refused.to_string().contains("9999_later"), "{refused}");
    store.close().await;
}

//! Every change leaves its record, in the same step; what changes nothing leaves none.

use std::sync::Arc;

use doorward::{
    clock::{Span, Timestamp},
    model::{
        audit::{Agent, AuditFilter, AuditRecord, Details, Event, EventKind, Occasion, Outcome},
        mail::LetterKind,
        role::{Permissions, RoleDefinition},
        session::CloseReason,
        token::{Proof, SecretHash},
        user::UserPatch,
    },
    store::{
        ChangeStanding, CloseSession, CreateUser, EraseUser, Leftover, OpenSession, SetPassword,
        Store,
    },
};

use super::{
    mailing::{letter, register, registration, store_letter},
    sample::{
        IDLE, Login, NOW, SINGLE, add, add_invited, add_user, address, at, built_in, credentials,
        hash, limit, name, new_admin, new_user, open_one, own_max, reject, roles, two_nodes,
    },
};
use crate::{
    for_each_store,
    harness::{
        backend::Database,
        occasions::{by, by_agent, revealed},
        race,
    },
};

for_each_store! {
    every_change_leaves_its_record,
    an_end_of_sessions_is_a_record_for_each,
    refused_logins_leave_records_and_other_refusals_none,
    what_changes_nothing_leaves_no_record,
    of_a_race_there_are_as_many_records_as_changes,
    a_record_says_who_when_and_from_where,
    details_are_told_with_their_persons_key_until_that_is_dropped,
    a_person_is_erased_with_everything_that_is_theirs,
    the_last_administrator_is_not_erased,
    records_are_listed_by_what_is_asked_for,
    a_trail_that_is_off_writes_nothing,
}

/// Every record, oldest first.
async fn records(store: &dyn Store) -> Vec<AuditRecord> {
    let filter = AuditFilter {
        limit: 1000,
        ..AuditFilter::default()
    };
    let mut records = store.list_audit(&filter).await.expect("an answer");
    records.sort_by_key(|record| record.at);
    records
}

/// What is recorded from a moment on, in words: event, reason, outcome unless it is done.
async fn told_since(store: &dyn Store, since: Timestamp) -> Vec<String> {
    let records = records(store).await.into_iter();
    let mut told: Vec<String> = records
        .filter(|record| record.at >= since)
        .map(|record| in_words(&record))
        .collect();
    told.sort();
    told
}

fn in_words(record: &AuditRecord) -> String {
    let mut words = record.event.clone();
    if record.outcome != Outcome::Done.as_str() {
        words.push(' ');
        words.push_str(&record.outcome);
    }
    if let Some(reason) = &record.reason {
        words.push(' ');
        words.push_str(reason);
    }
    words
}

fn a_role(granted: &str) -> RoleDefinition {
    RoleDefinition {
        name: "helpdesk".to_owned(),
        permissions: Permissions::parse([granted]).expect("valid"),
    }
}

/// ASVS 16.2.1, 16.3.3.
async fn every_change_leaves_its_record(database: Database) {
    let store = database.open().await;
    let store = &*store;
    let ann = add_user(store, "ann@example.org").await;
    assert_eq!(told_since(store, NOW).await, ["account_created"]);
    let (bob, link) = add_invited(store, "bob@example.org").await;

    let patch = UserPatch {
        username: Some(Some(name("ann"))),
        ..UserPatch::default()
    };
    let renamed = store
        .update_user(ann, &patch, None, SINGLE, IDLE, &by(at(1)))
        .await;
    renamed.expect("an answer");
    assert_eq!(told_since(store, at(1)).await, ["account_changed"]);
    let changed = &records(store).await[2];
    assert_eq!(changed.facts.as_deref(), Some(r#"{"fields":["username"]}"#));

    let given = store
        .set_roles(ann, &roles(["helpdesk"]), &built_in(), &by(at(2)))
        .await;
    given.expect("an answer");
    assert_eq!(told_since(store, at(2)).await, ["roles_changed"]);
    let put = store
        .put_role(&a_role("users:read"), &built_in(), &by(at(3)))
        .await;
    put.expect("an answer");
    assert_eq!(told_since(store, at(3)).await, ["role_stored"]);
    let deleted = store.delete_role("helpdesk", &built_in(), &by(at(4))).await;
    deleted.expect("an answer");
    assert_eq!(told_since(store, at(4)).await, ["role_deleted"]);

    let session = open_one(store, ann, at(5)).await;
    assert_eq!(told_since(store, at(5)).await, ["login"]);
    let renewed = store
        .renew_authentication(ann, session, at(5), &by(at(6)))
        .await;
    renewed.expect("an answer");
    assert_eq!(told_since(store, at(6)).await, ["reauthentication"]);

    let version = credentials(store, ann).await.credential_version;
    let set = store
        .set_password(ann, &hash("2"), version, Some(session), None, &by(at(7)))
        .await;
    set.expect("an answer");
    assert_eq!(told_since(store, at(7)).await, ["password_changed"]);
    let redeemed = store
        .redeem_set_password(&Proof::Link(link), &hash("3"), None, &by(at(8)))
        .await;
    redeemed.expect("an answer");
    assert_eq!(told_since(store, at(8)).await, ["password_reset"]);

    let off = store
        .deactivate_user(bob, None, &built_in(), &by(at(9)))
        .await;
    off.expect("an answer");
    assert_eq!(told_since(store, at(9)).await, ["account_deactivated"]);
    let on = store.activate_user(bob, &by(at(10))).await;
    on.expect("an answer");
    assert_eq!(told_since(store, at(10)).await, ["account_activated"]);

    let wanted = letter(LetterKind::ResetPassword, at(11)).to(&address("ann@example.org"));
    let id = store_letter(store, &wanted).await;
    assert_eq!(told_since(store, at(11)).await, ["letter_requested"]);
    store.drop_letter(id, &by(at(12))).await.expect("an answer");
    assert_eq!(told_since(store, at(12)).await, ["letter_dropped"]);
    register(store, &registration("new@example.org", at(13))).await;
    assert_eq!(told_since(store, at(13)).await, ["registration_requested"]);
    let cleared = store
        .clear_account(&SecretHash::of("ann"), ann, &by(at(14)))
        .await;
    cleared.expect("an answer");
    assert_eq!(told_since(store, at(14)).await, ["account_unlocked"]);

    let mut waiting = new_user("waiting@example.org");
    waiting.provisional_until = Some(at(15));
    add(store, &waiting).await;
    let swept = store
        .sweep(Leftover::Accounts, at(16), 10, &by(at(16)))
        .await;
    assert_eq!(swept.expect("an answer"), 1);
    assert_eq!(told_since(store, at(16)).await, ["account_removed"]);
}

/// ASVS 16.2.1, 7.4.1.
async fn an_end_of_sessions_is_a_record_for_each(database: Database) {
    let store = database.open().await;
    let store = &*store;
    let ann = add_user(store, "ann@example.org").await;
    let many = Login::of(store, ann).await.under(limit(10));
    let idle = many.open(store, NOW).await.id;
    let mut open = Vec::new();
    for n in 0..3 {
        open.push(many.open(store, NOW.plus(Span::days(8 + n))).await.id);
    }
    // The first one became idle in that time, and was closed by a login.
    let told = told_since(store, NOW.plus(Span::days(8))).await;
    assert_eq!(told, ["login", "login", "login", "session_ended idle"]);
    let of_idle = records(store).await.into_iter();
    let of_idle: Vec<_> = of_idle.filter(|r| r.session == Some(idle)).collect();
    assert_eq!(of_idle.len(), 2, "opened and ended");

    let later = NOW.plus(Span::days(11));
    let single = Login::of(store, ann).await;
    let newest = single.open(store, later).await.id;
    let told = told_since(store, later).await;
    assert_eq!(told[0], "login");
    assert_eq!(told[1..], ["session_ended replaced"; 3]);

    let many = Login::of(store, ann).await.under(limit(10));
    let later = later.plus(Span::secs(1));
    let other = many.open(store, later).await.id;
    let later = later.plus(Span::secs(1));
    let lower = UserPatch {
        max_sessions: Some(own_max(1).max),
        ..UserPatch::default()
    };
    let lowered = store
        .update_user(ann, &lower, None, limit(10), IDLE, &by(later))
        .await;
    lowered.expect("an answer");
    let told = told_since(store, later).await;
    assert_eq!(told, ["account_changed", "session_ended limit_lowered"]);
    let ended = records(store).await.pop().expect("a record");
    let ended = [ended.session, records(store).await[0].session];
    assert!(ended.contains(&Some(newest)) || !ended.contains(&Some(other)));

    let later = later.plus(Span::secs(1));
    let closed = store
        .close_session(ann, other, CloseReason::LoggedOut, None, &by(later))
        .await;
    assert_eq!(closed.expect("an answer"), CloseSession::Closed);
    assert_eq!(told_since(store, later).await, ["session_ended logged_out"]);
    let later = later.plus(Span::secs(1));
    open_one(store, ann, later).await;
    let later = later.plus(Span::secs(1));
    let all = store
        .close_sessions(ann, None, CloseReason::Revoked, &by(later))
        .await;
    assert_eq!(all.expect("an answer"), Some(1));
    assert_eq!(told_since(store, later).await, ["session_ended revoked"]);
    let later = later.plus(Span::secs(1));
    let reused = open_one(store, ann, later).await;
    let later = later.plus(Span::secs(1));
    let letter = letter(LetterKind::RefreshReused, later).to(&address("ann@example.org"));
    let closed = store
        .close_reused_session(ann, reused, Some(&letter), &by(later))
        .await;
    assert_eq!(closed.expect("an answer"), CloseSession::Closed);
    let told = told_since(store, later).await;
    assert_eq!(told, ["session_ended refresh_reused"]);
    let later = later.plus(Span::secs(1));
    open_one(store, ann, later).await;
    let later = later.plus(Span::secs(1));
    let off = store
        .deactivate_user(ann, None, &built_in(), &by(later))
        .await;
    off.expect("an answer");
    let told = told_since(store, later).await;
    assert_eq!(
        told,
        ["account_deactivated", "session_ended account_deactivated"]
    );
}

/// ASVS 16.3.1.
async fn refused_logins_leave_records_and_other_refusals_none(database: Database) {
    let store = database.open().await;
    let store = &*store;
    let ann = add_user(store, "ann@example.org").await;
    let login = Login::of(store, ann).await;
    login.open(store, NOW).await;
    let full = login.clone().under(reject(1)).try_open(store, at(1)).await;
    assert_eq!(full, OpenSession::Refused { open: 1 });
    let told = told_since(store, at(1)).await;
    assert_eq!(told, ["login refused session_limit"]);
    let mut old = login.clone();
    old.version += 1;
    let outcome = old.try_open(store, at(2)).await;
    assert_eq!(outcome, OpenSession::CredentialsChanged);
    let told = told_since(store, at(2)).await;
    assert_eq!(told, ["login refused credentials_changed"]);
    let off = store
        .deactivate_user(ann, None, &built_in(), &by(at(3)))
        .await;
    off.expect("an answer");
    let outcome = login.try_open(store, at(4)).await;
    assert_eq!(outcome, OpenSession::NotActive);
    let told = told_since(store, at(4)).await;
    assert_eq!(told, ["login refused account_deactivated"]);
}

async fn what_changes_nothing_leaves_no_record(database: Database) {
    let store = database.open().await;
    let store = &*store;
    let ann = add(store, &new_admin("ann@example.org")).await;
    let session = open_one(store, ann, NOW).await;
    let close = async |at| {
        let closed = store
            .close_session(ann, session, CloseReason::LoggedOut, None, &by(at))
            .await;
        closed.expect("an answer")
    };
    assert_eq!(close(at(1)).await, CloseSession::Closed);
    let before = records(store).await.len();

    assert_eq!(close(at(2)).await, CloseSession::AlreadyClosed);
    let again = new_user("ann@example.org");
    let taken = store.create_user(&again, None, None, &by(at(3))).await;
    assert_eq!(taken.expect("an answer"), CreateUser::EmailTaken);
    let outcome = store
        .set_roles(ann, &roles([]), &built_in(), &by(at(4)))
        .await;
    let outcome = outcome.expect("an answer");
    assert_eq!(outcome, ChangeStanding::LastAdmin);
    let outcome = store
        .deactivate_user(ann, None, &built_in(), &by(at(5)))
        .await;
    let outcome = outcome.expect("an answer");
    assert_eq!(outcome, ChangeStanding::LastAdmin);
    let outcome = store
        .set_password(ann, &hash("2"), 99, None, None, &by(at(6)))
        .await;
    let outcome = outcome.expect("an answer");
    assert_eq!(outcome, SetPassword::CredentialsChanged);
    let unknown = store.delete_role("nobody", &built_in(), &by(at(7))).await;
    unknown.expect("an answer");
    let renewed = store
        .renew_authentication(ann, session, at(9), &by(at(9)))
        .await;
    assert_eq!(renewed.expect("an answer"), None);
    assert_eq!(records(store).await.len(), before);
}

/// ASVS 16.2.1, 15.4.2.
async fn of_a_race_there_are_as_many_records_as_changes(database: Database) {
    let stores = two_nodes(&database).await;
    let ann = add_user(&*stores[0], "ann@example.org").await;
    let login = Login::of(&*stores[0], ann).await;
    let logins = (0..32_usize).map(|n| {
        let (store, login) = (Arc::clone(&stores[n % 2]), login.clone());
        async move { login.try_open(&*store, at(1)).await }
    });
    let opened = race(logins).await.into_iter();
    let opened = opened.filter(|outcome| matches!(outcome, OpenSession::Opened { .. }));
    let opened = opened.count();
    assert_eq!(opened, 32);
    let told = told_since(&*stores[0], at(1)).await;
    let count = |what: &str| told.iter().filter(|told| *told == what).count();
    assert_eq!(count("login"), opened);
    assert_eq!(count("session_ended replaced"), opened - 1);

    let session = stores[0].open_sessions_of(ann).await.expect("an answer")[0].id;
    let closings = (0..16_usize).map(|n| {
        let store = Arc::clone(&stores[n % 2]);
        async move {
            let by = by(at(2));
            let closed = store.close_session(ann, session, CloseReason::LoggedOut, None, &by);
            closed.await.expect("an answer")
        }
    });
    let closed = race(closings).await.into_iter();
    let closed = closed.filter(|outcome| *outcome == CloseSession::Closed);
    assert_eq!(closed.count(), 1);
    let told = told_since(&*stores[0], at(2)).await;
    assert_eq!(told, ["session_ended logged_out"]);
}

/// ASVS 16.2.1.
async fn a_record_says_who_when_and_from_where(database: Database) {
    let store = database.open().await;
    let admin = add(&*store, &new_admin("admin@example.org")).await;
    let ann = add_user(&*store, "ann@example.org").await;
    let session = open_one(&*store, admin, NOW).await;
    let agent = Agent::User {
        id: admin,
        session: Some(session),
    };
    let victim = open_one(&*store, ann, at(1)).await;
    let occasion = by_agent(agent, at(2));
    let closed = store
        .close_session_by_id(victim, CloseReason::Revoked, &occasion)
        .await;
    assert_eq!(closed.expect("an answer"), CloseSession::Closed);
    let record = records(&*store).await.pop().expect("a record");
    assert_eq!(in_words(&record), "session_ended revoked");
    assert_eq!(record.at, at(2));
    assert_eq!(
        (record.actor.as_str(), record.actor_id),
        ("user", Some(admin))
    );
    assert_eq!(record.actor_session, Some(session));
    assert_eq!((record.subject, record.session), (Some(ann), Some(victim)));
    assert_eq!(record.request_id.as_deref(), Some("a-request"));
    assert_eq!(record.person, Some(admin), "whose address it is");
    assert_eq!(record.sealed, None);
}

/// ASVS 14.2.7, 16.2.5.
async fn details_are_told_with_their_persons_key_until_that_is_dropped(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    open_one(&*store, ann, at(1)).await;
    let told = Details {
        address: Some([192, 0, 2, 1].into()),
        user_agent: Some("a test".to_owned()),
    };
    let all = records(&*store).await;
    for record in &all {
        assert_eq!(revealed(&*store, record).await, Some(told.clone()));
    }
    let dump = String::from_utf8_lossy(&database.dump().await).into_owned();
    assert!(!dump.contains("192.0.2.1") && !dump.contains("a test"));

    // Of somebody who is nobody's in particular, and of an account that nobody has.
    let nobody = Event::login_refused(None, "unknown_account");
    store.record(&[nobody], &by(at(2))).await.expect("recorded");
    let record = records(&*store).await.pop().expect("a record");
    assert_eq!(revealed(&*store, &record).await, Some(told));

    let outcome = store.erase_user(ann, &built_in(), &by(at(3))).await;
    assert_eq!(outcome.expect("an answer"), EraseUser::Erased);
    for record in &all {
        assert_eq!(revealed(&*store, record).await, None);
    }
    // Whatever is recorded of them later tells nothing either.
    let late = Event::login_refused(Some(ann), "wrong_password");
    store.record(&[late], &by(at(4))).await.expect("recorded");
    let record = records(&*store).await.pop().expect("a record");
    assert_eq!((record.subject, record.details), (Some(ann), None));
    let keys = store.audit_keys(&[ann]).await.expect("an answer");
    assert!(keys.is_empty());
}

/// ASVS 14.2.7.
async fn a_person_is_erased_with_everything_that_is_theirs(database: Database) {
    let stores = two_nodes(&database).await;
    let store = &*stores[0];
    let ann = add_user(store, "ann@example.org").await;
    let session = open_one(store, ann, NOW).await;
    store_letter(
        store,
        &letter(LetterKind::VerifyEmail, NOW).to(&address("ann@example.org")),
    )
    .await;
    register(store, &registration("ann@example.org", NOW)).await;
    let outcome = store.erase_user(ann, &built_in(), &by(at(1))).await;
    assert_eq!(outcome.expect("an answer"), EraseUser::Erased);
    let told = told_since(store, at(1)).await;
    assert_eq!(told, ["account_erased", "session_ended revoked"]);
    assert_eq!(stores[1].user(ann).await.expect("an answer"), None);
    let view = stores[1].live_sessions(&[(ann, session)]).await;
    let view = view.expect("an answer").remove(0).expect("a sound answer");
    assert_eq!(view, None);
    let dump = String::from_utf8_lossy(&database.dump().await).into_owned();
    assert!(!dump.contains("ann@example.org"));
    let again = store.erase_user(ann, &built_in(), &by(at(2))).await;
    assert_eq!(again.expect("an answer"), EraseUser::Gone);
    add_user(store, "ann@example.org").await;
}

async fn the_last_administrator_is_not_erased(database: Database) {
    let stores = two_nodes(&database).await;
    let mut admins = Vec::new();
    for n in 0..4 {
        admins.push(add(&*stores[0], &new_admin(&format!("admin{n}@example.org"))).await);
    }
    let erasures = admins.iter().enumerate().map(|(n, &admin)| {
        let store = Arc::clone(&stores[n % 2]);
        async move {
            let erased = store.erase_user(admin, &built_in(), &by(at(1))).await;
            erased.expect("an answer")
        }
    });
    let outcomes = race(erasures).await;
    let erased = |outcome: &&EraseUser| **outcome == EraseUser::Erased;
    assert_eq!(outcomes.iter().filter(erased).count(), 3);
    assert!(outcomes.contains(&EraseUser::LastAdmin));
}

async fn records_are_listed_by_what_is_asked_for(database: Database) {
    let store = database.open().await;
    let ann = add_user(&*store, "ann@example.org").await;
    let bob = add_user(&*store, "bob@example.org").await;
    let session = open_one(&*store, ann, at(1)).await;
    let agent = Agent::User {
        id: ann,
        session: Some(session),
    };
    let patch = UserPatch {
        username: Some(Some(name("bob"))),
        ..UserPatch::default()
    };
    let occasion = by_agent(agent, at(2));
    let renamed = store
        .update_user(bob, &patch, None, SINGLE, IDLE, &occasion)
        .await;
    renamed.expect("an answer");
    let refused = Event::refused(EventKind::Reauthentication, "wrong_password").about(bob);
    store
        .record(&[refused], &by(at(3)))
        .await
        .expect("recorded");

    let list = async |filter: AuditFilter| {
        let filter = AuditFilter {
            limit: 10,
            ..filter
        };
        let found = store.list_audit(&filter).await.expect("an answer");
        found.iter().map(in_words).collect::<Vec<_>>()
    };
    let all = AuditFilter::default;
    let newest_first = list(all()).await;
    assert_eq!(newest_first.len(), 5);
    assert_eq!(newest_first[0], "reauthentication refused wrong_password");
    let filter = AuditFilter {
        user: Some(ann),
        ..all()
    };
    assert_eq!(
        list(filter).await,
        ["account_changed", "login", "account_created"]
    );
    let filter = AuditFilter {
        subject: Some(ann),
        ..all()
    };
    assert_eq!(list(filter).await, ["login", "account_created"]);
    let filter = AuditFilter {
        session: Some(session),
        ..all()
    };
    assert_eq!(list(filter).await, ["account_changed", "login"]);
    let filter = AuditFilter {
        event: Some(EventKind::AccountCreated),
        ..all()
    };
    assert_eq!(list(filter).await, ["account_created"; 2]);
    let filter = AuditFilter {
        outcome: Some(Outcome::Refused),
        ..all()
    };
    assert_eq!(list(filter).await.len(), 1);
    let filter = AuditFilter {
        from: Some(at(1)),
        until: Some(at(3)),
        ..all()
    };
    assert_eq!(list(filter).await, ["account_changed", "login"]);
    let first_two = AuditFilter { limit: 2, ..all() };
    let page = store.list_audit(&first_two).await.expect("an answer");
    let filter = AuditFilter {
        before: Some(page[1].id),
        ..all()
    };
    assert_eq!(list(filter).await.len(), 3);
}

async fn a_trail_that_is_off_writes_nothing(database: Database) {
    let store = database.open().await;
    let off = Occasion {
        recorder: None,
        ..by(NOW)
    };
    let ann = new_user("ann@example.org");
    let made = store.create_user(&ann, None, None, &off).await;
    assert_eq!(made.expect("an answer"), CreateUser::Created);
    let login = Login::of(&*store, ann.user.id).await;
    let opened = store.open_session(&login.request(NOW), &off).await;
    assert!(matches!(opened, Ok(OpenSession::Opened { .. })));
    let refused = Event::login_refused(None, "unknown_account");
    store.record(&[refused], &off).await.expect("an answer");
    assert_eq!(records(&*store).await, []);
    assert_eq!(store.count_unsealed_audit().await.expect("an answer"), 0);
}

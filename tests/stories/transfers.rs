//! An operator moves to another database, and nobody notices: tokens, links and letters outlive it, and so does
//! the reason why a session ended. A transfer that is killed goes on; one that cannot be right says so.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use ::mongodb::bson::{self, Document, doc};
use async_trait::async_trait;
use doorward::{
    accounts::AccountPolicy,
    clock::{Span, Timestamp},
    ids::UserId,
    store::{
        StoreError, StoreResult,
        moving::{Ask, Kind, Moving, Page, Record, Sum},
        open::Opened,
    },
    transfer::{Survey, Transfer, TransferError},
};
use rustix::process::Signal;
use serde_json::json;

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, PASSWORD, Setup},
        backend::{Backend, Database},
        mailbox::Mailbox,
        until,
        urls::url_of,
    },
    program::{Place, borrowed, serving},
};

for_each_store! {
    everything_moves_and_moves_back,
    a_transfer_goes_on_wherever_it_was_broken_off,
    the_program_is_killed_and_goes_on,
    what_cannot_be_is_named_and_nothing_is_moved,
    a_source_that_is_still_written_to_is_noticed,
}

const ANN: &str = "ann@example.org";
const BEN: &str = "ben@example.org";
const CAT: &str = "cat@example.org";
const DORA: &str = "dora@example.org";
const NEW_PASSWORD: &str = "another horse entirely";
const GRACE: Duration = Duration::from_secs(10);
const ALL: [Backend; 3] = [Backend::Sqlite, Backend::Postgres, Backend::Mongodb];

/// Who was there before the move, and what they hold.
struct Lived {
    app: App,
    ann: Client,
    /// Ann's tokens of two refreshes ago.
    stolen: Client,
    /// Ann's, who logged out there.
    phone: Client,
    ben: Client,
    /// Cat's first session, which the second replaced.
    replaced: Client,
    cat: Client,
    /// Resets Cat's password.
    link: String,
    /// Confirms Dora's registration.
    joining: String,
}

/// As the first node, but registrations wait until their address is confirmed.
fn concealing(setup: &Setup) -> Setup {
    Setup {
        accounts: AccountPolicy {
            require_verified_email: true,
            conceal_existence: true,
            ..AccountPolicy::default()
        },
        ..setup.clone()
    }
}

async fn id_of(client: &Client) -> String {
    let me = client.me().await.expect(200);
    me["id"].as_str().expect("an id").to_owned()
}

/// Everything that a database can have in it, made over HTTP.
async fn live(database: Database) -> Lived {
    let (mailbox, setup) = Mailbox::in_memory(Setup::default());
    let mut app = App::with(database, setup.clone()).await;
    let second = app.add_node(&concealing(&setup)).await;
    let root = app.admin("root@example.org").await;
    let editor = json!({"permissions": ["users:read", "audit:read"]});
    root.put("/v1/admin/roles/editor", editor).await.expect(200);

    let stolen = app.holder(ANN, &["editor"]).await;
    let patch = json!({
        "attributes": {"name": "Ann \u{1f40e} \"$x\"", "big": 1e15, "nested": {"b": [1, 2.5, null], "a": true}},
        "max_sessions": 3,
    });
    let account = format!("/v1/admin/users/{}", id_of(&stolen).await);
    root.patch(&account, patch).await.expect(200);
    let ann = stolen.refreshed().await.refreshed().await;
    let phone = app.log_in(ANN).await;
    phone.call("/v1/auth/logout").await.expect(204);

    let ben = app.holder(BEN, &[]).await;
    let account = format!("/v1/admin/users/{}", id_of(&ben).await);
    // An address that is left is kept for whoever left it, if it was theirs.
    let verified = json!({"email_verified": true});
    root.patch(&account, verified).await.expect(200);
    let moved = json!({"email": "ben@example.com"});
    root.patch(&account, moved).await.expect(200);
    root.call(&format!("{account}/deactivate"))
        .await
        .expect(200);

    let replaced = app.holder(CAT, &[]).await;
    let cat = app.log_in(CAT).await;
    let wrong = "a wrong one altogether";
    let refused = app.anonymous().try_log_in(CAT, wrong).await;
    assert_problem!(refused, 401, "bad_credentials");
    let forgot = json!({"email": CAT});
    let asked = app
        .anonymous()
        .post("/v1/auth/password/forgot", forgot)
        .await;
    asked.expect(202);
    let link = mailbox.newest(&app, CAT).await.token();
    let join = json!({"email": DORA, "password": PASSWORD});
    let asked = app
        .anonymous_on(second)
        .post("/v1/auth/register", join)
        .await;
    asked.expect(202);
    let joining = mailbox.newest(&app, DORA).await.token();

    app.nodes[0].auth.audit().seal().await.expect("sealed");
    for node in &app.nodes {
        node.auth.outbox().stop(GRACE).await;
    }
    let forgot = json!({"email": ANN});
    let asked = app
        .anonymous()
        .post("/v1/auth/password/forgot", forgot)
        .await;
    asked.expect(202);
    for node in &app.nodes {
        node.auth.shut_down(GRACE).await.expect("stopped");
    }
    Lived {
        app,
        ann,
        stolen,
        phone,
        ben,
        replaced,
        cat,
        link,
        joining,
    }
}

fn between(source: &Opened, target: &Opened, batch: u32) -> Transfer {
    Transfer {
        from: Arc::clone(&source.moving),
        source: "a database".to_owned(),
        to: Arc::clone(&target.moving),
        batch,
    }
}

/// Moves everything and answers what there was.
async fn moved(from: &Database, to: &Database) -> Survey {
    let (source, target) = (from.open_whole().await, to.open_whole().await);
    let transfer = between(&source, &target, 7);
    let survey = transfer.survey().await.expect("an answer");
    let done = transfer.run(&survey, &mut |_| ()).await;
    done.expect("everything is moved");
    source.store.close().await;
    target.store.close().await;
    survey
}

fn sums(survey: &Survey) -> Vec<(Kind, Sum)> {
    let tallies = survey.tallies.iter();
    tallies.map(|t| (t.kind, t.sum.clone())).collect()
}

/// ASVS 7.4.1: what was ended stays ended, wherever it is moved.
async fn everything_moves_and_moves_back(database: Database) {
    let backend = database.backend();
    let lived = live(database).await;
    for there in ALL.into_iter().filter(|one| *one != backend) {
        let target = Database::fresh(there).await;
        let before = moved(&lived.app.database, &target).await;
        assert_eq!(before.faults, Vec::<String>::new());
        for tally in &before.tallies {
            assert!(
                tally.sum.records > 0,
                "{:?} is tested with none",
                tally.kind
            );
            assert_eq!(tally.left_behind, 0);
        }
        let home = Database::fresh(backend).await;
        let back = moved(&target, &home).await;
        assert_eq!(sums(&back), sums(&before), "{there}");
        nobody_notices(&lived, target).await;
    }
}

async fn nobody_notices(lived: &Lived, target: Database) {
    let (mailbox, setup) = Mailbox::in_memory(Setup {
        start: lived.app.now(),
        ..Setup::default()
    });
    let mut app = App::with(target, setup.clone()).await;
    let second = app.add_node(&concealing(&setup)).await;
    let at = |client: &Client| client.at(&app.nodes[0]);

    let me = at(&lived.ann).me().await.expect(200);
    assert_eq!(
        me["attributes"]["nested"],
        json!({"a": true, "b": [1, 2.5, null]})
    );
    assert_eq!(me["attributes"]["name"], "Ann \u{1f40e} \"$x\"");
    assert_problem!(at(&lived.phone).me().await, 401, "logged_out");
    assert_problem!(at(&lived.replaced).me().await, 401, "session_replaced");
    assert_problem!(at(&lived.ben).me().await, 401, "account_deactivated");
    let ben = app
        .anonymous()
        .try_log_in("ben@example.com", PASSWORD)
        .await;
    assert_problem!(ben, 403, "account_deactivated");

    // One slot, and it is taken.
    at(&lived.cat).me().await.expect(200);
    let cat = app.log_in(CAT).await;
    assert_problem!(at(&lived.cat).me().await, 401, "session_replaced");
    let reset = json!({"token": lived.link, "password": NEW_PASSWORD});
    let path = "/v1/auth/password/reset";
    app.anonymous().post(path, reset.clone()).await.expect(204);
    assert_problem!(cat.me().await, 401, "password_changed");
    assert_problem!(app.anonymous().post(path, reset).await, 400, "link_invalid");
    app.anonymous().log_in(CAT, NEW_PASSWORD).await;

    let joining = json!({"token": lived.joining, "password": PASSWORD});
    let path = "/v1/auth/register/confirm";
    let joined = app.anonymous_on(second).post(path, joining).await;
    joined.expect(201);
    app.log_in(DORA).await;

    // The letter that waited is sent, once.
    assert_eq!(mailbox.to(&app, ANN).await.len(), 1);

    let newer = at(&lived.ann).refreshed().await;
    newer.me().await.expect(200);
    assert_problem!(at(&lived.stolen).try_refresh().await, 401, "refresh_reused");
    assert_problem!(newer.me().await, 401, "refresh_reused");

    let trail = app.nodes[0].auth.audit();
    let verified = trail.verify(None).await.expect("an answer");
    assert!(
        verified.breaks.is_empty() && verified.unsealed > 0,
        "{verified:?}"
    );
    trail.seal().await.expect("sealed");
    let verified = trail.verify(None).await.expect("an answer");
    assert!(
        verified.breaks.is_empty() && verified.unsealed == 0,
        "{verified:?}"
    );
}

/// A target whose process dies at a chosen write, before it or with it done and nobody told, or that loses a
/// record on the way.
struct Dying {
    inner: Arc<dyn Moving>,
    writes_left: AtomicI64,
    dies_after: bool,
    loses: Option<Kind>,
}

#[async_trait]
impl Moving for Dying {
    async fn now(&self) -> StoreResult<Timestamp> {
        self.inner.now().await
    }
    async fn page(&self, ask: &Ask) -> StoreResult<Page> {
        self.inner.page(ask).await
    }
    async fn stored(&self, kind: Kind) -> StoreResult<u64> {
        self.inner.stored(kind).await
    }
    fn closed_kept(&self) -> Option<u32> {
        self.inner.closed_kept()
    }
    fn misfit(&self, record: &Record) -> Option<&'static str> {
        self.inner.misfit(record)
    }
    async fn unfinished(&self) -> StoreResult<Option<String>> {
        self.inner.unfinished().await
    }
    async fn begin(&self, state: &str) -> StoreResult<()> {
        self.inner.begin(state).await
    }
    async fn import(
        &self,
        kind: Kind,
        records: &[Record],
        before: &str,
        after: &str,
    ) -> StoreResult<()> {
        let dies = self.writes_left.fetch_sub(1, Ordering::Relaxed) == 0;
        let dead = StoreError::Unavailable("killed".into());
        if dies && !self.dies_after {
            return Err(dead);
        }
        let lost = usize::from(self.loses == Some(kind)).min(records.len());
        let written = self.inner.import(kind, &records[lost..], before, after);
        written.await?;
        if dies { Err(dead) } else { Ok(()) }
    }
    async fn finish(&self) -> StoreResult<()> {
        self.inner.finish().await
    }
}

/// A few users with sessions, in SQLite; the source of what is not about the source.
async fn few() -> Database {
    let app = App::start(Database::fresh(Backend::Sqlite).await).await;
    for name in ["a", "b", "c", "d"] {
        app.user(&format!("{name}@example.org")).await;
    }
    // The sixth login makes five ended ones.
    for _ in 0..5 {
        app.log_in("a@example.org").await;
    }
    app.nodes[0].auth.shut_down(GRACE).await.expect("stopped");
    app.database
}

async fn a_transfer_goes_on_wherever_it_was_broken_off(target: Database) {
    let from = few().await;
    let (source, opened) = (from.open_whole().await, target.open_whole().await);
    let mut transfer = between(&source, &opened, 3);
    let survey = transfer.survey().await.expect("an answer");
    let mut deaths = 0;
    loop {
        transfer.to = Arc::new(Dying {
            inner: Arc::clone(&opened.moving),
            writes_left: AtomicI64::new(i64::from(deaths % 2 == 0)),
            dies_after: deaths % 3 == 0,
            loses: None,
        });
        match transfer.run(&survey, &mut |_| ()).await {
            Ok(()) => break,
            Err(TransferError::Target(StoreError::Unavailable(_))) => deaths += 1,
            Err(other) => panic!("{other}"),
        }
        let state = opened.moving.unfinished().await.expect("an answer");
        assert!(state.is_some(), "it is known to be unfinished");
        assert!(deaths < 200, "it goes on");
    }
    assert!(deaths > 15, "{deaths}");
    let state = opened.moving.unfinished().await.expect("an answer");
    assert_eq!(state, None);
    let again = transfer.run(&survey, &mut |_| ()).await;
    let refused = again.expect_err("it is not empty any more").to_string();
    assert!(
        refused.starts_with("the target is not empty: it has 4 users, 9 sessions"),
        "{refused}"
    );
}

/// A target that has not what the source has is never handed over.
#[tokio::test(flavor = "multi_thread")]
async fn what_did_not_arrive_is_noticed() {
    let (from, to) = (few().await, Database::fresh(Backend::Sqlite).await);
    let (source, opened) = (from.open_whole().await, to.open_whole().await);
    let mut transfer = between(&source, &opened, 500);
    transfer.to = Arc::new(Dying {
        inner: Arc::clone(&opened.moving),
        writes_left: AtomicI64::new(i64::MAX),
        dies_after: false,
        loses: Some(Kind::AuditEvents),
    });
    let survey = transfer.survey().await.expect("an answer");
    let noticed = transfer.run(&survey, &mut |_| ()).await;
    let noticed = noticed.expect_err("one is missing").to_string();
    let what = "the target is not as the source: audit_events; drop it";
    assert!(noticed.starts_with(what), "{noticed}");
    let state = opened.moving.unfinished().await.expect("an answer");
    assert!(state.is_some(), "nobody serves it");
}

/// No rule of MongoDB's keeps what the SQL databases would refuse out of it; a transfer names it.
#[tokio::test(flavor = "multi_thread")]
async fn documents_that_belong_to_nobody_are_named() {
    let app = App::start(Database::fresh(Backend::Mongodb).await).await;
    let ann = app.user(ANN).await;
    let ben = app.user(BEN).await;
    let (ann, ben) = (id_of(&ann).await, id_of(&ben).await);
    app.nodes[0].auth.shut_down(GRACE).await.expect("stopped");
    let mongo = app.database.mongo().await;
    let names = mongo.collection::<Document>("login_names");
    let anns = doc! {"_id": format!("email:{ANN}")};
    names.delete_one(anns).await.expect("deleted");
    let devices = mongo.collection::<Document>("devices");
    let id: UserId = ben.parse().expect("an id");
    let id = bson::Uuid::from_bytes(id.as_uuid().into_bytes());
    let stray = bson::Uuid::from_bytes([7; 16]);
    let lost = doc! {"$set": {"user_id": stray}};
    let of_ben = doc! {"user_id": id};
    let changed = devices.update_one(of_ben, lost).await.expect("changed");
    assert_eq!(changed.modified_count, 1, "Ben has a device");

    let target = Database::fresh(Backend::Sqlite).await;
    let (source, opened) = (app.database.open_whole().await, target.open_whole().await);
    let survey = between(&source, &opened, 500).survey().await;
    let stray = "07070707-0707-0707-0707-070707070707";
    let faults = [
        format!("corrupt row: login_names.user_id of {ann}"),
        format!("corrupt row: devices.user_id of user {stray}"),
    ];
    assert_eq!(survey.expect("an answer").faults, faults);
}

/// How the program is told of a database, in a file since there may be a password in it.
fn url_file(place: &Place, name: &str, database: &Database) -> String {
    let url = url_of(database.settings());
    place.write(name, &url).display().to_string()
}

async fn the_program_is_killed_and_goes_on(target: Database) {
    let from = few().await;
    let place = Place::new();
    let (source, to) = (
        url_file(&place, "from", &from),
        url_file(&place, "to", &target),
    );
    let opened = target.open_whole().await;
    let state = async || opened.moving.unfinished().await.expect("an answer");
    let args = ["transfer", "--from-file", &source, "--to-file", &to];
    let run = |more: &[&str]| place.run(&[&args[..], more].concat(), &[]);

    let dry = run(&["--dry-run", "--json"]).json();
    assert_eq!(
        (&dry["faults"], &dry["dry_run"]),
        (&json!([]), &json!(true))
    );
    assert_eq!(state().await, None, "nothing was written");
    let refusal = run(&["--json"]).refusal();
    assert!(
        refusal.ends_with("say so with --source-is-stopped"),
        "{refusal}"
    );

    let slow = [
        &args[..],
        &["--source-is-stopped", "--batch", "1", "--json"],
    ]
    .concat();
    for _ in 0..3 {
        let known = state().await;
        let mut child = place.command(&slow, &[]).spawn().expect("started");
        until("it has come further", async || state().await != known).await;
        let pid = rustix::process::Pid::from_child(&child);
        // It may have come to its end at this very moment.
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let _ = child.wait().expect("ended");
    }
    if state().await.is_some() {
        let variables = serving(&target);
        let refusal = place.run(&["serve"], &borrowed(&variables)).refusal();
        let what = "names the target of a transfer that has not ended";
        assert!(refusal.contains(what), "{refusal}");
        let done = place.run(&slow, &[]).json();
        assert_eq!(done["verified"], true);
    }
    assert_eq!(state().await, None);
    let whole = between(&from.open_whole().await, &opened, 500);
    let copied = Transfer {
        from: Arc::clone(&opened.moving),
        to: Arc::clone(&whole.from),
        ..whole
    };
    let (there, here) = (copied.survey().await, survey_of(&from).await);
    assert_eq!(sums(&there.expect("an answer")), sums(&here));
}

async fn survey_of(database: &Database) -> Survey {
    let opened = database.open_whole().await;
    let survey = between(&opened, &opened, 500).survey().await;
    survey.expect("an answer")
}

async fn what_cannot_be_is_named_and_nothing_is_moved(database: Database) {
    let app = App::start(database).await;
    let root = app.admin("root@example.org").await;
    let editor = json!({"permissions": ["users:read"]});
    root.put("/v1/admin/roles/editor", editor).await.expect(200);
    let ann = app.user(ANN).await;
    let id: UserId = id_of(&ann).await.parse().expect("an id");
    app.nodes[0].auth.shut_down(GRACE).await.expect("stopped");
    app.database.corrupt_user_row(id).await;
    app.database.corrupt_role_row("editor").await;

    let target = Database::fresh(Backend::Sqlite).await;
    let (source, opened) = (app.database.open_whole().await, target.open_whole().await);
    let transfer = between(&source, &opened, 500);
    let survey = transfer.survey().await.expect("an answer");
    let named = [
        "corrupt row: roles.permissions of editor".to_owned(),
        format!("corrupt row: users.email of {id}"),
    ];
    assert_eq!(survey.faults[..2], named);
    let refused = transfer.run(&survey, &mut |_| ()).await;
    let refused = refused.expect_err("it has faults").to_string();
    assert!(
        refused.contains(&named[1]) && refused.starts_with("nothing was moved"),
        "{refused}"
    );
    let state = opened.moving.unfinished().await.expect("an answer");
    assert_eq!(state, None, "it was not begun");
}

async fn a_source_that_is_still_written_to_is_noticed(database: Database) {
    let app = App::start(database).await;
    let ann = app.user(ANN).await;
    let id: UserId = id_of(&ann).await.parse().expect("an id");
    let there = if app.database.backend() == Backend::Sqlite {
        Backend::Mongodb
    } else {
        Backend::Sqlite
    };
    let target = Database::fresh(there).await;
    let (source, opened) = (app.database.open_whole().await, target.open_whole().await);
    let transfer = between(&source, &opened, 500);
    let survey = transfer.survey().await.expect("an answer");
    assert!(survey.is_busy(app.now()), "{:?}", survey.newest);
    app.database.deactivate_user_row(id, app.now()).await;
    let noticed = transfer.run(&survey, &mut |_| ()).await;
    let noticed = noticed.expect_err("it was changed").to_string();
    let what = "the source was changed while it was read: users; stop every node";
    assert!(noticed.starts_with(what), "{noticed}");

    let survey = transfer.survey().await.expect("an answer");
    let again = transfer.run(&survey, &mut |_| ()).await;
    let again = again.expect_err("it was begun before").to_string();
    assert!(again.contains("before it was changed (users)"), "{again}");
}

/// A column or a table that a migration adds does not stay behind in silence.
#[tokio::test]
async fn every_table_and_column_is_moved_or_left_on_purpose() {
    let database = Database::fresh(Backend::Sqlite).await;
    let mut tables = crate::harness::sqlite::tables(&database.settings().sqlite.path);
    // Not kept by a move: counters and leases are of running nodes, the rest is made by migrations.
    for left in ["__diesel_schema_migrations", "guards", "leases"] {
        assert!(tables.remove(left).is_some(), "{left}");
    }
    for kind in Kind::ALL {
        let columns: Vec<&str> = kind.columns().iter().map(|column| column.name).collect();
        assert_eq!(tables.remove(kind.table()).expect("a table"), columns);
    }
    assert!(tables.is_empty(), "{tables:?}");
}

/// MongoDB removes them at the next login anyway; a transfer says so.
#[tokio::test(flavor = "multi_thread")]
async fn closed_sessions_that_mongodb_would_not_keep_stay_behind() {
    let app = App::start(Database::fresh(Backend::Sqlite).await).await;
    let first = app.user(ANN).await;
    let mut last = first.clone();
    for _ in 0..25 {
        app.clock.advance(Span::secs(1));
        last = app.log_in(ANN).await;
    }
    app.user(BEN).await;
    app.nodes[0].auth.shut_down(GRACE).await.expect("stopped");
    let target = Database::fresh(Backend::Mongodb).await;
    let survey = moved(&app.database, &target).await;
    let sessions = survey.tallies.iter().find(|t| t.kind == Kind::Sessions);
    let sessions = sessions.expect("there are some");
    assert_eq!(
        (sessions.sum.records, sessions.left_behind),
        (20 + 1 + 1, 5)
    );
    let setup = Setup {
        start: app.now(),
        ..Setup::default()
    };
    let there = App::with(target, setup).await;
    let at = |client: &Client| client.at(&there.nodes[0]);
    at(&last).me().await.expect(200);
    assert_problem!(at(&first).me().await, 401, "session_unknown");
}

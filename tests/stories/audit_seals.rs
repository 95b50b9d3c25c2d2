//! Whoever owns the database changes the audit trail by hand, and is found out; what Doorward does itself, at
//! whatever moment, looks like nothing of the kind.

use doorward::{
    audit::{AuditPolicy, Break, Flaw, Sealing, Trail, Verified},
    clock::Span,
    entropy::SystemEntropy,
    ids::{AuditId, SessionId, UserId},
    model::audit::{
        AuditRecord,
        seal::{Mark, MarkName, Sealed},
    },
    store::Store,
    sweep::Swept,
};
use serde_json::json;

use crate::{
    for_each_store,
    harness::{
        app::{App, Setup, fresh_email},
        backend::{Backend, Database},
        until,
    },
};

for_each_store! {
    every_changed_field_is_found,
    removed_records_are_found,
    moved_and_added_records_are_found,
    an_older_state_is_found_by_a_head_that_was_kept,
    forged_marks_are_found,
    what_is_not_sealed_is_counted,
    old_records_go_and_the_chain_stays_whole,
    a_record_that_was_made_to_look_old_stays,
    what_goes_on_meanwhile_is_no_break,
    another_key_seals_nothing,
    a_node_seals_by_itself,
}

/// What users do, about ten records of it, sealed.
async fn sealed(database: Database) -> (App, Vec<AuditRecord>) {
    let app = App::two_nodes(database).await;
    for _ in 0..3 {
        live(&app).await;
    }
    seal(&app).await;
    app.database.unguard_audit().await;
    let records = records(&app).await;
    assert!(records.len() > 8, "{}", records.len());
    (app, records)
}

/// Somebody comes and goes.
async fn live(app: &App) {
    let client = app.user(&fresh_email()).await;
    client.post("/v1/auth/logout", json!({})).await.expect(204);
}

fn trail(app: &App) -> &Trail {
    app.nodes[0].auth.audit()
}

async fn records(app: &App) -> Vec<AuditRecord> {
    let found = app.nodes[0].store.sealed_audit(i64::MIN, 1000).await;
    found.expect("an answer")
}

async fn mark(app: &App, name: MarkName) -> Option<Mark> {
    let found = app.nodes[0].store.audit_mark(name).await;
    found.expect("an answer")
}

/// Seals everything and gives the new head.
async fn seal(app: &App) -> Mark {
    match trail(app).seal().await.expect("an answer") {
        Sealing::Done {
            head: Some(head), ..
        } => head,
        other => panic!("{other:?}"),
    }
}

async fn verified(app: &App, known: Option<&Mark>) -> Verified {
    let known = known.map(|mark| Sealed {
        seq: mark.seq,
        seal: mark.seal.clone(),
    });
    trail(app).verify(known).await.expect("an answer")
}

/// What a verification finds, by place and name.
async fn flaws(app: &App) -> Vec<(i64, &'static str)> {
    flaws_with(app, None).await
}

async fn flaws_with(app: &App, known: Option<&Mark>) -> Vec<(i64, &'static str)> {
    let breaks = verified(app, known).await.breaks;
    breaks.iter().map(|b| (b.place, b.flaw.as_str())).collect()
}

async fn sweep(app: &App) -> Swept {
    let swept = app.nodes[0].auth.sweeper().sweep().await;
    swept.expect("an answer").expect("swept")
}

fn last_of(records: &[AuditRecord]) -> i64 {
    i64::try_from(records.len()).expect("few")
}

fn placed(record: &AuditRecord, seq: i64) -> AuditRecord {
    let mut record = record.clone();
    record.sealed.as_mut().expect("sealed").seq = seq;
    record
}

/// ASVS 16.4.2.
async fn every_changed_field_is_found(database: Database) {
    let (app, records) = sealed(database).await;
    let fresh = |r: &AuditRecord| UserId::fresh(r.at, &SystemEntropy);
    let edits: [&(dyn Fn(&mut AuditRecord) + Sync); 15] = [
        &|r| r.id = AuditId::fresh(r.at, &SystemEntropy),
        &|r| r.at = r.at.plus(Span::millis(1)),
        &|r| r.event.push('x'),
        &|r| "refused".clone_into(&mut r.outcome),
        &|r| r.reason = Some("an excuse".to_owned()),
        &|r| "operator".clone_into(&mut r.actor),
        &|r| r.actor_id = Some(fresh(r)),
        &|r| r.actor_session = Some(SessionId::fresh(r.at, &SystemEntropy)),
        &|r| r.subject = Some(fresh(r)),
        &|r| r.session = Some(SessionId::fresh(r.at, &SystemEntropy)),
        &|r| r.person = Some(fresh(r)),
        &|r| r.request_id = Some("another".to_owned()),
        &|r| r.details = Some(vec![1, 2, 3]),
        &|r| r.facts = Some(r#"{"it's":"nothing"}"#.to_owned()),
        &|r| r.sealed.as_mut().expect("sealed").seal[0] ^= 1,
    ];
    let last = records.len() - 1;
    for (n, edit) in edits.into_iter().enumerate() {
        for index in [0, 2, last] {
            let original = &records[index];
            let mut edited = original.clone();
            edit(&mut edited);
            app.database.replace_audit(&[original], &[&edited]).await;
            let found = Break {
                place: last_of(&records[..=index]),
                record: Some(edited.id),
                flaw: Flaw::WrongSeal,
            };
            assert_eq!(verified(&app, None).await.breaks, [found], "edit {n}");
            app.database.replace_audit(&[&edited], &[original]).await;
        }
    }
    let whole = verified(&app, None).await;
    assert!(whole.is_whole(), "{whole:?}");
    assert_eq!(whole.records, records.len() as u64);
    assert_eq!(
        (whole.first, whole.last),
        (Some(1), Some(last_of(&records)))
    );
}

/// ASVS 16.4.2.
async fn removed_records_are_found(database: Database) {
    let (app, records) = sealed(database).await;
    let end = last_of(&records);
    for gone in [0..1, 3..6, 8..records.len(), 0..records.len()] {
        let gone: Vec<&AuditRecord> = records[gone].iter().collect();
        app.database.replace_audit(&gone, &[]).await;
        let places: Vec<i64> = gone
            .iter()
            .filter_map(|r| Some(r.sealed.as_ref()?.seq))
            .collect();
        let until = places[places.len() - 1];
        let found = Break {
            place: places[0],
            record: None,
            flaw: Flaw::Missing { until },
        };
        assert_eq!(verified(&app, None).await.breaks, [found]);
        app.database.replace_audit(&[], &gone).await;
    }
    // Sealing goes on behind what was taken from the end, and that is found all the same.
    app.database
        .delete_audit(records[records.len() - 1].id)
        .await;
    live(&app).await;
    seal(&app).await;
    assert_eq!(flaws(&app).await, [(end, "missing")]);
}

/// ASVS 16.4.2.
async fn moved_and_added_records_are_found(database: Database) {
    let (app, records) = sealed(database).await;
    let end = last_of(&records);
    let (third, seventh) = (&records[2], &records[6]);
    let swapped = [
        &AuditRecord {
            sealed: seventh.sealed.clone(),
            ..third.clone()
        },
        &AuditRecord {
            sealed: third.sealed.clone(),
            ..seventh.clone()
        },
    ];
    app.database
        .replace_audit(&[third, seventh], &swapped)
        .await;
    assert_eq!(flaws(&app).await, [(3, "wrong_seal"), (7, "wrong_seal")]);
    app.database
        .replace_audit(&swapped, &[third, seventh])
        .await;

    let mut added = third.clone();
    added.id = AuditId::fresh(third.at, &SystemEntropy);
    app.database.insert_audit(&placed(&added, 0)).await;
    assert_eq!(flaws(&app).await, [(0, "before_beginning")]);
    app.database.delete_audit(added.id).await;

    // Between two others, which make room.
    let later: Vec<&AuditRecord> = records[4..].iter().collect();
    let moved: Vec<AuditRecord> = (6..).zip(&later).map(|(seq, r)| placed(r, seq)).collect();
    let mut moved: Vec<&AuditRecord> = moved.iter().collect();
    let between = placed(&added, 5);
    moved.push(&between);
    app.database.replace_audit(&later, &moved).await;
    let found = flaws(&app).await;
    assert_eq!(found.first(), Some(&(5, "wrong_seal")), "{found:?}");
    assert_eq!(found.last(), Some(&(end + 1, "beyond_head")), "{found:?}");
    app.database.replace_audit(&moved, &later).await;

    app.database.insert_audit(&placed(&added, end + 1)).await;
    assert_eq!(flaws(&app).await, [(end + 1, "beyond_head")]);
    live(&app).await;
    let refused = trail(&app).seal().await.expect("an answer");
    assert!(matches!(refused, Sealing::Refused(_)), "{refused:?}");
    app.database.delete_audit(added.id).await;
    seal(&app).await;
    assert_eq!(flaws(&app).await, []);
}

/// ASVS 16.4.2.
async fn an_older_state_is_found_by_a_head_that_was_kept(database: Database) {
    let (app, before) = sealed(database).await;
    let old = mark(&app, MarkName::Head).await.expect("sealed");
    live(&app).await;
    let new = seal(&app).await;
    assert_eq!(flaws_with(&app, Some(&new)).await, []);
    assert_eq!(flaws_with(&app, Some(&old)).await, []);

    let all = records(&app).await;
    let cut_off: Vec<&AuditRecord> = all[before.len()..].iter().collect();
    app.database.replace_audit(&cut_off, &[]).await;
    app.database.write_mark(&old).await;
    assert_eq!(flaws(&app).await, [], "this is how it was once");
    assert_eq!(flaws_with(&app, Some(&old)).await, []);
    let gone = [(new.seq, "known_head_gone")];
    assert_eq!(flaws_with(&app, Some(&new)).await, gone);
    // Another past, as long as the true one.
    live(&app).await;
    assert_ne!(seal(&app).await.seal, new.seal);
    assert_eq!(flaws(&app).await, []);
    assert_eq!(flaws_with(&app, Some(&new)).await, gone);

    let all = records(&app).await;
    let all: Vec<&AuditRecord> = all.iter().collect();
    app.database.replace_audit(&all, &[]).await;
    app.database.delete_mark(MarkName::Head).await;
    assert_eq!(flaws(&app).await, [], "as if nothing had ever happened");
    assert_eq!(flaws_with(&app, Some(&new)).await, gone);
}

/// ASVS 16.4.2.
async fn forged_marks_are_found(database: Database) {
    let (app, records) = sealed(database).await;
    let head = mark(&app, MarkName::Head).await.expect("sealed");
    let end = last_of(&records);
    live(&app).await;
    let fifth = records[4].sealed.clone().expect("sealed");
    let cut = Mark {
        seq: 5,
        seal: fifth.seal,
        ..head.clone()
    };
    let cut_off: Vec<&AuditRecord> = records[5..].iter().collect();
    app.database.replace_audit(&cut_off, &[]).await;
    app.database.write_mark(&cut).await;
    assert_eq!(flaws(&app).await, [(5, "head_forged")]);
    let forged = Break {
        place: 5,
        record: None,
        flaw: Flaw::HeadForged,
    };
    let refused = trail(&app).seal().await.expect("an answer");
    assert_eq!(refused, Sealing::Refused(forged));
    app.database.replace_audit(&[], &cut_off).await;

    app.database.delete_mark(MarkName::Head).await;
    assert_eq!(flaws(&app).await, [(0, "head_missing")]);
    let refused = trail(&app).seal().await.expect("an answer");
    assert!(matches!(refused, Sealing::Refused(_)), "{refused:?}");

    // A beginning of one's own making takes even what guards the records out of the way.
    app.database.write_mark(&head).await;
    app.clock.advance(Span::days(400));
    let checkpoint = Mark {
        name: MarkName::Checkpoint,
        ..cut
    };
    app.database.write_mark(&checkpoint).await;
    let old: Vec<&AuditRecord> = records[..5].iter().collect();
    app.database.replace_audit(&old, &[]).await;
    assert_eq!(flaws(&app).await, [(5, "checkpoint_forged")]);
    assert_eq!(sweep(&app).await.audit_records, 0);
    app.database.delete_mark(MarkName::Checkpoint).await;
    assert_eq!(flaws(&app).await, [(1, "missing")]);
    assert_eq!(sweep(&app).await.audit_records, 0);
    app.database.replace_audit(&[], &old).await;
    assert_eq!(flaws(&app).await, []);
    assert_eq!(verified(&app, None).await.last, Some(end));
}

async fn what_is_not_sealed_is_counted(database: Database) {
    let (app, records) = sealed(database).await;
    live(&app).await;
    let waiting = app.nodes[0].store.unsealed_audit(100).await;
    let waiting = waiting.expect("an answer");
    let mut edited = waiting[0].clone();
    "refused".clone_into(&mut edited.outcome);
    app.database.replace_audit(&[&waiting[0]], &[&edited]).await;
    let found = verified(&app, None).await;
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(found.unsealed, waiting.len() as u64);
    assert_eq!(found.records, records.len() as u64);
    seal(&app).await;
    let found = verified(&app, None).await;
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(found.unsealed, 0);
}

/// Records for thirty days.
async fn forgetful(database: Database) -> App {
    let audit = AuditPolicy {
        keep: Span::days(30),
        ..Setup::default().audit
    };
    let setup = Setup {
        nodes: 2,
        audit,
        ..Setup::default()
    };
    App::with(database, setup).await
}

/// ASVS 14.2.7, 16.4.2.
async fn old_records_go_and_the_chain_stays_whole(database: Database) {
    let app = forgetful(database).await;
    live(&app).await;
    app.clock.advance(Span::days(31));
    assert_eq!(sweep(&app).await.audit_records, 0, "nothing is sealed");
    let first = seal(&app).await;
    live(&app).await;
    let second = seal(&app).await;
    let oldest = records(&app).await.remove(0);

    assert_eq!(trail(&app).cut(2).await.expect("an answer"), 2);
    assert_eq!(verified(&app, None).await.first, Some(3));
    // As if a node had died between writing down the beginning and removing the rest.
    app.database.insert_audit(&oldest).await;
    let found = verified(&app, None).await;
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(found.expired, 1);
    let swept = sweep(&app).await.audit_records;
    assert_eq!(swept, first.seq.unsigned_abs() - 2 + 1);
    assert_eq!(sweep(&app).await.audit_records, 0);

    let checkpoint = mark(&app, MarkName::Checkpoint).await.expect("cut");
    assert_eq!((checkpoint.seq, &checkpoint.seal), (first.seq, &first.seal));
    let found = verified(&app, Some(&second)).await;
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(found.first, Some(first.seq + 1));
    assert_eq!(flaws_with(&app, Some(&first)).await, []);
    let too_old = Mark { seq: 1, ..first };
    let said = [(1, "known_head_too_old")];
    assert_eq!(flaws_with(&app, Some(&too_old)).await, said);

    // Down to the very last, and on from there.
    app.clock.advance(Span::days(31));
    sweep(&app).await;
    assert_eq!(records(&app).await, []);
    assert_eq!(flaws_with(&app, Some(&second)).await, []);
    live(&app).await;
    seal(&app).await;
    let found = verified(&app, None).await;
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(found.first, Some(second.seq + 1));
}

/// Or else records could be removed by having the sweeper do it.
async fn a_record_that_was_made_to_look_old_stays(database: Database) {
    let app = forgetful(database).await;
    live(&app).await;
    app.clock.advance(Span::days(31));
    live(&app).await;
    seal(&app).await;
    app.database.unguard_audit().await;
    let all = records(&app).await;
    let old = all.iter().filter(|r| r.at == all[0].at).count();
    let young = &all[old];
    let aged = AuditRecord {
        at: all[0].at,
        ..young.clone()
    };
    app.database.replace_audit(&[young], &[&aged]).await;
    assert_eq!(sweep(&app).await.audit_records, old as u64);
    assert_eq!(records(&app).await.len(), all.len() - old);
    let place = last_of(&all[..=old]);
    assert_eq!(flaws(&app).await, [(place, "wrong_seal")]);
}

async fn what_goes_on_meanwhile_is_no_break(database: Database) {
    let app = forgetful(database).await;
    live(&app).await;
    let old = seal(&app).await;
    app.clock.advance(Span::days(31));
    live(&app).await;
    let new = seal(&app).await;
    live(&app).await;
    let verifying = trail(&app).clone();
    let in_between = app.nodes[0].store.hold_after("sealed_audit");
    let verifying = tokio::spawn(async move { verifying.verify(None).await });
    in_between.reached().await;
    // The walk stands before its first record.
    let at_walk = app.nodes[0].store.hold_before("sealed_audit");
    in_between.release();
    at_walk.reached().await;
    let other = app.nodes[1].auth.audit();
    other.seal().await.expect("sealed");
    let removed = other.cut(1000).await.expect("cut");
    assert_eq!(i64::from(removed), old.seq);
    at_walk.release();
    let found = verifying.await.expect("no panic").expect("an answer");
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(found.head, Some(new.clone()), "as it was in the beginning");
    assert_eq!(
        (found.first, found.last),
        (Some(old.seq + 1), Some(new.seq))
    );

    let found = verified(&app, None).await;
    assert!(found.is_whole(), "{found:?}");
    assert!(found.last > Some(new.seq));
}

async fn another_key_seals_nothing(database: Database) {
    let mut app = App::start(database).await;
    live(&app).await;
    let head = seal(&app).await;
    let mut setup = Setup::default();
    setup.audit.key = "YW5vdGhlciBhdWRpdCBrZXkgb2YgMzIgYnl0ZXMhISE=".into();
    let stranger = app.add_node(&setup).await;
    let stranger = app.nodes[stranger].auth.audit().clone();
    live(&app).await;
    let refused = stranger.seal().await.expect("an answer");
    let forged = Break {
        place: head.seq,
        record: None,
        flaw: Flaw::HeadForged,
    };
    assert_eq!(refused, Sealing::Refused(forged.clone()));
    assert_eq!(mark(&app, MarkName::Head).await, Some(head));
    let found = stranger.verify(None).await.expect("an answer");
    assert_eq!(found.breaks[0], forged);
    assert!(found.breaks.len() > 1, "{found:?}");
    app.clock.advance(Span::days(400));
    assert_eq!(stranger.cut(100).await.expect("an answer"), 0);
    seal(&app).await;
    assert_eq!(flaws(&app).await, []);
}

/// Also where nothing is recorded any more.
async fn a_node_seals_by_itself(database: Database) {
    let mut app = App::start(database).await;
    live(&app).await;
    assert_eq!(mark(&app, MarkName::Head).await, None);
    let mut setup = Setup::default();
    setup.audit.enabled = false;
    setup.audit.seal_every = Span::secs(1);
    app.add_node(&setup).await;
    let store = &app.nodes[0].store;
    until("everything is sealed", || async {
        store.count_unsealed_audit().await.expect("an answer") == 0
    })
    .await;
    let found = verified(&app, None).await;
    assert!(found.is_whole(), "{found:?}");
    assert_eq!(found.last, found.head.map(|head| head.seq));
    assert!(found.records > 1);
}

/// What guards the records lets them go behind the checkpoint, so the checkpoint itself is signed.
///
/// ASVS 16.4.2.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_moves_the_checkpoint_is_found_without_touching_triggers() {
    for backend in [Backend::Sqlite, Backend::Postgres] {
        let app = App::start(Database::fresh(backend).await).await;
        live(&app).await;
        let head = seal(&app).await;
        let checkpoint = Mark {
            name: MarkName::Checkpoint,
            seq: 2,
            ..head
        };
        app.database.write_mark(&checkpoint).await;
        app.database
            .sql("DELETE FROM audit_events WHERE seq <= 2")
            .await;
        assert_eq!(flaws(&app).await, [(2, "checkpoint_forged")]);
        app.database.delete_mark(MarkName::Checkpoint).await;
        assert_eq!(flaws(&app).await, [(1, "missing")]);
    }
}

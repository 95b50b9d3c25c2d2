//! The chain of seals: one end whoever seals, each record sealed once, removed from its beginning only.

use std::sync::Arc;

use doorward::{
    audit::{AuditPolicy, Sealing, Trail},
    clock::{ManualClock, Span},
    entropy::SystemEntropy,
    ids::AuditId,
    model::audit::{
        AuditRecord, Event, EventKind,
        keys::AuditSecret,
        seal::{Mark, MarkName, SealKey, Sealed},
    },
    store::Store,
};

use super::sample::{NOW, two_nodes};
use crate::{
    for_each_store,
    harness::{
        backend::{Backend, Database},
        occasions::by,
        race,
    },
};

for_each_store! {
    many_sealers_make_one_chain,
    of_many_heads_one_is_taken,
    what_is_known_no_more_seals_nothing,
    records_go_from_the_beginning_only,
}

fn secret() -> AuditSecret {
    AuditSecret::new(b"an audit secret of 32 test bytes").expect("32 bytes")
}

fn key() -> SealKey {
    secret().seal_key().expect("a key")
}

fn trail(store: &Arc<dyn Store>) -> Trail {
    let clock = Arc::new(ManualClock::at(NOW));
    let entropy = Arc::new(SystemEntropy);
    let policy = AuditPolicy::default();
    Trail::new(Arc::clone(store), clock, entropy, &secret(), policy).expect("a trail")
}

async fn record(store: &dyn Store, n: usize) {
    let events: Vec<Event> = (0..n)
        .map(|n| Event::done(EventKind::RoleStored).with("n", n))
        .collect();
    store.record(&events, &by(NOW)).await.expect("recorded");
}

async fn unsealed(store: &dyn Store) -> Vec<AuditRecord> {
    store.unsealed_audit(1000).await.expect("an answer")
}

async fn sealed(store: &dyn Store) -> Vec<AuditRecord> {
    store.sealed_audit(i64::MIN, 1000).await.expect("an answer")
}

fn place(record: &AuditRecord) -> i64 {
    record.sealed.as_ref().expect("sealed").seq
}

async fn mark(store: &dyn Store, name: MarkName) -> Option<Mark> {
    store.audit_mark(name).await.expect("an answer")
}

/// Places for these records after this head, and the head behind them.
fn chain(head: Option<&Mark>, records: &[AuditRecord]) -> (Vec<(AuditId, Sealed)>, Mark) {
    let (mut seq, mut seal) = head.map_or((0, Vec::new()), |h| (h.seq, h.seal.clone()));
    let mut places = Vec::new();
    for record in records {
        seq += 1;
        seal = key().seal(&seal, seq, record);
        let seal = seal.clone();
        places.push((record.id, Sealed { seq, seal }));
    }
    let last = &places.last().expect("records").1;
    let head = key().mark(MarkName::Head, NOW, last);
    (places, head)
}

/// ASVS 16.4.2.
async fn many_sealers_make_one_chain(database: Database) {
    let nodes = two_nodes(&database).await;
    let trails = [trail(&nodes[0]), trail(&nodes[1])];
    let mut expected = 0;
    for round in 1..=3 {
        record(&*nodes[0], 40).await;
        expected += 40;
        let racers = (0..10).map(|n| {
            let trail = trails[n % 2].clone();
            async move {
                if n < 8 {
                    return Some(trail.seal().await.expect("an answer"));
                }
                let verified = trail.verify(None).await.expect("an answer");
                assert!(verified.is_whole(), "while it is sealed: {verified:?}");
                None
            }
        });
        let mut by_them = 0;
        for done in race(racers).await.into_iter().flatten() {
            match done {
                Sealing::Done { sealed, .. } => by_them += sealed,
                Sealing::Busy => {}
                Sealing::Refused(found) => panic!("round {round}: {found}"),
            }
        }
        assert_eq!(by_them, 40, "each record is sealed by one of them");
        assert_eq!(unsealed(&*nodes[1]).await, []);
        let places: Vec<i64> = sealed(&*nodes[1]).await.iter().map(place).collect();
        assert_eq!(places, (1..=expected).collect::<Vec<_>>());
        let verified = trails[round % 2].verify(None).await.expect("an answer");
        assert!(verified.is_whole(), "{verified:?}");
        assert_eq!(verified.last, Some(expected));
    }
}

/// Without the lease, and each with an end of their own making.
async fn of_many_heads_one_is_taken(database: Database) {
    let nodes = two_nodes(&database).await;
    record(&*nodes[0], 8).await;
    let mut known = None;
    for left in [8, 7, 6] {
        let waiting = unsealed(&*nodes[0]).await;
        assert_eq!(waiting.len(), left);
        let racers = (0..6).map(|n| {
            let (places, head) = chain(known.as_ref(), &waiting[n..=n]);
            let (store, known) = (Arc::clone(&nodes[n % 2]), known.clone());
            async move {
                let moved = store.seal_audit(&places, known.as_ref(), &head).await;
                moved.expect("an answer").then_some(head)
            }
        });
        let mut taken: Vec<Mark> = race(racers).await.into_iter().flatten().collect();
        assert_eq!(taken.len(), 1, "{taken:?}");
        known = taken.pop();
        assert_eq!(mark(&*nodes[1], MarkName::Head).await, known);
    }
    assert_eq!(sealed(&*nodes[0]).await.len(), 3);
}

async fn what_is_known_no_more_seals_nothing(database: Database) {
    let store = database.open().await;
    record(&*store, 4).await;
    let waiting = unsealed(&*store).await;
    let (first, second) = (&waiting[..1], &waiting[1..2]);
    let (places, head) = chain(None, first);
    let seal = async |places: &[_], known, head| {
        let moved = store.seal_audit(places, known, head).await;
        moved.expect("an answer")
    };
    assert!(seal(&places, None, &head).await);
    let (places, later) = chain(Some(&head), second);
    assert!(seal(&places, Some(&head), &later).await);
    let before = sealed(&*store).await;

    // A head that is another one by now, or that was none.
    let (again, end) = chain(Some(&head), &waiting[2..]);
    assert!(!seal(&again, Some(&head), &end).await);
    let (anew, end) = chain(None, &waiting[2..]);
    assert!(!seal(&anew, None, &end).await);
    // A record that is sealed already, after one that is not; and one that there is not.
    let (twice, end) = chain(Some(&later), &[waiting[2].clone(), waiting[0].clone()]);
    assert!(!seal(&twice, Some(&later), &end).await);
    let mut nobodys = waiting[3].clone();
    nobodys.id = AuditId::fresh(NOW, &SystemEntropy);
    let (gone, end) = chain(Some(&later), &[waiting[2].clone(), nobodys]);
    assert!(!seal(&gone, Some(&later), &end).await);

    assert_eq!(mark(&*store, MarkName::Head).await, Some(later));
    assert_eq!(sealed(&*store).await, before);
    assert_eq!(unsealed(&*store).await, &waiting[2..]);
    let verified = trail(&store).verify(None).await.expect("an answer");
    assert!(verified.is_whole(), "{verified:?}");
    assert_eq!((verified.records, verified.unsealed), (2, 2));
}

/// ASVS 14.2.7.
async fn records_go_from_the_beginning_only(database: Database) {
    let store = database.open().await;
    record(&*store, 6).await;
    trail(&store).seal().await.expect("sealed");
    let records = sealed(&*store).await;
    let up_to = |seq: usize| {
        let last = records[seq - 1].sealed.as_ref().expect("sealed");
        key().mark(MarkName::Checkpoint, NOW.plus(Span::days(1)), last)
    };
    let cut = async |checkpoint: &Mark, most| {
        let removed = store.cut_audit(checkpoint, most).await;
        removed.expect("an answer")
    };
    let left = async || -> Vec<i64> { sealed(&*store).await.iter().map(place).collect() };
    let fourth = up_to(4);
    assert_eq!(cut(&fourth, 3).await, 3);
    assert_eq!(left().await, [4, 5, 6], "in batches, the oldest first");
    assert_eq!(cut(&up_to(2), 10).await, 0);
    let checkpoint = mark(&*store, MarkName::Checkpoint).await;
    assert_eq!(checkpoint, Some(fourth.clone()), "it never goes back");
    let verified = trail(&store).verify(None).await.expect("an answer");
    assert!(verified.is_whole(), "{verified:?}");
    assert_eq!((verified.expired, verified.records), (1, 2));
    assert_eq!(
        cut(&fourth, 3).await,
        1,
        "what was left half done is finished"
    );
    assert_eq!(cut(&fourth, 3).await, 0);
    assert_eq!(left().await, [5, 6]);
}

/// Statements that the database itself refuses, whoever sends them.
async fn nobody_changes_records(backend: Backend) {
    let database = Database::fresh(backend).await;
    let store = database.open().await;
    record(&*store, 3).await;
    trail(&store).seal().await.expect("sealed");
    record(&*store, 1).await;
    let before = (sealed(&*store).await, unsealed(&*store).await);
    for statement in [
        "UPDATE audit_events SET event = 'login' WHERE seq = 2",
        "UPDATE audit_events SET event = 'login' WHERE seq IS NULL",
        "UPDATE audit_events SET seq = NULL, seal = NULL WHERE seq = 3",
        "UPDATE audit_events SET seq = seq + 10 WHERE seq = 3",
        "UPDATE audit_events SET seal = id WHERE seq = 3",
        "UPDATE audit_events SET seq = 4, seal = id, facts = NULL WHERE seq IS NULL",
        "DELETE FROM audit_events WHERE seq = 1",
        "DELETE FROM audit_events WHERE seq IS NULL",
        "DELETE FROM audit_events",
    ] {
        let refused = database.try_sql(statement).await;
        assert!(refused.is_err(), "{statement}");
    }
    if backend == Backend::Postgres {
        let refused = database.try_sql("TRUNCATE audit_events").await;
        assert!(refused.is_err());
    }
    let after = (sealed(&*store).await, unsealed(&*store).await);
    assert_eq!(after, before);
}

/// ASVS 16.4.2.
#[tokio::test(flavor = "multi_thread")]
async fn sqlite_keeps_records_from_everybody() {
    nobody_changes_records(Backend::Sqlite).await;
}

/// ASVS 16.4.2.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_keeps_records_from_everybody() {
    nobody_changes_records(Backend::Postgres).await;
}

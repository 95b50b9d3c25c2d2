//! Counters and devices: of many who ask at once, on many nodes, as many are admitted as may be.

use doorward::{
    clock::{Span, Timestamp},
    entropy::SystemEntropy,
    ids::UserId,
    model::{
        device::{DeviceSecret, NewDevice},
        quota::{Draw, FailureRule, Quota, Refusal},
        token::SecretHash,
    },
    store::{Store, Take},
};

use super::sample::{NOW, add_user, fresh_user_id, two_nodes};
use crate::{
    for_each_store,
    harness::{backend::Database, occasions::by, race},
};

for_each_store! {
    a_bucket_gives_its_burst_and_refills,
    several_permits_are_taken_at_once_or_not_at_all,
    of_fifty_at_once_the_burst_is_admitted,
    of_fifty_attempts_at_once_those_before_the_first_delay_are_admitted,
    failures_in_a_row_are_delayed_and_stopped,
    what_refuses_writes_nothing,
    a_clock_that_goes_back_locks_nobody_out,
    what_is_cleared_counts_from_the_beginning,
    an_account_is_cleared_with_all_that_belongs_to_it,
    a_device_is_known_until_it_expires_or_is_forgotten,
    a_user_has_so_many_devices_and_no_more,
}

const QUOTA: Quota = Quota::new(3, Span::secs(30));
const RULE: FailureRule = FailureRule {
    before_delay: 3,
    delay: Span::secs(1),
    longest_delay: Span::secs(3),
    stop: 6,
    memory: Span::days(30),
};

fn draw(key: &str) -> Draw {
    Draw {
        key: SecretHash::of(key),
        account: None,
        quota: Some(QUOTA),
        permits: 1,
        failures: None,
    }
}

fn attempt(key: &str) -> Draw {
    Draw {
        quota: None,
        failures: Some(RULE),
        ..draw(key)
    }
}

fn refused(after: Span, by_failures: bool) -> Take {
    Take::Refused(Refusal { after, by_failures })
}

fn later(span: Span) -> Timestamp {
    NOW.plus(span)
}

async fn take(store: &dyn Store, draw: &Draw, now: Timestamp) -> Take {
    store.take(draw, now).await.expect("an answer")
}

async fn a_bucket_gives_its_burst_and_refills(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let ann = draw("ann");
    for node in [&store, &other_node, &store] {
        assert_eq!(take(&**node, &ann, NOW).await, Take::Admitted);
    }
    let full = refused(Span::secs(10), false);
    assert_eq!(take(&*store, &ann, NOW).await, full);
    assert_eq!(take(&*other_node, &ann, NOW).await, full);
    assert_eq!(take(&*store, &draw("bob"), NOW).await, Take::Admitted);
    let soon = later(Span::secs(10));
    assert_eq!(take(&*store, &ann, soon).await, Take::Admitted);
    assert_eq!(take(&*other_node, &ann, soon).await, full);
    // Long after, and past the row's own time, it is full and no fuller.
    let tomorrow = later(Span::days(1));
    for _ in 0..3 {
        assert_eq!(take(&*store, &ann, tomorrow).await, Take::Admitted);
    }
    assert_eq!(take(&*store, &ann, tomorrow).await, full);
}

async fn several_permits_are_taken_at_once_or_not_at_all(database: Database) {
    let [store, _] = two_nodes(&database).await;
    let two = Draw {
        permits: 2,
        ..draw("ann")
    };
    assert_eq!(take(&*store, &two, NOW).await, Take::Admitted);
    let for_one = refused(Span::secs(10), false);
    assert_eq!(take(&*store, &two, NOW).await, for_one);
    assert_eq!(take(&*store, &draw("ann"), NOW).await, Take::Admitted);
    assert_eq!(take(&*store, &draw("ann"), NOW).await, for_one);
}

/// ASVS 15.4.2: no two have the same permit.
async fn of_fifty_at_once_the_burst_is_admitted(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let quota = Quota::new(10, Span::minutes(15));
    let ten = Draw {
        quota: Some(quota),
        ..draw("ann")
    };
    let answers = race((0..50).map(|n| {
        let node = if n % 2 == 0 { &store } else { &other_node };
        let node = std::sync::Arc::clone(node);
        async move { node.take(&ten, NOW).await.expect("an answer") }
    }))
    .await;
    let admitted = answers.iter().filter(|take| **take == Take::Admitted);
    assert_eq!(admitted.count(), 10);
}

/// ASVS 6.3.1, 2.3.2: an attempt counts before it is decided, so that a hundred at once are not a hundred
/// guesses.
async fn of_fifty_attempts_at_once_those_before_the_first_delay_are_admitted(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let answers = race((0..50).map(|n| {
        let node = if n % 2 == 0 { &store } else { &other_node };
        let node = std::sync::Arc::clone(node);
        async move { node.take(&attempt("ann"), NOW).await.expect("an answer") }
    }))
    .await;
    let admitted = answers.iter().filter(|take| **take == Take::Admitted);
    assert_eq!(admitted.count(), 3);
    assert!(answers.contains(&refused(Span::secs(1), true)));
}

/// ASVS 6.3.1.
async fn failures_in_a_row_are_delayed_and_stopped(database: Database) {
    let [store, _] = two_nodes(&database).await;
    let ann = attempt("ann");
    let mut now = NOW;
    for wait in [0, 0, 0, 1, 2, 3] {
        if wait > 0 {
            let waiting = refused(Span::secs(wait), true);
            assert_eq!(take(&*store, &ann, now).await, waiting);
            now = now.plus(Span::secs(wait));
        }
        assert_eq!(take(&*store, &ann, now).await, Take::Admitted);
    }
    let much_later = now.plus(Span::days(29));
    assert_eq!(
        take(&*store, &ann, much_later).await,
        refused(Span::days(1), true)
    );
    let forgotten = now.plus(Span::days(30));
    assert_eq!(take(&*store, &ann, forgotten).await, Take::Admitted);
}

async fn what_refuses_writes_nothing(database: Database) {
    let [store, _] = two_nodes(&database).await;
    let both = Draw {
        quota: Some(Quota::new(1, Span::days(1))),
        ..attempt("ann")
    };
    assert_eq!(take(&*store, &both, NOW).await, Take::Admitted);
    // Were these counted as failures, they would be delayed in the end and not refused by the bucket.
    for _ in 0..10 {
        let full = refused(Span::days(1), false);
        assert_eq!(take(&*store, &both, NOW).await, full);
    }
}

async fn a_clock_that_goes_back_locks_nobody_out(database: Database) {
    let [store, _] = two_nodes(&database).await;
    let both = Draw {
        quota: Some(QUOTA),
        ..attempt("ann")
    };
    let next_year = later(Span::days(365));
    for _ in 0..3 {
        assert_eq!(take(&*store, &both, next_year).await, Take::Admitted);
    }
    let blocked = refused(Span::secs(1), true);
    assert_eq!(take(&*store, &both, next_year).await, blocked);
    assert_eq!(take(&*store, &both, NOW).await, Take::Admitted);
}

async fn what_is_cleared_counts_from_the_beginning(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    for key in ["ann", "bob"] {
        for _ in 0..3 {
            assert_eq!(take(&*store, &draw(key), NOW).await, Take::Admitted);
        }
    }
    let keys = [SecretHash::of("ann"), SecretHash::of("nobody")];
    let cleared = store.clear_counters(&keys);
    cleared.await.expect("cleared");
    for _ in 0..3 {
        assert_eq!(take(&*other_node, &draw("ann"), NOW).await, Take::Admitted);
    }
    let full = refused(Span::secs(10), false);
    assert_eq!(take(&*store, &draw("bob"), NOW).await, full);
}

async fn an_account_is_cleared_with_all_that_belongs_to_it(database: Database) {
    let [store, _] = two_nodes(&database).await;
    let of = |key: &str, account: Option<&str>| Draw {
        account: account.map(SecretHash::of),
        ..attempt(key)
    };
    let counters = [
        of("unknown", Some("ann")),
        of("laptop", Some("ann")),
        of("bob", Some("bob")),
        of("nobody", None),
    ];
    for counter in &counters {
        for _ in 0..3 {
            assert_eq!(take(&*store, counter, NOW).await, Take::Admitted);
        }
    }
    let ann = SecretHash::of("ann");
    store
        .clear_account(&ann, fresh_user_id(), &by(NOW))
        .await
        .expect("cleared");
    let blocked = refused(Span::secs(1), true);
    for (counter, expected) in
        counters
            .iter()
            .zip([Take::Admitted, Take::Admitted, blocked, blocked])
    {
        assert_eq!(take(&*store, counter, NOW).await, expected);
    }
    // A counter belongs to the account that its name has now.
    let taken_over = of("nobody", Some("ann"));
    let after = later(Span::secs(1));
    assert_eq!(take(&*store, &taken_over, after).await, Take::Admitted);
    store
        .clear_account(&ann, fresh_user_id(), &by(NOW))
        .await
        .expect("cleared");
    assert_eq!(take(&*store, &taken_over, after).await, Take::Admitted);
}

fn device(user_id: UserId, created_at: Timestamp) -> NewDevice {
    NewDevice {
        hash: DeviceSecret::fresh(&SystemEntropy).hash(),
        user_id,
        created_at,
        expires_at: created_at.plus(Span::days(400)),
    }
}

async fn owner(store: &dyn Store, device: &NewDevice, now: Timestamp) -> Option<UserId> {
    let owner = store.device_owner(&device.hash, now).await;
    owner.expect("an answer")
}

async fn a_device_is_known_until_it_expires_or_is_forgotten(database: Database) {
    let [store, other_node] = two_nodes(&database).await;
    let (ann, bob) = (
        add_user(&*store, "ann@example.org").await,
        add_user(&*store, "bob@example.org").await,
    );
    let (laptop, phone) = (device(ann, NOW), device(bob, NOW));
    assert_eq!(owner(&*store, &laptop, NOW).await, None);
    for device in [&laptop, &phone] {
        store.add_device(device, 20).await.expect("added");
    }
    assert_eq!(owner(&*other_node, &laptop, NOW).await, Some(ann));
    assert_eq!(owner(&*store, &phone, NOW).await, Some(bob));

    let (used, over) = (later(Span::days(399)), later(Span::days(400)));
    let until = used.plus(Span::days(400));
    let touched = store.touch_device(&laptop.hash, until, used);
    touched.await.expect("touched");
    assert_eq!(owner(&*store, &laptop, over).await, Some(ann));
    assert_eq!(owner(&*store, &phone, over).await, None);
    // An older use changes nothing.
    let touched = store.touch_device(&laptop.hash, NOW, NOW);
    touched.await.expect("touched");
    assert_eq!(owner(&*store, &laptop, over).await, Some(ann));

    store.forget_devices(ann).await.expect("forgotten");
    assert_eq!(owner(&*store, &laptop, NOW).await, None);
    assert_eq!(owner(&*store, &phone, NOW).await, Some(bob));
}

async fn a_user_has_so_many_devices_and_no_more(database: Database) {
    let [store, _] = two_nodes(&database).await;
    let (ann, bob) = (
        add_user(&*store, "ann@example.org").await,
        add_user(&*store, "bob@example.org").await,
    );
    let others = device(bob, NOW);
    store.add_device(&others, 3).await.expect("added");
    let mut devices = Vec::new();
    for n in 0..3 {
        let device = device(ann, later(Span::secs(n)));
        store.add_device(&device, 3).await.expect("added");
        devices.push(device);
    }
    // The oldest came back; those that never did go first.
    let used = later(Span::minutes(1));
    let touched = store.touch_device(&devices[0].hash, used.plus(Span::days(400)), used);
    touched.await.expect("touched");
    for n in 0..3 {
        let device = device(ann, later(Span::minutes(2 + n)));
        store.add_device(&device, 3).await.expect("added");
        devices.push(device);
    }
    let mut known = Vec::new();
    for (n, device) in devices.iter().enumerate() {
        if owner(&*store, device, used).await == Some(ann) {
            known.push(n);
        }
    }
    assert_eq!(known, [0, 4, 5]);
    assert_eq!(owner(&*store, &others, used).await, Some(bob));
}

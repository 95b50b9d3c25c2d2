//! What is over goes, and nobody notices but those whom it was about.

use doorward::{
    accounts::AccountPolicy,
    clock::Span,
    sweep::{SweepPolicy, Swept},
};
use serde_json::json;

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, PASSWORD, Setup},
        backend::Database,
        mailbox::Mailbox,
    },
};

for_each_store! {
    what_is_over_goes_and_stays_refused,
    an_address_that_nobody_verified_is_free_again,
    one_node_sweeps_at_a_time,
}

const ANN: &str = "ann@example.org";

/// ASVS 14.2.4, 14.2.7.
async fn what_is_over_goes_and_stays_refused(database: Database) {
    let (mailbox, setup) = Mailbox::in_memory(Setup::default());
    let app = App::with(database, setup).await;
    let ann = app.user(ANN).await;
    let verify = json!({"token": mailbox.newest(&app, ANN).await.token()});
    ann.post("/v1/auth/email/verify", verify.clone())
        .await
        .expect(204);
    ann.post("/v1/auth/logout", json!({})).await.expect(204);
    assert_problem!(ann.get("/v1/auth/me").await, 401, "logged_out");

    let sweeper = app.nodes[0].auth.sweeper();
    let swept = sweeper.sweep().await.expect("an answer");
    assert_eq!(swept, Some(Swept::default()), "nothing is over yet");

    app.clock.advance(Span::days(61));
    let swept = sweeper.sweep().await.expect("an answer").expect("swept");
    assert_eq!((swept.sessions, swept.letters), (1, 1), "{swept}");
    assert_eq!(swept.one_time_secrets, 1, "{swept}");
    let again = app.anonymous().post("/v1/auth/email/verify", verify).await;
    assert_problem!(again, 400, "link_invalid");
    let ann = app.log_in(ANN).await;
    ann.get("/v1/auth/me").await.expect(200);
}

async fn an_address_that_nobody_verified_is_free_again(database: Database) {
    let accounts = AccountPolicy {
        require_verified_email: true,
        unverified_ttl: Span::days(7),
        ..AccountPolicy::default()
    };
    let (_mailbox, setup) = Mailbox::in_memory(Setup {
        accounts,
        ..Setup::default()
    });
    let app = App::with(database, setup).await;
    let register = || {
        let body = json!({"email": ANN, "password": PASSWORD});
        let client = app.anonymous();
        async move { client.post("/v1/auth/register", body).await }
    };
    register().await.expect(201);
    app.clock.advance(Span::days(6));
    app.nodes[0]
        .auth
        .sweeper()
        .sweep()
        .await
        .expect("an answer");
    assert_problem!(register().await, 409, "email_taken");

    app.clock.advance(Span::days(2));
    let swept = app.nodes[0].auth.sweeper().sweep().await;
    let swept = swept.expect("an answer").expect("swept");
    assert_eq!(swept.accounts, 1, "{swept}");
    register().await.expect(201);
}

async fn one_node_sweeps_at_a_time(database: Database) {
    let setup = Setup {
        nodes: 2,
        ..Setup::default()
    };
    let app = App::with(database, setup).await;
    for n in 0..3 {
        app.user(&format!("user{n}@example.org")).await;
    }
    app.clock.advance(Span::days(61));
    let gate = app.nodes[0].store.hold_before("sweep");
    let first = app.nodes[0].auth.sweeper().clone();
    let sweeping = tokio::spawn(async move { first.sweep().await });
    gate.reached().await;
    let second = app.nodes[1].auth.sweeper();
    assert_eq!(second.sweep().await.expect("an answer"), None);
    gate.release();
    let swept = sweeping.await.expect("swept").expect("an answer");
    assert_eq!(swept.map(|swept| swept.sessions), Some(3));

    let nothing_left = Some(Swept::default());
    assert_eq!(second.sweep().await.expect("an answer"), nothing_left);

    // A node that dies while it sweeps keeps the others from it, but not for long.
    let gate = app.nodes[0].store.hold_before("sweep");
    let first = app.nodes[0].auth.sweeper().clone();
    let dying = tokio::spawn(async move { first.sweep().await });
    gate.reached().await;
    dying.abort();
    assert_eq!(second.sweep().await.expect("an answer"), None);
    app.clock.advance(Span::minutes(6));
    assert_eq!(second.sweep().await.expect("an answer"), nothing_left);
}

/// ASVS 2.2.3.
#[test]
fn settings_that_make_no_sense_are_refused() {
    let refused = |policy: SweepPolicy| policy.check().expect_err("refused").to_string();
    let fast = SweepPolicy {
        every: Span::millis(1),
        ..SweepPolicy::default()
    };
    assert!(refused(fast).contains("sweep.every"));
    let huge = SweepPolicy {
        batch: 10_001,
        ..SweepPolicy::default()
    };
    assert!(refused(huge).contains("sweep.batch"));
    let at_once = SweepPolicy {
        keep_letters: Span::ZERO,
        ..SweepPolicy::default()
    };
    assert!(refused(at_once).contains("sweep.keep_letters"));
    let never = SweepPolicy {
        every: Span::ZERO,
        ..SweepPolicy::default()
    };
    never.check().expect("never is fine");
    let unverified = AccountPolicy {
        unverified_ttl: Span::days(30),
        ..AccountPolicy::default()
    };
    let error = unverified.check(true).expect_err("refused").to_string();
    assert!(error.contains("accounts.unverified_ttl"), "{error}");
}

//! Nothing that was acknowledged is lost on its way: two real servers, killed at random, and a mail server
//! that refuses, stalls and hangs up.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use doorward::{
    clock::Span,
    mail::{Mail, Mailer, SendError, memory::MemoryMailer, settings::SmtpTls},
    model::mail::LetterState,
    store::{LetterFilter, Store},
};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    for_each_store,
    harness::{
        app::{App, Client, PASSWORD, Setup, fresh_email},
        backend::{Backend, Database},
        mailbox::posting,
        rounds,
        smtp::{Misbehaviour, Options, Received, Rule, SmtpSink, Stage},
    },
    program::{Place, Serving, borrowed, serving},
};

for_each_store! {
    every_letter_arrives_whatever_is_killed_or_hangs_up,
    a_stop_lets_a_letter_be_sent_to_its_end,
}

const NODES: usize = 2;
/// Refused for good, and slow about it.
const POISON: &str = "poison@example.org";
const STALLED: &str = "stalled@example.org";

/// How the nodes send letters to this server: one at a time, so that a kill can leave at most one of them
/// sent and not written down.
fn sending(database: &Database, sink: &SmtpSink) -> Vec<(&'static str, String)> {
    let mut variables = serving(database);
    variables.extend([
        ("DOORWARD__MAIL__TRANSPORT", "smtp".to_owned()),
        (
            "DOORWARD__MAIL__FROM",
            "Doorward <no-reply@example.org>".to_owned(),
        ),
        ("DOORWARD__MAIL__CONCURRENCY", "1".to_owned()),
        ("DOORWARD__MAIL__SEND_TIMEOUT", "3s".to_owned()),
        ("DOORWARD__MAIL__SMTP__HOST", "localhost".to_owned()),
        ("DOORWARD__MAIL__SMTP__PORT", sink.port().to_string()),
        ("DOORWARD__MAIL__SMTP__TLS", "starttls".to_owned()),
        ("DOORWARD__MAIL__SMTP__CA_FILE", sink.ca_file()),
    ]);
    variables
}

async fn registers(client: &Client, email: &str) -> bool {
    let body = json!({"email": email, "password": PASSWORD});
    let url = format!("{}/v1/auth/register", client.url);
    let sent = client.http.post(url).json(&body).send().await;
    sent.is_ok_and(|reply| reply.status().as_u16() == 201)
}

/// ASVS 16.5.2.
async fn every_letter_arrives_whatever_is_killed_or_hangs_up(database: Database) {
    // Of fewer, none may meet what happens to one in twenty.
    let letters = rounds(500).max(50);
    let sink = SmtpSink::start(Options {
        tls: SmtpTls::Starttls,
        ..Options::default()
    });
    sink.behave(&[
        Rule::always(Stage::Rcpt, Misbehaviour::Refuse).to(POISON),
        Rule::always(Stage::Rcpt, Misbehaviour::Stall).to(STALLED),
        Rule::always(Stage::Connect, Misbehaviour::Later).sometimes(0.03),
        Rule::always(Stage::Mail, Misbehaviour::Drop).sometimes(0.03),
        Rule::always(Stage::Rcpt, Misbehaviour::Later).sometimes(0.05),
        Rule::always(Stage::Data, Misbehaviour::Stall).sometimes(0.01),
        Rule::always(Stage::Content, Misbehaviour::Drop).sometimes(0.05),
        Rule::always(Stage::Quit, Misbehaviour::Drop).sometimes(0.05),
    ]);
    let variables = sending(&database, &sink);
    let places: Vec<Place> = (0..NODES).map(|_| Place::new()).collect();
    let mut nodes: Vec<Serving> = places
        .iter()
        .map(|p| p.serve(&borrowed(&variables)))
        .collect();
    let at = |node: &Serving| Client::anonymous(&format!("http://{}", node.address));

    assert!(registers(&at(&nodes[0]), POISON).await);
    assert!(registers(&at(&nodes[1]), STALLED).await);
    let (mut acknowledged, mut kills) = (Vec::new(), 0);
    while acknowledged.len() < letters {
        let n = acknowledged.len();
        let email = fresh_email();
        if registers(&at(&nodes[n % NODES]), &email).await {
            acknowledged.push(email);
        }
        // At any moment between two letters, or in the middle of one.
        if n % 10 == 5 {
            sleep(Duration::from_millis(n as u64 * 37 % 50)).await;
            let victim = kills % NODES;
            nodes[victim].signal(Signal::KILL);
            nodes[victim].wait();
            nodes[victim] = places[victim].serve(&borrowed(&variables));
            kills += 1;
        }
    }
    let all_came = |received: &BTreeMap<String, Vec<String>>| {
        acknowledged
            .iter()
            .all(|email| received.contains_key(email))
    };
    let began = Instant::now();
    let received = loop {
        let received = by_recipient(sink.letters().await);
        if all_came(&received) {
            break received;
        }
        let missing = acknowledged
            .iter()
            .filter(|e| !received.contains_key(*e))
            .count();
        assert!(
            began.elapsed() < Duration::from_mins(4),
            "{missing} letters are missing"
        );
        sleep(Duration::from_millis(200)).await;
    };
    let lost_after_data = sink.count_at("drop", "content");
    let twice: usize = received.values().map(|ids| ids.len() - 1).sum();
    println!(
        "{} letters in {} s after the last; {kills} kills, {lost_after_data} connections lost after DATA, {twice} sent twice",
        acknowledged.len(),
        began.elapsed().as_secs(),
    );
    assert!(
        kills >= 5 && lost_after_data > 0,
        "{kills} kills, {lost_after_data} lost"
    );
    assert!(
        twice <= kills + lost_after_data,
        "{twice} letters came twice"
    );
    for (email, ids) in &received {
        let one = ids.iter().all(|id| *id == ids[0]);
        assert!(one, "{email}: one Message-ID, {ids:?}");
    }
    neither_was_in_the_way(&database, kills).await;
}

/// What is refused is tried once, what stalls ever more seldom, so neither holds up the rest.
async fn neither_was_in_the_way(database: &Database, kills: usize) {
    let store = database.open().await;
    let filter = LetterFilter {
        limit: 10_000,
        ..LetterFilter::default()
    };
    let letters = store.list_letters(&filter).await.expect("listed");
    let of = |email: &str| {
        let mut found = letters.iter().filter(|letter| {
            let to = letter.new.to.as_ref();
            to.is_some_and(|to| to.as_str() == email)
        });
        found.next().expect("stored")
    };
    // A kill in the middle costs an attempt as well.
    let most = 1 + u32::try_from(kills).expect("few");
    assert_eq!(of(POISON).state, LetterState::Dead);
    assert!(of(POISON).attempts <= most, "{:?}", of(POISON));
    assert_eq!(of(STALLED).state, LetterState::Waiting);
    assert!(
        (1..=most + 8).contains(&of(STALLED).attempts),
        "{:?}",
        of(STALLED)
    );
}

/// The `Message-ID`s of the letters to each address.
fn by_recipient(letters: Vec<Received>) -> BTreeMap<String, Vec<String>> {
    let mut received: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for letter in letters {
        let [to] = letter.to.as_slice() else {
            panic!("one recipient: {:?}", letter.to);
        };
        received
            .entry(to.clone())
            .or_default()
            .push(letter.message_id);
    }
    received
}

async fn a_stop_lets_a_letter_be_sent_to_its_end(database: Database) {
    let sink = SmtpSink::start(Options {
        tls: SmtpTls::Starttls,
        ..Options::default()
    });
    // Held at the last moment, then let go.
    sink.behave(&[Rule::always(Stage::Content, Misbehaviour::Wait)]);
    let variables = sending(&database, &sink);
    let place = Place::new();
    let mut node = place.serve(&borrowed(&variables));
    let client = Client::anonymous(&format!("http://{}", node.address));
    assert!(registers(&client, "ann@example.org").await);
    crate::harness::until("the letter is being sent", async || sink.count("wait") == 1).await;
    node.signal(Signal::TERM);
    node.logs("stopping");
    assert_eq!(node.wait(), Some(0));
    assert_eq!(sink.letters().await.len(), 1);
    let node = place.serve(&borrowed(&variables));
    let client = Client::anonymous(&format!("http://{}", node.address));
    assert!(registers(&client, "bob@example.org").await);
    let letters = sink.wait_for(2).await;
    assert_eq!(
        letters[1].to,
        ["bob@example.org"],
        "Ann's is not sent again"
    );
}

/// Panics at the first letter that it is given.
struct Clumsy {
    stumbled: AtomicBool,
    then: MemoryMailer,
}

#[async_trait]
impl Mailer for Clumsy {
    async fn send(&self, mail: &Mail) -> Result<(), SendError> {
        assert!(self.stumbled.swap(true, Ordering::SeqCst), "stumbled");
        self.then.send(mail).await
    }
}

/// It is tried again like any other, and does not stop the rest.
#[tokio::test(flavor = "multi_thread")]
async fn a_letter_whose_sending_panics_is_tried_again() {
    let then = MemoryMailer::new();
    let clumsy = Clumsy {
        stumbled: AtomicBool::new(false),
        then: then.clone(),
    };
    let setup = posting(Setup::default(), Arc::new(clumsy));
    let app = App::with(Database::fresh(Backend::Sqlite).await, setup).await;
    app.register("ann@example.org").await;
    let filter = LetterFilter {
        limit: 1,
        ..LetterFilter::default()
    };
    crate::harness::until("it is put off", async || {
        let letters = app.nodes[0].store.list_letters(&filter).await;
        let letters = letters.expect("listed");
        letters[0].last_error.as_deref() == Some("the attempt panicked")
    })
    .await;
    app.register("bob@example.org").await;
    crate::harness::until("the next is sent", async || then.letters().len() == 1).await;
    app.clock.advance(Span::secs(10));
    crate::harness::until("it is sent, too", async || then.letters().len() == 2).await;
}

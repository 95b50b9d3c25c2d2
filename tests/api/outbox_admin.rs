//! What administrators see of letters and do about them, on every database.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use doorward::{
    clock::Span,
    mail::{Mail, Mailer, SendError, memory::MemoryMailer},
};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    assert_problem, for_each_store,
    harness::{
        app::{App, Client, Setup},
        backend::Database,
        mailbox::{posting, settled},
        smtp::link_token,
        until,
    },
};

for_each_store! {
    letters_are_listed_filtered_and_paged,
    a_letter_is_tried_again_or_dropped,
    nobody_else_sees_them,
}

const OUTBOX: &str = "/v1/admin/outbox";
const UNKNOWN: &str = "01a1fd08-c4b9-7c5d-8c09-c269bf8dc48f";

/// A mail server that takes letters over, or says what it was told to say.
#[derive(Clone, Default)]
struct Moody {
    says: Arc<Mutex<Option<SendError>>>,
    taken: MemoryMailer,
}

impl Moody {
    fn says(&self, error: Option<SendError>) {
        *self.says.lock().expect("unpoisoned") = error;
    }
}

#[async_trait]
impl Mailer for Moody {
    async fn send(&self, mail: &Mail) -> Result<(), SendError> {
        let says = self.says.lock().expect("unpoisoned").clone();
        match says {
            Some(error) => Err(error),
            None => self.taken.send(mail).await,
        }
    }
}

/// A node that sends by a moody server, and an administrator of it.
async fn start(database: Database) -> (App, Moody, Client) {
    let mailer = Moody::default();
    let setup = posting(Setup::default(), Arc::new(mailer.clone()));
    let app = App::with(database, setup).await;
    let admin = app.admin("root@example.org").await;
    settled(&app).await;
    (app, mailer, admin)
}

async fn list(admin: &Client, query: &str) -> Value {
    admin.get(&format!("{OUTBOX}{query}")).await.expect(200)
}

fn items(page: &Value) -> &[Value] {
    page["items"].as_array().expect("items")
}

fn id(letter: &Value) -> &str {
    letter["id"].as_str().expect("an id")
}

/// The newest letter, once it was tried.
async fn newest_tried(admin: &Client) -> Value {
    until("the letter was tried", async || {
        let page = list(admin, "?limit=1").await;
        !page["items"][0]["last_error"].is_null()
    })
    .await;
    list(admin, "?limit=1").await["items"][0].clone()
}

async fn ask_for_reset(app: &App, address: &str) {
    let body = json!({"email": address});
    let guest = app.anonymous();
    let asked = guest.post("/v1/auth/password/forgot", body).await;
    asked.expect(202);
}

async fn letters_are_listed_filtered_and_paged(database: Database) {
    let (app, mailer, admin) = start(database).await;
    let addresses = ["ann@example.org", "bob@example.org", "cid@example.org"];
    for address in addresses {
        app.register(address).await;
        app.clock.advance(Span::secs(1));
    }
    settled(&app).await;
    mailer.says(Some(SendError::Refused("550 at RCPT".to_owned())));
    ask_for_reset(&app, "ann@example.org").await;
    settled(&app).await;

    let all = list(&admin, "").await;
    assert_eq!(all["next_cursor"], Value::Null);
    let ids: Vec<&str> = items(&all).iter().map(id).collect();
    let mut newest_first = ids.clone();
    newest_first.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(ids, newest_first);
    for (letter, state, kind) in [
        (&all["items"][0], "dead", "reset_password"),
        (&all["items"][1], "sent", "verify_email"),
    ] {
        assert_eq!(
            (&letter["state"], &letter["kind"]),
            (&json!(state), &json!(kind))
        );
        assert_eq!(letter["attempts"], 1);
        assert_eq!(letter["due_at"], Value::Null);
        assert!(letter["settled_at"].is_string(), "{letter}");
    }
    let dead = &all["items"][0];
    assert_eq!(
        (&dead["to"], &dead["last_error"]),
        (&json!("a***@example.org"), &json!("550 at RCPT"))
    );
    assert_holds_no_secret(&admin, &mailer).await;

    let dead = list(&admin, "?state=dead").await;
    assert_eq!(items(&dead), &items(&all)[..1]);
    let sent = list(&admin, "?state=sent").await;
    assert_eq!(items(&sent), &items(&all)[1..]);
    for state in ["waiting", "dropped"] {
        assert!(items(&list(&admin, &format!("?state={state}")).await).is_empty());
    }

    let mut paged = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = list(&admin, &query).await;
        assert!((1..=2).contains(&items(&page).len()));
        paged.extend(items(&page).to_vec());
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        query = format!("?limit=2&cursor={cursor}");
    }
    assert_eq!(paged, items(&all));
    for query in ["?state=lost", "?limit=x", "?cursor=x"] {
        assert_problem!(
            admin.get(&format!("{OUTBOX}{query}")).await,
            400,
            "wrong_parameter"
        );
    }
    for query in ["?limit=0", "?limit=201"] {
        let refused = admin.get(&format!("{OUTBOX}{query}")).await;
        assert_problem!(refused, 422, "invalid_input");
    }
}

/// Only what the documents name, no whole address, and nothing of what was sent (ASVS 14.2.6, 16.2.5).
async fn assert_holds_no_secret(admin: &Client, mailer: &Moody) {
    let all = list(admin, "").await;
    let named = BTreeSet::from([
        "attempts",
        "created_at",
        "due_at",
        "id",
        "kind",
        "last_error",
        "settled_at",
        "state",
        "to",
        "user_id",
    ]);
    for letter in items(&all) {
        let one = admin.get(&format!("{OUTBOX}/{}", id(letter))).await;
        assert_eq!(one.expect(200), *letter);
        let fields = letter.as_object().expect("an object").keys();
        assert_eq!(fields.map(String::as_str).collect::<BTreeSet<_>>(), named);
    }
    let text = all.to_string();
    for mail in mailer.taken.letters() {
        assert!(!text.contains(mail.to.as_str()), "{text}");
        assert!(
            !text.contains(link_token(&mail.text).expect("a link")),
            "{text}"
        );
    }
}

async fn a_letter_is_tried_again_or_dropped(database: Database) {
    let (app, mailer, admin) = start(database).await;
    let act = async |letter: &Value, what: &str| {
        let path = format!("{OUTBOX}/{}/{what}", id(letter));
        admin.call(&path).await
    };
    let state = async |letter: &Value| {
        let path = format!("{OUTBOX}/{}", id(letter));
        admin.get(&path).await.expect(200)["state"].clone()
    };

    // Given up, and tried again with success.
    mailer.says(Some(SendError::Refused("550 at RCPT".to_owned())));
    app.register("ann@example.org").await;
    let dead = newest_tried(&admin).await;
    assert_eq!(dead["state"], "dead");
    mailer.says(None);
    let again = act(&dead, "retry").await.expect(200);
    assert_eq!(
        (&again["id"], &again["state"]),
        (&dead["id"], &json!("waiting"))
    );
    assert!(again["due_at"].is_string(), "{again}");
    settled(&app).await;
    assert_eq!(state(&dead).await, "sent");
    assert_eq!(mailer.taken.letters().len(), 1);
    for what in ["retry", "drop"] {
        assert_problem!(act(&dead, what).await, 409, "letter_settled");
    }
    assert_eq!(mailer.taken.letters().len(), 1, "it is not sent twice");

    // Waiting for a better time, dropped, and taken up again.
    app.clock.advance(Span::secs(1));
    mailer.says(Some(SendError::Later("451 at RCPT".to_owned())));
    app.register("bob@example.org").await;
    let waits = newest_tried(&admin).await;
    assert_eq!(
        (&waits["state"], &waits["attempts"], &waits["settled_at"]),
        (&json!("waiting"), &json!(1), &Value::Null)
    );
    for _ in 0..2 {
        let dropped = act(&waits, "drop").await.expect(200);
        assert_eq!(dropped["state"], "dropped");
    }
    mailer.says(None);
    assert_eq!(mailer.taken.letters().len(), 1, "it was dropped");
    let again = act(&waits, "retry").await;
    assert_problem!(again, 409, "letter_settled");
    settled(&app).await;
    assert_eq!(mailer.taken.letters().len(), 1, "it stays dropped");

    for path in ["", "/retry", "/drop"] {
        let method = if path.is_empty() {
            Method::GET
        } else {
            Method::POST
        };
        for odd in [UNKNOWN, "x"] {
            let path = format!("{OUTBOX}/{odd}{path}");
            let reply = admin.send(method.clone(), &path, None).await;
            assert_problem!(reply, 404, "not_found");
        }
    }
}

async fn nobody_else_sees_them(database: Database) {
    let (app, _mailer, admin) = start(database).await;
    let ann = app.user("ann@example.org").await;
    settled(&app).await;
    let letter = list(&admin, "?limit=1").await["items"][0].clone();
    let one = format!("{OUTBOX}/{}", id(&letter));
    for (method, path) in [
        (Method::GET, OUTBOX.to_owned()),
        (Method::GET, one.clone()),
        (Method::POST, format!("{one}/retry")),
        (Method::POST, format!("{one}/drop")),
    ] {
        let reply = ann.send(method.clone(), &path, None).await;
        assert_problem!(reply, 403, "permission_required");
        let reply = app.anonymous().send(method, &path, None).await;
        assert_problem!(reply, 401, "unauthenticated");
    }
    assert_eq!(admin.get(&one).await.expect(200), letter);
}

//! The letters of a test's users: sent to a real mail server, or kept in the process where that is not the
//! point.

use std::{collections::BTreeMap, sync::Arc};

use doorward::{
    clock::Span,
    mail::{
        Mailer,
        memory::MemoryMailer,
        settings::{MailPolicy, SmtpTls},
        smtp::SmtpMailer,
    },
    model::mail::LetterState,
    outbox::Post,
    store::{LetterFilter, Store},
};

use super::{
    app::{App, Setup},
    smtp::{self, Options, SmtpSink},
    until,
};

/// Where the links of letters lead, whatever address a test asks at.
pub const PUBLIC_URL: &str = "https://auth.example.org";

/// A letter as its reader sees it.
#[derive(Debug, Clone)]
pub struct Letter {
    pub to: String,
    pub subject: String,
    pub text: String,
    pub html: String,
}

impl Letter {
    /// The secret in its link.
    #[track_caller]
    pub fn token(&self) -> String {
        smtp::link_token(&self.text).expect("a link").to_owned()
    }

    /// Its code.
    #[track_caller]
    pub fn code(&self) -> String {
        smtp::code(&self.text).expect("a code").to_owned()
    }
}

/// Where letters end up.
pub enum Mailbox {
    Memory(MemoryMailer),
    Server(Box<SmtpSink>),
}

impl Mailbox {
    /// Letters stay in the process.
    pub fn in_memory(setup: Setup) -> (Self, Setup) {
        let mailer = MemoryMailer::new();
        let setup = posting(setup, Arc::new(mailer.clone()));
        (Self::Memory(mailer), setup)
    }

    /// Letters go to a mail server of the test's own.
    pub fn on_server(setup: Setup, tls: SmtpTls) -> (Self, Setup) {
        let sink = SmtpSink::start(Options {
            tls,
            ..Options::default()
        });
        let mailer = SmtpMailer::new(&sink.settings()).expect("settings that can be obeyed");
        let setup = posting(setup, Arc::new(mailer));
        (Self::Server(Box::new(sink)), setup)
    }

    async fn all(&self) -> Vec<Letter> {
        match self {
            Self::Memory(mailer) => {
                let mails = mailer.letters().into_iter().rev();
                mails
                    .map(|mail| Letter {
                        to: mail.to.as_str().to_owned(),
                        subject: mail.subject,
                        text: mail.text,
                        html: mail.html,
                    })
                    .collect()
            }
            Self::Server(sink) => {
                let letters = sink.letters().await.into_iter();
                letters
                    .map(|letter| Letter {
                        to: letter.to.join(" "),
                        subject: letter.subject,
                        text: letter.text,
                        html: letter.html,
                    })
                    .collect()
            }
        }
    }

    /// All letters, oldest first, once the outbox has nothing more to do.
    pub async fn letters(&self, app: &App) -> Vec<Letter> {
        settled(app).await;
        self.all().await
    }

    /// The letters to an address, oldest first, once the outbox has nothing more to do.
    pub async fn to(&self, app: &App, address: &str) -> Vec<Letter> {
        let mut letters = self.letters(app).await;
        letters.retain(|letter| letter.to == address);
        letters
    }

    /// The newest letter to an address.
    pub async fn newest(&self, app: &App, address: &str) -> Letter {
        let letters = self.to(app, address).await;
        letters.last().cloned().expect("a letter")
    }
}

/// The setup with what it takes to send letters by this mailer.
pub fn posting(setup: Setup, mailer: Arc<dyn Mailer>) -> Setup {
    let post = Post {
        mailer,
        sender: doorward::mail::Sender {
            name: "Doorward".to_owned(),
            address: doorward::email::EmailAddress::parse("no-reply@example.org").expect("valid"),
        },
        policy: MailPolicy {
            send_timeout: Span::secs(10),
            ..MailPolicy::default()
        },
        public_url: PUBLIC_URL.to_owned(),
        login_page: String::new(),
    };
    Setup {
        post: Some(post),
        ..setup
    }
}

/// Waits until no letter waits.
pub async fn settled(app: &App) {
    until("the outbox is empty", async || {
        !states(app).await.contains_key("waiting")
    })
    .await;
}

/// How many letters there are in each state.
pub async fn states(app: &App) -> BTreeMap<&'static str, usize> {
    let mut states = BTreeMap::new();
    let mut filter = LetterFilter {
        limit: 1000,
        ..LetterFilter::default()
    };
    loop {
        let page = app.nodes[0].store.list_letters(&filter).await;
        let page = page.expect("listed");
        let Some(last) = page.last() else {
            return states;
        };
        filter.before = Some(last.new.id);
        for letter in page {
            let state: LetterState = letter.state;
            *states.entry(state.as_str()).or_default() += 1;
        }
    }
}

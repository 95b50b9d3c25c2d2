//! The outbox: letters that were written down with what caused them, and the workers that send them.
//!
//! Whoever causes a letter asks [`Outbox`] for one, hands it to the store together with the change, and
//! rings. What a letter says is for [`crate::letters`], how it travels for a [`Mailer`]; whom it is for is
//! looked up by the store when it is sent, so that causing one tells nothing.

mod worker;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::{Notify, Semaphore};

use crate::{
    audit::Trail,
    clock::{Clock, Span},
    entropy::Entropy,
    error::{AuthError, AuthResult},
    ids::LetterId,
    letters::Letters,
    mail::{Mailer, Sender, settings::MailPolicy},
    metrics::Metrics,
    model::{
        audit::Occasion,
        mail::{Letter, LetterKind, NewLetter},
        session::Device,
    },
    paging::Page,
    restarting::restarting,
    roles::Actor,
    setting::BadSetting,
    store::{ChangeLetter, LetterFilter, Store},
    tokens::Tokens,
};

/// Letters of one kind to one address follow each other no faster (ASVS 2.4.2).
const QUIET: Span = Span::secs(60);
/// How much longer a lease is than the sending may take: time to note how it went.
const TO_SETTLE: Span = Span::secs(30);

/// What it takes to send letters.
#[derive(Clone)]
pub struct Post {
    /// What carries them.
    pub mailer: Arc<dyn Mailer>,
    /// Who they come from.
    pub sender: Sender,
    /// How they are sent.
    pub policy: MailPolicy,
    /// Where this API is reached, without a slash at the end; links begin with it, whatever the request that
    /// caused the letter said of its host (ASVS 1.2.2).
    pub public_url: String,
    /// Where people log in; empty for `/login` of this API.
    pub login_page: String,
}

impl Post {
    /// Checks what letters depend on.
    ///
    /// # Errors
    /// The first [`BadSetting`], under the name that it has in the server's configuration.
    pub fn check(&self) -> Result<(), BadSetting> {
        self.policy.check()?;
        let is_address = |text: &str| url::Url::parse(text).is_ok_and(|url| url.has_host());
        if self.public_url.ends_with('/') || !is_address(&self.public_url) {
            return Err(BadSetting::new(
                "public_url",
                "is not an address without a slash at the end; links in letters begin with it",
                "write it as https://auth.example.org",
            ));
        }
        if self.login_page.is_empty() || is_address(&self.login_page) {
            return Ok(());
        }
        Err(BadSetting::new(
            "http.login_page",
            "is not an address",
            "write e.g. https://app.example.org/login, or leave it empty",
        ))
    }
}

/// What is known of whoever causes a letter.
#[derive(Debug, Clone, Default)]
pub struct Cause {
    /// The `Accept-Language` header.
    pub accept_language: Option<String>,
    /// From where.
    pub device: Device,
}

/// The outbox; clones share everything.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

/// What an [`Outbox`] is made of.
pub struct OutboxParts {
    /// The database.
    pub store: Arc<dyn Store>,
    /// What makes the secrets in letters.
    pub tokens: Tokens,
    /// The audit trail.
    pub trail: Trail,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The chance.
    pub entropy: Arc<dyn Entropy>,
    /// What stands in letters.
    pub letters: Letters,
    /// What it takes to send them, if they are sent at all.
    pub post: Option<Post>,
    /// What attempts are counted in.
    pub metrics: Arc<Metrics>,
}

struct Inner {
    store: Arc<dyn Store>,
    tokens: Tokens,
    trail: Trail,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    letters: Letters,
    post: Option<Post>,
    metrics: Arc<Metrics>,
    bell: Notify,
    /// One for each letter that may be sent at this moment.
    slots: Arc<Semaphore>,
}

impl Outbox {
    /// An outbox, whose worker runs as long as a clone of it exists. Without `post` nothing is sent, and
    /// asking for a letter gives none.
    ///
    /// # Errors
    /// As [`Post::check`].
    pub fn start(parts: OutboxParts) -> Result<Self, BadSetting> {
        let OutboxParts {
            store,
            tokens,
            trail,
            clock,
            entropy,
            letters,
            post,
            metrics,
        } = parts;
        let slots = match &post {
            Some(post) => {
                post.check()?;
                post.policy.concurrency as usize
            }
            None => 0,
        };
        let inner = Arc::new(Inner {
            store,
            tokens,
            trail,
            clock,
            entropy,
            letters,
            post,
            metrics,
            bell: Notify::new(),
            slots: Arc::new(Semaphore::new(slots)),
        });
        if inner.post.is_some() {
            let outbox = Arc::downgrade(&inner);
            let sending = move || worker::run(outbox.clone());
            tokio::spawn(restarting("sending letters", sending));
        }
        Ok(Self(inner))
    }

    /// Whether letters can be sent.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.post.is_some()
    }

    /// Whether users are told of new devices.
    pub(crate) fn tells_new_devices(&self) -> bool {
        let post = self.0.post.as_ref();
        post.is_some_and(|post| post.policy.notify_new_device)
    }

    /// A letter of this kind, to be stored with what causes it; none where no mail is sent.
    pub(crate) fn letter(&self, kind: LetterKind, cause: &Cause) -> Option<NewLetter> {
        self.0.post.as_ref()?;
        let accepted = cause.accept_language.as_deref();
        let mut letter = NewLetter::fresh(kind, self.0.clock.now(), &*self.0.entropy);
        // Without a wish of theirs, the default is found when the letter is sent.
        letter.language = accepted.map(|accepted| self.0.letters.choose(None, Some(accepted)));
        letter.details = cause.device.told();
        Some(letter)
    }

    /// As [`Self::letter`], for what cannot be done without.
    ///
    /// # Errors
    /// [`AuthError::MailOff`].
    pub(crate) fn needed(&self, kind: LetterKind, cause: &Cause) -> AuthResult<NewLetter> {
        self.letter(kind, cause).ok_or(AuthError::MailOff)
    }

    /// Stores a letter that nothing else is changed with, unless one like it has just been; tells nobody
    /// which.
    ///
    /// # Errors
    /// [`AuthError::Store`].
    pub(crate) async fn add(&self, letter: &NewLetter, by: &Occasion) -> AuthResult<()> {
        let quiet_since = letter.created_at.minus(QUIET);
        self.0.store.add_letter(letter, quiet_since, by).await?;
        self.ring();
        Ok(())
    }

    /// Says that there may be something to send; without it that is noticed within a second.
    pub(crate) fn ring(&self) {
        self.0.bell.notify_one();
    }

    /// A page of letters, newest first, and the cursor of the next page.
    ///
    /// # Errors
    /// [`AuthError::Invalid`] for a limit outside 1 to 200.
    pub async fn list(
        &self,
        mut filter: LetterFilter,
    ) -> AuthResult<(Vec<Letter>, Option<LetterId>)> {
        let page = Page::with_one_more(&mut filter.limit)?;
        let letters = self.0.store.list_letters(&filter).await?;
        Ok(page.cut(letters, |letter| letter.new.id))
    }

    /// One letter.
    ///
    /// # Errors
    /// [`AuthError::NotFound`].
    pub async fn find(&self, id: LetterId) -> AuthResult<Letter> {
        let found = self.0.store.letter(id).await?;
        found.ok_or(AuthError::NotFound("letter"))
    }

    /// Tries a letter again, now: one that waits or was given up.
    ///
    /// # Errors
    /// [`AuthError::NotFound`]; [`AuthError::LetterSettled`] for one that was sent, is being sent or was
    /// dropped.
    pub async fn retry(&self, by: Actor<'_>, id: LetterId) -> AuthResult<Letter> {
        let by = self.0.trail.by(by.agent());
        let changed = self.0.store.retry_letter(id, &by).await?;
        self.ring();
        changed_letter(changed)
    }

    /// Gives a letter up.
    ///
    /// # Errors
    /// As [`Self::retry`].
    pub async fn drop_letter(&self, by: Actor<'_>, id: LetterId) -> AuthResult<Letter> {
        let by = self.0.trail.by(by.agent());
        changed_letter(self.0.store.drop_letter(id, &by).await?)
    }

    /// Begins no new letter, and waits for those that are being sent, no longer than `limit`. Their leases
    /// return what is not finished.
    pub async fn stop(&self, limit: Duration) {
        let all = self.0.post.as_ref().map_or(0, |p| p.policy.concurrency);
        let finished = self.0.slots.acquire_many(all);
        let finished = tokio::time::timeout(limit, finished).await;
        if finished.is_err() {
            tracing::warn!("letters are still being sent; another attempt will be made later");
        }
        self.0.slots.close();
    }
}

fn changed_letter(change: ChangeLetter) -> AuthResult<Letter> {
    match change {
        ChangeLetter::Changed(letter) => Ok(*letter),
        ChangeLetter::InFlight => Err(AuthError::LetterSettled("is being sent")),
        ChangeLetter::AlreadySent => Err(AuthError::LetterSettled("has been sent")),
        ChangeLetter::AlreadyDropped => Err(AuthError::LetterSettled("has been dropped")),
        ChangeLetter::Unknown => Err(AuthError::NotFound("letter")),
    }
}

impl Inner {
    fn upgrade(weak: &Weak<Self>) -> Option<Outbox> {
        weak.upgrade().map(Outbox)
    }
}

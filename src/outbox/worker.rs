//! What a node does to send letters: claim, look up, fill in, send, settle.
//!
//! A claim is a lease. Everything up to the mail server's answer has a deadline that is shorter, so nobody
//! else has the letter while it may still be handed over; what comes after the answer is only written down,
//! again and again until the lease ends. A worker that dies leaves its lease to end by itself.

use std::{panic::AssertUnwindSafe, sync::Weak, time::Duration};

use futures_util::FutureExt;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{sleep, timeout},
};
use tracing::Instrument;

use super::{Inner, Outbox, Post, TO_SETTLE};
use crate::{
    clock::Span,
    entropy::{Entropy, random_bytes},
    error::AuthResult,
    letters::{LetterView, Letters, Page},
    mail::{Mail, SendError},
    model::{
        mail::{CODE_TTL, Letter, LetterKind, Settlement},
        token::Purpose,
        user::User,
    },
    spans,
    store::{PrepareLetter, Prepared, ReadyLetter},
    tokens::{CodeScope, MailedSecrets},
};

/// How often to look for letters that nobody rang for: those of other nodes, and those that are due again.
const POLL: Duration = Duration::from_secs(1);
/// How long to wait after the first failure; twice as long after each further one.
const FIRST_PAUSE: Span = Span::secs(5);
const LONGEST_PAUSE: Span = Span::minutes(60);
/// After so many attempts a letter that is too old is not even tried.
const MOST_ATTEMPTS: u32 = 20;

/// Sends letters for as long as the outbox exists.
pub(super) async fn run(outbox: Weak<Inner>) {
    loop {
        let Some(claimed) = claim_some(&outbox).await else {
            return;
        };
        if !claimed {
            let Some(outbox) = Inner::upgrade(&outbox) else {
                return;
            };
            let bell = timeout(POLL, outbox.0.bell.notified());
            // Rung or not, it is time to look.
            let _ = bell.await;
        }
    }
}

/// Claims as many letters as there are free slots; false if there were none. `None` when it is over.
async fn claim_some(outbox: &Weak<Inner>) -> Option<bool> {
    let first = {
        let outbox = Inner::upgrade(outbox)?;
        let slots = outbox.0.slots.clone();
        drop(outbox);
        slots.acquire_owned().await.ok()?
    };
    let outbox = Inner::upgrade(outbox)?;
    let mut slots = vec![first];
    while let Ok(slot) = outbox.0.slots.clone().try_acquire_owned() {
        slots.push(slot);
    }
    let post = outbox.0.post.as_ref()?;
    let lease = post.policy.send_timeout.plus(TO_SETTLE);
    let most = u32::try_from(slots.len()).unwrap_or(u32::MAX);
    let now = outbox.0.clock.now();
    let letters = match outbox.0.store.claim_letters(most, lease, now).await {
        Ok(letters) => letters,
        Err(error) => {
            tracing::warn!(%error, "letters could not be claimed");
            return Some(false);
        }
    };
    let any = !letters.is_empty();
    for (letter, slot) in letters.into_iter().zip(slots) {
        tokio::spawn(attempt(outbox.clone(), letter, slot));
    }
    Some(any)
}

/// One attempt at one letter, to its end.
async fn attempt(outbox: Outbox, letter: Letter, _slot: OwnedSemaphorePermit) {
    let Some(post) = outbox.0.post.as_ref() else {
        return;
    };
    let (id, kind) = (letter.new.id, letter.new.kind.as_str());
    let limit = post.policy.send_timeout.to_duration();
    // A letter whose handling panics is one that could not be sent, or it would be claimed for ever.
    let span = spans::letter(&id, kind);
    let sending = send(&outbox, post, &letter).instrument(span.clone());
    let sending = AssertUnwindSafe(sending).catch_unwind();
    let settlement = match timeout(limit, sending).await {
        Ok(Ok(Ok(Some(settlement)))) => settlement,
        Ok(Ok(Ok(None))) => return,
        Ok(Ok(Err(Failed::Later(error)))) => later(&outbox, post, &letter, error),
        Ok(Ok(Err(Failed::Refused(error)))) => Settlement::Dead { error },
        Ok(Err(_)) => later(&outbox, post, &letter, "the attempt panicked".into()),
        Err(_) => later(&outbox, post, &letter, "no answer in time".into()),
    };
    match &settlement {
        Settlement::Sent => tracing::info!(letter.id = %id, kind, "sent"),
        Settlement::Dropped { reason } => {
            tracing::info!(letter.id = %id, kind, reason, "not to be sent");
        }
        Settlement::Again { error, .. } => {
            tracing::warn!(letter.id = %id, kind, error, "not sent yet");
        }
        Settlement::Dead { error } => tracing::error!(letter.id = %id, kind, error, "given up"),
    }
    let outcome = match &settlement {
        Settlement::Sent => "sent",
        Settlement::Dropped { .. } => "dropped",
        Settlement::Again { .. } => "again",
        Settlement::Dead { .. } => "dead",
    };
    outbox.0.metrics.letters.bump(outcome);
    spans::settled(&span, outcome);
    let settling = settle(&outbox, &letter, &settlement);
    settling.instrument(span).await;
}

/// Why an attempt failed, in a few words without addresses.
enum Failed {
    Later(String),
    Refused(String),
}

impl From<SendError> for Failed {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Refused(why) => Self::Refused(why),
            SendError::Later(why) => Self::Later(why),
        }
    }
}

/// `None` if the letter is somebody else's by now.
async fn send(outbox: &Outbox, post: &Post, letter: &Letter) -> Result<Option<Settlement>, Failed> {
    let defect = |error: crate::error::AuthError| Failed::Later(error.to_string());
    let inner = &outbox.0;
    // What takes the whole process with it leaves no word of how it went, only the count.
    let is_late = inner.clock.now() > letter.new.created_at.plus(post.policy.give_up_after);
    if is_late && letter.attempts > MOST_ATTEMPTS {
        return Err(Failed::Refused("tried too often, too long".to_owned()));
    }
    let secrets = secrets_of(outbox, letter).map_err(defect)?;
    let asked = PrepareLetter {
        id: letter.new.id,
        fence: letter.fence,
        link: secrets.link.hash(),
        code: secrets.code_hash,
    };
    let now = inner.clock.now();
    let prepared = inner.store.prepare_letter(&asked, now).await;
    let ready = match prepared.map_err(|error| Failed::Later(error.to_string()))? {
        Prepared::Ready(ready) => ready,
        Prepared::Obsolete(reason) => {
            return Ok(Some(Settlement::Dropped {
                reason: reason.to_owned(),
            }));
        }
        Prepared::Lost => return Ok(None),
    };
    let mail = written(&inner.letters, post, letter, &ready, &secrets, now).map_err(defect)?;
    let sending = post.mailer.send(&mail).instrument(spans::sending());
    sending.await?;
    Ok(Some(Settlement::Sent))
}

fn secrets_of(outbox: &Outbox, letter: &Letter) -> AuthResult<MailedSecrets> {
    let new = &letter.new;
    let purpose = new.purpose().filter(|purpose| purpose.has_code());
    let scope = match (purpose, new.user_id, &new.to) {
        (Some(purpose @ Purpose::ChangeEmail), Some(user), _) => {
            Some(CodeScope::User(purpose, user))
        }
        (Some(purpose), _, Some(to)) => Some(CodeScope::Address(purpose, to)),
        _ => None,
    };
    let tokens = &outbox.0.tokens;
    tokens.mailed_secrets(new.id, new.created_at, scope.as_ref())
}

/// Fills a letter in.
fn written(
    letters: &Letters,
    post: &Post,
    letter: &Letter,
    ready: &ReadyLetter,
    secrets: &MailedSecrets,
    now: crate::clock::Timestamp,
) -> AuthResult<Mail> {
    let wish = ready.user.as_ref().and_then(|user| wish(post, user));
    let language = letters.choose(wish.or(letter.new.language.as_deref()), None);
    let page = page_of(ready.kind).filter(|_| !letter.new.details.only_tells);
    let link = page.map(|page| {
        let (base, path) = (&post.public_url, page.path());
        format!("{base}{path}#token={}", secrets.link.expose())
    });
    let code_page = page
        .filter(|page| page.takes_code())
        .map(|page| format!("{}{}", post.public_url, page.path()));
    let login_url = match post.login_page.as_str() {
        "" => format!("{}/login", post.public_url),
        page => page.to_owned(),
    };
    let forgot_url = format!("{}/forgot-password", post.public_url);
    let username = ready.user.as_ref().and_then(|user| user.username.as_ref());
    let new_email = (ready.kind == LetterKind::EmailChanged)
        .then(|| ready.user.as_ref().map(|user| user.email.mask()))
        .flatten();
    let is_taken = ready.kind == LetterKind::AddressTaken;
    let rendered = letters.render(&LetterView {
        kind: ready.kind,
        language: &language,
        name: username.map(crate::username::Username::as_str),
        account: ready.to.as_str(),
        link: link.as_deref(),
        code: ready.has_code.then(|| secrets.code.expose().as_str()),
        valid: ready.kind.purpose().map_or(CODE_TTL, Purpose::link_ttl),
        code_valid: CODE_TTL,
        code_page: code_page.as_deref(),
        details: &letter.new.details,
        at: letter.new.created_at,
        new_email: new_email.as_deref(),
        login_url: is_taken.then_some(login_url.as_str()),
        forgot_url: is_taken.then_some(forgot_url.as_str()),
    })?;
    Ok(Mail {
        id: letter.new.id,
        from: post.sender.clone(),
        to: ready.to.clone(),
        subject: rendered.subject,
        text: rendered.text,
        html: rendered.html,
        language,
        date: now,
    })
}

/// The language that a user has chosen.
fn wish<'a>(post: &Post, user: &'a User) -> Option<&'a str> {
    let attribute = &post.policy.language_attribute;
    user.attributes.as_map().get(attribute)?.as_str()
}

/// The page that a letter's link opens.
const fn page_of(kind: LetterKind) -> Option<Page> {
    match kind {
        LetterKind::VerifyEmail => Some(Page::VerifyEmail),
        LetterKind::ConfirmRegistration => Some(Page::ConfirmRegistration),
        LetterKind::AddressTaken => None,
        LetterKind::ResetPassword => Some(Page::ResetPassword),
        LetterKind::ConfirmNewEmail => Some(Page::ConfirmNewEmail),
        LetterKind::Invitation => Some(Page::SetPassword),
        LetterKind::EmailChanged
        | LetterKind::PasswordChanged
        | LetterKind::RefreshReused
        | LetterKind::NewDevice => Some(Page::NotMe),
    }
}

/// What becomes of a letter that could not be sent now: another attempt, unless it has waited too long.
fn later(outbox: &Outbox, post: &Post, letter: &Letter, error: String) -> Settlement {
    let now = outbox.0.clock.now();
    let at = now.plus(pause(letter.attempts, &*outbox.0.entropy));
    if at > letter.new.created_at.plus(post.policy.give_up_after) {
        return Settlement::Dead { error };
    }
    Settlement::Again { at, error }
}

/// Doubled at each attempt, with up to a half taken off by chance: letters that failed together do not come
/// back together.
fn pause(attempts: u32, entropy: &dyn Entropy) -> Span {
    let doubled = FIRST_PAUSE.as_millis() << attempts.saturating_sub(1).min(20);
    let longest = doubled.min(LONGEST_PAUSE.as_millis());
    let chance = i64::from(u16::from_be_bytes(random_bytes(entropy)));
    Span::millis(longest - longest / 2 * chance / i64::from(u16::MAX))
}

/// Writes down how an attempt ended. While the database is away it is tried until the lease ends: what is
/// not written down is sent again.
async fn settle(outbox: &Outbox, letter: &Letter, settlement: &Settlement) {
    let (id, fence) = (letter.new.id, letter.fence);
    loop {
        let now = outbox.0.clock.now();
        let settled = outbox.0.store.settle_letter(id, fence, settlement, now);
        match settled.await {
            Ok(true) => return,
            Ok(false) => {
                tracing::warn!(letter.id = %id, "settled by somebody else");
                return;
            }
            Err(error) if outbox.0.clock.now() >= letter.due_at => {
                tracing::error!(letter.id = %id, %error, "how it went could not be written down");
                return;
            }
            Err(_) => sleep(POLL).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    #[test]
    fn pauses_grow_to_an_hour_and_differ() {
        for (attempts, longest) in [
            (1, 5),
            (2, 10),
            (5, 80),
            (10, 2560),
            (11, 3600),
            (500, 3600),
        ] {
            let pause = pause(attempts, &SystemEntropy);
            let longest = Span::secs(longest);
            let shortest = Span::millis(longest.as_millis() / 2);
            assert!(
                (shortest..=longest).contains(&pause),
                "{attempts}: {pause:?}"
            );
        }
    }
}

//! The canary: every so often a session is opened and revoked, to measure how fast that is obeyed.
//!
//! Decides what a round is. A session of the account [`UserId::CANARY`] is opened through the store and its token
//! shown to this node and to every peer, which have to accept it. Then it is revoked, and from the moment when the
//! database has acknowledged that, all are asked again and again until each has refused. An acceptance that was
//! asked for after the acknowledgement breaks the promise that this server makes, and is counted.
//!
//! The account has neither a password nor a mailbox, so nobody logs in to it. Nothing of this is recorded in the audit
//! trail, and a round removes the sessions of those before it.

mod asking;

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use self::asking::{Peer, Word};
use super::Inner;
use crate::{
    clock::{Span, Stopwatch, Timestamp},
    email::EmailAddress,
    error::AuthError,
    ids::{SessionId, UserId},
    model::{
        audit::{Agent, Occasion},
        session::{AuthMethod, CloseReason, Device, NewSession},
        user::{
            Attributes, NewUser, OnLimit, Roles, SessionLimit, SessionLimitOverride, User,
            UserStatus,
        },
    },
    sessions::Presented,
    setting::BadSetting,
    store::{CloseSession, OpenSession, OpenSessionRequest, StoreError},
    tokens::{Subject, TokenKind},
};

/// This node among its peers, as metrics name it.
const ITSELF: &str = "self";
/// A node that has not refused by then never will.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two questions to one node, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// A session that a broken round left behind ends by itself, and older ones than this are removed.
const LIFETIME: Span = Span::minutes(5);

/// `[canary]`: how often it is measured how fast a revocation is obeyed, and where.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanaryPolicy {
    /// How often a node measures; `0s` for never. Default 1m.
    pub every: Span,
    /// Addresses of the other nodes, each of one node and not of what spreads requests among them. Default none.
    pub peers: Vec<String>,
    /// A file with the authorities that the peers' certificates may come from, in PEM; empty (default) for the public
    /// ones.
    pub ca_file: String,
}

impl Default for CanaryPolicy {
    fn default() -> Self {
        Self {
            every: Span::minutes(1),
            peers: Vec::new(),
            ca_file: String::new(),
        }
    }
}

impl CanaryPolicy {
    /// One that never measures by itself.
    #[must_use]
    pub fn off() -> Self {
        Self {
            every: Span::ZERO,
            ..Self::default()
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        let never = self.every == Span::ZERO;
        if !never && (self.every < Span::secs(10) || self.every > Span::days(1)) {
            return Err(BadSetting::new(
                "canary.every",
                format!("{} is not between 10s and 1d", self.every),
                "set it to 1m, or to 0s for never",
            ));
        }
        asking::check(&self.peers)
    }
}

/// What rounds are made with.
pub(super) struct Canary {
    peers: Vec<Peer>,
}

impl Canary {
    pub(super) fn new(policy: &CanaryPolicy) -> Result<Self, BadSetting> {
        policy.check()?;
        let peers = policy.peers.iter();
        let peers = peers.map(|root| Peer::new(root, &policy.ca_file));
        Ok(Self {
            peers: peers.collect::<Result<_, _>>()?,
        })
    }

    /// The nodes that are asked, as metrics name them.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        let others = self.peers.iter().map(|peer| peer.name.as_str());
        [ITSELF].into_iter().chain(others)
    }
}

/// Asks the peers of a policy whether they judge tokens, by showing each one that is none: every peer with the reason
/// why it does not, if it does not.
///
/// # Errors
/// [`BadSetting`] for an address that cannot be one of a node.
pub async fn reach(
    policy: &CanaryPolicy,
) -> Result<Vec<(String, Option<&'static str>)>, BadSetting> {
    let canary = Canary::new(policy)?;
    let asked = canary.peers.iter().map(|peer| async {
        let why = match peer.ask("none").await {
            Word::Refused => None,
            Word::Accepted => Some("accepts_anything"),
            Word::Unclear(why) => Some(why),
        };
        (peer.name.clone(), why)
    });
    Ok(join_all(asked).await)
}

/// Measures every so often, for as long as the service exists. Not at once: a node that just starts has others
/// that start with it.
pub(super) async fn go_on(auth: Weak<Inner>, every: Duration) {
    loop {
        sleep(every).await;
        let Some(auth) = auth.upgrade() else { return };
        round(&auth).await;
    }
}

/// Measures once; what comes of it stands in the metrics.
pub(super) async fn round(auth: &Arc<Inner>) {
    if let Err(broken) = measure(auth).await {
        auth.metrics.canary.failed(ITSELF, broken.reason());
        tracing::warn!(
            reason = broken.reason(),
            "the canary's round came to no end"
        );
    }
}

/// Why a round could not be finished.
enum Broken {
    Database,
    /// The account is deactivated, or another has its address.
    Account,
    Token,
    /// Somebody else closed the session.
    Interrupted,
}

impl Broken {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Account => "account",
            Self::Token => "token",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<StoreError> for Broken {
    fn from(_: StoreError) -> Self {
        Self::Database
    }
}

impl From<AuthError> for Broken {
    fn from(_: AuthError) -> Self {
        Self::Token
    }
}

async fn measure(auth: &Arc<Inner>) -> Result<(), Broken> {
    ensure_account(auth).await?;
    let now = auth.clock.now();
    let session = open(auth, now).await?;
    let subject = Subject {
        user: UserId::CANARY,
        session,
        generation: 0,
    };
    let minted = auth
        .tokens
        .mint(TokenKind::Access, subject, now.plus(LIFETIME));
    let asked = match &minted {
        Ok(minted) => accepted_by(auth, minted.token.expose()).await,
        Err(_) => Vec::new(),
    };
    // Whatever went before: no session stays open.
    let (reason, by) = (CloseReason::Revoked, by_nobody(now));
    let revoked = auth
        .store
        .close_session(UserId::CANARY, session, reason, None, &by)
        .await?;
    let acknowledged = Stopwatch::start();
    let token = minted?.token;
    if revoked != CloseSession::Closed {
        return Err(Broken::Interrupted);
    }
    let refusals = asked
        .into_iter()
        .map(|node| until_refused(auth, node, token.expose(), acknowledged));
    join_all(refusals).await;
    let before = auth.clock.now().minus(LIFETIME);
    auth.store.forget_sessions(UserId::CANARY, before).await?;
    Ok(())
}

/// One of the nodes that are asked.
#[derive(Clone, Copy)]
enum Node<'a> {
    Itself,
    Other(&'a Peer),
}

impl Node<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Itself => ITSELF,
            Self::Other(peer) => &peer.name,
        }
    }

    async fn ask(&self, auth: &Inner, token: &str) -> Word {
        match self {
            Self::Itself => match auth.sessions.authenticate(Presented::Access(token)).await {
                Ok(_) => Word::Accepted,
                Err(AuthError::SessionEnded(_) | AuthError::SessionUnknown) => Word::Refused,
                Err(_) => Word::Unclear("no_answer"),
            },
            Self::Other(peer) => peer.ask(token).await,
        }
    }
}

/// The nodes that accept the session while it is open; the others are noted and left out.
async fn accepted_by<'a>(auth: &'a Inner, token: &str) -> Vec<Node<'a>> {
    let others = auth.canary.peers.iter().map(Node::Other);
    let all = [Node::Itself].into_iter().chain(others);
    let asked = all.map(|node| async move { (node, node.ask(auth, token).await) });
    let asked = join_all(asked).await.into_iter();
    let accepting = asked.filter_map(|(node, word)| {
        let fault = match word {
            Word::Accepted => return Some(node),
            Word::Refused => "not_accepted",
            Word::Unclear(why) => why,
        };
        auth.metrics.canary.failed(node.name(), fault);
        None
    });
    accepting.collect()
}

/// Asks a node until it refuses. Each question starts after the acknowledgement, so that each must be answered with
/// a refusal.
async fn until_refused(auth: &Inner, node: Node<'_>, token: &str, acknowledged: Stopwatch) {
    let found = &auth.metrics.canary;
    let mut pause = FIRST_PAUSE;
    while acknowledged.elapsed() < PATIENCE {
        match node.ask(auth, token).await {
            Word::Refused => return found.refused_after(node.name(), acknowledged.elapsed()),
            Word::Accepted => {
                found.accepted_after(node.name());
                tracing::error!(peer = node.name(), "a revoked session was accepted");
            }
            Word::Unclear(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    found.failed(node.name(), "not_refused");
}

/// Not an occasion for the audit trail: nothing was done to anybody.
fn by_nobody(at: Timestamp) -> Occasion {
    Occasion {
        at,
        agent: Agent::System,
        origin: None,
        recorder: None,
    }
}

/// Makes the account if it is not there. Of several nodes that do so at once one makes it, and the others find it
/// when they look again.
async fn ensure_account(auth: &Inner) -> Result<(), Broken> {
    if auth.store.user(UserId::CANARY).await?.is_some() {
        return Ok(());
    }
    let now = auth.clock.now();
    let made = auth
        .store
        .create_user(&account(auth, now)?, None, None, &by_nobody(now))
        .await;
    match auth.store.user(UserId::CANARY).await? {
        Some(_) => Ok(()),
        None => made.map_or_else(|error| Err(error.into()), |_| Err(Broken::Account)),
    }
}

/// An account that nobody can log in to: without a password, and with an address that no letter reaches
/// (RFC 2606 §2) and nobody else can guess and take.
fn account(auth: &Inner, now: Timestamp) -> Result<NewUser, Broken> {
    let secret = auth.tokens.counted("canary", b"address")?;
    let local: String = URL_SAFE_NO_PAD.encode(secret.as_bytes());
    let address = format!("canary-{local}@doorward.invalid").to_ascii_lowercase();
    let email = EmailAddress::parse(&address).map_err(|_| Broken::Account)?;
    Ok(NewUser {
        user: User {
            id: UserId::CANARY,
            email,
            email_verified_at: None,
            username: None,
            attributes: Attributes::default(),
            roles: Roles::default(),
            status: UserStatus::Active,
            session_limit: SessionLimitOverride::default(),
            created_at: now,
            updated_at: now,
        },
        password_hash: None,
        provisional_until: None,
    })
}

async fn open(auth: &Inner, now: Timestamp) -> Result<SessionId, Broken> {
    let credentials = auth.store.user_credentials(UserId::CANARY).await?;
    let credentials = credentials.ok_or(Broken::Account)?;
    let id = SessionId::fresh(now, &*auth.entropy);
    let request = OpenSessionRequest {
        session: NewSession {
            id,
            user_id: UserId::CANARY,
            expires_at: now.plus(LIFETIME),
            auth_methods: vec![AuthMethod::Password],
            device: Device::default(),
            refresh: None,
        },
        credential_version: credentials.credential_version,
        // Other nodes measure at the same time, and single login is not for them.
        limit: SessionLimit::new(0, OnLimit::EvictOldest),
        idle: auth.idle,
        rehash: None,
        letter: None,
    };
    match auth.store.open_session(&request, &by_nobody(now)).await? {
        OpenSession::Opened { .. } => Ok(id),
        _ => Err(Broken::Account),
    }
}

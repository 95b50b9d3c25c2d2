//! One backend's Doorward: users and sessions made through the store, tokens for them, and a server.

use std::{fs, future::pending, path::PathBuf, sync::Arc, time::Duration};

use doorward::{
    Auth, AuthBuilder,
    accounts::AccountPolicy,
    clock::{Clock, Span, SystemClock, Timestamp},
    email::EmailAddress,
    entropy::{SystemEntropy, random_bytes},
    http::{ApiOptions, HttpSettings},
    ids::{SessionId, UserId},
    mail::{
        memory::MemoryMailer,
        settings::{MailSettings, Transport},
    },
    model::{
        audit::{Agent, Occasion},
        quota::Limit,
        session::{AuthMethod, Device, IdleRule, NewSession},
        token::SecretHash,
        user::{Attributes, NewUser, Roles, SessionLimitOverride, User, UserStatus},
    },
    outbox::Post,
    passwords::PasswordPolicy,
    secret::SecretString,
    server::listener::Listener,
    sessions::SessionPolicy,
    store::{CreateUser, LoginName, OpenSession, OpenSessionRequest, Store, settings::Backend},
    throttle::settings::LimitSettings,
    tokens::{KeyRing, Subject, TokenKind, Tokens},
};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use crate::{
    Outcome,
    client::{self, Load},
    database::Database,
};

/// Users made at the same time.
const MAKERS: u32 = 16;

/// A served Doorward.
pub(crate) struct Running {
    pub(crate) auth: Auth,
    pub(crate) address: String,
    server: JoinHandle<()>,
}

impl Running {
    /// Serves the API on a free port of this machine.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        keys: KeyRing,
        passwords: PasswordPolicy,
    ) -> Outcome<Self> {
        Self::serve(Auth::builder(store, keys).passwords(passwords)).await
    }

    /// As [`Self::start`], with letters that are taken over at once, and registering that conceals which
    /// addresses have accounts.
    pub(crate) async fn start_with_mail(
        store: Arc<dyn Store>,
        keys: KeyRing,
        passwords: PasswordPolicy,
    ) -> Outcome<Self> {
        let settings = MailSettings {
            transport: Transport::Memory,
            ..MailSettings::default()
        };
        let post = Post {
            mailer: Arc::new(MemoryMailer::new()),
            sender: settings.sender().map_err(|e| e.to_string())?,
            policy: settings.policy(),
            public_url: "https://auth.example.org".to_owned(),
            login_page: String::new(),
        };
        let accounts = AccountPolicy {
            require_verified_email: true,
            conceal_existence: true,
            ..AccountPolicy::default()
        };
        let builder = Auth::builder(store, keys).passwords(passwords);
        Self::serve(builder.accounts(accounts).mail(post)).await
    }

    /// Serves what is built, without limits.
    pub(crate) async fn serve(builder: AuthBuilder) -> Outcome<Self> {
        // The load is to reach what is measured; requests are still counted, in memory.
        let limits = LimitSettings {
            login_account: Limit::OFF,
            login_address: Limit::OFF,
            register_address: Limit::OFF,
            forgot_address: Limit::OFF,
            forgot_target: Limit::OFF,
            resend_address: Limit::OFF,
            resend_target: Limit::OFF,
            code_address: Limit::OFF,
            refresh_session: Limit::OFF,
            node_address: Limit::OFF,
            requests_free: u32::MAX,
            failures_before_delay: u32::MAX,
            failures_stop: u32::MAX,
            ..LimitSettings::default()
        };
        let auth = builder.limits(limits).build().map_err(|e| e.to_string())?;
        let settings = HttpSettings::default();
        let bound = Listener::bind(("", "127.0.0.1:0"), &settings, None).await;
        let listener = bound.map_err(|e| e.to_string())?;
        let address = listener.address().to_string();
        let options = ApiOptions {
            docs: false,
            ..ApiOptions::default()
        };
        let routes = auth.routes(&options);
        let server = tokio::spawn(listener.serve(routes, pending(), Duration::ZERO));
        Ok(Self {
            auth,
            address,
            server,
        })
    }

    /// Stops serving and lets go of the database.
    pub(crate) async fn stop(self) {
        self.server.abort();
        if let Err(error) = self.auth.shut_down(Duration::from_secs(5)).await {
            eprintln!("warning: the last writes failed: {error}");
        }
    }
}

/// A served Doorward whose users all have a session.
pub(crate) struct Service {
    backend: Backend,
    running: Running,
    tokens: PathBuf,
}

impl Service {
    /// Fills the database and serves it.
    pub(crate) async fn start(database: &Database, users: u32) -> Outcome<Self> {
        let opened = database.open().await?;
        let now = SystemClock::new().now();
        fill(&opened.store, users, now).await?;
        let key = key();
        let ring = || KeyRing::single(&key).map_err(|e| e.to_string());
        let tokens = database.folder().join("tokens");
        fs::write(&tokens, mint(ring()?, users, now)?)?;
        let running = Running::start(opened.store, ring()?, PasswordPolicy::light()).await?;
        Ok(Self {
            backend: database.backend(),
            running,
            tokens,
        })
    }

    pub(crate) fn backend(&self) -> Backend {
        self.backend
    }

    /// Measures `GET /v1/auth/me`.
    pub(crate) fn load(&self, connections: usize, seconds: u64) -> Outcome<Load> {
        client::spawn(&self.running.address, &self.tokens, connections, seconds)
            .map_err(|e| format!("{}: {e}", self.backend).into())
    }

    pub(crate) async fn stop(self) {
        self.running.stop().await;
    }
}

/// A fresh HS256 key.
pub(crate) fn key() -> SecretString {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(random_bytes::<32>(&SystemEntropy)).into()
}

/// The `n`th user's id. UUIDs that are plain numbers, which `pgbench` can make too.
fn user_id(n: u32) -> UserId {
    Uuid::from_u128((1 << 64) | u128::from(n)).into()
}

/// The `n`th user's session.
fn session_id(n: u32) -> SessionId {
    Uuid::from_u128(u128::from(n)).into()
}

fn mint(ring: KeyRing, users: u32, now: Timestamp) -> Outcome<String> {
    let clock = Arc::new(SystemClock::new());
    let tokens = Tokens::new(ring, "doorward", "doorward", clock, Arc::new(SystemEntropy));
    let mut lines = String::new();
    for n in 1..=users {
        let subject = Subject {
            user: user_id(n),
            session: session_id(n),
            generation: 0,
        };
        let token = tokens.mint(TokenKind::Access, subject, now.plus(Span::days(1)))?;
        lines.push_str(token.token.expose());
        lines.push('\n');
    }
    Ok(lines)
}

async fn fill(store: &Arc<dyn Store>, users: u32, now: Timestamp) -> Outcome<()> {
    make_user(&**store, 1, now).await?;
    let name = LoginName::Email(address(1)?);
    let credentials = store.user_by_login(&name).await?.ok_or("no first user")?;
    let version = credentials.credential_version;
    make_session(&**store, 1, version, now).await?;
    let mut makers = JoinSet::new();
    for first in 0..MAKERS {
        let store = Arc::clone(store);
        let mine = (2..=users).filter(move |n| n % MAKERS == first);
        makers.spawn(async move {
            for n in mine {
                make_user(&*store, n, now).await?;
                make_session(&*store, n, version, now).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(made) = makers.join_next().await {
        made??;
    }
    Ok(())
}

/// What fills the database is not recorded.
const fn filling(now: Timestamp) -> Occasion {
    Occasion {
        at: now,
        agent: Agent::System,
        origin: None,
        recorder: None,
    }
}

fn address(n: u32) -> Outcome<EmailAddress> {
    Ok(EmailAddress::parse(&format!("user{n:08}@example.org"))?)
}

async fn make_user(store: &dyn Store, n: u32, now: Timestamp) -> Outcome<()> {
    let user = User {
        id: user_id(n),
        email: address(n)?,
        email_verified_at: Some(now),
        username: None,
        attributes: Attributes::default(),
        roles: Roles::default(),
        status: UserStatus::Active,
        session_limit: SessionLimitOverride::default(),
        created_at: now,
        updated_at: now,
    };
    let user = NewUser {
        user,
        password_hash: None,
        provisional_until: None,
    };
    match store.create_user(&user, None, None, &filling(now)).await? {
        CreateUser::Created => Ok(()),
        other => Err(format!("user {n} was not made: {other:?}").into()),
    }
}

async fn make_session(store: &dyn Store, n: u32, version: i64, now: Timestamp) -> Outcome<()> {
    let policy = SessionPolicy::default();
    let device = Device {
        name: None,
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101".to_owned()),
        address: Some([127, 0, 0, 1].into()),
    };
    let request = OpenSessionRequest {
        session: NewSession {
            id: session_id(n),
            user_id: user_id(n),
            expires_at: now.plus(policy.absolute_ttl),
            auth_methods: vec![AuthMethod::Password],
            device,
            refresh: Some(SecretHash::of(&n.to_string())),
        },
        credential_version: version,
        limit: policy.limit(),
        idle: IdleRule {
            idle_ttl: policy.idle_ttl,
            flush: policy.last_seen_flush,
        },
        rehash: None,
        letter: None,
    };
    match store.open_session(&request, &filling(now)).await? {
        OpenSession::Opened { .. } => Ok(()),
        other => Err(format!("session {n} was not opened: {other:?}").into()),
    }
}

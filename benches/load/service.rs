//! Doorward in this process, for what is compared with settings that no server takes, and the tokens of seeded
//! users.

use std::{
    fs::File,
    future::pending,
    io::{BufWriter, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};

use doorward::{
    Auth, AuthBuilder,
    accounts::AccountPolicy,
    clock::{Clock, Span, SystemClock},
    entropy::{SystemEntropy, random_bytes},
    http::{ApiOptions, HttpSettings},
    mail::{
        memory::MemoryMailer,
        settings::{MailSettings, Transport},
    },
    model::quota::Limit,
    outbox::Post,
    passwords::PasswordPolicy,
    secret::SecretString,
    server::listener::Listener,
    store::Store,
    throttle::settings::LimitSettings,
    tokens::{KeyRing, Subject, TokenKind, Tokens},
};
use tokio::task::JoinHandle;

use crate::{
    Outcome,
    random::SplitMix,
    seed::{session_id, user_id},
};

/// Tokens in one file: enough to touch a table of millions all over, few enough for the load's memory.
const MOST_TOKENS: u32 = 100_000;

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

/// A fresh HS256 key.
pub(crate) fn key() -> SecretString {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(random_bytes::<32>(&SystemEntropy)).into()
}

/// Writes an access token for each of some users, in no order, one a line: all of them, or so many as are enough
/// to touch the whole table at random.
pub(crate) fn write_tokens(file: &Path, key: &SecretString, users: u32) -> Outcome<()> {
    let ring = KeyRing::single(key).map_err(|e| e.to_string())?;
    let clock = Arc::new(SystemClock::new());
    let until = clock.now().plus(Span::days(1));
    let tokens = Tokens::new(ring, "doorward", "doorward", clock, Arc::new(SystemEntropy));
    let mut random = SplitMix(1);
    let mut numbers: Vec<u32> = if users <= MOST_TOKENS {
        (1..=users).collect()
    } else {
        let mut any = || u32::try_from(random.below(users as usize)).map(|n| n + 1);
        (0..MOST_TOKENS).map(|_| any()).collect::<Result<_, _>>()?
    };
    for n in (1..numbers.len()).rev() {
        numbers.swap(n, random.below(n + 1));
    }
    let mut lines = BufWriter::new(File::create(file)?);
    for n in numbers {
        let subject = Subject {
            user: user_id(n),
            session: session_id(n),
            generation: 0,
        };
        let token = tokens.mint(TokenKind::Access, subject, until)?;
        writeln!(lines, "{}", token.token.expose())?;
    }
    lines.flush()?;
    Ok(())
}

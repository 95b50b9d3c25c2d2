//! Everything put together: one cheap handle with the use cases on it.
//!
//! [`Auth`] is what an application embeds and what the server serves. It holds no global state: two of
//! them in one process are two nodes.

pub mod canary;
mod observing;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use self::canary::{Canary, CanaryPolicy};
use crate::{
    accounts::{AccountPolicy, Accounts},
    admin::{Admin, AdminPolicy},
    audit::{AuditPolicy, Trail},
    clock::{Clock, Span, SystemClock, Timestamp},
    entropy::{Entropy, SystemEntropy, random_bytes},
    error::AuthResult,
    ids::{RequestId, RequestIds},
    letters::{LetterSettings, Letters},
    lookup::Lookup,
    metrics::{Metrics, Reported},
    model::{account::AttributeRules, role::FixedRoles, session::IdleRule, user::SessionLimit},
    outbox::{Outbox, OutboxParts, Post},
    passwords::{PasswordPolicy, Passwords},
    presence::Presence,
    recovery::Recovery,
    restarting::restarting,
    roles::RoleBook,
    sessions::{CurrentUser, Presented, SessionParts, SessionPolicy, Sessions},
    setting::BadSetting,
    store::{Store, StoreError, StoreResult, measured::MeasuredStore},
    sweep::{SweepPolicy, Sweeper},
    throttle::{Throttle, ThrottleParts, settings::LimitSettings},
    tokens::{KeyRing, Tokens},
    verification::Verification,
};

/// The authentication service; clones share everything.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    request_ids: RequestIds,
    metrics: Arc<Metrics>,
    tokens: Tokens,
    presence: Presence,
    outbox: Outbox,
    throttle: Throttle,
    sessions: Sessions,
    accounts: Accounts,
    verification: Verification,
    recovery: Recovery,
    roles: RoleBook,
    admin: Admin,
    sweeper: Sweeper,
    trail: Trail,
    conceals: bool,
    letters: Letters,
    /// Whether this node is about to stop.
    leaving: AtomicBool,
    idle: IdleRule,
    canary: Canary,
}

impl Inner {
    async fn flush_over(&self, time: Duration) -> StoreResult<()> {
        let noted = self.throttle.note_refusals().await;
        self.presence.flush_over(time).await.and(noted)
    }
}

impl Auth {
    /// Begins building a service on a database, with the keys that sign its access tokens.
    pub fn builder(store: Arc<dyn Store>, keys: KeyRing) -> AuthBuilder {
        AuthBuilder {
            store,
            keys,
            issuer: "doorward".to_owned(),
            audience: "doorward".to_owned(),
            sessions: SessionPolicy::default(),
            passwords: PasswordPolicy::default(),
            public_url: String::new(),
            rules: AttributeRules::default(),
            accounts: AccountPolicy::default(),
            sweep: SweepPolicy::default(),
            audit: AuditPolicy::default(),
            roles: FixedRoles::default(),
            admin: AdminPolicy::default(),
            limits: LimitSettings::default(),
            letters: None,
            post: None,
            lookup: None,
            observe_every: Span::ZERO,
            canary: CanaryPolicy::off(),
            reported: Reported::default(),
            clock: Arc::new(SystemClock::new()),
            entropy: Arc::new(SystemEntropy),
        }
    }

    /// Sessions: login, logout, listing.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// Accounts: registering and one's own changes.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    /// Addresses: verifying and changing them.
    #[must_use]
    pub fn verification(&self) -> &Verification {
        &self.0.verification
    }

    /// Letters: whether they can be sent, and how far they got.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.0.outbox
    }

    /// What stands in letters and on the pages that they lead to.
    #[must_use]
    pub fn letters(&self) -> &Letters {
        &self.0.letters
    }

    /// Whether registering hides which addresses have accounts.
    #[must_use]
    pub fn conceals_existence(&self) -> bool {
        self.0.conceals
    }

    /// Setting a password by a link or a code.
    #[must_use]
    pub fn recovery(&self) -> &Recovery {
        &self.0.recovery
    }

    /// What roles there are, and what they grant.
    #[must_use]
    pub fn roles(&self) -> &RoleBook {
        &self.0.roles
    }

    /// What administrators do.
    #[must_use]
    pub fn admin(&self) -> &Admin {
        &self.0.admin
    }

    /// The audit trail.
    #[must_use]
    pub fn audit(&self) -> &Trail {
        &self.0.trail
    }

    /// What removes what is over; done by itself every so often.
    #[must_use]
    pub fn sweeper(&self) -> &Sweeper {
        &self.0.sweeper
    }

    /// The public keys of the access tokens as a JWK set.
    #[must_use]
    pub fn jwks(&self) -> &serde_json::Value {
        self.0.tokens.jwks()
    }

    /// Counters of this service.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The metrics in the text format of Prometheus.
    #[must_use]
    pub fn metrics_text(&self) -> String {
        let store = &self.0.store;
        self.0.metrics.text(&store.pools(), store.circuit())
    }

    /// Asks the database for what metrics tell of it as a whole; done by itself every so often, if
    /// [`AuthBuilder::observe_every`] says so.
    ///
    /// # Errors
    /// As [`Store::count_live_sessions`]; what was not answered keeps its last value.
    pub async fn observe(&self) -> StoreResult<()> {
        observing::observe(&self.0).await
    }

    /// Opens a session of the canary account, revokes it, and measures how fast that is obeyed; done by itself
    /// every so often, see [`CanaryPolicy`]. What comes of it stands in the metrics.
    pub async fn release_canary(&self) {
        canary::round(&self.0).await;
    }

    /// The time as this service sees it.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.0.clock.now()
    }

    /// A fresh id for a request.
    #[must_use]
    pub fn fresh_request_id(&self) -> RequestId {
        self.0.request_ids.next(self.now())
    }

    /// A fresh nonce for the content security policy of one page: 128 random bits.
    #[must_use]
    pub fn nonce(&self) -> String {
        URL_SAFE_NO_PAD.encode(random_bytes::<16>(&*self.0.entropy))
    }

    /// The `iss` of its tokens.
    #[must_use]
    pub fn issuer(&self) -> &str {
        self.0.tokens.issuer()
    }

    /// Who is behind an access token or a cookie, now, and may go on asking. See
    /// [`Sessions::authenticate`] and [`Throttle::request`].
    ///
    /// # Errors
    /// As [`Sessions::authenticate`]; [`AuthError::RateLimited`](crate::error::AuthError::RateLimited).
    pub async fn authenticate(
        &self,
        presented: impl Into<Presented<'_>> + Send,
    ) -> AuthResult<CurrentUser> {
        // First who it is: a session that has ended uses up nothing of its user's.
        let caller = self.0.sessions.authenticate(presented).await?;
        self.0.throttle.request(caller.user.id).await?;
        Ok(caller)
    }

    /// Asks the database for its time: proof that it can answer.
    ///
    /// # Errors
    /// As [`Store::time`].
    pub async fn database_time(&self) -> StoreResult<Timestamp> {
        self.0.store.time().await
    }

    /// Writes down what is still in memory ("last seen", and which limits refused); done by itself every so
    /// often.
    ///
    /// # Errors
    /// As [`Store::note_seen`] and [`Store::record`]; while the database is away it is kept for the next time.
    pub async fn flush(&self) -> StoreResult<()> {
        self.0.flush_over(Duration::ZERO).await
    }

    /// Says at `/health/ready` from now on that this node is about to stop, and goes on serving.
    pub fn leave(&self) {
        self.0.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether [`Self::leave`] was called.
    pub(crate) fn is_leaving(&self) -> bool {
        self.0.leaving.load(Ordering::Relaxed)
    }

    /// Lets letters that are being sent come to their end and writes down what is still in memory, each for
    /// no longer than `limit`, and lets go of the database.
    ///
    /// # Errors
    /// As [`Self::flush`]; the database is let go all the same.
    pub async fn shut_down(&self, limit: Duration) -> StoreResult<()> {
        self.0.outbox.stop(limit).await;
        let flushed = tokio::time::timeout(limit, self.flush()).await;
        self.0.store.close().await;
        flushed.unwrap_or_else(|_| {
            let what = "the database did not take the last writes in time";
            Err(StoreError::Unavailable(what.into()))
        })
    }
}

/// Builds an [`Auth`].
#[must_use]
pub struct AuthBuilder {
    store: Arc<dyn Store>,
    keys: KeyRing,
    issuer: String,
    audience: String,
    sessions: SessionPolicy,
    passwords: PasswordPolicy,
    public_url: String,
    rules: AttributeRules,
    accounts: AccountPolicy,
    sweep: SweepPolicy,
    audit: AuditPolicy,
    roles: FixedRoles,
    admin: AdminPolicy,
    limits: LimitSettings,
    letters: Option<Letters>,
    post: Option<Post>,
    lookup: Option<Lookup>,
    observe_every: Span,
    canary: CanaryPolicy,
    reported: Reported,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl AuthBuilder {
    /// The `iss` and `aud` of tokens; both `doorward` by default. OAuth libraries that read the metadata
    /// (RFC 8414 §3.3) want the issuer to be the address that the API is reached at.
    pub fn issuer(mut self, issuer: &str, audience: &str) -> Self {
        issuer.clone_into(&mut self.issuer);
        audience.clone_into(&mut self.audience);
        self
    }

    /// How many sessions a user may hold, and how long they last.
    pub fn sessions(mut self, policy: SessionPolicy) -> Self {
        self.sessions = policy;
        self
    }

    /// Which passwords are accepted, and what hashing one costs.
    pub fn passwords(mut self, policy: PasswordPolicy) -> Self {
        self.passwords = policy;
        self
    }

    /// Where people reach this service. No password may be made of its host's name, nor of the product's that
    /// stands in letters.
    pub fn public_url(mut self, url: &str) -> Self {
        url.clone_into(&mut self.public_url);
        self
    }

    /// What an account needs; its `attributes_schema` is not read here: see [`Self::attribute_rules`].
    pub fn accounts(mut self, policy: AccountPolicy) -> Self {
        self.accounts = policy;
        self
    }

    /// What is removed when it is over, and how often.
    pub fn sweep(mut self, policy: SweepPolicy) -> Self {
        self.sweep = policy;
        self
    }

    /// What is recorded, with which key, and for how long.
    pub fn audit(mut self, policy: AuditPolicy) -> Self {
        self.audit = policy;
        self
    }

    /// What roles there are besides those that administrators make; the built-in `admin` alone by default.
    /// All nodes of one database are given the same.
    pub fn roles(mut self, roles: FixedRoles) -> Self {
        self.roles = roles;
        self
    }

    /// What administrators' acts take.
    pub fn admin(mut self, policy: AdminPolicy) -> Self {
        self.admin = policy;
        self
    }

    /// How often what may be done.
    pub fn limits(mut self, settings: LimitSettings) -> Self {
        self.limits = settings;
        self
    }

    /// What stands in letters and on the pages that they and an administrator's links lead to; the built-in
    /// texts by default.
    pub fn letters(mut self, letters: Letters) -> Self {
        self.letters = Some(letters);
        self
    }

    /// What it takes to send letters; without it none are sent.
    pub fn mail(mut self, post: Post) -> Self {
        self.post = Some(post);
        self
    }

    /// What looks sessions up, if not the readers of the store: for benchmarks alone.
    #[doc(hidden)]
    pub fn lookup(mut self, lookup: Lookup) -> Self {
        self.lookup = Some(lookup);
        self
    }

    /// How often the database is asked for what metrics tell of it as a whole; never by default.
    pub fn observe_every(mut self, every: Span) -> Self {
        self.observe_every = every;
        self
    }

    /// How often it is measured how fast a revocation is obeyed, and where; never by default.
    pub fn canary(mut self, policy: CanaryPolicy) -> Self {
        self.canary = policy;
        self
    }

    /// What others are told of this process, to be shown among its metrics; nothing by default.
    pub fn reported(mut self, reported: Reported) -> Self {
        self.reported = reported;
        self
    }

    /// The application's rules for attributes.
    pub fn attribute_rules(mut self, rules: AttributeRules) -> Self {
        self.rules = rules;
        self
    }

    /// Where the time comes from; the operating system by default.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Where chance comes from; the operating system by default.
    pub fn entropy(mut self, entropy: Arc<dyn Entropy>) -> Self {
        self.entropy = entropy;
        self
    }

    /// Starts the service: hashing threads, session readers and the flush of "last seen". Call it on a
    /// tokio runtime; everything ends when the last clone is dropped.
    ///
    /// # Errors
    /// [`BadSetting`] when a policy contradicts itself. Weak password parameters are accepted here;
    /// the server refuses them outside tests.
    pub fn build(mut self) -> Result<Auth, BadSetting> {
        self.sessions.check()?;
        self.accounts.check(self.post.is_some())?;
        self.sweep.check()?;
        self.admin.check()?;
        let canary = Canary::new(&self.canary)?;
        let (canary_every, observe_every) = (self.canary.every, self.observe_every);
        let metrics = Arc::new(Metrics::with(&self.reported));
        metrics.canary.know(canary.names());
        self.store = Arc::new(MeasuredStore::new(self.store, Arc::clone(&metrics)));
        let letters = self.letters.clone();
        let letters = letters.map_or_else(|| Letters::load(&LetterSettings::default()), Ok)?;
        let (policy, account_policy) = (self.sessions.clone(), self.accounts.clone());
        let (admin_policy, sweep) = (self.admin.clone(), self.sweep.clone());
        let lookup = self.lookup.clone();
        let means = Means::start(self, &letters, &metrics)?;
        let presence = Presence::new(Arc::clone(&means.store));
        let flush_every = policy.last_seen_flush.to_duration();
        let sessions = Sessions::new(SessionParts {
            store: Arc::clone(&means.store),
            passwords: means.passwords.clone(),
            tokens: means.tokens.clone(),
            lookup: lookup.unwrap_or_else(|| Lookup::start(&means.store, &metrics)),
            presence: presence.clone(),
            outbox: means.outbox.clone(),
            throttle: means.throttle.clone(),
            trail: means.trail.clone(),
            clock: Arc::clone(&means.clock),
            entropy: Arc::clone(&means.entropy),
            policy: Arc::new(policy),
            needs_verified_email: account_policy.require_verified_email,
            metrics: Arc::clone(&metrics),
        });
        let roles = RoleBook::new(Arc::clone(&means.store), Arc::clone(&means.fixed_roles));
        let (accounts, admin) = on_users(&means, &roles, admin_policy);
        let (verification, recovery) = by_mail(&means);
        let (store, clock) = (Arc::clone(&means.store), Arc::clone(&means.clock));
        let trail = means.trail.clone();
        let sweeper = Sweeper::new(store, trail, clock, &*means.entropy, sweep);
        let auth = Auth(Arc::new(Inner {
            store: means.store,
            clock: means.clock,
            request_ids: RequestIds::new(&*means.entropy),
            entropy: means.entropy,
            metrics,
            tokens: means.tokens,
            presence,
            outbox: means.outbox,
            throttle: means.throttle,
            sessions,
            accounts,
            verification,
            recovery,
            roles,
            admin,
            sweeper,
            trail: means.trail,
            conceals: account_policy.conceal_existence,
            letters,
            leaving: AtomicBool::new(false),
            idle: means.idle,
            canary,
        }));
        if observe_every > Span::ZERO {
            let (inner, every) = (Arc::downgrade(&auth.0), observe_every.to_duration());
            let observed = move || observing::go_on(inner.clone(), every);
            tokio::spawn(restarting("observing the database", observed));
        }
        if canary_every > Span::ZERO {
            let (inner, every) = (Arc::downgrade(&auth.0), canary_every.to_duration());
            let rounds = move || canary::go_on(inner.clone(), every);
            tokio::spawn(restarting("the canary", rounds));
        }
        let inner = Arc::downgrade(&auth.0);
        let seen = move || flush_presence(inner.clone(), flush_every);
        tokio::spawn(restarting("last seen", seen));
        if let Some(every) = auth.sweeper().every() {
            let inner = Arc::downgrade(&auth.0);
            let sweeping = move || sweep_up(inner.clone(), every);
            tokio::spawn(restarting("sweeping", sweeping));
        }
        if let Some(every) = auth.audit().seal_every() {
            let inner = Arc::downgrade(&auth.0);
            let sealing = move || seal_up(inner.clone(), every);
            tokio::spawn(restarting("sealing", sealing));
        }
        Ok(auth)
    }
}

/// The host of a URL; nothing where there is none.
fn host_of(url: &str) -> String {
    let url = url::Url::parse(url).ok();
    let host = url.as_ref().and_then(url::Url::host_str);
    host.unwrap_or_default().to_owned()
}

/// What the use cases are made of.
struct Means {
    store: Arc<dyn Store>,
    passwords: Passwords,
    tokens: Tokens,
    trail: Trail,
    outbox: Outbox,
    throttle: Throttle,
    rules: AttributeRules,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    limit: SessionLimit,
    idle: IdleRule,
    unverified_ttl: Span,
    fixed_roles: Arc<FixedRoles>,
}

impl Means {
    fn start(
        builder: AuthBuilder,
        letters: &Letters,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, BadSetting> {
        let (store, clock, entropy) = (builder.store, builder.clock, builder.entropy);
        let trail = Trail::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            Arc::clone(&entropy),
            builder.keys.audit_secret(),
            builder.audit,
        )?;
        let tokens = Tokens::new(
            builder.keys,
            &builder.issuer,
            &builder.audience,
            Arc::clone(&clock),
            Arc::clone(&entropy),
        );
        let throttle = Throttle::new(ThrottleParts {
            store: Arc::clone(&store),
            tokens: tokens.clone(),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            settings: builder.limits,
            trail: trail.clone(),
            metrics: Arc::clone(metrics),
        })?;
        let post = builder.post;
        let names = [
            letters.product().to_owned(),
            host_of(&builder.public_url),
            host_of(post.as_ref().map_or("", |post| &post.public_url)),
        ];
        let (chance, counted) = (Arc::clone(&entropy), Arc::clone(metrics));
        let passwords = Passwords::start(&builder.passwords, &names, chance, counted)?;
        let outbox = Outbox::start(OutboxParts {
            store: Arc::clone(&store),
            tokens: tokens.clone(),
            trail: trail.clone(),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            letters: letters.clone(),
            post,
            metrics: Arc::clone(metrics),
        })?;
        Ok(Self {
            store,
            passwords,
            tokens,
            trail,
            outbox,
            throttle,
            rules: builder.rules,
            clock,
            entropy,
            limit: builder.sessions.limit(),
            idle: builder.sessions.idle(),
            unverified_ttl: builder.accounts.unverified_ttl,
            fixed_roles: Arc::new(builder.roles),
        })
    }
}

fn on_users(means: &Means, roles: &RoleBook, policy: AdminPolicy) -> (Accounts, Admin) {
    let accounts = Accounts {
        store: Arc::clone(&means.store),
        passwords: means.passwords.clone(),
        outbox: means.outbox.clone(),
        throttle: means.throttle.clone(),
        trail: means.trail.clone(),
        rules: means.rules.clone(),
        clock: Arc::clone(&means.clock),
        entropy: Arc::clone(&means.entropy),
        limit: means.limit,
        idle: means.idle,
        unverified_ttl: means.unverified_ttl,
        fixed_roles: Arc::clone(&means.fixed_roles),
    };
    let admin = Admin {
        store: Arc::clone(&means.store),
        outbox: means.outbox.clone(),
        throttle: means.throttle.clone(),
        trail: means.trail.clone(),
        rules: means.rules.clone(),
        clock: Arc::clone(&means.clock),
        entropy: Arc::clone(&means.entropy),
        limit: means.limit,
        idle: means.idle,
        roles: roles.clone(),
        fixed_roles: Arc::clone(&means.fixed_roles),
        policy,
    };
    (accounts, admin)
}

fn by_mail(means: &Means) -> (Verification, Recovery) {
    let verification = Verification {
        store: Arc::clone(&means.store),
        passwords: means.passwords.clone(),
        tokens: means.tokens.clone(),
        outbox: means.outbox.clone(),
        throttle: means.throttle.clone(),
        trail: means.trail.clone(),
        rules: means.rules.clone(),
        clock: Arc::clone(&means.clock),
        entropy: Arc::clone(&means.entropy),
    };
    let recovery = Recovery {
        store: Arc::clone(&means.store),
        passwords: means.passwords.clone(),
        tokens: means.tokens.clone(),
        outbox: means.outbox.clone(),
        throttle: means.throttle.clone(),
        trail: means.trail.clone(),
        clock: Arc::clone(&means.clock),
    };
    (verification, recovery)
}

/// Writes "last seen" down so soon after it was noted, for as long as the service exists.
async fn flush_presence(auth: std::sync::Weak<Inner>, within: Duration) {
    let spread = within / 6;
    let mut ticks = tokio::time::interval(spread * 5);
    loop {
        ticks.tick().await;
        let Some(auth) = auth.upgrade() else { return };
        if let Err(error) = auth.flush_over(spread).await {
            tracing::warn!(%error, "what is in memory could not be written");
        }
    }
}

/// Removes what is over every so often, for as long as the service exists.
async fn sweep_up(auth: std::sync::Weak<Inner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(sweeper) = auth.upgrade().map(|auth| auth.sweeper.clone()) else {
            return;
        };
        match sweeper.sweep().await {
            Ok(Some(swept)) if !swept.is_nothing() => tracing::info!(%swept, "swept"),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "what is over could not be removed"),
        }
    }
}

/// Seals what was recorded every so often, for as long as the service exists.
async fn seal_up(auth: std::sync::Weak<Inner>, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        let Some(trail) = auth.upgrade().map(|auth| auth.trail.clone()) else {
            return;
        };
        // What it came to is logged there.
        if let Err(error) = trail.seal().await {
            tracing::warn!(%error, "the audit trail could not be sealed");
        }
    }
}

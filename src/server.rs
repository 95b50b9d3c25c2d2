//! The composition root: puts settings, database and routes together, and runs them until told to stop.
//!
//! Decides the order in which things start and end. Each reason not to start is one sentence. How connections
//! are taken and served is for [`listener`], with which certificate for [`tls`].

mod connection;
mod examined;
mod link;
pub mod listener;
mod register;
pub mod tls;

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use futures_util::future::OptionFuture;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::sleep,
};

use self::{listener::Listener, tls::Tls};
use crate::{
    accounts::AccountPolicy,
    auth::{Auth, canary::CanaryPolicy},
    clock::{Clock, Span, Stopwatch, SystemClock, Timestamp},
    config::{Environment, Settings},
    doctor,
    entropy::SystemEntropy,
    finding::{Check, Finding},
    http::ApiOptions,
    letters::{LetterSettings, Letters},
    mail::{
        memory::MemoryMailer,
        open::{OpenedMailer, open_mailer},
        settings::Transport,
    },
    metrics::{MetricsSettings, Reported},
    model::client::Clients,
    outbox::Post,
    restarting::restarting,
    setting::BadSetting,
    store::{
        Migrations, StoreResult,
        moving::Moving,
        open::{Opened, open, unusable},
    },
};

/// How long running requests, and letters that are being sent, may take to finish once the server is told to
/// stop.
const GRACE: Duration = Duration::from_secs(10);
/// How long the last writes may take after that.
const LAST_WRITES: Duration = Duration::from_secs(5);
/// How often the clock is compared with the database's.
const CLOCK_EVERY: Duration = Duration::from_mins(1);
/// An answer that took longer than this says too little about the time.
const SLOWEST_TIME: Duration = Duration::from_secs(4);

/// Runs the server until SIGTERM or SIGINT; `program` is what people type to start it, `reported` counts what others
/// are told of it.
///
/// # Errors
/// The first [`BadSetting`] that stops the start.
pub async fn serve(
    settings: Settings,
    program: &str,
    reported: Reported,
) -> Result<(), BadSetting> {
    settings.check()?;
    let seen = examined::before_opening(&settings).await?;
    let Service {
        auth,
        clock,
        mailbox,
    } = open_service(&settings, reported).await?;
    examined::after_opening(&settings, &auth, seen).await?;
    let tls = Tls::open(&settings.http.tls, Arc::clone(&clock) as Arc<dyn Clock>)?;
    let listeners = listen(&settings, tls.as_ref()).await?;
    let cannot = |e: io::Error| {
        let problem = format!("cannot be received: {e}");
        BadSetting::new("signals", problem, "check the system's limits")
    };
    let drain = settings.http.drain.to_duration();
    let stop = stop_on_signals(auth.clone(), drain).map_err(cannot)?;
    let mut following = vec![tokio::spawn(follow_database(auth.clone(), clock))];
    if let Some(tls) = tls {
        let hang_up = signal(SignalKind::hangup()).map_err(cannot)?;
        following.push(tokio::spawn(tls.follow(hang_up)));
    }
    announce(&settings, program, &listeners);
    let Listeners {
        main,
        admin,
        metrics,
    } = listeners;
    let open_docs = settings.environment != Environment::Production;
    let routes = auth.routes(&options(&settings, open_docs, mailbox.as_ref())?);
    let main = main.serve(routes, told(stop.clone()), GRACE);
    let for_operators = options(&settings, true, mailbox.as_ref())?;
    let routes = auth.routes(&for_operators);
    let admin = admin.map(|admin| admin.serve(routes, told(stop.clone()), GRACE));
    let routes = auth.metrics_routes(&for_operators);
    let metrics = metrics.map(|metrics| metrics.serve(routes, told(stop.clone()), GRACE));
    let letters = async {
        told(stop.clone()).await;
        auth.outbox().stop(GRACE).await;
    };
    let (admin, metrics) = (OptionFuture::from(admin), OptionFuture::from(metrics));
    let ((), _, _, ()) = tokio::join!(main, admin, metrics, letters);
    following.iter().for_each(tokio::task::JoinHandle::abort);
    shut_down(&auth).await;
    tracing::info!("stopped");
    Ok(())
}

/// What is listened on: for everybody, and where they are set for operators and for those who read metrics.
struct Listeners {
    main: Listener,
    admin: Option<Listener>,
    metrics: Option<Listener>,
}

async fn listen(settings: &Settings, tls: Option<&Arc<Tls>>) -> Result<Listeners, BadSetting> {
    let http = &settings.http;
    let (admin, metrics) = (http.admin_listen.as_str(), settings.metrics.listen.as_str());
    let admin_tls = tls.filter(|_| http.admin_tls()).cloned();
    let main = Listener::bind(("http.listen", &http.listen), http, tls.cloned()).await?;
    let admin = match admin {
        "" => None,
        address => Some(Listener::bind(("http.admin_listen", address), http, admin_tls).await?),
    };
    let metrics = match metrics {
        "" => None,
        address => Some(Listener::bind(("metrics.listen", address), http, None).await?),
    };
    Ok(Listeners {
        main,
        admin,
        metrics,
    })
}

/// What the routes obey.
fn options(
    settings: &Settings,
    docs: bool,
    mailbox: Option<&MemoryMailer>,
) -> Result<ApiOptions, BadSetting> {
    Ok(ApiOptions {
        public_url: settings.public_url.clone(),
        trusted_proxies: settings.http.trusted_proxies.clone(),
        max_body_bytes: settings.http.max_body_bytes,
        body_timeout: settings.http.body_timeout,
        request_timeout: settings.http.request_timeout,
        max_in_flight: settings.http.max_in_flight,
        docs,
        metrics: docs && settings.metrics.listen.is_empty(),
        allowed_origins: settings.http.allowed_origins.clone(),
        redirect_origins: settings.http.redirect_origins.clone(),
        cookie_domain: settings.http.cookie_domain.clone(),
        login_page: settings.http.login_page.clone(),
        password_grant: settings.http.password_grant,
        compat: settings.http.compat(),
        clients: Clients::parse(&settings.clients)?,
        mailbox: mailbox.cloned(),
    })
}

/// What [`open_service`] opens.
pub struct Service {
    /// The use cases.
    pub auth: Auth,
    /// Their clock, which has just been compared with the database's.
    pub clock: Arc<SystemClock>,
    /// The letters, where they stay in this process.
    pub mailbox: Option<MemoryMailer>,
}

/// Opens the database, brings or finds its schema up to date, and builds the use cases on it, which send
/// letters from now on.
///
/// # Errors
/// The first [`BadSetting`], the database's included.
pub async fn open_service(settings: &Settings, reported: Reported) -> Result<Service, BadSetting> {
    let mailer = open_mailer(&settings.mail)?;
    let mailbox = mailer.as_ref().and_then(|opened| opened.mailbox.clone());
    let post = mailer.map(|opened| post(settings, opened)).transpose()?;
    let (auth, clock) = build_service(settings, post, reported).await?;
    Ok(Service {
        auth,
        clock,
        mailbox,
    })
}

/// As [`open_service`], without letters, metrics or canary: for commands, which end before any could be sent.
///
/// # Errors
/// As [`open_service`].
pub async fn open_quiet_service(settings: &Settings) -> Result<Auth, BadSetting> {
    let quiet = Settings {
        accounts: AccountPolicy {
            attributes_schema: settings.accounts.attributes_schema.clone(),
            ..AccountPolicy::default()
        },
        metrics: MetricsSettings {
            every: Span::ZERO,
            ..MetricsSettings::default()
        },
        canary: CanaryPolicy::off(),
        ..settings.clone()
    };
    build_service(&quiet, None, Reported::default())
        .await
        .map(|(auth, _)| auth)
}

/// What is to be said of the certificate that clients would be shown, where there is one.
pub(crate) fn certificate(settings: &Settings) -> Option<Finding> {
    let opened = Tls::open(&settings.http.tls, Arc::new(SystemClock::new()));
    match opened {
        Ok(tls) => tls.map(|tls| tls.finding()),
        Err(bad) => Some(Finding::red(Check::Certificate, bad.to_string())),
    }
}

/// This machine's time and the database's, and how long it took to ask for that.
pub(crate) async fn compare_clocks(
    time: impl Future<Output = StoreResult<Timestamp>>,
) -> StoreResult<(Timestamp, Timestamp, Duration)> {
    let watch = Stopwatch::start();
    let there = time.await?;
    let took = watch.elapsed();
    Ok((SystemClock::new().local(), there, took))
}

/// Reads the files of TLS, where there are any.
pub(crate) fn check_tls(settings: &Settings) -> Result<(), BadSetting> {
    Tls::open(&settings.http.tls, Arc::new(SystemClock::new())).map(drop)
}

/// The texts and layouts of letters and pages.
pub(crate) fn letters(settings: &Settings) -> Result<Letters, BadSetting> {
    let mail = &settings.mail;
    Letters::load(&LetterSettings {
        product: mail.product.clone(),
        language: mail.language.clone(),
        templates: mail.templates.clone(),
    })
}

/// What it takes to send letters.
fn post(settings: &Settings, opened: OpenedMailer) -> Result<Post, BadSetting> {
    let mail = &settings.mail;
    Ok(Post {
        mailer: opened.mailer,
        sender: mail.sender()?,
        policy: mail.policy(),
        public_url: settings.public_url.clone(),
        login_page: settings.http.login_page.clone(),
    })
}

async fn build_service(
    settings: &Settings,
    post: Option<Post>,
    reported: Reported,
) -> Result<(Auth, Arc<SystemClock>), BadSetting> {
    let rules = settings.attribute_rules()?;
    let clock = Arc::new(SystemClock::new());
    settings.make_missing_key(clock.now(), &SystemEntropy)?;
    let keys = settings.key_ring()?;
    let Opened {
        store,
        migrations,
        moving,
    } = open(&settings.database).await?;
    refuse_unfinished(settings, &*moving).await?;
    bring_up_to_date(settings, &*migrations).await?;
    follow_once(&clock, store.time())
        .await
        .map_err(|e| unusable(&settings.database, e))?;
    let builder = Auth::builder(store, keys)
        .issuer(settings.issuer(), &settings.tokens.audience)
        .sessions(settings.sessions.clone())
        .passwords(settings.passwords.clone())
        .public_url(&settings.public_url)
        .attribute_rules(rules)
        .accounts(settings.accounts.clone())
        .roles(settings.roles.fixed()?)
        .admin(settings.admin.clone())
        .sweep(settings.sweep.clone())
        .audit(settings.audit.clone())
        .limits(settings.limits.clone())
        .observe_every(settings.metrics.every)
        .canary(settings.canary.clone())
        .reported(reported)
        .letters(letters(settings)?)
        .clock(Arc::clone(&clock) as Arc<dyn Clock>);
    let builder = match post {
        Some(post) => builder.mail(post),
        None => builder,
    };
    Ok((builder.build()?, clock))
}

/// A database that is still being filled is served by nobody: who is not there yet would be unknown, and what is
/// written meanwhile would be in the way of what comes.
async fn refuse_unfinished(settings: &Settings, moving: &dyn Moving) -> Result<(), BadSetting> {
    let unfinished = moving.unfinished().await;
    let unfinished = unfinished.map_err(|e| unusable(&settings.database, e))?;
    if unfinished.is_none() {
        return Ok(());
    }
    Err(BadSetting::new(
        settings.database.address_key(),
        "names the target of a transfer that has not ended",
        "run the same `doorward transfer` again, which goes on where it was, or name another database",
    ))
}

async fn bring_up_to_date(
    settings: &Settings,
    migrations: &dyn Migrations,
) -> Result<(), BadSetting> {
    let pending = migrations
        .pending()
        .await
        .map_err(|e| unusable(&settings.database, e))?;
    if pending.is_empty() {
        return Ok(());
    }
    if !doctor::applied_by_serve(settings) {
        return Err(BadSetting::new(
            "database.auto_migrate",
            format!("is false and the database lacks {}", pending.join(", ")),
            "run `doorward migrate`, or set it to true",
        ));
    }
    let applied = migrations
        .apply()
        .await
        .map_err(|e| unusable(&settings.database, e))?;
    tracing::info!(applied = applied.join(", "), "the database is up to date");
    Ok(())
}

/// Sets the clock by the database, if that answers quickly enough to be believed.
async fn follow_once(
    clock: &SystemClock,
    time: impl Future<Output = StoreResult<Timestamp>>,
) -> StoreResult<()> {
    let watch = Stopwatch::start();
    let database = time.await?;
    let took = watch.elapsed();
    if took < SLOWEST_TIME {
        clock.follow(database, took);
    } else {
        tracing::warn!("the database's time took too long to be believed");
    }
    Ok(())
}

/// Keeps the clock on the database's time. While the database is away it counts on by itself.
async fn follow_database(auth: Auth, clock: Arc<SystemClock>) {
    let (auth, clock) = (&auth, &clock);
    restarting("following the database's time", || async move {
        let mut ticks = tokio::time::interval(CLOCK_EVERY);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            if let Err(error) = follow_once(clock, auth.database_time()).await {
                tracing::warn!(%error, "the database's time could not be asked for");
            }
        }
    })
    .await;
}

/// Ends when the servers are told to stop.
async fn told(mut stop: watch::Receiver<bool>) {
    // A sender that is gone cannot tell any more, so it counts as told.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Tells the servers to stop at the first SIGTERM or SIGINT, once proxies have had the time to notice, and ends
/// the process at the second.
fn stop_on_signals(auth: Auth, drain: Duration) -> io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (tell, told) = watch::channel(false);
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        auth.leave();
        drop(auth);
        let stopping = async {
            if !drain.is_zero() {
                tracing::info!("not ready any more: requests are served a while longer");
                sleep(drain).await;
            }
            tell.send_replace(true);
            tracing::info!("stopping: running requests may finish");
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stopping => {}
            () = either(&mut terminate, &mut interrupt) => std::process::exit(1),
        }
    });
    Ok(told)
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Writes down what is still in memory and lets go of the database.
pub(crate) async fn shut_down(auth: &Auth) {
    if let Err(error) = auth.shut_down(LAST_WRITES).await {
        tracing::warn!(%error, "last seen could not be written");
    }
}

/// Tells people where the server is. Not a log line: it goes to standard output.
fn announce(settings: &Settings, program: &str, listeners: &Listeners) {
    let main = &listeners.main;
    let mut lines = vec![
        format!(
            "Doorward {} ({}, {})",
            env!("CARGO_PKG_VERSION"),
            settings.environment,
            settings.database.backend
        ),
        format!("listening on {}://{}", main.scheme(), main.address()),
    ];
    if let Some(admin) = &listeners.admin {
        lines.push(format!(
            "for operators on {}://{}",
            admin.scheme(),
            admin.address()
        ));
    }
    if let Some(metrics) = &listeners.metrics {
        lines.push(format!("metrics on http://{}/metrics", metrics.address()));
    }
    if settings.environment == Environment::Development {
        let here = reachable(&main.address().to_string());
        let here = format!("{}://{here}", main.scheme());
        lines.push(format!("documentation: {here}/docs"));
        if settings.mail.transport == Transport::Memory {
            lines.push(format!("letters: {here}/dev/mail"));
        }
        lines.push(format!(
            "first administrator: {program} admin create --email you@example.org --password-stdin"
        ));
    }
    // Nobody may be reading.
    let _ = writeln!(io::stdout(), "{}", lines.join("\n"));
}

/// An address at which this machine reaches a listener of its own.
pub(crate) fn reachable(listening: &str) -> String {
    let port = listening.rsplit_once(':').map_or("", |(_, port)| port);
    match listening.strip_suffix(port) {
        Some("0.0.0.0:") => format!("127.0.0.1:{port}"),
        Some("[::]:") => format!("[::1]:{port}"),
        _ => listening.to_owned(),
    }
}

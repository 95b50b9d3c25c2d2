//! Letters handed to a mail server by SMTP (RFC 5321), one connection each.
//!
//! Decides what a server's answers mean, and that nothing is said in plain text where TLS was asked for.
//! A connection of its own for each letter costs little at the rate of letters, and leaves nothing to
//! be found broken. How long a letter may take is for the caller.

mod stream;

use std::{error::Error as _, fmt, fs, io, time::Duration};

use async_trait::async_trait;
use lettre::transport::smtp::{
    Error,
    authentication::{Credentials, DEFAULT_MECHANISMS},
    client::{AsyncSmtpConnection, Certificate, CertificateStore, Identity, TlsParameters},
    commands,
    extension::ClientId,
    response::{Response, Severity},
};
use tokio::time::timeout;

use super::{
    Mail, Mailer, SendError, Sender,
    message::{self, Written},
    settings::{SmtpSettings, SmtpTls},
};
use crate::{
    certificates::{self, authorities},
    outbound,
    setting::BadSetting,
};

/// Of one address of the server: another may answer where this one is dead.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the answer to QUIT is worth waiting for.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends letters by SMTP.
#[derive(Clone)]
pub struct SmtpMailer {
    host: String,
    port: u16,
    security: Security,
    credentials: Option<Credentials>,
}

#[derive(Clone)]
enum Security {
    Plain,
    Starttls(TlsParameters),
    Implicit(TlsParameters),
}

impl SmtpMailer {
    /// Reads the authorities to trust. The server is not asked yet.
    ///
    /// # Errors
    /// [`BadSetting`] for a section that cannot be obeyed.
    pub fn new(settings: &SmtpSettings) -> Result<Self, BadSetting> {
        settings.check()?;
        let security = match settings.tls {
            SmtpTls::None => Security::Plain,
            SmtpTls::Starttls => Security::Starttls(tls(settings)?),
            SmtpTls::Implicit => Security::Implicit(tls(settings)?),
        };
        let credentials = (!settings.username.is_empty()).then(|| {
            Credentials::new(
                settings.username.clone(),
                settings.password.expose().clone(),
            )
        });
        Ok(Self {
            host: settings.host.clone(),
            port: settings.effective_port(),
            security,
            credentials,
        })
    }

    /// A connection that is ready for a letter.
    async fn connect(&self, hello: &ClientId) -> Result<AsyncSmtpConnection, SendError> {
        let failed = |at| move |e: Error| failure(at, &e);
        let place = (self.host.as_str(), self.port);
        let mut connection = if let Security::Implicit(tls) = &self.security {
            let (limit, tls) = (Some(CONNECT_TIMEOUT), Some(tls.clone()));
            AsyncSmtpConnection::connect_tokio1(place, limit, hello, tls, None)
                .await
                .map_err(failed(Stage::Connect))?
        } else {
            let stream = stream::connect(place, CONNECT_TIMEOUT)
                .await
                .map_err(|e| SendError::Later(format!("{} at {}", e.kind(), Stage::Connect)))?;
            AsyncSmtpConnection::connect_with_transport(Box::new(stream), hello)
                .await
                .map_err(failed(Stage::Connect))?
        };
        if let Security::Starttls(tls) = &self.security {
            connection
                .starttls(tls.clone(), hello)
                .await
                .map_err(failed(Stage::Starttls))?;
        }
        if let Some(credentials) = &self.credentials {
            connection
                .auth(DEFAULT_MECHANISMS, credentials)
                .await
                .map_err(failed(Stage::Auth))?;
        }
        Ok(connection)
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn send(&self, mail: &Mail) -> Result<(), SendError> {
        let letter = message::write(mail)?;
        // Servers look for a full name here, and a container's own is none.
        let hello = ClientId::Domain(letter.from.domain().to_owned());
        let mut connection = self.connect(&hello).await?;
        let outcome = hand_over(&mut connection, &letter).await;
        // The letter's fate is known: its deadline is not to run out over good manners.
        tokio::spawn(async move { timeout(FAREWELL_TIMEOUT, connection.abort()).await });
        outcome
    }

    /// Connects and logs in as for a letter, and says no more than NOOP.
    async fn check(&self, sender: &Sender) -> Result<(), SendError> {
        let domain = sender.address.canonical().rsplit('@').next();
        let hello = ClientId::Domain(domain.unwrap_or_default().to_owned());
        let mut connection = self.connect(&hello).await?;
        let answer = connection.command(commands::Noop).await;
        let outcome = expect(Stage::Noop, Severity::PositiveCompletion, answer);
        let _ = timeout(FAREWELL_TIMEOUT, connection.quit()).await;
        outcome
    }
}

/// MAIL, RCPT, DATA and the letter itself.
async fn hand_over(
    connection: &mut AsyncSmtpConnection,
    letter: &Written,
) -> Result<(), SendError> {
    let from = commands::Mail::new(Some(letter.from.clone()), Vec::new());
    let answer = connection.command(from).await;
    expect(Stage::Mail, Severity::PositiveCompletion, answer)?;
    let to = commands::Rcpt::new(letter.to.clone(), Vec::new());
    let answer = connection.command(to).await;
    expect(Stage::Rcpt, Severity::PositiveCompletion, answer)?;
    let answer = connection.command(commands::Data).await;
    expect(Stage::Data, Severity::PositiveIntermediate, answer)?;
    let answer = connection.message(&letter.bytes).await;
    expect(Stage::Content, Severity::PositiveCompletion, answer)
}

/// How far a conversation got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connect,
    Starttls,
    Auth,
    Noop,
    Mail,
    Rcpt,
    Data,
    Content,
}

impl Stage {
    /// Whether an answer here is about the letter, not about us: MAIL names our own address, and what a server
    /// has against that, an operator can heal before the letter is given up.
    const fn is_about_the_letter(self) -> bool {
        matches!(self, Self::Rcpt | Self::Data | Self::Content)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "the connection",
            Self::Starttls => "STARTTLS",
            Self::Auth => "AUTH",
            Self::Noop => "NOOP",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::Content => "the end of DATA",
        })
    }
}

fn expect(
    stage: Stage,
    wanted: Severity,
    answer: Result<Response, Error>,
) -> Result<(), SendError> {
    let answer = answer.map_err(|e| failure(stage, &e))?;
    if answer.code().severity == wanted {
        return Ok(());
    }
    Err(SendError::Later(format!("{} at {stage}", answer.code())))
}

/// What a failure means. Of the server's words only the code is kept: they may quote addresses.
fn failure(stage: Stage, error: &Error) -> SendError {
    let Some(code) = error.status() else {
        return SendError::Later(format!("{} at {stage}", trouble(error)));
    };
    let code = code.to_string();
    let said = format!("{code} at {stage}");
    if error.is_permanent() && stage.is_about_the_letter() && !is_about_us(stage, &code, error) {
        SendError::Refused(said)
    } else {
        SendError::Later(said)
    }
}

/// Whether a refusal is of us and not of the letter, which an operator can heal before the letter is given up:
/// a missing login (RFC 4954 §6), or a policy against our address or host (5.7, RFC 3463 §3.8), which common
/// servers tell at RCPT. Without such a status 553 and 554 are taken for that at RCPT.
fn is_about_us(stage: Stage, code: &str, error: &Error) -> bool {
    let words = error.source().map(ToString::to_string).unwrap_or_default();
    let status = words
        .split_whitespace()
        .find(|word| word.starts_with("5.") && word.split('.').count() == 3);
    let is_policy = match (status, stage) {
        (Some(status), Stage::Rcpt | Stage::Data) => status.starts_with("5.7."),
        (None, Stage::Rcpt) => ["553", "554"].contains(&code),
        _ => false,
    };
    is_policy || ["530", "534", "535", "538"].contains(&code)
}

/// A failure without an answer, in words of our own.
fn trouble(error: &Error) -> String {
    if error.is_client() {
        return "not offered by the server".to_owned();
    }
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
            return trouble_with_tls(tls).to_owned();
        }
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            let inner = io.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
            return inner.map_or_else(|| io.kind().to_string(), |e| trouble_with_tls(e).to_owned());
        }
        source = cause.source();
    }
    "no answer".to_owned()
}

const fn trouble_with_tls(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::InvalidCertificate(_) => "certificate not trusted",
        _ => "no TLS",
    }
}

fn tls(settings: &SmtpSettings) -> Result<TlsParameters, BadSetting> {
    let builder = TlsParameters::builder(settings.host.clone());
    let builder = if settings.ca_file.is_empty() {
        builder.certificate_store(CertificateStore::WebpkiRoots)
    } else {
        builder
            .certificate_store(CertificateStore::None)
            .add_root_certificate(trusted(&settings.ca_file)?)
    };
    let builder = if settings.cert_file.is_empty() {
        builder
    } else {
        builder.identify_with(identity(&settings.cert_file, &settings.key_file)?)
    };
    builder.build().map_err(|_| {
        bad_ca(format!(
            "{} has a certificate that cannot be used",
            settings.ca_file
        ))
    })
}

fn trusted(path: &str) -> Result<Certificate, BadSetting> {
    authorities(path).map_err(bad_ca)?;
    let read = fs::read(path).ok();
    let read = read.and_then(|pem| Certificate::from_pem(&pem).ok());
    read.ok_or_else(|| bad_ca(format!("{path} cannot be read")))
}

/// lettre takes one certificate for what it shows, and that in DER.
fn identity(certificate: &str, key: &str) -> Result<Identity, BadSetting> {
    let bad = |problem: String| {
        let remedy = "name PEM files of one certificate and of the key that belongs to it";
        BadSetting::new("mail.smtp.cert_file", problem, remedy)
    };
    let own = certificates::Identity::read(certificate, key).map_err(bad)?;
    let [shown] = own.chain.as_slice() else {
        return Err(bad(format!("{certificate} has more than one certificate")));
    };
    let shown = shown.to_vec();
    certificates::client(None, Some(own)).map_err(bad)?;
    let key = fs::read(key).map_err(|e| bad(format!("{key} cannot be read: {}", e.kind())))?;
    Identity::from_pem(&shown, &key).map_err(|_| bad(format!("{certificate} cannot be used")))
}

fn bad_ca(problem: String) -> BadSetting {
    outbound::bad_ca("mail.smtp.ca_file", problem)
}

//! Letters handed to SendGrid by its Mail Send API, version 3.
//!
//! Decides what of a letter SendGrid is told (nothing that would let it follow clicks) and what its
//! answers mean. A letter whose answer is lost is sent again: SendGrid knows no idempotency keys.

use std::time::Duration;

use async_trait::async_trait;
use reqwest::{
    Client, StatusCode,
    header::{AUTHORIZATION, HeaderMap, HeaderValue},
};
use serde_json::{Value, json};

use super::{
    Mail, Mailer, SendError,
    message::{AUTOMATIC, one_line},
    settings::SendGridSettings,
};
use crate::{
    outbound::{self, Trusted},
    setting::BadSetting,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The caller's deadline is usually shorter.
const TOTAL_TIMEOUT: Duration = Duration::from_mins(2);

/// Sends letters through SendGrid.
#[derive(Debug, Clone)]
pub struct SendGridMailer {
    http: Client,
    endpoint: String,
}

impl SendGridMailer {
    /// A client of the API. Nobody is asked yet.
    ///
    /// # Errors
    /// [`BadSetting`] for a section that cannot be obeyed.
    pub fn new(settings: &SendGridSettings) -> Result<Self, BadSetting> {
        settings.check(false)?;
        let bad = |key: &str| BadSetting::new(key, "cannot be used", "correct it");
        let root = settings
            .api_root()
            .ok_or_else(|| bad("mail.sendgrid.base_url"))?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", settings.api_key.expose()))
            .map_err(|_| bad("mail.sendgrid.api_key"))?;
        bearer.set_sensitive(true);
        let builder = outbound::client("mail.sendgrid", &root, Trusted::Public)?
            .default_headers(HeaderMap::from_iter([(AUTHORIZATION, bearer)]))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT);
        let http = builder.build().map_err(|_| bad("mail.sendgrid"))?;
        let base = root.as_str().trim_end_matches('/');
        let endpoint = format!("{base}/v3/mail/send");
        Ok(Self { http, endpoint })
    }
}

#[async_trait]
impl Mailer for SendGridMailer {
    async fn send(&self, mail: &Mail) -> Result<(), SendError> {
        let request = self.http.post(&self.endpoint).json(&body_of(mail));
        let answer = request.send().await.map_err(|e| no_answer(&e))?;
        judge(answer.status())
    }
}

fn body_of(mail: &Mail) -> Value {
    let mut from = json!({ "email": mail.from.address.as_str() });
    let name = one_line(&mail.from.name);
    if !name.is_empty() {
        from["name"] = json!(name);
    }
    let mut headers = json!({
        "Message-ID": mail.message_id(),
        "Content-Language": one_line(&mail.language),
    });
    for (name, value) in AUTOMATIC {
        headers[name] = json!(value);
    }
    json!({
        "personalizations": [{ "to": [{ "email": mail.to.as_str() }] }],
        "from": from,
        "subject": one_line(&mail.subject),
        "content": [
            { "type": "text/plain", "value": mail.text },
            { "type": "text/html", "value": mail.html },
        ],
        "headers": headers,
        // A followed link would show its one-time secret to one more server.
        "tracking_settings": {
            "click_tracking": { "enable": false, "enable_text": false },
            "open_tracking": { "enable": false },
            "subscription_tracking": { "enable": false },
        },
    })
}

/// What an answer means. Those that speak of our key, our URL or the hour leave the letter's chances as
/// they were.
fn judge(status: StatusCode) -> Result<(), SendError> {
    let said = format!("status {}", status.as_u16());
    match status.as_u16() {
        200..=299 => Ok(()),
        401 | 403 | 404 | 405 | 407 | 408 | 425 | 429 => Err(SendError::Later(said)),
        400..=499 => Err(SendError::Refused(said)),
        _ => Err(SendError::Later(said)),
    }
}

/// The error's own text may quote the URL.
fn no_answer(error: &reqwest::Error) -> SendError {
    let why = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    SendError::Later(why.to_owned())
}

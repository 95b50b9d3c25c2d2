//! What the server's listener obeys: TLS, and how much time and room a client has.
//!
//! Decides which of these settings hold. They are obeyed by the listener of the server, but for the times of a
//! request and of its body and the number of requests at once, which the outermost layer of the routes keeps.

use serde::{Deserialize, Serialize};

use super::HttpSettings;
use crate::{
    clock::Span,
    setting::{BadSetting, is_own_machine},
};

/// `[http.tls]`: the certificate that the listener shows, and whom it speaks with.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// The certificate in PEM, with those above it; empty (default) for no TLS.
    pub cert_file: String,
    /// Its private key in PEM.
    pub key_file: String,
    /// Whether clients show certificates. Default off.
    pub client_auth: ClientAuth,
    /// The CA of these in PEM.
    pub client_ca_file: String,
    /// How often to look whether the files were changed. Default 30 s; zero for SIGHUP only.
    pub reload_every: Span,
}

/// Whether clients show certificates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// They are not asked for any.
    #[default]
    Off,
    /// They are asked; one that is shown must be of the CA.
    Optional,
    /// Who shows none of the CA is refused.
    Required,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            cert_file: String::new(),
            key_file: String::new(),
            client_auth: ClientAuth::Off,
            client_ca_file: String::new(),
            reload_every: Span::secs(30),
        }
    }
}

impl TlsSettings {
    /// Whether the listener speaks TLS.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.cert_file.is_empty()
    }

    /// Checks the settings; the files are looked at when they are opened.
    ///
    /// # Errors
    /// The first [`BadSetting`].
    pub fn check(&self) -> Result<(), BadSetting> {
        let bad = |key: &str, problem: &str, remedy: &str| {
            Err(BadSetting::new(&format!("http.tls.{key}"), problem, remedy))
        };
        if self.is_on() && self.key_file.is_empty() {
            return bad(
                "key_file",
                "is missing, and cert_file is set",
                "name the certificate's key",
            );
        }
        if !self.is_on() && !self.key_file.is_empty() {
            return bad(
                "cert_file",
                "is missing, and key_file is set",
                "name the key's certificate",
            );
        }
        let asks = self.client_auth != ClientAuth::Off;
        if asks && !self.is_on() {
            return bad(
                "client_auth",
                "asks for certificates without TLS",
                "set http.tls.cert_file and http.tls.key_file",
            );
        }
        if asks && self.client_ca_file.is_empty() {
            return bad(
                "client_ca_file",
                "is missing, and client_auth is set",
                "name the CA of the clients' certificates",
            );
        }
        if !asks && !self.client_ca_file.is_empty() {
            return bad(
                "client_auth",
                "is off, and client_ca_file is set",
                "set it to optional or required",
            );
        }
        let day = Span::days(1);
        if self.reload_every != Span::ZERO
            && !(Span::millis(100)..=day).contains(&self.reload_every)
        {
            return bad(
                "reload_every",
                "is outside 100ms to 1d",
                "set it to 30s, or to 0s for SIGHUP only",
            );
        }
        Ok(())
    }
}

impl HttpSettings {
    /// Whether the listener for operators speaks TLS: as the other does, but not with its own machine.
    #[must_use]
    pub fn admin_tls(&self) -> bool {
        let host = self.admin_listen.rsplit_once(':').map(|(host, _)| host);
        self.tls.is_on() && host.is_some_and(|host| !is_own_machine(host))
    }

    /// Checks how much time and room clients have.
    pub(super) fn check_listening(&self) -> Result<(), BadSetting> {
        let times = [
            ("header_timeout", self.header_timeout, "10s"),
            ("body_timeout", self.body_timeout, "30s"),
            ("request_timeout", self.request_timeout, "30s"),
            ("write_timeout", self.write_timeout, "30s"),
            ("idle_timeout", self.idle_timeout, "75s"),
        ];
        let (shortest, longest) = (Span::millis(100), Span::minutes(60));
        for (key, time, usual) in times {
            if !(shortest..=longest).contains(&time) {
                let problem = format!("{time} is outside 100ms to 1h");
                return Err(BadSetting::new(
                    &format!("http.{key}"),
                    problem,
                    format!("set it to {usual}"),
                ));
            }
        }
        if self.drain > Span::minutes(10) {
            let problem = format!("{} is longer than 10m", self.drain);
            return Err(BadSetting::new(
                "http.drain",
                problem,
                "set it to a little more than your proxy takes to notice",
            ));
        }
        let rooms = [
            ("max_connections", self.max_connections, "10000"),
            ("max_in_flight", self.max_in_flight, "4096"),
        ];
        for (key, room, usual) in rooms {
            if !(1..=1_000_000).contains(&room) {
                let problem = format!("{room} is outside 1 to 1000000");
                return Err(BadSetting::new(
                    &format!("http.{key}"),
                    problem,
                    format!("set it to {usual}"),
                ));
            }
        }
        self.tls.check()
    }
}

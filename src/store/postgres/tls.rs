//! What a connection string says of TLS (ASVS 12.3.1, 12.3.2), in libpq's words: PostgreSQL's documentation, "Parameter
//! Key Words".
//!
//! Decides what they mean here, where nobody is spoken to whose certificate is not verified, and refuses by name what
//! cannot be obeyed. Plain text goes to this machine, and elsewhere only where the string says `sslmode=disable`.

use std::net::IpAddr;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::{Config, Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    certificates::{Identity, authorities, client},
    setting::is_own_machine,
    store::{StoreError, StoreResult},
};

/// What libpq obeys and Doorward does not: a connection that is less than what was asked for is worse than none.
const NOT_OBEYED: [&str; 18] = [
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "krbsrvname",
    "passfile",
    "requirepeer",
    "requiressl",
    "require_auth",
    "service",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslcrldir",
    "sslkeylogfile",
    "sslpassword",
    "sslsni",
];

/// What a connection string says.
#[derive(Default)]
struct Said {
    mode: Option<String>,
    authorities: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

/// Takes out of a connection string what is said of TLS, and gives what remains, in words that the driver knows, with how
/// TLS is to be spoken.
///
/// # Errors
/// [`StoreError::Driver`] with a sentence that names the word and its fault.
pub(super) fn taken_from(url: &str) -> StoreResult<(String, MakeRustlsConnect)> {
    let (address, query) = url.split_once('?').unwrap_or((url, ""));
    let mut said = Said::default();
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (word, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = match word {
            "sslmode" => &mut said.mode,
            "sslrootcert" => &mut said.authorities,
            "sslcert" => &mut said.certificate,
            "sslkey" => &mut said.key,
            _ if NOT_OBEYED.contains(&word) => {
                return Err(bad(format!("{word} in the URL is not supported")));
            }
            _ => {
                rest.push(pair);
                continue;
            }
        };
        *place = Some(percent_decode_str(value).decode_utf8_lossy().into_owned());
    }
    let mode = said.driver_mode()?;
    rest.push(mode);
    Ok((format!("{address}?{}", rest.join("&")), said.connector()?))
}

impl Said {
    /// `require`, `verify-ca` and `verify-full` are one here: certificate and host name are verified. So is `prefer`
    /// for other machines; there is no trying again in plain text.
    fn driver_mode(&self) -> StoreResult<&'static str> {
        let files = [&self.authorities, &self.certificate, &self.key];
        // Whoever names a certificate wants TLS, on this machine, too.
        let named = files.iter().any(|file| file.is_some());
        match self.mode.as_deref() {
            Some("disable") if named => Err(bad(
                "sslmode=disable in the URL contradicts sslrootcert, sslcert and sslkey".into(),
            )),
            Some("disable") => Ok("sslmode=disable"),
            Some("require" | "verify-ca" | "verify-full") => Ok("sslmode=require"),
            Some("prefer") | None if named => Ok("sslmode=require"),
            Some("prefer") | None => Ok("sslmode=prefer"),
            Some(_) => Err(bad(
                "sslmode in the URL must be disable, prefer, require, verify-ca or verify-full"
                    .into(),
            )),
        }
    }

    fn connector(&self) -> StoreResult<MakeRustlsConnect> {
        let trusted = match self.authorities.as_deref() {
            None | Some("system") => None,
            Some(path) => {
                let read = authorities(path);
                Some(read.map_err(|why| bad(format!("sslrootcert: {why}")))?)
            }
        };
        let identity = match (&self.certificate, &self.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let read = Identity::read(certificate, key);
                Some(read.map_err(|why| bad(format!("sslcert, sslkey: {why}")))?)
            }
            _ => return Err(bad("sslcert and sslkey in the URL need each other".into())),
        };
        let config = client(trusted, identity).map_err(|why| bad(format!("sslcert: {why}")))?;
        Ok(MakeRustlsConnect::new(config))
    }
}

/// Whether these servers are spoken to in plain text.
pub(super) fn is_plain(config: &Config) -> bool {
    let here = |host: &Host| match host {
        Host::Tcp(name) => is_own_machine(name),
        Host::Unix(_) => true,
    };
    // Where both are there, the name is only what a certificate is compared with.
    let addresses = config.get_hostaddrs();
    match config.get_ssl_mode() {
        SslMode::Disable => true,
        SslMode::Prefer if addresses.is_empty() => config.get_hosts().iter().all(here),
        SslMode::Prefer => addresses.iter().all(IpAddr::is_loopback),
        _ => false,
    }
}

const fn bad(why: String) -> StoreError {
    StoreError::Driver(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(query: &str) -> String {
        let taken = taken_from(&format!("postgres://ann:hunter2@db/doorward?{query}"));
        let refused = taken.map(drop).expect_err(query).to_string();
        assert!(!refused.contains("hunter2"), "{refused}");
        refused
    }

    /// ASVS 12.3.1: a name may be local and its number lead elsewhere.
    #[test]
    fn plain_text_goes_to_this_machine_alone() {
        for (place, expected) in [
            ("localhost/x", true),
            ("127.0.0.1:1,[::1]:2/x", true),
            ("%2Frun%2Fpostgresql/x", true),
            ("localhost/x?hostaddr=127.0.0.1", true),
            ("localhost/x?hostaddr=192.0.2.1", false),
            ("/x?hostaddr=192.0.2.1", false),
            ("localhost,db.example.org/x", false),
            ("db.example.org/x", false),
            ("db.example.org/x?sslmode=prefer", false),
            ("db.example.org/x?sslmode=disable", true),
            ("localhost/x?sslmode=require", false),
        ] {
            let (url, _) = taken_from(&format!("postgres://ann@{place}")).expect(place);
            let config: Config = url.parse().expect(place);
            assert_eq!(is_plain(&config), expected, "{place}");
        }
    }

    /// ASVS 12.3.1.
    #[test]
    fn every_mode_is_obeyed_or_refused() {
        for (said, meant) in [
            ("", "sslmode=prefer"),
            ("sslmode=prefer", "sslmode=prefer"),
            ("sslmode=disable", "sslmode=disable"),
            ("sslmode=require", "sslmode=require"),
            ("sslmode=verify-ca", "sslmode=require"),
            ("sslmode=verify-full", "sslmode=require"),
            ("sslrootcert=system", "sslmode=require"),
        ] {
            let (url, _) = taken_from(&format!("postgres://db/x?port=1&{said}")).expect(said);
            assert_eq!(url, format!("postgres://db/x?port=1&{meant}"));
        }
        for (query, word) in [
            ("sslmode=allow", "sslmode"),
            ("sslmode=", "sslmode"),
            ("sslmode=disable&sslrootcert=system", "sslrootcert"),
            ("sslcert=own.pem", "sslkey"),
            ("sslkey=own.pem", "sslcert"),
            ("sslcert=nowhere.pem&sslkey=nowhere.pem", "nowhere.pem"),
            ("sslrootcert=Cargo.toml", "Cargo.toml has no certificate"),
        ] {
            let sentence = refused(query);
            assert!(sentence.contains(word), "{sentence}");
        }
        for word in NOT_OBEYED {
            let sentence = refused(&format!("{word}=1"));
            assert!(sentence.contains(word), "{sentence}");
        }
    }
}

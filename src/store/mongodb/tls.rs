//! Which servers are spoken to over TLS (ASVS 12.3.1, 12.3.2), and what a connection string may say of it.
//!
//! Decides the same as on PostgreSQL: TLS with a verified certificate to other machines, plain text on this one, and
//! elsewhere only where the string says `tls=false`. What would be no verification is refused by name. How TLS is
//! spoken is for the driver.

use std::net::UdpSocket;

use mongodb::{
    bson::Document,
    error::Error,
    options::{ClientOptions, ServerAddress, Tls, TlsOptions},
};
use tokio::net::lookup_host;

use crate::{
    certificates::{Identity, authorities, client},
    setting::{BadSetting, is_own_machine},
};

pub(super) const URL: &str = "database.mongodb.url";

/// Words that would let anybody answer for the server.
const UNVERIFIED: [&str; 3] = [
    "tlsInsecure",
    "tlsAllowInvalidCertificates",
    "tlsAllowInvalidHostnames",
];
/// Words that the driver does not obey.
const NOT_OBEYED: [&str; 4] = [
    "tlsCertificateKeyFilePassword",
    "tlsCRLFile",
    "tlsDisableCertificateRevocationCheck",
    "tlsDisableOCSPEndpointCheck",
];

/// How the servers are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Tls,
    /// The string says so.
    Plain,
    /// All that it names are on this machine.
    PlainHere,
}

/// Refuses by name what must not, or cannot, be obeyed.
pub(super) fn check_words(url: &str) -> Result<(), BadSetting> {
    let (_, query) = url.split_once('?').unwrap_or((url, ""));
    let said: Vec<&str> = query
        .split('&')
        .filter_map(|pair| pair.split('=').next())
        .collect();
    let is_said = |word: &&&str| said.iter().any(|said| said.eq_ignore_ascii_case(word));
    if let Some(word) = UNVERIFIED.iter().find(is_said) {
        return Err(BadSetting::new(
            URL,
            format!("says {word}, with which anybody could answer for the server"),
            "take it away, and name the authority of the server's certificate by tlsCAFile",
        ));
    }
    NOT_OBEYED.iter().find(is_said).map_or(Ok(()), |word| {
        let problem = format!("says {word}, which is not supported");
        Err(BadSetting::new(URL, problem, "take it away"))
    })
}

/// Settles what the string leaves open, and reads the files that it names: the driver passes over what it cannot use.
pub(super) fn choose(options: &mut ClientOptions) -> Result<Spoken, BadSetting> {
    let is_here = |host: &ServerAddress| match host {
        ServerAddress::Tcp { host, .. } => is_own_machine(host),
        _ => true,
    };
    let spoken = match &options.tls {
        Some(Tls::Disabled) => return Ok(Spoken::Plain),
        None if options.hosts.iter().all(is_here) => return Ok(Spoken::PlainHere),
        Some(Tls::Enabled(named)) => {
            check_files(named)?;
            Spoken::Tls
        }
        None => {
            options.tls = Some(Tls::Enabled(TlsOptions::default()));
            Spoken::Tls
        }
    };
    Ok(spoken)
}

fn check_files(named: &TlsOptions) -> Result<(), BadSetting> {
    let bad = |word: &str| {
        let problem = format!("names a file that cannot be used: {word}: ");
        move |why: String| {
            let remedy =
                "name a file in PEM, with the certificate and its key in tlsCertificateKeyFile";
            BadSetting::new(URL, problem + &why, remedy)
        }
    };
    if let Some(path) = &named.ca_file_path {
        authorities(&path.to_string_lossy()).map_err(bad("tlsCAFile"))?;
    }
    if let Some(path) = &named.cert_key_file_path {
        let path = path.to_string_lossy();
        let own = Identity::read(&path, &path).map_err(bad("tlsCertificateKeyFile"))?;
        client(None, Some(own)).map_err(bad("tlsCertificateKeyFile"))?;
    }
    Ok(())
}

/// The members of the replica set may be elsewhere than the one that the string names.
pub(super) async fn check_members(spoken: Spoken, hello: &Document) -> Result<(), BadSetting> {
    let Ok(members) = hello.get_array("hosts") else {
        return Ok(());
    };
    for member in members.iter().filter_map(|member| member.as_str()) {
        if spoken == Spoken::PlainHere && !leads_here(member).await {
            return Err(BadSetting::new(
                URL,
                format!("leads to {member}, which would be spoken to in plain text"),
                "say tls=true in it, or tls=false if nobody else is on that network",
            ));
        }
    }
    Ok(())
}

/// Whether a member, `host:port`, is this machine: by its name, or by addresses that can be listened on here.
async fn leads_here(member: &str) -> bool {
    let host = member.rsplit_once(':').map_or(member, |(host, _)| host);
    if is_own_machine(host) {
        return true;
    }
    match lookup_host(member).await {
        Ok(mut addresses) => addresses.all(|at| UdpSocket::bind((at.ip(), 0)).is_ok()),
        Err(_) => false,
    }
}

/// What an error of TLS means, in words of our own: the driver's name all servers and their faults at once.
pub(super) fn fault(spoken: Spoken, error: &Error) -> Option<String> {
    let said = error.to_string();
    let faults = [
        (
            "UnknownIssuer",
            "its certificate comes from an authority that is not trusted; tlsCAFile names one",
        ),
        ("not valid for name", "its certificate is not for this host"),
        ("certificate expired", "its certificate has expired"),
        ("invalid peer certificate", "its certificate is not trusted"),
        (
            "tls handshake eof",
            "it does not speak TLS; tls=false in the address speaks plain text",
        ),
        (
            "InvalidContentType",
            "it does not speak TLS; tls=false in the address speaks plain text",
        ),
        (
            "received fatal alert",
            "it does not take our certificate, or misses one (tlsCertificateKeyFile)",
        ),
        (
            "peer closed connection",
            "it breaks the connection off; it may miss a certificate (tlsCertificateKeyFile)",
        ),
    ];
    let mut faults = faults.into_iter();
    let found = faults.find(|(words, _)| spoken == Spoken::Tls && said.contains(words));
    found.map(|(_, why)| why.to_owned())
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    async fn chosen(url: &str) -> Spoken {
        let mut options = ClientOptions::parse(url).await.expect(url);
        let spoken = choose(&mut options).expect(url);
        let is_on = matches!(options.tls, Some(Tls::Enabled(_)));
        assert_eq!(is_on, spoken == Spoken::Tls, "{url}");
        spoken
    }

    /// ASVS 12.3.1: plain text to another machine is said, never left out.
    #[tokio::test]
    async fn other_machines_are_spoken_to_over_tls_unless_the_url_says_otherwise() {
        for (url, spoken) in [
            (
                "mongodb://localhost,127.0.0.1:1,[::1]:2/",
                Spoken::PlainHere,
            ),
            ("mongodb://db.example.org/", Spoken::Tls),
            ("mongodb://localhost,db.example.org/", Spoken::Tls),
            ("mongodb://db.example.org/?tls=false", Spoken::Plain),
            ("mongodb://db.example.org/?ssl=false", Spoken::Plain),
            ("mongodb://localhost/?tls=true", Spoken::Tls),
        ] {
            assert_eq!(chosen(url).await, spoken, "{url}");
        }
        // A network for documentation (RFC 5737).
        let hello = doc! { "hosts": ["localhost:1", "192.0.2.7:27017"] };
        let refused = check_members(Spoken::PlainHere, &hello).await;
        let refused = refused.expect_err("elsewhere");
        assert!(refused.problem.contains("192.0.2.7"), "{refused}");
        for spoken in [Spoken::Tls, Spoken::Plain] {
            assert_eq!(check_members(spoken, &hello).await, Ok(()));
        }
        let here = doc! { "hosts": ["127.0.0.1:1", "[::1]:2"] };
        assert_eq!(check_members(Spoken::PlainHere, &here).await, Ok(()));
    }

    /// ASVS 12.3.2.
    #[tokio::test]
    async fn what_verifies_nobody_is_refused_by_name() {
        for word in UNVERIFIED.iter().chain(&NOT_OBEYED) {
            for said in [(*word).to_owned(), word.to_lowercase()] {
                let url = format!("mongodb://ann:hunter2@h/?tls=true&{said}=true");
                let refused = check_words(&url).expect_err(word).to_string();
                assert!(refused.contains(word), "{refused}");
                assert!(!refused.contains("hunter2"), "{refused}");
            }
        }
        for (query, fault) in [
            ("tlsCAFile=nowhere.pem", "nowhere.pem cannot be read"),
            ("tlsCAFile=Cargo.toml", "Cargo.toml has no certificate"),
            (
                "tlsCertificateKeyFile=nowhere.pem",
                "nowhere.pem cannot be read",
            ),
        ] {
            let url = format!("mongodb://h/?tls=true&{query}");
            let mut options = ClientOptions::parse(&url).await.expect("valid");
            let refused = choose(&mut options).expect_err(query).to_string();
            assert!(refused.contains(fault), "{refused}");
        }
    }
}

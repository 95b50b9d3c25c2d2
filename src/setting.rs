//! What is said about a setting that cannot be obeyed.

/// A setting that stops the start: which key, what is wrong, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}; {remedy}")]
pub struct BadSetting {
    /// The key as written in a file, e.g. `sessions.access_ttl`.
    pub key: String,
    /// What is wrong with its value.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl BadSetting {
    /// Names the key, the value's fault and the remedy.
    pub fn new(key: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            key: key.to_owned(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

/// A value in a sentence about it. One that could be a URL is not repeated: somebody may have put a
/// database's, with its password, into the wrong place.
pub(crate) fn shown(value: &str) -> String {
    if value.contains("://") || value.contains('@') {
        "its value".to_owned()
    } else {
        format!("`{value}`")
    }
}

/// An address in a sentence about it; what stands before an `@` may be a password.
pub(crate) fn shown_address(value: &str) -> String {
    if value.contains('@') {
        "it".to_owned()
    } else {
        format!("`{value}`")
    }
}

/// The address of a service: http or https, and nothing else in it than where that is.
pub(crate) fn service_url(text: &str) -> Option<url::Url> {
    let url = url::Url::parse(text).ok()?;
    let is_plain = ["http", "https"].contains(&url.scheme())
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    is_plain.then_some(url)
}

/// Whether what is sent to an API crosses a network that anybody may read (ASVS 12.3.1).
pub(crate) fn is_plain_text_abroad(url: &url::Url) -> bool {
    url.scheme() == "http" && !is_loopback(url)
}

/// Whether an API is on this machine.
pub(crate) fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => is_own_machine(name),
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Whether a host, as a URL writes it, is this machine itself.
pub(crate) fn is_own_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost"
        || bare.ends_with(".localhost")
        || bare
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

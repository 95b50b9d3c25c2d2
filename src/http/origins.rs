//! Where requests come from and where people may be sent: which pages may act for a user, which may
//! read an answer, and which addresses a login leads back to.

use poem::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use url::Url;

use super::problem::Problem;
use crate::setting::{BadSetting, shown_address};

/// Sites that act on a user's behalf: their own, and those named in the configuration.
#[derive(Debug, Clone)]
pub(super) struct Origins {
    /// This server's own, as `https://host`.
    own: Option<String>,
    /// Pages of these may use the API with cookies, and read what it answers.
    allowed: Vec<String>,
    /// A login may lead back to any page of these.
    redirects: Vec<String>,
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether a method only reads (RFC 9110 §9.2.1).
pub(super) fn is_safe(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS].contains(method)
}

impl Origins {
    pub(super) fn new(public_url: &str, allowed: &[String], redirects: &[String]) -> Self {
        Self {
            own: Url::parse(public_url).ok().and_then(|url| origin_of(&url)),
            allowed: allowed.to_vec(),
            redirects: redirects.to_vec(),
        }
    }

    /// Refuses an unsafe request that a browser sends with a cookie, unless it comes from this site
    /// or one that is allowed (ASVS 3.5.1). A browser that says neither `Sec-Fetch-Site` nor `Origin`
    /// is refused: there is no telling who made it send the request (ASVS 3.7.5).
    ///
    /// # Errors
    /// 403 `cross_site`.
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let site = single(headers, &SEC_FETCH_SITE);
        if site == Some("same-origin") || site == Some("none") {
            return Ok(());
        }
        let origin = single(headers, &header::ORIGIN);
        let is_allowed = origin.is_some_and(|origin| {
            self.allowed.iter().any(|known| known == origin)
                || (site.is_none() && self.own.as_deref() == Some(origin))
        });
        if is_allowed {
            return Ok(());
        }
        let detail = "With a cookie, only pages of this site and of those in `http.allowed_origins` may do this; the \
            browser says so by `Sec-Fetch-Site` or `Origin`.";
        let (status, title) = (StatusCode::FORBIDDEN, "Cross-site request");
        Err(Problem::new(status, "cross_site", title, detail))
    }

    /// The origin that may read the answer, if the request comes from an allowed one: compared whole,
    /// so no look-alike and no `null` passes (ASVS 3.4.2).
    pub(super) fn reader(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let text = single(headers, &header::ORIGIN)?;
        self.allowed
            .iter()
            .any(|known| known == text)
            .then(|| origin.clone())
    }

    /// Whether answers differ by who asks, so that caches must tell them apart.
    pub(super) fn has_readers(&self) -> bool {
        !self.allowed.is_empty()
    }

    /// Where a login may lead back to: a path of this site, or a page of a site that is allowed
    /// (ASVS 3.7.2). Read as browsers read it, and answered in their words.
    ///
    /// # Errors
    /// 400 `redirect_refused`.
    pub(super) fn target(&self, text: &str) -> Result<Target, Problem> {
        // Browsers drop blanks and controls wherever they stand and read `\` in a path as `/`, so what is
        // checked would not be what is opened.
        let path = text.split(['?', '#']).next().unwrap_or_default();
        let is_plain = text.bytes().all(|b| (0x21..=0x7e).contains(&b)) && !path.contains('\\');
        let inside = is_plain && text.starts_with('/') && !text.starts_with("//");
        if inside {
            return Ok(Target {
                location: text.to_owned(),
                origin: None,
            });
        }
        let url = Url::parse(text).ok().filter(|_| is_plain);
        let url = url.filter(|url| url.username().is_empty() && url.password().is_none());
        if let Some(url) = url
            && let Some(origin) = origin_of(&url)
            && (self.own.as_deref() == Some(&origin) || self.redirects.contains(&origin))
        {
            return Ok(Target {
                location: url.into(),
                origin: Some(origin),
            });
        }
        let detail = "`redirect` must be a path that begins with one slash, or an address of a site in \
            `http.redirect_origins`.";
        Err(Problem::bad_request("redirect_refused", detail))
    }
}

/// Where a login leads back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// For the `Location` header.
    pub(super) location: String,
    /// The other site, if it is one.
    pub(super) origin: Option<String>,
}

/// The value of a header that stands there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    match values.next() {
        Some(_) => None,
        None => first.to_str().ok(),
    }
}

fn origin_of(url: &Url) -> Option<String> {
    ["http", "https"]
        .contains(&url.scheme())
        .then(|| url.origin().ascii_serialization())
}

/// Checks a setting that lists origins.
///
/// # Errors
/// [`BadSetting`] for the first that is none, or, where they `must_be_https`, is plain http.
pub(super) fn check_origins(
    key: &str,
    origins: &[String],
    must_be_https: bool,
) -> Result<(), BadSetting> {
    for text in origins {
        let origin = Url::parse(text).ok().as_ref().and_then(origin_of);
        let bad = |problem: &str, remedy: &str| {
            Err(BadSetting::new(
                key,
                format!("{} {problem}", shown_address(text)),
                remedy,
            ))
        };
        // No pattern is understood here, so none may look as if it were.
        if origin.as_deref() != Some(text) || text.contains('*') {
            let remedy = "write scheme, host and port as browsers do, e.g. https://app.example.org";
            return bad("is not an origin", remedy);
        }
        if must_be_https && is_plain_text(text) {
            return bad("is plain text", "use https:// in production");
        }
    }
    Ok(())
}

/// Whether what is sent to an address can be read on its way there.
pub(super) fn is_plain_text(address: &str) -> bool {
    let url = Url::parse(address).ok();
    !url.is_some_and(|url| url.scheme() == "https" || is_local(&url))
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins() -> Origins {
        let named = |name: &str| vec![name.to_owned()];
        Origins::new(
            "https://auth.example.org",
            &named("https://app.example.org"),
            &named("https://app.example.org:8443"),
        )
    }

    fn headers(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers
    }

    /// ASVS 3.5.1, 3.7.5.
    #[test]
    fn only_this_site_and_allowed_ones_may_act_by_cookie() {
        let (site, origin) = (SEC_FETCH_SITE, header::ORIGIN);
        let passes =
            |fields: &[(HeaderName, &'static str)]| origins().check(&headers(fields)).is_ok();
        assert!(passes(&[(site.clone(), "same-origin")]));
        assert!(passes(&[(site.clone(), "none")]));
        assert!(passes(&[(origin.clone(), "https://auth.example.org")]));
        assert!(passes(&[(origin.clone(), "https://app.example.org")]));
        let named = (origin.clone(), "https://app.example.org");
        assert!(passes(&[(site.clone(), "same-site"), named.clone()]));
        assert!(passes(&[(site.clone(), "cross-site"), named]));

        assert!(!passes(&[]));
        assert!(!passes(&[(site.clone(), "same-site")]));
        assert!(!passes(&[(site.clone(), "cross-site")]));
        let own = (origin.clone(), "https://auth.example.org");
        assert!(
            !passes(&[(site.clone(), "cross-site"), own]),
            "a contradiction"
        );
        assert!(!passes(&[
            (site.clone(), "same-origin"),
            (site.clone(), "cross-site")
        ]));
        for evil in [
            "null",
            "https://evil.example",
            "https://app.example.org.evil.example",
            "https://evilapp.example.org",
            "http://app.example.org",
            "https://app.example.org:444",
            "https://app.example.org/",
            "HTTPS://APP.EXAMPLE.ORG",
        ] {
            assert!(!passes(&[(origin.clone(), evil)]), "{evil}");
        }
    }

    /// ASVS 3.7.2.
    #[test]
    fn a_login_leads_back_to_known_places_only() {
        let target = |text: &str| origins().target(text).map(|target| target.location);
        for good in [
            "/",
            "/notes?page=2#top",
            "/search?q=a\\b",
            "https://auth.example.org/x",
            "https://app.example.org:8443/a?b=c",
        ] {
            assert_eq!(target(good).expect(good), good);
        }
        for evil in [
            "",
            "notes",
            "//evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "/\t/evil.example",
            "/x\r\nSet-Cookie: a=b",
            "https://evil.example",
            "https://app.example.org",
            "https://app.example.org:8443@evil.example/",
            "https://ann@app.example.org:8443/",
            "https:\\\\evil.example",
            "https:evil.example",
            "javascript:alert(1)",
            "data:text/html,x",
            "HTTPS://EVIL.EXAMPLE",
            " https://app.example.org:8443/",
            "/über",
        ] {
            assert!(target(evil).is_err(), "{evil:?}");
        }
    }

    #[test]
    fn settings_name_origins_as_browsers_write_them() {
        let check = |text: &str, https| check_origins("key", &[text.to_owned()], https).is_ok();
        for good in ["https://app.example.org", "https://app.example.org:8443"] {
            assert!(check(good, true), "{good}");
        }
        assert!(check("http://app.example.org", false));
        assert!(check("http://localhost:3000", true));
        assert!(!check("http://app.example.org", true));
        for bad in [
            "*",
            "null",
            "app.example.org",
            "https://app.example.org/",
            "https://app.example.org:443",
            "https://*.example.org",
            "https://App.example.org",
            "ftp://app.example.org",
        ] {
            assert!(!check(bad, false), "{bad}");
        }
    }
}

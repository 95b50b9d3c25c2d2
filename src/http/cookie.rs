//! The cookies of ours, one for the session and one for the device: what they are called, how they are set
//! and cleared, and how they are found again.

use poem::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::problem::Problem;
use crate::{
    clock::{Span, Timestamp},
    tokens::SignedToken,
};

/// The session cookie's name without its prefix.
const SESSION: &str = "doorward";
/// The device cookie's.
const DEVICE: &str = "doorward_device";
/// Browsers keep none for longer (RFC 6265bis §5.5).
const LONGEST_LIFE: Span = Span::days(400);

/// How a cookie is called and who gets it.
#[derive(Debug, Clone)]
pub(super) struct OwnCookie {
    name: String,
    /// Everything but value and lifetime.
    attributes: String,
}

impl OwnCookie {
    /// On https the name begins with `__Host-`: no other host can set or read it. With a domain it is
    /// `__Secure-` and every host of that domain gets it. Plain http, for development, has neither
    /// (ASVS 3.3.1, 3.3.2, 3.3.3, 3.3.4).
    pub(super) fn session(is_https: bool, domain: &str) -> Self {
        Self::named(SESSION, is_https, domain)
    }

    /// As [`Self::session`]; what is in it opens nothing, and outlives logouts.
    pub(super) fn device(is_https: bool, domain: &str) -> Self {
        Self::named(DEVICE, is_https, domain)
    }

    fn named(name: &str, is_https: bool, domain: &str) -> Self {
        let (prefix, secure) = match (is_https, domain) {
            (false, _) => ("", ""),
            (true, "") => ("__Host-", "; Secure"),
            (true, _) => ("__Secure-", "; Secure"),
        };
        let domain = match domain {
            "" => String::new(),
            domain => format!("; Domain={domain}"),
        };
        Self {
            name: format!("{prefix}{name}"),
            attributes: format!("; Path=/; HttpOnly; SameSite=Lax{secure}{domain}"),
        }
    }

    /// The header that gives a browser its cookie, for as long as the session may last.
    pub(super) fn set(
        &self,
        token: &SignedToken,
        session_end: Timestamp,
        now: Timestamp,
    ) -> Result<(HeaderName, HeaderValue), Problem> {
        let life = session_end.as_secs().saturating_sub(now.as_secs());
        let life = life.clamp(0, LONGEST_LIFE.as_secs());
        self.header(token.token.expose(), life)
    }

    /// The header that gives a browser a cookie for as long as browsers keep any.
    pub(super) fn keep(&self, value: &str) -> Result<(HeaderName, HeaderValue), Problem> {
        self.header(value, LONGEST_LIFE.as_secs())
    }

    /// The header that takes the cookie away: same name, same path, same attributes.
    pub(super) fn clear(&self) -> Result<(HeaderName, HeaderValue), Problem> {
        self.header("", 0)
    }

    fn header(&self, value: &str, life: i64) -> Result<(HeaderName, HeaderValue), Problem> {
        let text = format!("{}={value}; Max-Age={life}{}", self.name, self.attributes);
        let mut value = HeaderValue::from_str(&text)
            .map_err(|_| Problem::internal("the cookie is no header value"))?;
        value.set_sensitive(true);
        Ok((header::SET_COOKIE, value))
    }

    /// The cookie's value, if the request has it. The name is compared exactly, since browsers guard
    /// prefixes whatever their case and servers must not take what was not guarded.
    ///
    /// # Errors
    /// Two cookies of the name: which one counts would be anybody's guess (ASVS 15.3.7).
    pub(super) fn find<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a str>, Problem> {
        let mut found = pairs(headers).filter(|pair| name_of(pair) == self.name.as_bytes());
        let first = found.next();
        if found.next().is_some() {
            let detail = format!("There must be one cookie `{}`, not several.", self.name);
            return Err(Problem::bad_request("ambiguous_credentials", detail));
        }
        let value = first.map(value_of);
        // What is not text is none of our tokens, and is refused as such.
        Ok(value.map(|value| str::from_utf8(value).unwrap_or_default()))
    }

    /// The `Cookie` header without these cookies, for whoever must not see them.
    pub(super) fn without(own: [&Self; 2], headers: &HeaderMap) -> Vec<u8> {
        let is_own = |pair: &[u8]| {
            let name = name_of(pair);
            own.iter().any(|cookie| cookie.name.as_bytes() == name)
        };
        let rest: Vec<&[u8]> = pairs(headers)
            .filter(|pair| !pair.is_empty() && !is_own(pair))
            .collect();
        rest.join(&b"; "[..])
    }
}

/// Every cookie as `name=value`; HTTP/2 may send several headers. Bytes, since browsers send whatever was
/// set, and one cookie that is no text must not hide the others.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    let lines = headers.get_all(header::COOKIE).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .map(trimmed)
}

fn name_of(pair: &[u8]) -> &[u8] {
    trimmed(pair.split(|byte| *byte == b'=').next().unwrap_or_default())
}

fn value_of(pair: &[u8]) -> &[u8] {
    let at = pair.iter().position(|byte| *byte == b'=');
    at.map_or(&[], |at| trimmed(&pair[at + 1..]))
}

/// Without the blanks that RFC 6265bis §5.6 takes away, and no others: what looks like a blank elsewhere
/// is a part of the name, which is then another one.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes
        .iter()
        .position(|b| !is_blank(b))
        .unwrap_or(bytes.len());
    let end = bytes
        .iter()
        .rposition(|b| !is_blank(b))
        .map_or(start, |at| at + 1);
    &bytes[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let value = HeaderValue::from_bytes(line.as_bytes()).expect("a value");
            headers.append(header::COOKIE, value);
        }
        headers
    }

    #[test]
    fn the_cookie_is_found_among_others_and_only_under_its_exact_name() {
        let cookie = OwnCookie::session(true, "");
        let find = |lines: &[&str]| {
            let headers = headers(lines);
            let found = cookie.find(&headers).map(|value| value.map(str::to_owned));
            found.map_err(|problem| problem.to_string())
        };
        let ours = Ok(Some("a.b-c_d=".to_owned()));
        assert_eq!(find(&["x=1; __Host-doorward=a.b-c_d=; y=2"]), ours);
        assert_eq!(find(&["x=1", "__Host-doorward=a.b-c_d="]), ours);
        // A cookie of somebody else's that is no plain text hides nothing.
        assert_eq!(find(&["name=José; __Host-doorward=a.b-c_d="]), ours);
        assert_eq!(find(&["__Host-doorward=é"]), Ok(Some("é".to_owned())));
        for other in [
            "__HOST-doorward=a",
            "doorward=a",
            "x__Host-doorward=a",
            "=__Host-doorward=a",
            "\u{2000}__Host-doorward=a",
            "",
        ] {
            assert_eq!(find(&[other]), Ok(None), "{other}");
        }
        for twice in [
            &["__Host-doorward=a; __Host-doorward=b"][..],
            &["__Host-doorward=a", "__Host-doorward=b"],
            &["__Host-doorward=a; __Host-doorward =b"],
        ] {
            assert_eq!(find(twice), Err("ambiguous_credentials".to_owned()));
        }
    }

    #[test]
    fn what_others_get_is_without_the_cookie() {
        let own = [&OwnCookie::session(true, ""), &OwnCookie::device(true, "")];
        for (sent, left) in [
            ("__Host-doorward=a", ""),
            ("__Host-doorward=a; x=1", "x=1"),
            ("__Host-doorward_device=a; x=1; __Host-doorward=b", "x=1"),
            ("x=1; __Host-doorward=a", "x=1"),
            (
                "x=1;__Host-doorward=a;y=__Host-doorward",
                "x=1; y=__Host-doorward",
            ),
            ("x=1; __Host-doorward=a; __Host-doorward =b", "x=1"),
            ("name=José; __Host-doorward=a", "name=José"),
        ] {
            let without = OwnCookie::without(own, &headers(&[sent]));
            assert_eq!(without, left.as_bytes(), "{sent}");
        }
    }

    /// ASVS 3.3.1, 3.3.2, 3.3.3, 3.3.4.
    #[test]
    fn cookies_are_as_narrow_as_the_address_allows() {
        let text = |cookie: OwnCookie| {
            let (_, value) = cookie.clear().expect("a header");
            value.to_str().expect("text").to_owned()
        };
        assert_eq!(
            text(OwnCookie::session(true, "")),
            "__Host-doorward=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(
            text(OwnCookie::session(true, "example.org")),
            "__Secure-doorward=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax; Secure; Domain=example.org"
        );
        assert_eq!(
            text(OwnCookie::session(false, "")),
            "doorward=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"
        );
    }
}

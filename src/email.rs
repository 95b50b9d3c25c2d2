//! E-mail addresses: what is accepted, which two are the same, and how one is shown in a log.

use std::fmt;

/// Longest address, in bytes (RFC 5321 §4.5.3.1.3 less the angle brackets).
const MAX_BYTES: usize = 254;
const MAX_LOCAL_BYTES: usize = 64;
const MAX_LABEL_BYTES: usize = 63;

/// An e-mail address as its owner wrote it, together with its canonical form.
///
/// Accepted is the dot-atom form (RFC 5321 §4.1.2 without quoted strings and address literals): what
/// real mailboxes use and what cannot smuggle a second recipient or a header into a letter
/// (ASVS 1.3.11).
#[derive(Clone, PartialEq, Eq)]
pub struct EmailAddress {
    written: String,
    canonical: String,
}

/// Why a text is not an acceptable e-mail address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be an e-mail address such as ann@example.org, at most 254 characters, without spaces or quotes"
)]
pub struct InvalidEmail;

impl EmailAddress {
    /// Parses an address; nothing is trimmed.
    ///
    /// # Errors
    /// [`InvalidEmail`] when it is not of the accepted form.
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        let (local, domain) = text.rsplit_once('@').ok_or(InvalidEmail)?;
        let fits = text.len() <= MAX_BYTES && (1..=MAX_LOCAL_BYTES).contains(&local.len());
        let local_ok = local
            .split('.')
            .all(|atom| !atom.is_empty() && atom.bytes().all(is_atext));
        let domain_ok =
            domain.contains('.') && domain.split('.').all(is_label) && !is_numeric_tld(domain);
        if fits && local_ok && domain_ok {
            Ok(Self {
                written: text.to_owned(),
                canonical: text.to_ascii_lowercase(),
            })
        } else {
            Err(InvalidEmail)
        }
    }

    /// As its owner wrote it: what letters are sent to.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The form in which two addresses are compared: lower case. Dots and `+tags` are kept, since
    /// only the receiving server knows what they mean.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// A form fit for people's eyes in listings: `a***@example.org`.
    #[must_use]
    pub fn mask(&self) -> String {
        let (local, domain) = self.written.rsplit_once('@').unwrap_or_default();
        format!("{}***@{domain}", &local[..1.min(local.len())])
    }
}

/// As its owner wrote it.
impl From<EmailAddress> for String {
    fn from(address: EmailAddress) -> Self {
        address.written
    }
}

/// Prints the masked form, so that no address reaches a log by way of `{:?}`.
impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.mask())
    }
}

/// RFC 5322 §3.2.3.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_BYTES).contains(&label.len())
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_numeric_tld(domain: &str) -> bool {
    domain
        .rsplit('.')
        .next()
        .is_some_and(|tld| tld.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_addresses_are_accepted() {
        for text in [
            "ann@example.org",
            "Ann.O'Hara+news@mail.example.co.uk",
            "x@xn--bcher-kva.example",
        ] {
            let address = EmailAddress::parse(text).expect(text);
            assert_eq!(address.as_str(), text);
            assert_eq!(address.canonical(), text.to_lowercase());
        }
    }

    /// ASVS 1.3.11, 2.2.1.
    #[test]
    fn everything_else_is_refused() {
        let long = format!("{}@example.org", "a".repeat(65));
        for text in [
            "",
            "ann",
            "@example.org",
            "ann@",
            "ann@localhost",
            "ann@@example.org",
            "a@b@example.org",
            "ann @example.org",
            " ann@example.org",
            "ann@example.org ",
            "ann@example.org\r\nBcc:b@x.t",
            "a@x.test,b@x.test",
            "\"ann b\"@example.org",
            "ann@[127.0.0.1]",
            "ann@127.0.0.1",
            ".ann@example.org",
            "ann..b@example.org",
            "ann@-example.org",
            "änn@example.org",
            "ann@example..org",
            "ann%0a@exa mple.org",
            &long,
        ] {
            assert_eq!(EmailAddress::parse(text), Err(InvalidEmail), "{text:?}");
        }
    }

    #[test]
    fn a_log_sees_the_masked_form() {
        let address = EmailAddress::parse("ann@example.org").expect("valid");
        assert_eq!(format!("{address:?}"), "a***@example.org");
    }
}

//! User names: what is accepted and which two are the same.

/// A user name as its owner wrote it, together with its canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Username {
    written: String,
    canonical: String,
}

/// Why a text is not an acceptable user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be 3 to 32 of the letters a-z, digits, `.`, `_` and `-`, beginning with a letter or digit"
)]
pub struct InvalidUsername;

impl Username {
    /// Parses a user name; nothing is trimmed. There is no `@` in it, so it can never be taken for an
    /// e-mail address at login.
    ///
    /// # Errors
    /// [`InvalidUsername`] when it is not of the accepted form.
    pub fn parse(text: &str) -> Result<Self, InvalidUsername> {
        let fits = (3..=32).contains(&text.len());
        let chars_ok = text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if fits && chars_ok && text.as_bytes()[0].is_ascii_alphanumeric() {
            Ok(Self {
                written: text.to_owned(),
                canonical: text.to_ascii_lowercase(),
            })
        } else {
            Err(InvalidUsername)
        }
    }

    /// A name that nobody can have, since it is not of the accepted form: looking it up costs what any
    /// look-up costs and finds nothing.
    #[must_use]
    pub fn nobody() -> Self {
        Self {
            written: " ".to_owned(),
            canonical: " ".to_owned(),
        }
    }

    /// As its owner wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// The form in which two names are compared: lower case.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }
}

/// As its owner wrote it.
impl From<Username> for String {
    fn from(name: Username) -> Self {
        name.written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_only_by_more_than_case() {
        let name = Username::parse("Ann_Lee").expect("valid");
        assert_eq!((name.as_str(), name.canonical()), ("Ann_Lee", "ann_lee"));
    }

    /// ASVS 1.3.3.
    #[test]
    fn what_could_be_an_address_or_break_a_page_is_refused() {
        for text in [
            "",
            "ab",
            "ann@home",
            "_ann",
            "ann lee",
            "änn",
            "ann\n",
            "a".repeat(33).as_str(),
        ] {
            assert_eq!(Username::parse(text), Err(InvalidUsername), "{text:?}");
        }
    }
}

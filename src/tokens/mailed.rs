//! The secrets in letters: derived from the letter's id, so that nothing secret waits in the outbox and a
//! second attempt sends the same link.

use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

use super::Tokens;
use crate::{
    clock::Timestamp,
    email::EmailAddress,
    error::AuthResult,
    ids::{LetterId, UserId},
    model::token::{LinkSecret, Purpose, SecretHash},
    secret::SecretString,
};

/// How many digits a code has; 20 bits at the least (ASVS 6.5.4).
const DIGITS: usize = 6;
const CODES: u64 = 1_000_000;
/// The largest multiple of [`CODES`] that 64 bits hold: above it the remainder would not be even.
const EVEN: u64 = u64::MAX - u64::MAX % CODES;

/// The keys of mailed secrets, derived from one key of the ring (RFC 5869).
pub(super) struct MailKey {
    secrets: hmac::Key,
    codes: hmac::Key,
}

impl MailKey {
    /// Derives the keys; what `key` itself is used for cannot be told from them, nor they from it.
    pub(super) fn derive(key: &[u8]) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"doorward mailed secrets").extract(key);
        let expand = |purpose: &[u8]| -> Result<_, aws_lc_rs::error::Unspecified> {
            let mut bytes = Zeroizing::new([0; 32]);
            root.expand(&[purpose], hkdf::HKDF_SHA256)?
                .fill(&mut *bytes)?;
            Ok(hmac::Key::new(hmac::HMAC_SHA256, &*bytes))
        };
        Ok(Self {
            secrets: expand(b"secrets")?,
            codes: expand(b"codes")?,
        })
    }

    fn derived(&self, what: &[u8], letter: LetterId) -> Zeroizing<[u8; 32]> {
        let mut context = hmac::Context::with_key(&self.secrets);
        context.update(what);
        context.update(letter.as_uuid().as_bytes());
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(context.sign().as_ref());
        bytes
    }

    fn link(&self, letter: LetterId) -> LinkSecret {
        LinkSecret::of(&self.derived(b"link", letter))
    }

    fn code(&self, letter: LetterId) -> SecretString {
        let bytes = self.derived(b"code", letter);
        let number = bytes
            .chunks_exact(8)
            .map(|part| part.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
            // All four beyond it: once in 10⁵⁴.
            .find(|number| *number < EVEN)
            .unwrap_or_default();
        SecretString::new(format!("{:0width$}", number % CODES, width = DIGITS))
    }

    fn code_hash(&self, of: &CodeScope<'_>, code: &str) -> SecretHash {
        let mut context = hmac::Context::with_key(&self.codes);
        for part in [of.label(), of.owner().as_ref(), code] {
            context.update(part.as_bytes());
            context.update(&[0]);
        }
        SecretHash::keyed(context.sign().as_ref())
    }
}

/// What a code is good for: its stored form is worth nothing elsewhere.
#[derive(Debug, Clone, Copy)]
pub enum CodeScope<'a> {
    /// One purpose and one address. Verifying an address and completing a registration are one purpose.
    Address(Purpose, &'a EmailAddress),
    /// One purpose and one user.
    User(Purpose, UserId),
}

impl CodeScope<'_> {
    fn label(&self) -> &'static str {
        match self {
            Self::Address(Purpose::ConfirmRegistration, _) => Purpose::VerifyEmail.as_str(),
            Self::Address(purpose, _) | Self::User(purpose, _) => purpose.as_str(),
        }
    }

    fn owner(&self) -> String {
        match self {
            Self::Address(_, address) => address.canonical().to_owned(),
            Self::User(_, user) => user.to_string(),
        }
    }
}

/// The secrets of one letter. Prints `***`.
#[derive(Debug, Clone)]
pub struct MailedSecrets {
    /// What goes into its link.
    pub link: LinkSecret,
    /// What can be typed instead, in letters that have it.
    pub code: SecretString,
    /// The stored form of the code.
    pub code_hash: Option<SecretHash>,
}

impl Tokens {
    /// The secrets of a letter that was caused at `caused_at`; the same at every attempt and on every node
    /// with the same keys. After its key was retired they are others, which take the place of those that an
    /// earlier attempt may have stored.
    ///
    /// # Errors
    /// [`crate::error::AuthError::Internal`] when there is no key at all.
    pub fn mailed_secrets(
        &self,
        letter: LetterId,
        caused_at: Timestamp,
        scope: Option<&CodeScope<'_>>,
    ) -> AuthResult<MailedSecrets> {
        let key = self.ring.mail_key(caused_at)?;
        let code = key.code(letter);
        Ok(MailedSecrets {
            link: key.link(letter),
            code_hash: scope.map(|scope| key.code_hash(scope, code.expose())),
            code,
        })
    }

    /// The stored forms that a typed code may have, one for each key; `None` for what is no code.
    #[must_use]
    pub fn code_hashes(&self, scope: &CodeScope<'_>, typed: &str) -> Option<Vec<SecretHash>> {
        let is_code = typed.len() == DIGITS && typed.bytes().all(|b| b.is_ascii_digit());
        is_code.then(|| {
            let keys = self.ring.mail_keys();
            keys.map(|key| key.code_hash(scope, typed)).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    fn letter() -> LetterId {
        LetterId::fresh(Timestamp::from_millis(1_800_000_000_000), &SystemEntropy)
    }

    /// ASVS 6.5.3, 6.5.4.
    #[test]
    fn a_letter_has_one_link_and_one_even_code() {
        let key = MailKey::derive(&[7; 32]).expect("derived");
        let other = MailKey::derive(&[8; 32]).expect("derived");
        let one = letter();
        assert_eq!(key.link(one).hash(), key.link(one).hash());
        assert_ne!(key.link(one).hash(), key.link(letter()).hash());
        assert_ne!(key.link(one).hash(), other.link(one).hash());
        let mut first_digits = [0_u32; 10];
        for _ in 0..10_000 {
            let code = key.code(letter());
            assert!(code.expose().len() == 6 && code.expose().bytes().all(|b| b.is_ascii_digit()));
            first_digits[usize::from(code.expose().as_bytes()[0] - b'0')] += 1;
        }
        // Of 1000 expected each; a fair draw stays within six standard deviations.
        assert!(
            first_digits.iter().all(|n| (820..1180).contains(n)),
            "{first_digits:?}"
        );
    }

    #[test]
    fn a_code_counts_for_one_purpose_and_one_owner() {
        let key = MailKey::derive(&[7; 32]).expect("derived");
        let address = |text| EmailAddress::parse(text).expect("an address");
        let (ann, bob) = (address("Ann@example.org"), address("bob@example.org"));
        let hash = |scope: CodeScope<'_>| key.code_hash(&scope, "123456");
        let verify = hash(CodeScope::Address(Purpose::VerifyEmail, &ann));
        let same = address("ann@EXAMPLE.org");
        assert_eq!(
            verify,
            hash(CodeScope::Address(Purpose::VerifyEmail, &same))
        );
        assert_ne!(verify, hash(CodeScope::Address(Purpose::VerifyEmail, &bob)));
        assert_ne!(
            verify,
            hash(CodeScope::Address(Purpose::ResetPassword, &ann))
        );
    }
}

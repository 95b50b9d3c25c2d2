//! Confidential clients: services that may ask about tokens, each with a secret of its own.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use subtle::ConstantTimeEq;

use crate::{
    entropy::{Entropy, random_bytes},
    model::token::SecretHash,
    secret::SecretString,
    setting::BadSetting,
};

/// What stands in front of every client secret, so that a leaked one is recognised by scanners.
const SECRET_PREFIX: &str = "dwc_";
const LONGEST_ID: usize = 64;

/// The clients that the configuration declares (RFC 6749 §2.1).
#[derive(Debug, Clone, Default)]
pub struct Clients(Vec<Client>);

#[derive(Debug, Clone)]
struct Client {
    id: String,
    secret: SecretHash,
}

impl Clients {
    /// Clients as `clients` lists them: `id:hash`, made by `doorward key client`.
    ///
    /// # Errors
    /// [`BadSetting`] for `clients`.
    pub fn parse(entries: &[String]) -> Result<Self, BadSetting> {
        let mut clients: Vec<Client> = Vec::with_capacity(entries.len());
        for (number, entry) in (1..).zip(entries) {
            let bad = |problem: &str| {
                // Somebody may have put the secret where the id should be.
                let id = entry.split_once(':').map(|(id, _)| id);
                let id = id.filter(|id| is_client_id(id) && !id.starts_with(SECRET_PREFIX));
                let name = id.map_or_else(|| format!("entry {number}"), |id| format!("`{id}`"));
                let problem = format!("{name} {problem}");
                BadSetting::new("clients", problem, "make it with `doorward key client ID`")
            };
            let (id, hash) = entry.split_once(':').ok_or_else(|| bad("has no hash"))?;
            if !is_client_id(id) {
                return Err(bad("is not a client's id"));
            }
            if clients.iter().any(|client| client.id == id) {
                return Err(bad("stands there twice"));
            }
            let bytes = URL_SAFE_NO_PAD.decode(hash).ok();
            let secret = bytes.and_then(|bytes| SecretHash::stored(&bytes));
            clients.push(Client {
                id: id.to_owned(),
                secret: secret.ok_or_else(|| bad("has something else than a hash"))?,
            });
        }
        Ok(Self(clients))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is the secret of that client; takes as long for an unknown one.
    #[must_use]
    pub fn knows(&self, id: &str, secret: &SecretString) -> bool {
        let presented = SecretHash::of(secret.expose());
        let mut known = subtle::Choice::from(0);
        for client in &self.0 {
            let same_id = client.id.as_bytes().ct_eq(id.as_bytes());
            known |= same_id & client.secret.as_bytes().ct_eq(presented.as_bytes());
        }
        known.into()
    }
}

/// Whether a text can name a client: letters, digits, `.`, `_` and `-`, 64 at the most.
#[must_use]
pub fn is_client_id(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    (1..=LONGEST_ID).contains(&text.len()) && text.bytes().all(plain)
}

/// A fresh secret of a client, and the entry of `clients` that knows it.
#[must_use]
pub fn fresh_client(id: &str, entropy: &dyn Entropy) -> (SecretString, String) {
    let secret = URL_SAFE_NO_PAD.encode(random_bytes::<32>(entropy));
    let secret = SecretString::new(format!("{SECRET_PREFIX}{secret}"));
    let hash = SecretHash::of(secret.expose());
    let entry = format!("{id}:{}", URL_SAFE_NO_PAD.encode(hash.as_bytes()));
    (secret, entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::SystemEntropy;

    #[test]
    fn a_client_is_known_by_its_own_secret_only() {
        let (notes, first) = fresh_client("notes", &SystemEntropy);
        let (mail, second) = fresh_client("mail", &SystemEntropy);
        let clients = Clients::parse(&[first, second]).expect("clients");
        assert!(clients.knows("notes", &notes) && clients.knows("mail", &mail));
        assert!(!clients.knows("notes", &mail));
        assert!(!clients.knows("note", &notes));
        assert!(!clients.knows("notes", &"".into()));
        assert!(!Clients::default().knows("notes", &notes));
    }

    #[test]
    fn a_bad_entry_is_named_without_its_hash() {
        let (_, entry) = fresh_client("notes", &SystemEntropy);
        let hash = entry.split_once(':').expect("two parts").1.to_owned();
        for (entries, problem) in [
            (vec!["notes".to_owned()], "entry 1 has no hash"),
            (vec![hash.clone()], "entry 1 has no hash"),
            (vec![format!("dwc_{hash}:x")], "entry 1 has something"),
            (vec![format!(":{hash}")], "is not a client's id"),
            (vec![format!("no tes:{hash}")], "is not a client's id"),
            (
                vec!["notes:c2hvcnQ".to_owned()],
                "something else than a hash",
            ),
            (vec![entry.clone(), entry.clone()], "stands there twice"),
        ] {
            let error = Clients::parse(&entries).map(drop).expect_err("refused");
            let text = error.to_string();
            assert!(text.contains(problem), "{text}");
            assert!(text.starts_with("clients"), "{text}");
            assert!(!text.contains(&hash), "{text}");
        }
    }
}

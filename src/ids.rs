//! Identifiers: UUID version 7 (RFC 9562 §5.7), one type for each thing, so that a user's id can
//! never stand where a session's is expected.
//!
//! Ids name things, they open nothing: no id is a secret (ASVS 11.2.3).

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    clock::Timestamp,
    entropy::{Entropy, random_bytes},
};

/// A fresh UUIDv7: sorted by time, 74 bits of chance.
fn uuid_v7(now: Timestamp, entropy: &dyn Entropy) -> Uuid {
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &random_bytes(entropy)).into_uuid()
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id.
            #[must_use]
            pub fn fresh(now: Timestamp, entropy: &dyn Entropy) -> Self {
                Self(uuid_v7(now, entropy))
            }

            /// The id as a plain UUID.
            #[must_use]
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id! {
    /// Names a user, for ever: never given to anybody else (ASVS 10.3.3).
    UserId
}
impl UserId {
    /// The account whose sessions nodes open and revoke to measure how fast that is obeyed; "canary" in ASCII
    /// (UUIDv8, RFC 9562 §5.8, so that no other user has it). It has no password and no mailbox, and stands in
    /// no listing.
    pub const CANARY: Self = Self(Uuid::from_u128(0x8000_8000_6361_6e61_7279));
}

id! {
    /// Names a session.
    SessionId
}
id! {
    /// Names a one-time secret; the secret itself is another value.
    OneTimeSecretId
}
id! {
    /// Names a request in answers and logs.
    RequestId
}
id! {
    /// Names an access token (`jti`, RFC 7519 §4.1.7).
    TokenId
}
id! {
    /// Names a letter; what its one-time secret is derived from, which the id alone does not tell.
    LetterId
}
id! {
    /// Names a registration that waits for its address to be confirmed.
    RegistrationId
}
id! {
    /// Names a record of the audit trail.
    AuditId
}

/// Makes the ids of requests, which every request needs and which only have to differ: from a random beginning
/// on in equal steps, so that none asks for chance.
#[derive(Debug)]
pub struct RequestIds {
    next: AtomicU64,
    rest: [u8; 2],
}

impl RequestIds {
    /// An odd number, so that all 2⁶² that a UUID has room for follow before one comes again.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// Ids of a node that begins now.
    #[must_use]
    pub fn new(entropy: &dyn Entropy) -> Self {
        Self {
            next: AtomicU64::new(u64::from_be_bytes(random_bytes(entropy))),
            rest: random_bytes(entropy),
        }
    }

    /// The next one.
    #[must_use]
    pub fn next(&self, now: Timestamp) -> RequestId {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        let next = self.next.fetch_add(Self::STEP, Ordering::Relaxed);
        let mut bytes = [0; 10];
        bytes[..2].copy_from_slice(&self.rest);
        bytes[2..].copy_from_slice(&next.to_be_bytes());
        RequestId(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid())
    }
}

impl AuditId {
    /// A fresh id that sorts after those with a smaller `count` of the same millisecond. The count goes round
    /// at 4096 (RFC 9562 §6.2, method 1).
    #[must_use]
    pub fn counted(now: Timestamp, count: u32, entropy: &dyn Entropy) -> Self {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        let mut bytes: [u8; 10] = random_bytes(entropy);
        let [.., high, low] = count.to_be_bytes();
        (bytes[0], bytes[1]) = (high & 0x0f, low);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid())
    }
}

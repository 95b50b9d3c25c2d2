//! Occasions for those who call a store themselves.

use std::sync::{Arc, LazyLock};

use doorward::{
    clock::Timestamp,
    entropy::SystemEntropy,
    model::audit::{Agent, AuditRecord, Details, Occasion, Origin, Recorder, keys::AuditSecret},
    store::Store,
};

/// What makes the records of all of them.
static RECORDER: LazyLock<Arc<Recorder>> = LazyLock::new(|| {
    let secret = AuditSecret::new(b"an audit secret of 32 test bytes").expect("32 bytes");
    Arc::new(Recorder::new(&secret, Arc::new(SystemEntropy)).expect("a recorder"))
});

/// Something that a stranger does then, by a request.
pub fn by(now: Timestamp) -> Occasion {
    let origin = Origin {
        request_id: Some("a-request".to_owned()),
        details: Details {
            address: Some([192, 0, 2, 1].into()),
            user_agent: Some("a test".to_owned()),
        },
    };
    Occasion {
        at: now,
        agent: Agent::Nobody,
        origin: Some(Arc::new(origin)),
        recorder: Some(Arc::clone(&RECORDER)),
    }
}

/// As [`by`], of somebody in particular.
pub fn by_agent(agent: Agent, now: Timestamp) -> Occasion {
    Occasion { agent, ..by(now) }
}

/// What a record tells of its person, as far as their key is there.
pub async fn revealed(store: &dyn Store, record: &AuditRecord) -> Option<Details> {
    let details = record.details.as_ref()?;
    let Some(person) = record.person else {
        return RECORDER.reveal(record.id, None, details);
    };
    let keys = store.audit_keys(&[person]).await.expect("an answer");
    let (_, key) = keys.first()?;
    RECORDER.reveal(record.id, Some((person, key)), details)
}

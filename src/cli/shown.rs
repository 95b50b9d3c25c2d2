//! What several commands show as JSON in the same form.

use serde_json::{Value, json};

use crate::model::{audit::Details, session::Session};

pub(super) fn details_as_json(details: Option<&Details>) -> Value {
    details.map_or(Value::Null, |details| {
        json!({
            "address": details.address.map(|address| address.to_string()),
            "user_agent": details.user_agent,
        })
    })
}

pub(super) fn session_as_json(session: &Session) -> Value {
    json!({
        "id": session.id,
        "user_id": session.user_id,
        "created_at": session.created_at.to_string(),
        "last_seen_at": session.last_seen_at.to_string(),
        "expires_at": session.expires_at.to_string(),
        "device_name": session.device.name,
        "user_agent": session.device.user_agent,
        "address": session.device.address.map(|a| a.to_string()),
    })
}

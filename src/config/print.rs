//! Settings written as TOML, for people to look at: secrets are `***` already when they get here.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Map, Value};

/// Writes a struct of plain values and sections of them.
pub(super) fn to_toml(settings: &impl Serialize) -> String {
    let mut out = String::new();
    if let Ok(Value::Object(root)) = serde_json::to_value(settings) {
        section("", &root, &mut out);
    }
    out
}

fn section(name: &str, table: &Map<String, Value>, out: &mut String) {
    let (sections, plain): (Vec<_>, Vec<_>) = table.iter().partition(|(_, v)| v.is_object());
    if !name.is_empty() && !plain.is_empty() {
        let _ = write!(out, "\n[{name}]\n");
    }
    for (key, value) in plain {
        // What JSON writes of texts, numbers, truth and lists of texts is TOML as well, but for DEL.
        let _ = writeln!(
            out,
            "{key} = {}",
            value.to_string().replace('\u{7f}', "\\u007f")
        );
    }
    for (key, value) in sections {
        let inner = if name.is_empty() {
            key.clone()
        } else {
            format!("{name}.{key}")
        };
        if let Value::Object(table) = value {
            section(&inner, table, out);
        }
    }
}

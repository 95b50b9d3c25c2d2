//! One source of settings: its values by dotted key, not yet judged.

use std::{collections::BTreeMap, fmt};

use config::{ConfigError, FileFormat, Format, Map, Source, Value, ValueKind};

use crate::setting::BadSetting;

/// Every key with its default.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");

/// The values of one source by dotted key.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) source: String,
    pub(super) values: BTreeMap<String, Value>,
}

/// Names the source and nothing that may be secret.
impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone().into_iter().collect())
    }
}

impl Layer {
    pub(super) fn parse(source: &str, text: &str) -> Result<Self, BadSetting> {
        let table = FileFormat::Toml
            .parse(Some(&source.to_owned()), text)
            .map_err(|e| {
                // Only the first line: the ones below show the text, which may be secret.
                let place = e.to_string().lines().next().unwrap_or_default().to_owned();
                BadSetting::new(source, format!("is not TOML ({place})"), "correct it there")
            })?;
        let mut values = BTreeMap::new();
        flatten("", table, &mut values);
        Ok(Self {
            source: source.to_owned(),
            values,
        })
    }
}

fn flatten(prefix: &str, table: Map<String, Value>, into: &mut BTreeMap<String, Value>) {
    for (name, value) in table {
        // A name with a dot in quotes must not pass for a path.
        let name = if name.contains(['.', '[', ']']) {
            format!("{name:?}")
        } else {
            name
        };
        let key = if prefix.is_empty() {
            name
        } else {
            format!("{prefix}.{name}")
        };
        match value.kind {
            ValueKind::Table(inner) if !inner.is_empty() => flatten(&key, inner, into),
            _ => {
                into.insert(key, value);
            }
        }
    }
}

//! Layers of settings, and which of them wins.
//!
//! Each layer is checked against [`super::shape`] before it is put on the others. What a value means is
//! left to the section that obeys it.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use config::{Config, ConfigError};
use serde::de::DeserializeOwned;

use super::{
    Environment,
    layer::{DEFAULTS, Layer},
    shape::{Shape, about},
};
use crate::setting::{BadSetting, shown};

const DEVELOPMENT: &str = include_str!("../../config/development.toml");
const PRODUCTION: &str = include_str!("../../config/production.toml");

/// Where settings are looked for.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The folder of `default.toml` and `{environment}.toml`.
    pub folder: PathBuf,
    /// The file named by `--config`.
    pub file: Option<PathBuf>,
    /// Environment variables; only those that begin with `DOORWARD_` are looked at.
    pub variables: Vec<(OsString, OsString)>,
}

impl Sources {
    /// Those of this process: `./config`, the given file and the environment.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>) -> Self {
        Self {
            folder: PathBuf::from("config"),
            file,
            variables: std::env::vars_os().collect(),
        }
    }

    /// Puts the layers on top of each other.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, BadSetting> {
        let shape = Shape::of_defaults()?;
        let built_in = |name: &str, text| Layer::parse(&format!("the built-in {name}"), text);
        let defaults = built_in("default.toml", DEFAULTS)?;
        let default_file = self.optional_file("default.toml", &shape)?;
        let extra = self.file.as_deref().map(|path| named_file(path, &shape));
        let extra = extra.transpose()?;
        let variables = shape.variables(&self.variables)?;

        let base: Vec<Layer> = [Some(defaults), default_file]
            .into_iter()
            .flatten()
            .collect();
        let top: Vec<Layer> = extra.into_iter().chain([variables]).collect();
        let environment = chosen_environment(base.iter().chain(&top))?;
        let overlay = match environment {
            Environment::Development => Some(built_in("development.toml", DEVELOPMENT)?),
            Environment::Production => Some(built_in("production.toml", PRODUCTION)?),
            Environment::Test => None,
        };
        let overlay_file = self.optional_file(&format!("{environment}.toml"), &shape)?;
        if let Some(layer) = overlay_file
            .iter()
            .find(|l| l.values.contains_key("environment"))
        {
            return Err(BadSetting::new(
                "environment",
                format!(
                    "cannot be set in {}, which is read because of it",
                    layer.source
                ),
                "take the line out",
            ));
        }
        let layers = base
            .into_iter()
            .chain(overlay)
            .chain(overlay_file)
            .chain(top);
        deserialize(layers.collect())
    }

    fn optional_file(&self, name: &str, shape: &Shape) -> Result<Option<Layer>, BadSetting> {
        let path = self.folder.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => shape.file(&path, &text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(&path, &error)),
        }
    }
}

fn named_file(path: &Path, shape: &Shape) -> Result<Layer, BadSetting> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    shape.file(path, &text)
}

fn unreadable(path: &Path, error: &io::Error) -> BadSetting {
    BadSetting::new(
        &path.display().to_string(),
        format!("cannot be read: {error}"),
        "check its name and permissions",
    )
}

fn chosen_environment<'a>(
    layers: impl DoubleEndedIterator<Item = &'a Layer>,
) -> Result<Environment, BadSetting> {
    let chosen = layers.rev().find_map(|layer| {
        let value = layer.values.get("environment")?.clone();
        Some((
            layer.source.clone(),
            value.into_string().unwrap_or_default(),
        ))
    });
    let (source, name) = chosen.unwrap_or_default();
    Environment::parse(&name).ok_or_else(|| {
        BadSetting::new(
            "environment",
            format!("{} is unknown ({source})", shown(&name)),
            "set it to development, test or production",
        )
    })
}

fn deserialize<T: DeserializeOwned>(layers: Vec<Layer>) -> Result<T, BadSetting> {
    let mut sources = BTreeMap::new();
    let mut builder = Config::builder();
    for layer in layers {
        for (key, value) in &layer.values {
            sources.insert(
                key.clone(),
                value.origin().unwrap_or(&layer.source).to_owned(),
            );
        }
        builder = builder.add_source(layer);
    }
    let merged = builder.build().and_then(Config::try_deserialize);
    merged.map_err(|error| {
        let (key, problem) = key_and_problem(&error);
        let plain = key.split('[').next().unwrap_or_default();
        let source = sources
            .get(plain)
            .map_or("the configuration", String::as_str);
        let remedy = about(plain).map_or_else(
            || "correct it there".to_owned(),
            |text| format!("what it takes: {text}"),
        );
        BadSetting::new(&key, format!("{problem} ({source})"), remedy)
    })
}

fn key_and_problem(error: &ConfigError) -> (String, String) {
    match error {
        ConfigError::At {
            error,
            key: Some(key),
            ..
        } => {
            let text = error.to_string();
            let variant = text.split_once(" does not have variant constructor ");
            let problem = variant.map_or(text.clone(), |(_, name)| {
                format!("{} is unknown", shown(name))
            });
            (key.clone(), problem)
        }
        ConfigError::Type {
            unexpected,
            expected,
            key: Some(key),
            ..
        } => (key.clone(), format!("{unexpected} is not {expected}")),
        ConfigError::NotFound(key) => (key.clone(), "is missing".to_owned()),
        other => ("configuration".to_owned(), other.to_string()),
    }
}

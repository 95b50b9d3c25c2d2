//! The texts of one language, as a file holds them.
//!
//! Decides which texts a file must hold: those of the English one that is compiled in. What is in them
//! is for the templates; where a text stands in its file is kept, so that a fault in it can be found.

use std::collections::BTreeMap;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// What is wrong with a file, and in which line if it is in one.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) file: String,
    pub(super) line: Option<usize>,
    pub(super) problem: String,
}

/// One text, before anything is filled in.
pub(super) struct Text {
    pub(super) source: String,
    /// Where it begins in its file.
    pub(super) line: usize,
}

/// What stands under one key.
pub(super) enum Entry {
    One(Text),
    /// As many as a language likes; none is fine.
    Many(Vec<Text>),
}

/// All texts of one language by their keys, such as `letters.invitation.subject`.
pub(super) struct Catalog(pub(super) BTreeMap<String, Entry>);

impl Catalog {
    pub(super) fn parse(file: &str, source: &str) -> Result<Self, Fault> {
        let reader = Reader { file, source };
        let table = DeTable::parse(source).map_err(|error| {
            let line = error.span().map(|span| reader.line(span.start));
            reader.fault(line, error.message())
        })?;
        let mut entries = BTreeMap::new();
        reader.read_table("", table.get_ref(), &mut entries)?;
        Ok(Self(entries))
    }

    /// That it holds what `model` holds: the same keys, with lists where that has lists.
    pub(super) fn matches(&self, file: &str, model: &Self) -> Result<(), Fault> {
        let fault = |line, problem| Fault {
            file: file.to_owned(),
            line,
            problem,
        };
        for (key, entry) in &self.0 {
            let problem = match (model.0.get(key), entry) {
                (None, _) => format!("`{key}` is not a text that there is"),
                (Some(Entry::One(_)), Entry::Many(_)) => format!("`{key}` must be one text"),
                (Some(Entry::Many(_)), Entry::One(_)) => format!("`{key}` must be a list of texts"),
                _ => continue,
            };
            return Err(fault(entry.line(), problem));
        }
        match model.0.keys().find(|key| !self.0.contains_key(*key)) {
            Some(key) => Err(fault(None, format!("the text `{key}` is missing"))),
            None => Ok(()),
        }
    }

    /// The texts below `prefix`, by the rest of their keys.
    pub(super) fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .keys()
            .filter_map(move |key| key.strip_prefix(prefix))
    }
}

impl Entry {
    pub(super) fn texts(&self) -> &[Text] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }

    fn line(&self) -> Option<usize> {
        self.texts().first().map(|text| text.line)
    }
}

struct Reader<'a> {
    file: &'a str,
    source: &'a str,
}

impl Reader<'_> {
    fn read_table(
        &self,
        prefix: &str,
        table: &DeTable<'_>,
        entries: &mut BTreeMap<String, Entry>,
    ) -> Result<(), Fault> {
        for (name, value) in table {
            let key = format!("{prefix}{}", name.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => self.read_table(&format!("{key}."), inner, entries)?,
                DeValue::Array(items) => {
                    let texts = items.iter().map(|item| self.text(&key, item));
                    let texts = texts.collect::<Result<_, _>>()?;
                    entries.insert(key, Entry::Many(texts));
                }
                _ => {
                    let text = self.text(&key, value)?;
                    entries.insert(key, Entry::One(text));
                }
            }
        }
        Ok(())
    }

    fn text(&self, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Text, Fault> {
        let start = value.span().start;
        let line = self.line(start);
        let Some(source) = value.get_ref().as_str() else {
            let problem = format!("`{key}` must be a text in quotes");
            return Err(self.fault(Some(line), &problem));
        };
        // A line break right behind the opening quotes is no part of the text.
        let raw = self.source.get(start..).unwrap_or_default();
        let skipped = raw.trim_start_matches(['"', '\'']);
        let breaks = skipped.starts_with(['\n', '\r']);
        Ok(Text {
            source: source.to_owned(),
            line: line + usize::from(breaks),
        })
    }

    /// Lines count from 1.
    fn line(&self, offset: usize) -> usize {
        let before = self.source.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count() + 1
    }

    fn fault(&self, line: Option<usize>, problem: &str) -> Fault {
        Fault {
            file: self.file.to_owned(),
            line,
            problem: problem.to_owned(),
        }
    }
}

//! Paths in source text, and the modules they mean.
//!
//! A small tokeniser leaves comments and literals out; every path, in `use` trees and elsewhere, is
//! spelled out and `crate`, `super`, `self` and names of child modules are resolved.

use std::collections::BTreeSet;

/// One path, spelled out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    pub path: Vec<String>,
    /// The other name that a `use` gives it.
    pub alias: Option<String>,
}

/// The paths into this crate, from its root, and all paths as they are written.
pub fn references(
    text: &str,
    module: &str,
    modules: &BTreeSet<String>,
) -> (BTreeSet<Reference>, BTreeSet<Reference>) {
    let tokens = tokenise(text);
    let mut here = Here::new(module);
    let mut inside = BTreeSet::new();
    let mut written = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        here.step(&tokens, at);
        let follows = at > 0 && tokens[at - 1] == "::";
        if follows || !is_name(&tokens[at]) {
            at += 1;
            continue;
        }
        let mut found = Vec::new();
        at = spell_out(&tokens, at, &[], &mut found).max(at + 1);
        for reference in found {
            if let Some(path) = here.resolve(&reference.path, modules) {
                // The root itself is everybody's.
                if !path.is_empty() {
                    let alias = reference.alias.clone();
                    inside.insert(Reference { path, alias });
                }
            }
            written.insert(reference);
        }
    }
    (inside, written)
}

/// In which module the reading is: inline modules are entered and left again.
struct Here {
    path: Vec<String>,
    depth: usize,
    inline: Vec<usize>,
}

impl Here {
    fn new(module: &str) -> Self {
        let path = module
            .split("::")
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        Self {
            path,
            depth: 0,
            inline: Vec::new(),
        }
    }

    fn step(&mut self, tokens: &[String], at: usize) {
        match tokens[at].as_str() {
            "{" => {
                self.depth += 1;
                if at >= 2 && tokens[at - 2] == "mod" {
                    self.path.push(tokens[at - 1].clone());
                    self.inline.push(self.depth);
                }
            }
            "}" => {
                if self.inline.last() == Some(&self.depth) {
                    self.inline.pop();
                    self.path.pop();
                }
                self.depth = self.depth.saturating_sub(1);
            }
            _ => {}
        }
    }

    /// The path from the root of the crate; `None` for a path into another crate or to a local name.
    fn resolve(&self, path: &[String], modules: &BTreeSet<String>) -> Option<Vec<String>> {
        let mut base = self.path.clone();
        let mut rest = path;
        match path[0].as_str() {
            "crate" if path.len() > 1 => {
                base.clear();
                rest = &path[1..];
            }
            "self" if path.len() > 1 => rest = &path[1..],
            "super" if path.len() > 1 => {
                while rest.first().is_some_and(|name| name == "super") {
                    base.pop();
                    rest = &rest[1..];
                }
            }
            name => {
                let child = [&base[..], &[name.to_owned()]].concat().join("::");
                if path.len() < 2 || !modules.contains(&child) {
                    return None;
                }
            }
        }
        base.extend(rest.iter().filter(|name| *name != "self").cloned());
        Some(base)
    }
}

/// Spells out the path, or tree of paths, that begins at `at`; answers where it ends.
fn spell_out(tokens: &[String], at: usize, before: &[String], found: &mut Vec<Reference>) -> usize {
    let mut path = before.to_vec();
    let mut at = at;
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") if !path.is_empty() => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = spell_out(tokens, at, &path, found).max(at + 1);
                    if tokens.get(at).is_some_and(|token| token == ",") {
                        at += 1;
                    }
                }
                return at + 1;
            }
            Some(name) if is_name(name) || name == "*" => path.push(name.to_owned()),
            _ => break,
        }
        at += 1;
        let goes_on = tokens.get(at).is_some_and(|token| token == "::")
            && tokens
                .get(at + 1)
                .is_some_and(|next| is_name(next) || next == "{" || next == "*");
        if !goes_on {
            break;
        }
        at += 1;
    }
    let mut alias = None;
    if tokens.get(at).is_some_and(|token| token == "as") && path.len() > 1 {
        alias = tokens.get(at + 1).filter(|name| is_name(name)).cloned();
    }
    found.push(Reference { path, alias });
    at
}

fn is_name(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Names, `::` and single signs; comments, literals and lifetimes are left out.
fn tokenise(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let (c, next) = (chars[at], chars.get(at + 1).copied().unwrap_or(' '));
        if c == '/' && next == '/' {
            at = end_of_line(&chars, at);
        } else if c == '/' && next == '*' {
            at = end_of_comment(&chars, at);
        } else if let Some(end) = end_of_literal(&chars, at) {
            at = end;
        } else if c.is_alphanumeric() || c == '_' {
            let end = end_of_word(&chars, at);
            tokens.push(chars[at..end].iter().collect());
            at = end;
        } else if c == ':' && next == ':' {
            tokens.push("::".to_owned());
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            at += 1;
        }
    }
    tokens
}

fn end_of_line(chars: &[char], at: usize) -> usize {
    chars[at..]
        .iter()
        .position(|c| *c == '\n')
        .map_or(chars.len(), |n| at + n)
}

fn end_of_word(chars: &[char], at: usize) -> usize {
    let is_part = |c: &char| c.is_alphanumeric() || *c == '_';
    chars[at..]
        .iter()
        .position(|c| !is_part(c))
        .map_or(chars.len(), |n| at + n)
}

fn end_of_comment(chars: &[char], mut at: usize) -> usize {
    let mut depth = 0;
    while at < chars.len() {
        match (chars[at], chars.get(at + 1)) {
            ('/', Some('*')) => (depth, at) = (depth + 1, at + 2),
            ('*', Some('/')) => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    break;
                }
            }
            _ => at += 1,
        }
    }
    at
}

/// Where the text, character or lifetime ends that begins here, with its prefix; `None` if none does.
fn end_of_literal(chars: &[char], at: usize) -> Option<usize> {
    let mut start = at;
    while start - at < 2 && chars.get(start).is_some_and(|c| "bcr".contains(*c)) {
        start += 1;
    }
    let prefix = &chars[at..start];
    let hashes = chars[start..].iter().take_while(|c| **c == '#').count();
    let quote = *chars.get(start + hashes)?;
    if quote == '"' && (hashes == 0 || prefix.contains(&'r')) {
        let body = start + hashes + 1;
        return Some(if prefix.contains(&'r') {
            end_of_raw(chars, body, hashes)
        } else {
            end_of_quoted(chars, body, '"')
        });
    }
    if quote != '\'' || hashes > 0 || !(prefix.is_empty() || prefix == ['b']) {
        return None;
    }
    let (first, second) = (*chars.get(start + 1)?, chars.get(start + 2));
    Some(if first == '\\' || second == Some(&'\'') {
        end_of_quoted(chars, start + 1, '\'')
    } else {
        end_of_word(chars, start + 1)
    })
}

fn end_of_quoted(chars: &[char], mut at: usize, quote: char) -> usize {
    while at < chars.len() && chars[at] != quote {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn end_of_raw(chars: &[char], mut at: usize, hashes: usize) -> usize {
    let ends = |at: usize| {
        chars[at] == '"'
            && chars[at + 1..]
                .iter()
                .take(hashes)
                .filter(|c| **c == '#')
                .count()
                == hashes
    };
    while at < chars.len() && !ends(at) {
        at += 1;
    }
    at + 1 + hashes
}

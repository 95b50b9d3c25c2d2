//! Files of accounts: JSON Lines and CSV, a line at a time.
//!
//! Decides what is a line and how long one may be, so that memory is bounded however long the file is. What stands
//! in a line is never repeated: it holds hashes.

use std::{
    io::{self, BufRead, BufReader, Read},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Map, Value};

use super::super::Failure;

/// Longest line, in bytes; attributes have 4096.
const LONGEST: usize = 64 * 1024;

/// What a line calls its fields, and what stands in them.
pub(super) type Fields = Map<String, Value>;

/// A line that is not empty.
pub(super) struct Line {
    /// Counted from 1; in CSV that of the empty line before it, if there is one.
    pub(super) number: u64,
    /// Its fields, or what is wrong with it.
    pub(super) fields: Result<Fields, String>,
}

/// Every line of a file, until it cannot be read any further.
pub(super) type Lines = Box<dyn Iterator<Item = Result<Line, Failure>> + Send>;

fn unreadable(number: u64, why: &dyn std::fmt::Display) -> Failure {
    Failure(format!("line {number} cannot be read: {why}"))
}

fn too_long() -> String {
    format!("it is longer than {LONGEST} bytes")
}

/// One JSON object a line.
pub(super) fn json_lines(input: Box<dyn Read + Send>) -> Lines {
    Box::new(JsonLines {
        input: BufReader::new(input),
        number: 0,
        is_over: false,
    })
}

struct JsonLines {
    input: BufReader<Box<dyn Read + Send>>,
    number: u64,
    is_over: bool,
}

impl JsonLines {
    fn read(&mut self) -> Option<Result<Line, Failure>> {
        loop {
            self.number += 1;
            let number = self.number;
            let mut text = Vec::new();
            let mut bounded = (&mut self.input).take(LONGEST as u64 + 1);
            match bounded.read_until(b'\n', &mut text) {
                Ok(0) => return None,
                Ok(read) if read > LONGEST => return Some(Err(unreadable(number, &too_long()))),
                Ok(_) => {}
                Err(error) => return Some(Err(unreadable(number, &error))),
            }
            let text = text.trim_ascii();
            let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
            if text.is_empty() {
                continue;
            }
            let fields = match serde_json::from_slice(text) {
                Ok(Value::Object(fields)) => Ok(fields),
                // What is wrong with the syntax could be told with a piece of the line.
                _ => Err("is not a JSON object".to_owned()),
            };
            return Some(Ok(Line { number, fields }));
        }
    }
}

impl Iterator for JsonLines {
    type Item = Result<Line, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = (!self.is_over).then(|| self.read()).flatten();
        self.is_over = !matches!(line, Some(Ok(_)));
        line
    }
}

/// CSV (RFC 4180) whose first line names the fields; an empty field is one that is not there.
pub(super) fn csv(input: Box<dyn Read + Send>) -> Result<Lines, Failure> {
    let left = Arc::new(AtomicUsize::new(LONGEST));
    let metered = Metered {
        input,
        left: Arc::clone(&left),
    };
    let mut reader = csv::Reader::from_reader(metered);
    let names = reader.headers().map_err(|e| unreadable(1, &in_words(&e)))?;
    let names: Vec<String> = names.iter().map(|name| name.trim().to_owned()).collect();
    let lines = reader.into_records().enumerate().map(move |(n, record)| {
        left.store(LONGEST, Ordering::Relaxed);
        let counted = n as u64 + 2;
        match record {
            Ok(record) => {
                let number = record.position().map_or(counted, csv::Position::line);
                let filled = names
                    .iter()
                    .zip(&record)
                    .filter(|(_, text)| !text.is_empty());
                let fields = filled.map(|(name, text)| (name.clone(), Value::from(text)));
                let fields = Ok(fields.collect());
                Ok(Line { number, fields })
            }
            Err(error) => {
                let number = error.position().map_or(counted, csv::Position::line);
                match error.kind() {
                    csv::ErrorKind::Io(_) => Err(unreadable(number, &in_words(&error))),
                    _ => Ok(Line {
                        number,
                        fields: Err(in_words(&error)),
                    }),
                }
            }
        }
    });
    let mut is_over = false;
    Ok(Box::new(lines.take_while(move |line| {
        let was_over = is_over;
        is_over = line.is_err();
        !was_over
    })))
}

/// What is wrong, without what stands there.
fn in_words(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Io(error) => error.to_string(),
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!("has {len} fields where the first line names {expected_len}"),
        _ => "is not CSV".to_owned(),
    }
}

/// Reads no more than so much for one line: a quote that is never closed would take in the rest of the file.
struct Metered {
    input: Box<dyn Read + Send>,
    left: Arc<AtomicUsize>,
}

impl Read for Metered {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(io::Error::other(too_long()));
        }
        let read = self.input.read(into)?;
        self.left
            .store(left.saturating_sub(read), Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: Lines) -> Vec<String> {
        let tell = |line: Result<Line, Failure>| match line {
            Ok(Line { number, fields }) => match fields {
                Ok(fields) => format!("{number} {}", Value::Object(fields)),
                Err(fault) => format!("{number} {fault}"),
            },
            Err(Failure(sentence)) => sentence,
        };
        lines.map(tell).collect()
    }

    fn jsonl(text: impl Into<Vec<u8>>) -> Vec<String> {
        told(json_lines(Box::new(io::Cursor::new(text.into()))))
    }

    fn csv_of(text: impl Into<Vec<u8>>) -> Vec<String> {
        told(csv(Box::new(io::Cursor::new(text.into()))).expect("a first line"))
    }

    #[test]
    fn a_bad_line_of_json_is_named_and_not_repeated() {
        let text = "\u{feff}{\"a\": 1}\n\n[\"hash\"]\r\n{\"password\": \"hash\n{\"a\": 2}";
        let bad = "is not a JSON object";
        assert_eq!(
            jsonl(text),
            [
                "1 {\"a\":1}",
                &format!("3 {bad}"),
                &format!("4 {bad}"),
                "5 {\"a\":2}"
            ]
        );
    }

    #[test]
    fn a_bad_line_of_csv_is_named_and_not_repeated() {
        let text = b"\xef\xbb\xbfa, b\n1,\n\n2,\"x\ny\"\n3\n\xff,4\n5,6\n";
        assert_eq!(
            csv_of(text),
            [
                "2 {\"a\":\"1\"}",
                "3 {\"a\":\"2\",\"b\":\"x\\ny\"}",
                "6 has 1 fields where the first line names 2",
                "7 is not UTF-8",
                "8 {\"a\":\"5\",\"b\":\"6\"}"
            ]
        );
    }

    /// ASVS 15.2.2: memory is bounded, whatever stands in the file.
    #[test]
    fn a_line_without_end_ends_the_import() {
        let endless = "x".repeat(4 * LONGEST);
        let sentence = "cannot be read: it is longer than 65536 bytes";
        assert_eq!(
            jsonl(format!("{{\"a\": 1}}\n{endless}\n{{\"a\": 2}}\n")),
            ["1 {\"a\":1}", &format!("line 2 {sentence}")]
        );
        let said = csv_of(format!("a\n1\n\"{endless}\n2\n"));
        assert_eq!(said, ["2 {\"a\":\"1\"}", &format!("line 3 {sentence}")]);
    }
}

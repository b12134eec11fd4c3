//! Banned phrases: constructions that make English hard to read, each with a plain alternative.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Result;
use regex::Regex;

/// A construction and what to write instead.
struct Phrase {
    pattern: &'static str,
    instead: &'static str,
}

/// Each phrase is wrong in every sentence of this project. Constructions that are only sometimes
/// wrong are left to the reader.
const PHRASES: [Phrase; 14] = [
    phrase(r"\b(?i:whoever|whomever|whom)\b", "name the actor: the caller, the worker, LiveKit"),
    phrase(
        r"\b(?i:nobody|somebody|everybody|anybody)\b",
        "name the actor: no worker, another replica, every participant",
    ),
    phrase(r"\b(?i:told|tell|tells)\b", "report, log, return, notify, distinguish"),
    phrase(r"\bshall\b", "must"),
    phrase(r"\bfor ever\b", "indefinitely"),
    phrase(r"\ball the same\b", "still"),
    phrase(r"\bin vain\b", "without success"),
    phrase(r"\b(?:as good as|so that none)\b", "say what happens"),
    phrase(r"\bcomes? to (?:its|their) end\b", "finishes"),
    phrase(r", too\b", "also"),
    phrase(r"(?:, else |; else\b|, or else\b)", "otherwise"),
    phrase(r"\b(?:is|are|of) none\b", "is absent, has no …, `None`"),
    phrase(r", for (?:it|they|he|she|who|what|nobody|one) ", "because"),
    phrase(
        r"(?:^|[.:;] )One (?:that|who|whose|which) ",
        "name the thing: a full bucket, a lost job",
    ),
];

const fn phrase(pattern: &'static str, instead: &'static str) -> Phrase {
    Phrase { pattern, instead }
}

/// This file names what it bans.
const EXEMPT: &str = "xtask/src/tidy/language.rs";

/// Prefixes of test names that narrate instead of stating a fact.
const NARRATION: [&str; 8] =
    ["a_", "an_", "the_", "one_that_", "one_who_", "what_", "whoever_", "nobody_"];

/// Finds banned phrases in comments, string literals and Markdown.
pub struct Language {
    phrases: Vec<(Regex, &'static str)>,
    literal: Regex,
    code_span: Regex,
}

impl Language {
    pub fn new() -> Result<Self> {
        let compile = |phrase: &Phrase| Ok((Regex::new(phrase.pattern)?, phrase.instead));
        Ok(Self {
            phrases: PHRASES.iter().map(compile).collect::<Result<_>>()?,
            literal: Regex::new(r#""((?:[^"\\]|\\.)*)""#)?,
            code_span: Regex::new("`[^`]*`")?,
        })
    }

    /// Returns one sentence per violation: file, line, the phrase and an alternative.
    pub fn faults(&self, file: &str, text: &str) -> Vec<String> {
        if file == EXEMPT {
            return Vec::new();
        }
        let mut faults = Vec::new();
        for (number, prose) in self.prose(file, text) {
            for (pattern, instead) in &self.phrases {
                if let Some(found) = pattern.find(&prose) {
                    let found = found.as_str().trim_matches([',', ';', '.', ' ']);
                    faults.push(format!(
                        "{file}:{number}: banned phrase \"{found}\"; write: {instead}"
                    ));
                }
            }
        }
        if file.ends_with(".rs") {
            faults.extend(test_name_faults(file, text));
        }
        faults
    }

    /// The lines of a file that hold English, without code.
    fn prose<'t>(&self, file: &str, text: &'t str) -> Vec<(usize, Cow<'t, str>)> {
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        match Path::new(file).extension().and_then(|extension| extension.to_str()) {
            Some("md") => {
                let mut is_code = false;
                let lines = lines.filter(|(_, line)| {
                    let is_fence = line.trim_start().starts_with("```");
                    is_code ^= is_fence;
                    !is_code && !is_fence
                });
                lines
                    .map(|(number, line)| (number, self.code_span.replace_all(line, "``")))
                    .collect()
            }
            Some("rs") => lines.flat_map(|(number, line)| self.rust_prose(number, line)).collect(),
            Some("sql") => comments(lines, "--"),
            Some("toml" | "py" | "sh" | "yml" | "example") => comments(lines, "#"),
            _ => Vec::new(),
        }
    }

    /// The comment and the string literals of a line of Rust. Literals of fewer than three words
    /// are names and not sentences.
    fn rust_prose<'t>(&self, number: usize, line: &'t str) -> Vec<(usize, Cow<'t, str>)> {
        if line.trim_start().starts_with("//") {
            return vec![(number, self.code_span.replace_all(line, "``"))];
        }
        let literals = self.literal.captures_iter(line).map(|found| found.extract::<1>().1[0]);
        let sentences = literals.filter(|text| text.split_whitespace().count() >= 3);
        let comment = line.split_once(" // ").map(|(_, comment)| comment);
        sentences.chain(comment).map(|text| (number, Cow::Borrowed(text))).collect()
    }
}

fn comments<'t>(
    lines: impl Iterator<Item = (usize, &'t str)>,
    marker: &str,
) -> Vec<(usize, Cow<'t, str>)> {
    let comment = |(number, line): (usize, &'t str)| {
        line.split_once(marker).map(|(_, comment)| (number, Cow::Borrowed(comment)))
    };
    lines.filter_map(comment).collect()
}

fn test_name_faults(file: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut is_test = false;
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim_start();
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if let Some((_, after)) = line.split_once("fn ").filter(|_| is_test) {
            is_test = false;
            let name = after.split(['(', '<']).next().unwrap_or_default();
            if NARRATION.iter().any(|prefix| name.starts_with(prefix)) {
                faults.push(format!(
                    "{file}:{number}: test name {name} narrates; state the fact: replay_with_other_body_is_refused"
                ));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(file: &str, text: &str) -> Vec<String> {
        Language::new().unwrap().faults(file, text)
    }

    #[test]
    fn violation_names_file_line_phrase_and_alternative() {
        assert_eq!(
            faults("a.rs", "//! Rooms.\n\n/// Whoever asks waits.\nfn f() {}\n"),
            [
                "a.rs:3: banned phrase \"Whoever\"; write: name the actor: the caller, the worker, LiveKit"
            ]
        );
    }

    #[test]
    fn every_phrase_is_found() {
        for line in [
            "Whoever asks waits.",
            "It is nobody's.",
            "LiveKit tells it.",
            "It shall stop.",
            "It is kept for ever.",
            "It works all the same.",
            "It tried in vain.",
            "It is as good as new.",
            "It comes to its end.",
            "It is read, too.",
            "It waits, or else it fails.",
            "There is none.",
            "It waits, for it is slow.",
            "One that is full waits.",
        ] {
            assert_eq!(faults("a.md", line).len(), 1, "{line}");
        }
    }

    #[test]
    fn comments_literals_and_markdown_are_read() {
        for (file, text) in [
            ("a.rs", "let x = 1; // it shall stop"),
            ("a.rs", "bail!(\"the room shall stop\");"),
            ("a.md", "It shall stop."),
            ("a.sql", "select 1; -- it shall stop"),
            ("a.toml", "a = 1 # it shall stop"),
        ] {
            assert_eq!(faults(file, text).len(), 1, "{file}: {text}");
        }
    }

    #[test]
    fn code_is_not_read() {
        for (file, text) in [
            ("a.rs", "let shall = told(nobody);"),
            ("a.rs", "/// The variable `nobody`."),
            ("a.rs", "name(\"nobody\")"),
            ("a.md", "`whoever`\n```\nwhoever\n```"),
            ("a.json", "\"whoever asks waits\""),
        ] {
            assert_eq!(faults(file, text), Vec::<String>::new(), "{file}: {text}");
        }
    }

    #[test]
    fn test_name_that_narrates_is_a_violation() {
        let narrated = "#[test]\nfn a_room_that_is_gone() {}\n";
        assert_eq!(faults("a.rs", narrated).len(), 1);
        assert!(faults("a.rs", "#[test]\nfn missing_room_is_reopened() {}\n").is_empty());
        assert!(faults("a.rs", "fn a_helper() {}\n").is_empty());
    }
}

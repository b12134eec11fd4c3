//! Banned phrases: constructions that make English hard to read, each with a plain alternative.

use std::borrow::Cow;
use std::path::Path;

use anyhow::Result;
use regex::Regex;
use serde::Deserialize;

/// The list of phrases.
const PHRASES: &str = include_str!("phrases.toml");

#[derive(Debug, Deserialize)]
struct Phrases {
    phrase: Vec<Phrase>,
}

/// A construction, what to write instead, and a sentence that the pattern matches.
#[derive(Debug, Deserialize)]
struct Phrase {
    pattern: String,
    instead: String,
    #[cfg_attr(not(test), expect(dead_code, reason = "the test of the list reads it"))]
    example: String,
}

/// Prefixes of test names that narrate instead of stating a fact.
const NARRATION: [&str; 8] =
    ["a_", "an_", "the_", "one_that_", "one_who_", "what_", "whoever_", "nobody_"];

/// Finds banned phrases in comments, string literals and Markdown.
pub struct Language {
    phrases: Vec<(Regex, String)>,
    literal: Regex,
    code_span: Regex,
}

impl Language {
    pub fn new() -> Result<Self> {
        let Phrases { phrase } = toml::from_str(PHRASES)?;
        let compile = |phrase: Phrase| Ok((Regex::new(&phrase.pattern)?, phrase.instead));
        Ok(Self {
            phrases: phrase.into_iter().map(compile).collect::<Result<_>>()?,
            literal: Regex::new(r#""((?:[^"\\]|\\.)*)""#)?,
            code_span: Regex::new("`[^`]*`")?,
        })
    }

    /// Returns one sentence per violation: file, line, the phrase and an alternative.
    pub fn faults(&self, file: &str, text: &str) -> Vec<String> {
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
        if Path::new(file).extension().is_some_and(|extension| extension == "rs") {
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

    fn phrases() -> Vec<Phrase> {
        let Phrases { phrase } = toml::from_str(PHRASES).unwrap();
        phrase
    }

    #[test]
    fn violation_names_file_line_phrase_and_alternative() {
        let Phrase { instead, example, .. } = phrases().remove(0);
        let word = example.split(' ').next().unwrap();
        assert_eq!(
            faults("a.rs", &format!("//! Rooms.\n\n/// {example}\nfn f() {{}}\n")),
            [format!("a.rs:3: banned phrase \"{word}\"; write: {instead}")]
        );
    }

    #[test]
    fn every_phrase_is_found_in_its_example() {
        for Phrase { pattern, example, .. } in phrases() {
            assert_eq!(faults("a.md", &example).len(), 1, "{pattern}: {example}");
        }
    }

    #[test]
    fn comments_literals_and_markdown_are_read() {
        let banned = phrases().remove(3).example;
        for (file, text) in [
            ("a.rs", format!("let x = 1; // {banned}")),
            ("a.rs", format!("bail!(\"{banned}\");")),
            ("a.md", banned.clone()),
            ("a.sql", format!("select 1; -- {banned}")),
            ("a.toml", format!("a = 1 # {banned}")),
        ] {
            assert_eq!(faults(file, &text).len(), 1, "{file}: {text}");
        }
    }

    #[test]
    fn code_is_not_read() {
        let banned = phrases().remove(3).example;
        let word = banned.split(' ').nth(2).unwrap();
        for (file, text) in [
            ("a.rs", format!("let {word} = 1;")),
            ("a.rs", format!("/// The variable `{word}`.")),
            ("a.rs", format!("name(\"{word}\")")),
            ("a.md", format!("`{banned}`\n```\n{banned}\n```")),
            ("a.json", format!("\"{banned}\"")),
        ] {
            assert_eq!(faults(file, &text), Vec::<String>::new(), "{file}: {text}");
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

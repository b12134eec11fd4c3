//! Banned phrases: constructions that make English hard to read, each with a plain alternative.

use std::path::Path;

use anyhow::Result;
use regex::Regex;
use serde::Deserialize;

use super::prose::Reader;

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
    reader: Reader,
}

impl Language {
    pub fn new() -> Result<Self> {
        let Phrases { phrase } = toml::from_str(PHRASES)?;
        let compile = |phrase: Phrase| Ok((Regex::new(&phrase.pattern)?, phrase.instead));
        let phrases = phrase.into_iter().map(compile).collect::<Result<_>>()?;
        Ok(Self { phrases, reader: Reader::new()? })
    }

    /// Returns one sentence per violation: file, line, the phrase and an alternative.
    pub fn faults(&self, file: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        for prose in self.reader.read(file, text) {
            for (pattern, instead) in &self.phrases {
                for found in pattern.find_iter(&prose.text) {
                    let is_margin = |one: char| ",;:. ".contains(one);
                    let phrase = found.as_str().trim_start_matches(is_margin);
                    let number = prose.line_at(found.end() - phrase.len());
                    let phrase = phrase.trim_end_matches(is_margin);
                    faults.push(format!(
                        "{file}:{number}: [language] banned phrase \"{phrase}\"; write: {instead}"
                    ));
                }
            }
        }
        if Path::new(file).extension().is_some_and(|extension| extension == "rs") {
            faults.extend(test_name_faults(file, text));
        }
        faults
    }
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
                    "{file}:{number}: [test-names] {name} narrates; state the fact: replay_with_other_body_is_refused"
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
            [format!("a.rs:3: [language] banned phrase \"{word}\"; write: {instead}")]
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
    fn wrapped_and_repeated_phrases_are_found() {
        let [one, two] = ["for", "ever"];
        let comment = format!("// It lives {one}\n// {two}. It lives {one} {two}.\n");
        let found = faults("a.rs", &comment);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("a.rs:1: ") && found[1].starts_with("a.rs:2: "), "{found:?}");
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

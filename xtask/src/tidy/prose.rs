//! Extracts the English of a file: comments, string literals and Markdown, without code.

use std::path::Path;

use anyhow::Result;
use regex::{Captures, Regex};

/// The comments and the literals of Rust, and character literals, which may contain a quote.
const RUST_TOKEN: &str = r#"(?sx)
    (?P<line>//[^\n]*)
    | /\*(?P<block>.*?)\*/
    | \b[bc]?r"(?P<raw>[^"]*)"
    | \b[bc]?r\#"(?P<raw_1>.*?)"\#
    | \b[bc]?r\#\#"(?P<raw_2>.*?)"\#\#
    | "(?P<literal>(?:[^"\\]|\\.)*)"
    | '(?:[^'\\\n]|\\.[^']*)'
"#;

/// Consecutive lines of English as one text, so that a phrase may wrap.
#[derive(Debug, Default)]
pub struct Prose {
    pub text: String,
    /// The offset in `text` and the number of each line.
    lines: Vec<(usize, usize)>,
}

impl Prose {
    fn line(number: usize, text: &str) -> Self {
        let mut prose = Self::default();
        prose.append(number, text);
        prose
    }

    fn append(&mut self, number: usize, text: &str) {
        if !self.text.is_empty() {
            self.text.push(' ');
        }
        self.lines.push((self.text.len(), number));
        self.text.push_str(text.trim());
    }

    /// Returns the number of the line that contains the byte at this offset of the text.
    pub fn line_at(&self, offset: usize) -> usize {
        let after = self.lines.partition_point(|(start, _)| *start <= offset);
        self.lines.get(after.saturating_sub(1)).map_or(1, |(_, number)| *number)
    }
}

/// Reads the English of files.
pub struct Reader {
    rust_token: Regex,
    docstring: Regex,
    html_comment: Regex,
    code_span: Regex,
}

impl Reader {
    pub fn new() -> Result<Self> {
        Ok(Self {
            rust_token: Regex::new(RUST_TOKEN)?,
            docstring: Regex::new(r#"(?s)"""(.*?)""""#)?,
            html_comment: Regex::new("(?s)<!--(.*?)-->")?,
            code_span: Regex::new("`[^`]*`")?,
        })
    }

    /// Returns the English of a file. Other kinds of files contain none.
    pub fn read(&self, file: &str, text: &str) -> Vec<Prose> {
        let mut all = match Path::new(file).extension().and_then(|extension| extension.to_str()) {
            Some("md") => markdown(text),
            Some("rs") => self.rust(text),
            Some("sql") => comments(text, "--"),
            Some("toml" | "sh" | "yml" | "example") => comments(text, "#"),
            Some("mjs") => comments(text, "//"),
            Some("html") => blocks(text, &self.html_comment),
            Some("py") => {
                let mut all = comments(text, "#");
                all.extend(blocks(text, &self.docstring));
                all
            }
            _ => Vec::new(),
        };
        for prose in &mut all {
            prose.text = self.without_code(&prose.text);
        }
        all
    }

    /// Replaces code spans by backticks, so that offsets stay the same.
    fn without_code(&self, text: &str) -> String {
        let mask = |span: &Captures<'_>| "`".repeat(span[0].len());
        self.code_span.replace_all(text, mask).into_owned()
    }

    /// Comments, and literals of at least three words. Shorter literals are names.
    fn rust(&self, text: &str) -> Vec<Prose> {
        let mut all = Vec::new();
        let mut comments = CommentBlock::default();
        for token in self.rust_token.captures_iter(text) {
            if let Some(comment) = token.name("line") {
                let before = text[..comment.start()].rsplit('\n').next().unwrap_or_default();
                let is_alone = before.trim().is_empty();
                let number = line_number(text, comment.start());
                all.extend(comments.add(number, comment.as_str(), is_alone));
            } else if let Some(block) = token.name("block") {
                all.push(paragraph(line_number(text, block.start()), block.as_str()));
            } else if let Some(literal) = token.name("literal") {
                let number = line_number(text, literal.start());
                let unescaped = literal.as_str().replace("\\\n", "\n").replace("\\n", " ");
                all.extend(sentence(number, &unescaped.replace("\\\"", "\"")));
            } else {
                let raw = ["raw", "raw_1", "raw_2"].iter().find_map(|name| token.name(name));
                let literal = raw.map(|raw| (line_number(text, raw.start()), raw.as_str()));
                all.extend(literal.and_then(|(number, raw)| sentence(number, raw)));
            }
        }
        all.extend(comments.finish());
        all
    }
}

/// Joins consecutive lines that contain nothing but a comment.
#[derive(Default)]
struct CommentBlock {
    prose: Option<Prose>,
    /// The number of the last line, and its marker, such as `///`.
    last: Option<(usize, String)>,
    /// Whether the last line is inside a code block of a doc comment.
    is_code: bool,
}

impl CommentBlock {
    /// Adds a comment. Returns the texts that it finishes.
    fn add(&mut self, number: usize, comment: &str, is_alone: bool) -> Vec<Prose> {
        let text = comment.trim_start_matches('/').trim_start_matches('!');
        let marker = &comment[..comment.len() - text.len()];
        let continues = self
            .last
            .as_ref()
            .is_some_and(|(last, last_marker)| last + 1 == number && last_marker == marker);
        let mut finished = Vec::new();
        if !continues || !is_alone {
            finished.extend(self.finish());
        }
        if !is_alone {
            finished.push(Prose::line(number, text));
            return finished;
        }
        self.last = Some((number, marker.to_owned()));
        let is_fence = text.trim_start().starts_with("```");
        self.is_code ^= is_fence;
        if is_fence || self.is_code || text.trim().is_empty() {
            finished.extend(self.prose.take());
        } else {
            self.prose.get_or_insert_default().append(number, text);
        }
        finished
    }

    fn finish(&mut self) -> Option<Prose> {
        (self.last, self.is_code) = (None, false);
        self.prose.take()
    }
}

/// The lines of Markdown, without code blocks.
fn markdown(text: &str) -> Vec<Prose> {
    let mut is_code = false;
    let lines = text.lines().zip(1..).filter(|(line, _)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    });
    lines.map(|(line, number)| Prose::line(number, line)).collect()
}

/// Comments that begin with a marker and end with the line.
fn comments(text: &str, marker: &str) -> Vec<Prose> {
    let (mut all, mut block): (Vec<Prose>, Option<Prose>) = (Vec::new(), None);
    for (line, number) in text.lines().zip(1..) {
        if let Some(comment) = line.trim_start().strip_prefix(marker) {
            if comment.trim().is_empty() {
                all.extend(block.take());
            } else {
                block.get_or_insert_default().append(number, comment);
            }
            continue;
        }
        all.extend(block.take());
        if let Some((_, comment)) = line.split_once(&format!(" {marker} ")) {
            all.push(Prose::line(number, comment));
        }
    }
    all.extend(block);
    all
}

/// The first group of every match, as one text each.
fn blocks(text: &str, pattern: &Regex) -> Vec<Prose> {
    let found = pattern.captures_iter(text).filter_map(|found| found.get(1));
    found.map(|block| paragraph(line_number(text, block.start()), block.as_str())).collect()
}

/// A literal with at least three words.
fn sentence(number: usize, literal: &str) -> Option<Prose> {
    (literal.split_whitespace().count() >= 3).then(|| paragraph(number, literal))
}

/// The lines of a text as one paragraph that begins at this line of the file.
fn paragraph(first: usize, text: &str) -> Prose {
    let mut prose = Prose::default();
    for (line, number) in text.lines().zip(first..) {
        prose.append(number, line);
    }
    prose
}

fn line_number(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &str, text: &str) -> Vec<(usize, String)> {
        let all = Reader::new().unwrap().read(file, text);
        all.into_iter().map(|prose| (prose.line_at(0), prose.text)).collect()
    }

    #[test]
    fn wrapped_comment_is_one_text() {
        let text =
            "//! A room\n//! closes.\n\n/// One.\n///\n/// Two.\n// Three.\nlet x = 1; // Four.\n";
        let expected =
            [(1, "A room closes."), (4, "One."), (6, "Two."), (7, "Three."), (8, "Four.")];
        let found = read("a.rs", text);
        assert_eq!(found, expected.map(|(number, text)| (number, text.to_owned())));
        let all = Reader::new().unwrap().read("a.rs", text);
        assert_eq!(all[0].line_at("A room ".len()), 2);
    }

    #[test]
    fn code_block_of_a_doc_comment_is_skipped() {
        let text = "/// Before.\n/// ```\n/// let x = 1;\n/// ```\n/// After.\nfn f() {}\n";
        assert_eq!(read("a.rs", text), [(1, "Before.".to_owned()), (5, "After.".to_owned())]);
    }

    #[test]
    fn literals_are_read_whole() {
        let continued = "bail!(\n    \"the room \\\n     is closed\"\n);\n";
        assert_eq!(read("a.rs", continued), [(2, "the room is closed".to_owned())]);
        let raw = r##"let x = r#"the "room" is closed"#;"##;
        assert_eq!(read("a.rs", raw), [(1, "the \"room\" is closed".to_owned())]);
        let quotes = r#"let x = ('"', "// no comment here", '\'');"#;
        assert_eq!(read("a.rs", quotes), [(1, "// no comment here".to_owned())]);
        assert_eq!(read("a.rs", "fn f<'a>(x: &'a str) { g(\"two words\") }\n"), []);
    }

    #[test]
    fn comments_of_other_languages_are_read() {
        for (file, text) in [
            ("a.sql", "select 1; -- A room.\n"),
            ("a.toml", "# A\n# room.\n"),
            ("a.mjs", "// A\n// room.\n"),
            ("a.html", "<!-- A\nroom. -->\n"),
            ("a.py", "\"\"\"A\nroom.\"\"\"\n"),
        ] {
            assert_eq!(read(file, text), [(1, "A room.".to_owned())], "{file}");
        }
    }
}

//! The page for users of LiveKit's SDKs: what it quotes stands in an example that runs.

const PAGE: &str = include_str!("../../../../docs/api/clients.md");

/// The page's first block in this language, without the indentation it has in its example.
fn quoted(language: &str) -> Vec<&str> {
    let (_, rest) =
        PAGE.split_once(&format!("```{language}\n")).expect("the page has such a block");
    rest.split("```").next().unwrap().trim().lines().map(str::trim).collect()
}

#[track_caller]
fn assert_stands_in(example: &str, quoted: &[&str]) {
    let lines: Vec<_> = example.lines().map(str::trim).collect();
    assert!(lines.windows(quoted.len()).any(|lines| lines == quoted), "{quoted:#?}");
}

#[test]
fn what_the_page_quotes_stands_in_an_example() {
    let javascript = include_str!("../../../../docs/examples/token-source.mjs");
    assert_stands_in(javascript, &quoted("js"));
    let python = include_str!("../../../../docs/examples/session-start-python.py");
    assert_stands_in(python, &quoted("python"));
}

#[test]
fn no_snippet_is_longer_than_a_glance() {
    for block in PAGE.split("```").skip(1).step_by(2) {
        assert!(block.lines().count() <= 15, "{block}");
    }
}

//! The page about client SDKs, `docs/api/clients.md`: its code occurs in the example programs, and
//! each block has at most fifteen lines.

const PAGE: &str = include_str!("../../../../docs/api/clients.md");

/// Returns the lines of the page's first code block in this language, without indentation.
fn first_block(language: &str) -> Vec<&str> {
    let (_, rest) = PAGE
        .split_once(&format!("```{language}\n"))
        .expect("the page has a block in this language");
    rest.split("```").next().unwrap().trim().lines().map(str::trim).collect()
}

#[track_caller]
fn assert_contains(example: &str, block: &[&str]) {
    let lines: Vec<_> = example.lines().map(str::trim).collect();
    assert!(lines.windows(block.len()).any(|lines| lines == block), "{block:#?}");
}

#[test]
fn code_of_the_page_is_part_of_an_example() {
    let javascript = include_str!("../../../../docs/examples/token-source.mjs");
    assert_contains(javascript, &first_block("js"));
    let python = include_str!("../../../../docs/examples/session-start-python.py");
    assert_contains(python, &first_block("python"));
}

#[test]
fn snippets_have_at_most_fifteen_lines() {
    for block in PAGE.split("```").skip(1).step_by(2) {
        assert!(block.lines().count() <= 15, "{block}");
    }
}

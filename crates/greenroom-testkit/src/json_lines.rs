//! Files with one JSON value per line, through which Rust and the Python programs exchange data.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Returns the values of all complete lines. A file that does not exist yet contains no values.
pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> Result<Vec<T>> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("failed to read {}", file.display()))?,
    };
    // The other program may be in the middle of writing the last line.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse =
        |line| serde_json::from_str(line).with_context(|| format!("unexpected JSON line {line}"));
    complete.lines().map(parse).collect()
}

/// Appends a line, and creates the file if it does not exist.
pub(crate) fn append(file: &Path, value: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(value)? + "\n";
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    Ok(file.write_all(line.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths;

    #[test]
    fn incomplete_last_line_is_not_read() {
        let directory = paths::create_temp_dir("json-lines", None).unwrap();
        let file = directory.join("lines");
        assert!(read::<u8>(&file).unwrap().is_empty());
        append(&file, &1).unwrap();
        append(&file, &2).unwrap();
        OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{").unwrap();
        assert_eq!(read::<u8>(&file).unwrap(), [1, 2]);
        std::fs::remove_dir_all(directory).unwrap();
    }
}

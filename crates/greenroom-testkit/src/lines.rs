//! Files of JSON lines, by which the Python programs and we tell each other things.

use std::{fs::OpenOptions, io::Write, path::Path};

use anyhow::{Context, Result};
use serde::{Serialize, de::DeserializeOwned};

/// What is in the file so far: nothing when there is none yet.
pub(crate) fn read<T: DeserializeOwned>(file: &Path) -> Result<Vec<T>> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        read => read.with_context(|| format!("cannot read {}", file.display()))?,
    };
    // The last line may be half written.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line| serde_json::from_str(line).with_context(|| format!("it reads {line}"));
    whole.lines().map(parse).collect()
}

/// Adds a line to the file.
pub(crate) fn append(file: &Path, line: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(line)? + "\n";
    let mut file = OpenOptions::new().create(true).append(true).open(file)?;
    Ok(file.write_all(line.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place;

    #[test]
    fn a_line_that_is_half_written_is_not_read_yet() {
        let home = place::temporary("lines", None).unwrap();
        let file = home.join("lines");
        assert!(read::<u8>(&file).unwrap().is_empty());
        append(&file, &1).unwrap();
        append(&file, &2).unwrap();
        OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{").unwrap();
        assert_eq!(read::<u8>(&file).unwrap(), [1, 2]);
        std::fs::remove_dir_all(home).unwrap();
    }
}

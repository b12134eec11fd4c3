//! Prints the output of commands, without a panic if the reader has closed the pipe.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use anyhow::Context;

/// Prints a line to standard output.
///
/// A closed pipe is no error: the reader, such as `head`, needs no more. The command still does its
/// work, and its exit code reports that work. `println!` would panic.
///
/// # Errors
/// Returns any other failed write, such as to a full disk.
pub fn print_line(line: impl Display) -> anyhow::Result<()> {
    print(&format!("{line}\n"))
}

/// Prints text to standard output, without colours if that is not a terminal. A closed pipe is no
/// error, as in [`print_line`].
///
/// # Errors
/// Returns any other failed write, such as to a full disk.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = anstream::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("the command has run, but failed to print its result")
        }
        _ => Ok(()),
    }
}

/// Prints a line to standard error. Ignores a failed write, because the exit code still reports the
/// failure.
pub fn print_error(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

//! Prints the output of commands, without a panic if the reader has closed the pipe.

use std::io::{Write, stdout};

/// Prints a line like `println!`, which would panic if the reader has closed the pipe.
macro_rules! print_line {
    ($($argument:tt)*) => { $crate::output::print(&format!("{}\n", format_args!($($argument)*))) };
}

/// Prints text to standard output. A failed write is ignored: the exit code reports the command's
/// work, and its servers must stop in order.
pub fn print(text: &str) {
    let mut stdout = stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

//! Printing, such that a reader who goes away (`| head`) is an error and not a panic.

use comfy_table::{Table, presets};
use serde::Serialize;
use std::{
    fmt::Display,
    io::{self, Write},
};

/// One line on standard output.
pub fn line(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

/// Indented JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(line(serde_json::to_string_pretty(value)?)?)
}

/// JSON on one line, for streams of them.
pub fn json_line(value: &impl Serialize) -> anyhow::Result<()> {
    Ok(line(serde_json::to_string(value)?)?)
}

/// A plain table: names of columns, then rows; columns stand apart by spaces.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    for row in rows {
        table.add_row(row);
    }
    let lines: Vec<_> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n")
}

/// The first `max_chars` characters, on one line, without what a terminal would act on.
pub fn short(text: &str, max_chars: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = plain.take(max_chars).collect();
    if text.chars().count() > max_chars {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_has_no_control_characters() {
        assert_eq!(short("a\u{1b}[31mb\nc", 80), "a [31mb c");
        assert_eq!(short("abcdef", 3), "abc…");
    }
}

//! Tables for people: columns as wide as their widest cell, nothing after the last.

use std::io::Write;

use bytesize::ByteSize;
use tabwriter::TabWriter;

/// Rows below a head of column names.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(crate) fn new(columns: &[&str]) -> Self {
        Self { rows: vec![columns.iter().map(|column| column.to_uppercase()).collect()] }
    }

    /// A table of names and values, without a head.
    pub(crate) fn of_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let row = |(name, value): (&str, String)| vec![name.to_owned(), visible(&value)];
        Self { rows: pairs.into_iter().map(row).collect() }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.iter().map(|cell| visible(cell)).collect());
    }

    /// The text, without a line end at its end.
    pub(crate) fn text(&self) -> String {
        let mut aligned = TabWriter::new(Vec::new()).minwidth(0).padding(2);
        // A tab ends each cell, the last one too, so that all of a column count for its width.
        let lines = self.rows.iter().map(|row| row.iter().map(|cell| format!("{cell}\t")).collect::<String>());
        let text = lines.collect::<Vec<_>>().join("\n");
        aligned.write_all(text.as_bytes()).and_then(|()| aligned.flush()).expect("writing to memory does not fail");
        let text = aligned.into_inner().expect("it was flushed");
        String::from_utf8_lossy(&text).lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
    }
}

/// What came from elsewhere must not steer the terminal.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// `bytes` in the largest unit that fits, such as `1.5 KiB`.
pub(crate) fn bytes_text(bytes: u64) -> String {
    ByteSize(bytes).display().iec().to_string()
}

/// `yes` or `no`.
pub(crate) fn yes_no(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_in_the_largest_unit_that_fits() {
        let told = [0, 1023, 1024, 1_572_864, u64::MAX].map(bytes_text);
        assert_eq!(told, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "16.0 EiB"]);
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["node", "state"]);
        table.row(["n1".into(), "ready".into()]);
        table.row(["a-long-name".into(), String::new()]);
        assert_eq!(table.text(), "NODE         STATE\nn1           ready\na-long-name");
    }

    #[test]
    fn pairs_stand_side_by_side() {
        let table = Table::of_pairs([("keys", "12".into()), ("under replicated", "0".into())]);
        assert_eq!(table.text(), "keys              12\nunder replicated  0");
    }

    #[test]
    fn nothing_from_elsewhere_steers_the_terminal() {
        let mut table = Table::new(&["error"]);
        table.row(["\u{1b}[31mred\n".into()]);
        assert_eq!(table.text(), "ERROR\n\u{fffd}[31mred\u{fffd}");
    }
}

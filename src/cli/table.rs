//! Tables for people: columns as wide as their widest cell, nothing after the last.

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
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// What came from elsewhere must not steer the terminal.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// So many bytes, roughly.
pub(crate) fn bytes_text(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    let scaled = units.iter().scan(bytes as f64, |rest, unit| {
        *rest /= 1024.0;
        Some((*rest, unit))
    });
    let largest = scaled.take_while(|(number, _)| *number >= 1.0).last();
    largest.map_or_else(|| format!("{bytes} B"), |(number, unit)| format!("{number:.1} {unit}"))
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
        assert_eq!(told, ["0 B", "1023 B", "1.0 KiB", "1.5 MiB", "16384.0 PiB"]);
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

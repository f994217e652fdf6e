//! [`Table`]: rows below their names, as `psql` prints them.

/// Rows of cells below the names of their columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<const N: usize> {
    names: [&'static str; N],
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table without rows.
    #[must_use]
    pub const fn new(names: [&'static str; N]) -> Self {
        Self {
            names,
            rows: Vec::new(),
        }
    }

    /// With these rows.
    #[must_use]
    pub fn with_rows(mut self, rows: impl IntoIterator<Item = [String; N]>) -> Self {
        self.rows.extend(rows);
        self
    }

    /// How many rows there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.rows.len()
    }

    /// The widest line, in characters.
    #[must_use]
    pub fn width(&self) -> usize {
        let cells: usize = self.widths().iter().map(|width| width + 2).sum();
        cells + N.saturating_sub(1)
    }

    /// A line for each row, in columns.
    #[must_use]
    pub fn lines(&self) -> String {
        let widths = self.widths();
        let line = |cells: &[String]| {
            let padded: Vec<_> = cells
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!(" {cell:width$} "))
                .collect();
            padded.join("|").trim_end().to_owned() + "\n"
        };
        let rule: Vec<_> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
        let mut text = line(&self.names.map(str::to_owned)) + &rule.join("+") + "\n";
        text.extend(self.rows.iter().map(|row| line(row)));
        text
    }

    /// A block for each row, with a line for each of its cells: for terminals that the lines do not fit.
    #[must_use]
    pub fn blocks(&self) -> String {
        let width = self.names.iter().map(|name| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let head = format!("-[ {} ]", index.saturating_add(1));
            text.push_str(&format!("{head:-<w$}\n", w = width + 2));
            for (name, cell) in self.names.iter().zip(row) {
                let line = format!("{name:width$} | {cell}");
                text.push_str(line.trim_end());
                text.push('\n');
            }
        }
        text
    }

    fn widths(&self) -> [usize; N] {
        let mut widths = self.names.map(str::len);
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let table = Table::new(["a", "name"]).with_rows([row("1", "x"), row("é22", "")]);
        assert_eq!(
            table.lines(),
            " a   | name\n-----+------\n 1   | x\n é22 |\n"
        );
        assert_eq!(table.width(), 12);
        assert_eq!(
            table.blocks(),
            "-[ 1 ]\na    | 1\nname | x\n-[ 2 ]\na    | é22\nname |\n"
        );
        assert_eq!(Table::new(["a"]).lines().lines().count(), 2);
    }
}

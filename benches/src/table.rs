//! Medians with their spread, and the tables that show them.

use std::fmt;

use anyhow::{Context, Result};

/// The median of several values, with the least and the greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The median; of an even number of values the greater of the two in the middle.
    pub median: f64,
    /// The least value.
    pub least: f64,
    /// The greatest value.
    pub greatest: f64,
}

impl Spread {
    /// Of these values.
    ///
    /// # Errors
    /// When there are none.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Result<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().context("nothing was measured");
        Ok(Self {
            median: at(values.len() / 2)?,
            least: at(0)?,
            greatest: at(values.len().saturating_sub(1))?,
        })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Three digits that count, whatever the size.
        let digits = if self.median.abs() < 10.0 {
            3
        } else if self.median.abs() < 100.0 {
            1
        } else {
            0
        };
        write!(
            f,
            "{:.digits$} [{:.digits$}, {:.digits$}]",
            self.median, self.least, self.greatest
        )
    }
}

/// The least value that so many percent of the values do not exceed.
///
/// # Errors
/// When there is none.
pub(crate) fn percentile(values: &mut [f64], percent: usize) -> Result<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100);
    let value = values.get(rank.saturating_sub(1));
    value.copied().context("nothing was measured")
}

/// A table with a heading, printed in Markdown's form with columns as wide as they need to be.
#[derive(Clone, Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let headings = headings.iter().map(|text| (*text).to_owned()).collect();
        Self {
            rows: vec![headings],
        }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.first().map_or(0, Vec::len);
        let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let lengths = self
                    .rows
                    .iter()
                    .map(|row| cell(row, column).chars().count());
                lengths.max().unwrap_or(0)
            })
            .collect();
        for (number, row) in self.rows.iter().enumerate() {
            for (column, width) in widths.iter().enumerate() {
                write!(f, "| {:<width$} ", cell(row, column))?;
            }
            writeln!(f, "|")?;
            if number == 0 {
                for width in &widths {
                    write!(f, "|{}", "-".repeat(width + 2))?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads() {
        let spread = Spread::of([3.0, 1.0, 2.0]).unwrap();
        assert_eq!(
            (spread.median, spread.least, spread.greatest),
            (2.0, 1.0, 3.0)
        );
        assert_eq!(spread.to_string(), "2.000 [1.000, 3.000]");
        assert_eq!(
            Spread::of([1234.5]).unwrap().to_string(),
            "1234 [1234, 1234]"
        );
        assert!(Spread::of([]).is_err());
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&["a", "bb"]);
        table.row(["one".to_owned(), "2".to_owned()]);
        assert_eq!(
            table.to_string(),
            "| a   | bb |\n|-----|----|\n| one | 2  |\n"
        );
    }

    #[test]
    fn percentiles() {
        let mut values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert!((percentile(&mut values, 50).unwrap() - 100.0).abs() < 1e-9);
        assert!((percentile(&mut values, 99).unwrap() - 198.0).abs() < 1e-9);
        assert!((percentile(&mut [7.0], 99).unwrap() - 7.0).abs() < 1e-9);
        assert!(percentile(&mut [], 50).is_err());
    }
}

//! Values in and out of SQL text.

use std::str::FromStr;

use walstream::Lsn;

use crate::connection::ResultSet;

/// A string constant that means the same whatever `standard_conforming_strings` is.
pub(super) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// An LSN in this row and column; `None` when it is null, or the invalid one.
pub(super) fn lsn(rows: &ResultSet, row: usize, column: usize) -> Option<Lsn> {
    rows.text(row, column)?.parse::<Lsn>().ok()?.valid()
}

/// A number in this row and column; `None` when it is null.
pub(super) fn number<T: FromStr>(rows: &ResultSet, row: usize, column: usize) -> Option<T> {
    rows.text(row, column)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(literal("gp_walreceiver"), "E'gp_walreceiver'");
        assert_eq!(literal(r"a'b\'c"), r"E'a''b\\''c'");
    }
}

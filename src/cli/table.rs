//! Columns of text.

use super::print::{cell, columns};

/// Between two columns.
pub const GAP: usize = 2;

/// The width of a column, the gap after it included: that of its head and of the
/// widest cell that is no wider than `most`; none where all cells are empty.
pub fn width<'a>(head: &str, cells: impl Iterator<Item = &'a str>, most: usize) -> usize {
    let lengths = cells.map(columns).filter(|length| *length <= most);
    match lengths.max() {
        None | Some(0) => 0,
        Some(widest) => widest.max(columns(head)) + GAP,
    }
}

/// Appends a line of cells, each with the width of its column. A wider cell moves
/// those after it; a column without width is left out.
pub fn push_line<'a>(text: &mut String, cells: impl IntoIterator<Item = (&'a str, usize)>) {
    let mut line = String::new();
    for (it, width) in cells {
        if width > 0 {
            cell(&mut line, it, width.max(columns(it) + GAP));
        }
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

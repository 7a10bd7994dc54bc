//! Tables for people: aligned columns, two spaces between them, no lines.

use std::fmt::Write as _;

use super::text::printable;

/// Which side a column leans to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// What is left of a first column that is cut.
const FIRST_LEAST: usize = 8;

/// A table. Cells are made printable when they are added.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub(super) fn new(columns: &[(&'static str, Align)]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells that are missing are empty.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let mut row: Vec<String> = cells.into_iter().map(|cell| printable(&cell)).collect();
        row.resize(self.columns.len(), String::new());
        self.rows.push(row);
    }

    /// Whether it has no rows.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn headings(&self) -> Vec<String> {
        self.columns.iter().map(|(h, _)| (*h).to_owned()).collect()
    }

    fn widths(&self, headings: &Vec<String>) -> Vec<usize> {
        let width = |i: usize| {
            let cells = std::iter::once(headings).chain(&self.rows);
            cells.map(|row| row[i].chars().count()).max().unwrap_or(0)
        };
        (0..self.columns.len()).map(width).collect()
    }

    /// Cuts the first column so that the lines are no wider than this, as far as it goes.
    #[must_use]
    pub(super) fn within(mut self, width: usize) -> Self {
        let widths = self.widths(&self.headings());
        let rest: usize = widths.iter().skip(1).map(|width| width + 2).sum();
        let first = width.saturating_sub(rest).max(FIRST_LEAST);
        for cell in self.rows.iter_mut().filter_map(|row| row.first_mut()) {
            *cell = cut(cell, first);
        }
        self
    }

    /// The table as text, each line ended.
    #[must_use]
    pub(super) fn render(&self) -> String {
        let headings = self.headings();
        let widths = self.widths(&headings);
        let mut text = String::new();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, align)) in row.iter().zip(&widths).zip(&self.columns) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                let _ = match align {
                    Align::Left => write!(line, "{cell:<width$}"),
                    Align::Right => write!(line, "{cell:>width$}"),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// At most `width` characters, the cut shown by a dot.
#[must_use]
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept + "…"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_lean_left_and_numbers_right() {
        let mut table = Table::new(&[("NAME", Align::Left), ("MEMORY", Align::Right)]);
        table.row(["ada".to_owned(), "512 MiB".to_owned()]);
        table.row(["jürgen".to_owned(), "8 GiB".to_owned()]);
        table.row(["x\u{1b}".to_owned()]);
        assert_eq!(
            table.render(),
            "NAME      MEMORY\n\
             ada      512 MiB\n\
             jürgen     8 GiB\n\
             x\\u{1b}\n"
        );
    }

    #[test]
    fn the_first_column_gives_way() {
        let mut table = Table::new(&[("NAME", Align::Left), ("MEMORY", Align::Right)]);
        table.row(["a long name for a thing".to_owned(), "512 MiB".to_owned()]);
        let lines = table.within(20).render();
        assert_eq!(lines, "NAME          MEMORY\na long nam…  512 MiB\n");
    }

    #[test]
    fn long_cells_are_cut_visibly() {
        assert_eq!(cut("notebook", 8), "notebook");
        assert_eq!(cut("notebooks", 8), "noteboo…");
    }
}

//! A plot in text: a column a span of time, eight steps a line.

/// How full a cell is, in eighths.
const FULL: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A plot of so many lines, the upper first. A column without a value stays empty; one with a value that
/// is not zero shows at least an eighth.
#[must_use]
pub(super) fn plot(columns: &[Option<f64>], top: f64, lines: usize) -> Vec<String> {
    let eighths = |value: &Option<f64>| match value {
        Some(value) if *value > 0.0 && top > 0.0 => {
            let share = (value / top).clamp(0.0, 1.0);
            ((share * lines as f64 * 8.0).round() as usize).max(1)
        }
        _ => 0,
    };
    let heights: Vec<usize> = columns.iter().map(eighths).collect();
    let line = |above: usize| {
        let cells = heights.iter();
        let cells = cells.map(|height| FULL[height.saturating_sub(above * 8).min(8)]);
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..lines).rev().map(line).collect()
}

/// The greatest value that falls into each of so many columns.
#[must_use]
pub(super) fn columns(
    points: impl Iterator<Item = (i64, f64)>,
    from_ms: i64,
    to_ms: i64,
    count: usize,
) -> Vec<Option<f64>> {
    let mut columns: Vec<Option<f64>> = vec![None; count];
    let span = (to_ms - from_ms).max(1) as f64;
    for (at_ms, value) in points {
        let place = (at_ms - from_ms).max(0) as f64 / span * count as f64;
        if let Some(column) = columns.get_mut(place as usize) {
            *column = Some(column.map_or(value, |there| there.max(value)));
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fill_their_share_and_gaps_stay_empty() {
        let values = [Some(0.0), Some(0.001), None, Some(0.5), Some(1.0)];
        assert_eq!(plot(&values, 1.0, 2), ["    █", " ▁ ██"]);
        assert_eq!(plot(&[Some(0.0)], 0.0, 1), [""]);
    }

    #[test]
    fn a_column_shows_the_greatest_in_it() {
        let points = [(0, 1.0), (9, 3.0), (10, 2.0), (35, 4.0), (99, 9.0)];
        let found = columns(points.into_iter(), 0, 40, 4);
        assert_eq!(found, [Some(3.0), Some(2.0), None, Some(4.0)]);
    }
}

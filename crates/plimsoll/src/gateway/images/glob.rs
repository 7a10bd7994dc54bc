//! Patterns as Go's `path.Match` reads them, for the filter `reference`.

/// Whether a whole text fits. `*` and `?` stop at slashes; a pattern that is none fits nothing.
pub(super) fn fits(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Which beginnings of the pattern fit the text so far; each step looks at one character.
    let mut states = vec![false; pattern.len() + 1];
    states[0] = true;
    let skip_stars = |states: &mut Vec<bool>| {
        for at in 0..pattern.len() {
            if states[at] && pattern[at] == '*' {
                states[at + 1] = true;
            }
        }
    };
    skip_stars(&mut states);
    for c in text {
        let mut next = vec![false; pattern.len() + 1];
        for at in (0..pattern.len()).filter(|at| states[*at]) {
            match pattern[at] {
                '*' if c != '/' => next[at] = true,
                '*' => {}
                '?' => next[at + 1] |= c != '/',
                p => next[at + 1] |= p == c,
            }
        }
        skip_stars(&mut next);
        states = next;
    }
    states[pattern.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stop_at_slashes() {
        for (pattern, text, expected) in [
            ("busybox", "busybox", true),
            ("busy*", "busybox", true),
            ("*box:1?", "busybox:10", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("a**b", "ab", true),
            ("", "a", false),
            ("b", "busybox", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}

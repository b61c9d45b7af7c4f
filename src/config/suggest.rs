//! Near misses: which of the known words was meant.

/// The word among `candidates` that is nearest to `word`, where one is near
/// enough to be a slip of the fingers: one edit per three characters, and other
/// letter case counts as none.
pub(super) fn nearest<S: AsRef<str>>(
    word: &str,
    candidates: impl IntoIterator<Item = S>,
) -> Option<S> {
    let word = word.to_lowercase();
    let most = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                distance(&word, &candidate.as_ref().to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The longest text that is compared: the work grows with the square.
const LONGEST: usize = 256;

/// How many characters must be inserted, removed, replaced or swapped with
/// their neighbour to make `b` of `a` (optimal string alignment).
pub(super) fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(LONGEST).collect();
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before_last[j - 2] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_edits() {
        for (a, b, expected) in [
            ("", "", 0),
            ("abc", "", 3),
            ("sweep", "swep", 1),
            ("forward", "forwrad", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn only_near_words_are_suggested() {
        let words = ["profiles", "guard", "sysctl"];
        assert_eq!(nearest("profile", words), Some("profiles"));
        assert_eq!(nearest("Sysctl", words), Some("sysctl"));
        assert_eq!(nearest("sysclt", words), Some("sysctl"));
        assert_eq!(nearest("nothing", words), None);
    }
}

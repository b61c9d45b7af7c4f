//! Near misses: which of the known words was meant.

/// The word among `candidates` that is nearest to `word`, where one is near
/// enough to be a slip of the fingers: one edit per three characters, and other
/// letter case counts as none.
pub fn nearest<S: AsRef<str>>(word: &str, candidates: impl IntoIterator<Item = S>) -> Option<S> {
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
/// their neighbour to make `b` of `a`.
pub(super) fn distance(a: &str, b: &str) -> usize {
    let head = |text: &str| text.chars().take(LONGEST).collect::<String>();
    strsim::osa_distance(&head(a), &head(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_words_are_suggested() {
        let words = ["profiles", "guard", "sysctl"];
        assert_eq!(nearest("profile", words), Some("profiles"));
        assert_eq!(nearest("Sysctl", words), Some("sysctl"));
        assert_eq!(nearest("sysclt", words), Some("sysctl"));
        assert_eq!(nearest("nothing", words), None);
    }
}

//! Names of files that sort after others, for remedies that must come last.

/// A name for a drop-in of this program that sorts after `others`.
pub fn last<'a>(others: impl IntoIterator<Item = &'a str>) -> String {
    let mut name = "zz-netguard.conf".to_owned();
    let others: Vec<&str> = others.into_iter().filter(|it| *it != name).collect();
    while others.iter().any(|other| *other >= name.as_str()) && name.len() < 200 {
        name.insert(0, 'z');
    }
    name
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_drop_in_sorts_last() {
        for (others, expected) in [
            (vec![], "zz-netguard.conf"),
            (vec!["10-a.conf", "zz-netguard.conf"], "zz-netguard.conf"),
            (vec!["zz.conf"], "zzz-netguard.conf"),
            (vec!["zzzz", "a"], "zzzz-netguard.conf"),
        ] {
            assert_eq!(super::last(others), expected);
        }
    }
}

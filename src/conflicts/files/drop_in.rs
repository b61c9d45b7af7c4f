//! Names of files that sort after others, for remedies that must come last.

/// A name for a drop-in of this program that sorts after `others`.
pub fn last<'a>(others: impl IntoIterator<Item = &'a str>) -> String {
    const NAME: &str = "zz-netguard.conf";
    const END: &str = "z-netguard.conf";
    match others.into_iter().max().filter(|last| *last > NAME) {
        None => NAME.to_owned(),
        Some(last) if last.ends_with(END) => last.to_owned(),
        Some(last) => format!("{}{END}", last.strip_suffix(".conf").unwrap_or(last)),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_drop_in_sorts_last() {
        for (others, expected) in [
            (vec![], "zz-netguard.conf"),
            (vec!["10-a.conf", "zz-netguard.conf"], "zz-netguard.conf"),
            (vec!["zz.conf"], "zzz-netguard.conf"),
            (vec!["~.conf", "a"], "~z-netguard.conf"),
            (vec!["~.conf", "~z-netguard.conf"], "~z-netguard.conf"),
        ] {
            assert_eq!(super::last(others), expected);
        }
    }
}

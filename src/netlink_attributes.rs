//! Netlink attributes (`struct nlattr`, linux/netlink.h): a length, a type, a value,
//! padded to four bytes; and the messages of rtnetlink that several parts read.

/// Types of rtnetlink's messages (linux/rtnetlink.h): a link is there or has changed, is
/// gone, is asked for.
pub const NEW_LINK: u16 = 16;
/// See [`NEW_LINK`].
pub const DEL_LINK: u16 = 17;
/// See [`NEW_LINK`].
pub const GET_LINK: u16 = 18;
/// An address is there or has changed, or is gone.
pub const NEW_ADDRESS: u16 = 20;
/// See [`NEW_ADDRESS`].
pub const DEL_ADDRESS: u16 = 21;

/// What an attribute's type is without its flags (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 4;

/// The attributes up to the first that is malformed: their types, without flags,
/// and values.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first_chunk()?;
        let (kind, _) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let value = bytes.get(HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((u16::from_ne_bytes(*kind) & TYPE_MASK, value))
    })
}

/// Adds an attribute.
pub fn push(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    nest(bytes, kind, |bytes| bytes.extend_from_slice(value));
}

/// Adds an attribute with the value that `fill` adds. One that is too long for
/// the format is left out.
pub fn nest(bytes: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let begin = bytes.len();
    bytes.extend_from_slice(&[0; HEADER]);
    fill(bytes);
    match u16::try_from(bytes.len() - begin) {
        Ok(length) => {
            bytes[begin..begin + 2].copy_from_slice(&length.to_ne_bytes());
            bytes[begin + 2..begin + HEADER].copy_from_slice(&kind.to_ne_bytes());
            pad(bytes);
        }
        Err(_) => bytes.truncate(begin),
    }
}

/// Pads to four bytes.
pub fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        push(&mut bytes, 1, b"abc");
        nest(&mut bytes, 2 | 0x8000, |bytes| push(bytes, 3, &[]));
        push(&mut bytes, 4, &[0; 0x10000]);
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read[0], (1, b"abc".as_slice()));
        assert_eq!(read[1].0, 2);
        assert_eq!(attributes(read[1].1).next(), Some((3, [].as_slice())));
        assert_eq!(read.len(), 2, "the last one is too long");
        for end in 0..bytes.len() {
            assert!(attributes(&bytes[..end]).count() <= 2);
        }
        assert_eq!(
            attributes(&[3, 0, 1, 0]).count(),
            0,
            "shorter than its header"
        );
    }
}

//! Attributes as text and back, by what their bytes mean.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::facts::integer;
use crate::model::{Value, text};
use crate::resource::Prefix;

/// What the bytes of an attribute mean, in the machine's order where nothing else
/// is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A number of one byte.
    Byte,
    /// A number of two bytes.
    Half,
    /// A number of four bytes.
    Word,
    /// A number of four or eight bytes, in network order.
    Network(usize),
    /// Two numbers of four bytes, `FIRST-LAST`.
    Words,
    /// Two numbers of two bytes, `FIRST-LAST`, or one where they are equal.
    Ports,
    /// Text that ends with a NUL.
    Text,
    /// An IPv4 or IPv6 address.
    Ip,
    /// A hardware address of any length.
    Lladdr,
}

impl Form {
    /// The bytes as text, where they have this form.
    pub fn show(self, bytes: &[u8]) -> Option<String> {
        Some(match self {
            Form::Byte => bytes.first()?.to_string(),
            Form::Half => half(bytes)?.to_string(),
            Form::Word => word(bytes)?.to_string(),
            Form::Network(size) => {
                let bytes = bytes.get(..size)?;
                let number = bytes.iter().fold(0, |sum: u64, b| sum << 8 | u64::from(*b));
                number.to_string()
            }
            Form::Words => format!("{}-{}", word(bytes)?, word(bytes.get(4..)?)?),
            Form::Ports => match (half(bytes)?, half(bytes.get(2..)?)?) {
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}-{last}"),
            },
            Form::Text => text::from_bytes(until_nul(bytes)),
            Form::Ip => ip(bytes)?.to_string(),
            Form::Lladdr => {
                let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                hex.join(":")
            }
        })
    }

    /// The bytes that text of this form stands for.
    pub fn read(self, text: &str) -> Option<Vec<u8>> {
        Some(match self {
            Form::Byte => vec![number(text)?],
            Form::Half => number::<u16>(text)?.to_ne_bytes().into(),
            Form::Word => number::<u32>(text)?.to_ne_bytes().into(),
            Form::Network(size) => {
                let bytes = number::<u64>(text)?.to_be_bytes();
                bytes.get(bytes.len().checked_sub(size)?..)?.into()
            }
            Form::Words => {
                let (first, last) = text.split_once('-')?;
                [number::<u32>(first)?, number(last)?]
                    .map(u32::to_ne_bytes)
                    .concat()
            }
            Form::Ports => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                [number::<u16>(first)?, number(last)?]
                    .map(u16::to_ne_bytes)
                    .concat()
            }
            Form::Text => [text::to_bytes(text), vec![0]].concat(),
            Form::Ip => octets(text.parse().ok()?),
            Form::Lladdr => {
                let bytes = text.split(':').map(|byte| u8::from_str_radix(byte, 16));
                bytes.collect::<Result<_, _>>().ok()?
            }
        })
    }
}

/// A number as people and the kernel write it.
pub fn number<T: TryFrom<i128>>(text: &str) -> Option<T> {
    T::try_from(integer(text)?).ok()
}

pub use crate::netlink::{half, word};

/// The bytes before the NUL that ends the kernel's texts.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(&[])
}

/// The address with these bytes.
pub fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(*bytes.first_chunk()?).into()),
        16 => Some(Ipv6Addr::from(*bytes.first_chunk()?).into()),
        _ => None,
    }
}

/// The bytes of an address.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(ip) => ip.octets().into(),
        IpAddr::V6(ip) => ip.octets().into(),
    }
}

/// The network with this address and length, host bits cleared.
pub fn network(address: IpAddr, length: u8) -> Option<Prefix> {
    let prefix = Prefix { address, length };
    (length <= longest(address)).then(|| prefix.network())
}

/// The length of a prefix that is a single address.
pub fn longest(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The text of attributes that have no name here, `NUMBER=BYTES` each.
pub fn other(list: &[(u16, &[u8])]) -> Option<Value> {
    let mut text = String::new();
    for (kind, bytes) in list {
        let _ = write!(text, " {kind}=");
        for byte in *bytes {
            let _ = write!(text, "{byte:02x}");
        }
    }
    (!text.is_empty()).then(|| Value::new(&text))
}

/// One attribute of that text.
pub fn read_other(field: &str) -> Option<(u16, Vec<u8>)> {
    let (kind, hex) = field.split_once('=')?;
    let digits = hex.as_bytes().chunks(2);
    let bytes = digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok());
    Some((kind.parse().ok()?, bytes.collect::<Option<_>>()?))
}

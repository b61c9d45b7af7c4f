//! Packets as a file of pcapng (draft-ietf-opsawg-pcapng), as tcpdump(8) and Wireshark read it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::log::{Kept, Log};
use super::probe::LONGEST;
use crate::diagnosis::observed::{Observations, Site};
use crate::model::Family;
use crate::words::plain;

/// Block types.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;
/// `LINKTYPE_IPV4` and `LINKTYPE_IPV6`: packets begin with the header of IP. tcpdump(8) reads no
/// more than one interface of `LINKTYPE_RAW`.
const LINK_TYPES: [u16; 2] = [228, 229];
/// Options: `if_name`, `if_tsresol` (a power of ten), `epb_flags` (1 in, 2 out).
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const FLAGS: u16 = 2;

/// A file for root alone, which is created with the first packets: who is killed before leaves
/// none behind.
#[derive(Debug)]
pub struct Capture {
    path: PathBuf,
    file: Option<File>,
}

impl Capture {
    /// With this name.
    ///
    /// # Errors
    /// Where something has it already.
    pub fn new(path: PathBuf) -> io::Result<Capture> {
        match path.symlink_metadata() {
            Ok(_) => Err(named(
                &path,
                &io::Error::from_raw_os_error(nix::libc::EEXIST),
            )),
            Err(_) => Ok(Capture { path, file: None }),
        }
    }

    /// Writes all packets that were kept.
    ///
    /// # Errors
    /// The system's; the file is removed then.
    pub fn write(&mut self, seen: &Observations, log: &Log) -> io::Result<()> {
        let written = self.append(&encode(seen, log.packets()));
        written.map_err(|error| named(&self.path, &error))
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                // This follows no link in the place of the file.
                let mut options = OpenOptions::new();
                let options = options.write(true).create_new(true).mode(0o600);
                none.insert(options.open(&self.path)?)
            }
        };
        let written = file.write_all(bytes);
        if written.is_err() {
            let _ = fs::remove_file(&self.path);
        }
        written
    }
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{}: {}", path.display(), plain(error)),
    )
}

fn encode(seen: &Observations, packets: &[Kept]) -> Vec<u8> {
    let mut bytes = Vec::new();
    block(&mut bytes, SECTION, |body| {
        body.extend(0x1a2b_3c4d_u32.to_ne_bytes());
        body.extend(1_u16.to_ne_bytes());
        body.extend(0_u16.to_ne_bytes());
        // Its length is not given.
        body.extend(u64::MAX.to_ne_bytes());
    });
    let mut packets: Vec<&Kept> = packets.iter().collect();
    packets.sort_by_key(|it| it.place.at);
    let [v4, v6] = LINK_TYPES;
    let link_type = match seen.packet.family() {
        Family::Ipv4 => v4,
        Family::Ipv6 => v6,
    };
    let mut interfaces: Vec<(Site, u32)> = Vec::new();
    for Kept { place, bytes: data } in packets {
        let side = (place.site, place.index);
        let number = interfaces.iter().position(|it| *it == side);
        let number = number.unwrap_or_else(|| {
            block(&mut bytes, INTERFACE, |body| {
                body.extend(link_type.to_ne_bytes());
                body.extend(0_u16.to_ne_bytes());
                body.extend((LONGEST as u32).to_ne_bytes());
                option(body, NAME, name(seen, side).as_bytes());
                option(body, RESOLUTION, &[9]);
                option(body, 0, &[]);
            });
            interfaces.push(side);
            interfaces.len() - 1
        });
        let at = u64::try_from(place.at.as_nanos()).unwrap_or(0);
        block(&mut bytes, PACKET, |body| {
            let [high, low] = [at >> 32, at & 0xffff_ffff];
            for number in [
                number as u64,
                high,
                low,
                data.len() as u64,
                place.length as u64,
            ] {
                body.extend(u32::try_from(number).unwrap_or(u32::MAX).to_ne_bytes());
            }
            body.extend(data);
            pad(body);
            let direction: u32 = if place.is_out { 2 } else { 1 };
            option(body, FLAGS, &direction.to_ne_bytes());
            option(body, 0, &[]);
        });
    }
    bytes
}

/// `eth0`, `eth0 of 10.65.0.2`
fn name(seen: &Observations, (site, index): (Site, u32)) -> String {
    let [source, target] = &seen.pods;
    let (pod, network) = match site {
        Site::Node => (None, Some(&seen.node)),
        Site::Source => (source.as_ref(), source.as_ref().map(|it| &it.network)),
        Site::Target => (target.as_ref(), target.as_ref().map(|it| &it.network)),
    };
    let link = network.and_then(|it| it.link_at(index));
    let name = link.map_or_else(|| format!("interface {index}"), |it| it.name.to_string());
    match pod {
        Some(pod) => format!("{name} of {}", pod.address),
        None => name,
    }
}

fn block(bytes: &mut Vec<u8>, kind: u32, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::new();
    fill(&mut body);
    // The length is there twice, and of all.
    let length = u32::try_from(body.len() + 12)
        .unwrap_or(u32::MAX)
        .to_ne_bytes();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(length);
    bytes.extend(body);
    bytes.extend(length);
}

fn option(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(kind.to_ne_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(0).to_ne_bytes());
    body.extend(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

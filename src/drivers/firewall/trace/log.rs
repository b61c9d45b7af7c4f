//! The log of the legacy tables' traces: nfnetlink_log, in place of the kernel's log, for as
//! long as it is needed.

use std::fs;
use std::io;
use std::path::Path;

use netlink_sys::Socket;
use nix::libc;

use super::{RECEIVE_BUFFER, codec};
use crate::model::{Errno, Family};
use crate::netlink::ask;
use crate::netlink::netfilter::subscribe;
use crate::netlink::number_of;
use crate::words::plain;

/// Who logs for a protocol.
const NAME: &str = "nfnetlink_log";

/// What the kernel logs of traces.
#[derive(Debug)]
pub struct Log {
    pub socket: Socket,
    logger: Logger,
}

/// The logger of an address family (`net.netfilter.nf_log.N`), as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logger {
    /// The family's number.
    pub number: u8,
    /// Its name.
    pub name: String,
}

impl Logger {
    fn file(&self) -> String {
        format!("/proc/sys/net/netfilter/nf_log/{}", self.number)
    }

    /// Has it log again, where no other program has chosen another meanwhile.
    pub fn restore(&self) {
        let now = fs::read_to_string(self.file()).unwrap_or_default();
        if now.trim() == NAME && self.name != NAME {
            let _ = fs::write(self.file(), &self.name);
        }
    }
}

impl Log {
    /// Opens it; nothing is changed yet.
    pub fn open(family: Family) -> Result<Log, String> {
        if !Path::new("/proc/net/netfilter/nfnetlink_log").exists() {
            return Err("the kernel has not loaded nfnetlink_log (modprobe it)".to_owned());
        }
        let mut logger = Logger {
            number: number_of(family),
            name: String::new(),
        };
        let name = fs::read_to_string(logger.file());
        let name = name.map_err(|error| format!("{}: {}", logger.file(), plain(&error)))?;
        name.trim().clone_into(&mut logger.name);
        let socket = subscribe(&[], RECEIVE_BUFFER, None);
        let socket = socket.map_err(|error| format!("nfnetlink_log: {}", plain(&error)))?;
        for request in codec::bind_log() {
            // The kernel answers before sending is over.
            ask(&socket, &request).map_err(|Errno(errno)| match errno {
                // That of a socket that another process has bound to it.
                libc::EBUSY | libc::EPERM => {
                    "another program (ulogd, or another trace) reads group 0 of nfnetlink_log"
                        .to_owned()
                }
                errno => format!("nfnetlink_log: {}", io::Error::from_raw_os_error(errno)),
            })?;
        }
        Ok(Log { socket, logger })
    }

    /// The logger that it takes the place of.
    pub fn replaced(&self) -> &Logger {
        &self.logger
    }

    /// Has traces come here.
    pub fn bind(&mut self) -> Result<(), String> {
        let file = self.logger.file();
        fs::write(&file, NAME).map_err(|error| format!("{file}: {}", plain(&error)))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.logger.restore();
    }
}

//! The services of IPVS, as kube-proxy makes them in its mode `ipvs`.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use crate::diagnosis::observed::{Protocol, Service};

/// The file that lists them, where the kernel has any.
const FILE: &str = "/proc/net/ip_vs";

/// Those of this network namespace.
pub fn read() -> Vec<Service> {
    services(&fs::read_to_string(FILE).unwrap_or_default())
}

/// Those in a text: a line for each service, and one for each of its servers.
pub fn services(text: &str) -> Vec<Service> {
    let mut found: Vec<Service> = Vec::new();
    let mut is_known = false;
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let protocol = match words.next() {
            Some("TCP") => Protocol::Tcp,
            Some("UDP") => Protocol::Udp,
            Some("->") => {
                let server = words.next().and_then(address).filter(|_| is_known);
                if let (Some(service), Some(server)) = (found.last_mut(), server) {
                    service.servers.push(server);
                }
                continue;
            }
            // By a mark, of another protocol, or a title.
            _ => {
                is_known = false;
                continue;
            }
        };
        let address = words.next().and_then(address);
        is_known = address.is_some();
        found.extend(address.map(|address| Service {
            protocol,
            address,
            servers: Vec::new(),
        }));
    }
    found
}

/// `0A600001:01BB`, `[2001:0db8:0000:0000:0000:0000:0000:0001]:01BB`
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.rsplit_once(':')?;
    let address = match address
        .strip_prefix('[')
        .and_then(|it| it.strip_suffix(']'))
    {
        Some(address) => address.parse().ok()?,
        None => IpAddr::from(u32::from_str_radix(address, 16).ok()?.to_be_bytes()),
    };
    Some(SocketAddr::new(
        address,
        u16::from_str_radix(port, 16).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_their_servers_are_read() {
        let text = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600001:01BB rr
  -> C0A80104:192B      Masq    1      0          0
  -> C0A80103:192B      Masq    1      0          0
FWM  00000001 rr
  -> C0A80105:192B      Masq    1      0          0
UDP  [2001:0db8:0000:0000:0000:0000:0000:000a]:0035 rr
SCTP 0A600001:01BB rr
UDP  x
";
        let found = services(text);
        let all: Vec<String> = found.iter().map(|it| it.address.to_string()).collect();
        assert_eq!(all, ["10.96.0.1:443", "[2001:db8::a]:53"]);
        let servers: Vec<String> = found[0].servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["192.168.1.4:6443", "192.168.1.3:6443"]);
        assert!(found[1].servers.is_empty() && found[1].protocol == Protocol::Udp);
    }
}

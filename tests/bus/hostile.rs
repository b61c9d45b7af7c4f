//! A manager that is none: what it sends costs little, and it is left alone.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread;
use std::time::Instant;

use netguard::dbus::Addresses;
use netguard::model::Source;
use netguard::sources::bus::systemd_at;
use zbus::{Message, ObjectPath};

use crate::listening::with_source;

const GREETING: &[u8] = b"OK 0123456789abcdef0123456789abcdef\r\n";

/// Sends `begin` and then `forever` again and again, until the other end goes.
/// Returns how much.
fn serve(mut stream: UnixStream, begin: &[u8], forever: &[u8]) -> usize {
    // Whatever is asked.
    let _ = stream.read(&mut [0; 64]);
    let mut sent = 0;
    if stream.write_all(begin).is_ok() {
        while stream.write_all(forever).is_ok() {
            sent += forever.len();
        }
    }
    sent
}

fn job(number: u32) -> Vec<u8> {
    let path = ObjectPath::try_from("/org/freedesktop/systemd1/job/1");
    let body = (number, path.expect("a path"), "network.service");
    Message::signal(
        "/org/freedesktop/systemd1",
        "org.freedesktop.systemd1.Manager",
        "JobNew",
    )
    .sender(":rg.freedesktop.systemd1")
    .build(&body)
    .expect("a message")
    .data()
    .bytes()
    .to_vec()
}

fn socket(name: &str) -> PathBuf {
    let name = format!("netguard-hostile-{}-{name}", std::process::id());
    std::env::temp_dir().join(name)
}

/// The loss that is reported when a peer sends this, and how much it could send.
fn loss(name: &str, begin: &[u8], forever: &[u8]) -> (String, usize) {
    let manager = socket(name);
    let _ = std::fs::remove_file(&manager);
    let addresses = Addresses {
        manager: manager.clone(),
        system_bus: "unix:path=/nonexistent".to_owned(),
    };
    let listener = UnixListener::bind(&manager).expect("a socket");
    let (begin, forever) = (begin.to_vec(), forever.to_vec());
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        serve(stream, &begin, &forever)
    });
    let mut why = String::new();
    let source = |events| async move { systemd_at(events, &addresses).await };
    with_source(source, async |mut events| {
        why = events.lost(&[Source::Systemd]).await;
    });
    let _ = std::fs::remove_file(manager);
    (why, server.join().expect("its end"))
}

#[test]
fn a_peer_without_end_is_left() {
    let mut absurd = job(1);
    absurd[4..8].copy_from_slice(&(120_u32 << 20).to_le_bytes());
    let long = [GREETING, &absurd].concat();
    let flood: Vec<u8> = (0..200).flat_map(job).collect();
    for (name, begin, forever, said) in [
        (
            "greeting",
            &b"OK "[..],
            &[b'x'; 4096][..],
            "a greeting without an end",
        ),
        ("message", &long, &[0; 4096], "more than 1 MiB"),
        ("flood", GREETING, &flood, "more than 8 MiB in a burst"),
    ] {
        let begun = Instant::now();
        let (why, sent) = loss(name, begin, forever);
        assert!(why.contains(said), "{name}: {why}");
        // A burst, what may come besides each second, and what the socket holds.
        let seconds = usize::try_from(begun.elapsed().as_secs()).expect("seconds");
        assert!(sent <= (10 + seconds) << 20, "{name}: {sent}");
    }
}

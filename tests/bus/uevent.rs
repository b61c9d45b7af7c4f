//! Module uevents of the real kernel.
//!
//! Loading modules is not for a test, and a kernel may be built without any. But
//! since Linux 4.18 root may hand the kernel an uevent, which it numbers and
//! sends to the listeners of the network namespace as its own
//! (uevent_net_broadcast in lib/kobject_uevent.c).

use netguard::engine::Event;
use netguard::model::Source;
use netguard::sources::uevent::uevents;
use netlink_sys::protocols::NETLINK_KOBJECT_UEVENT;
use netlink_sys::{Socket, SocketAddr};
use nix::sched::{CloneFlags, unshare};

use crate::listening::{Events, with_source};

/// The other end: a socket that hands messages to the kernel, or to the
/// listeners past it.
struct Kernel(Socket);

impl Kernel {
    /// Has the kernel send `header` with the fields that it has itself.
    fn send(&self, header: &str) {
        let (action, path) = header.split_once('@').expect("a header");
        let fields = format!("{header}\0ACTION={action}\0DEVPATH={path}\0SUBSYSTEM=module\0");
        let length = u32::try_from(16 + fields.len()).expect("a short message");
        // struct nlmsghdr: length, type NLMSG_MIN_TYPE, NLM_F_REQUEST, number, port.
        let mut message = Vec::new();
        message.extend(length.to_ne_bytes());
        message.extend(0x10_u16.to_ne_bytes());
        message.extend(1_u16.to_ne_bytes());
        message.extend([0; 8]);
        message.extend(fields.bytes());
        self.0
            .send_to(&message, &SocketAddr::new(0, 0), 0)
            .expect("root is needed here");
    }

    /// Sends to the listeners what only looks like a message of the kernel.
    fn forge(&self, header: &str) {
        self.0
            .send_to(header.as_bytes(), &SocketAddr::new(0, 1), 0)
            .expect("root is needed here");
    }
}

/// Runs a test and the source in a network namespace of their own, so that no
/// udev events for modules that do not exist.
fn with_kernel(test: impl AsyncFnOnce(Kernel, Events) + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("root is needed here");
        with_source(uevents, async |mut events| {
            events.back(&[Source::Uevent]).await;
            let socket = Socket::new(NETLINK_KOBJECT_UEVENT).expect("a socket");
            test(Kernel(socket), events).await;
        });
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn added(name: &str) -> Event {
    let name = name.to_owned();
    Event::ModuleAdded { name }
}

#[test]
fn a_module_that_comes_or_goes_is_detected() {
    with_kernel(async |kernel, mut events| {
        kernel.send("add@/module/br_netfilter");
        assert_eq!(events.next().await, added("br_netfilter"));
        kernel.send("remove@/module/br_netfilter");
        let name = "br_netfilter".to_owned();
        assert_eq!(events.next().await, Event::ModuleRemoved { name });
        kernel.send("add@/devices/virtual/net/cali1");
        kernel.send("add@/module/nf_conntrack");
        assert_eq!(events.next().await, added("nf_conntrack"));
    });
}

#[test]
fn only_the_kernel_is_believed() {
    with_kernel(async |kernel, mut events| {
        kernel.forge("add@/module/forged\0ACTION=add\0");
        kernel.send("add@/module/br_netfilter");
        assert_eq!(events.next().await, added("br_netfilter"));
    });
}

#[test]
fn an_overrun_is_a_gap_and_not_the_end() {
    with_kernel(async |kernel, mut events| {
        // The source does not run while this does not wait.
        for _ in 0..60_000 {
            // What is no module, and passes the filter.
            kernel.send("add@/module/br_netfilter/parameters");
        }
        let source = Source::Uevent;
        assert_eq!(events.next().await, Event::Gap { source });
        // The kernel drops what is sent until the socket has been emptied.
        let event = loop {
            kernel.send("add@/module/br_netfilter");
            tokio::select! {
                biased;
                event = events.next() => break event,
                () = tokio::task::yield_now() => {}
            }
        };
        assert_eq!(event, added("br_netfilter"));
    });
}

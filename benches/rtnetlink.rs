//! How soon a deleted route is back: the driver against a bare program that receives
//! RTM_DELROUTE and sends RTM_NEWROUTE. The driver writes on the loop, or on its thread
//! as it does while the kernel's lock is in demand; each with real time (`-rt`) too.
//!
//! `cargo bench --bench rtnetlink [ROUNDS]`, as root. Another bench has the daemon.

#![allow(clippy::print_stdout, reason = "its output")]

use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use netguard::drivers::rtnetlink::codec::{self, How, Listing, Request};
use netguard::drivers::rtnetlink::links::{Link, Links};
use netguard::drivers::rtnetlink::{News, Rtnetlink};
use netguard::model::{Family, Value};
use netguard::resource::{Attribute, Prefix, Resource, Route, State};
use netguard::sys::rtnl::Demand;
use netguard::sys::scheduling::{self, Role};
use netguard_lab::Namespace;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
/// RTNLGRP_IPV4_ROUTE
const ROUTES: u32 = 1 << 6;

fn socket(listings: u32) -> Socket {
    let mut socket = Socket::new(NETLINK_ROUTE).expect("a socket");
    socket.bind(&SocketAddr::new(0, listings)).expect("a port");
    socket
}

fn subject() -> (Resource, State, Links) {
    let to = Prefix::parse("192.168.4.25/32").expect("a prefix");
    let (table, from, tos, metric) = (254, None, 0, 0);
    let route = Route {
        table,
        to,
        from,
        tos,
        metric,
    };
    let state = State::with(vec![(Attribute::Dev, Value::new("lo"))]);
    let mut links = Links::default();
    let name = "lo".into();
    links.insert(1, Link { name, up: true });
    (Resource::Route(route.into()), state, links)
}

fn create() -> Vec<Request> {
    let (route, state, links) = subject();
    codec::write(&route, &state, How::Create, &links).expect("a request")
}

/// The first type of message that `socket` receives next.
fn receive(socket: &Socket, bytes: &mut Vec<u8>) -> u16 {
    bytes.clear();
    socket.recv(bytes, 0).expect("a message");
    codec::messages(bytes).next().expect("a message").kind
}

fn bare(ready: &Sender<()>) {
    let (heard, asks) = (socket(ROUTES), socket(0));
    let request = create()[0].bytes(4, 1);
    let (mut bytes, mut answer) = (Vec::with_capacity(32768), Vec::with_capacity(4096));
    ready.send(()).expect("it waits");
    loop {
        if receive(&heard, &mut bytes) == DEL_ROUTE {
            asks.send(&request, 0).expect("sent");
            receive(&asks, &mut answer);
        }
    }
}

#[derive(Clone, Copy)]
struct Guard {
    on_loop: bool,
    real_time: bool,
}

impl Guard {
    fn run(self, ready: &Sender<()>) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        let _within = runtime.enter();
        let listings = [Listing::Routes(Family::Ipv4)];
        let demand = Demand::default();
        let kept = Box::new(|_: &Resource, _: &State| true);
        let mut driver = Rtnetlink::open(&listings, kept, demand.clone()).expect("sockets");
        if self.real_time {
            scheduling::set_real_time(Role::Loop, true).expect("root");
            driver.share_real_time(true);
        }
        let (route, state, _) = subject();
        runtime.block_on(async {
            loop {
                match driver.news().await.expect("a socket") {
                    News::InSync(listing) if listing == listings[0] => {
                        let _ = ready.send(());
                    }
                    News::Changed { .. } if driver.read(&route) == Some(None) => {
                        if !self.on_loop {
                            demand.note();
                        }
                        driver.write(&route, Some(&state));
                    }
                    _ => {}
                }
            }
        });
    }
}

/// How long after it was deleted the route was back, in order.
fn measure(rounds: usize, guard: impl FnOnce(&Sender<()>) + Send + 'static) -> Vec<Duration> {
    let namespace = Namespace::new().expect("root");
    namespace.ip("link set lo up").expect("iproute2");
    let within = namespace.within(|| -> Result<Vec<Duration>, netguard_lab::Error> {
        let (ready, waits) = channel();
        let inside = thread::spawn(move || guard(&ready));
        waits.recv().expect("it starts");
        drop(inside);
        let (heard, asks) = (socket(ROUTES), socket(0));
        let mut bytes = Vec::with_capacity(32768);
        let (route, _, links) = subject();
        asks.send(&create()[0].bytes(4, 1), 0).expect("sent");
        receive(&asks, &mut bytes);
        let delete = codec::delete(&route, &links)
            .expect("a request")
            .bytes(4, 2);
        let mut took = Vec::new();
        while receive(&heard, &mut bytes) != NEW_ROUTE {}
        for _ in 0..rounds {
            // As seldom as it happens.
            thread::sleep(Duration::from_millis(1));
            let began = Instant::now();
            asks.send(&delete, 0).expect("sent");
            while receive(&heard, &mut bytes) != NEW_ROUTE {}
            took.push(began.elapsed());
            receive(&asks, &mut bytes);
        }
        Ok(took)
    });
    let mut took = within.expect("a namespace");
    took.sort();
    took
}

/// Reads so many routes, and prints how long that took, and how long the loop was kept
/// by a piece of it.
fn read(count: u32) {
    let namespace = Namespace::new().expect("root");
    namespace.ip("link set lo up").expect("iproute2");
    let within = namespace.within(|| -> Result<(), netguard_lab::Error> {
        let (_, state, links) = subject();
        let asks = socket(0);
        let mut answer = Vec::with_capacity(4096);
        for number in 0..count {
            let address = std::net::Ipv4Addr::from(0xac10_0000 + number).into();
            let to = Prefix {
                address,
                length: 32,
            };
            let (table, from, tos, metric) = (254, None, 0, 0);
            let route = Resource::Route(
                Route {
                    table,
                    to,
                    from,
                    tos,
                    metric,
                }
                .into(),
            );
            let request = codec::write(&route, &state, How::Create, &links);
            asks.send(&request.expect("a request")[0].bytes(4, 1), 0)
                .expect("sent");
            receive(&asks, &mut answer);
        }
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().expect("a runtime");
        let _within = runtime.enter();
        let listings = [Listing::Routes(Family::Ipv4)];
        let kept = Box::new(|_: &Resource, _: &State| true);
        let driver = Rtnetlink::open(&listings, kept, Demand::default());
        let mut driver = driver.expect("sockets");
        let (began, mut longest) = (Instant::now(), Duration::ZERO);
        runtime.block_on(async {
            loop {
                let mut news = std::pin::pin!(driver.news());
                let polled = std::future::poll_fn(|context| {
                    let busy = netguard::clock::of_this_thread();
                    let polled = news.as_mut().poll(context);
                    longest = longest.max(netguard::clock::of_this_thread() - busy);
                    polled
                });
                let news = polled.await.expect("a socket");
                if news == News::InSync(listings[0]) {
                    break;
                }
            }
        });
        let took = began.elapsed();
        println!("{count} routes read in {took:?}, at most {longest:?} at a time");
        Ok(())
    });
    within.expect("a namespace");
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let name =
        arguments.find(|it| it == "bare" || it == "thread" || it == "loop" || it.ends_with("-rt"));
    if let Some(name) = name {
        let rounds = std::env::args()
            .find_map(|it| it.parse().ok())
            .unwrap_or(2000);
        let real_time = name.ends_with("-rt");
        let took = match name.trim_end_matches("-rt") {
            "bare" => measure(rounds, bare),
            which => {
                let guard = Guard {
                    on_loop: which == "loop",
                    real_time,
                };
                measure(rounds, move |ready| guard.run(ready))
            }
        };
        let at = |percent: usize| took[(took.len() - 1) * percent / 100];
        println!(
            "{name:10} median {:?} p99 {:?} max {:?}",
            at(50),
            at(99),
            at(100)
        );
        // The guard's threads never end.
        std::process::exit(0);
    }
    read(5000);
    let rounds = std::env::args()
        .find_map(|it| it.parse::<u32>().ok())
        .unwrap_or(2000);
    let own = std::env::current_exe().expect("a path");
    for name in ["bare", "thread", "loop", "thread-rt", "loop-rt", "bare"] {
        let mut command = Command::new(&own);
        command
            .args([name, &rounds.to_string()])
            .status()
            .expect("it runs");
    }
}

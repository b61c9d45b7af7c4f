//! A flow of UDP packets through the node, and what an incident costs it.
//!
//! A pod and an outside host in network namespaces of their own are joined by
//! the node's. One thread does all: it sends a numbered packet every 100 us,
//! writes the 0 between two of them, and collects what has arrived. On veth the
//! kernel takes a packet the whole way within the call that sends it, so whether
//! it is lost depends on the value at that moment alone.

use std::net::UdpSocket;
use std::thread;
use std::time::{Duration, Instant};

use netguard_lab::World;
use nix::sys::socket::{setsockopt, sockopt};

use super::Outcome;
use super::cores::Cores;
use super::stopwatch::{PATIENCE, Random, Value};

/// From one packet to the next: 10,000 a second.
const INTERVAL: Duration = Duration::from_micros(100);
/// So long before a packet is due the sender stops sleeping and spins.
const LEAD: Duration = Duration::from_micros(30);
/// Packets before and after an incident that must all arrive.
const CALM: u32 = 20;

/// The two ends of the flow.
pub struct Flow {
    pod: UdpSocket,
    outside: UdpSocket,
}

/// What incidents cost.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    /// Packets lost, for each incident.
    pub lost: Vec<u32>,
    /// Incidents never restored.
    pub missed: usize,
}

impl Flow {
    /// Wires a pod and an outside host to the calling thread's network
    /// namespace, the node, and has it forward.
    pub fn wire() -> Outcome<Flow> {
        let World { pod, outside } = World::wire()?;
        for socket in [&pod, &outside] {
            socket.set_nonblocking(true)?;
            // Room for all that a slow sender of news leaves unread.
            setsockopt(socket, sockopt::RcvBufForce, &(32 << 20))?;
        }
        Ok(Flow { pod, outside })
    }

    /// Has `incidents` incidents, on a thread that is the instrument; no new one
    /// after `budget`.
    pub fn measure(
        &self,
        cores: &Cores,
        incidents: usize,
        phase: Duration,
        budget: Duration,
    ) -> Outcome<Losses> {
        thread::scope(|scope| {
            let instrument = scope.spawn(|| {
                cores.become_instrument()?;
                let mut sender = Sender::new(self)?;
                let began = Instant::now();
                let mut losses = Losses::default();
                while losses.lost.len() < incidents && began.elapsed() < budget {
                    sender.incident(phase, &mut losses)?;
                }
                Ok(losses)
            });
            instrument
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn send(&self, number: u32) {
        // An error is the network's answer to an earlier packet.
        let _ = self.pod.send(&number.to_be_bytes());
    }

    fn arrived(&self) -> Vec<u32> {
        let mut numbers = Vec::new();
        let mut packet = [0; 4];
        while let Ok(4) = self.outside.recv(&mut packet) {
            numbers.push(u32::from_be_bytes(packet));
        }
        numbers
    }
}

struct Sender<'a> {
    flow: &'a Flow,
    value: Value,
    random: Random,
    due: Instant,
    number: u32,
    arrived: u32,
}

impl Sender<'_> {
    fn new(flow: &Flow) -> Outcome<Sender<'_>> {
        flow.arrived();
        Ok(Sender {
            flow,
            value: Value::open()?,
            random: Random::new(),
            due: Instant::now(),
            number: 0,
            arrived: 0,
        })
    }

    /// Sends the next packet when it is due. The sender sleeps in between, so
    /// that the core is free for what else the kernel has to do there.
    fn packet(&mut self) {
        self.due += INTERVAL;
        self.wait_until(self.due);
        self.number += 1;
        self.flow.send(self.number);
        self.arrived += u32::try_from(self.flow.arrived().len()).unwrap_or(u32::MAX);
    }

    fn wait_until(&self, moment: Instant) {
        let left = moment.saturating_duration_since(Instant::now());
        thread::sleep(left.saturating_sub(LEAD));
        while Instant::now() < moment {
            std::hint::spin_loop();
        }
    }

    fn incident(&mut self, phase: Duration, losses: &mut Losses) -> Outcome<()> {
        if !self.value.is_set()? {
            self.value.set()?;
        }
        self.due = Instant::now();
        let calm_until = self.due + self.random.up_to(phase);
        (0..CALM).for_each(|_| self.packet());
        while Instant::now() < calm_until {
            self.packet();
        }
        (self.number, self.arrived) = (0, 0);
        let within = self.random.up_to(INTERVAL - LEAD);
        self.wait_until(self.due + within);
        let began = Instant::now();
        self.value.clear()?;
        loop {
            self.packet();
            if self.value.is_set()? {
                break;
            }
            if began.elapsed() > PATIENCE {
                losses.missed += 1;
                self.value.set()?;
                break;
            }
        }
        (0..CALM).for_each(|_| self.packet());
        losses.lost.push(self.number.saturating_sub(self.arrived));
        Ok(())
    }
}

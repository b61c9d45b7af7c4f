//! A steady flow of numbered packets, and what became of them.

use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::{Error, Step};
use crate::world::World;

/// From one packet to the next: 1,000 a second.
const INTERVAL: Duration = Duration::from_millis(1);
/// How far the sender may fall behind its timetable before it gives up on
/// catching up: a burst could fill the receiver's buffer and count as a loss.
const SLACK: Duration = Duration::from_millis(20);
/// How long the receiver waits for packets that may still be on their way.
const LAST_CALL: Duration = Duration::from_millis(100);

/// A flow that runs. Dropping it stops it.
#[derive(Debug)]
pub struct Flow {
    /// When the first packet was sent.
    pub started: Instant,
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<Vec<Instant>>>,
    receiver: Option<JoinHandle<Vec<bool>>>,
}

/// What became of the packets, by when they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Packets sent.
    pub sent: usize,
    /// Packets lost.
    pub lost: usize,
    /// Lost ones that were sent while the network restarted.
    pub lost_during: usize,
    /// Packets sent after the restart was over.
    pub sent_after: usize,
    /// Lost ones among them.
    pub lost_after: usize,
}

impl Figures {
    /// Whether nothing came through after the restart.
    pub fn cut_off(&self) -> bool {
        self.lost_after == self.sent_after
    }
}

impl Flow {
    /// Starts to receive, then to send.
    ///
    /// # Errors
    /// Where there is no thread left.
    pub fn start(world: World) -> Result<Flow, Error> {
        let World { pod, outside } = world;
        outside
            .set_read_timeout(Some(LAST_CALL))
            .map_err(Error::at(Step::Socket))?;
        let thread = Error::at(Step::Thread);
        let stop = Arc::new(AtomicBool::new(false));
        // Lives as long as the sender.
        let sending = Arc::new(());
        let over = Arc::downgrade(&sending);
        let receiver = thread::Builder::new()
            .spawn(move || receive(&outside, &over))
            .map_err(&thread)?;
        let started = Instant::now();
        let ended = Arc::clone(&stop);
        let sender = thread::Builder::new()
            .spawn(move || {
                let sent = send(&pod, started, &ended);
                drop(sending);
                sent
            })
            .map_err(thread)?;
        Ok(Flow {
            started,
            stop,
            sender: Some(sender),
            receiver: Some(receiver),
        })
    }

    /// Stops to send, receives what is still on its way and counts, given when
    /// the network restart began and when it was over.
    pub fn finish(mut self, began: Instant, over: Instant) -> Figures {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.take().map(joined).unwrap_or_default();
        let arrived = self.receiver.take().map(joined).unwrap_or_default();
        count(&sent, &arrived, began, over)
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.sender.take().map(joined);
        let _ = self.receiver.take().map(joined);
    }
}

fn joined<T>(thread: JoinHandle<T>) -> T {
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Sends until it is asked to stop; returns when each packet was sent.
fn send(pod: &UdpSocket, started: Instant, stop: &AtomicBool) -> Vec<Instant> {
    let mut sent = Vec::new();
    let mut due = started;
    let mut number = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        let mut now = Instant::now();
        if now < due {
            thread::sleep(due - now);
            now = Instant::now();
        } else if now - due > SLACK {
            due = now;
        }
        // An error is the network's answer to an earlier packet, or says that
        // there is no way: this packet is lost, and the receiver will count so.
        let _ = pod.send(&number.to_be_bytes());
        sent.push(now);
        number += 1;
        due += INTERVAL;
    }
    sent
}

/// Receives until the sender is gone and nothing comes any more; says of each
/// number whether it arrived.
fn receive(outside: &UdpSocket, sending: &Weak<()>) -> Vec<bool> {
    let mut arrived = Vec::new();
    loop {
        let was_sending = sending.strong_count() > 0;
        let mut packet = [0; 4];
        match outside.recv(&mut packet) {
            Ok(length) if length == packet.len() => {
                let number = u32::from_be_bytes(packet) as usize;
                if arrived.len() <= number {
                    arrived.resize(number + 1, false);
                }
                arrived[number] = true;
            }
            // One of the first packets that were sent to resolve the addresses.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) if was_sending => {}
            Err(_) => return arrived,
        }
    }
}

fn count(sent: &[Instant], arrived: &[bool], began: Instant, over: Instant) -> Figures {
    let mut figures = Figures::default();
    for (number, &at) in sent.iter().enumerate() {
        let lost = usize::from(!arrived.get(number).is_some_and(|arrived| *arrived));
        figures.sent += 1;
        figures.lost += lost;
        if at >= over {
            figures.sent_after += 1;
            figures.lost_after += lost;
        } else if at >= began {
            figures.lost_during += lost;
        }
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_count_by_when_the_packet_was_sent() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let sent: Vec<Instant> = (0..10).map(at).collect();
        let arrived = [
            true, false, true, false, false, true, true, true, false, true,
        ];
        assert_eq!(
            count(&sent, &arrived, at(3), at(6)),
            Figures {
                sent: 10,
                lost: 4,
                lost_during: 2,
                sent_after: 4,
                lost_after: 1,
            }
        );
    }
}

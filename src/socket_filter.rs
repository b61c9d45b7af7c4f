//! Programs that the kernel runs on a message before a socket takes it in
//! (`SO_ATTACH_FILTER`, Documentation/networking/filter.rst): irrelevant messages
//! cause no wake-up.
//!
//! A program loads numbers in network order, whatever order they were written
//! in; [`word`] and [`half`] are constants to compare with, as the kernel's own
//! structures have them. A load beyond the message's end refuses it.

use std::os::fd::AsFd;

use socket2::SockRef;

pub use socket2::SockFilter as Step;

/// Has `socket` take in only what `program` accepts.
///
/// Where the kernel refuses it the socket takes in total, as it did before: the
/// reader does not rely on it.
pub fn attach(socket: &impl AsFd, program: &[Step]) {
    let _ = SockRef::from(socket).attach_filter(program);
}

/// Loads the four bytes at `offset`.
pub const fn load_word(offset: u32) -> Step {
    Step::new(0x20, 0, 0, offset) // BPF_LD | BPF_W | BPF_ABS
}

/// Loads the two bytes at `offset`.
pub const fn load_half(offset: u32) -> Step {
    Step::new(0x28, 0, 0, offset) // BPF_LD | BPF_H | BPF_ABS
}

/// Loads the byte at `offset`.
pub const fn load_byte(offset: u32) -> Step {
    Step::new(0x30, 0, 0, offset) // BPF_LD | BPF_B | BPF_ABS
}

/// Keeps what was loaded last for [`equals_kept`].
pub const fn keep() -> Step {
    Step::new(0x07, 0, 0, 0) // BPF_MISC | BPF_TAX
}

/// Leaves out the next `then` steps where what was loaded is `value`, else the
/// next `otherwise`.
pub const fn equals(value: u32, then: u8, otherwise: u8) -> Step {
    Step::new(0x15, then, otherwise, value) // BPF_JMP | BPF_JEQ | BPF_K
}

/// As [`equals`], where what was loaded has any of the bits of `value`.
pub const fn has_any(value: u32, then: u8, otherwise: u8) -> Step {
    Step::new(0x45, then, otherwise, value) // BPF_JMP | BPF_JSET | BPF_K
}

/// As [`equals`], with what was kept.
pub const fn equals_kept(then: u8, otherwise: u8) -> Step {
    Step::new(0x1d, then, otherwise, 0) // BPF_JMP | BPF_JEQ | BPF_X
}

/// Takes the message in.
pub const ACCEPT: Step = Step::new(0x06, 0, 0, u32::MAX); // BPF_RET | BPF_K

/// Drops the message.
pub const REFUSE: Step = Step::new(0x06, 0, 0, 0); // BPF_RET | BPF_K

/// Four bytes as [`load_word`] loads them, of a number in the machine's order.
pub const fn word(number: u32) -> u32 {
    number.to_be()
}

/// Two bytes as [`load_half`] loads them, of a number in the machine's order.
pub const fn half(number: u16) -> u32 {
    number.to_be() as u32
}

/// Which of `messages` a socket with this program takes in, as the kernel has it.
///
/// # Panics
/// Where the kernel refuses the program.
#[cfg(test)]
pub fn accepted<'a>(program: &[Step], messages: &[&'a [u8]]) -> Vec<&'a [u8]> {
    use std::os::unix::net::UnixDatagram;

    let (here, there) = UnixDatagram::pair().expect("a pair of sockets");
    SockRef::from(&there)
        .attach_filter(program)
        .expect("a program that the kernel takes");
    there.set_nonblocking(true).expect("a socket of our own");
    let is_taken_in = |message: &&&[u8]| {
        here.send(message).expect("room");
        there.recv(&mut [0; 512]).is_ok()
    };
    messages.iter().filter(is_taken_in).copied().collect()
}

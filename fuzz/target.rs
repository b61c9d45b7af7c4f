//! A fuzz target: the decoder that has this program's name.

#![no_main]

mod decoders;

use std::sync::LazyLock;

use decoders::{DECODERS, Decoder};

static DECODER: LazyLock<&Decoder> = LazyLock::new(|| {
    let name = env!("CARGO_BIN_NAME");
    let decoder = DECODERS.iter().find(|it| it.name == name);
    decoder.expect("a decoder of this name")
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| DECODER.run(input));

//! The parts without Envoy: `native INPUT PART TIMES` prints the nanoseconds that they took; so does the part `libsecp256k1`, which is a
//! recovery by the library in C.

use std::hint::black_box;
use std::time::Instant;
use x402_bench_parts::Parts;
use x402_bench_parts::replay::MemoryStore;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, input, part, times] = &arguments[..] else {
        eprintln!("usage: native INPUT PART TIMES");
        std::process::exit(2);
    };
    let times: u32 = times.parse().expect("a number");
    if part == "libsecp256k1" {
        return println!("{}", libsecp256k1(times));
    }
    let mut parts = Parts::new(&std::fs::read(input).expect("the input can be read")).expect("the input is good");
    let store = MemoryStore::new();
    let began = Instant::now();
    parts.run(part, times, &store).expect("a known part");
    println!("{}", began.elapsed().as_nanos());
}

/// Recovers a key so many times; in nanoseconds.
fn libsecp256k1(times: u32) -> u128 {
    use secp256k1::{Message, Secp256k1, SecretKey};
    let context = Secp256k1::new();
    let message = Message::from_digest([9; 32]);
    let key = SecretKey::from_byte_array([3; 32]).expect("a key");
    let signature = context.sign_ecdsa_recoverable(message, &key);
    let began = Instant::now();
    for _ in 0..times {
        black_box(context.recover_ecdsa(black_box(message), black_box(&signature)).expect("recovers"));
    }
    began.elapsed().as_nanos()
}

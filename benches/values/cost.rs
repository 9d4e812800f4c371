//! What a field costs, beside its codec alone: `cargo run --release --manifest-path
//! benches/values/Cargo.toml --bin cost`. All take turns in one run, and each one's quickest batch counts.
//! They write into a buffer that is there already, as a save has one.

use std::{
    collections::HashMap,
    hint::black_box,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sessions::{
    Codec,
    testing::{read_value, store_value},
};

const ROUNDS: usize = 200;
const BATCH: u32 = 500;

#[derive(Serialize, Deserialize)]
struct Line {
    id: u32,
    name: String,
    qty: u16,
    price: u32,
}

fn line(id: u32) -> Line {
    Line { id, name: "teapot".to_string(), qty: 2, price: 1_999 }
}

fn main() {
    println!(
        "| field | bincode alone | MessagePack alone | this library, bincode | this library, MessagePack |"
    );
    println!("| --- | --- | --- | --- | --- |");
    row("u32", 300_u32);
    row("String of 12", "Grace Hopper".to_string());
    row(
        "DateTime<Utc>",
        DateTime::<Utc>::from_timestamp(1_790_000_000, 123_456_789).expect("a time"),
    );
    row("struct of 4", line(7));
    row("Vec of 10 such", (0..10).map(line).collect::<Vec<_>>());
    row(
        "HashMap<String, u32> of 10",
        (0..10).map(|number| (format!("k{number}"), number * 100)).collect::<HashMap<_, _>>(),
    );
}

fn row<F: Serialize + DeserializeOwned + Send + Sync + 'static>(label: &str, value: F) {
    let bincode = bincode::config::standard();
    let encode: [&dyn Fn(&mut Vec<u8>); 4] = [
        &|buffer| {
            bincode::serde::encode_into_std_write(&value, buffer, bincode).expect("it encodes");
        },
        &|buffer| rmp_serde::encode::write_named(buffer, &value).expect("it encodes"),
        &|buffer| store_value(Codec::Bincode, &value, buffer).expect("it encodes"),
        &|buffer| store_value(Codec::MessagePack, &value, buffer).expect("it encodes"),
    ];
    let bytes = encode.map(|encode| {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        bytes
    });
    let mut buffer = Vec::with_capacity(4096);
    let decode: [&dyn Fn() -> F; 4] = [
        &|| bincode::serde::decode_from_slice(&bytes[0], bincode).expect("it decodes").0,
        &|| rmp_serde::from_slice(&bytes[1]).expect("it decodes"),
        &|| read_value(&bytes[2]).expect("it decodes"),
        &|| read_value(&bytes[3]).expect("it decodes"),
    ];
    let mut quickest = [[Duration::MAX; 4]; 2];
    for _ in 0..ROUNDS {
        for at in 0..4 {
            let write = || {
                buffer.clear();
                encode[at](&mut buffer);
            };
            let times = [batch(write), batch(decode[at])];
            for (quickest, time) in quickest.iter_mut().zip(times) {
                quickest[at] = quickest[at].min(time);
            }
        }
    }
    let cells = (0..4).map(|at| {
        let [encode, decode] = quickest.map(|times| times[at].as_nanos());
        format!("{} B, {encode}, {decode}", bytes[at].len())
    });
    println!("| {label} | {} |", cells.collect::<Vec<_>>().join(" | "));
}

fn batch<R>(mut work: impl FnMut() -> R) -> Duration {
    let start = Instant::now();
    for _ in 0..BATCH {
        black_box(work());
    }
    start.elapsed() / BATCH
}

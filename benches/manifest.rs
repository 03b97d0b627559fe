//! The cost of hashing chunks and whole files, each beside plain BLAKE3 of the same bytes, and of checking a manifest.

use criterion::{Criterion, Throughput};
use elver::manifest::{CHUNK_BYTES_MIN, HashAs, Manifest, ManifestBuilder};
use std::hint::black_box;

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i % 251) as u8).collect()
}

/// The bytes that the disk hands over at a time.
const SLICE_BYTES: usize = 256 << 10;

fn build(length: u64, slices: impl Iterator<Item = impl AsRef<[u8]>>) -> Manifest {
    let mut builder = ManifestBuilder::new(length).expect("an allowed length");
    slices.for_each(|slice| builder.update(slice.as_ref()));
    builder.finish().expect("all bytes were fed")
}

fn chunk(criterion: &mut Criterion) {
    let bytes = content(CHUNK_BYTES_MIN as usize);
    let mut group = criterion.benchmark_group("chunk of 256 KiB");
    group.throughput(Throughput::BytesDecimal(bytes.len() as u64));
    group.bench_function("chaining value", |bencher| {
        bencher.iter(|| {
            let form = HashAs::Subtree { input_offset: 3 * CHUNK_BYTES_MIN };
            let mut hasher = form.hasher();
            hasher.update(black_box(&bytes));
            form.key(&hasher)
        })
    });
    group.bench_function("plain BLAKE3", |bencher| bencher.iter(|| blake3::hash(black_box(&bytes))));
    group.finish();
}

fn file(criterion: &mut Criterion) {
    let bytes = content(64 << 20);
    let mut group = criterion.benchmark_group("file of 64 MiB");
    group.sample_size(20).throughput(Throughput::BytesDecimal(bytes.len() as u64));
    group.bench_function("manifest", |bencher| {
        bencher.iter(|| build(bytes.len() as u64, black_box(&bytes).chunks(SLICE_BYTES)))
    });
    group.bench_function("plain BLAKE3", |bencher| bencher.iter(|| blake3::hash(black_box(&bytes))));
    group.finish();
}

fn check(criterion: &mut Criterion) {
    // 1 GiB is 4,096 chunks of 256 KiB, the most chunks that a manifest has.
    let slice = content(SLICE_BYTES);
    let manifest = build(1 << 30, std::iter::repeat_n(&slice, 4096));
    let bytes = manifest.encode();
    let mut group = criterion.benchmark_group("manifest of 4,096 chunks");
    group.throughput(Throughput::Elements(u64::from(manifest.chunk_count())));
    group.bench_function("check", |bencher| {
        bencher.iter(|| Manifest::decode(black_box(&bytes), &manifest.hash()).is_ok())
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    chunk(&mut criterion);
    file(&mut criterion);
    check(&mut criterion);
    criterion.final_summary();
}

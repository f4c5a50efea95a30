//! Each target over its corpus and some more, without a fuzzer: `make test-fuzz`. `FRAMEPORT_FUZZ_INPUTS=100000` is more of it.

use std::panic::catch_unwind;
use std::path::Path;

use frameport_fuzz::TARGETS;

/// Chance, by a seed (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) as usize % limit
    }

    /// A file of the corpus with a few bytes changed, moved or left out, or anything at all.
    fn input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        if self.below(4) == 0 {
            return (0..self.below(200)).map(|_| self.below(256) as u8).collect();
        }
        let mut bytes = corpus[self.below(corpus.len())].clone();
        for _ in 0..1 + self.below(4) {
            let at = self.below(bytes.len() + 1);
            match self.below(4) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.below(256) as u8),
                2 => bytes.extend_from_within(at..),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte = self.below(256) as u8),
            }
        }
        bytes
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

fn run(target: fn(&[u8]), bytes: &[u8]) {
    if catch_unwind(|| target(bytes)).is_err() {
        panic!("with {} bytes: {}", bytes.len(), bytes.escape_ascii());
    }
}

#[test]
fn every_target_holds_over_its_corpus_and_what_is_like_it() {
    let inputs = std::env::var("FRAMEPORT_FUZZ_INPUTS").map_or(2000, |inputs| inputs.parse().unwrap());
    for (name, target) in TARGETS {
        let (corpus, mut random) = (corpus(name), Random(0));
        assert!(!corpus.is_empty(), "no corpus of {name}");
        corpus.iter().for_each(|bytes| run(target, bytes));
        (0..inputs).for_each(|_| run(target, &random.input(&corpus)));
    }
}

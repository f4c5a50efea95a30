//! A worker that speaks the protocol by hand and can therefore lie: it stores any word anywhere in what it may write.

use std::sync::Arc;

use frameport_mem::park::Bells;
use frameport_mem::pixels::Bytes;
use frameport_sys::event::Doorbell;
use frameport_sys::inherit;
use frameport_sys::memory::{Map, Region, Writers};
use frameport_sys::socket::Control;
use frameport_wire::control::{self, Decoder, Hello, ToHost, ToWorker, WaitStrategy, Welcome};
use frameport_wire::descriptor::Descriptor;
use frameport_wire::layout::{ENTRIES, PRODUCED, SIZES, TAKEN, blocks, page_len};

/// One region as this worker got it.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) region: Region,
    pub(crate) map: Arc<Map>,
    /// Whether only the host may write it.
    pub(crate) sealed: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) link: Control,
    pub(crate) welcome: Welcome,
    /// Control regions of the host and of this worker, then for each pool: pixels, host's page, worker's page.
    pub(crate) regions: Vec<Got>,
    /// Offset of each channel's block.
    pub(crate) blocks: Vec<usize>,
    bells: Bells,
}

impl Rig {
    /// Connects and says that it is ready.
    pub(crate) fn connect() -> Self {
        let link = inherit::take_link().unwrap();
        let hello =
            Hello { protocol: (1, 1), layout: SIZES, pid: std::process::id(), library: "rig".into(), output: None };
        say(&link, &ToHost::Hello(hello));
        let (mut decoder, mut handles, mut bytes) = (Decoder::default(), Vec::new(), [0; 4096]);
        let welcome = loop {
            let read = link.recv_with_handles(&mut bytes, &mut handles).unwrap();
            assert!(read > 0, "the host is gone");
            decoder.push(&bytes[..read]);
            if let Some(ToWorker::Welcome(welcome)) = decoder.decode().unwrap() {
                break welcome;
            }
        };
        let capacities: Vec<usize> = welcome.channels.iter().map(|channel| channel.capacity).collect();
        let (offsets, control) = blocks(&capacities);
        let mut sizes = vec![(control, true), (control, false)];
        for pool in welcome.channels.iter().map(|channel| &channel.pool) {
            let page = page_len(pool.slots, pool.meta);
            sizes.extend([(pool.len, false), (page, true), (page, false)]);
        }
        let doorbell = handles.pop().unwrap();
        let got = handles.into_iter().zip(sizes).map(|(handle, (len, sealed))| {
            let writers = if sealed { Writers::Creator } else { Writers::All };
            let region = Region::adopt(handle, len, writers).unwrap();
            Got { map: Arc::new(region.map(!sealed).unwrap()), region, sealed }
        });
        let regions: Vec<Got> = got.collect();
        let bells =
            Bells::new(&regions[1].map, &regions[0].map, Doorbell::adopt(doorbell), WaitStrategy::Park).unwrap();
        let rig = Self { link, welcome, regions, blocks: offsets, bells };
        say(&rig.link, &ToHost::Ready);
        rig
    }

    pub(crate) fn load(&self, region: usize, offset: usize) -> u64 {
        let mut word = [0; 8];
        assert!(Bytes::new(&self.regions[region].map, offset, 8).unwrap().copy_to(0, &mut word));
        u64::from_le_bytes(word)
    }

    pub(crate) fn store(&self, region: usize, offset: usize, word: u64) {
        assert!(Bytes::new(&self.regions[region].map, offset, 8).unwrap().copy_from(0, &word.to_le_bytes()));
    }

    /// Waits until the host has sent `count` frames.
    pub(crate) fn await_frames(&self, count: u64) {
        while self.load(0, self.blocks[0] + PRODUCED) < count {
            std::thread::yield_now();
        }
    }

    /// Waits for the host's word about a slot of the output pool.
    pub(crate) fn await_word(&self, slot: usize, word: u64) {
        while self.load(6, slot * 8) != word {
            std::thread::yield_now();
        }
    }

    /// Stores this worker's word about a slot of the input pool.
    pub(crate) fn say_of(&self, slot: usize, word: u64) {
        self.store(4, slot * 8, word);
    }

    /// Says how many entries of the input channel this worker has taken.
    pub(crate) fn say_taken(&self, count: u64) {
        self.store(1, self.blocks[0] + TAKEN, count);
    }

    /// Stores a word of the output channel's block.
    pub(crate) fn set(&self, offset: usize, word: u64) {
        self.store(1, self.blocks[1] + offset, word);
        self.ring();
    }

    /// An honest description of the first frame in the first slot of the output pool.
    pub(crate) fn first(&self) -> Descriptor {
        let channel = &self.welcome.channels[1];
        let payload_len = channel.spec.payload_capacity().unwrap() as u64;
        Descriptor { pool: channel.pool.id, generation: 1, payload_len, ..Descriptor::default() }
    }

    /// Writes entry `index` of the output ring and makes it visible.
    pub(crate) fn publish(&self, index: u64, words: [u64; 8]) {
        let capacity = self.welcome.channels[1].capacity as u64;
        let start = self.blocks[1] + ENTRIES + (index % capacity) as usize * 64;
        // Word 0 last: it says that the others are there.
        for (place, word) in words.into_iter().enumerate().rev() {
            self.store(1, start + place * 8, word);
        }
        self.set(PRODUCED, index + 1);
    }

    /// Sends a message that may be none.
    pub(crate) fn say_json(&self, text: &str) {
        let bytes = [&u32::try_from(text.len()).unwrap().to_le_bytes(), text.as_bytes()].concat();
        self.link.send(&bytes, &[]).unwrap();
    }

    /// Wakes the host.
    pub(crate) fn ring(&self) {
        self.bells.ring(u64::MAX);
    }
}

pub(crate) fn say(link: &Control, message: &ToHost) {
    link.send(&control::encode(message).unwrap(), &[]).unwrap();
}

//! Messages as no kernel writes them, straight to what looks at them: counts, sizes and trailers that lie.
//!
//! Whatever a buffer says, each one is destroyed once, as it came but for rights that were taken out, and each of those is
//! released once; and but for memory, all of which is to be unmapped.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use frameport_sys::mach::check_in::{CHECK_IN, Hello, VERSION, id};
use frameport_sys::mach::death::News;
use frameport_sys::mach::error::Sign;
use frameport_sys::mach::message::{COMPLEX, MOVE_SEND, at};
use frameport_sys::mach::received::ReceiveError;
use frameport_sys::mach::rendezvous::{Rendezvous, WorkerId};
use frameport_sys::mach::surface::{Geometry, Opened};
use frameport_sys::mach::task::Notify;
use frameport_sys::mach::worker::CheckedIn;
use frameport_sys::mach::{Buffer, Kern, Name, ReceiveRight, Received, Surface, Task, handover};
use frameport_sys::pixels::Intent;

use crate::choices::Choices;
use crate::world::{UID, nonce, over, payload_of};

const WORDS: usize = Buffer::BYTES as usize / 4;
const HOST: u32 = 7;
const LIMIT: Duration = Duration::ZERO;

pub fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let task = Liar::default();
    let port = ReceiveRight::new(&task, 5).expect("it always makes one");
    let mut opened = Opened::new();
    while !choices.are_over() {
        task.0.borrow_mut().receive_next(&mut choices);
        match choices.below(5) {
            0 => accept(&task, &port, &mut choices),
            1 => read_news(&task),
            2 => read_welcome(&task, &mut choices),
            3 => {
                let message = Received::next(&port, LIMIT).ok().flatten();
                drop(message.map(|message| opened.open(&task, message, HOST, 0)));
            }
            _ => {
                let message = Received::next(&port, LIMIT).ok().flatten();
                drop(message.map(|message| handover::take(message, HOST, 0)));
            }
        }
    }
    drop((opened, port));
    task.0.borrow().check();
}

fn accept(task: &Liar, port: &ReceiveRight<Liar>, choices: &mut Choices<'_>) {
    let mut rendezvous = Rendezvous::new(UID);
    (0..2).for_each(|worker| rendezvous.expect(WorkerId(worker), nonce(worker)));
    task.0.borrow_mut().is_sole = !choices.one_in(4);
    match Received::next(port, LIMIT) {
        Ok(Some(message)) => match rendezvous.accept(message) {
            Ok(accepted) => {
                assert_eq!(accepted.audit.euid(), UID);
                task.0.borrow().was_check_in();
            }
            Err(_) => assert_eq!(rendezvous.refused(), 1),
        },
        Ok(None) => {}
        Err(ReceiveError::Unfit(check)) => rendezvous.unfit(check),
        Err(_) => {}
    }
}

fn read_news(task: &Liar) {
    let news = News::new(task).expect("it always makes one");
    if let Ok(Some(Sign::DeadName)) = news.next(LIMIT) {
        // The reference a notification brings is in its payload.
        task.0.borrow_mut().brought_by_news();
    }
}

fn read_welcome(task: &Liar, choices: &mut Choices<'_>) {
    let hello = Hello { version: VERSION, service: Some("there".to_owned()), lent: true, nonce: nonce(0), host: HOST };
    let regions = choices.below(5);
    let checked_in = CheckedIn::new(task, &hello, regions, LIMIT).expect("it answers every call");
    if let Ok(mut link) = checked_in.welcomed(over) {
        assert_eq!((link.host(), link.take_regions().len()), (HOST, regions));
    }
}

/// A kernel that writes anything into a message, and has every right it is asked for.
#[derive(Clone, Default)]
struct Liar(Rc<RefCell<Book>>);

#[derive(Default)]
struct Book {
    /// What the next receive answers.
    next: Option<(Kern, Buffer)>,
    /// Messages that are to be destroyed.
    open: Vec<Buffer>,
    last: Option<Buffer>,
    /// For each name, how many references were got, less those that were released.
    rights: BTreeMap<Name, i64>,
    made: u32,
    is_sole: bool,
}

impl Book {
    fn make(&mut self) -> Name {
        self.made += 1;
        // Apart from what is likely in a message.
        let name = Name(0x8000_0000 + self.made);
        self.count(name, 1);
        name
    }

    fn count(&mut self, name: Name, by: i64) {
        *self.rights.entry(name).or_default() += by;
    }

    /// The last message was one send right in 76 bytes, and no reply port.
    fn was_check_in(&self) {
        let message = self.last.as_ref().expect("it was destroyed");
        let words = [at::ID, at::SIZE, at::DESCRIPTORS, at::REMOTE].map(|at| message.word(at));
        assert_eq!(words, [CHECK_IN.id as u32, 76, 1, 0]);
        assert_eq!(
            (message.word(at::BITS) & (COMPLEX | 0x1f), message.word(at::FIRST + 2) >> 16),
            (COMPLEX, MOVE_SEND)
        );
    }

    fn brought_by_news(&mut self) {
        let name = self.last.as_ref().map_or(0, |message| message.word(at::DESCRIPTORS + 2));
        if Name(name).is_valid() {
            self.count(Name(name), 1);
        }
    }

    /// The next message: one of ours with some of its words changed.
    fn receive_next(&mut self, choices: &mut Choices<'_>) {
        let worker = choices.below(2) as u64;
        let (id, ports, payload) = match choices.below(6) {
            0 => (CHECK_IN.id, 1, payload_of(worker)),
            1 => (id::WELCOME, 1 + worker as usize, [vec![VERSION], [4096, 0].repeat(worker as usize)].concat()),
            2 => (id::REGISTER, 1, vec![0, worker as u32, 2]),
            3 => (id::HAND_OVER, 1 + worker as usize, vec![0, 4096, 0]),
            4 => (choices.one_of(&[65, 70, 71, 72]), 0, vec![0, 1, 99]),
            _ => (0, 0, (0..WORDS).map(|_| choices.word()).collect()),
        };
        let mut words = vec![if ports > 0 { COMPLEX } else { 0 }, 0, 0, 3, 0, id as u32];
        words.extend((ports > 0).then_some(ports as u32));
        (0..ports).for_each(|port| words.extend([100 + port as u32, 0, MOVE_SEND << 16]));
        words.extend(payload);
        words[at::SIZE] = words.len() as u32 * 4;
        // The trailer: from a process of this user's, or from the kernel.
        let pid = if ports > 0 { HOST } else { 0 };
        words.extend([0, 52, 0, 0, 0, UID, UID, 0, UID, 0, pid, 0, 1]);
        for _ in 0..choices.below(4) {
            let place = choices.below(words.len());
            words[place] = if choices.one_in(2) { choices.word() } else { choices.below(256) as u32 };
        }
        let mut buffer = Buffer::new();
        words.iter().enumerate().for_each(|(place, word)| buffer.set(place, *word));
        let answers = [Kern::SUCCESS, Kern::SUCCESS, Kern::SUCCESS, Kern::RCV_BODY_ERROR, Kern(choices.word() as i32)];
        self.next = Some((choices.one_of(&answers), buffer));
    }

    /// A message is as it came, but for rights that were taken and memory that was claimed.
    fn destroy(&mut self, message: &Buffer) {
        let taken = |open: &Buffer| {
            let open = &claimed(open);
            let changed: Vec<usize> = (0..WORDS).filter(|place| open.word(*place) != message.word(*place)).collect();
            let are_names = changed.iter().all(|place| {
                let is_name = *place >= at::FIRST && (*place - at::FIRST).is_multiple_of(3);
                is_name && message.word(*place) == Name::NULL.0
            });
            are_names.then(|| changed.iter().map(|place| Name(open.word(*place))).collect::<Vec<_>>())
        };
        let found = self.open.iter().enumerate().find_map(|(index, open)| Some((index, taken(open)?)));
        let (index, taken) = found.expect("a message is destroyed once");
        taken.into_iter().for_each(|name| self.count(name, 1));
        self.last = Some(self.open.swap_remove(index));
    }

    fn check(&self) {
        assert!(self.open.is_empty(), "messages are left");
        let wrong: Vec<_> = self.rights.iter().filter(|(_, count)| **count != 0).collect();
        assert!(wrong.is_empty(), "left or released twice: {wrong:?}");
    }
}

/// The message that unmaps all memory of this one: that of its descriptors 1 and 3, and of arrays, 2, that are somewhere.
fn claimed(message: &Buffer) -> Buffer {
    let (mut message, mut place) = (message.clone(), at::FIRST);
    let is_complex = message.word(at::BITS) & COMPLEX > 0;
    let mut left = if is_complex { message.word(at::DESCRIPTORS) } else { 0 };
    while left > 0 && place < WORDS {
        let [low, high, how] = [0, 1, 2].map(|word| message.word(place + word));
        match how.to_le_bytes() {
            [_, copy, padding, 1 | 3] => message.set(place + 2, u32::from_le_bytes([1, copy, padding, 1])),
            [.., 2] if low | high == 0 => message.set(place + 3, 0),
            [.., (5..)] => break,
            _ => {}
        }
        place += if how >> 24 == 0 { 3 } else { 4 };
        left -= 1;
    }
    message
}

impl fmt::Debug for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Liar")
    }
}

impl Task for Liar {
    type Surface = Nothing;

    fn pid(&self) -> u32 {
        HOST + 1
    }

    fn construct(&self, _: u32) -> Result<Name, Kern> {
        Ok(self.0.borrow_mut().make())
    }

    fn set_queue_limit(&self, _: Name, _: u32) -> Result<(), Kern> {
        Ok(())
    }

    fn make_send(&self, name: Name) -> Result<(), Kern> {
        self.0.borrow_mut().count(name, 1);
        Ok(())
    }

    fn release_receive(&self, name: Name) -> Result<(), Kern> {
        self.deallocate(name)
    }

    fn deallocate(&self, name: Name) -> Result<(), Kern> {
        self.0.borrow_mut().count(name, -1);
        Ok(())
    }

    fn is_sole_send(&self, _: Name) -> bool {
        self.0.borrow().is_sole
    }

    fn request_notification(&self, _: Name, _: Notify, _: u32, _: Name) -> Result<Name, Kern> {
        Ok(self.0.borrow_mut().make())
    }

    unsafe fn send(&self, _: &mut Buffer, _: u32, _: u32) -> Kern {
        Kern::SUCCESS
    }

    fn receive(&self, _: Name, into: &mut Buffer, _: u32) -> Kern {
        let mut book = self.0.borrow_mut();
        let Some((answer, buffer)) = book.next.take() else { return Kern::RCV_TIMED_OUT };
        *into = buffer.clone();
        if matches!(answer.message_code(), Kern::SUCCESS | Kern::RCV_BODY_ERROR) {
            book.open.push(buffer);
        }
        answer
    }

    unsafe fn destroy(&self, message: &mut Buffer) {
        self.0.borrow_mut().destroy(message);
    }

    fn check_in(&self, _: &str) -> Result<Name, Kern> {
        self.construct(0)
    }

    fn look_up(&self, _: &str) -> Result<Name, Kern> {
        self.construct(0)
    }

    fn registered(&self) -> Result<[Name; 3], Kern> {
        Ok(std::array::from_fn(|_| self.0.borrow_mut().make()))
    }

    fn register(&self, _: [Name; 3]) -> Result<(), Kern> {
        Ok(())
    }

    fn surface_port(&self, _: &Nothing) -> Result<Name, Kern> {
        self.construct(0)
    }

    fn surface_from_port(&self, port: Name) -> Option<Nothing> {
        port.0.is_multiple_of(2).then_some(Nothing)
    }
}

struct Nothing;

impl Surface for Nothing {
    fn geometry(&self) -> Geometry {
        Geometry::default()
    }

    fn lock(&self, _: Intent) -> Result<(), Kern> {
        Ok(())
    }

    fn unlock(&self, _: Intent) {}

    fn begin_use(&self) {}

    fn end_use(&self) {}

    fn is_in_use(&self) -> bool {
        false
    }
}

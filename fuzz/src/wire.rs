//! Control messages, specs, descriptors and the Mach hello, as a peer may have written them.
//!
//! Nothing panics; what is understood can be said again and is understood the same; a spec that is accepted has planes that
//! lie inside their slot and apart from each other.

use std::str::FromStr;

use frameport_sys::mach::check_in::Hello;
use frameport_wire::control::{ControlError, Decoder, MAX_MESSAGE, ToHost, ToWorker, encode};
use frameport_wire::descriptor::{Descriptor, WORDS};
use frameport_wire::event::{Event, MAX_FIELDS, is_flat};
use frameport_wire::layout::{blocks, meta_offset, page_len};
use frameport_wire::spec::{
    BytesSpec, DType, ImageView, MAX_PAYLOAD, PixelFormat, PlaneGeometry, Spec, TensorSpec, VideoSpec,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::choices::Choices;

/// The first byte says what the others are.
pub fn run(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind {
        b'h' => messages(bytes, |message: &ToHost| match message {
            ToHost::Hello(hello) => hello.output.iter().for_each(check_spec),
            ToHost::Respec { spec, .. } => check_spec(spec),
            ToHost::Event(event) => check_event(event),
            _ => {}
        }),
        b'w' => messages(bytes, |message: &ToWorker| match message {
            ToWorker::Welcome(welcome) => {
                let capacities: Vec<usize> = welcome.channels.iter().map(|channel| channel.capacity).collect();
                let (starts, len) = blocks(&capacities);
                assert!(starts.iter().all(|start| *start <= len) && starts.is_sorted());
                assert!(welcome.handles() > welcome.channels.len());
                for channel in &welcome.channels {
                    let (slots, meta) = (channel.pool.slots, channel.pool.meta);
                    assert!(meta_offset(slots, meta, slots.saturating_sub(1)) <= page_len(slots, meta));
                    check_spec(&channel.spec);
                }
            }
            ToWorker::Pool(new) => check_spec(&new.spec),
            _ => {}
        }),
        b's' => {
            if let Ok(spec) = serde_json::from_slice::<Spec>(bytes) {
                check_spec(&spec);
            }
        }
        b'v' => check_spec(&spec(&mut Choices::new(bytes))),
        b'n' => {
            let Ok(name) = std::str::from_utf8(bytes) else { return };
            check_name::<PixelFormat>(name);
            check_name::<DType>(name);
        }
        b'd' => {
            let (words, _) = bytes.as_chunks::<8>();
            check_descriptor(std::array::from_fn(|index| words.get(index).map_or(0, |word| u64::from_le_bytes(*word))));
        }
        b'm' => {
            let mut hello = [0; Hello::LEN];
            hello.iter_mut().zip(bytes).for_each(|(place, byte)| *place = *byte);
            let Ok(read) = Hello::from_bytes(&hello) else { return };
            let again = Hello::from_bytes(&read.to_bytes().unwrap()).unwrap();
            assert_eq!((again.version, again.host, again.lent), (read.version, read.host, read.lent));
            assert_eq!(again.service, read.service);
        }
        _ => {}
    }
}

/// A stream of messages, read whole and in two parts.
fn messages<M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8], check: impl Fn(&M)) {
    let read = |parts: [&[u8]; 2]| {
        let (mut decoder, mut read) = (Decoder::default(), Vec::<M>::new());
        for part in parts {
            decoder.push(part);
            loop {
                match decoder.decode() {
                    Ok(Some(message)) => read.push(message),
                    Ok(None) => break,
                    Err(_) => return (read, true),
                }
            }
        }
        (read, false)
    };
    let whole = read([bytes, &[]]);
    let first = bytes.first_chunk::<4>().map_or(0, |len| u32::from_le_bytes(*len));
    assert!(first as usize <= MAX_MESSAGE || (whole.0.is_empty() && whole.1));
    assert_eq!(whole, read([&bytes[..bytes.len() / 2], &bytes[bytes.len() / 2..]]));
    for message in &whole.0 {
        check(message);
        match encode(message) {
            Ok(bytes) => {
                let (again, is_broken) = read([&bytes, &[]]);
                assert_eq!((again.as_slice(), is_broken), (std::slice::from_ref(message), false));
            }
            // Numbers can be written shorter than they are here.
            Err(error) => assert!(matches!(error, ControlError::TooLong(_)), "{error}"),
        }
    }
}

/// A spec whose numbers are near some limit.
fn spec(choices: &mut Choices<'_>) -> Spec {
    let mut size = || choices.number() as usize;
    match size() % 4 {
        0 => BytesSpec::new(size()).into(),
        1 => {
            let shape: Vec<usize> = (0..size() % 10).map(|_| size()).collect();
            TensorSpec::new(choices.one_of(&DType::ALL), shape).into()
        }
        video => {
            let planes = (0..size() % 5).map(|_| PlaneGeometry { offset: size(), stride: size() }).collect::<Vec<_>>();
            let (width, height) = (size() as u32, size() as u32);
            let spec = VideoSpec::new(choices.one_of(&PixelFormat::ALL), width, height);
            if video == 2 { spec.into() } else { spec.planes(planes).into() }
        }
    }
}

fn check_event(event: &Event) {
    let cut = event.clone().cut();
    assert_eq!(cut.clone().cut(), cut);
    assert!(is_flat(&cut.fields) && cut.fields_len() <= MAX_FIELDS);
    encode(&ToHost::Event(cut)).unwrap();
}

fn check_descriptor(words: [u64; WORDS]) {
    let Ok(descriptor) = Descriptor::decode(words) else { return };
    // All but a time that does not count.
    let mut said = words;
    said[6] = descriptor.pts.map_or(0, i64::cast_unsigned);
    assert_eq!(descriptor.encode(), said);
}

fn check_name<T: FromStr + ToString>(name: &str) {
    if let Ok(known) = name.parse::<T>() {
        assert_eq!(known.to_string(), name);
    }
}

fn check_spec(spec: &Spec) {
    let json = serde_json::to_vec(spec).unwrap();
    assert_eq!(serde_json::from_slice::<Spec>(&json).unwrap(), *spec);
    assert!(!spec.to_string().is_empty() && spec.same_memory(spec));
    let layout = match spec.layout() {
        Ok(layout) => layout,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    assert!((1..=MAX_PAYLOAD).contains(&layout.size) && (1..=4).contains(&layout.planes().len()));
    let mut ends = Vec::new();
    for plane in layout.planes() {
        assert_eq!(plane.row_bytes, plane.width * plane.components * plane.sample.size());
        assert!(plane.stride >= plane.row_bytes && plane.row_bytes > 0 && plane.rows > 0);
        assert_eq!((plane.offset % plane.sample.size(), plane.stride % plane.sample.size()), (0, 0));
        // Wider than the product computes: nothing can overflow here.
        let end = plane.offset as u128 + plane.stride as u128 * (plane.rows as u128 - 1) + plane.row_bytes as u128;
        assert!(end <= layout.size as u128);
        ends.push((plane.offset as u128, end));
    }
    ends.sort_unstable();
    assert!(ends.windows(2).all(|pair| pair[0].1 <= pair[1].0), "planes overlap");
    layout.image_view().iter().for_each(|view| check_view(view, layout.size));
}

fn check_view(view: &ImageView, size: usize) {
    let steps = view.shape.iter().zip(&view.strides);
    let last: u128 = steps.map(|(length, stride)| (*length as u128 - 1) * *stride as u128).sum();
    assert!(view.offset as u128 + last + view.sample.size() as u128 <= size as u128);
    assert_eq!((view.shape.len(), view.offset % view.sample.size()), (view.strides.len(), 0));
    assert!(view.strides.iter().all(|stride| stride % view.sample.size() == 0));
}

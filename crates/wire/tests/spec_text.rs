//! Specs as text: the JSON other languages read and write, FFmpeg's names, and what people see in messages.

use frameport_wire::spec::{
    BytesSpec, Colour, DType, PixelFormat, PlaneGeometry, Rational, Spec, SpecError, TensorSpec, VideoSpec,
};

fn full() -> VideoSpec {
    VideoSpec::new(PixelFormat::Nv12, 1920, 1080)
        .fps(30_000, 1001)
        .time_base(1, 90_000)
        .colour(Colour { primaries: 1, transfer: 1, matrix: 1, full_range: Some(false) })
        .planes([PlaneGeometry { offset: 0, stride: 2048 }, PlaneGeometry { offset: 2_211_840, stride: 2048 }])
}

#[test]
fn json_of_every_kind_is_stable_and_comes_back_equal() {
    let cases: [(Spec, &str); 5] = [
        (
            VideoSpec::new(PixelFormat::Bgr24, 1920, 1080).into(),
            r#"{"kind":"video","format":"bgr24","width":1920,"height":1080}"#,
        ),
        (
            full().into(),
            concat!(
                r#"{"kind":"video","format":"nv12","width":1920,"height":1080,"fps":{"num":30000,"den":1001},"#,
                r#""time_base":{"num":1,"den":90000},"#,
                r#""colour":{"primaries":1,"transfer":1,"matrix":1,"full_range":false},"#,
                r#""planes":[{"offset":0,"stride":2048},{"offset":2211840,"stride":2048}]}"#,
            ),
        ),
        (
            VideoSpec::new(PixelFormat::Gray, 1, 1).colour(Colour { matrix: 0, ..Colour::default() }).into(),
            concat!(
                r#"{"kind":"video","format":"gray","width":1,"height":1,"#,
                r#""colour":{"primaries":2,"transfer":2,"matrix":0}}"#,
            ),
        ),
        (
            TensorSpec::new(DType::F32, [1, 3, 224, 224]).into(),
            r#"{"kind":"tensor","dtype":"f32","shape":[1,3,224,224]}"#,
        ),
        (BytesSpec::new(65_536).into(), r#"{"kind":"bytes","capacity":65536}"#),
    ];
    for (spec, json) in cases {
        assert_eq!(serde_json::to_string(&spec).unwrap(), json);
        assert_eq!(serde_json::from_str::<Spec>(json).unwrap(), spec);
    }
}

#[test]
fn json_from_a_newer_peer_ignores_unknown_fields_and_takes_nulls() {
    let json = r#"{"hdr":{"x":[1]},"width":2,"kind":"video","format":"rgba","height":3,"fps":null,
        "planes":null,"colour":{"primaries":9,"chroma_location":1,"full_range":null}}"#;
    let expected = VideoSpec::new(PixelFormat::Rgba, 2, 3).colour(Colour { primaries: 9, ..Colour::UNSPECIFIED });
    assert_eq!(serde_json::from_str::<Spec>(json).unwrap(), Spec::from(expected));
}

#[test]
fn json_that_is_no_spec_is_refused() {
    for json in [
        "null",
        "[]",
        "{}",
        r#"{"kind":"audio"}"#,
        r#"{"kind":"video"}"#,
        r#"{"kind":"video","format":"BGR24","width":1,"height":1}"#,
        r#"{"kind":"video","format":"yuv410p","width":1,"height":1}"#,
        r#"{"kind":"video","format":"gray","width":-1,"height":1}"#,
        r#"{"kind":"video","format":"gray","width":1.5,"height":1}"#,
        r#"{"kind":"video","format":"gray","width":4294967296,"height":1}"#,
        r#"{"kind":"video","format":"gray","width":1,"width":2,"height":1}"#,
        r#"{"kind":"video","format":"gray","width":1,"height":1,"colour":{"primaries":256}}"#,
        r#"{"kind":"video","format":"gray","width":1,"height":1,"fps":30}"#,
        r#"{"kind":"tensor","dtype":"f32","shape":[-1]}"#,
        r#"{"kind":"tensor","dtype":"f33","shape":[1]}"#,
        r#"{"kind":"bytes","capacity":18446744073709551616}"#,
    ] {
        assert!(serde_json::from_str::<Spec>(json).is_err(), "{json}");
    }
}

#[test]
fn json_with_bad_values_decodes_and_layout_names_them() {
    let json = r#"{"kind":"video","format":"bgr24","width":0,"height":4000000000}"#;
    let spec: Spec = serde_json::from_str(json).unwrap();
    assert_eq!(spec.layout().unwrap_err().to_string(), "width is 0, must be 1 to 65535");
}

#[test]
fn names_are_the_same_in_text_and_json() {
    for format in PixelFormat::ALL {
        assert_eq!(format.to_string().parse(), Ok(format));
        assert_eq!(serde_json::to_string(&format).unwrap(), format!("\"{format}\""));
    }
    for dtype in DType::ALL {
        assert_eq!(dtype.to_string().parse(), Ok(dtype));
        assert_eq!(serde_json::to_string(&dtype).unwrap(), format!("\"{dtype}\""));
    }
}

#[test]
fn unknown_names_are_answered_with_the_list() {
    assert_eq!(
        "rgb\n32".parse::<PixelFormat>().unwrap_err().to_string(),
        "unknown pixel format \"rgb\\n32\", supported are gray, gray16le, rgb24, bgr24, rgba, bgra, rgb48le, rgbaf16le, \
         yuyv422, uyvy422, nv12, p010le, yuv420p, yuv422p, yuv444p"
    );
    let error = "float32".parse::<DType>().unwrap_err();
    assert!(matches!(error, SpecError::UnknownName { field: "dtype", .. }));
    assert!(error.to_string().ends_with("u8, i8, u16, i16, u32, i32, u64, i64, f16, f32, f64, bool"));
}

#[test]
fn display_says_what_a_person_would() {
    let bgr = VideoSpec::new(PixelFormat::Bgr24, 1920, 1080);
    assert_eq!(Spec::from(&bgr).to_string(), "bgr24 1920x1080");
    assert_eq!(Spec::from(bgr.clone().fps(30, 1)).to_string(), "bgr24 1920x1080 30 fps");
    assert_eq!(Spec::from(full()).to_string(), "nv12 1920x1080 29.97 fps");
    assert_eq!(Spec::from(bgr.fps(0, 0)).to_string(), "bgr24 1920x1080 0/0 fps");
    assert_eq!(Spec::from(TensorSpec::new(DType::F32, [1, 3])).to_string(), "f32 [1, 3]");
    assert_eq!(Spec::from(BytesSpec::new(9)).to_string(), "up to 9 bytes");
}

#[test]
fn same_memory_ignores_rate_time_base_and_colour_only() {
    let plain = Spec::from(VideoSpec::new(PixelFormat::Nv12, 4, 4));
    let with = |change: fn(VideoSpec) -> VideoSpec| Spec::from(change(VideoSpec::new(PixelFormat::Nv12, 4, 4)));
    let same = [
        with(|spec| spec.fps(25, 1).time_base(1, 25)),
        with(|spec| spec.fps(0, 0)),
        with(|spec| spec.colour(Colour { primaries: 9, ..Colour::default() })),
        // The default, spelt out.
        with(|spec| spec.planes([PlaneGeometry { offset: 0, stride: 4 }, PlaneGeometry { offset: 16, stride: 4 }])),
    ];
    let other = [
        with(|spec| spec.planes([PlaneGeometry { offset: 0, stride: 4 }, PlaneGeometry { offset: 16, stride: 8 }])),
        with(|spec| spec.planes([])),
        with(|spec| VideoSpec { width: 5, ..spec }),
        with(|spec| VideoSpec { height: 5, ..spec }),
        // As large, but not the same thing.
        with(|spec| VideoSpec { format: PixelFormat::Yuv420p, ..spec }),
        TensorSpec::new(DType::U8, [6, 4]).into(),
        BytesSpec::new(24).into(),
    ];
    assert!(same.iter().all(|spec| plain.same_memory(spec) && spec.same_memory(&plain)));
    assert!(!other.iter().any(|spec| plain.same_memory(spec) || spec.same_memory(&plain)));
    // Of those, only the first two differ in places alone.
    assert_eq!(other.iter().position(|spec| !plain.same_values(spec)), Some(2));
    assert!(!other.iter().skip(2).any(|spec| plain.same_values(spec) || spec.same_values(&plain)));
    assert!(Spec::from(BytesSpec::new(24)).same_memory(&BytesSpec::new(24).into()));
}

#[test]
fn parts_are_reachable() {
    let spec = Spec::from(full());
    assert_eq!(spec.video().and_then(|video| video.fps), Some(Rational { num: 30_000, den: 1001 }));
    assert_eq!(Spec::from(&spec), spec);
    assert!(Spec::from(BytesSpec::new(1)).video().is_none());
}

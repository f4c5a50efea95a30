//! Layouts: FFmpeg's sizes for every format, each limit from both sides, and views that agree with the planes.
#![expect(clippy::unwrap_used, reason = "a test that fails may panic")]

use frameport_wire::spec::{
    BytesSpec, DType, ImageView, Layout, MAX_PAYLOAD, PixelFormat, PlaneGeometry, Sample, Spec, SpecError, TensorSpec,
    VideoSpec,
};

use PixelFormat::*;

const SIZES: [(u32, u32); 5] = [(64, 48), (63, 47), (1, 1), (1920, 1080), (2, 3)];

/// Bytes of one frame at `SIZES`, counted with
/// `ffmpeg -f lavfi -i color=red:s=64x48 -frames:v 1 -vf scale=W:H -pix_fmt FORMAT -f rawvideo - | wc -c`
/// and, for rgbaf16le, which swscale can't make, with what `-f rawvideo -pixel_format rgbaf16le -i - -c copy` takes as
/// one frame.
const FFMPEG: [(PixelFormat, [usize; 5]); 15] = [
    (Gray, [3072, 2961, 1, 2073600, 6]),
    (Gray16le, [6144, 5922, 2, 4147200, 12]),
    (Rgb24, [9216, 8883, 3, 6220800, 18]),
    (Bgr24, [9216, 8883, 3, 6220800, 18]),
    (Rgba, [12288, 11844, 4, 8294400, 24]),
    (Bgra, [12288, 11844, 4, 8294400, 24]),
    (Rgb48le, [18432, 17766, 6, 12441600, 36]),
    (Rgbaf16le, [24576, 23688, 8, 16588800, 48]),
    (Yuyv422, [6144, 6016, 4, 4147200, 12]),
    (Uyvy422, [6144, 6016, 4, 4147200, 12]),
    (Nv12, [4608, 4497, 3, 3110400, 10]),
    (P010le, [9216, 8994, 6, 6220800, 20]),
    (Yuv420p, [4608, 4497, 3, 3110400, 10]),
    (Yuv422p, [6144, 5969, 3, 4147200, 12]),
    (Yuv444p, [9216, 8883, 3, 6220800, 18]),
];

fn layout(format: PixelFormat, width: u32, height: u32) -> Layout {
    VideoSpec::new(format, width, height).layout().unwrap()
}

fn planes(places: &[(usize, usize)]) -> Vec<PlaneGeometry> {
    places.iter().map(|&(offset, stride)| PlaneGeometry { offset, stride }).collect()
}

/// (offset, stride, rows, row_bytes, width, components) of every plane.
fn numbers(layout: &Layout) -> Vec<(usize, usize, usize, usize, usize, usize)> {
    layout.planes().iter().map(|p| (p.offset, p.stride, p.rows, p.row_bytes, p.width, p.components)).collect()
}

fn shape(layout: &Layout) -> Option<Vec<usize>> {
    layout.image_view().map(|view| view.shape)
}

#[test]
fn size_of_every_format_is_what_ffmpeg_writes() {
    assert_eq!(FFMPEG.map(|(format, _)| format), PixelFormat::ALL);
    for (format, sizes) in FFMPEG {
        for ((width, height), size) in SIZES.into_iter().zip(sizes) {
            let spec = Spec::from(VideoSpec::new(format, width, height));
            assert_eq!(spec.payload_capacity(), Ok(size), "{spec}");
        }
    }
}

#[test]
fn planes_of_odd_sizes_round_chroma_up() {
    assert_eq!(numbers(&layout(Nv12, 63, 47)), [(0, 63, 47, 63, 63, 1), (2961, 64, 24, 64, 32, 2)]);
    assert_eq!(numbers(&layout(P010le, 63, 47)), [(0, 126, 47, 126, 63, 1), (5922, 128, 24, 128, 32, 2)]);
    assert_eq!(
        numbers(&layout(Yuv420p, 63, 47)),
        [(0, 63, 47, 63, 63, 1), (2961, 32, 24, 32, 32, 1), (3729, 32, 24, 32, 32, 1)]
    );
    assert_eq!(
        numbers(&layout(Yuv422p, 63, 47)),
        [(0, 63, 47, 63, 63, 1), (2961, 32, 47, 32, 32, 1), (4465, 32, 47, 32, 32, 1)]
    );
    assert_eq!(numbers(&layout(Yuyv422, 63, 47)), [(0, 128, 47, 128, 64, 2)]);
    assert_eq!(numbers(&layout(Bgr24, 63, 47)), [(0, 189, 47, 189, 63, 3)]);
    assert_eq!(layout(Rgbaf16le, 1, 1).planes()[0].sample, Sample::F16);
    assert_eq!(layout(P010le, 1, 1).planes()[1].sample, Sample::U16);
}

#[test]
fn tight_planes_fill_the_payload_without_gap_or_overlap() {
    for format in PixelFormat::ALL {
        for (width, height) in (1..=9).flat_map(|w| (1..=9).map(move |h| (w, h))) {
            let layout = layout(format, width, height);
            let mut end = 0;
            for plane in layout.planes() {
                assert_eq!(plane.offset, end);
                assert_eq!(plane.row_bytes, plane.width * plane.components * plane.sample.size());
                end += plane.stride * plane.rows;
            }
            assert_eq!(end, layout.size);
            // Where there is one array, it shows every byte.
            if let Some(view) = layout.image_view() {
                assert_eq!(view.shape.iter().product::<usize>() * view.sample.size(), layout.size, "{format}");
            }
        }
    }
}

#[test]
fn image_view_has_the_shape_arrays_of_that_format_have() {
    for (format, expected) in [
        (Gray, Some(vec![48, 64])),
        (Gray16le, Some(vec![48, 64])),
        (Bgr24, Some(vec![48, 64, 3])),
        (Rgba, Some(vec![48, 64, 4])),
        (Rgb48le, Some(vec![48, 64, 3])),
        (Rgbaf16le, Some(vec![48, 64, 4])),
        (Yuyv422, Some(vec![48, 64, 2])),
        (Nv12, Some(vec![72, 64])),
        (P010le, Some(vec![72, 64])),
        (Yuv420p, Some(vec![72, 64])),
        (Yuv422p, None),
        (Yuv444p, Some(vec![3, 48, 64])),
    ] {
        assert_eq!(shape(&layout(format, 64, 48)), expected, "{format}");
    }
    assert_eq!(
        layout(P010le, 64, 48).image_view(),
        Some(ImageView { offset: 0, shape: vec![72, 64], strides: vec![128, 2], sample: Sample::U16 })
    );
    assert_eq!(
        layout(Yuv444p, 63, 47).image_view(),
        Some(ImageView { offset: 0, shape: vec![3, 47, 63], strides: vec![2961, 63, 1], sample: Sample::U8 })
    );
}

#[test]
fn image_view_is_none_where_an_array_would_hide_or_invent_values() {
    for format in [Nv12, P010le, Yuv420p] {
        for (width, height) in [(63, 48), (64, 47), (1, 1)] {
            assert_eq!(shape(&layout(format, width, height)), None, "{format} {width}x{height}");
        }
    }
    assert_eq!(shape(&layout(Yuyv422, 63, 48)), None);
    let shape_of = |format, places: &[_]| shape(&VideoSpec::new(format, 4, 4).planes(planes(places)).layout().unwrap());
    assert_eq!(shape_of(Nv12, &[(0, 4), (17, 4)]), None, "gap before the chroma");
    assert_eq!(shape_of(Nv12, &[(0, 4), (16, 6)]), None, "strides differ");
    assert_eq!(shape_of(Nv12, &[(8, 4), (0, 4)]), None, "chroma first");
    assert_eq!(shape_of(Yuv420p, &[(0, 8), (32, 4), (40, 4)]), None, "rows with gaps");
    assert_eq!(shape_of(Yuv420p, &[(0, 4), (20, 2), (16, 2)]), None, "V before U");
    assert_eq!(shape_of(Yuv444p, &[(0, 4), (16, 4), (40, 4)]), None, "planes unevenly spaced");
    assert_eq!(shape_of(Yuv444p, &[(32, 4), (16, 4), (0, 4)]), None, "planes in reverse");
}

#[test]
fn explicit_strides_show_in_planes_size_and_view() {
    let padded = VideoSpec::new(Bgr24, 5, 4).planes(planes(&[(64, 16)])).layout().unwrap();
    assert_eq!(numbers(&padded), [(64, 16, 4, 15, 5, 3)]);
    assert_eq!(padded.size, 64 + 3 * 16 + 15);
    let view = padded.image_view().unwrap();
    assert_eq!((view.offset, view.shape, view.strides), (64, vec![4, 5, 3], vec![16, 3, 1]));

    let nv12 = VideoSpec::new(Nv12, 4, 4).planes(planes(&[(0, 64), (256, 64)])).layout().unwrap();
    assert_eq!(nv12.size, 256 + 64 + 4);
    assert_eq!(nv12.image_view().map(|v| (v.shape, v.strides)), Some((vec![6, 4], vec![64, 1])));

    let yuv444p = VideoSpec::new(Yuv444p, 4, 4).planes(planes(&[(0, 8), (64, 8), (128, 8)])).layout().unwrap();
    assert_eq!(yuv444p.image_view().map(|v| (v.shape, v.strides)), Some((vec![3, 4, 4], vec![64, 8, 1])));
}

/// Each limit, just inside (`""`) and just outside (the whole message).
#[test]
fn every_limit_accepts_its_last_value_and_names_the_first_beyond() {
    let video = |format, width, height| Spec::from(VideoSpec::new(format, width, height));
    let placed =
        |format, width, height, places: &[_]| Spec::from(VideoSpec::new(format, width, height).planes(planes(places)));
    let rate = |num, den| Spec::from(VideoSpec::new(Gray, 1, 1).fps(num, den));
    let base = |num, den| Spec::from(VideoSpec::new(Gray, 1, 1).time_base(num, den));
    let tensor = |dtype, shape: &[usize]| Spec::from(TensorSpec::new(dtype, shape));
    let bytes = |capacity| Spec::from(BytesSpec::new(capacity));
    let most = MAX_PAYLOAD;
    #[rustfmt::skip]
    let cases = [
        (video(Gray, 1, 1), ""),
        (video(Gray, 0, 1), "width is 0, must be 1 to 65535"),
        (video(Gray, 1, 0), "height is 0, must be 1 to 65535"),
        (video(Gray, 65_535, 1), ""),
        (video(Gray, 65_536, 1), "width is 65536, must be 1 to 65535"),
        (video(Gray, 1, 65_535), ""),
        (video(Gray, 1, 65_536), "height is 65536, must be 1 to 65535"),
        (video(Gray, u32::MAX, 1), "width is 4294967295, must be 1 to 65535"),
        (video(Gray, 1, u32::MAX), "height is 4294967295, must be 1 to 65535"),
        (video(Rgbaf16le, 65_535, 65_535), ""),
        (video(Yuyv422, 65_535, 65_535), ""),
        (video(Yuv444p, 65_535, 65_535), ""),
        (rate(1, 1), ""),
        (rate(u32::MAX, u32::MAX), ""),
        (rate(0, 1), "fps is 0/1, both parts must be at least 1; leave fps out if it is not known"),
        (rate(1, 0), "fps is 1/0, both parts must be at least 1; leave fps out if it is not known"),
        (base(1, 90_000), ""),
        (base(0, 0), "time_base is 0/0, both parts must be at least 1; leave time_base out if it is not known"),
        (placed(Bgr24, 5, 2, &[]), "the number of planes is 0, bgr24 has 1"),
        (placed(Nv12, 4, 4, &[(0, 4)]), "the number of planes is 1, nv12 has 2"),
        (placed(Nv12, 4, 4, &[(0, 4), (16, 4), (32, 4)]), "the number of planes is 3, nv12 has 2"),
        (placed(Bgr24, 5, 2, &[(0, 15)]), ""),
        (placed(Bgr24, 5, 2, &[(0, 14)]), "planes[0].stride is 14, a row takes 15 bytes"),
        (placed(Bgr24, 5, 1, &[(0, 0)]), "planes[0].stride is 0, a row takes 15 bytes"),
        (placed(Nv12, 5, 4, &[(0, 5), (20, 5)]), "planes[1].stride is 5, a row takes 6 bytes"),
        (placed(Gray16le, 4, 4, &[(2, 10)]), ""),
        (placed(Gray16le, 4, 4, &[(1, 10)]), "planes[0].offset is 1, must be a multiple of 2"),
        (placed(Gray16le, 4, 4, &[(0, 9)]), "planes[0].stride is 9, must be a multiple of 2"),
        (placed(P010le, 4, 4, &[(0, 8), (33, 8)]), "planes[1].offset is 33, must be a multiple of 2"),
        (placed(Nv12, 4, 4, &[(0, 4), (16, 4)]), ""),
        (placed(Nv12, 4, 4, &[(0, 4), (15, 4)]), "planes[0] and planes[1] overlap: bytes up to 16 and from 15"),
        (placed(Nv12, 4, 4, &[(8, 4), (0, 4)]), ""),
        (placed(Nv12, 4, 4, &[(7, 4), (0, 4)]), "planes[1] and planes[0] overlap: bytes up to 8 and from 7"),
        (placed(Yuv444p, 2, 1, &[(0, 2), (4, 2), (0, 2)]), "planes[0] and planes[2] overlap: bytes up to 2 and from 0"),
        (placed(Yuv444p, 2, 2, &[(0, 99), (2, 99), (4, 99)]), "planes[0] and planes[1] overlap: bytes up to 101 and from 2"),
        (placed(Gray, 1, 1, &[(most - 1, 1)]), ""),
        (placed(Gray, 1, 1, &[(most, 1)]), "planes[0] of offset 1099511627775 and stride 1 with 1 rows makes a frame of more than 1099511627775 bytes"),
        (placed(Gray, 1, 1, &[(usize::MAX, 1)]), "planes[0] of offset 18446744073709551615 and stride 1 with 1 rows makes a frame of more than 1099511627775 bytes"),
        (placed(Gray, 1, 1, &[(0, usize::MAX)]), ""),
        (placed(Gray, 1, 2, &[(0, most - 1)]), ""),
        (placed(Gray, 1, 2, &[(0, most)]), "planes[0] of offset 0 and stride 1099511627775 with 2 rows makes a frame of more than 1099511627775 bytes"),
        (placed(Gray, 1, 3, &[(0, usize::MAX)]), "planes[0] of offset 0 and stride 18446744073709551615 with 3 rows makes a frame of more than 1099511627775 bytes"),
        (tensor(DType::F64, &[]), ""),
        (tensor(DType::F32, &[1, 3, 224, 224]), ""),
        (tensor(DType::U8, &[1; 8]), ""),
        (tensor(DType::U8, &[1; 9]), "rank of shape is 9, must be 0 to 8"),
        (tensor(DType::F32, &[3, 0]), "shape[1] is 0, must be 1 to 1099511627775"),
        (tensor(DType::U8, &[most]), ""),
        (tensor(DType::Bool, &[most + 1]), "shape[0] is 1099511627776, must be 1 to 1099511627775"),
        (tensor(DType::U16, &[most]), "shape [1099511627775] of u16 makes a frame of more than 1099511627775 bytes"),
        (tensor(DType::I64, &[most / 8]), ""),
        (tensor(DType::I64, &[most / 8 + 1]), "shape [137438953472] of i64 makes a frame of more than 1099511627775 bytes"),
        (tensor(DType::U8, &[1 << 32, 1 << 32]), "shape [4294967296, 4294967296] of u8 makes a frame of more than 1099511627775 bytes"),
        (bytes(1), ""),
        (bytes(0), "capacity is 0, must be 1 to 1099511627775"),
        (bytes(most), ""),
        (bytes(most + 1), "capacity is 1099511627776, must be 1 to 1099511627775"),
        (bytes(usize::MAX), "capacity is 18446744073709551615, must be 1 to 1099511627775"),
    ];
    for (spec, expected) in cases {
        let message = spec.layout().err().as_ref().map(SpecError::to_string).unwrap_or_default();
        assert_eq!(message, expected, "{spec:?}");
    }
}

#[test]
fn tensor_and_bytes_are_one_contiguous_plane() {
    let tensor = TensorSpec::new(DType::F32, [2, 3, 4]).layout().unwrap();
    assert_eq!(numbers(&tensor), [(0, 96, 1, 96, 24, 1)]);
    assert_eq!(
        tensor.image_view(),
        Some(ImageView { offset: 0, shape: vec![2, 3, 4], strides: vec![48, 16, 4], sample: DType::F32 })
    );
    let scalar = TensorSpec::new(DType::I64, []).layout().unwrap();
    assert_eq!((scalar.size, shape(&scalar)), (8, Some(vec![])));
    let bytes = BytesSpec::new(4096).layout().unwrap();
    assert_eq!((bytes.size, shape(&bytes)), (4096, Some(vec![4096])));
}

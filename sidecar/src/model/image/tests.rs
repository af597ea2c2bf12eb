use ::image::ExtendedColorType;
use embark_crds::contract::{Channels, ImageDtype, Layout};
use proptest::prelude::*;

use super::{header::Format, *};
use crate::model::test_support::images as input;

mod files;
mod hostile;

use self::files::*;

fn preparer(width: u32, height: u32) -> ImagePreparer {
    ImagePreparer::within(&input(width, height), Budget::of(0))
}

fn values(row: Row) -> Vec<u8> {
    match row.data {
        RowData::Tensor(bytes) => bytes.to_vec(),
        other => panic!("an image is a tensor: {other:?}"),
    }
}

/// The pixels of a file at a size.
fn read(file: &[u8], (width, height): (u32, u32)) -> Vec<u8> {
    let preparer = preparer(width, height);
    let values = values(preparer.prepare(file).unwrap());
    assert_eq!(values.len(), preparer.row_bytes());
    values
}

fn close(a: &[u8], b: &[u8], most: u8) {
    assert_eq!(a.len(), b.len());
    let furthest = a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(furthest.is_some_and(|furthest| furthest <= most), "{furthest:?}: {a:?} {b:?}");
}

#[test]
fn every_format_is_read_by_what_it_opens_with() {
    let pixels = pixels(12, 9);
    for format in [Format::Png, Format::WebP] {
        assert_eq!(read(&file(format, (12, 9), &pixels), (12, 9)), pixels, "{format}");
    }
    let even = plain(12, 9, [200, 100, 50]);
    for format in FORMATS {
        close(&read(&file(format, (12, 9), &even), (12, 9)), &even, 4);
        close(&read(&file(format, (12, 9), &even), (5, 7)), &plain(5, 7, [200, 100, 50]), 4);
    }
}

#[test]
fn an_image_is_turned_as_its_camera_was_held() {
    // The upper left is red, the rest is blue.
    let mut pixels = plain(32, 16, [0, 0, 255]);
    for y in 0..8 {
        pixels[y * 32 * 3..][..16 * 3].copy_from_slice(&plain(16, 1, [255, 0, 0]));
    }
    let jpeg = file(Format::Jpeg, (32, 16), &pixels);
    // Where the red corner is to be seen: right, lower.
    let corners =
        [(1, 0, 0), (2, 1, 0), (3, 1, 1), (4, 0, 1), (5, 0, 0), (6, 1, 0), (7, 1, 1), (8, 0, 1)];
    for (orientation, right, lower) in corners {
        let size = if orientation < 5 { (32, 16) } else { (16, 32) };
        let seen = read(&turned_jpeg(&jpeg, orientation), size);
        for (x, y) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let (column, row) = ((4 * x + 1) * size.0 / 6, (4 * y + 1) * size.1 / 6);
            let red = seen[((row * size.0 + column) * 3) as usize] > 128;
            assert_eq!(red, (x, y) == (right, lower), "{orientation}: {x} {y}");
        }
    }
    for none in [0, 9, 255] {
        assert_eq!(read(&turned_jpeg(&jpeg, none), (32, 16)), read(&jpeg, (32, 16)));
    }
}

#[test]
fn alpha_is_dropped_grey_is_three_colours_and_of_16_bits_the_higher_count() {
    let of = |kind, pixels: &[u8]| read(&png((2, 1), kind, pixels), (2, 1));
    let rgba = [1, 2, 3, 0, 4, 5, 6, 128];
    assert_eq!(of(ExtendedColorType::Rgba8, &rgba), [1, 2, 3, 4, 5, 6]);
    assert_eq!(of(ExtendedColorType::L8, &[7, 9]), [7, 7, 7, 9, 9, 9]);
    assert_eq!(of(ExtendedColorType::La8, &[7, 0, 9, 255]), [7, 7, 7, 9, 9, 9]);
    let wide = |values: &[u16]| -> Vec<u8> {
        values.iter().flat_map(|value| value.to_ne_bytes()).collect()
    };
    let rgb = wide(&[0x0180, 0x02ff, 0x0300, 0xffff, 0, 0x7fff]);
    assert_eq!(of(ExtendedColorType::Rgb16, &rgb), [1, 2, 3, 255, 0, 127]);
    assert_eq!(of(ExtendedColorType::L16, &wide(&[0x0180, 0xff00])), [1, 1, 1, 255, 255, 255]);
    let rgba = wide(&[0x0100, 0x0200, 0x0300, 0, 0x0400, 0x0500, 0x0600, 0xffff]);
    assert_eq!(of(ExtendedColorType::Rgba16, &rgba), [1, 2, 3, 4, 5, 6]);
    assert_eq!(of(ExtendedColorType::La16, &wide(&[0x0700, 0, 0x0900, 1])), [7, 7, 7, 9, 9, 9]);
}

#[test]
fn jpegs_of_grey_of_colours_and_of_print_are_read() {
    for frame in [0xc0, 0xc2] {
        for colours in [1, 3] {
            let seen = read(&block_jpeg(frame, colours, 1), (8, 8));
            close(&seen, &plain(8, 8, [128; 3]), 1);
        }
    }
    // Half the ink of each colour under half of black.
    close(&read(&block_jpeg(0xc0, 4, 1), (8, 8)), &plain(8, 8, [64; 3]), 1);
}

#[test]
fn of_an_animation_the_first_frame_counts() {
    let colours = [[255, 0, 0], [0, 0, 255]];
    for file in [animated_gif(&colours), animated_webp(&colours)] {
        close(&read(&file, (4, 4)), &plain(4, 4, colours[0]), 2);
        close(&read(&file, (2, 2)), &plain(2, 2, colours[0]), 2);
    }
}

#[test]
fn what_lies_behind_an_image_is_not_looked_at() {
    for format in [Format::Png, Format::Jpeg, Format::Gif, Format::WebP] {
        let plain = file(format, (8, 8), &pixels(8, 8));
        let behind = [&plain[..], b"PK\x03\x04<script>", &plain].concat();
        assert_eq!(read(&behind, (8, 8)), read(&plain, (8, 8)), "{format}");
    }
}

#[test]
fn a_row_is_as_the_manifest_asks() {
    let pixels = pixels(4, 4);
    let file = file(Format::Png, (4, 4), &pixels);
    let floats = ImageInput {
        layout: Layout::Nchw,
        channels: Channels::Bgr,
        dtype: ImageDtype::Float32,
        mean: vec![0.5],
        std: vec![0.5],
        ..input(4, 4)
    };
    let preparer = ImagePreparer::within(&floats, Budget::of(0));
    let row = values(preparer.prepare(&file).unwrap());
    assert_eq!(row.len(), 4 * 4 * 3 * 4);
    let first = f32::from_le_bytes(row[..4].try_into().unwrap());
    assert_eq!(first, (f32::from(pixels[2]) / 255.0 - 0.5) / 0.5);
    assert_eq!(preparer.prepare(&file).unwrap().length(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the bytes behind a format's first ones are, they are an image or they are refused.
    #[test]
    fn no_bytes_panic(
        start in prop::sample::select(vec![
            &b""[..],
            b"\x89PNG\r\n\x1a\n",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x08\0\0\0\x08\x08\x02\0\0\0",
            b"\xff\xd8\xff",
            b"\xff\xd8\xff\xc0\0\x11\x08\0\x08\0\x08\x03",
            b"GIF89a\x08\0\x08\0",
            b"RIFF\x40\0\0\0WEBPVP8 ",
            b"RIFF\x40\0\0\0WEBPVP8L",
            b"RIFF\x40\0\0\0WEBPVP8X",
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        hostile::taken_or_refused(&[start, &rest].concat());
    }

    /// A few bytes of an image are changed.
    #[test]
    fn no_damage_panics(
        which in 0_usize..8,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut file = hostile::sound(which);
        for (at, value) in changes {
            let at = at.index(file.len());
            file[at] = value;
        }
        hostile::taken_or_refused(&file);
    }
}

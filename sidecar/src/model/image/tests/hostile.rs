//! Bytes that are made to do harm, or are no image: a row each.

use tokio::time::Instant;

use super::*;

/// Far above what any case takes on a busy machine, and far below what doing as it asks would.
const MOST_SECONDS: u64 = 20;

/// Images that are read, of all formats and kinds.
pub(super) fn sound(which: usize) -> Vec<u8> {
    let pixels = pixels(16, 12);
    match which {
        0..4 => file(FORMATS[which], (16, 12), &pixels),
        4 => animated_gif(&[[255, 0, 0], [0, 255, 0]]),
        5 => animated_webp(&[[255, 0, 0], [0, 255, 0]]),
        6 => block_jpeg(0xc2, 3, 1),
        _ => turned_jpeg(&file(Format::Jpeg, (16, 12), &pixels), 6),
    }
}

/// What must hold of any bytes.
pub(super) fn taken_or_refused(bytes: &[u8]) {
    let small = ImageInput { max_pixels: 1 << 20, ..input(8, 8) };
    let began = Instant::now();
    match ImagePreparer::within(&small, Budget::of(0)).prepare(bytes) {
        Ok(row) => assert_eq!(values(row).len(), 8 * 8 * 3),
        Err(error) => {
            told(&error);
        }
    }
    assert!(began.elapsed().as_secs() < MOST_SECONDS);
}

/// A refusal names its field, what was given and what is allowed, in few words.
fn told(error: &Error) -> &str {
    assert_eq!((error.kind, error.field.as_str()), (ErrorKind::ImageUndecodable, "image"));
    assert!(error.message.starts_with("image: ") && error.message.len() < 400, "{error}");
    assert!(!error.value.is_empty() && !error.allowed.is_empty(), "{error:?}");
    assert!(!error.message.contains(char::is_control), "{error}");
    &error.message
}

fn refused(bytes: &[u8]) -> String {
    let began = Instant::now();
    let error = preparer(8, 8).prepare(bytes).unwrap_err();
    assert!(began.elapsed().as_secs() < MOST_SECONDS);
    told(&error).to_owned()
}

#[test]
fn what_is_no_image_is_refused_whatever_it_is_called() {
    let others: [&[u8]; 14] = [
        b"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"8\" height=\"8\"/>",
        b"<?xml version=\"1.0\"?><!DOCTYPE svg [<!ENTITY a \"aaaa\">]><svg>&a;</svg>",
        b"BM\x46\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0",
        b"II*\0\x08\0\0\0",
        b"MM\0*\0\0\0\x08",
        b"%PDF-1.7",
        b"\0\0\0\x20ftypavif\0\0\0\0avifmif1",
        b"\xff\x0a\xfa\x7f",
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"qoif\0\0\0\x08\0\0\0\x08\x04\0",
        b"PK\x03\x04image.png",
        b"\x1f\x8b\x08\0\0\0\0\0",
        b"image.png",
        b" \x89PNG\r\n\x1a\n",
    ];
    for other in others {
        let error = preparer(8, 8).prepare(other).unwrap_err();
        assert_eq!(told(&error), "image: is not a PNG, JPEG, WebP or GIF");
        assert_eq!(error.allowed, "a PNG, JPEG, WebP or GIF image");
    }
    assert!(refused(b"GIF88a").contains("is not a PNG"));
    for start in ["GIF89a", "GIF87a", "\u{89}PNG\r\n\u{1a}\n"] {
        refused(start.as_bytes());
    }
}

#[test]
fn a_format_under_anothers_opening_is_refused() {
    for format in FORMATS {
        for other in FORMATS.into_iter().filter(|other| *other != format) {
            let opening = file(format, (8, 8), &pixels(8, 8))[..12].to_vec();
            let rest = file(other, (8, 8), &pixels(8, 8));
            refused(&[opening, rest].concat());
        }
    }
    // A script that opens as a GIF.
    refused(b"GIF89a/*\x08\0\x08\0*/=1;alert(1)//............");
}

#[test]
fn an_image_that_is_cut_short_is_refused() {
    for format in FORMATS {
        let whole = file(format, (16, 12), &pixels(16, 12));
        let (step, end) = match format {
            // Each says where it ends.
            Format::Jpeg | Format::WebP => (1, whole.len()),
            // What is missing at the very end is no pixel.
            Format::Png | Format::Gif => (1, whole.len() - 16),
        };
        for length in (0..end).step_by(step) {
            refused(&whole[..length]);
        }
    }
}

#[test]
fn an_image_of_too_many_pixels_is_refused_by_its_header() {
    let png = [png_header(100_000, 100_000), png_chunk(b"IDAT", &[0; 8])].concat();
    assert_eq!(
        refused(&png),
        "image: has 100000 × 100000 pixels; at most 65535 are allowed on a side"
    );
    let many = "image: has 60000 × 60000 pixels; at most 50000000 are allowed (spec.input.image.maxPixels)";
    let png = [png_header(60_000, 60_000), png_chunk(b"IDAT", &[0; 8])].concat();
    let mut gif = file(Format::Gif, (8, 8), &pixels(8, 8));
    gif[6..10].copy_from_slice(&[0x60, 0xea, 0x60, 0xea]);
    let mut jpeg = block_jpeg(0xc2, 3, 1);
    let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc2]).unwrap();
    jpeg[frame + 5..][..4].copy_from_slice(&[0xea, 0x60, 0xea, 0x60]);
    let webp = extended_webp(0, (60_000, 60_000), &file(Format::WebP, (8, 8), &pixels(8, 8))[12..]);
    for file in [png, gif, jpeg, webp] {
        assert_eq!(refused(&file), many);
    }
    let largest = [png_header(u32::MAX, u32::MAX), png_chunk(b"IDAT", &[0; 8])].concat();
    assert!(refused(&largest).contains("4294967295 × 4294967295 pixels"));
    for none in [(0, 8), (8, 0)] {
        let sentence = refused(&png_header(none.0, none.1));
        assert_eq!(sentence, "image: is not a whole PNG: it has no pixels");
    }
}

#[test]
fn the_models_own_bound_on_pixels_counts() {
    let file = file(Format::Png, (9, 8), &pixels(9, 8));
    let most = |max_pixels| {
        let input = ImageInput { max_pixels, ..input(8, 8) };
        ImagePreparer::within(&input, Budget::of(0)).prepare(&file)
    };
    assert!(most(72).is_ok());
    let error = most(71).unwrap_err();
    assert_eq!(
        (error.value.as_str(), error.allowed.as_str()),
        ("9 × 8 pixels", "at most 71 pixels")
    );
}

/// Within the bound on pixels, and more than the memory that there is for all images.
#[test]
fn an_image_that_takes_too_much_memory_is_refused_before_it_is_decoded() {
    let png = [png_header(7_000, 7_000), png_chunk(b"IDAT", &[0; 8])].concat();
    let sentence = refused(&png);
    assert!(sentence.contains("bytes of memory to decode; at most 67108864 are allowed"));
}

#[test]
fn a_png_that_unpacks_to_more_than_its_pixels_costs_no_more_than_they_do() {
    let zeros = png((20_000, 2_000), ExtendedColorType::Rgb8, &plain(20_000, 2_000, [0; 3]));
    let packed = png_data(&zeros);
    assert!(packed.len() < 1 << 20);
    let image =
        |chunks: &[Vec<u8>]| [png_header(8, 8), chunks.concat(), png_chunk(b"IEND", &[])].concat();
    let pixels = png((8, 8), ExtendedColorType::Rgb8, &plain(8, 8, [0; 3]));
    let own = png_chunk(b"IDAT", png_data(&pixels));
    taken_or_refused(&image(&[png_chunk(b"IDAT", packed)]));
    taken_or_refused(&image(&[own.clone(), png_chunk(b"IDAT", packed)]));
    // A profile, a text and a comment that unpack to 120 MB.
    let profile = png_chunk(b"iCCP", &[&b"x\0\0"[..], packed].concat());
    let text = png_chunk(b"zTXt", &[&b"x\0\0"[..], packed].concat());
    let comment = png_chunk(b"iTXt", &[&b"XML:com.adobe.xmp\0\x01\0\0\0"[..], packed].concat());
    for chunk in [profile, text, comment] {
        taken_or_refused(&image(&[chunk.clone(), own.clone()]));
        taken_or_refused(&image(&[vec![chunk; 8].concat(), own.clone()]));
    }
}

#[test]
fn a_jpeg_of_too_many_scans_or_two_frames_is_refused() {
    assert!(preparer(8, 8).prepare(&block_jpeg(0xc2, 1, 1)).is_ok());
    let sentence = refused(&block_jpeg(0xc2, 1, 101));
    assert_eq!(sentence, "image: is not a whole JPEG: it has more than 100 scans");
    let (one, other) = (block_jpeg(0xc0, 1, 1), block_jpeg(0xc0, 3, 1));
    let two = [&one[..one.len() - 2], &other[2..]].concat();
    assert_eq!(refused(&two), "image: is not a whole JPEG: it has two frames");
    let mut lossless = one;
    let frame = lossless.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
    lossless[frame + 1] = 0xc3;
    assert!(refused(&lossless).contains("it is lossless, hierarchical or arithmetically coded"));
}

/// The decoder would allocate what the frame asks for, whatever the canvas is.
#[test]
fn a_webp_whose_frames_are_larger_than_it_is_refused() {
    let large = file(Format::WebP, (16, 16), &pixels(16, 16));
    let expected = "image: is not a whole WebP: a frame is larger than the image";
    assert_eq!(refused(&extended_webp(0, (8, 8), &large[12..])), expected);
    let head = [0, 0, 0, 0, 0, 0, 7, 0, 0, 7, 0, 0, 100, 0, 0, 0];
    let inner = webp_chunk(b"ANMF", &[&head[..], &large[12..]].concat());
    assert_eq!(refused(&extended_webp(2, (8, 8), &inner)), expected);
    let mut head = head;
    head[6] = 200;
    let outer = webp_chunk(b"ANMF", &[&head[..], &large[12..]].concat());
    assert_eq!(refused(&extended_webp(2, (8, 8), &outer)), expected);
    // A lossy one of 16383 × 16383.
    let lossy = webp_chunk(b"VP8 ", b"\x10\0\0\x9d\x01\x2a\xff\x3f\xff\x3f\0\0\0\0");
    assert_eq!(refused(&extended_webp(0, (8, 8), &lossy)), expected);
}

#[test]
fn a_webp_whose_chunks_claim_more_than_there_is_is_refused() {
    let mut chunk = webp_chunk(b"EXIF", b"II*\0");
    chunk[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    let webp = file(Format::WebP, (8, 8), &pixels(8, 8));
    let chunks = [&webp[12..], &chunk].concat();
    let expected = "image: is not a whole WebP: it is cut short";
    assert_eq!(refused(&extended_webp(8, (8, 8), &chunks)), expected);
    let mut whole = webp;
    whole[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(refused(&whole), expected);
}

#[test]
fn a_gif_without_a_frame_or_with_one_off_its_screen_does_no_harm() {
    let gif = file(Format::Gif, (8, 8), &pixels(8, 8));
    let mut small = gif.clone();
    small[6..10].copy_from_slice(&[1, 0, 1, 0]);
    taken_or_refused(&small);
    let mut large = gif.clone();
    large[6..10].copy_from_slice(&[200, 0, 200, 0]);
    taken_or_refused(&large);
    refused(b"GIF89a\x08\0\x08\0\0\0\0;............");
    // Blocks of extensions without end.
    taken_or_refused(
        &[&b"GIF89a\x08\0\x08\0\0\0\0"[..], &b"!\xfe\x01a\0".repeat(100_000)].concat(),
    );
}

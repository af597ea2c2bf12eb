//! Files for tests: made by the crate's encoders, and by hand where no encoder makes them.

use std::io::Cursor;

use ::image::{
    Delay, ExtendedColorType, Frame, ImageEncoder, RgbaImage,
    codecs::{
        gif::GifEncoder,
        jpeg::JpegEncoder,
        png::{CompressionType, FilterType, PngEncoder},
        webp::WebPEncoder,
    },
};

use super::super::header::Format;

pub(super) const FORMATS: [Format; 4] = [Format::Png, Format::Jpeg, Format::WebP, Format::Gif];

/// The pixels of a picture in which all differ.
pub(super) fn pixels(width: u32, height: u32) -> Vec<u8> {
    let pixel = |at: u32| {
        [at * 7 % 251, at * 13 % 241, at * 29 % 239].map(|value| u8::try_from(value).unwrap())
    };
    (0..width * height).flat_map(pixel).collect()
}

/// A picture of one colour.
pub(super) fn plain(width: u32, height: u32, colour: [u8; 3]) -> Vec<u8> {
    colour.repeat((width * height) as usize)
}

/// A file of pixels of red, green and blue.
pub(super) fn file(format: Format, size: (u32, u32), pixels: &[u8]) -> Vec<u8> {
    let (width, height) = size;
    let mut file = Vec::new();
    let rgb = ExtendedColorType::Rgb8;
    match format {
        Format::Png => return png(size, rgb, pixels),
        Format::Jpeg => JpegEncoder::new_with_quality(&mut file, 95)
            .write_image(pixels, width, height, rgb)
            .unwrap(),
        Format::WebP => {
            WebPEncoder::new_lossless(&mut file).write_image(pixels, width, height, rgb).unwrap()
        }
        Format::Gif => GifEncoder::new(&mut file).encode(pixels, width, height, rgb).unwrap(),
    }
    file
}

/// A PNG of pixels of any kind.
pub(super) fn png((width, height): (u32, u32), kind: ExtendedColorType, pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    PngEncoder::new_with_quality(&mut file, CompressionType::Best, FilterType::NoFilter)
        .write_image(pixels, width, height, kind)
        .unwrap();
    file
}

/// A GIF whose frames are of one colour each.
pub(super) fn animated_gif(colours: &[[u8; 3]]) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    let frame = |[r, g, b]: &[u8; 3]| {
        let pixels = RgbaImage::from_pixel(4, 4, ::image::Rgba([*r, *g, *b, 255]));
        Frame::from_parts(pixels, 0, 0, Delay::from_numer_denom_ms(100, 1))
    };
    GifEncoder::new(&mut file).encode_frames(colours.iter().map(frame)).unwrap();
    file.into_inner()
}

/// A WebP with a canvas, around chunks.
pub(super) fn extended_webp(flags: u8, (width, height): (u32, u32), chunks: &[u8]) -> Vec<u8> {
    let size = |length: u32| length.wrapping_sub(1).to_le_bytes()[..3].to_vec();
    let canvas = [vec![flags, 0, 0, 0], size(width), size(height)].concat();
    riff(&[webp_chunk(b"VP8X", &canvas), chunks.to_vec()].concat())
}

/// A WebP whose frames are of one colour each.
pub(super) fn animated_webp(colours: &[[u8; 3]]) -> Vec<u8> {
    let frame = |colour: &[u8; 3]| {
        let whole = file(Format::WebP, (4, 4), &plain(4, 4, *colour));
        let head = [0, 0, 0, 0, 0, 0, 3, 0, 0, 3, 0, 0, 100, 0, 0, 0];
        webp_chunk(b"ANMF", &[&head[..], &whole[12..]].concat())
    };
    let frames: Vec<u8> = colours.iter().flat_map(frame).collect();
    let chunks = [webp_chunk(b"ANIM", &[255, 255, 255, 255, 0, 0]), frames].concat();
    extended_webp(2, (4, 4), &chunks)
}

pub(super) fn webp_chunk(name: &[u8; 4], bytes: &[u8]) -> Vec<u8> {
    let padding = &[0][..bytes.len() % 2];
    [&name[..], &length(bytes).to_le_bytes(), bytes, padding].concat()
}

pub(super) fn riff(chunks: &[u8]) -> Vec<u8> {
    [&b"RIFF"[..], &(length(chunks) + 4).to_le_bytes(), b"WEBP", chunks].concat()
}

/// A chunk of a PNG.
pub(super) fn png_chunk(name: &[u8; 4], bytes: &[u8]) -> Vec<u8> {
    let named = [&name[..], bytes].concat();
    [&length(bytes).to_be_bytes()[..], &named, &crc(&named).to_be_bytes()].concat()
}

/// The header of a PNG of eight bits of red, green and blue.
pub(super) fn png_header(width: u32, height: u32) -> Vec<u8> {
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    let header = png_chunk(b"IHDR", &[&size[..], &[8, 2, 0, 0, 0]].concat());
    [&b"\x89PNG\r\n\x1a\n"[..], &header].concat()
}

/// The compressed bytes of a PNG that has them in one chunk.
pub(super) fn png_data(file: &[u8]) -> &[u8] {
    let name = file.windows(4).position(|name| name == b"IDAT").unwrap();
    let length = u32::from_be_bytes(file[name - 4..name].try_into().unwrap()) as usize;
    &file[name + 4..][..length]
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap()
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

/// A JPEG with an orientation, as cameras write it.
pub(super) fn turned_jpeg(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let tiff = [
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".as_slice(),
        &[orientation, 0, 0, 0],
        &[0; 4],
    ];
    [&jpeg[..2], &jpeg_segment(0xe1, &tiff.concat()), &jpeg[2..]].concat()
}

pub(super) fn jpeg_segment(marker: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len() + 2).unwrap();
    [&[0xff, marker][..], &length.to_be_bytes(), bytes].concat()
}

/// A JPEG of one block, all of whose samples are 128: of so many colours, and of so many scans.
pub(super) fn block_jpeg(frame: u8, colours: u8, scans: usize) -> Vec<u8> {
    let ids: Vec<u8> = (1..=colours).collect();
    let tables = [0x00, 0x10].map(|table| {
        // One code, a single 0: a difference of nothing, and the end of a block.
        jpeg_segment(0xc4, &[&[table, 1][..], &[0; 15], &[0]].concat())
    });
    let parts: Vec<u8> = ids.iter().flat_map(|id| [*id, 0x11, 0]).collect();
    let scanned: Vec<u8> = ids.iter().flat_map(|id| [*id, 0]).collect();
    let (last, bits) = if frame == 0xc2 { (0, colours) } else { (63, 2 * colours) };
    let scan = [
        jpeg_segment(0xda, &[&[colours][..], &scanned, &[0, last, 0]].concat()),
        vec![0xff_u8.checked_shr(bits.into()).unwrap_or(0)],
    ];
    [
        vec![0xff, 0xd8],
        // Colours as they are: of four, those of print.
        if colours == 4 { jpeg_segment(0xee, b"Adobe\0\x64\0\0\0\0\0") } else { vec![] },
        jpeg_segment(0xdb, &[&[0][..], &[1; 64]].concat()),
        jpeg_segment(frame, &[&[8, 0, 8, 0, 8, colours][..], &parts].concat()),
        tables.concat(),
        scan.concat().repeat(scans),
        vec![0xff, 0xd9],
    ]
    .concat()
}

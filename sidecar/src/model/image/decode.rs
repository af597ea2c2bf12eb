//! Files to pixels: the only file that names the decoders' crate.
//!
//! A decoder gets a file only after its header was read (`header`) and found within bounds, and what it says must agree
//! with that; its memory is taken from the budget before it allocates. Panics of it are contained.

use std::io::Cursor;

use ::image::{
    ColorType, ImageDecoder, ImageResult, Limits,
    codecs::{gif::GifDecoder, jpeg::JpegDecoder, png::PngDecoder, webp::WebPDecoder},
    metadata::Orientation,
};

use super::{
    header::{Format, Header, METADATA_BYTES},
    picture::{Colour, Picture, Turn},
};
use crate::model::refusal::{contained, quote};

/// The pixels of a file whose header was found good; of an animation, those of its first frame.
///
/// # Errors
/// The words of the decoder.
pub(super) fn decode(file: &[u8], header: &Header) -> Result<Picture, String> {
    let limits = limits(header);
    contained(|| match header.format {
        Format::Png => PngDecoder::with_limits(Cursor::new(file), limits.clone())
            .map_err(quote)
            .and_then(|decoder| read(decoder, header, limits)),
        Format::Jpeg => opened(JpegDecoder::new(Cursor::new(file)), header, limits),
        Format::WebP => opened(WebPDecoder::new(Cursor::new(file)), header, limits),
        Format::Gif => opened(GifDecoder::new(Cursor::new(file)), header, limits),
    })
    .flatten()
}

fn opened<D: ImageDecoder>(
    decoder: ImageResult<D>,
    header: &Header,
    limits: Limits,
) -> Result<Picture, String> {
    decoder.map_err(quote).and_then(|decoder| read(decoder, header, limits))
}

fn read<D: ImageDecoder>(
    mut decoder: D,
    header: &Header,
    limits: Limits,
) -> Result<Picture, String> {
    if decoder.dimensions() != (header.width, header.height) {
        return Err("its size is not what its header says".to_owned());
    }
    // The crate has its own word on limits for the formats that heed them; PNG got them when it was opened.
    if header.format != Format::Png {
        decoder.set_limits(limits).map_err(quote)?;
    }
    let colour = colour(decoder.color_type())
        .filter(|colour| colour.size() as u64 <= header.pixel_bytes)
        .ok_or("its colours are not what its header says")?;
    // What cannot be read of it turns nothing.
    let turn = decoder.orientation().map_or_else(|_| Turn::default(), turn);
    let (width, height) = (header.width as usize, header.height as usize);
    let bytes = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(colour.size()));
    let bytes = bytes.filter(|bytes| *bytes as u64 == decoder.total_bytes());
    let mut data = vec![0; bytes.ok_or("its size is not what its header says")?];
    decoder.read_image(&mut data).map_err(quote)?;
    Ok(Picture { data, width, height, colour, turn })
}

/// What a decoder may allocate beside the pixels.
fn limits(header: &Header) -> Limits {
    let mut limits = Limits::no_limits();
    limits.max_image_width = Some(header.width);
    limits.max_image_height = Some(header.height);
    limits.max_alloc = Some(match header.format {
        Format::Png => METADATA_BYTES,
        _ => header.working_bytes,
    });
    limits
}

fn colour(kind: ColorType) -> Option<Colour> {
    let (channels, wide) = match kind {
        ColorType::L8 => (1, false),
        ColorType::La8 => (2, false),
        ColorType::Rgb8 => (3, false),
        ColorType::Rgba8 => (4, false),
        ColorType::L16 => (1, true),
        ColorType::La16 => (2, true),
        ColorType::Rgb16 => (3, true),
        ColorType::Rgba16 => (4, true),
        _ => return None,
    };
    Some(Colour { channels, wide })
}

/// What a camera says of how it was held.
fn turn(orientation: Orientation) -> Turn {
    let (swap, mirror_across, mirror_down) = match orientation {
        Orientation::NoTransforms => (false, false, false),
        Orientation::FlipHorizontal => (false, true, false),
        Orientation::Rotate180 => (false, true, true),
        Orientation::FlipVertical => (false, false, true),
        Orientation::Rotate90FlipH => (true, false, false),
        Orientation::Rotate90 => (true, false, true),
        Orientation::Rotate270FlipH => (true, true, true),
        Orientation::Rotate270 => (true, true, false),
    };
    Turn { swap, mirror_across, mirror_down }
}

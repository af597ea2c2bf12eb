//! The chunks of a WebP. Its decoder allocates what a frame's own header asks for, so each is held against the canvas first,
//! and no chunk may claim more bytes than the file has.

use super::{Format, Header, number_le};

/// Bytes of a chunk's name and length.
const CHUNK_HEAD: usize = 8;
/// Bytes in front of the chunks of an animation's frame.
const FRAME_HEAD: usize = 16;
/// Bytes of work for each pixel: of brightness and colours for lossy images, of all colours for others, with a plane of
/// alpha where there may be one, and of an animation's canvas and frame.
const LOSSY: u64 = 2;
const LOSSLESS: u64 = 5;
const EXTENDED: u64 = 7;
const ANIMATED: u64 = 10;
/// Pixels are decoded in blocks of so many.
const STEP: u32 = 16;
/// What is said of bytes that are missing.
const SHORT: &str = "it is cut short";

type Size = (u32, u32);
/// A name and the bytes under it.
type Chunk<'a> = (&'a [u8; 4], &'a [u8]);

pub(super) fn header(file: &[u8]) -> Result<Header, &'static str> {
    let claimed = number_le(&file[4..8]) as usize;
    let body = file.get(..claimed.saturating_add(8)).ok_or(SHORT)?;
    let mut chunks = body.get(12..).ok_or(SHORT)?;
    let (mut canvas, mut work) = (None, 0);
    while let Some((name, chunk)) = next(&mut chunks)? {
        match (name, canvas) {
            (b"VP8X", None) => canvas = Some(extended(chunk)?),
            (_, Some(canvas)) => fits(name, chunk, canvas)?,
            (_, None) => canvas = Some(bitstream(name, chunk)?.ok_or("it has no image")?),
        }
        work = work.max(match name {
            b"VP8 " => LOSSY,
            b"VP8L" => LOSSLESS,
            b"ANMF" => ANIMATED,
            _ => EXTENDED,
        });
    }
    let (width, height) = canvas.ok_or("it has no image")?;
    let padded = |pixels: u32| u64::from(pixels.next_multiple_of(STEP));
    let working_bytes = padded(width) * padded(height) * work + file.len() as u64;
    Ok(Header { format: Format::WebP, width, height, pixel_bytes: 4, working_bytes })
}

/// The next chunk.
fn next<'a>(chunks: &mut &'a [u8]) -> Result<Option<Chunk<'a>>, &'static str> {
    // A byte that only makes the length even.
    if chunks.len() < 2 {
        return Ok(None);
    }
    let (head, rest) = chunks.split_at_checked(CHUNK_HEAD).ok_or(SHORT)?;
    let (name, length) = head.split_first_chunk::<4>().ok_or(SHORT)?;
    let length = number_le(length) as usize;
    let chunk = rest.get(..length).ok_or(SHORT)?;
    *chunks = rest.get(length.next_multiple_of(2)..).unwrap_or_default();
    Ok(Some((name, chunk)))
}

/// Fails for a frame that is larger than the canvas.
fn fits(name: &[u8; 4], chunk: &[u8], canvas: Size) -> Result<(), &'static str> {
    let within = |size: Option<Size>| match size {
        Some((width, height)) if width > canvas.0 || height > canvas.1 => {
            Err("a frame is larger than the image")
        }
        _ => Ok(()),
    };
    if name != b"ANMF" {
        return within(bitstream(name, chunk)?);
    }
    let (head, mut chunks) = chunk.split_at_checked(FRAME_HEAD).ok_or(SHORT)?;
    within(Some((number_le(&head[6..9]) + 1, number_le(&head[9..12]) + 1)))?;
    while let Some((name, chunk)) = next(&mut chunks)? {
        within(bitstream(name, chunk)?)?;
    }
    Ok(())
}

/// The canvas of an image with more than pixels.
fn extended(chunk: &[u8]) -> Result<Size, &'static str> {
    let size = chunk.get(4..10).ok_or(SHORT)?;
    Ok((number_le(&size[..3]) + 1, number_le(&size[3..]) + 1))
}

/// The size that an image's own bytes begin with; `None`: it is another chunk.
fn bitstream(name: &[u8; 4], chunk: &[u8]) -> Result<Option<Size>, &'static str> {
    match name {
        b"VP8 " => {
            let size = chunk.get(6..10).ok_or(SHORT)?;
            let of = |bytes: &[u8]| number_le(bytes) & 0x3fff;
            Ok(Some((of(&size[..2]), of(&size[2..]))))
        }
        b"VP8L" => {
            let bits = number_le(chunk.get(1..5).ok_or(SHORT)?);
            Ok(Some(((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1)))
        }
        _ => Ok(None),
    }
}

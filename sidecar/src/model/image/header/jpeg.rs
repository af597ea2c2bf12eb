//! The segments of a JPEG, walked from its beginning to its end marker.
//!
//! The decoder fills up with grey what a file that was cut short lacks; its vector would be taken for that of the whole
//! image. So a file without its end is refused here. And each scan of a progressive image may touch every block of it, so
//! there may only be so many.

use super::{Format, Header, number};

/// The most scans of one image. Encoders make about ten.
const MAX_SCANS: u32 = 100;
/// Blocks are counted in steps of so many pixels, the largest that a file may ask for.
const STEP: u32 = 32;
/// Bytes of a coefficient.
const COEFFICIENT: u64 = 2;

/// What a frame's header says.
struct Frame {
    width: u32,
    height: u32,
    components: u64,
    progressive: bool,
}

pub(super) fn header(file: &[u8]) -> Result<Header, &'static str> {
    let (mut frame, mut scans) = (None, 0);
    // Behind the marker that it opens with.
    let mut at = 2;
    loop {
        let marker = next_marker(file, &mut at)?;
        match marker {
            // Stuffing, and markers that stand alone.
            0x00 | 0x01 | 0xd0..=0xd8 => {}
            0xd9 => break,
            _ => {
                let segment = segment(file, &mut at)?;
                match marker {
                    0xc0..=0xc2 if frame.is_some() => return Err("it has two frames"),
                    0xc0..=0xc2 => frame = Some(Frame::of(segment, marker == 0xc2)?),
                    // Tables, which have numbers in between those of frames.
                    0xc4 | 0xc8 | 0xcc => {}
                    0xc3..=0xcf => {
                        return Err("it is lossless, hierarchical or arithmetically coded");
                    }
                    0xda => scans += 1,
                    _ => {}
                }
                if scans > MAX_SCANS {
                    return Err("it has more than 100 scans");
                }
            }
        }
    }
    let frame = frame.ok_or("it has no frame")?;
    if scans == 0 {
        return Err("it has no scan");
    }
    Ok(Header {
        format: Format::Jpeg,
        width: frame.width,
        height: frame.height,
        // Four colours become three.
        pixel_bytes: frame.components.clamp(1, 3),
        working_bytes: frame.working_bytes(file.len(), scans),
    })
}

/// The next marker, over whatever is in front of it: what scans hold never looks like one that counts.
fn next_marker(file: &[u8], at: &mut usize) -> Result<u8, &'static str> {
    let rest = file.get(*at..).unwrap_or_default();
    let found = rest.iter().position(|byte| *byte == 0xff);
    let start = found.ok_or("it ends before its end marker")?;
    let fill = rest[start..].iter().position(|byte| *byte != 0xff);
    let length = fill.ok_or("it ends before its end marker")?;
    *at += start + length + 1;
    Ok(rest[start + length])
}

/// The bytes of a segment behind its length.
fn segment<'a>(file: &'a [u8], at: &mut usize) -> Result<&'a [u8], &'static str> {
    let rest = file.get(*at..).unwrap_or_default();
    let length = rest.get(..2).map(number).ok_or("it ends within a segment")? as usize;
    let segment = rest.get(2..length).ok_or("it ends within a segment")?;
    *at += length;
    Ok(segment)
}

// === impl Frame ===

impl Frame {
    fn of(segment: &[u8], progressive: bool) -> Result<Self, &'static str> {
        let [_, y1, y2, x1, x2, components, ..] = segment else {
            return Err("its frame has no size");
        };
        Ok(Frame {
            width: u32::from(u16::from_be_bytes([*x1, *x2])),
            height: u32::from(u16::from_be_bytes([*y1, *y2])),
            components: u64::from(*components),
            progressive,
        })
    }

    /// The decoder copies the file, and holds all coefficients of an image that comes in several scans; of any other it
    /// holds some rows of blocks.
    fn working_bytes(&self, file: usize, scans: u32) -> u64 {
        let padded = |pixels: u32| u64::from(pixels.next_multiple_of(STEP));
        let rows = if self.progressive || scans > 1 { padded(self.height) } else { 4 * 64 };
        2 * file as u64 + padded(self.width) * rows * self.components * COEFFICIENT
    }
}

//! What the head of a file says of its image, read before any decoder sees it: which format it is, how large the image is
//! and what decoding it takes. A name or a declared type never counts. Pure: nothing is allocated.

use std::fmt;

mod jpeg;
mod webp;

/// The most bytes that a decoder keeps of what describes an image: profiles and the like.
pub(super) const METADATA_BYTES: u64 = 8 * 1024 * 1024;

/// What a PNG opens with.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The least bytes that any image has; fewer are none.
const LEAST_BYTES: usize = 24;

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
    WebP,
    Gif,
}

/// What a file says of its image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) format: Format,
    /// Pixels across, before it is turned.
    pub(super) width: u32,
    /// Pixels down, before it is turned.
    pub(super) height: u32,
    /// The most bytes of a pixel once it is decoded.
    pub(super) pixel_bytes: u64,
    /// The most bytes that its decoder holds beside the pixels.
    pub(super) working_bytes: u64,
}

/// Why the head of a file is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    /// It is of no format that is read.
    #[error("is not a PNG, JPEG, WebP or GIF")]
    Unknown,
    /// It says what cannot be.
    #[error("is not a whole {0}: {1}")]
    Broken(Format, &'static str),
}

// === impl Format ===

impl Format {
    /// The format of a file, by what it opens with.
    pub(super) fn of(file: &[u8]) -> Option<Self> {
        if file.starts_with(PNG) {
            Some(Format::Png)
        } else if file.starts_with(b"\xff\xd8\xff") {
            Some(Format::Jpeg)
        } else if file.starts_with(b"GIF87a") || file.starts_with(b"GIF89a") {
            Some(Format::Gif)
        } else if file.starts_with(b"RIFF") && file.get(8..12) == Some(&b"WEBP"[..]) {
            Some(Format::WebP)
        } else {
            None
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Png => "PNG",
            Format::Jpeg => "JPEG",
            Format::WebP => "WebP",
            Format::Gif => "GIF",
        })
    }
}

// === impl Header ===

impl Header {
    /// Reads the head of a file. Of a JPEG and a WebP the whole is walked, part by part.
    ///
    /// # Errors
    /// It is of another format, or cannot be a whole file of its own.
    pub(super) fn of(file: &[u8]) -> Result<Self, HeaderError> {
        let format = Format::of(file).ok_or(HeaderError::Unknown)?;
        let header = if file.len() < LEAST_BYTES {
            Err("it is cut short")
        } else {
            match format {
                Format::Png => png(file),
                Format::Jpeg => jpeg::header(file),
                Format::WebP => webp::header(file),
                Format::Gif => Ok(gif(file)),
            }
        };
        match header {
            Ok(header) if header.pixels() == 0 => {
                Err(HeaderError::Broken(format, "it has no pixels"))
            }
            header => header.map_err(|why| HeaderError::Broken(format, why)),
        }
    }

    /// Pixels in all.
    pub(super) fn pixels(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

// === free functions ===

/// The first chunk is the header. A decoder holds few rows at a time.
fn png(file: &[u8]) -> Result<Header, &'static str> {
    /// Bytes of rows, of the window of its compression, and of what it keeps of other chunks.
    const WORKING_BYTES: u64 = METADATA_BYTES + 4 * 1024 * 1024;
    if file.get(8..16) != Some(&b"\0\0\0\rIHDR"[..]) {
        return Err("it does not open with its header");
    }
    let &[bits, colour] =
        file.get(24..26).and_then(<[u8]>::first_chunk).ok_or("it is cut short")?;
    // Alpha may come by another chunk.
    let channels = match colour {
        0 | 4 => 2,
        2 | 3 | 6 => 4,
        _ => return Err("its colours are of no known type"),
    };
    Ok(Header {
        format: Format::Png,
        width: number(&file[16..20]),
        height: number(&file[20..24]),
        pixel_bytes: if bits > 8 { 2 * channels } else { channels },
        working_bytes: WORKING_BYTES,
    })
}

/// The screen that all frames are on. The first of them may be decoded beside it.
fn gif(file: &[u8]) -> Header {
    let size = |at: usize| u16::from_le_bytes([file[at], file[at + 1]]);
    let (width, height) = (u32::from(size(6)), u32::from(size(8)));
    let working_bytes = 4 * u64::from(width) * u64::from(height) + 1024 * 1024;
    Header { format: Format::Gif, width, height, pixel_bytes: 4, working_bytes }
}

/// A number, the high byte first.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

/// A number, the low byte first.
fn number_le(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | u32::from(*byte))
}

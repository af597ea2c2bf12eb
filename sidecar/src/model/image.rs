//! An image's file becomes the tensor that a model reads: decoded, turned the right way up, scaled and packed. Pure; every
//! byte is taken for hostile.
//!
//! ```text
//! header     format by its first bytes, size and what decoding takes: before anything is allocated
//! budget     memory, shared by all images of the process: who finds too little waits
//! decode     pixels, by the crate's decoders
//! picture    rows of red, green and blue, turned as the camera was held
//! resample   to the model's width and height
//! pack       to its element type, its order of axes and of colours
//! ```
//!
//! What decides a vector here is a part of the version of our preprocessing, see `embark_crds::digest`.

use std::sync::Arc;

use embark_crds::contract::ImageInput;

use self::{
    budget::Budget,
    decode::decode,
    header::{Header, HeaderError},
    pack::Packing,
    picture::RGB,
    resample::Plan,
};
use super::engine::{Row, RowData};
use crate::error::{Error, ErrorKind};

mod budget;
pub use budget::working_bytes;
mod decode;
mod header;
mod pack;
mod picture;
mod resample;

/// The field of an item that a failure of its image names.
pub const IMAGE_FIELD: &str = "image";
/// The longest side of an image: the longest that JPEG and GIF can have. With it, scaling costs no more than pixels do.
const MAX_SIDE: u32 = 65_535;
/// What is allowed, said of what is not.
const READ: &str = "a PNG, JPEG, WebP or GIF image";

/// Makes rows of images. It is shared between threads.
#[derive(Debug)]
pub struct ImagePreparer {
    input: ImageInput,
    packing: Packing,
    budget: Arc<Budget>,
}

// === impl ImagePreparer ===

impl ImagePreparer {
    /// What reads the images of a model.
    pub fn new(input: &ImageInput) -> Self {
        Self::within(input, Budget::of_process())
    }

    fn within(input: &ImageInput, budget: Arc<Budget>) -> Self {
        ImagePreparer { input: input.clone(), packing: Packing::of(input), budget }
    }

    /// The row of an image's file.
    ///
    /// # Errors
    /// [`ErrorKind::ImageUndecodable`]: it is no whole image of a format that is read, or beyond the model's bounds.
    pub fn prepare(&self, file: &[u8]) -> Result<Row, Error> {
        let header = Header::of(file).map_err(|error| match error {
            HeaderError::Unknown => undecodable(&opening(file), &error.to_string(), READ),
            HeaderError::Broken(format, _) => {
                undecodable(&format.to_string(), &error.to_string(), READ)
            }
        })?;
        self.check_size(&header)?;
        let bytes = self.working_bytes(&header, file.len());
        let Some(taken) = self.budget.take(bytes) else {
            let most = self.budget.most();
            let given = format!("{bytes} bytes");
            let sentence = format!("takes {given} of memory to decode; at most {most} are allowed");
            return Err(undecodable(&given, &sentence, &format!("at most {most} bytes")));
        };
        let picture = decode(file, &header).map_err(|words| {
            let sentence = format!("is not a whole {}: {words}", header.format);
            undecodable(&header.format.to_string(), &sentence, READ)
        })?;
        let pixels = Plan::of(&self.input, picture.across(), picture.down()).run(&picture);
        drop((picture, taken));
        Ok(Row { data: RowData::Tensor(self.packing.pack(&pixels)), truncated: false })
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.input.width as usize * self.input.height as usize * RGB * self.packing.value_bytes()
    }

    fn check_size(&self, header: &Header) -> Result<(), Error> {
        let given = format!("{} × {} pixels", header.width, header.height);
        if header.width > MAX_SIDE || header.height > MAX_SIDE {
            let sentence = format!("has {given}; at most {MAX_SIDE} are allowed on a side");
            let allowed = format!("at most {MAX_SIDE} pixels on a side");
            return Err(undecodable(&given, &sentence, &allowed));
        }
        let most = self.input.max_pixels;
        if header.pixels() > most {
            let sentence =
                format!("has {given}; at most {most} are allowed (spec.input.image.maxPixels)");
            return Err(undecodable(&given, &sentence, &format!("at most {most} pixels")));
        }
        Ok(())
    }

    /// The most that making a row holds at any time.
    fn working_bytes(&self, header: &Header, file: usize) -> u64 {
        let made = u64::from(self.input.width) * u64::from(self.input.height) * RGB as u64;
        let sums = made * (size_of::<i32>() as u64 + 1) + self.row_bytes() as u64;
        header.pixels() * header.pixel_bytes + header.working_bytes + sums + file as u64
    }
}

// === free functions ===

/// A failure of an image, whose place in the request is added where that is known.
fn undecodable(value: &str, sentence: &str, allowed: &str) -> Error {
    let error = Error::new(ErrorKind::ImageUndecodable, format!("{IMAGE_FIELD}: {sentence}"));
    error.about(IMAGE_FIELD, value).allowing(allowed)
}

/// What a file opens with, fit to be shown.
fn opening(file: &[u8]) -> String {
    format!("{} bytes from \"{}\" on", file.len(), file[..file.len().min(8)].escape_ascii())
}

#[cfg(test)]
mod tests;

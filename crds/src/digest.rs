//! Hashes that name things: the space that a vector lives in, and the whole of a contract.
//!
//! Every hash is BLAKE3-256 over fields that are each preceded by their length, so that no two lists of fields give the
//! same bytes. Names never enter: only what decides a vector does. The words that stand for choices are written out here,
//! apart from how Rust spells them: who renames a variant must not lose every cache.

use std::fmt;

use crate::contract::{
    Channels, ImageDtype, ImageInput, Input, Layout, Normalization, Overlong, Pooling, Resize,
    ServingConfig, TensorDtype, TensorInput, TextInput,
};

/// The version of our own preprocessing and pooling. Raise it whenever a change of ours can change a vector.
const PREPROCESSING_VERSION: u32 = 1;
/// Bytes of a field's length.
const LENGTH_BYTES: usize = 8;

/// Everything that decides a vector, hashed. Only vectors of equal space compare.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpaceId([u8; 32]);

/// A hash of one part of a contract, as names and annotations carry it: the same bytes, the same hash.
pub fn of_part(json: &str) -> String {
    blake3::hash(json.as_bytes()).to_hex().to_string()
}

/// BLAKE3-256 keyed by a space, over fields, each preceded by its length in bytes as a little-endian u64.
pub fn of_fields<const N: usize>(space: &SpaceId, fields: [&[u8]; N]) -> [u8; 32] {
    /// What BLAKE3 hashes without a tree.
    const CHUNK: usize = 1024;
    let total = fields.iter().map(|field| LENGTH_BYTES + field.len()).sum::<usize>();
    if total > CHUNK {
        let mut hasher = FieldHasher(blake3::Hasher::new_keyed(space.as_bytes()));
        fields.into_iter().for_each(|field| hasher.bytes(field));
        return hasher.finish();
    }
    // In one go: a hasher that takes little by little costs a short text twice as much.
    let mut chunk = [0; CHUNK];
    let mut rest = &mut chunk[..];
    for field in fields {
        let (length, after) = rest.split_at_mut(LENGTH_BYTES);
        length.copy_from_slice(&(field.len() as u64).to_le_bytes());
        let (bytes, after) = after.split_at_mut(field.len());
        bytes.copy_from_slice(field);
        rest = after;
    }
    *blake3::keyed_hash(space.as_bytes(), &chunk[..total]).as_bytes()
}

/// BLAKE3-256 over fields, each preceded by its length in bytes as a little-endian u64.
pub struct FieldHasher(blake3::Hasher);

// === impl SpaceId ===

impl SpaceId {
    /// The space of the vectors that a model of this configuration gives.
    pub fn of(serving: &ServingConfig) -> Self {
        let mut hasher = FieldHasher::new("embark space");
        hasher.number(PREPROCESSING_VERSION.into());
        hasher.bytes(&serving.model.sha256.0);
        hasher.optional_text(serving.output.name.as_deref());
        hasher.text(match serving.output.normalization {
            Normalization::L2 => "L2",
            Normalization::None => "None",
        });
        hash_input(&mut hasher, &serving.input);
        SpaceId(hasher.finish())
    }

    /// A space from its hash.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        SpaceId(bytes)
    }

    /// The hash's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpaceId({self})")
    }
}

// === impl FieldHasher ===

impl FieldHasher {
    /// An unkeyed hash; `purpose` keeps hashes of different things apart.
    pub fn new(purpose: &str) -> Self {
        let mut hasher = FieldHasher(blake3::Hasher::new());
        hasher.text(purpose);
        hasher
    }

    /// Adds bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds text.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// Adds text that may be absent; absent is not the same as empty.
    pub fn optional_text(&mut self, text: Option<&str>) {
        self.number(text.is_some().into());
        self.text(text.unwrap_or_default());
    }

    /// Adds a whole number.
    pub fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    /// Adds a list of real numbers; `-0.0` counts as `0.0`.
    pub fn reals(&mut self, reals: &[f64]) {
        self.number(reals.len() as u64);
        for real in reals {
            self.bytes(&(real + 0.0).to_le_bytes());
        }
    }

    /// The hash.
    pub fn finish(self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

// === free functions ===

fn hash_input(hasher: &mut FieldHasher, input: &Input) {
    match input {
        Input::Text(text) => hash_text(hasher, text),
        Input::Image(image) => hash_image(hasher, image),
        Input::Tensor(tensor) => hash_tensor(hasher, tensor),
        Input::Categorical(categorical) => {
            hasher.text("categorical");
            hasher.bytes(&categorical.vocabulary.sha256.0);
        }
    }
}

fn hash_text(hasher: &mut FieldHasher, text: &TextInput) {
    hasher.text("text");
    hasher.bytes(&text.tokenizer.sha256.0);
    hasher.number(text.max_tokens.into());
    hasher.text(match text.overlong {
        Overlong::Truncate => "Truncate",
        Overlong::Reject => "Reject",
        Overlong::Chunk => "Chunk",
    });
    hasher.text(match text.pooling {
        Pooling::None => "None",
        Pooling::Mean => "Mean",
        Pooling::Cls => "CLS",
        Pooling::LastToken => "LastToken",
    });
}

fn hash_image(hasher: &mut FieldHasher, image: &ImageInput) {
    hasher.text("image");
    hasher.number(image.width.into());
    hasher.number(image.height.into());
    hasher.text(match image.resize {
        Resize::Stretch => "Stretch",
        Resize::FitCrop => "FitCrop",
    });
    hasher.text(match image.layout {
        Layout::Nhwc => "Nhwc",
        Layout::Nchw => "Nchw",
    });
    hasher.text(match image.channels {
        Channels::Rgb => "Rgb",
        Channels::Bgr => "Bgr",
    });
    hasher.text(match image.dtype {
        ImageDtype::Uint8 => "Uint8",
        ImageDtype::Float32 => "Float32",
    });
    hasher.reals(&image.mean);
    hasher.reals(&image.std);
}

fn hash_tensor(hasher: &mut FieldHasher, tensor: &TensorInput) {
    hasher.text("tensor");
    hasher.number(tensor.shape.len() as u64);
    for &n in &tensor.shape {
        hasher.number(n.into());
    }
    hasher.text(match tensor.dtype {
        TensorDtype::Float32 => "Float32",
        TensorDtype::Float64 => "Float64",
        TensorDtype::Int32 => "Int32",
        TensorDtype::Int64 => "Int64",
        TensorDtype::Uint8 => "Uint8",
        TensorDtype::Int8 => "Int8",
        TensorDtype::Bool => "Bool",
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However long the fields are, they are hashed as they would be little by little.
    #[test]
    fn fields_have_one_hash_however_it_is_made() {
        let space = SpaceId::from_bytes([7; 32]);
        for length in [0, 1, 900, 985, 986, 987, 1024, 5000] {
            let long = vec![b'x'; length];
            let mut hasher = FieldHasher(blake3::Hasher::new_keyed(space.as_bytes()));
            [&b"query: "[..], b"text", &long].into_iter().for_each(|field| hasher.bytes(field));
            assert_eq!(
                of_fields(&space, [b"query: ", b"text", &long]),
                hasher.finish(),
                "{length}"
            );
        }
    }
}

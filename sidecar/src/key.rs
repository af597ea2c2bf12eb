//! What an item's vector is found by. A key holds everything that decides a vector and nothing else: the space, the
//! prompt's text, the kind of input and its bytes, each preceded by its length.

use std::fmt;

use embark_crds::digest::{self, SpaceId};

use crate::input::{Category, Input};

/// BLAKE3-256, keyed by the space, over the prompt's text and the input.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

// === impl CacheKey ===

impl CacheKey {
    /// The key of `text` behind a prompt's prefix (empty: no prompt). Neither is joined with the other, so no two pairs
    /// of prompt and text share a key.
    pub fn of_text(space: &SpaceId, prefix: &str, text: &[u8]) -> Self {
        Self::of(space, (prefix, "text"), text)
    }

    /// The key of an input; a prompt is put before texts alone.
    pub fn of_input(space: &SpaceId, prefix: &str, input: &Input) -> Self {
        match input {
            Input::Text(text) => Self::of_text(space, prefix, text.as_bytes()),
            Input::Image(image) => Self::of_image(space, image.as_bytes()),
            Input::ImageUrl(url) => Self::of_image_url(space, url.as_str()),
            Input::Tensor(tensor) => Self::of_tensor(space, tensor.as_bytes()),
            Input::Category(Category::Id(id)) => Self::of_category(space, id),
            Input::Category(Category::Unknown) => Self::of_unknown_category(space),
        }
    }

    /// The key of a tensor. Its shape and element type are the model's own, which the space holds.
    pub fn of_tensor(space: &SpaceId, values: &[u8]) -> Self {
        Self::of(space, ("", "tensor"), values)
    }

    /// The key of an image, by all bytes of its file. What they are made to fit is in the space.
    pub fn of_image(space: &SpaceId, file: &[u8]) -> Self {
        Self::of(space, ("", "image"), file)
    }

    /// The key of an image by its URL, whatever is found there.
    pub fn of_image_url(space: &SpaceId, url: &str) -> Self {
        Self::of(space, ("", "image-url"), url.as_bytes())
    }

    /// The key of a category, by its id. The vocabulary is in the space.
    pub fn of_category(space: &SpaceId, id: &[u8]) -> Self {
        Self::of(space, ("", "category"), id)
    }

    /// The one key of all ids that the vocabulary does not have.
    pub fn of_unknown_category(space: &SpaceId) -> Self {
        Self::of(space, ("", "unknown category"), &[])
    }

    /// A key from its bytes, as a store gives them back.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        CacheKey(bytes)
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn of(space: &SpaceId, (prefix, kind): (&str, &str), bytes: &[u8]) -> Self {
        CacheKey(digest::of_fields(space, [prefix.as_bytes(), kind.as_bytes(), bytes]))
    }

    /// A number in 0..1 that belongs to the key and is spread evenly over keys.
    pub fn unit(&self) -> f64 {
        let mut bytes = [0; 4];
        bytes.copy_from_slice(&self.0[28..]);
        f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "CacheKey({a:02x}{b:02x}{c:02x}{d:02x}…)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;

    use super::*;
    use crate::input::{Image, Tensor, Text};

    fn space() -> SpaceId {
        SpaceId::from_bytes([7; 32])
    }

    #[test]
    fn a_prompt_and_a_text_are_not_joined() {
        let (a, b) = (
            CacheKey::of_text(&space(), "query: ", b"x"),
            CacheKey::of_text(&space(), "", b"query: x"),
        );
        assert_ne!(a, b);
    }

    #[test]
    fn a_text_has_another_key_in_another_space() {
        let other = SpaceId::from_bytes([8; 32]);
        assert_ne!(CacheKey::of_text(&space(), "", b"x"), CacheKey::of_text(&other, "", b"x"));
    }

    #[test]
    fn tensors_of_other_values_have_other_keys() {
        let of = |values: &[f32]| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            CacheKey::of_tensor(&space(), &bytes)
        };
        let tensors = [&[1.0, 2.0][..], &[2.0, 1.0], &[1.0, 2.0, 0.0], &[1.0], &[0.0; 2], &[]];
        let keys: BTreeSet<CacheKey> = tensors.iter().map(|values| of(values)).collect();
        assert_eq!(keys.len(), tensors.len());
        assert_eq!(of(&[1.0, 2.0]), of(&[1.0, 2.0]));
    }

    #[test]
    fn a_tensor_and_a_text_never_share_a_key() {
        for bytes in ["", "tensor", "text", "\0\0\0\0", "x".repeat(52).as_str()] {
            let tensor = CacheKey::of_tensor(&space(), bytes.as_bytes());
            for (prefix, text) in
                [("", bytes), (bytes, ""), ("tensor", bytes), (bytes, "tensor"), (bytes, bytes)]
            {
                assert_ne!(
                    tensor,
                    CacheKey::of_text(&space(), prefix, text.as_bytes()),
                    "{prefix:?} {text:?}"
                );
            }
        }
    }

    /// Infinity keys an image by its height alone, a sound by its length.
    #[test]
    fn images_of_one_size_and_length_have_different_keys() {
        // The head of a PNG of 2 × 3 pixels, and two bodies.
        let head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x02\0\0\0\x03\x08\x02\0\0\0";
        let of = |body: &[u8]| CacheKey::of_image(&space(), &[head, body].concat());
        assert_ne!(of(b"red red red"), of(b"red red red."));
        assert_ne!(of(b"red red red"), of(b"red red rex"));
        assert_eq!(of(b"red red red"), of(b"red red red"));
    }

    #[test]
    fn equal_bytes_of_different_kinds_have_different_keys() {
        for bytes in ["", "a", "image", "category", "tensor", "text", "\0"] {
            let keys = BTreeSet::from([
                CacheKey::of_text(&space(), "", bytes.as_bytes()),
                CacheKey::of_tensor(&space(), bytes.as_bytes()),
                CacheKey::of_image(&space(), bytes.as_bytes()),
                CacheKey::of_image_url(&space(), bytes),
                CacheKey::of_category(&space(), bytes.as_bytes()),
                CacheKey::of_unknown_category(&space()),
            ]);
            assert_eq!(keys.len(), 6, "{bytes:?}");
        }
    }

    /// Ids that are joined, cut or compared as numbers somewhere.
    #[test]
    fn categories_whose_ids_are_alike_have_different_keys() {
        let ids = ["1", "01", "1 ", " 1", "1.0", "１", "1\n", "1,2", "12", "a-b", "a", "A", ""];
        let keys: BTreeSet<CacheKey> =
            ids.iter().map(|id| CacheKey::of_category(&space(), id.as_bytes())).collect();
        assert_eq!(keys.len(), ids.len());
    }

    /// Triton leaves a tensor's shape and element type out of its key (as sglang did, sgl-project/sglang#22033): here they
    /// are in the space, which the key is keyed by.
    #[test]
    fn equal_bytes_of_another_shape_or_element_type_have_different_keys() {
        use embark_crds::contract::{Input, TensorDtype, TensorInput};
        let of = |shape: &[u32], dtype| {
            let mut serving = crate::model::test_support::tiny().serving;
            serving.input = Input::Tensor(TensorInput { shape: shape.to_vec(), dtype });
            CacheKey::of_tensor(&SpaceId::of(&serving), &[0; 48])
        };
        let dtypes = [
            TensorDtype::Float32,
            TensorDtype::Float64,
            TensorDtype::Int32,
            TensorDtype::Int64,
            TensorDtype::Uint8,
            TensorDtype::Int8,
            TensorDtype::Bool,
        ];
        let shapes: [&[u32]; 8] =
            [&[2, 3], &[3, 2], &[6], &[1, 6], &[6, 1], &[2, 3, 1], &[23], &[]];
        let keys: BTreeSet<CacheKey> =
            dtypes.iter().flat_map(|dtype| shapes.iter().map(|shape| of(shape, *dtype))).collect();
        assert_eq!(keys.len(), dtypes.len() * shapes.len());
    }

    /// Keys of 32 bits collide from tens of thousands of items on (mastra-ai/mastra#17900), and 64 bits are no identity
    /// (Triton's manual, mick-gsk/drift#431).
    #[test]
    fn a_hundred_thousand_texts_have_as_many_keys_and_every_part_of_a_key_varies() {
        let keys: BTreeSet<[u8; 32]> = (0..100_000)
            .map(|n| *CacheKey::of_text(&space(), "", n.to_string().as_bytes()).as_bytes())
            .collect();
        assert_eq!(keys.len(), 100_000);
        for part in 0..4 {
            let parts: BTreeSet<&[u8]> = keys.iter().map(|key| &key[8 * part..][..8]).collect();
            assert_eq!(
                parts.len(),
                100_000,
                "eight bytes from {} are not those of a hash",
                8 * part
            );
        }
    }

    #[test]
    fn an_input_has_the_key_of_its_kind_and_a_prompt_is_put_before_texts_alone() {
        let bytes = Bytes::from_static(b"\x01\x02\x03\x04");
        let text = Input::Text(Text::from_utf8(bytes.clone()).unwrap());
        let tensor = Input::Tensor(Tensor::from_le_bytes(bytes.clone()));
        let of = |prefix, input| CacheKey::of_input(&space(), prefix, input);
        assert_ne!(of("", &text), of("", &tensor));
        assert_ne!(of("a", &text), of("b", &text));
        assert_eq!(of("a", &tensor), of("b", &tensor));
        assert_eq!(of("", &tensor), CacheKey::of_tensor(&space(), &bytes));
        let image = Input::Image(Image::from_file(bytes.clone()));
        assert_eq!(of("a", &image), CacheKey::of_image(&space(), &bytes));
    }

    #[test]
    fn the_unit_is_in_range_and_differs() {
        let units: Vec<f64> = (0..100)
            .map(|i| CacheKey::of_text(&space(), "", i.to_string().as_bytes()).unit())
            .collect();
        assert!(units.iter().all(|u| (0.0..1.0).contains(u)));
        assert!(units.iter().sum::<f64>() > 30.0 && units.iter().sum::<f64>() < 70.0);
    }
}

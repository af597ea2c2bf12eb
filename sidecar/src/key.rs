//! What an item's vector is found by. A key holds everything that decides a vector and nothing else: the space, the
//! prompt's text, the kind of input and its bytes, each preceded by its length.

use std::fmt;

use embark_crds::digest::{self, SpaceId};

use crate::input::Input;

/// BLAKE3-256, keyed by the space, over the prompt's text and the input.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey([u8; 32]);

// === impl CacheKey ===

impl CacheKey {
    /// The key of `text` behind a prompt's prefix (empty: no prompt). Neither is joined with the other, so no two pairs
    /// of prompt and text share a key.
    pub fn of_text(space: &SpaceId, prefix: &str, text: &[u8]) -> Self {
        CacheKey(digest::of_fields(space, [prefix.as_bytes(), b"text", text]))
    }

    /// The key of an input; a prompt is put before texts alone.
    pub fn of_input(space: &SpaceId, prefix: &str, input: &Input) -> Self {
        match input {
            Input::Text(text) => Self::of_text(space, prefix, text.as_bytes()),
            Input::Tensor(tensor) => Self::of_tensor(space, tensor.as_bytes()),
        }
    }

    /// The key of a tensor. Its shape and element type are the model's own, which the space holds.
    pub fn of_tensor(space: &SpaceId, values: &[u8]) -> Self {
        CacheKey(digest::of_fields(space, [b"", b"tensor", values]))
    }

    /// A key from its bytes, as a store gives them back.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        CacheKey(bytes)
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
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
    use crate::input::{Tensor, Text};

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

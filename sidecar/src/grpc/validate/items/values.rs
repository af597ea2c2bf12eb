//! Values of tensors that no model is asked about: bytes that are neither true nor false. Pure.
//!
//! What is not a number is a value: models of trees take it for one that is missing. Where a model makes no finite vector
//! of it, the vector is refused.

use embark_crds::contract::TensorDtype;

/// The first value of a tensor that it may not have, and what is wrong with it; `None`: there is none.
pub(super) fn unreadable(dtype: TensorDtype, bytes: &[u8]) -> Option<(String, String)> {
    if dtype != TensorDtype::Bool {
        return None;
    }
    let (at, value) = bytes.iter().enumerate().find(|(_, byte)| **byte > 1)?;
    Some((value.to_string(), format!("at position {at} is neither 0 nor 1")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_true_nor_false_is_named_with_its_place() {
        let (value, why) = unreadable(TensorDtype::Bool, &[0, 1, 2]).unwrap();
        assert_eq!((value.as_str(), why.as_str()), ("2", "at position 2 is neither 0 nor 1"));
        assert_eq!(unreadable(TensorDtype::Bool, &[0, 1]), None);
    }

    #[test]
    fn every_value_of_another_type_is_one() {
        let nan = f32::NAN.to_le_bytes();
        assert_eq!(unreadable(TensorDtype::Float32, &nan), None);
        for dtype in [TensorDtype::Int32, TensorDtype::Int64, TensorDtype::Uint8, TensorDtype::Int8]
        {
            assert_eq!(unreadable(dtype, &[0xff; 16]), None);
        }
    }
}

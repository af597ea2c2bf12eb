//! How often a message may repeat a field, checked on its bytes. An empty item is two bytes on the wire and some hundred
//! in memory: a frame within the transport's limit would otherwise become a gigabyte before anybody could count it.

use embark_crds::contract::MAX_REQUEST_ITEMS;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::{
    error::{Error, ErrorKind},
    pb::server::{
        EmbedRequest, EmbedStreamRequest, GetModelRequest, InvalidateRequest, ListModelsRequest,
    },
};

/// A message whose repeated fields are bounded.
pub trait Bounded {
    /// The bound of each repeated field whose elements are larger in memory than on the wire.
    const REPEATED: &'static [Repeated];
}

/// The bound of one repeated field.
#[derive(Debug)]
pub struct Repeated {
    /// The field's path, as callers write it.
    name: &'static str,
    /// The field numbers that lead to it.
    path: &'static [u32],
    /// Whether its elements are numbers, which one field may hold many of. They count as bytes: no fewer than numbers.
    is_packed: bool,
    /// How often it may be there in one message.
    most: usize,
    /// What more of it is.
    kind: ErrorKind,
}

/// The dimensions of all tensors of one message: far more than any model's input has.
const MAX_SHAPE_BYTES: usize = 64 * 1024;

// === impl Bounded ===

impl Bounded for EmbedRequest {
    const REPEATED: &'static [Repeated] =
        &[Repeated::items("items", &[2]), Repeated::shape("items[].tensor.shape", &[2, 4, 2])];
}

impl Bounded for EmbedStreamRequest {
    const REPEATED: &'static [Repeated] = &[
        Repeated::items("request.items", &[2, 2]),
        Repeated::shape("request.items[].tensor.shape", &[2, 2, 4, 2]),
    ];
}

impl Bounded for InvalidateRequest {
    const REPEATED: &'static [Repeated] = &[
        Repeated::items("items.items", &[3, 1]),
        Repeated::shape("items.items[].tensor.shape", &[3, 1, 4, 2]),
    ];
}

impl Bounded for GetModelRequest {
    const REPEATED: &'static [Repeated] = &[];
}

impl Bounded for ListModelsRequest {
    const REPEATED: &'static [Repeated] = &[];
}

// === impl Repeated ===

impl Repeated {
    const fn items(name: &'static str, path: &'static [u32]) -> Self {
        let (most, kind) = (MAX_REQUEST_ITEMS, ErrorKind::TooManyItems);
        Repeated { name, path, is_packed: false, most, kind }
    }

    const fn shape(name: &'static str, path: &'static [u32]) -> Self {
        let (most, kind) = (MAX_SHAPE_BYTES, ErrorKind::Malformed);
        Repeated { name, path, is_packed: true, most, kind }
    }
}

// === free functions ===

/// Fails for a message that repeats a field more often than it may. Bytes that are no message are left to the decoder,
/// which names what is wrong with them and stops where this stops.
///
/// # Errors
/// [`ErrorKind::TooManyItems`] or [`ErrorKind::Malformed`], with the field.
pub(super) fn check<M: Bounded>(message: &[u8]) -> Result<(), Error> {
    M::REPEATED.iter().try_for_each(|field| {
        let count = count(message, field, field.path);
        if count <= field.most {
            return Ok(());
        }
        let allowed = format!("at most {}", field.most);
        let sentence = format!("{}: {count} given; {allowed} are allowed", field.name);
        let error = Error::new(field.kind, sentence).about(field.name, &count.to_string());
        Err(error.allowing(allowed))
    })
}

/// How often the field at the end of the path is in a message.
fn count(mut message: &[u8], field: &Repeated, path: &[u32]) -> usize {
    let Some((&number, rest)) = path.split_first() else {
        return 0;
    };
    let mut found = 0;
    while let Some((at, inner)) = next(&mut message) {
        if at == number {
            found += match inner {
                Some(inner) if !rest.is_empty() => count(inner, field, rest),
                Some(inner) if field.is_packed => inner.len(),
                _ => 1,
            };
        }
    }
    found
}

/// The number of the next field, and its bytes where it has a length. `None`: the end, or not a field.
fn next<'a>(message: &mut &'a [u8]) -> Option<(u32, Option<&'a [u8]>)> {
    if message.is_empty() {
        return None;
    }
    let (number, wire_type) = decode_key(message).ok()?;
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, number, message, DecodeContext::default()).ok()?;
        return Some((number, None));
    }
    let length = usize::try_from(decode_varint(message).ok()?).ok()?;
    let (inner, rest) = message.split_at_checked(length)?;
    *message = rest;
    Some((number, Some(inner)))
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::pb::server::{Item, ItemKeys, Tensor, invalidate_request::Scope, item::Input};

    fn items(count: usize) -> EmbedRequest {
        let items = vec![Item::default(); count];
        EmbedRequest { model: "tiny".to_owned(), items, dimensions: 7, ..EmbedRequest::default() }
    }

    #[test]
    fn items_are_counted_wherever_a_message_has_them() {
        for (count, fits) in [(0, true), (MAX_REQUEST_ITEMS, true), (MAX_REQUEST_ITEMS + 1, false)]
        {
            let embed = items(count);
            let scope = Some(Scope::Items(ItemKeys { items: embed.items.clone() }));
            let keys = InvalidateRequest { scope, ..InvalidateRequest::default() };
            assert_eq!(check::<EmbedRequest>(&embed.encode_to_vec()).is_ok(), fits);
            assert_eq!(check::<InvalidateRequest>(&keys.encode_to_vec()).is_ok(), fits);
            let streamed = EmbedStreamRequest { id: 1, request: Some(embed) };
            assert_eq!(check::<EmbedStreamRequest>(&streamed.encode_to_vec()).is_ok(), fits);
        }
    }

    #[test]
    fn the_dimensions_of_all_tensors_count_together() {
        let tensor = Tensor { shape: vec![1; 600], ..Tensor::default() };
        let item = Item { input: Some(Input::Tensor(tensor)) };
        let request = |count| EmbedRequest { items: vec![item.clone(); count], ..items(0) };
        assert_eq!(check::<EmbedRequest>(&request(100).encode_to_vec()), Ok(()));
        let error = check::<EmbedRequest>(&request(110).encode_to_vec()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "items[].tensor.shape: 66000 given; at most 65536 are allowed"
        );
    }

    #[test]
    fn bytes_that_are_no_message_are_left_to_the_decoder() {
        let whole = items(3).encode_to_vec();
        for end in 0..whole.len() {
            assert_eq!(check::<EmbedRequest>(&whole[..end]), Ok(()));
        }
        for bytes in [&[0x12, 0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0xff; 11], &[0x13; 40]] {
            assert_eq!(check::<EmbedRequest>(bytes), Ok(()));
        }
    }
}

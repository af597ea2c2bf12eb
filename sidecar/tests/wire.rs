//! The server reads and writes other Rust types than its clients. On the wire they are the same: what one side encodes, the
//! other decodes to the same values, and encodes again to the same bytes.

use embark_sidecar::pb::{client, server};
use proptest::{collection::vec, option, prelude::*};
use prost::{
    Message,
    bytes::{Buf as _, Bytes},
};

proptest! {
    #[test]
    fn a_public_request_reads_as_the_servers_and_back(request in request()) {
        let read: server::EmbedRequest = reread(&request);
        prop_assert_eq!(read.items.len(), request.items.len());
        for (read, item) in read.items.iter().zip(&request.items) {
            prop_assert_eq!(bytes_of(read), text_of(item));
        }
        prop_assert_eq!(reread::<client::EmbedRequest>(&read), request);
    }

    #[test]
    fn a_servers_response_reads_as_the_public_one_and_back(response in response()) {
        let read: client::EmbedResponse = reread(&response);
        for (read, result) in read.results.iter().zip(&response.results) {
            let mut written = result.vector.clone();
            let values = std::iter::from_fn(|| written.has_remaining().then(|| written.get_f32_le()));
            // By bits, so that a NaN equals itself.
            let bits = |value: f32| value.to_bits();
            prop_assert!(read.vector.iter().copied().map(bits).eq(values.map(bits)));
        }
        prop_assert_eq!(reread::<server::EmbedResponse>(&read), response);
    }

    #[test]
    fn keys_of_an_invalidation_read_the_same(items in vec(item(), 0..5)) {
        let keys = client::ItemKeys { items };
        let read: server::ItemKeys = reread(&keys);
        prop_assert_eq!(reread::<client::ItemKeys>(&read), keys);
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        let server = server::EmbedRequest::decode(bytes.as_slice());
        let client = client::EmbedRequest::decode(bytes.as_slice());
        // The server's texts may be no UTF-8; there is no other difference.
        prop_assert!(server.is_ok() || client.is_err());
        if let (Ok(server), Ok(client)) = (server, client) {
            // By bytes, so that a NaN equals itself.
            let again = reread::<client::EmbedRequest>(&server);
            prop_assert_eq!(again.encode_to_vec(), client.encode_to_vec());
        }
    }
}

#[test]
fn a_vector_is_packed_little_endian_floats() {
    let written = client::ItemResult { vector: vec![1.0, -2.5], ..Default::default() };
    let bytes = written.encode_to_vec();
    assert_eq!(bytes, [0x0a, 8, 0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]);
    let read = server::ItemResult::decode(bytes.as_slice()).unwrap();
    assert_eq!(read.vector, Bytes::from_static(&[0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]));
}

/// Reads what another type writes.
fn reread<T: Message + Default>(message: &impl Message) -> T {
    T::decode(message.encode_to_vec().as_slice()).expect("the other side reads it")
}

fn bytes_of(item: &server::Item) -> Option<&[u8]> {
    use server::item::Input;
    match item.input.as_ref()? {
        Input::Text(b) | Input::Image(b) | Input::ImageUrl(b) | Input::Category(b) => Some(b),
        Input::Tensor(tensor) => Some(&tensor.data),
    }
}

fn text_of(item: &client::Item) -> Option<&[u8]> {
    use client::item::Input;
    match item.input.as_ref()? {
        Input::Text(text) | Input::ImageUrl(text) | Input::Category(text) => Some(text.as_bytes()),
        Input::Image(bytes) => Some(bytes),
        Input::Tensor(tensor) => Some(&tensor.data),
    }
}

fn item() -> impl Strategy<Value = client::Item> {
    use client::item::Input;
    let tensor = (vec(any::<i64>(), 0..4), vec(any::<u8>(), 0..20), vec(-1e9_f32..1e9, 0..9))
        .prop_map(|(shape, data, float_values)| client::Tensor {
            data_type: 1,
            shape,
            data,
            float_values,
        });
    let input = prop_oneof![
        any::<String>().prop_map(Input::Text),
        vec(any::<u8>(), 0..40).prop_map(Input::Image),
        any::<String>().prop_map(Input::ImageUrl),
        tensor.prop_map(Input::Tensor),
        any::<String>().prop_map(Input::Category),
    ];
    option::of(input).prop_map(|input| client::Item { input })
}

fn request() -> impl Strategy<Value = client::EmbedRequest> {
    let names = (any::<String>(), any::<String>(), any::<String>());
    let numbers = (any::<u32>(), 0..4_i32, 0..3_i32, any::<bool>(), any::<bool>());
    (vec(item(), 0..6), names, numbers).prop_map(|(items, names, numbers)| {
        let (model, prompt, expect_space_id) = names;
        let (dimensions, on_miss, priority, omit_vectors, include_timings) = numbers;
        let cache = Some(client::CacheControl { no_cache: omit_vectors, ..Default::default() });
        client::EmbedRequest {
            model,
            items,
            prompt,
            dimensions,
            expect_space_id,
            on_miss,
            wait_budget: Some(prost_types::Duration { seconds: 1, nanos: on_miss }),
            cache,
            priority,
            omit_vectors,
            include_timings,
        }
    })
}

fn result() -> impl Strategy<Value = server::ItemResult> {
    let error = (any::<i32>(), any::<String>(), any::<u32>()).prop_map(|(code, text, ms)| {
        server::ItemError { code, reason: text.clone(), message: text, retry_after_ms: ms }
    });
    let vector = vec(any::<[u8; 4]>(), 0..40).prop_map(|values| Bytes::from(values.concat()));
    let numbers = (0..7_i32, any::<u64>(), any::<u32>(), any::<bool>());
    (vector, numbers, option::of(error)).prop_map(|(vector, numbers, error)| {
        let (source, age_ms, tokens, truncated) = numbers;
        server::ItemResult {
            vector,
            source,
            age_ms,
            tokens,
            truncated,
            error,
            ..Default::default()
        }
    })
}

fn response() -> impl Strategy<Value = server::EmbedResponse> {
    (vec(result(), 0..6), any::<String>(), any::<u32>()).prop_map(|(results, text, dimensions)| {
        server::EmbedResponse {
            space_id: text.clone().into(),
            model_digest: text.into(),
            dimensions,
            results,
            timings: Some(server::Timings { total_us: 7, ..Default::default() }),
        }
    })
}

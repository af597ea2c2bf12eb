//! Items to inputs, each by itself.

use bytes::Bytes;
use embark_crds::contract::{ImageInput, Input as Takes, TensorDtype, TensorInput, TextInput};

use crate::{
    error::{Error, ErrorKind},
    input::{self, Category, Image, ImageUrl, Tensor, Text, URL_FIELD},
    model::vocabulary::MAX_ID_BYTES,
    pb::server::{self as pb, DataType, Item, item::Input},
};

mod values;

/// The inputs of items for a model that takes `takes`.
pub(in crate::grpc) fn items(takes: &Takes, items: Vec<Item>) -> Vec<input::Item> {
    items.into_iter().enumerate().map(|(index, item)| of_item(takes, index, item)).collect()
}

fn of_item(takes: &Takes, index: usize, item: Item) -> input::Item {
    match (takes, item.input) {
        (Takes::Text(takes), Some(Input::Text(bytes))) => {
            text(takes, index, bytes).map(input::Input::Text)
        }
        (Takes::Image(takes), Some(Input::Image(bytes))) => {
            image(takes, index, bytes).map(input::Input::Image)
        }
        (Takes::Image(takes), Some(Input::ImageUrl(bytes))) => {
            let url = image_url(takes, &bytes).map(input::Input::ImageUrl);
            url.map_err(|error| error.below(&format!("items[{index}]")))
        }
        (Takes::Tensor(takes), Some(Input::Tensor(given))) => {
            tensor(takes, index, given).map(input::Input::Tensor)
        }
        (Takes::Categorical(_), Some(Input::Category(id))) => {
            category(index, id).map(input::Input::Category)
        }
        (_, other) => Err(another_kind(takes, index, other.as_ref())),
    }
}

fn text(takes: &TextInput, index: usize, bytes: Bytes) -> Result<Text, Error> {
    let field = format_args!("items[{index}].text");
    if bytes.is_empty() {
        let sentence = format!("{field}: is empty; a text has at least 1 byte");
        let error = Error::new(ErrorKind::TextEmpty, sentence).about(field.to_string(), "");
        return Err(error.allowing("at least 1 byte"));
    }
    if bytes.len() as u64 > takes.size_limit {
        return Err(too_long(field.to_string(), &bytes, takes.size_limit));
    }
    Text::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let sentence = format!("{field}: is not UTF-8 from byte {at} on");
        let error = Error::new(ErrorKind::TextNotUtf8, sentence).about(field.to_string(), "");
        error.allowing("UTF-8")
    })
}

fn too_long(field: String, bytes: &Bytes, limit: u64) -> Error {
    let length = format!("{} bytes", bytes.len());
    let sentence =
        format!("{field}: has {length}; at most {limit} are allowed (spec.input.text.sizeLimit)");
    let error = Error::new(ErrorKind::TextTooLong, sentence).about(field, &length);
    error.allowing(format!("at most {limit} bytes"))
}

/// The file of an image. What is in it is found out when it is prepared, off this thread.
fn image(takes: &ImageInput, index: usize, bytes: Bytes) -> Result<Image, Error> {
    let most = takes.size_limit;
    if (1..=most).contains(&(bytes.len() as u64)) {
        return Ok(Image::from_file(bytes));
    }
    let field = format!("items[{index}].image");
    let given = format!("{} bytes", bytes.len());
    let sentence =
        format!("{field}: has {given}; 1 to {most} are allowed (spec.input.image.sizeLimit)");
    let error = Error::new(ErrorKind::ImageUndecodable, sentence).about(field, &given);
    Err(error.allowing(format!("1 to {most} bytes")))
}

/// The URL of an image. What is there is found out when it is fetched, off this thread.
fn image_url(takes: &ImageInput, bytes: &Bytes) -> Result<ImageUrl, Error> {
    let Some(urls) = &takes.urls else { return Err(input::no_urls()) };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let allowed = format!("are given; it is not UTF-8 from byte {} on", error.valid_up_to());
        let given = format!("{} bytes", bytes.len());
        Error::of_field(ErrorKind::Malformed, URL_FIELD, &given, allowed)
    })?;
    ImageUrl::parse(text, urls)
}

/// The values of a tensor, however they were given.
fn tensor(takes: &TensorInput, index: usize, given: pb::Tensor) -> Result<Tensor, Error> {
    let field = |part: &str| format!("items[{index}].tensor.{part}");
    let wrong = |part: &str, value: String, allowed: String| {
        Err(Error::of_field(ErrorKind::Shape, field(part), &value, allowed))
    };
    let wrong_value = |part: &str, value: &str, allowed: String| {
        Err(Error::of_field(ErrorKind::Malformed, field(part), value, allowed))
    };
    let dtype = data_type(takes.dtype);
    match DataType::try_from(given.data_type) {
        Ok(kind) if kind == DataType::Unspecified || kind == dtype => {}
        Ok(other) => {
            let allowed = format!("is not the model's {}", dtype.as_str_name());
            return wrong("data_type", other.as_str_name().to_owned(), allowed);
        }
        Err(_) => {
            let allowed = "is not a value of the enum".to_owned();
            return wrong("data_type", given.data_type.to_string(), allowed);
        }
    }
    let shape: Vec<i64> = takes.shape.iter().map(|axis| i64::from(*axis)).collect();
    if !given.shape.is_empty() && given.shape != shape {
        let shown: Vec<i64> = given.shape.iter().take(shape.len() + 1).copied().collect();
        let allowed = format!("is not the model's shape, {shape:?}");
        return wrong("shape", format!("{shown:?}"), allowed);
    }
    let count: u64 = takes.shape.iter().map(|axis| u64::from(*axis)).product();
    match (given.data.is_empty(), given.float_values.is_empty()) {
        (false, false) => {
            let allowed = "are given beside data; only one of them may be".to_owned();
            wrong("float_values", format!("{} values", given.float_values.len()), allowed)
        }
        (_, true) if given.data.len() as u64 == count * takes.dtype.size() => {
            match values::unreadable(takes.dtype, &given.data) {
                Some((value, why)) => wrong_value("data", &value, why),
                None => Ok(Tensor::from_le_bytes(given.data)),
            }
        }
        (_, true) => {
            let bytes = count * takes.dtype.size();
            let allowed = format!("given; a tensor of shape {shape:?} has {bytes} bytes");
            wrong("data", format!("{} bytes", given.data.len()), allowed)
        }
        (true, false) if dtype != DataType::Float32 => {
            let allowed = format!("given, but the model takes {}: use data", dtype.as_str_name());
            wrong("float_values", format!("{} values", given.float_values.len()), allowed)
        }
        (true, false) if given.float_values.len() as u64 == count => {
            let bytes: Bytes =
                given.float_values.iter().flat_map(|value| value.to_le_bytes()).collect();
            match values::unreadable(takes.dtype, &bytes) {
                Some((value, why)) => wrong_value("float_values", &value, why),
                None => Ok(Tensor::from_le_bytes(bytes)),
            }
        }
        (true, false) => {
            let allowed = format!("given; a tensor of shape {shape:?} has {count}");
            wrong("float_values", format!("{} values", given.float_values.len()), allowed)
        }
    }
}

/// An id. Whether the vocabulary has it is found out when it is looked up.
fn category(index: usize, id: Bytes) -> Result<Category, Error> {
    let field = format!("items[{index}].category");
    let wrong = |given: &str, why: String| {
        let error = Error::new(ErrorKind::Malformed, format!("{field}: {why}"));
        Err(error
            .about(field.clone(), given)
            .allowing(format!("1 to {MAX_ID_BYTES} bytes of UTF-8")))
    };
    if !(1..=MAX_ID_BYTES).contains(&id.len()) {
        let given = format!("{} bytes", id.len());
        return wrong(&given, format!("has {given}; an id has 1 to {MAX_ID_BYTES}"));
    }
    Category::from_utf8(id)
        .or_else(|error| wrong("", format!("is not UTF-8 from byte {} on", error.valid_up_to())))
}

fn another_kind(takes: &Takes, index: usize, given: Option<&Input>) -> Error {
    let (field, given) = match given.map(kind) {
        Some(kind) => (format!("items[{index}].{kind}"), kind),
        None => (format!("items[{index}]"), "nothing"),
    };
    let allowed = match takes {
        Takes::Text(_) => "text",
        Takes::Image(_) => "image",
        Takes::Tensor(_) => "tensor",
        Takes::Categorical(_) => "category",
    };
    let sentence = format!("{field}: {given} given; the model takes {allowed}");
    Error::new(ErrorKind::ItemKind, sentence).about(field, given).allowing(allowed)
}

fn kind(input: &Input) -> &'static str {
    match input {
        Input::Text(_) => "text",
        Input::Image(_) => "image",
        Input::ImageUrl(_) => "image_url",
        Input::Tensor(_) => "tensor",
        Input::Category(_) => "category",
    }
}

fn data_type(dtype: TensorDtype) -> DataType {
    match dtype {
        TensorDtype::Float32 => DataType::Float32,
        TensorDtype::Float64 => DataType::Float64,
        TensorDtype::Int32 => DataType::Int32,
        TensorDtype::Int64 => DataType::Int64,
        TensorDtype::Uint8 => DataType::Uint8,
        TensorDtype::Int8 => DataType::Int8,
        TensorDtype::Bool => DataType::Bool,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes() -> TensorInput {
        TensorInput { shape: vec![2, 2], dtype: TensorDtype::Float32 }
    }

    #[test]
    fn values_are_the_same_however_they_are_given() {
        let floats = pb::Tensor { float_values: vec![1.0, -2.0, 0.5, 0.0], ..Default::default() };
        let data: Vec<u8> = floats.float_values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let kind = DataType::Float32.into();
        let data = pb::Tensor {
            data: data.into(),
            shape: vec![2, 2],
            data_type: kind,
            ..Default::default()
        };
        assert_eq!(tensor(&takes(), 0, floats).unwrap(), tensor(&takes(), 0, data).unwrap());
    }

    #[test]
    fn everything_that_does_not_fit_is_named() {
        let good = pb::Tensor { float_values: vec![0.0; 4], ..Default::default() };
        let cases = [
            (pb::Tensor { shape: vec![4], ..good.clone() }, "shape"),
            (pb::Tensor { shape: vec![1; 5_000], ..good.clone() }, "shape"),
            (pb::Tensor { data_type: DataType::Int8.into(), ..good.clone() }, "data_type"),
            (pb::Tensor { data_type: 99, ..good.clone() }, "data_type"),
            (pb::Tensor { float_values: vec![0.0; 3], ..good.clone() }, "float_values"),
            (pb::Tensor { data: vec![0; 16].into(), ..good.clone() }, "float_values"),
            (pb::Tensor { data: vec![0; 15].into(), ..Default::default() }, "data"),
            (pb::Tensor::default(), "data"),
        ];
        for (given, part) in cases {
            let error = tensor(&takes(), 3, given).unwrap_err();
            assert_eq!(error.field, format!("items[3].tensor.{part}"));
            assert!(error.kind == ErrorKind::Shape && error.message.len() < 200, "{error}");
        }
    }

    #[test]
    fn an_id_is_taken_by_its_bytes_and_its_bounds_are_named() {
        assert_eq!(category(0, "ä 1".into()).unwrap().as_bytes(), "ä 1".as_bytes());
        assert!(category(0, vec![b'x'; 1024].into()).is_ok());
        for (id, why) in [
            (Bytes::new(), "has 0 bytes; an id has 1 to 1024"),
            (vec![b'x'; 1025].into(), "has 1025 bytes; an id has 1 to 1024"),
            (Bytes::from_static(b"ab\xff"), "is not UTF-8 from byte 2 on"),
        ] {
            let error = category(3, id).unwrap_err();
            assert_eq!(error.message, format!("items[3].category: {why}"));
            assert_eq!(
                (error.kind, error.field.as_str()),
                (ErrorKind::Malformed, "items[3].category")
            );
        }
    }

    #[test]
    fn values_of_floats_are_no_other_type() {
        let given = pb::Tensor { float_values: vec![0.0; 4], ..Default::default() };
        let takes = TensorInput { dtype: TensorDtype::Int32, ..takes() };
        assert_eq!(tensor(&takes, 0, given).unwrap_err().field, "items[0].tensor.float_values");
    }
}

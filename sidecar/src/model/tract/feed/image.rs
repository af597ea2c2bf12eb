//! Images: one input of pixels, of the manifest's element type, sizes and order of axes.

use embark_crds::contract::{ImageDtype, ImageInput, Layout, TensorDtype};
use tract_onnx::pb::GraphProto;

use super::{
    super::{SOURCE, port::Port},
    values::{Values, fits, fixed_rows, one_input},
};
use crate::model::refusal::Refusal;

/// The field of the element type.
const DTYPE: &str = "spec.input.image.dtype";
/// The field of the order of axes.
const LAYOUT: &str = "spec.input.image.layout";
/// The field of the sizes.
const IMAGE: &str = "spec.input.image";
/// Colours of a pixel.
const COLOURS: usize = 3;

/// Checks the graph's one input against the manifest.
pub(super) fn of(graph: &GraphProto, input: &ImageInput) -> Result<Values, Refusal> {
    let dtype = match input.dtype {
        ImageDtype::Uint8 => TensorDtype::Uint8,
        ImageDtype::Float32 => TensorDtype::Float32,
    };
    let port = one_input(graph, "pixels of uint8 or float", (DTYPE, dtype))?;
    let fixed = fixed_batch(&port, input)?;
    let shape = shape(input, input.layout).to_vec();
    Ok(Values::of(graph, "an image", (dtype, shape), fixed))
}

/// The shape of one row in an order of axes.
fn shape(input: &ImageInput, layout: Layout) -> [usize; 3] {
    let (width, height) = (input.width as usize, input.height as usize);
    match layout {
        Layout::Nhwc => [height, width, COLOURS],
        Layout::Nchw => [COLOURS, height, width],
    }
}

/// The rows that a file fixes a run to, when its input has the manifest's shape behind them.
fn fixed_batch(port: &Port, input: &ImageInput) -> Result<Option<usize>, Refusal> {
    let Some(dims) = &port.dims else { return Ok(None) };
    let refuse = |field: &str, sentence: String| Err(Refusal::new(field, sentence));
    let Some((batch, axes)) = dims.split_first().filter(|(_, axes)| axes.len() == 3) else {
        let sentence = format!(
            "the model's input must be pixels of four axes, the first of them the batch; its input: {port}"
        );
        return refuse(SOURCE, sentence);
    };
    let has = |layout: Layout| fits(axes, &shape(input, layout));
    if has(input.layout) {
        return fixed_rows(port, batch);
    }
    let (given, other) = match input.layout {
        Layout::Nhwc => ("NHWC", Layout::Nchw),
        Layout::Nchw => ("NCHW", Layout::Nhwc),
    };
    if has(other) {
        let sentence =
            format!("{given}, but the model's file has input {port}; it must be its order of axes");
        return refuse(LAYOUT, sentence);
    }
    let sentence = format!(
        "{} pixels across and {} down in {given}, but the model's file has input {port}; they must be its sizes",
        input.width, input.height
    );
    refuse(IMAGE, sentence)
}

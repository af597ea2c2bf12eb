//! Pixels become the values that a model reads. Pure.

use bytes::Bytes;
use embark_crds::contract::{Channels, ImageDtype, ImageInput, Layout};

use super::picture::RGB;

/// Values that a channel of 8 bits has.
const LEVELS: usize = 256;

/// How pixels are written. A value is looked up: the same arithmetic for the same 256 numbers is done once.
#[derive(Debug)]
pub(super) struct Packing {
    layout: Layout,
    /// Which colour each channel of the model is.
    colours: [usize; RGB],
    /// For `Float32`: what each value of each channel of the model becomes.
    floats: Option<Box<[[f32; LEVELS]; RGB]>>,
}

// === impl Packing ===

impl Packing {
    /// What a manifest asks for. `mean` and `std` are in the order of `channels`.
    pub(super) fn of(input: &ImageInput) -> Self {
        let colours = match input.channels {
            Channels::Rgb => [0, 1, 2],
            Channels::Bgr => [2, 1, 0],
        };
        let floats = (input.dtype == ImageDtype::Float32).then(|| {
            let of = |numbers: &[f64], channel: usize, absent: f64| match numbers {
                [one] => *one,
                numbers => numbers.get(channel).copied().unwrap_or(absent),
            };
            let level = |channel: usize, value: usize| {
                let unit = real(value) / 255.0;
                narrow((unit - of(&input.mean, channel, 0.0)) / of(&input.std, channel, 1.0))
            };
            let channel =
                |channel: usize| std::array::from_fn(|value: usize| level(channel, value));
            Box::new(std::array::from_fn(channel))
        });
        Packing { layout: input.layout, colours, floats }
    }

    /// Bytes of one value.
    pub(super) fn value_bytes(&self) -> usize {
        if self.floats.is_some() { size_of::<f32>() } else { 1 }
    }

    /// The values of pixels of red, green and blue, little-endian.
    pub(super) fn pack(&self, pixels: &[u8]) -> Bytes {
        let mut values = Vec::with_capacity(pixels.len() * self.value_bytes());
        match self.layout {
            Layout::Nhwc => {
                for pixel in pixels.chunks_exact(RGB) {
                    for (channel, colour) in self.colours.iter().enumerate() {
                        self.push(channel, pixel[*colour], &mut values);
                    }
                }
            }
            Layout::Nchw => {
                for (channel, colour) in self.colours.iter().enumerate() {
                    for pixel in pixels.chunks_exact(RGB) {
                        self.push(channel, pixel[*colour], &mut values);
                    }
                }
            }
        }
        values.into()
    }

    fn push(&self, channel: usize, value: u8, values: &mut Vec<u8>) {
        match &self.floats {
            Some(floats) => {
                values.extend_from_slice(&floats[channel][usize::from(value)].to_le_bytes());
            }
            None => values.push(value),
        }
    }
}

// === free functions ===

#[expect(clippy::cast_precision_loss, reason = "0 to 255")]
fn real(value: usize) -> f64 {
    value as f64
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest is what is wanted")]
fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::model::test_support::images;

    /// A red, a green and a grey pixel.
    const PIXELS: [u8; 9] = [255, 0, 0, 0, 255, 0, 51, 51, 51];

    fn input(layout: Layout, channels: Channels, dtype: ImageDtype) -> ImageInput {
        ImageInput { layout, channels, dtype, ..images(3, 1) }
    }

    fn floats(input: &ImageInput) -> Vec<f32> {
        let bytes = Packing::of(input).pack(&PIXELS);
        bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
    }

    #[test]
    fn whole_numbers_go_as_they_are_in_both_orders_of_axes_and_colours() {
        let of = |layout, channels| {
            Packing::of(&input(layout, channels, ImageDtype::Uint8)).pack(&PIXELS).to_vec()
        };
        assert_eq!(of(Layout::Nhwc, Channels::Rgb), PIXELS);
        assert_eq!(of(Layout::Nhwc, Channels::Bgr), [0, 0, 255, 0, 255, 0, 51, 51, 51]);
        assert_eq!(of(Layout::Nchw, Channels::Rgb), [255, 0, 51, 0, 255, 51, 0, 0, 51]);
        assert_eq!(of(Layout::Nchw, Channels::Bgr), [0, 0, 51, 0, 255, 51, 255, 0, 51]);
    }

    #[test]
    fn floats_go_from_0_to_1_before_mean_and_std() {
        let plain = input(Layout::Nhwc, Channels::Rgb, ImageDtype::Float32);
        assert_eq!(floats(&plain), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.2, 0.2, 0.2]);
        let one = ImageInput { mean: vec![0.5], std: vec![0.5], ..plain.clone() };
        assert_eq!(floats(&one)[..3], [1.0, -1.0, -1.0]);
        let each = ImageInput { mean: vec![0.0, 1.0, 0.5], std: vec![1.0, 2.0, 0.25], ..plain };
        assert_eq!(floats(&each)[..6], [1.0, -0.5, -2.0, 0.0, 0.0, -2.0]);
    }

    #[test]
    fn mean_and_std_are_in_the_order_of_the_channels() {
        let input = ImageInput {
            mean: vec![0.0, 0.0, 1.0],
            ..input(Layout::Nhwc, Channels::Bgr, ImageDtype::Float32)
        };
        assert_eq!(floats(&input)[..3], [0.0, 0.0, 0.0]);
    }
}

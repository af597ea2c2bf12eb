//! The fields that take one of a few words, and what each word means in the contract.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::contract;

/// Declares an enum of words whose first is the default unless another says so, and its way into the contract.
macro_rules! choices {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl From<$name> for contract::$name {
            fn from(choice: $name) -> Self {
                match choice { $($name::$variant => contract::$name::$variant,)+ }
            }
        }
    )+};
}

choices! {
    /// What is done to a vector before it is given out.
    Normalization {
        /// It is divided by its Euclidean length.
        #[default]
        L2,
        /// Nothing.
        None,
    }

    /// What is done with a text of too many tokens.
    Overlong {
        /// Its first tokens are read.
        #[default]
        Truncate,
        /// It is refused.
        Reject,
        /// It is read in windows whose vectors are averaged.
        Chunk,
    }

    /// How the vectors of a text's tokens become one.
    Pooling {
        /// The model does it.
        #[default]
        None,
        /// The mean over the text's tokens.
        Mean,
        /// The first token's.
        #[serde(rename = "CLS")]
        Cls,
        /// The last token's.
        LastToken,
    }

    /// How an image of another size becomes the model's.
    Resize {
        /// Each axis by itself.
        #[default]
        Stretch,
        /// Scaled until the shorter side fits, then cut around the middle.
        FitCrop,
    }

    /// The order of an image tensor's axes.
    Layout {
        /// Batch, height, width, channel.
        #[default]
        #[serde(rename = "NHWC")]
        Nhwc,
        /// Batch, channel, height, width.
        #[serde(rename = "NCHW")]
        Nchw,
    }

    /// The order of an image's colours.
    Channels {
        /// Red, green, blue.
        #[default]
        #[serde(rename = "RGB")]
        Rgb,
        /// Blue, green, red.
        #[serde(rename = "BGR")]
        Bgr,
    }

    /// The element type of an image tensor.
    ImageDtype {
        /// 0 to 255.
        #[default]
        Uint8,
        /// 0 to 1 before mean and std.
        Float32,
    }

    /// The element type of a tensor.
    TensorDtype {
        /// 32-bit floating point.
        #[default]
        Float32,
        /// 64-bit floating point.
        Float64,
        /// 32-bit integers.
        Int32,
        /// 64-bit integers.
        Int64,
        /// Integers from 0 to 255.
        Uint8,
        /// Integers from -128 to 127.
        Int8,
        /// Truth values.
        Bool,
    }

    /// Where vectors are kept.
    CacheMode {
        /// Nowhere.
        Disabled,
        /// In memory.
        Memory,
        /// In memory and on disk.
        #[default]
        MemoryAndDisk,
    }

    /// What a caller gets for an input that is not remembered.
    OnMiss {
        /// Its vector, once computed.
        #[default]
        Wait,
        /// The default vector, at once.
        ReturnDefault,
        /// The error NOT_FOUND.
        Fail,
    }
}

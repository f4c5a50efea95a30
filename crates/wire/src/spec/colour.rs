//! How the numbers of a picture are to be seen.
//!
//! *What it is*: H.273 code points, passed on as they are. *Who calls it*: whoever fills or shows video. *Invariants*:
//! unspecified stays unspecified: nothing here guesses from size or format. *A hostile peer* can state any code point,
//! reserved ones included; they change no layout.

use serde::{Deserialize, Serialize};

/// Colour description by the code points of ITU-T H.273, the numbers FFmpeg and the video standards use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Colour {
    /// ColourPrimaries: 1 is BT.709, 9 is BT.2020, 2 is unspecified.
    pub primaries: u8,
    /// TransferCharacteristics: 1 is BT.709, 13 is sRGB, 16 is PQ, 2 is unspecified.
    pub transfer: u8,
    /// MatrixCoefficients: 0 is RGB, 1 is BT.709, 6 is BT.601, 2 is unspecified.
    pub matrix: u8,
    /// Whether values use their full range; `None` is unspecified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_range: Option<bool>,
}

impl Colour {
    /// Nothing is known about the colour.
    pub const UNSPECIFIED: Self = Self { primaries: 2, transfer: 2, matrix: 2, full_range: None };

    /// Whether nothing at all is stated.
    pub fn is_unspecified(&self) -> bool {
        *self == Self::UNSPECIFIED
    }
}

impl Default for Colour {
    fn default() -> Self {
        Self::UNSPECIFIED
    }
}

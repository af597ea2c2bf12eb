//! The pixels of a decoded image, and their rows as red, green and blue the right way up.
//!
//! As the field does it (`convert("RGB")` of Pillow, which models' own preprocessing calls): alpha is dropped, what is
//! transparent keeps the colour that it has in the file; grey is three equal colours. Of 16 bits the higher 8 count.

/// Bytes of a pixel that leaves.
pub(super) const RGB: usize = 3;

/// The pixels of an image as its decoder gives them.
pub(super) struct Picture {
    pub(super) data: Vec<u8>,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) colour: Colour,
    pub(super) turn: Turn,
}

/// What a pixel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Colour {
    /// 1 or 2: grey; 3 or 4: red, green and blue. The second or the fourth is alpha.
    pub(super) channels: usize,
    /// Two bytes each, as this machine has them.
    pub(super) wide: bool,
}

/// How pixels are to be turned: first the axes are exchanged, then each may be mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) swap: bool,
    /// From right to left, as the file has it.
    pub(super) mirror_across: bool,
    /// From the bottom up, as the file has it.
    pub(super) mirror_down: bool,
}

// === impl Colour ===

impl Colour {
    /// Bytes of a pixel.
    pub(super) fn size(self) -> usize {
        if self.wide { 2 * self.channels } else { self.channels }
    }

    fn rgb(self, pixel: &[u8]) -> [u8; RGB] {
        let value = |channel: usize| {
            if self.wide {
                let [high, _] =
                    u16::from_ne_bytes([pixel[2 * channel], pixel[2 * channel + 1]]).to_be_bytes();
                high
            } else {
                pixel[channel]
            }
        };
        if self.channels < RGB { [value(0); RGB] } else { [value(0), value(1), value(2)] }
    }
}

// === impl Picture ===

impl Picture {
    /// Pixels across, the right way up.
    pub(super) fn across(&self) -> usize {
        if self.turn.swap { self.height } else { self.width }
    }

    /// Pixels down, the right way up.
    pub(super) fn down(&self) -> usize {
        if self.turn.swap { self.width } else { self.height }
    }

    /// Writes rows from `first` on, the right way up, as many as `rows` holds.
    pub(super) fn read(&self, first: usize, rows: &mut [u8]) {
        let length = self.across() * RGB;
        if self.turn.swap {
            // Along the file's own rows, however they lie in the end: else each pixel would cost a miss of the cache.
            for at in 0..self.across() {
                let row = self.row(mirrored(at, self.height, self.turn.mirror_down));
                for (place, line) in rows.chunks_exact_mut(length).enumerate() {
                    let x = mirrored(first + place, self.width, self.turn.mirror_across);
                    line[at * RGB..][..RGB].copy_from_slice(&self.pixel(row, x));
                }
            }
            return;
        }
        for (place, line) in rows.chunks_exact_mut(length).enumerate() {
            let row = self.row(mirrored(first + place, self.height, self.turn.mirror_down));
            if self.colour == (Colour { channels: RGB, wide: false }) && !self.turn.mirror_across {
                line.copy_from_slice(row);
                continue;
            }
            for (at, pixel) in line.chunks_exact_mut(RGB).enumerate() {
                let x = mirrored(at, self.width, self.turn.mirror_across);
                pixel.copy_from_slice(&self.pixel(row, x));
            }
        }
    }

    fn row(&self, y: usize) -> &[u8] {
        let length = self.width * self.colour.size();
        &self.data[y * length..][..length]
    }

    fn pixel(&self, row: &[u8], x: usize) -> [u8; RGB] {
        let size = self.colour.size();
        self.colour.rgb(&row[x * size..][..size])
    }
}

// === free functions ===

fn mirrored(at: usize, length: usize, mirror: bool) -> usize {
    if mirror { length - 1 - at } else { at }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 3 × 2 pixels, numbered.
    fn picture(turn: Turn) -> Picture {
        let data = (0..6).flat_map(|n| [n, 10 + n, 20 + n]).collect();
        let colour = Colour { channels: 3, wide: false };
        Picture { data, width: 3, height: 2, colour, turn }
    }

    fn reds(picture: &Picture) -> Vec<Vec<u8>> {
        let length = picture.across() * RGB;
        let mut rows = vec![0; picture.down() * length];
        picture.read(0, &mut rows);
        for (y, row) in rows.chunks_exact(length).enumerate() {
            let mut alone = vec![0; length];
            picture.read(y, &mut alone);
            assert_eq!(alone, row);
        }
        let red = |row: &[u8]| row.chunks_exact(RGB).map(|pixel| pixel[0]).collect();
        rows.chunks_exact(length).map(red).collect()
    }

    #[test]
    fn pixels_are_turned_in_all_eight_ways() {
        let of = |swap, mirror_across, mirror_down| {
            reds(&picture(Turn { swap, mirror_across, mirror_down }))
        };
        assert_eq!(of(false, false, false), [[0, 1, 2], [3, 4, 5]]);
        assert_eq!(of(false, true, false), [[2, 1, 0], [5, 4, 3]]);
        assert_eq!(of(false, true, true), [[5, 4, 3], [2, 1, 0]]);
        assert_eq!(of(false, false, true), [[3, 4, 5], [0, 1, 2]]);
        assert_eq!(of(true, false, false), [[0, 3], [1, 4], [2, 5]]);
        assert_eq!(of(true, false, true), [[3, 0], [4, 1], [5, 2]]);
        assert_eq!(of(true, true, true), [[5, 2], [4, 1], [3, 0]]);
        assert_eq!(of(true, true, false), [[2, 5], [1, 4], [0, 3]]);
    }

    #[test]
    fn grey_is_three_colours_alpha_goes_and_of_16_bits_the_higher_count() {
        let rgb = |channels, wide, pixel: &[u8]| Colour { channels, wide }.rgb(pixel);
        assert_eq!(rgb(1, false, &[7]), [7; 3]);
        assert_eq!(rgb(2, false, &[7, 0]), [7; 3]);
        assert_eq!(rgb(4, false, &[1, 2, 3, 0]), [1, 2, 3]);
        let wide = |values: &[u16]| -> Vec<u8> {
            values.iter().flat_map(|value| value.to_ne_bytes()).collect()
        };
        assert_eq!(rgb(1, true, &wide(&[0x12ff])), [0x12; 3]);
        assert_eq!(rgb(4, true, &wide(&[0x0100, 0x02ff, 0xffff, 0])), [1, 2, 255]);
    }
}

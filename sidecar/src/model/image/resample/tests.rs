use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use super::super::picture::{Colour, Turn};
use super::*;
use crate::model::test_support::images;

fn input(width: u32, height: u32, resize: Resize) -> ImageInput {
    ImageInput { resize, ..images(width, height) }
}

fn grey(width: usize, rows: &[u8]) -> Picture {
    let colour = Colour { channels: 1, wide: false };
    let (data, height) = (rows.to_vec(), rows.len() / width);
    Picture { data, width, height, colour, turn: Turn::default() }
}

fn resized(picture: &Picture, input: &ImageInput) -> Vec<u8> {
    let made = Plan::of(input, picture.across(), picture.down()).run(picture);
    made.chunks_exact(RGB)
        .map(|pixel| {
            assert!(pixel.iter().all(|value| *value == pixel[0]));
            pixel[0]
        })
        .collect()
}

#[test]
fn an_image_of_the_right_size_stays_as_it_is() {
    let rows: Vec<u8> = (0..6 * 5).map(|n| n * 8).collect();
    for resize in [Resize::Stretch, Resize::FitCrop] {
        assert_eq!(resized(&grey(6, &rows), &input(6, 5, resize)), rows);
    }
}

/// Worked out by hand, as Pillow does it: a triangle that is two pixels wide each way for a reduction to a half.
#[test]
fn a_row_is_reduced_by_a_triangle() {
    let rows = [0, 80, 160, 240];
    // (3 × 0 + 3 × 80 + 1 × 160) / 7, and the same from the other end.
    assert_eq!(resized(&grey(4, &rows), &input(2, 1, Resize::Stretch)), [57, 183]);
    assert_eq!(resized(&grey(1, &rows), &input(1, 2, Resize::Stretch)), [57, 183]);
}

#[test]
fn a_row_is_enlarged_by_what_lies_between_its_pixels() {
    let made = resized(&grey(2, &[0, 100]), &input(4, 1, Resize::Stretch));
    assert_eq!(made, [0, 25, 75, 100]);
}

#[test]
fn the_middle_is_cut_out_of_what_is_longer() {
    let row: Vec<u8> = (0..9).map(|n| n * 10).collect();
    let made = resized(&grey(9, &row), &input(1, 1, Resize::FitCrop));
    assert_eq!(made, [40]);
    let made = resized(&grey(1, &row), &input(1, 3, Resize::FitCrop));
    assert_eq!(made, [30, 40, 50]);
    // One pixel more behind than in front.
    assert_eq!(resized(&grey(4, &row[..4]), &input(1, 1, Resize::FitCrop)), [10]);
}

#[test]
fn what_is_cut_out_fits_however_odd_the_sizes_are() {
    for across in 1..40 {
        for down in 1..40 {
            for (width, height) in [(1, 1), (3, 2), (2, 7), (5, 5)] {
                let plan = Plan::of(&input(width, height, Resize::FitCrop), across, down);
                let made = (plan.across.count, plan.down.count);
                assert_eq!(made, (width as usize, height as usize));
                for axis in [plan.across, plan.down] {
                    assert!(axis.first + axis.count <= axis.to, "{plan:?}");
                }
            }
        }
    }
}

/// The longest side that a file may have: only what is wanted of it is made.
#[test]
fn a_thin_image_costs_no_more_than_its_pixels() {
    let row = vec![9; 65_535];
    let picture = grey(65_535, &row);
    assert_eq!(resized(&picture, &input(64, 64, Resize::FitCrop)), vec![9; 64 * 64]);
    let picture = grey(1, &row);
    assert_eq!(resized(&picture, &input(64, 64, Resize::Stretch)), vec![9; 64 * 64]);
}

/// The files of `tests/models/make_resample_goldens.py`, by the Pillow of `tests/requirements.txt`.
#[test]
fn every_size_is_made_as_pillow_makes_it() {
    let lines = include_str!("pillow.txt").lines();
    assert!(lines.clone().count() > 200);
    for line in lines {
        let (sizes, digest) = line.rsplit_once(' ').unwrap();
        let sizes: Vec<usize> = sizes.split(' ').map(|size| size.parse().unwrap()).collect();
        let [across, down, width, height] = sizes[..] else { panic!("{line}") };
        let wanted = [width, height].map(|size| u32::try_from(size).unwrap());
        let input = input(wanted[0], wanted[1], Resize::Stretch);
        let made = Plan::of(&input, across, down).run(&noise(across, down));
        let found: String =
            Sha256::digest(&made).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found, digest, "{across} × {down} to {width} × {height}");
    }
}

/// The upper byte of each number of a row in which a number follows from the one before it.
fn noise(width: usize, height: usize) -> Picture {
    let next = |number: &u32| Some(number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let numbers = std::iter::successors(Some(1_u32), next).skip(1);
    let data = numbers.take(RGB * width * height).map(|number| number.to_be_bytes()[0]).collect();
    let colour = Colour { channels: RGB, wide: false };
    Picture { data, width, height, colour, turn: Turn::default() }
}

proptest! {
    #[test]
    fn an_image_of_one_colour_keeps_it(
        size in (1_usize..90, 1_usize..90),
        wanted in (1_u32..50, 1_u32..50),
        value: u8,
        fit: bool,
    ) {
        let resize = if fit { Resize::FitCrop } else { Resize::Stretch };
        let picture = grey(size.0, &vec![value; size.0 * size.1]);
        let made = resized(&picture, &input(wanted.0, wanted.1, resize));
        prop_assert_eq!(made, vec![value; (wanted.0 * wanted.1) as usize]);
    }

    /// What is made row by row is what the whole would give.
    #[test]
    fn a_turned_image_is_made_as_one_that_lies_so_in_its_file(
        size in (1_usize..70, 1_usize..70),
        seed: u8,
        turn in (any::<bool>(), any::<bool>(), any::<bool>()),
    ) {
        let rows: Vec<u8> = (0..size.0 * size.1)
            .map(|n| n.to_le_bytes()[0].wrapping_mul(31).wrapping_add(seed))
            .collect();
        let (swap, mirror_across, mirror_down) = turn;
        let turn = Turn { swap, mirror_across, mirror_down };
        let turned = Picture { turn, ..grey(size.0, &rows) };
        let mut upright = vec![0; rows.len() * RGB];
        turned.read(0, &mut upright);
        let reds: Vec<u8> = upright.chunks_exact(RGB).map(|pixel| pixel[0]).collect();
        let plain = grey(turned.across(), &reds);
        let input = input(9, 7, Resize::FitCrop);
        prop_assert_eq!(resized(&turned, &input), resized(&plain, &input));
    }
}

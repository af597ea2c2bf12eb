//! How rows are divided into the runs of a runtime, each of one shape. Pure.

/// Which shapes a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shapes {
    /// Rows of every run; `None`: any number.
    pub(super) batch: Option<usize>,
    /// Positions of every row; `None`: any number.
    pub(super) sequence: Option<usize>,
    /// Whether the model can tell padding from tokens.
    pub(super) masked: bool,
    /// Whether every length costs a plan, so that few lengths are used.
    pub(super) bucketed: bool,
    /// Positions of the longest row that there can be.
    pub(super) longest: usize,
    /// The most rows of a run, where their number is free.
    pub(super) most: usize,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Which rows are in it.
    pub(super) rows: Vec<usize>,
    /// Rows of the run; those beyond [`Cut::rows`] are filled up.
    pub(super) batch: usize,
    /// Positions of each row.
    pub(super) sequence: usize,
}

/// The shortest bucket, in tokens.
const SHORTEST_BUCKET: usize = 16;

// === impl Shapes ===

impl Shapes {
    /// Whether all runs are of one shape.
    pub(super) fn all_fixed(&self) -> bool {
        self.batch.is_some() && self.sequence.is_some()
    }

    /// The same for a model of which every shape costs a plan: rows are run one by one, and few lengths are used.
    pub(super) fn by_shape(self) -> Self {
        Shapes { batch: self.batch.or(Some(1)), bucketed: true, ..self }
    }

    /// The runs for rows of these lengths.
    pub(super) fn cuts(&self, lengths: &[usize]) -> Vec<Cut> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&row| lengths[row]);
        let mut cuts: Vec<Cut> = Vec::new();
        for row in order {
            let sequence = self.positions(lengths[row]);
            match cuts.last_mut() {
                Some(cut) if self.takes(cut, sequence) => {
                    cut.rows.push(row);
                    cut.sequence = sequence;
                }
                _ => cuts.push(Cut { rows: vec![row], batch: 0, sequence }),
            }
        }
        for cut in &mut cuts {
            cut.batch = self.batch.unwrap_or(cut.rows.len());
        }
        cuts
    }

    /// The positions that a row of `length` tokens is run with when it is alone.
    pub(super) fn positions(&self, length: usize) -> usize {
        match self.sequence {
            Some(fixed) => fixed,
            None if self.masked && self.bucketed => bucket(length).min(self.longest.max(length)),
            None => length.max(1),
        }
    }

    /// Whether a row of `sequence` positions, no fewer than the cut's, may join it.
    fn takes(&self, cut: &Cut, sequence: usize) -> bool {
        let room = cut.rows.len() < self.batch.unwrap_or(self.most);
        room && (self.masked || cut.sequence == sequence)
    }
}

// === free functions ===

fn bucket(length: usize) -> usize {
    length.max(SHORTEST_BUCKET).checked_next_power_of_two().unwrap_or(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: Shapes = Shapes {
        batch: None,
        sequence: None,
        masked: true,
        bucketed: false,
        longest: 300,
        most: usize::MAX,
    };

    fn cut(rows: &[usize], batch: usize, sequence: usize) -> Cut {
        Cut { rows: rows.to_vec(), batch, sequence }
    }

    #[test]
    fn rows_are_padded_to_the_longest() {
        assert_eq!(ANY.cuts(&[5, 9, 2]), [cut(&[2, 0, 1], 3, 9)]);
    }

    #[test]
    fn without_a_mask_only_equal_lengths_share_a_run() {
        let shapes = Shapes { masked: false, ..ANY };
        assert_eq!(shapes.cuts(&[5, 9, 5]), [cut(&[0, 2], 2, 5), cut(&[1], 1, 9)]);
    }

    #[test]
    fn a_fixed_batch_is_filled_up() {
        let shapes = Shapes { batch: Some(2), ..ANY };
        assert_eq!(shapes.cuts(&[5, 9, 2]), [cut(&[2, 0], 2, 5), cut(&[1], 2, 9)]);
    }

    #[test]
    fn a_fixed_sequence_is_what_every_row_is_padded_to() {
        let shapes = Shapes { batch: Some(1), sequence: Some(128), masked: false, ..ANY };
        assert_eq!(shapes.cuts(&[5, 128]), [cut(&[0], 1, 128), cut(&[1], 1, 128)]);
    }

    #[test]
    fn few_lengths_are_used_when_each_costs_a_plan() {
        let shapes = Shapes { bucketed: true, ..ANY };
        let positions: Vec<usize> = [1, 16, 17, 255, 257, 300].map(|n| shapes.positions(n)).into();
        assert_eq!(positions, [16, 16, 32, 256, 300, 300]);
    }

    #[test]
    fn without_a_mask_there_are_no_buckets() {
        let shapes = Shapes { masked: false, bucketed: true, ..ANY };
        assert_eq!(shapes.positions(17), 17);
    }

    #[test]
    fn rows_that_are_more_than_a_run_may_have_are_divided() {
        let shapes = Shapes { sequence: Some(1), most: 2, ..ANY };
        assert_eq!(shapes.cuts(&[0, 0, 0]), [cut(&[0, 1], 2, 1), cut(&[2], 1, 1)]);
    }

    #[test]
    fn where_every_shape_costs_a_plan_rows_are_run_one_by_one() {
        let shapes = Shapes { masked: false, ..ANY }.by_shape();
        assert_eq!(shapes.cuts(&[5, 5]), [cut(&[0], 1, 5), cut(&[1], 1, 5)]);
        assert_eq!(Shapes { batch: Some(3), ..ANY }.by_shape().batch, Some(3));
    }

    #[test]
    fn no_rows_are_no_runs() {
        assert!(ANY.cuts(&[]).is_empty());
    }
}

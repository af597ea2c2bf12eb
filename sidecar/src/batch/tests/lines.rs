//! The queue under every order of rows that come, leave and are taken, against a plain list of them.

use std::collections::BTreeSet;

use embark_crds::contract::cost;
use proptest::prelude::*;

use super::*;
use crate::batch::costs::bucket;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    Push {
        length: u32,
        class: Class,
    },
    /// Nobody wants a row any more.
    Leave(usize),
    /// Nobody waits for it any more.
    LeaveBehind(usize),
    Run,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let class = prop_oneof![2 => Just(Class::Waiting), 1 => Just(Class::Background)];
    let length = prop_oneof![3 => 1_u32..20, 1 => 20_u32..256];
    let push = (length, class).prop_map(|(length, class)| Step::Push { length, class });
    let step = prop_oneof![
        6 => push,
        1 => any::<usize>().prop_map(Step::Leave),
        1 => any::<usize>().prop_map(Step::LeaveBehind),
        1 => Just(Step::Run),
    ];
    prop::collection::vec(step, 1..120)
}

/// A batcher's limits: rows, cost and milliseconds of a run; rows and cost that wait.
fn tight() -> impl Strategy<Value = Batching> {
    (1_u32..9, 16_u32..1024, 1_u64..100, 1_u32..24, 1_u32..2048).prop_map(
        |(max_items, max_tokens, max_ms, queue_max_items, queue_max_tokens)| Batching {
            max_items,
            max_tokens,
            max_duration: Duration::from_millis(max_ms),
            ..limits(queue_max_items, queue_max_tokens)
        },
    )
}

type Told = Arc<Mutex<Vec<(u32, Take)>>>;

/// Tells what the queue does with a row.
struct Witness {
    number: u32,
    wanted: Arc<Mutex<Option<Class>>>,
    told: Told,
}

impl Claim for Witness {
    fn take(&self, class: Class) -> Take {
        let take = match *self.wanted.lock() {
            None => Take::Drop,
            Some(Class::Background) if class == Class::Waiting => Take::Later,
            Some(_) => Take::Begin,
        };
        self.told.lock().push((self.number, take));
        take
    }

    fn wanted(&self) -> Wanted {
        self.wanted.lock().map_or(Wanted::ByNobody, Wanted::In)
    }

    fn complete(self: Box<Self>, _: Outcome) {}
}

/// A row, as the list knows it.
struct Listed {
    number: u32,
    length: u32,
    /// The class of its place.
    class: Class,
    /// The class of its line.
    line: Class,
    wanted: Arc<Mutex<Option<Class>>>,
}

impl Listed {
    fn is_wanted(&self) -> bool {
        self.wanted.lock().is_some()
    }

    fn cost(&self) -> u64 {
        cost(1, self.length.into())
    }
}

/// A queue beside a list of its rows, in the order in which they came into their lines.
struct Pair {
    queue: Queue,
    batching: Batching,
    mixes_lengths: bool,
    rows: Vec<Listed>,
    told: Told,
    last_number: u32,
    begun: BTreeSet<u32>,
}

/// How much of a limit a class may take.
fn share(class: Class, limit: u64) -> u64 {
    if class == Class::Waiting { limit } else { (limit / 2).max(1) }
}

impl Pair {
    fn new(batching: Batching, mixes_lengths: bool, (fixed, each): (f64, f64)) -> Self {
        let mut costs = Costs::default();
        for rows in [1, 4, 8] {
            costs.observe(rows, 16, fixed + each * f64::from(rows));
        }
        let config = BatcherConfig { workers: NonZeroUsize::MIN, batching, longest: 256 };
        let queue = Queue::new(&config, mixes_lengths, costs, ModelMetrics::detached().batch);
        let (rows, told, begun) = (Vec::new(), Told::default(), BTreeSet::new());
        Pair { queue, batching, mixes_lengths, rows, told, last_number: 0, begun }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Push { length, class } => self.push(length, class),
            Step::Leave(number) => self.leave(number, None),
            Step::LeaveBehind(number) => self.leave(number, Some(Class::Background)),
            // Without a row, it would wait.
            Step::Run if self.wanted().next().is_none() => {}
            Step::Run => {
                let run = self.queue.next().expect("it is not closed");
                self.check(&run.rows);
                self.queue.finish();
            }
        }
    }

    fn wanted(&self) -> impl Iterator<Item = &Listed> {
        self.rows.iter().filter(|row| row.is_wanted())
    }

    fn leave(&self, number: usize, wanted: Option<Class>) {
        let rows: Vec<&Listed> = self.wanted().collect();
        if !rows.is_empty() {
            *rows[number % rows.len()].wanted.lock() = wanted;
        }
    }

    /// The lane of a length.
    fn lane(&self, length: u32) -> u32 {
        if self.mixes_lengths { bucket(length) } else { length }
    }

    /// Rows that nobody wants are in nobody's way.
    fn has_place(&self, class: Class) -> bool {
        let most = u64::from(self.batching.queue_max_items);
        let own = self.wanted().filter(|row| row.class == class).count() as u64;
        own < share(class, most) && (self.wanted().count() as u64) < most
    }

    fn may_cost(&self, class: Class, cost: u64) -> bool {
        let most = u64::from(self.batching.queue_max_tokens);
        let all: u64 = self.wanted().map(Listed::cost).sum();
        let own: u64 = self.wanted().filter(|row| row.line == class).map(Listed::cost).sum();
        all == 0 || all + cost <= most && own + cost <= share(class, most)
    }

    /// Whether a row that nobody waits for any more may go on behind.
    fn has_room_behind(&self, row: &Listed) -> bool {
        let behind = |other: &&Listed| other.class == Class::Background;
        let places = self.wanted().filter(behind).count() as u64;
        let cost: u64 = self.wanted().filter(behind).map(Listed::cost).sum();
        let share = |limit: u32| share(Class::Background, limit.into());
        (cost == 0 || cost + row.cost() <= share(self.batching.queue_max_tokens))
            && places < share(self.batching.queue_max_items)
    }

    fn push(&mut self, length: u32, class: Class) {
        self.last_number += 1;
        let (number, wanted) = (self.last_number, Arc::new(Mutex::new(Some(class))));
        let place = match self.queue.reserve(class, 1) {
            Ok(place) => {
                assert!(self.has_place(class), "more rows wait than may");
                place
            }
            Err(full) => {
                assert!(matches!(full, Full::Items(_)) && !self.has_place(class), "{full}");
                return;
            }
        };
        let listed = Listed { number, length, class, line: class, wanted: Arc::clone(&wanted) };
        let claim = Box::new(Witness { number, wanted, told: Arc::clone(&self.told) });
        let job = Job { row: Row::of_tokens(vec![number; length as usize]), claim };
        match self.queue.push(place, job).map_err(|(full, _)| full) {
            Ok(()) => {
                assert!(self.may_cost(class, listed.cost()), "what waits costs more than it may");
                self.rows.push(listed);
            }
            Err(full) => {
                let is_right =
                    matches!(full, Full::Cost(..)) && !self.may_cost(class, listed.cost());
                assert!(is_right, "{full}");
            }
        }
    }

    /// Checks a run, and what became of the rows on the way to it.
    fn check(&mut self, run: &[Waiting]) {
        let mut taken = Vec::new();
        for (number, take) in std::mem::take(&mut *self.told.lock()) {
            let at = self.rows.iter().position(|row| row.number == number).expect("it waits");
            let row = self.rows.remove(at);
            let lane = self.lane(row.length);
            let same_line = |other: &Listed| {
                other.line == row.line && self.lane(other.length) == lane && other.is_wanted()
            };
            let is_first = !self.rows[..at].iter().any(same_line);
            match take {
                Take::Drop => assert!(!row.is_wanted()),
                Take::Later => {
                    assert!(is_first, "row {number} was passed over");
                    if self.has_room_behind(&row) {
                        let behind = Class::Background;
                        self.rows.push(Listed { class: behind, line: behind, ..row });
                    }
                }
                Take::Elsewhere => unreachable!("nobody else leads it"),
                Take::Begin => {
                    assert!(is_first && row.is_wanted(), "row {number} goes before others");
                    assert!(self.begun.insert(number), "row {number} is computed twice");
                    taken.push(row);
                }
            }
        }
        let numbers: Vec<u32> = run.iter().map(|row| row.job.row.tokens()[0]).collect();
        assert_eq!(numbers, taken.iter().map(|row| row.number).collect::<Vec<_>>());
        self.check_limits(&taken);
        let first = &taken[0];
        let is_like = |row: &Listed| {
            row.line == first.line && self.lane(row.length) == self.lane(first.length)
        };
        assert!(taken.iter().all(is_like), "rows of several lines share a run");
        if first.line == Class::Background {
            let waits = |row: &Listed| row.line == Class::Waiting;
            assert!(!self.wanted().any(waits), "the background goes first");
        }
    }

    fn check_limits(&self, taken: &[Listed]) {
        let longest = taken.iter().map(|row| row.length).max().expect("a run has rows");
        let rows = u32::try_from(taken.len()).expect("few");
        assert!(rows <= self.batching.max_items);
        if rows > 1 {
            assert!(cost(rows.into(), longest.into()) <= self.batching.max_tokens.into());
            let seconds = self.queue.costs.lock().predict(rows, longest);
            assert!(seconds <= self.batching.max_duration.as_secs_f64(), "it takes {seconds} s");
        }
    }

    /// Runs what is left; nothing may be lost.
    fn end(mut self) {
        self.queue.close();
        while let Some(run) = self.queue.next() {
            self.check(&run.rows);
            self.queue.finish();
        }
        let left: Vec<u32> = self.wanted().map(|row| row.number).collect();
        assert!(left.is_empty(), "rows {left:?} were lost");
        let places: Result<Vec<_>, _> = (0..self.batching.queue_max_items)
            .map(|_| self.queue.reserve(Class::Waiting, 1))
            .collect();
        assert!(places.is_ok(), "a place was not given back");
    }
}

proptest! {
    #[test]
    fn runs_are_within_limits_and_in_order_and_no_row_is_lost_or_refused_wrongly(
        (steps, batching, mixes_lengths) in (steps(), tight(), any::<bool>()),
        seconds in (1e-6_f64..1e-2, 1e-6_f64..1e-2),
    ) {
        let mut pair = Pair::new(batching, mixes_lengths, seconds);
        for step in steps {
            pair.step(step);
        }
        pair.end();
    }
}

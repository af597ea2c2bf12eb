//! What waits for a worker, bounded in rows, bytes and cost: a lane for each bucket of lengths, and in it a line for each
//! class.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use embark_crds::contract::{Batching, cost};
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::time::Instant;

use super::{
    BatcherConfig, Job, Load, Outcome, Waiting,
    costs::{Costs, bucket},
    cut::{self, Lane, Next},
    place::{Full, Place, Taken, share},
};
use crate::{
    error::{Error, ErrorKind},
    flight::{Take, Wanted},
    input::Class,
    metrics::BatchMetrics,
};

/// How long an estimate of the wait holds: finding it out costs as much as a look at every lane.
const ESTIMATED_EVERY: Duration = Duration::from_millis(2);
/// A queue of so few rows is swept whenever there is no room; a longer one no more often than this.
const SWEPT_ALWAYS: usize = 64;
const SWEPT_EVERY: Duration = Duration::from_millis(10);
/// Nothing done for so long, and for so many of the slowest known runs, is a stall.
const STALLED_AFTER: Duration = Duration::from_secs(10);
const STALLED_RUNS: u32 = 20;

/// One run in so many is a larger one than the costs say, so that a size that was once found too slow is tried again.
const TRIAL: u64 = 64;

/// What waits.
pub(super) struct Queue {
    pub(super) costs: Mutex<Costs>,
    taken: Arc<Taken>,
    batching: Batching,
    mixes_lengths: bool,
    workers: usize,
    state: Mutex<State>,
    changed: Condvar,
    estimate: Mutex<Estimate>,
    metrics: BatchMetrics,
}

/// How long a row that comes now waits, as was found a moment ago.
#[derive(Default)]
struct Estimate {
    at: Option<Instant>,
    /// By class.
    waits: [Duration; 2],
}

#[derive(Default)]
struct State {
    /// By bucket: a line for each class.
    lanes: BTreeMap<u32, [VecDeque<Waiting>; 2]>,
    /// Rows and their cost, by class.
    rows: [usize; 2],
    cost: [u64; 2],
    /// Runs under way, and runs so far.
    running: usize,
    begun: u64,
    /// When a run was over last, or there was nothing to do.
    progressed: Option<Instant>,
    closed: bool,
    /// When rows that nobody wants were looked for last.
    swept: Option<Instant>,
}

/// Rows that are run together.
pub(super) struct Run {
    pub(super) rows: Vec<Waiting>,
    /// Whether nothing else is computed or waits.
    pub(super) is_alone: bool,
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(
        config: &BatcherConfig,
        mixes_lengths: bool,
        costs: Costs,
        metrics: BatchMetrics,
    ) -> Self {
        Queue {
            costs: Mutex::new(costs),
            taken: Arc::default(),
            batching: config.batching,
            mixes_lengths,
            workers: config.workers.get(),
            state: Mutex::default(),
            changed: Condvar::new(),
            estimate: Mutex::default(),
            metrics,
        }
    }

    pub(super) fn reserve(&self, class: Class, bytes: usize) -> Result<Place, Full> {
        let reserve = || self.taken.reserve(class, bytes, self.batching.queue_max_items);
        let place = reserve();
        if place.is_err() && self.sweep() {
            return reserve();
        }
        place
    }

    pub(super) fn demote(&self, place: &mut Place) -> Result<(), Full> {
        let most = share(Class::Background, self.batching.queue_max_items.into());
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        if place.demote(most) { Ok(()) } else { Err(Full::Items(most)) }
    }

    pub(super) fn push(&self, place: Place, job: Job) -> Result<(), (Full, Job)> {
        let length = job.row.length();
        let cost = cost(1, length.into());
        let (class, max_cost) = (place.class(), u64::from(self.batching.queue_max_tokens));
        let mut state = self.state.lock();
        if state.closed {
            return Err((Full::Closed, job));
        }
        let fits = |state: &State| {
            let (own, all) = (state.cost[class as usize], state.cost.iter().sum::<u64>());
            // A row that costs more than the whole queue may waits alone, rather than never.
            all == 0 || all + cost <= max_cost && own + cost <= share(class, max_cost)
        };
        if !fits(&state) {
            state.sweep(&self.metrics, Instant::now());
            if !fits(&state) {
                let full =
                    Full::Cost(state.cost.iter().sum::<u64>() + cost, share(class, max_cost));
                return Err((full, job));
            }
        }
        let lane = if self.mixes_lengths { bucket(length) } else { length };
        if state.running == 0 && state.rows == [0; 2] {
            state.progressed = Some(Instant::now());
        }
        state.push(lane, class, Waiting { job, cost, since: Instant::now(), place });
        self.measure(&state);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// The next rows to be run together; blocks until there are some. `None`: closed and empty.
    pub(super) fn next(&self) -> Option<Run> {
        let mut state = self.state.lock();
        loop {
            let Some(class) = state.class() else {
                if state.closed {
                    return None;
                }
                self.changed.wait(&mut state);
                continue;
            };
            match self.decide(&state, class) {
                Some(Next::Run { bucket, rows }) => {
                    let rows = state.take((bucket, class), rows, self);
                    self.measure(&state);
                    if !rows.is_empty() {
                        return Some(self.start(state, rows));
                    }
                }
                Some(Next::Wait(time)) => {
                    self.changed.wait_for(&mut state, time);
                }
                None => {
                    self.changed.wait(&mut state);
                }
            }
        }
    }

    fn start(&self, mut state: MutexGuard<'_, State>, rows: Vec<Waiting>) -> Run {
        let is_alone = state.running == 0 && state.class().is_none();
        state.running += 1;
        state.begun += 1;
        drop(state);
        // This worker was told of one row and may have left others.
        self.changed.notify_one();
        Run { rows, is_alone }
    }

    /// A run is over.
    pub(super) fn finish(&self) {
        let mut state = self.state.lock();
        state.running -= 1;
        state.progressed = Some(Instant::now());
    }

    /// For how long there has been something to do and nothing was done, when that is longer than any run may take.
    pub(super) fn stalled(&self, now: Instant) -> Option<Duration> {
        let slowest = self.costs.lock().slowest();
        let state = self.state.lock();
        let is_idle = state.running == 0 && state.rows.iter().all(|rows| *rows == 0);
        let since = state.progressed.filter(|_| !is_idle)?;
        let still = now.saturating_duration_since(since);
        (still > STALLED_AFTER.max(slowest * STALLED_RUNS)).then_some(still)
    }

    pub(super) fn load(&self) -> Load {
        let state = self.state.lock();
        Load {
            workers: self.workers,
            running: state.running,
            backlog: self.backlog(&state).iter().sum(),
            longest_run: self.batching.max_duration,
        }
    }

    /// How long a row of a class that comes now is expected to wait.
    pub(super) fn wait(&self, class: Class) -> Duration {
        let now = Instant::now();
        let mut estimate = self.estimate.lock();
        if estimate.at.is_none_or(|at| now.duration_since(at) > ESTIMATED_EVERY) {
            let [waiting, background] = self.backlog(&self.state.lock());
            let all = |backlog: Duration| backlog.div_f64(self.workers as f64);
            *estimate =
                Estimate { at: Some(now), waits: [all(waiting), all(waiting + background)] };
        }
        estimate.waits[class as usize]
    }

    /// How long one worker takes for what waits, by class.
    fn backlog(&self, state: &State) -> [Duration; 2] {
        let costs = self.costs.lock();
        Class::ALL.map(|class| {
            let lines = state.lanes.values().map(|lines| &lines[class as usize]);
            let seconds = lines.map(|line| self.seconds(line, &costs)).sum();
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
        })
    }

    /// How long one worker takes for a line.
    fn seconds(&self, line: &VecDeque<Waiting>, costs: &Costs) -> f64 {
        let lengths = self.first_lengths(line);
        let Some(longest) = lengths.iter().copied().max() else { return 0.0 };
        let rows = cut::rows(&lengths, costs, &self.batching);
        let rows_at_once = u32::try_from(rows).unwrap_or(u32::MAX);
        costs.predict(rows_at_once, longest) * line.len() as f64 / rows as f64
    }

    /// The lengths of the first rows of a line, as many as a run may have.
    fn first_lengths(&self, line: &VecDeque<Waiting>) -> Vec<u32> {
        let first = line.iter().take(self.batching.max_items as usize);
        first.map(|row| row.job.row.length()).collect()
    }

    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    fn decide(&self, state: &State, class: Class) -> Option<Next> {
        let now = Instant::now();
        let lanes: Vec<Lane> = state
            .lanes
            .iter()
            .filter_map(|(bucket, lines)| {
                let line = &lines[class as usize];
                let first = line.front()?;
                let lengths = self.first_lengths(line);
                let waited = now.saturating_duration_since(first.since);
                Some(Lane { bucket: *bucket, lengths, waited })
            })
            .collect();
        let costs = self.costs.lock();
        let next = cut::next(&lanes, &costs, &self.batching, state.closed)?;
        let is_trial = state.begun % TRIAL == TRIAL - 1;
        let Next::Run { bucket, rows } = next else { return Some(next) };
        let lane = lanes.iter().find(|lane| is_trial && lane.bucket == bucket);
        let larger = |lane: &Lane| cut::larger(&lane.lengths, rows, &costs, &self.batching);
        Some(Next::Run { bucket, rows: lane.map_or(rows, larger) })
    }

    /// Drops rows that nobody wants any more; tells whether there were any.
    fn sweep(&self) -> bool {
        let mut state = self.state.lock();
        let swept = state.sweep(&self.metrics, Instant::now());
        self.measure(&state);
        swept
    }

    fn measure(&self, state: &State) {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.metrics.queue_items.set(gauge(state.rows.iter().sum::<usize>() as u64));
        self.metrics.queue_cost.set(gauge(state.cost.iter().sum()));
    }
}

// === impl State ===

impl State {
    /// The class that goes next.
    fn class(&self) -> Option<Class> {
        Class::ALL.into_iter().find(|class| self.rows[*class as usize] > 0)
    }

    fn push(&mut self, lane: u32, class: Class, row: Waiting) {
        self.rows[class as usize] += 1;
        self.cost[class as usize] += row.cost;
        self.lanes.entry(lane).or_default()[class as usize].push_back(row);
    }

    /// Takes those of the first rows of a line that are still wanted; those that are wanted later go to the end of the other
    /// line. No others come in their place: they may be longer than what was judged.
    fn take(&mut self, (lane, class): (u32, Class), most: usize, queue: &Queue) -> Vec<Waiting> {
        let Some(lines) = self.lanes.get_mut(&lane) else { return Vec::new() };
        let line = &mut lines[class as usize];
        let first: Vec<Waiting> = line.drain(..most.min(line.len())).collect();
        let mut taken = Vec::with_capacity(first.len());
        for row in first {
            self.rows[class as usize] -= 1;
            self.cost[class as usize] -= row.cost;
            match row.job.claim.take(class) {
                Take::Begin => taken.push(row),
                Take::Later => self.put_behind(lane, row, queue),
                Take::Drop => {
                    queue.metrics.cancelled.inc();
                }
                Take::Elsewhere => {}
            }
        }
        if self.lanes.get(&lane).is_some_and(|lines| lines.iter().all(VecDeque::is_empty)) {
            self.lanes.remove(&lane);
        }
        taken
    }

    /// Goes on with a row behind those that are waited for, as far as the background has room.
    fn put_behind(&mut self, lane: u32, mut row: Waiting, queue: &Queue) {
        let most_cost = share(Class::Background, queue.batching.queue_max_tokens.into());
        let mut fits = |state: &Self| {
            let cost = state.cost[Class::Background as usize];
            (cost == 0 || cost + row.cost <= most_cost) && queue.demote(&mut row.place).is_ok()
        };
        if fits(self) || (self.sweep(&queue.metrics, Instant::now()) && fits(self)) {
            return self.push(lane, Class::Background, row);
        }
        queue.metrics.dropped_fills.inc();
        let sentence = "nobody waits for it any more, and the queue has no room behind";
        let (result, queued) =
            (Err(Error::new(ErrorKind::QueueFull, sentence)), row.since.elapsed());
        row.job.claim.complete(Outcome { result, queued, ran: Duration::ZERO });
    }

    /// Drops rows that nobody wants any more. Many are looked at no more often than now and then: under overload each call
    /// would have to.
    fn sweep(&mut self, metrics: &BatchMetrics, now: Instant) -> bool {
        let is_long = self.rows.iter().sum::<usize>() > SWEPT_ALWAYS;
        if is_long && self.swept.is_some_and(|at| now.duration_since(at) < SWEPT_EVERY) {
            return false;
        }
        self.swept = Some(now);
        let mut swept = false;
        for lines in self.lanes.values_mut() {
            for class in Class::ALL {
                lines[class as usize].retain(|row| {
                    let wanted = row.job.claim.wanted();
                    if let Wanted::In(_) = wanted {
                        return true;
                    }
                    self.rows[class as usize] -= 1;
                    self.cost[class as usize] -= row.cost;
                    if wanted == Wanted::ByNobody {
                        metrics.cancelled.inc();
                    }
                    swept = true;
                    false
                });
            }
        }
        self.lanes.retain(|_, lines| !lines.iter().all(VecDeque::is_empty));
        swept
    }
}

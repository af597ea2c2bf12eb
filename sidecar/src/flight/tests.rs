//! Flights under every order of joining, leaving, taking and landing.

use proptest::prelude::*;

use super::*;
use crate::{
    cache::{Cache, CacheConfig, metrics::CacheMetrics},
    clock::SystemClock,
    embedding::{Embedding, Vector},
    model::test_support::policy,
    policy::LivePolicy,
};
use embark_crds::contract::{CacheMode, CacheStorage};

const WAITS: Interest =
    Interest { floor: None, is_strict: false, class: Class::Waiting, store: true };
const FILLS: Interest = Interest { class: Class::Background, ..WAITS };

/// Flights, and what they need.
struct Airport {
    flights: Arc<Flights>,
    cache: Arc<Cache>,
}

impl Airport {
    async fn new() -> Self {
        let storage =
            CacheStorage { mode: CacheMode::Disabled, memory_bytes: 1 << 20, disk_bytes: 1 << 26 };
        let config = CacheConfig { storage, dimensions: 1, folder: "unused".into() };
        let policy = Arc::new(LivePolicy::new(policy(), 1));
        let metrics = CacheMetrics::default();
        let cache = Cache::open(config, policy, Arc::new(SystemClock), metrics).await;
        Airport { flights: Arc::default(), cache }
    }

    fn try_join(&self, number: u8, interest: Interest, has_room: bool) -> Result<Joined<()>, ()> {
        let operation = Arc::new(self.cache.begin());
        let room = || if has_room { Ok(()) } else { Err(()) };
        let began = Instant::now();
        let ask = Ask { key: key(number), interest, began, operation: &operation };
        self.flights.join(ask, |_| true, room)
    }

    fn lead(&self, number: u8, interest: Interest) -> (Seat, Lead) {
        match self.try_join(number, interest, true) {
            Ok(Joined::Leads(seat, lead, ())) => (seat, lead),
            _ => panic!("somebody leads already"),
        }
    }

    fn follow(&self, number: u8, interest: Interest) -> Seat {
        match self.try_join(number, interest, true) {
            Ok(Joined::Follows(seat)) => seat,
            _ => panic!("nobody leads"),
        }
    }

    fn landed(&self, value: f32) -> Landing {
        let vector = Vector::from_values(&[value]);
        let entry = self.cache.begin().entry(&Embedding { vector, tokens: 1, truncated: false });
        Ok(Landed { entry, origin: Origin::Computed, stages: Stages::default() })
    }
}

fn key(number: u8) -> CacheKey {
    CacheKey::from_bytes([number; 32])
}

async fn value(mut seat: Seat) -> Result<f32, ErrorKind> {
    let landed = seat.landing().await.map_err(|error| error.kind)?;
    Ok(landed.entry.vector.values().next().expect("a value"))
}

#[tokio::test]
async fn everybody_who_asks_for_a_key_shares_one_computation() {
    let airport = Airport::new().await;
    let (seat, lead) = airport.lead(1, WAITS);
    let others = [airport.follow(1, WAITS), airport.follow(1, FILLS)];
    assert_eq!(lead.take(Class::Waiting), Take::Begin);
    let late = airport.follow(1, WAITS);
    lead.land(airport.landed(7.0));
    for seat in others.into_iter().chain([seat, late]) {
        assert_eq!(value(seat).await, Ok(7.0));
    }
    assert!(airport.flights.is_empty());
}

#[tokio::test]
async fn a_flight_that_everybody_left_is_not_begun_and_the_next_leads() {
    let airport = Airport::new().await;
    let (seat, lead) = airport.lead(1, WAITS);
    let other = airport.follow(1, WAITS);
    drop(seat);
    assert_eq!(lead.wanted(), Wanted::In(Class::Waiting));
    drop(other);
    assert_eq!(lead.take(Class::Waiting), Take::Drop);
    let (_seat, _lead) = airport.lead(1, WAITS);
}

#[tokio::test]
async fn a_flight_left_behind_is_begun_after_those_that_are_waited_for() {
    let airport = Airport::new().await;
    let (seat, lead) = airport.lead(1, WAITS);
    assert!(seat.leave_behind().is_none());
    assert_eq!(lead.take(Class::Waiting), Take::Later);
    assert_eq!(lead.take(Class::Background), Take::Begin);
}

#[tokio::test]
async fn who_waits_does_not_wait_behind_a_fill_and_takes_its_followers() {
    let airport = Airport::new().await;
    let (bulk, behind) = airport.lead(1, FILLS);
    let (seat, lead) = airport.lead(1, WAITS);
    assert_eq!(behind.take(Class::Background), Take::Elsewhere);
    assert_eq!(lead.take(Class::Waiting), Take::Begin);
    lead.land(airport.landed(7.0));
    assert_eq!((value(seat).await, value(bulk).await), (Ok(7.0), Ok(7.0)));
    drop(behind);
    assert!(airport.flights.is_empty());
}

#[tokio::test]
async fn what_is_left_behind_goes_on_in_the_flight_that_took_its_place() {
    let airport = Airport::new().await;
    let (bulk, behind) = airport.lead(1, FILLS);
    let (seat, lead) = airport.lead(1, WAITS);
    assert!(bulk.leave_behind().is_none());
    drop(seat);
    assert_eq!(behind.take(Class::Background), Take::Elsewhere);
    assert_eq!(lead.take(Class::Background), Take::Begin);
}

#[tokio::test]
async fn a_flight_that_is_begun_while_another_is_made_ready_is_followed() {
    let airport = Airport::new().await;
    let (_bulk, behind) = airport.lead(1, FILLS);
    let operation = Arc::new(airport.cache.begin());
    let began = Instant::now();
    let ask = Ask { key: key(1), interest: WAITS, began, operation: &operation };
    let begun = || {
        assert_eq!(behind.take(Class::Background), Take::Begin);
        Ok::<_, ()>(())
    };
    let joined = airport.flights.join(ask, |_| true, begun);
    let Ok(Joined::Follows(seat)) = joined else { panic!("it is computed twice") };
    behind.land(airport.landed(7.0));
    assert_eq!(value(seat).await, Ok(7.0));
}

#[tokio::test]
async fn where_there_is_no_room_a_fill_is_followed() {
    let airport = Airport::new().await;
    let (_bulk, behind) = airport.lead(1, FILLS);
    let Ok(Joined::Follows(seat)) = airport.try_join(1, WAITS, false) else {
        panic!("it is not followed");
    };
    assert_eq!(behind.take(Class::Background), Take::Begin);
    behind.land(airport.landed(7.0));
    assert_eq!(value(seat).await, Ok(7.0));
    assert!(airport.try_join(2, WAITS, false).is_err());
}

#[tokio::test]
async fn a_computation_that_is_too_old_is_not_followed() {
    let airport = Airport::new().await;
    let (old, first) = airport.lead(1, WAITS);
    assert_eq!(first.take(Class::Waiting), Take::Begin);
    let young = Interest { floor: Some(Instant::now()), ..WAITS };
    let (new, second) = airport.lead(1, young);
    // Others follow the younger.
    let other = airport.follow(1, WAITS);
    first.land(airport.landed(1.0));
    second.land(airport.landed(2.0));
    assert_eq!(
        (value(old).await, value(new).await, value(other).await),
        (Ok(1.0), Ok(2.0), Ok(2.0))
    );
}

#[tokio::test]
async fn who_may_not_get_an_old_entry_makes_a_flight_compute() {
    let airport = Airport::new().await;
    let strict = Interest { is_strict: true, floor: Some(Instant::now()), ..WAITS };
    let (looks, lead) = airport.lead(1, WAITS);
    let computes = airport.follow(1, strict);
    let Ok(found) = airport.landed(1.0) else { panic!("it is an entry") };
    let lead = lead.land_found(found).expect("what was found may be too old");
    assert_eq!(lead.take(Class::Waiting), Take::Begin);
    lead.land(airport.landed(7.0));
    assert_eq!((value(looks).await, value(computes).await), (Ok(7.0), Ok(7.0)));
}

#[tokio::test]
async fn what_is_not_begun_becomes_as_young_as_who_asks_and_keeps_its_lead() {
    let airport = Airport::new().await;
    let (patient, lead) = airport.lead(1, WAITS);
    let began = lead.flight.state.lock().began;
    // However often somebody asks anew, whoever waits already keeps its place in the queue.
    for _ in 0..100 {
        let young = Interest { floor: Some(Instant::now()), ..WAITS };
        drop(airport.follow(1, young));
    }
    let young = airport.follow(1, Interest { floor: Some(Instant::now()), ..FILLS });
    assert!(lead.flight.state.lock().began > began);
    assert_eq!(lead.take(Class::Waiting), Take::Begin);
    lead.land(airport.landed(7.0));
    assert_eq!((value(patient).await, value(young).await), (Ok(7.0), Ok(7.0)));
}

#[tokio::test]
async fn who_asks_in_the_background_leaves_those_who_wait_in_their_class() {
    let airport = Airport::new().await;
    let (_seat, lead) = airport.lead(1, WAITS);
    let anew = Interest { floor: Some(Instant::now()), is_strict: true, ..FILLS };
    let _bulk = airport.follow(1, anew);
    assert_eq!(lead.take(Class::Waiting), Take::Begin);
}

#[tokio::test]
async fn followers_who_have_left_are_not_kept() {
    let airport = Airport::new().await;
    let (_seat, lead) = airport.lead(1, WAITS);
    for _ in 0..10_000 {
        airport.follow(1, FILLS).leave_behind();
    }
    assert!(lead.flight.state.lock().followers() < 16);
}

#[tokio::test]
async fn a_computation_that_an_invalidation_overtook_is_not_followed() {
    let airport = Airport::new().await;
    let (_seat, lead) = airport.lead(1, WAITS);
    assert_eq!(lead.take(Class::Waiting), Take::Begin);
    let operation = Arc::new(airport.cache.begin());
    let began = Instant::now();
    let ask = Ask { key: key(1), interest: WAITS, began, operation: &operation };
    let joined = airport.flights.join(ask, |_| false, || Ok::<_, ()>(()));
    assert!(matches!(joined, Ok(Joined::Leads(..))));
}

#[tokio::test]
async fn a_lead_that_is_lost_wakes_everybody() {
    let airport = Airport::new().await;
    let (seat, lead) = airport.lead(1, WAITS);
    let other = airport.follow(1, WAITS);
    let lost = std::thread::spawn(move || {
        let _lead = lead;
        panic!("on purpose");
    });
    assert!(lost.join().is_err());
    assert_eq!(value(seat).await, Err(ErrorKind::WorkerLost));
    assert_eq!(value(other).await, Err(ErrorKind::WorkerLost));
    assert!(airport.flights.is_empty());
}

#[tokio::test]
async fn what_one_follower_wants_kept_is_kept() {
    let airport = Airport::new().await;
    let (_seat, lead) = airport.lead(1, Interest { store: false, ..WAITS });
    assert!(!lead.is_stored());
    let _other = airport.follow(1, WAITS);
    assert!(lead.is_stored());
}

/// What happens next, by number of the thing that it happens to.
#[derive(Clone, Debug)]
enum Step {
    Join { key: u8, is_fill: bool, is_anew: bool },
    Leave(usize),
    LeaveBehind(usize),
    Take(usize),
    Land(usize),
    Lose(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let join = (0_u8..3, any::<bool>(), prop::bool::weighted(0.2));
    let step = prop_oneof![
        4 => join.prop_map(|(key, is_fill, is_anew)| Step::Join { key, is_fill, is_anew }),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => any::<usize>().prop_map(Step::LeaveBehind),
        2 => any::<usize>().prop_map(Step::Take),
        2 => any::<usize>().prop_map(Step::Land),
        1 => any::<usize>().prop_map(Step::Lose),
    ];
    prop::collection::vec(step, 1..60)
}

/// A lead, its key, and how it was begun.
type Flying = (Lead, u8, bool);

/// Takes one out by any number.
fn pick<T>(from: &mut Vec<T>, number: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(number % from.len()))
}

/// What happens next to flights that are numbered in their order.
#[derive(Clone, Debug)]
enum Turn {
    /// Somebody asks for a flight begun no earlier than the step of that number, if any.
    Join { key: u8, class: Class, floor: Option<usize> },
    /// It cancels, or its time is over.
    Leave(usize),
    /// Its wait budget is over.
    LeaveBehind(usize),
    /// A worker takes a flight's row.
    Take(usize),
    /// A run is over.
    Land(usize),
}

fn course() -> impl Strategy<Value = Turn> {
    let class = prop_oneof![Just(Class::Waiting), Just(Class::Background)];
    let join = (0_u8..2, class, prop::option::weighted(0.3, any::<usize>()));
    prop_oneof![
        5 => join.prop_map(|(key, class, floor)| Turn::Join { key, class, floor }),
        2 => any::<usize>().prop_map(Turn::Leave),
        1 => any::<usize>().prop_map(Turn::LeaveBehind),
        3 => any::<usize>().prop_map(Turn::Take),
        2 => any::<usize>().prop_map(Turn::Land),
    ]
}

/// Sees who comes and which flights are begun.
struct Tower {
    airport: Airport,
    /// When each step was.
    times: Vec<Instant>,
    seats: Vec<(Seat, Option<Instant>)>,
    /// Led, and not begun, with the class of their line.
    aboard: Vec<(Lead, u8, Class)>,
    begun: Vec<(Lead, u8)>,
    /// Floors, by key.
    asked: Vec<(u8, Instant)>,
    /// Flights that have landed; each one's place is what it brought.
    landed: Vec<Flown>,
    /// Keys that somebody wants later, and since when.
    behind: Vec<(u8, Instant)>,
}

struct Flown {
    key: u8,
    began: Instant,
    landed: Instant,
}

impl Tower {
    fn new(airport: Airport) -> Self {
        let (seats, aboard, begun) = (Vec::new(), Vec::new(), Vec::new());
        let (asked, landed, behind) = (Vec::new(), Vec::new(), Vec::new());
        Tower { airport, times: vec![Instant::now()], seats, aboard, begun, asked, landed, behind }
    }

    fn step(&mut self, turn: Turn) {
        // Each step has a time of its own.
        let mut now = Instant::now();
        while self.times.last().is_some_and(|last| *last >= now) {
            now = Instant::now();
        }
        self.times.push(now);
        match turn {
            Turn::Join { key, class, floor } => self.join(key, class, floor),
            Turn::Leave(number) => drop(pick(&mut self.seats, number)),
            Turn::LeaveBehind(number) => {
                let Some((seat, _)) = pick(&mut self.seats, number) else { return };
                let key = seat.flight.key.as_bytes()[0];
                if seat.leave_behind().is_none() {
                    self.behind.push((key, now));
                }
            }
            Turn::Take(number) => self.take(number),
            Turn::Land(number) => {
                if let Some((lead, key)) = pick(&mut self.begun, number) {
                    self.land(lead, key);
                }
            }
        }
    }

    fn join(&mut self, number: u8, class: Class, floor: Option<usize>) {
        let floor = floor.map(|step| self.times[step % self.times.len()]);
        self.asked.extend(floor.map(|floor| (number, floor)));
        let interest = Interest { floor, class, ..WAITS };
        match self.airport.try_join(number, interest, true).expect("there is room") {
            Joined::Follows(seat) => self.seats.push((seat, floor)),
            Joined::Leads(seat, lead, ()) => {
                self.seats.push((seat, floor));
                self.aboard.push((lead, number, class));
            }
        }
    }

    fn take(&mut self, number: usize) {
        let Some((lead, key, class)) = pick(&mut self.aboard, number) else { return };
        match lead.take(class) {
            Take::Begin => {
                for (other, _) in self.begun.iter().filter(|(_, begun)| *begun == key) {
                    let needed = |(asked, floor): &(u8, Instant)| {
                        *asked == key
                            && other.flight.state.lock().began < *floor
                            && *floor <= lead.flight.state.lock().began
                    };
                    assert!(self.asked.iter().any(needed), "a second computation, for nobody");
                }
                self.begun.push((lead, key));
            }
            Take::Later => self.aboard.push((lead, key, Class::Background)),
            // Had somebody stayed with it, the end would tell.
            Take::Drop | Take::Elsewhere => {}
        }
    }

    fn land(&mut self, lead: Lead, key: u8) {
        let value = u16::try_from(self.landed.len()).expect("few land");
        self.landed.push(Flown {
            key,
            began: lead.flight.state.lock().began,
            landed: Instant::now(),
        });
        lead.land(self.airport.landed(value.into()));
    }

    /// Everything left is computed; everybody who stayed is answered.
    async fn end(mut self) {
        while !self.aboard.is_empty() {
            self.take(0);
        }
        while let Some((lead, key)) = self.begun.pop() {
            self.land(lead, key);
        }
        assert!(self.airport.flights.is_empty());
        for (seat, floor) in self.seats {
            let answer = tokio::time::timeout(Duration::from_secs(20), value(seat)).await;
            let number = answer.expect("every seat is answered").expect("no lead was lost");
            let flown = self.landed.iter().zip(0_u16..).find(|(_, n)| f32::from(*n) == number);
            let (flown, _) = flown.expect("one that has landed");
            assert!(floor.is_none_or(|floor| flown.began >= floor), "older than was asked for");
        }
        for (key, since) in self.behind {
            let is_it = |flown: &Flown| flown.key == key && flown.landed >= since;
            assert!(self.landed.iter().any(is_it), "what was left behind was not computed");
        }
    }
}

proptest! {
    #[test]
    fn every_seat_is_answered_and_no_flight_is_left(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let airport = Airport::new().await;
            let (mut seats, mut leads) = (Vec::<Seat>::new(), Vec::<Flying>::new());
            for step in steps {
                match step {
                    Step::Join { key, is_fill, is_anew } => {
                        let interest = if is_fill { FILLS } else { WAITS };
                        let floor = is_anew.then(Instant::now);
                        let interest = Interest { floor, ..interest };
                        match airport.try_join(key, interest, true).unwrap() {
                            Joined::Follows(seat) => seats.push(seat),
                            Joined::Leads(seat, lead, ()) => {
                                seats.push(seat);
                                leads.push((lead, key, false));
                            }
                        }
                    }
                    Step::Leave(number) => drop(pick(&mut seats, number)),
                    Step::LeaveBehind(number) => {
                        pick(&mut seats, number).map(Seat::leave_behind);
                    }
                    Step::Take(number) => {
                        if let Some((lead, key, begun)) = pick(&mut leads, number) {
                            let take = if begun { Take::Begin } else { lead.take(Class::Waiting) };
                            match take {
                                Take::Begin => leads.push((lead, key, true)),
                                Take::Later => leads.push((lead, key, false)),
                                Take::Drop | Take::Elsewhere => {}
                            }
                        }
                    }
                    Step::Land(number) => {
                        if let Some((lead, key, _)) = pick(&mut leads, number) {
                            lead.land(airport.landed(key.into()));
                        }
                    }
                    Step::Lose(number) => drop(pick(&mut leads, number)),
                }
            }
            for (lead, key, _) in leads {
                lead.land(airport.landed(key.into()));
            }
            assert!(airport.flights.is_empty());
            for seat in seats {
                let expected = f32::from(seat.flight.key.as_bytes()[0]);
                let answer = tokio::time::timeout(Duration::from_secs(20), value(seat)).await;
                let answer = answer.expect("every seat is answered");
                assert!(answer == Ok(expected) || answer == Err(ErrorKind::WorkerLost));
            }
        });
    }

    /// Every flight that is begun beside another of its key is one that somebody needs, who came when the other was too old
    /// for it; and nobody gets what was begun before it allows.
    #[test]
    fn a_computation_is_begun_beside_another_only_for_who_needs_a_younger_one(
        steps in prop::collection::vec(course(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut tower = Tower::new(Airport::new().await);
            for step in steps {
                tower.step(step);
            }
            tower.end().await;
        });
    }

    /// Without an age to mind, a key is computed once however callers come and leave before it is begun.
    #[test]
    fn a_key_is_begun_once_until_it_lands(joins in prop::collection::vec((0_u8..3, any::<bool>()), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let airport = Airport::new().await;
            let (mut seats, mut leads) = (Vec::new(), Vec::new());
            for (key, is_fill) in &joins {
                let interest = if *is_fill { FILLS } else { WAITS };
                match airport.try_join(*key, interest, true).unwrap() {
                    Joined::Follows(seat) => seats.push(seat),
                    Joined::Leads(seat, lead, ()) => {
                        seats.push(seat);
                        leads.push(lead);
                    }
                }
            }
            let begun: Vec<Lead> =
                leads.into_iter().filter(|lead| lead.take(Class::Background) == Take::Begin).collect();
            let mut keys: Vec<u8> = joins.iter().map(|(key, _)| *key).collect();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(begun.len(), keys.len());
            for lead in begun {
                let number = lead.key().as_bytes()[0];
                lead.land(airport.landed(number.into()));
            }
            for seat in seats {
                assert!(value(seat).await.is_ok());
            }
        });
    }
}

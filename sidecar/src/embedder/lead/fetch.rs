//! Images that are fetched before they are prepared, each in a task of its own. None of it holds a thread.

use std::time::Duration;

use tokio::time::{Instant, interval};

use super::{Course, Led, error};
use crate::{
    batch::{Full, Place},
    fetch::{Fetched, Fetcher, Turn},
    flight::{Lead, Take, Wanted},
    input::{Class, ImageUrl, Input},
    trace,
};

/// How often it is looked whether anybody still wants what is being fetched.
const LOOK: Duration = Duration::from_millis(50);

// === impl Course ===

impl Course {
    /// Has an image fetched, and what came of it prepared.
    pub(super) fn fetch(&self, class: Class, url: ImageUrl, led: Led) {
        led.lead.set_class(class);
        let course = self.clone();
        // It ends by itself: whoever is in front in the line for the host has a bounded time, and so has the fetch.
        tokio::spawn(async move { course.fetch_one(class, &url, led).await });
    }

    async fn fetch_one(&self, class: Class, url: &ImageUrl, mut led: Led) {
        let runtime = &self.runtime;
        let fetcher = runtime.fetcher.as_ref().expect("a URL is taken where there is a fetcher");
        let turn = match self.turn(fetcher, (class, url), &mut led).await {
            Ok(Some(turn)) => turn,
            Ok(None) => return,
            Err(full) => {
                self.refused(Class::Background, 1);
                return self.no_room(led, full);
            }
        };
        let begun = Instant::now();
        let fetched = tokio::select! {
            fetched = fetcher.fetch(url, turn) => fetched,
            () = self.nobody(&led.lead) => return fetcher.given_up(begun),
        };
        self.trace.stage(trace::Stage { name: "fetch", took: begun.elapsed(), items: 1 });
        match fetched {
            Ok(Fetched { image, held }) => {
                let Some(class) = self.wanted(&led.lead) else { return };
                (led.input, led.held) = (Input::Image(image), Some(held));
                led.place = self.in_class(class, led.place);
                // A URL is short; what is prepared of it is not.
                match led.place.hold(self.runtime.preparer.waiting_bytes(&led.input)) {
                    Ok(()) => self.hand_over(class, vec![led]),
                    Err(full) => {
                        self.refused(led.place.class(), 1);
                        self.no_room(led, full);
                    }
                }
            }
            Err(error) => self.fail(led.lead, error),
        }
    }

    /// The turn at the URL's host. From then on the flight is begun: whoever asks for a younger one leads another. `None`:
    /// nobody wants it any more, or another leads it.
    ///
    /// # Errors
    /// Nobody waits for it any more, and there is no room for it behind.
    async fn turn(
        &self,
        fetcher: &Fetcher,
        (mut class, url): (Class, &ImageUrl),
        led: &mut Led,
    ) -> Result<Option<Turn>, Full> {
        loop {
            let turn = fetcher.turn(url, class).await;
            match led.lead.take(class) {
                Take::Begin => return Ok(Some(turn)),
                // It goes to where nobody waits.
                Take::Later => {
                    self.runtime.batcher.put_behind(&mut led.place)?;
                    class = Class::Background;
                }
                Take::Elsewhere => return Ok(None),
                Take::Drop => {
                    self.metrics.batch.cancelled.inc();
                    return Ok(None);
                }
            }
        }
    }

    /// Ends when nobody wants a flight any more.
    async fn nobody(&self, lead: &Lead) {
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            if lead.wanted() == Wanted::ByNobody {
                self.metrics.batch.cancelled.inc();
                return;
            }
        }
    }

    /// A place among what is waited for, where there is one, in exchange for one behind: somebody may have come to wait.
    fn in_class(&self, class: Class, place: Place) -> Place {
        if class == place.class() || class == Class::Background {
            return place;
        }
        self.runtime.batcher.reserve(class, 0).unwrap_or(place)
    }

    /// Lands what there is no room for.
    fn no_room(&self, led: Led, full: Full) {
        let Led { lead, place, .. } = led;
        drop(place);
        let wait = self.runtime.batcher.wait(self.terms.class) / 2;
        lead.land(Err(error(full, wait)));
    }
}

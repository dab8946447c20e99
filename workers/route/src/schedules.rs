//! Copies under all schedules: whatever the order in which the calls of several workers and of a provider meet, the
//! destination ends with what the source holds.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::task::noop_waker_ref;
use landfall_shared::config::Copying;
use landfall_shared::memory::MemoryObjects;

use super::*;

type Participant = Pin<Box<dyn Future<Output = ()>>>;

/// Runs a world once: at each step `choose` says which of the unfinished goes on to its next call.
fn run(mut participants: Vec<Option<Participant>>, mut choose: impl FnMut(&[usize], Option<usize>) -> usize) {
    let mut context = Context::from_waker(noop_waker_ref());
    let mut last = None;
    for _ in 0..10_000 {
        let unfinished = participants.iter().enumerate().filter(|(_, one)| one.is_some());
        let unfinished: Vec<_> = unfinished.map(|(index, _)| index).collect();
        if unfinished.is_empty() {
            return;
        }
        let index = choose(&unfinished, last);
        let participant = participants[index].as_mut().expect("it is unfinished");
        if let Poll::Ready(()) = participant.as_mut().poll(&mut context) {
            participants[index] = None;
        }
        last = Some(index);
    }
    panic!("the schedule has no end");
}

/// Goes through all schedules with at most so many preemptions; gives how many there were.
fn explore(preemptions_max: usize, world: impl Fn() -> (Vec<Option<Participant>>, Box<dyn FnOnce()>)) -> usize {
    // What was chosen at each step, and of how many.
    let mut path: Vec<(usize, usize)> = Vec::new();
    for schedules in 1.. {
        let (participants, check) = world();
        let (mut step, mut preemptions) = (0, 0);
        run(participants, |unfinished, last| {
            let mut options = unfinished.to_vec();
            // To go on with the last one is the first option; anything else interrupts it.
            let goes_on = last.and_then(|last| options.iter().position(|index| *index == last));
            if let Some(at) = goes_on {
                options[..=at].rotate_right(1);
                if preemptions == preemptions_max {
                    options.truncate(1);
                }
            }
            if path.len() == step {
                path.push((0, options.len()));
            }
            let chosen = path[step].0;
            step += 1;
            preemptions += usize::from(goes_on.is_some() && chosen > 0);
            options[chosen]
        });
        check();
        while path.last().is_some_and(|(chosen, of)| chosen + 1 == *of) {
            path.pop();
        }
        let Some((chosen, _)) = path.last_mut() else { return schedules };
        *chosen += 1;
    }
    unreachable!("schedules are countable")
}

fn source() -> ObjectRef {
    ObjectRef::new("landing", "sbn/a")
}

fn target() -> Target {
    let (bucket, key) = ("archive".to_owned(), "sbn/a".to_owned());
    Target { bucket, key, storage_class: None, tags: BTreeMap::new(), by_document: false }
}

/// A worker that is told of a change.
async fn work(objects: MemoryObjects, settings: Copying, cause: Cause) {
    let port: Arc<dyn Objects> = Arc::new(objects);
    let copier = Copier::new(port.clone(), Work::new(port, "work"), settings);
    let (from, to, until) = (source(), target(), Instant::now() + Duration::from_secs(3600));
    let (provider, cause) = ("sbn", Some(&cause));
    let order = Order { from: &from, to: &to, provider, cause, item: None, checked: None, until };
    copier.copy(order).await.expect("nothing fails here");
}

/// A provider that writes, and the worker that is told of it.
async fn write_and_work(objects: MemoryObjects, settings: Copying, body: &'static [u8]) {
    tokio::task::yield_now().await;
    let cause = objects.land(&source(), body);
    work(objects, settings, cause).await;
}

fn check(objects: &MemoryObjects) {
    let all = objects.all();
    let (source, copy) = (&all[&source()], &all[&ObjectRef::new("archive", "sbn/a")]);
    assert_eq!(source.body, copy.body);
    assert_eq!(objects.open_uploads(), 0);
    assert!(!all.keys().any(|object| object.key.starts_with("uploads/")), "{:?}", all.keys());
}

/// The first event, and further writes with their events, all at once.
fn race(preemptions_max: usize, settings: &Copying, writes: &[&'static [u8]], twice: bool) -> usize {
    explore(preemptions_max, || {
        let objects = MemoryObjects::new(Arc::default());
        let first = objects.land(&source(), &b"one"[..]);
        let mut participants: Vec<Option<Participant>> = Vec::new();
        for _ in 0..if twice { 2 } else { 1 } {
            participants.push(Some(Box::pin(work(objects.clone(), settings.clone(), first.clone()))));
        }
        for &body in writes {
            participants.push(Some(Box::pin(write_and_work(objects.clone(), settings.clone(), body))));
        }
        (participants, Box::new(move || check(&objects)))
    })
}

#[test]
fn two_workers_and_a_write_leave_the_newest() {
    let schedules = race(usize::MAX, &Copying::default(), &[b"two"], false);
    assert!(schedules > 1_000, "{schedules}");
}

#[test]
fn two_workers_told_of_the_same_leave_it_once() {
    let schedules = race(usize::MAX, &Copying::default(), &[], true);
    assert!(schedules > 500, "{schedules}");
}

#[test]
fn a_return_to_earlier_content_ends_with_it() {
    let schedules = race(3, &Copying::default(), &[b"two", b"one"], false);
    assert!(schedules > 1_000, "{schedules}");
}

#[test]
fn copies_in_parts_leave_the_newest_and_no_upload() {
    // The bytes of a test are few: every object is larger than nothing.
    let settings = Copying { threshold_mib: 0, ..Copying::default() };
    let schedules = race(2, &settings, &[b"two", b"one"], false);
    assert!(schedules > 500, "{schedules}");
}

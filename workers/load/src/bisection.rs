//! Finds what the database refuses among what it takes, with few attempts, and without a guess.

use landfall_shared::catalogue::CatalogueError;

/// How an attempt with some of them has ended.
pub(crate) enum Attempt<T> {
    /// All are in, with a result for each.
    Done(Vec<T>),
    /// One or more of them are refused, and none is in.
    Refused(CatalogueError),
    /// They are too many at once, and none is in.
    TooMuch(CatalogueError),
    /// It failed for a reason that is not theirs.
    Failed(CatalogueError),
}

impl<T> Attempt<T> {
    /// Sorts what the catalogue has answered.
    pub(crate) fn of(answer: Result<Vec<T>, CatalogueError>) -> Self {
        match answer {
            Ok(done) => Self::Done(done),
            Err(error @ CatalogueError::Refused { .. }) => Self::Refused(error),
            Err(error @ CatalogueError::TooMuch(_)) => Self::TooMuch(error),
            Err(error) => Self::Failed(error),
        }
    }
}

/// Attempts all, and where they are refused, halves of what must hold a culprit, until each stands alone. The others
/// go in together. Every culprit is refused by an attempt of its own.
pub(crate) async fn by_halves<T, F: Future<Output = Attempt<T>>>(
    all: Vec<usize>,
    attempt: impl Fn(Vec<usize>) -> F,
) -> Vec<(usize, Result<T, CatalogueError>)> {
    let mut results = Vec::with_capacity(all.len());
    // What is still to be attempted as a whole; the next part is the last.
    let mut pending = vec![all];
    while let Some(mut part) = pending.pop() {
        // Parts of what was refused that nobody has tried on their own.
        let mut unsuspected: Vec<usize> = Vec::new();
        let mut known_to_fail = false;
        let failed = loop {
            // Of what is known to hold a culprit, the first half is tried: if it goes in, the culprit is in the second.
            let second = if known_to_fail { part.split_off(part.len().div_ceil(2)) } else { Vec::new() };
            match attempt(part.clone()).await {
                Attempt::Done(done) => {
                    results.extend(part.into_iter().zip(done.into_iter().map(Ok)));
                    if second.is_empty() {
                        break None;
                    }
                    known_to_fail = second.len() > 1;
                    part = second;
                }
                Attempt::Refused(error) => {
                    unsuspected.splice(0..0, second);
                    if part.len() == 1 {
                        results.push((part[0], Err(error)));
                        break None;
                    }
                    known_to_fail = true;
                }
                Attempt::TooMuch(error) | Attempt::Failed(error) if part.len() == 1 => {
                    unsuspected.splice(0..0, second);
                    results.push((part[0], Err(error.clone())));
                    break Some(error);
                }
                Attempt::TooMuch(_) => {
                    let half = part.split_off(part.len().div_ceil(2));
                    // The last is the next: the order is kept.
                    let later = std::mem::take(&mut unsuspected);
                    pending.extend([later, second, half, part].into_iter().filter(|part| !part.is_empty()));
                    break None;
                }
                Attempt::Failed(error) => {
                    unsuspected.splice(0..0, second);
                    results.extend(part.into_iter().map(|index| (index, Err(error.clone()))));
                    break Some(error);
                }
            }
        };
        if let Some(error) = failed {
            let left = unsuspected.into_iter().chain(pending.drain(..).rev().flatten());
            results.extend(left.map(|index| (index, Err(error.clone()))));
        } else if !unsuspected.is_empty() {
            pending.push(unsuspected);
        }
    }
    results
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use landfall_events::codes;

    use super::*;

    fn refused() -> CatalogueError {
        let (sqlstate, message) = ("22003".into(), "no".into());
        CatalogueError::Refused { code: codes::LOAD_NUMBER, sqlstate, message }
    }

    /// Runs it on so many with these culprits; gives the number of attempts.
    async fn check(count: usize, culprits: &[usize], most: usize) -> usize {
        let (attempts, through) = (Cell::new(0), Cell::new(0));
        let results = by_halves((0..count).collect(), |part: Vec<usize>| {
            attempts.set(attempts.get() + 1);
            assert!(part.is_sorted(), "the order is kept: {part:?}");
            assert!(part[0] >= through.get(), "{part:?} after {}", through.get());
            if part.len() <= most && !part.iter().any(|index| culprits.contains(index)) {
                through.set(part[part.len() - 1]);
            }
            std::future::ready(if part.len() > most {
                Attempt::TooMuch(CatalogueError::TooMuch("locks".into()))
            } else if part.iter().any(|index| culprits.contains(index)) {
                Attempt::Refused(refused())
            } else {
                Attempt::Done(part)
            })
        })
        .await;
        let mut refused: Vec<_> =
            results.iter().filter(|(_, result)| result.is_err()).map(|(index, _)| *index).collect();
        refused.sort_unstable();
        assert_eq!(refused, culprits);
        assert_eq!(results.len(), count);
        assert!(results.iter().all(|(index, result)| result.as_ref().is_err() || result.as_ref().ok() == Some(index)));
        attempts.get()
    }

    #[tokio::test]
    async fn each_culprit_is_found_and_the_others_go_in() {
        assert_eq!(check(100, &[], 100).await, 1);
        for culprit in 0..100 {
            let attempts = check(100, &[culprit], 100).await;
            assert!(attempts <= 1 + 7 + 2, "{culprit}: {attempts}");
        }
        check(100, &[0, 1, 50, 98, 99], 100).await;
        check(7, &[0, 1, 2, 3, 4, 5, 6], 100).await;
        check(1, &[0], 100).await;
    }

    #[tokio::test]
    async fn what_is_too_much_goes_in_parts() {
        assert_eq!(check(100, &[], 50).await, 3);
        check(100, &[3, 99], 20).await;
        for most in 1..16 {
            check(16, &[3, 4, 9], most).await;
        }
    }

    #[tokio::test]
    async fn an_outage_is_nobodys_fault() {
        let attempts = Cell::new(0);
        let results = by_halves((0..8).collect(), |part: Vec<usize>| {
            attempts.set(attempts.get() + 1);
            std::future::ready(match attempts.get() {
                1 => Attempt::Refused(refused()),
                2 => Attempt::Done(part),
                _ => Attempt::Failed(CatalogueError::Unavailable("gone".into())),
            })
        })
        .await;
        assert_eq!(results.iter().filter(|(_, result)| result.is_ok()).count(), 4);
        assert!(results.iter().all(|(_, result)| !matches!(result, Err(CatalogueError::Refused { .. }))));
    }
}

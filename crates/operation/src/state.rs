//! The states of a task, as a pure function.
//!
//! A store reads the state, calls [`transition`] for the event and writes the result, in one transaction; neither SQL
//! nor the worker changes a state in another way. No event leaves a terminal state.

use std::fmt;

/// The state of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Accepted and durable; waits for a free worker, for earlier work on its components, or for a retry.
    Queued,
    /// A worker holds its lease.
    Running,
    /// A worker holds its lease, and a stop was requested.
    Stopping,
    /// The work succeeded.
    Completed,
    /// The work ended with an error, or the engine gave it up.
    Failed,
    /// The work was stopped on request.
    Terminated,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Queued, Self::Running, Self::Stopping, Self::Completed, Self::Failed, Self::Terminated];

    /// Whether the state is final.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Terminated)
    }

    /// Whether a worker may hold the lease.
    pub fn is_leased(self) -> bool {
        matches!(self, Self::Running | Self::Stopping)
    }

    /// The persisted name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Terminated => "terminated",
        }
    }

    /// Reads a persisted name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What can happen to a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// A worker takes it.
    Claim,
    /// The work succeeded.
    Succeed,
    /// The work ended with a permanent error, or the time for retries is over.
    Fail,
    /// The work met a transient failure and is to be retried.
    Retry,
    /// The worker hands the task back unfinished, because its process ends.
    Release,
    /// A caller requests a stop.
    Stop,
    /// The work ended because a stop was requested.
    Stopped,
    /// The lease of a worker that crashed or hangs expired; the task can be retried.
    Expire,
    /// The lease expired more often than the limit allows.
    GiveUp,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 9] = [
        Self::Claim,
        Self::Succeed,
        Self::Fail,
        Self::Retry,
        Self::Release,
        Self::Stop,
        Self::Stopped,
        Self::Expire,
        Self::GiveUp,
    ];
}

/// The event is not valid in that state: a programming error, or a worker that lost its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a task that is {state} cannot take the event {event:?}")]
pub struct IllegalTransition {
    /// The state, unchanged.
    pub state: State,
    /// The rejected event.
    pub event: Event,
}

/// The state of a task after `event`.
pub fn transition(state: State, event: Event) -> Result<State, IllegalTransition> {
    use Event::*;
    use State::*;
    match (state, event) {
        (Queued, Claim) => Ok(Running),
        // Nothing runs, so the task can end at once.
        (Queued, Stop) => Ok(Terminated),

        (Running | Stopping, Succeed) => Ok(Completed),
        (Running | Stopping, Fail) => Ok(Failed),

        (Running, Retry | Release | Expire) => Ok(Queued),
        (Running, GiveUp) => Ok(Failed),
        (Running, Stop) => Ok(Stopping),

        // A second stop changes nothing.
        (Stopping, Stop) => Ok(Stopping),
        // A stop was requested, so the task must not start again, whatever ended the run.
        (Stopping, Stopped | Retry | Release | Expire | GiveUp) => Ok(Terminated),

        (Queued, Succeed | Fail | Retry | Release | Stopped | Expire | GiveUp)
        | (Running, Claim | Stopped)
        | (Stopping, Claim)
        | (Completed | Failed | Terminated, _) => Err(IllegalTransition { state, event }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The transition table, written a second time: one row per state, one column per event of [`Event::ALL`].
    const TABLE: [(State, [Option<State>; 9]); 6] = {
        const Q: Option<State> = Some(State::Queued);
        const R: Option<State> = Some(State::Running);
        const S: Option<State> = Some(State::Stopping);
        const C: Option<State> = Some(State::Completed);
        const F: Option<State> = Some(State::Failed);
        const T: Option<State> = Some(State::Terminated);
        const X: Option<State> = None;
        [
            //                  claim succeed fail retry release stop stopped expire give-up
            (State::Queued, [R, X, X, X, X, T, X, X, X]),
            (State::Running, [X, C, F, Q, Q, S, X, Q, F]),
            (State::Stopping, [X, C, F, T, T, S, T, T, T]),
            (State::Completed, [X, X, X, X, X, X, X, X, X]),
            (State::Failed, [X, X, X, X, X, X, X, X, X]),
            (State::Terminated, [X, X, X, X, X, X, X, X, X]),
        ]
    };

    #[test]
    fn transition_matches_the_table() {
        assert_eq!(TABLE.map(|(state, _)| state), State::ALL);
        for (state, row) in TABLE {
            for (event, expected) in Event::ALL.into_iter().zip(row) {
                assert_eq!(
                    transition(state, event),
                    expected.ok_or(IllegalTransition { state, event }),
                    "{state} x {event:?}"
                );
            }
        }
    }

    #[test]
    fn every_state_reaches_a_terminal_state_and_none_leaves_it() {
        for start in State::ALL {
            let mut reached = HashSet::from([start]);
            let mut frontier = vec![start];
            while let Some(state) = frontier.pop() {
                for event in Event::ALL {
                    if let Ok(next) = transition(state, event)
                        && reached.insert(next)
                    {
                        frontier.push(next);
                    }
                }
            }
            assert!(reached.iter().any(|state| state.is_terminal()), "{start} never ends");
            if start.is_terminal() {
                assert_eq!(reached, HashSet::from([start]));
            }
        }
    }

    #[test]
    fn stopping_task_never_starts_again() {
        for event in Event::ALL {
            if let Ok(next) = transition(State::Stopping, event) {
                assert!(next == State::Stopping || next.is_terminal(), "{event:?} leads to {next}");
            }
        }
    }

    #[test]
    fn persisted_names_round_trip() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("Running"), None);
    }
}

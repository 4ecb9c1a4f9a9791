//! Counts the failed logins of each address, in bounded memory.
//!
//! An address has one window, which its first failure opens, and in it one count of all its failures and one for each
//! user that exists. A user is refused by their own count, so that other users of the same address are not; an
//! unknown name is refused by the count of all. The text of a response depends on the count of all alone, so that known
//! and unknown names look the same.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::Audience;

/// The failures of each address and kind of contract; see the module documentation.
pub(super) struct Failures {
    most: u32,
    window: Duration,
    max_tracked: usize,
    windows: HashMap<Source, Window>,
    /// The keys of `windows`, in the order in which they were opened.
    opened: VecDeque<Source>,
}

type Source = (Audience, IpAddr);

struct Window {
    since: Instant,
    all: u32,
    of: BTreeMap<String, u32>,
}

/// The state of an address after one more failure.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// The time until the window ends, if the address has reached the limit; `None` below the limit. Depends
    /// only on the count of all failures.
    pub(super) wait: Option<Duration>,
    /// Whether this failure is the one that reaches the limit of the address.
    pub(super) reached: bool,
}

impl Failures {
    pub(super) fn new(most: u32, window: Duration, max_tracked: usize) -> Self {
        Self { most, window, max_tracked, windows: HashMap::new(), opened: VecDeque::new() }
    }

    /// Returns how long attempts for this user are still refused, or `None` if they are not. A `name` of `None`
    /// stands for an unknown user.
    pub(super) fn refused_for(
        &self,
        audience: Audience,
        peer: IpAddr,
        name: Option<&str>,
        now: Instant,
    ) -> Option<Duration> {
        let window = self.windows.get(&(audience, network(peer)))?;
        let failed = name.map_or(window.all, |name| window.of.get(name).copied().unwrap_or_default());
        let left = self.window.saturating_sub(now.saturating_duration_since(window.since));
        (failed >= self.most && !left.is_zero()).then_some(left)
    }

    /// The number of failures of an address in its window.
    pub(super) fn of_address(&self, audience: Audience, peer: IpAddr, now: Instant) -> u32 {
        let is_open = |window: &&Window| now.saturating_duration_since(window.since) < self.window;
        self.windows.get(&(audience, network(peer))).filter(is_open).map_or(0, |window| window.all)
    }

    /// Counts a failure. A `name` of `None` stands for an unknown user.
    pub(super) fn count(
        &mut self,
        audience: Audience,
        peer: IpAddr,
        name: Option<&str>,
        now: Instant,
    ) -> Count {
        self.forget(now);
        let source = (audience, network(peer));
        if !self.windows.contains_key(&source) {
            // The table is full: evict the oldest window, which would expire first anyway.
            while self.windows.len() >= self.max_tracked
                && let Some(oldest) = self.opened.pop_front()
            {
                self.windows.remove(&oldest);
            }
            self.opened.push_back(source);
        }
        let window = self.windows.entry(source).or_insert(Window { since: now, all: 0, of: BTreeMap::new() });
        window.all = window.all.saturating_add(1);
        if let Some(name) = name {
            let failed = window.of.entry(name.to_owned()).or_default();
            *failed = failed.saturating_add(1);
        }
        let reached = window.all == self.most;
        Count { reached, wait: self.refused_for(audience, peer, None, now) }
    }

    /// Drops expired windows.
    fn forget(&mut self, now: Instant) {
        while let Some(oldest) = self.opened.front() {
            let since = self.windows.get(oldest).map(|window| window.since);
            if since.is_some_and(|since| now.saturating_duration_since(since) < self.window) {
                return;
            }
            self.windows.remove(oldest);
            self.opened.pop_front();
        }
    }
}

/// The unit that counts as one address: for IPv6, where one host has many addresses, the /64.
pub(super) fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Audience::{Basic, Bearer};

    const WINDOW: Duration = Duration::from_secs(60);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn users_and_unknown_names_have_separate_failure_counts() {
        let (mut failures, now) = (Failures::new(2, WINDOW, 10), Instant::now());
        let peer = address(1);
        assert_eq!(failures.count(Basic, peer, Some("ops"), now), Count { wait: None, reached: false });
        assert_eq!(failures.count(Basic, peer, None, now), Count { wait: Some(WINDOW), reached: true });
        assert_eq!(failures.refused_for(Basic, peer, Some("ops"), now), None);
        assert_eq!(failures.refused_for(Basic, peer, None, now), Some(WINDOW));
        // The response depends only on the address, not on the user.
        assert_eq!(
            failures.count(Basic, peer, Some("ops"), now),
            Count { wait: Some(WINDOW), reached: false }
        );
        assert_eq!(failures.refused_for(Basic, peer, Some("ops"), now), Some(WINDOW));
        // Other users and addresses are not affected.
        assert_eq!(failures.refused_for(Basic, peer, Some("dev"), now), None);
        assert_eq!(failures.refused_for(Basic, address(2), Some("ops"), now), None);
        assert_eq!(failures.refused_for(Basic, address(2), None, now), None);
        assert_eq!(failures.refused_for(Bearer, peer, None, now), None);
    }

    #[test]
    fn window_ends_for_all_failures_at_once() {
        let (mut failures, start) = (Failures::new(1, WINDOW, 10), Instant::now());
        failures.count(Basic, address(1), Some("ops"), start);
        let late = start + Duration::from_secs(59);
        assert_eq!(failures.refused_for(Basic, address(1), Some("ops"), late), Some(Duration::from_secs(1)));
        failures.count(Basic, address(1), Some("dev"), late);
        let over = start + WINDOW;
        for name in [Some("ops"), Some("dev"), None] {
            assert_eq!(failures.refused_for(Basic, address(1), name, over), None);
        }
        assert_eq!(
            failures.count(Basic, address(1), None, over),
            Count { wait: Some(WINDOW), reached: true }
        );
    }

    #[test]
    fn failures_of_an_address_count_until_its_window_is_over() {
        let (mut failures, now) = (Failures::new(1, WINDOW, 10), Instant::now());
        assert_eq!(failures.of_address(Basic, address(1), now), 0);
        for name in [None, Some("ops"), Some("dev")] {
            failures.count(Basic, address(1), name, now);
        }
        assert_eq!(failures.of_address(Basic, address(1), now), 3);
        assert_eq!(failures.of_address(Bearer, address(1), now), 0);
        assert_eq!(failures.of_address(Basic, address(2), now), 0);
        assert_eq!(failures.of_address(Basic, address(1), now + WINDOW), 0);
    }

    #[test]
    fn memory_of_failures_is_limited() {
        let (mut failures, now) = (Failures::new(1, WINDOW, 3), Instant::now());
        for last in 0..100 {
            failures.count(Basic, address(last), None, now);
            assert!(failures.windows.len() <= 3 && failures.opened.len() == failures.windows.len());
        }
        assert!(failures.refused_for(Basic, address(99), None, now).is_some());
        assert!(failures.refused_for(Basic, address(0), None, now).is_none(), "the oldest went");
        for _ in 0..100 {
            failures.count(Basic, address(99), None, now);
        }
        assert_eq!(failures.opened.len(), 3, "one entry an address, whatever the names");
        failures.count(Basic, address(1), None, now + WINDOW);
        assert_eq!((failures.windows.len(), failures.opened.len()), (1, 1), "what is over is dropped");
    }

    #[test]
    fn ipv6_network_counts_as_one_address() {
        let parsed = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(parsed("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(parsed("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(parsed("192.0.2.1"), "192.0.2.1");
    }
}

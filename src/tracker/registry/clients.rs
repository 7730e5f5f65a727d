//! How many clients a swarm has: one that is listed under several addresses is one (BEP 7).

use crate::base::few::Few;

/// The clients of a swarm by their number, which is made of the peer id.
#[derive(Debug, Default)]
pub(super) struct Clients {
    all: Few<u64, Listed>,
    complete: u32,
    incomplete: u32,
    paused: u32,
}

/// Under how many addresses a client is listed, and how many of them say what.
#[derive(Clone, Copy, Debug, Default)]
struct Listed {
    addrs: u32,
    seeds: u32,
    paused: u32,
}

/// What an address says of its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Has {
    /// Everything.
    pub all: bool,
    /// Not everything, but all that it wants.
    pub enough: bool,
}

impl Clients {
    /// Counts an address.
    pub fn add(&mut self, client: u64, has: Has) {
        let before = self.all.get(&client).copied().unwrap_or_default();
        let mut listed = before;
        listed.addrs += 1;
        listed.seeds += u32::from(has.all);
        listed.paused += u32::from(has.enough);
        self.all.insert(client, listed);
        self.recount(before, listed);
    }

    /// Counts an address no more that was counted as this.
    pub fn remove(&mut self, client: u64, has: Has) {
        let before = *self.all.get(&client).expect("a counted client");
        let mut after = before;
        after.addrs -= 1;
        after.seeds -= u32::from(has.all);
        after.paused -= u32::from(has.enough);
        match after.addrs {
            0 => _ = self.all.remove(&client),
            _ => self.all.insert(client, after),
        }
        self.recount(before, after);
    }

    /// Clients that have everything.
    pub fn complete(&self) -> u32 {
        self.complete
    }

    /// Clients that lack something.
    pub fn incomplete(&self) -> u32 {
        self.incomplete
    }

    /// Clients that lack something and do not want it.
    pub fn paused(&self) -> u32 {
        self.paused
    }

    fn recount(&mut self, before: Listed, after: Listed) {
        for (listed, is_after) in [(before, false), (after, true)] {
            let count = match listed {
                Listed { addrs: 0, .. } => continue,
                Listed {
                    seeds: 0, paused, ..
                } => {
                    add(&mut self.paused, u32::from(paused > 0), is_after);
                    &mut self.incomplete
                }
                Listed { .. } => &mut self.complete,
            };
            add(count, 1, is_after);
        }
    }
}

/// Adds `count`, or takes it off again.
fn add(sum: &mut u32, count: u32, is_more: bool) {
    *sum = if is_more { *sum + count } else { *sum - count };
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: Has = Has {
        all: true,
        enough: false,
    };
    const LEECHER: Has = Has {
        all: false,
        enough: false,
    };
    const PAUSED: Has = Has {
        all: false,
        enough: true,
    };

    #[test]
    fn client_with_two_addresses_is_one() {
        let mut clients = Clients::default();
        let counts =
            |clients: &Clients| [clients.complete(), clients.incomplete(), clients.paused()];
        #[rustfmt::skip]
        type Step = fn(&mut Clients);
        let steps: [(&str, Step, [u32; 3]); 9] = [
            ("a leecher", |c| c.add(1, LEECHER), [0, 1, 0]),
            ("its other address", |c| c.add(1, LEECHER), [0, 1, 0]),
            ("another", |c| c.add(2, PAUSED), [0, 2, 1]),
            (
                "which has all, says one address",
                |c| c.add(2, SEED),
                [1, 1, 0],
            ),
            (
                "both say so",
                |c| {
                    c.remove(2, PAUSED);
                    c.add(2, SEED)
                },
                [1, 1, 0],
            ),
            ("one address goes", |c| c.remove(2, SEED), [1, 1, 0]),
            ("so does the other", |c| c.remove(2, SEED), [0, 1, 0]),
            ("and the first's", |c| c.remove(1, LEECHER), [0, 1, 0]),
            ("and its other", |c| c.remove(1, LEECHER), [0, 0, 0]),
        ];
        for (name, step, expected) in steps {
            step(&mut clients);
            assert_eq!(counts(&clients), expected, "{name}");
        }
        assert!(clients.all.is_empty());
    }
}

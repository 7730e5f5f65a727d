//! A map that holds a few entries most of the time.

use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

/// A map in the order of its keys that takes room for as many entries as there were while they were
/// [`FEW_MAX`] at most: a node of a [`BTreeMap`] has room for eleven, and there are thousands of
/// such maps.
#[derive(Clone, Debug)]
pub struct Few<K, V>(Body<K, V>);

#[derive(Clone, Debug)]
enum Body<K, V> {
    /// In the order of their keys.
    Few(Vec<(K, V)>),
    Many(BTreeMap<K, V>),
}

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(Body::Few(Vec::new()))
    }
}

impl<K: Ord, V> Few<K, V> {
    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        match &self.0 {
            Body::Few(few) => {
                let found = few.iter().find(|(its, _)| its == key);
                found.map(|(_, value)| value)
            }
            Body::Many(all) => all.get(key),
        }
    }

    /// Gives `key` this value; what it had before goes.
    pub fn insert(&mut self, key: K, value: V) {
        match &mut self.0 {
            Body::Few(few) => match few.binary_search_by(|(its, _)| its.cmp(&key)) {
                Ok(place) => few[place].1 = value,
                Err(place) if few.len() < FEW_MAX => {
                    few.reserve_exact(1);
                    few.insert(place, (key, value));
                }
                Err(_) => {
                    let mut all: BTreeMap<K, V> = few.drain(..).collect();
                    all.insert(key, value);
                    self.0 = Body::Many(all);
                }
            },
            Body::Many(all) => _ = all.insert(key, value),
        }
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        match &mut self.0 {
            Body::Few(few) => {
                let place = few.iter().position(|(its, _)| its == key)?;
                Some(few.remove(place).1)
            }
            Body::Many(all) => {
                let removed = all.remove(key);
                // Far from where it became many, so that coming and going costs nothing.
                if all.len() < FEW_MAX / 2 {
                    self.0 = Body::Few(std::mem::take(all).into_iter().collect());
                }
                removed
            }
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        match &self.0 {
            Body::Few(few) => few.len(),
            Body::Many(all) => all.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries whose keys lie in `range`, in their order.
    pub fn range<R: RangeBounds<K>>(&self, range: R) -> impl Iterator<Item = (&K, &V)> {
        let (few, many) = match &self.0 {
            Body::Few(few) => {
                let begin = few.partition_point(|(key, _)| is_below(key, &range));
                let in_it = few[begin..]
                    .iter()
                    .take_while(|(key, _)| range.contains(key));
                (&few[begin..begin + in_it.count()], None)
            }
            Body::Many(all) => (&[][..], Some(all.range(range))),
        };
        let few = few.iter().map(|(key, value)| (key, value));
        few.chain(many.into_iter().flatten())
    }
}

/// Whether `key` comes before all of `range`.
fn is_below<K: Ord>(key: &K, range: &impl RangeBounds<K>) -> bool {
    match range.start_bound() {
        Bound::Included(start) => key < start,
        Bound::Excluded(start) => key <= start,
        Bound::Unbounded => false,
    }
}

/// So many entries take no more room than they need.
pub const FEW_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn it_is_as_any_other_map_and_few_take_little_room() {
        let mut rng = Rng::new(1);
        let (mut few, mut map) = (Few::default(), BTreeMap::new());
        let mut were_many = 0;
        for round in 0..20_000_u32 {
            let (key, from) = (rng.below(9), rng.below(9));
            // Now more come than go, now more go.
            match rng.below(10) < 2 + 6 * (round / 100 % 2) {
                true => {
                    few.insert(key, round);
                    map.insert(key, round);
                }
                false => assert_eq!(few.remove(&key), map.remove(&key)),
            }
            assert_eq!(few.get(&from), map.get(&from));
            assert!(few.range(from..).eq(map.range(from..)));
            assert!(few.range(from..=from + 2).eq(map.range(from..=from + 2)));
            assert_eq!((few.len(), few.is_empty()), (map.len(), map.is_empty()));
            match &few.0 {
                Body::Few(few) => assert!(few.len() <= FEW_MAX && few.capacity() <= FEW_MAX),
                Body::Many(all) => {
                    were_many += 1;
                    assert!(all.len() >= FEW_MAX / 2);
                }
            }
        }
        assert!(were_many > 1000);
    }
}

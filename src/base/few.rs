//! A map that holds one entry most of the time.

use std::collections::BTreeMap;
use std::ops::RangeBounds;

/// A map in the order of its keys that takes room of its own only from the second entry on: a node
/// of a [`BTreeMap`] has room for eleven, and there are thousands of such maps.
#[derive(Clone, Debug)]
pub struct Few<K, V>(Body<K, V>);

#[derive(Clone, Debug)]
enum Body<K, V> {
    One(Option<(K, V)>),
    /// Two at least.
    More(BTreeMap<K, V>),
}

impl<K, V> Default for Few<K, V> {
    fn default() -> Self {
        Self(Body::One(None))
    }
}

impl<K: Ord, V> Few<K, V> {
    /// The value of `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        match &self.0 {
            Body::One(one) => {
                let found = one.as_ref().filter(|(its, _)| its == key);
                found.map(|(_, value)| value)
            }
            Body::More(all) => all.get(key),
        }
    }

    /// The value of `key`, to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        match &mut self.0 {
            Body::One(one) => {
                let found = one.as_mut().filter(|(its, _)| its == key);
                found.map(|(_, value)| value)
            }
            Body::More(all) => all.get_mut(key),
        }
    }

    /// Gives `key` this value; what it had before goes.
    pub fn insert(&mut self, key: K, value: V) {
        match &mut self.0 {
            Body::One(one) => match one.take() {
                Some(other) if other.0 != key => {
                    self.0 = Body::More(BTreeMap::from([other, (key, value)]));
                }
                _ => *one = Some((key, value)),
            },
            Body::More(all) => _ = all.insert(key, value),
        }
    }

    /// Takes `key` out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        match &mut self.0 {
            Body::One(one) => one.take_if(|(its, _)| its == key).map(|(_, value)| value),
            Body::More(all) => {
                let removed = all.remove(key);
                if all.len() == 1 {
                    self.0 = Body::One(all.pop_first());
                }
                removed
            }
        }
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        match &self.0 {
            Body::One(one) => usize::from(one.is_some()),
            Body::More(all) => all.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entries whose keys lie in `range`, in their order.
    pub fn range<R: RangeBounds<K>>(&self, range: R) -> impl Iterator<Item = (&K, &V)> {
        let (one, more) = match &self.0 {
            Body::One(one) => {
                let one = one.as_ref().filter(|(key, _)| range.contains(key));
                (one, None)
            }
            Body::More(all) => (None, Some(all.range(range))),
        };
        let one = one.map(|(key, value)| (key, value));
        one.into_iter().chain(more.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn it_is_as_any_other_map() {
        let mut rng = Rng::new(1);
        let (mut few, mut map) = (Few::default(), BTreeMap::new());
        for round in 0..4000_u32 {
            let (key, from) = (rng.below(4), rng.below(4));
            match rng.below(2) {
                0 => {
                    few.insert(key, round);
                    map.insert(key, round);
                }
                _ => assert_eq!(few.remove(&key), map.remove(&key)),
            }
            assert_eq!(few.get(&from), map.get(&from));
            assert_eq!(few.get_mut(&from), map.get_mut(&from));
            assert!(few.range(from..).eq(map.range(from..)));
            assert_eq!((few.len(), few.is_empty()), (map.len(), map.is_empty()));
            let is_small = matches!(few.0, Body::One(_));
            assert_eq!(is_small, map.len() < 2, "it takes room only when it has to");
        }
    }
}

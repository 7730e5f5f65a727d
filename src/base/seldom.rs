//! A value that takes no room while it is as at the beginning.

use std::ops::{Deref, DerefMut};

/// A value that is put apart, and only while there is something in it: a thousand torrents have
/// what most of them never need.
#[derive(Clone, Debug)]
pub struct Seldom<T>(Option<Box<T>>);

/// What a [`Seldom`] can hold.
pub trait Blank: Default + 'static {
    /// The same as the default, for those who only look.
    const BLANK: &'static Self;

    /// Whether it is as at the beginning.
    fn is_blank(&self) -> bool;
}

impl<T> Default for Seldom<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Blank> Seldom<T> {
    /// Holds `value`, which takes no room if nothing is in it.
    pub fn holding(value: T) -> Self {
        Self((!value.is_blank()).then(|| Box::new(value)))
    }

    /// The value, if there may be something in it.
    pub fn at_hand(&mut self) -> Option<&mut T> {
        self.0.as_deref_mut()
    }

    /// Gives up the room if nothing is in it.
    pub fn tidy(&mut self) {
        self.0.take_if(|value| value.is_blank());
    }
}

impl<T: Blank> Deref for Seldom<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_deref().unwrap_or(T::BLANK)
    }
}

impl<T: Blank> DerefMut for Seldom<T> {
    /// Makes room: whoever only looks does so by a shared reference.
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Blank for Vec<u8> {
        const BLANK: &'static Self = &Self::new();

        fn is_blank(&self) -> bool {
            self.is_empty()
        }
    }

    #[test]
    fn room_is_there_while_something_is_in_it() {
        let has_room = |names: &Seldom<Vec<u8>>| names.0.is_some();
        let mut names = Seldom::<Vec<u8>>::default();
        assert!(names.is_blank() && !has_room(&names), "a look takes none");
        names.push(3);
        assert!(names.iter().eq([&3]) && has_room(&names));
        names.tidy();
        assert!(names.iter().eq([&3]), "what is in it stays");
        names.clear();
        assert!(has_room(&names));
        names.tidy();
        assert!(names.is_empty() && !has_room(&names));
        assert!(!has_room(&Seldom::holding(Vec::new())));
        let held = Seldom::holding(vec![3]);
        assert!(has_room(&held) && held.iter().eq([&3]));
    }
}

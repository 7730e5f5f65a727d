//! Which files of its torrents a user wants, from the command line.

use clap::Args;
use clap::builder::BoolishValueParser;

use super::output::printable;
use crate::base::choice::{Choice, PieceOrder};
use crate::meta::choice::{self, ChoiceError, Pattern};
use crate::meta::metainfo::Metainfo;

/// Options that choose files of the torrents of a command.
#[derive(Args, Clone, Debug, Default)]
pub struct ChoosingArgs {
    /// Download only files that match, such as '*.iso' or 'docs/**'; repeatable. A glob without a
    /// slash is about the name of a file or folder, one with a slash about the path, with or
    /// without the torrent's own folder. It is remembered; '*' wants everything again
    #[arg(long, value_name = "GLOB", value_parser = Pattern::glob)]
    pub only: Vec<Pattern>,
    /// Ask for pieces in the order of the torrent, not for the rarest first; it is remembered
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "yes",
          value_name = "yes|no", value_parser = BoolishValueParser::new())]
    pub sequential: Option<bool>,
}

impl ChoosingArgs {
    /// What is wanted of a torrent; what is not said stays as it was `before`.
    ///
    /// # Errors
    /// A glob matches none of its files.
    pub fn choice(&self, meta: &Metainfo, before: &Choice) -> Result<Choice, ChoiceError> {
        let order = match self.sequential {
            Some(true) => PieceOrder::Sequential,
            Some(false) => PieceOrder::RarestFirst,
            None => before.order,
        };
        match self.only.is_empty() {
            true => Ok(before.clone().in_order(order)),
            false => choice::only(meta, &self.only, order),
        }
    }

    /// The same, or what was chosen `before` if that does not fit the torrent.
    pub fn choice_or(&self, meta: &Metainfo, before: Choice) -> Choice {
        self.choice(meta, &before).unwrap_or_else(|error| {
            let name = meta.info_hash;
            let error = printable(&error.to_string());
            log::warn!("files are wanted as before info_hash={name}: {error}");
            before
        })
    }

    /// The globs as they were written.
    pub fn globs(&self) -> Vec<String> {
        let globs = self.only.iter().map(|glob| glob.text().to_owned());
        globs.collect()
    }
}

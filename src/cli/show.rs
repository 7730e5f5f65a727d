//! `evpeer show`: what a .torrent or a magnet link says.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use super::args::ShowArgs;
use super::error::CliError;
use super::output::{print, print_error, printable};
use super::source;
use super::units::show_len;
use crate::control::api;
use crate::meta::magnet::Magnet;
use crate::meta::metainfo::{FileKind, Metainfo};

/// Prints every input; one that cannot be used does not hide the others.
///
/// # Errors
/// Standard output takes no more.
pub fn show(args: &ShowArgs) -> Result<ExitCode, CliError> {
    let mut code = ExitCode::SUCCESS;
    for (index, input) in args.inputs.iter().enumerate() {
        match describe(input, args.json) {
            Ok(text) if index == 0 || args.json => print(&text)?,
            Ok(text) => print(&format!("\n{text}"))?,
            Err(error) => {
                print_error(&format!("error: {error}"));
                code = ExitCode::from(error.exit_code());
            }
        }
    }
    Ok(code)
}

fn describe(input: &Path, json: bool) -> Result<String, CliError> {
    let text = input.to_string_lossy();
    if text
        .get(..7)
        .is_some_and(|head| head.eq_ignore_ascii_case("magnet:"))
    {
        let magnet = Magnet::parse(&text).map_err(|source| CliError::NotAMagnet {
            input: text.clone().into_owned(),
            source,
        })?;
        return Ok(if json {
            format!("{}\n", api::magnet(&magnet))
        } else {
            magnet_text(&magnet)
        });
    }
    let meta = source::read(input)?;
    Ok(if json {
        format!("{}\n", api::metainfo(&meta))
    } else {
        metainfo_text(&meta)
    })
}

fn metainfo_text(meta: &Metainfo) -> String {
    let geometry = meta.geometry();
    let piece_len = u64::from(geometry.nominal_piece_len());
    let length = geometry.length();
    let data = meta.files.iter().filter(|f| f.kind == FileKind::Data);
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        writeln!(text, "{key:12} {value}").expect("a String takes everything");
    };
    line("name", &meta.name);
    line("info hash", &meta.info_hash.to_string());
    line("length", &format!("{} ({length} bytes)", show_len(length)));
    let pieces = format!("{} of {}", geometry.piece_count(), show_len(piece_len));
    line("pieces", &pieces);
    if meta.private {
        line(
            "private",
            "yes: only its trackers may tell peers of each other",
        );
    }
    for (tier, urls) in (1..).zip(&meta.trackers) {
        line(&format!("trackers {tier}"), &urls.join(" "));
    }
    let remarks = meta.remarks().cloned().unwrap_or_default();
    for (key, value) in [
        ("comment", remarks.comment),
        ("created by", remarks.created_by),
    ] {
        if let Some(value) = value {
            line(key, &value);
        }
    }
    if let Some(date) = remarks.creation_date {
        line("created at", &show_date(date));
    }
    line("magnet", &Magnet::of(meta).to_string());
    line("files", &data.clone().count().to_string());
    for file in data {
        let mark = if file.executable {
            "  (executable)"
        } else {
            ""
        };
        line(
            "",
            &format!("{:>9}  {}{mark}", show_len(file.len), file.path),
        );
    }
    text
}

fn magnet_text(magnet: &Magnet) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: &str| {
        writeln!(text, "{key:12} {value}").expect("a String takes everything");
    };
    if let Some(name) = &magnet.name {
        line("name", &printable(name));
    }
    line("info hash", &magnet.info_hash.to_string());
    for url in &magnet.trackers {
        line("tracker", &printable(url));
    }
    for peer in &magnet.peers {
        line("peer", &printable(&peer.to_string()));
    }
    text
}

/// Seconds since 1970 as date and time, UTC.
fn show_date(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days since 0000-03-01: then the leap day ends a year, and 400 years are 146,097 days.
    let days = i128::from(days) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{:02} UTC",
        second % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let cases = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
            (-1, "1969-12-31 23:59:59 UTC"),
        ];
        for (seconds, shown) in cases {
            assert_eq!(show_date(seconds), shown, "{seconds}");
        }
        assert!(show_date(i64::MAX).ends_with(" UTC") && show_date(i64::MIN).ends_with(" UTC"));
    }
}

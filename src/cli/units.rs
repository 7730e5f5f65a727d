//! Sizes, rates and times as people write and read them.

use std::time::Duration;

use crate::base::limits::{RATE_LIMIT_MAX, RATE_LIMIT_MIN};
use crate::config::Goal;

/// Reads a number of bytes: `16384`, `16KiB`, `4MiB`, `500k`. `k`, `M`, `G` are powers of 1000,
/// `Ki`, `Mi`, `Gi` of 1024; a `B` at the end changes nothing.
///
/// # Errors
/// A text for the user that shows how a size is written.
pub fn parse_len(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no size; write bytes, or such as 16KiB, 4MiB, 500k");
    let text_end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(text_end);
    let unit = unit.trim_start();
    let unit = unit.strip_suffix(['B', 'b']).unwrap_or(unit);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "ki" => 1 << 10,
        "mi" => 1 << 20,
        "gi" => 1 << 30,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).ok_or_else(wrong)
}

/// Reads a limit in bytes per second as [`parse_len`] reads sizes: `10MiB`, `500k`; a `/s` at the
/// end changes nothing. 0 is no limit.
///
/// # Errors
/// A text for the user that shows how a limit is written, or says why this one is none.
pub fn parse_limit(text: &str) -> Result<u64, String> {
    let wrong = |_| format!("'{text}' is no rate; write bytes a second, or such as 500k, 10MiB");
    let rate = parse_len(text.strip_suffix("/s").unwrap_or(text)).map_err(wrong)?;
    match rate {
        1..RATE_LIMIT_MIN => Err(format!(
            "'{text}' is too low to get on: at least 1KiB a second, or 0 for no limit"
        )),
        0..=RATE_LIMIT_MAX => Ok(rate),
        _ => Err(format!(
            "'{text}' is more than any line carries: 1024GiB a second at most, or 0 for no limit"
        )),
    }
}

/// Reads a ratio of seeding in thousandths: `2`, `1.5`, `0.125`; or `never`.
///
/// # Errors
/// A text for the user that shows how a ratio is written.
pub fn parse_ratio(text: &str) -> Result<Goal, String> {
    if text == NEVER {
        return Ok(Goal::Never);
    }
    let wrong = || {
        format!(
            "'{text}' is no ratio; write such as 2, 1.5 or 0.125, 100000 at most, or never for \
             no end"
        )
    };
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| {
        (1..=6).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
    };
    if !is_number(whole) || !is_number(part) || part.len() > 3 {
        return Err(wrong());
    }
    let number = |digits: &str| digits.parse::<u64>().map_err(|_| wrong());
    let scale = 10u64.pow(3 - part.len() as u32);
    let milli = number(whole)? * 1000 + number(part)? * scale;
    match milli {
        1..=100_000_000 => Ok(Goal::At(milli)),
        _ => Err(wrong()),
    }
}

/// Reads a time of seeding, as [`parse_time`] reads times; or `never`.
///
/// # Errors
/// A text for the user that shows how a time is written.
pub fn parse_seed_time(text: &str) -> Result<Goal, String> {
    if text == NEVER {
        return Ok(Goal::Never);
    }
    let time = parse_time(text).map_err(|wrong| format!("{wrong}, or never for no end"))?;
    Ok(Goal::At(time.as_secs()))
}

/// What stands for no goal.
const NEVER: &str = "never";

/// Reads the rate of a line in bytes per second: `10Gbit`, `100Mbit`, or bytes as
/// [`parse_len`] reads them, `125MB`; a `/s` at the end changes nothing.
///
/// # Errors
/// A text for the user that shows how a rate is written.
pub fn parse_line_rate(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is no rate; write such as 10Gbit, 100Mbit or 125MB");
    let bare = text.strip_suffix("/s").unwrap_or(text);
    let rate = match bare.strip_suffix("bit") {
        Some(bits) => parse_len(bits).map_err(|_| wrong())? / 8,
        None => parse_len(bare).map_err(|_| wrong())?,
    };
    if (1000..=1_000_000_000_000).contains(&rate) {
        Ok(rate)
    } else {
        Err(format!("'{text}' is out of bounds: 8kbit to 8000Gbit"))
    }
}

/// What a line carries each way, bytes per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineRates {
    /// Out of the host.
    pub up: u64,
    /// Into it.
    pub down: u64,
}

impl LineRates {
    /// The rate, or both with a slash between them, up first, if they are not the same.
    pub fn show(self) -> String {
        match self.up == self.down {
            true => show_rate(self.up),
            false => format!("{}/{}", show_rate(self.up), show_rate(self.down)),
        }
    }
}

/// Reads what a line carries: a rate for both ways as [`parse_line_rate`] reads it, or up and down
/// with a slash between them, `100Mbit/1Gbit`.
///
/// # Errors
/// A text for the user that shows how a rate is written.
pub fn parse_line(text: &str) -> Result<LineRates, String> {
    let both = |rate| LineRates {
        up: rate,
        down: rate,
    };
    let slashes = text.match_indices('/').map(|(at, _)| at);
    // One may be that of a `/s`.
    let mut splits = slashes.filter_map(|at| {
        let up = parse_line_rate(&text[..at]).ok()?;
        let down = parse_line_rate(&text[at + 1..]).ok()?;
        Some(LineRates { up, down })
    });
    match (parse_line_rate(text), splits.next()) {
        (Ok(rate), _) => Ok(both(rate)),
        (Err(_), Some(rates)) => Ok(rates),
        (Err(error), None) => Err(error),
    }
}

/// Reads a time: `90`, `90s`, `5m`, `12h`.
///
/// # Errors
/// A text for the user that shows how a time is written.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor = match unit.trim() {
        "" | "s" => Some(1),
        "m" | "min" => Some(60),
        "h" => Some(3600),
        "d" => Some(86_400),
        _ => None,
    };
    let number: Option<u64> = digits.parse().ok();
    let seconds = number.zip(factor).and_then(|(n, f)| n.checked_mul(f));
    let seconds = seconds.filter(|&seconds| seconds <= 86_400 * 3650);
    let wrong = || format!("'{text}' is no time; write such as 90s, 5m or 12h");
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

/// `bytes` with three significant digits: `17 B`, `1.50 KiB`, `256 MiB`.
pub fn show_len(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A number of bytes per second.
pub fn show_rate(bytes_per_sec: u64) -> String {
    format!("{}/s", show_len(bytes_per_sec))
}

/// A limit of rate.
pub fn show_limit(bytes_per_sec: Option<u64>) -> String {
    bytes_per_sec.map_or("no limit".to_owned(), show_rate)
}

/// `1 file`, `2 files`.
pub fn show_count(count: usize, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// A time to wait, in its two largest units: `42 s`, `3 min 20 s`, `5 h 2 min`, `3 d 4 h`.
pub fn show_time(time: Duration) -> String {
    let seconds = time.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86_400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A share of `whole` in percent with one decimal, rounded down: 100.0 only when nothing is
/// missing.
pub fn show_percent(part: u64, whole: u64) -> String {
    if part >= whole {
        return "100.0 %".into();
    }
    let tenths = u128::from(part) * 1000 / u128::from(whole);
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_unit() {
        let cases = [
            ("0", Some(0)),
            ("16384", Some(16384)),
            ("16KiB", Some(16384)),
            ("16 KiB", Some(16384)),
            ("16kib", Some(16384)),
            ("4Mi", Some(4 << 20)),
            ("500k", Some(500_000)),
            ("500KB", Some(500_000)),
            ("1g", Some(1_000_000_000)),
            ("", None),
            ("KiB", None),
            ("-1", None),
            ("1.5MiB", None),
            ("1KiBB", None),
            ("99999999999999999999", None),
            ("18446744073709551615k", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_len(text).ok(), bytes, "{text}");
        }
    }

    #[test]
    fn rates_are_read_in_bits_and_bytes() {
        let cases = [
            ("10Gbit", Some(1_250_000_000)),
            ("100 Mbit/s", Some(12_500_000)),
            ("125MB", Some(125_000_000)),
            ("1GiB/s", Some(1 << 30)),
            ("1", None),
            ("fast", None),
            ("9999999Gbit", None),
        ];
        for (text, rate) in cases {
            assert_eq!(parse_line_rate(text).ok(), rate, "{text}");
        }
    }

    #[test]
    fn lines_have_one_rate_or_one_each_way() {
        let rows = [
            ("1Gbit", Some((125_000_000, 125_000_000))),
            ("1GiB/s", Some((1 << 30, 1 << 30))),
            ("100Mbit/1Gbit", Some((12_500_000, 125_000_000))),
            ("1Gbit/fast", None),
            ("1Gbit/s/100Mbit", Some((125_000_000, 12_500_000))),
            ("100Mbit/s/1Gbit/s", Some((12_500_000, 125_000_000))),
            ("/1Gbit", None),
            ("1Gbit/", None),
            ("1Gbit/1Gbit/1Gbit", None),
        ];
        for (text, expected) in rows {
            let found = parse_line(text).ok().map(|line| (line.up, line.down));
            assert_eq!(found, expected, "{text}");
        }
        let narrow = parse_line("100Mbit/1Gbit").unwrap();
        assert_eq!(
            narrow.show(),
            format!("{}/{}", show_rate(12_500_000), show_rate(125_000_000))
        );
    }

    #[test]
    fn limits_are_rates_that_can_be_kept_or_none() {
        let rows = [
            // text        rate            what is said of it
            ("0", Ok(0)),
            ("1KiB", Ok(1024)),
            ("10MiB/s", Ok(10 << 20)),
            ("500k", Ok(500_000)),
            ("1024GiB", Ok(1 << 40)),
            ("1", Err("too low")),
            ("1023", Err("too low")),
            ("1025GiB", Err("more than any line carries")),
            ("18446744073709551615", Err("more than any line carries")),
            ("99999999999999999999", Err("no rate")),
            ("-5", Err("no rate")),
            ("fast", Err("no rate")),
            ("10Mbit", Err("no rate")),
            ("", Err("no rate")),
        ];
        for (text, expected) in rows {
            match (parse_limit(text), expected) {
                (Ok(rate), Ok(expected)) => assert_eq!(rate, expected, "{text}"),
                (Err(said), Err(part)) => assert!(said.contains(part), "{text}: {said}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn goals_of_seeding_are_read() {
        let rows = [
            ("2", Some(Goal::At(2000))),
            ("1.5", Some(Goal::At(1500))),
            ("0.125", Some(Goal::At(125))),
            ("0.001", Some(Goal::At(1))),
            ("100000", Some(Goal::At(100_000_000))),
            ("never", Some(Goal::Never)),
            ("0", None),
            ("0.0", None),
            ("0.0001", None),
            ("100001", None),
            ("1.", None),
            (".5", None),
            ("-1", None),
            ("1e3", None),
            ("1,5", None),
            ("", None),
        ];
        for (text, goal) in rows {
            assert_eq!(parse_ratio(text).ok(), goal, "{text}");
        }
        assert_eq!(parse_seed_time("5m"), Ok(Goal::At(300)));
        assert_eq!(parse_seed_time("0"), Ok(Goal::At(0)));
        assert_eq!(parse_seed_time("never"), Ok(Goal::Never));
        assert!(parse_seed_time("soon").is_err_and(|wrong| wrong.contains("never")));
    }

    #[test]
    fn times_are_read_in_their_units() {
        let cases = [
            ("90", Some(90)),
            ("90s", Some(90)),
            ("5m", Some(300)),
            ("12h", Some(43_200)),
            ("", None),
            ("m", None),
            ("-1s", None),
            ("1w", None),
            ("99999999999999999d", None),
        ];
        for (text, seconds) in cases {
            let time = parse_time(text).ok();
            assert_eq!(time, seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10_240, "10.0 KiB"),
            (1_048_575, "1.00 MiB"),
            (256 << 20, "256 MiB"),
            (4 << 30, "4.00 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, shown) in cases {
            assert_eq!(show_len(bytes), shown, "{bytes}");
        }
    }

    #[test]
    fn times_have_two_units() {
        let cases = [
            (0, "0 s"),
            (59, "59 s"),
            (200, "3 min 20 s"),
            (18_120, "5 h 2 min"),
            (273_600, "3 d 4 h"),
        ];
        for (seconds, shown) in cases {
            assert_eq!(show_time(Duration::from_secs(seconds)), shown);
        }
    }

    #[test]
    fn only_the_whole_is_a_hundred_percent() {
        assert_eq!(show_percent(0, 3), "0.0 %");
        assert_eq!(show_percent(2, 3), "66.6 %");
        assert_eq!(show_percent(u64::MAX - 1, u64::MAX), "99.9 %");
        assert_eq!(show_percent(3, 3), "100.0 %");
        assert_eq!(show_percent(0, 0), "100.0 %");
    }
}

//! What a running peer says, for people: aligned, short, in colour on a terminal only.

use std::env;
use std::io::{self, IsTerminal};
use std::time::Duration;

use serde_json::Value;

use crate::cli::output::printable;
use crate::cli::units::{show_count, show_len, show_limit, show_percent, show_rate, show_time};

/// The peer, and a line for each torrent.
pub fn status(answer: &Value) -> String {
    let torrents = list(&answer["torrents"]);
    let mut text = format!(
        "evpeer {} on port {} for {}, {}, state in {}\n",
        word(&answer["version"]),
        number(&answer["port"]),
        show_time(Duration::from_secs(number(&answer["uptime_s"]))),
        show_count(torrents.len(), "torrent"),
        word(&answer["state_dir"]),
    );
    if has_limit(answer) {
        text += &limits(answer);
    }
    let mut table = Table::new(&["torrent", "state", "done", "down", "up", "peers", "left"]);
    for torrent in torrents {
        let (done, all) = progress(torrent);
        let left = torrent["eta_s"].as_u64().map(Duration::from_secs);
        table.row(vec![
            word(&torrent["torrent"]),
            coloured(&word(&torrent["state"])),
            show_percent(done, all),
            show_rate(number(&torrent["down_bytes_s"])),
            show_rate(number(&torrent["up_bytes_s"])),
            format!(
                "{} ({})",
                number(&torrent["peers"]),
                number(&torrent["seeds"])
            ),
            left.map(show_time).unwrap_or_default(),
        ]);
        if has_limit(torrent) {
            table.note(format!("limits: {}", both_limits(torrent)));
        }
        if let Some(reason) = torrent["reason"].as_str() {
            let retry = torrent["retry_s"].as_u64().map(Duration::from_secs);
            let retry = retry.map(|time| format!("; tried again in {}", show_time(time)));
            table.note(printable(reason) + &retry.unwrap_or_default());
        }
        if let Some(reason) = torrent["storage_reason"].as_str() {
            let storage = word(&torrent["storage"]);
            table.note(format!("written by {storage}: {}", printable(reason)));
        }
    }
    text += &table.text();
    text += &turns(&answer["loop"]);
    text
}

/// How many bytes are done, and of how many: of those that are wanted.
fn progress(torrent: &Value) -> (u64, u64) {
    let length = number(&torrent["length"]);
    match torrent["state"].as_str() {
        Some("checking") => (number(&torrent["checked_bytes"]), length),
        _ => {
            let wanted = number(&torrent["wanted_bytes"]);
            (
                wanted.saturating_sub(number(&torrent["left_bytes"])),
                wanted,
            )
        }
    }
}

/// How long the loop was busy at a time: everything waits for everything else on its one thread.
fn turns(status: &Value) -> String {
    let Some(kind) = status["longest_in"].as_str() else {
        return String::new();
    };
    let millis = |key: &str| number(&status[key]) as f64 / 1000.0;
    format!(
        "loop: {} turns, 99.9 % of them within {:.1} ms, longest {:.1} ms ({}), {} over 50 ms, {} \
         of these as the disk was waited for\n",
        number(&status["turns"]),
        millis("p999_us"),
        millis("longest_us"),
        printable(kind),
        number(&status["over_50_ms"]),
        number(&status["over_50_ms_asleep"]),
    )
}

/// The limits of rate of all torrents together.
pub fn limits(answer: &Value) -> String {
    let but = match answer["limit_local"] == false {
        true => ", but for peers on the local network",
        false => "",
    };
    format!("limits: {}{but}\n", both_limits(answer))
}

/// The limits of rate of one torrent.
pub fn torrent_limits(answer: &Value) -> String {
    let name = word(&answer["torrent"]);
    format!("{name}: limits: {}\n", both_limits(answer))
}

fn has_limit(answer: &Value) -> bool {
    answer["up_limit_bytes_s"].is_u64() || answer["down_limit_bytes_s"].is_u64()
}

fn both_limits(answer: &Value) -> String {
    let limit = |key: &str| show_limit(answer[key].as_u64());
    let (up, down) = (limit("up_limit_bytes_s"), limit("down_limit_bytes_s"));
    format!("up {up}, down {down}")
}

/// The connected peers of a torrent.
pub fn peers(answer: &Value) -> String {
    let peers = list(&answer["peers"]);
    let mut table = Table::new(&[
        "address", "client", "learned", "seed", "heard", "down", "up", "flags",
    ]);
    for peer in peers {
        let client = peer["client"].as_str().map(printable);
        table.row(vec![
            word(&peer["address"]),
            client.unwrap_or_else(|| word(&peer["peer_id"])),
            peer["source"].as_str().unwrap_or("-").to_owned(),
            if peer["seed"] == true { "yes" } else { "no" }.to_owned(),
            show_time(Duration::from_secs_f64(
                peer["last_heard_s"].as_f64().unwrap_or(0.0),
            )),
            show_rate(number(&peer["down_bytes_s"])),
            show_rate(number(&peer["up_bytes_s"])),
            flags(peer),
        ]);
    }
    headed(answer, &show_count(peers.len(), "peer"), &table)
}

/// What each side wants and does: `d` we want, `u` it wants, upper case if it is served; `i` it
/// called us.
fn flags(peer: &Value) -> String {
    let mut flags = String::new();
    let mut flag = |wants: &Value, choked: &Value, letter: char| {
        if *wants == true {
            flags.push(match *choked == true {
                true => letter,
                false => letter.to_ascii_uppercase(),
            });
        }
    };
    flag(&peer["wanted"], &peer["chokes_us"], 'd');
    flag(&peer["wants_us"], &peer["choked"], 'u');
    flag(&peer["incoming"], &Value::Bool(true), 'i');
    flags
}

/// The evpeers of the whole network.
pub fn network(answer: &Value) -> String {
    let hosts = list(&answer["network"]);
    let mut table = Table::new(&["address", "learned", "here", "heard"]);
    for host in hosts {
        let heard = host["last_heard_s"].as_f64().map(Duration::from_secs_f64);
        table.row(vec![
            word(&host["address"]),
            host["source"].as_str().unwrap_or("-").to_owned(),
            if host["here"] == true { "yes" } else { "no" }.to_owned(),
            heard.map_or("not connected".to_owned(), show_time),
        ]);
    }
    let here = hosts.iter().filter(|host| host["here"] == true).count();
    let count = show_count(hosts.len(), "evpeer");
    format!("{count}, {here} of them here\n{}", table.text())
}

/// The files of a torrent.
pub fn files(answer: &Value) -> String {
    let files = list(&answer["files"]);
    let mut table = Table::new(&["#", "want", "done", "length", "file"]);
    for file in files {
        table.row(vec![
            number(&file["number"]).to_string(),
            word(&file["priority"]),
            show_percent(number(&file["done_bytes"]), number(&file["length"])),
            show_len(number(&file["length"])),
            word(&file["path"]),
        ]);
    }
    let order = match answer["sequential"] == true {
        true => ", pieces in order",
        false => "",
    };
    headed(answer, &(show_count(files.len(), "file") + order), &table)
}

/// The trackers of a torrent.
pub fn trackers(answer: &Value) -> String {
    let trackers = list(&answer["trackers"]);
    let mut table = Table::new(&["tier", "tracker", "answer"]);
    for tracker in trackers {
        let message = tracker["message"].as_str().map(printable);
        let told = match tracker["status"].as_str() {
            None => "none yet".to_owned(),
            Some("answered") => {
                let peers = show_count(number(&tracker["peers"]) as usize, "peer");
                message.map_or(peers.clone(), |warning| format!("{peers}; {warning}"))
            }
            Some(_) => message.unwrap_or_default(),
        };
        table.row(vec![
            (number(&tracker["tier"]) + 1).to_string(),
            word(&tracker["url"]),
            told,
        ]);
    }
    headed(answer, &show_count(trackers.len(), "tracker"), &table)
}

/// Why a torrent does not get on.
pub fn why(answer: &Value) -> String {
    let mut text = state(answer);
    for reason in list(&answer["reasons"]) {
        text += &format!("  {}\n", word(reason));
    }
    text
}

/// A torrent and its state.
pub fn state(answer: &Value) -> String {
    format!(
        "{}: {}\n",
        word(&answer["torrent"]),
        coloured(&word(&answer["state"]))
    )
}

fn headed(answer: &Value, count: &str, table: &Table) -> String {
    let name = word(&answer["torrent"]);
    let state = coloured(&word(&answer["state"]));
    let table = table.text();
    let indented = table.lines().map(|line| format!("  {line}\n"));
    format!("{name}: {state}, {count}\n{}", indented.collect::<String>())
}

/// Columns as wide as what is in them.
struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(heads: &[&str]) -> Self {
        Self {
            rows: vec![heads.iter().map(|&head| head.to_owned()).collect()],
        }
    }

    fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// A line below the last row, across all columns.
    fn note(&mut self, text: String) {
        self.rows.push(vec![format!("  {text}")]);
    }

    /// Nothing without rows.
    fn text(&self) -> String {
        if self.rows.len() == 1 {
            return String::new();
        }
        let count = self.rows[0].len();
        let whole = || self.rows.iter().filter(|row| row.len() == count);
        let widths: Vec<usize> = (0..count)
            .map(|column| whole().map(|row| width(&row[column])).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                line += cell;
                if column + 1 < row.len() {
                    let pad = widths[column].saturating_sub(width(cell)) + 2;
                    line.extend(std::iter::repeat_n(' ', pad));
                }
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// Columns of a terminal that `text` takes, its colours aside.
fn width(text: &str) -> usize {
    let mut is_code = false;
    let shown = text.chars().filter(|&c| {
        is_code |= c == ESCAPE;
        let is_shown = !is_code;
        is_code &= c != 'm';
        is_shown
    });
    shown.count()
}

/// A state in its colour, if whoever reads it has colours.
fn coloured(state: &str) -> String {
    let has_colours = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
    let code = match state {
        "seeding" => 32,
        "downloading" => 36,
        "checking" | "paused" => 33,
        "error" => 31,
        _ => 0,
    };
    match has_colours && code != 0 {
        true => format!("{ESCAPE}[{code}m{state}{ESCAPE}[0m"),
        false => state.to_owned(),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn word(value: &Value) -> String {
    printable(value.as_str().unwrap_or_default())
}

const ESCAPE: char = '\u{1b}';

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&["a", "b", "c"]);
        table.row(vec!["ünï".into(), "x".into(), String::new()]);
        table.note("a note that is wide".into());
        table.row(vec![
            "y".into(),
            "\u{1b}[31mred\u{1b}[0m".into(),
            "z".into(),
        ]);
        let text = table.text();
        let expected =
            "a    b    c\nünï  x\n  a note that is wide\ny    \u{1b}[31mred\u{1b}[0m  z\n";
        assert_eq!(text, expected);
        assert_eq!(Table::new(&["a"]).text(), "");
    }

    #[test]
    fn answers_become_lines() {
        let torrent = json!({
            "torrent": "da\u{1b}ta", "state": "error", "reason": "disk full", "length": 1000,
            "done_bytes": 250, "wanted_bytes": 1000, "left_bytes": 750,
            "checked_bytes": 0, "down_bytes_s": 0, "up_bytes_s": 2048,
            "peers": 3, "seeds": 1, "eta_s": null,
            "storage": "pwrite", "storage_reason": "it stalled",
        });
        let answer = json!({
            "version": "0.1.0", "port": 6881, "uptime_s": 61, "state_dir": "/d/.evpeer",
            "torrents": [torrent],
            "loop": { "turns": 12, "p999_us": 1500, "longest_us": 60_000, "over_50_ms": 1,
                      "longest_in": "sockets" },
        });
        let text = status(&answer);
        let turns = "12 turns, 99.9 % of them within 1.5 ms, longest 60.0 ms (sockets), 1 over";
        assert!(text.contains(turns), "{text}");
        assert!(text.starts_with("evpeer 0.1.0 on port 6881 for 1 min 1 s, 1 torrent, state in"));
        assert!(text.contains("25.0 %") && text.contains("3 (1)") && text.contains("disk full"));
        assert!(text.contains("written by pwrite: it stalled\n"), "{text}");
        assert!(
            !text.contains('\u{1b}'),
            "names do not steer the terminal, nor pipes: {text}"
        );

        let peer = json!({
            "address": "10.0.0.1:6881", "client": null, "peer_id": "-XX", "source": null,
            "seed": true, "last_heard_s": 1.5, "down_bytes_s": 0, "up_bytes_s": 0, "wanted": true,
            "chokes_us": false, "wants_us": true, "choked": true, "incoming": true,
        });
        let answer = json!({ "torrent": "data", "state": "seeding", "peers": [peer] });
        let text = peers(&answer);
        assert!(
            text.contains("-XX") && text.contains("Dui") && text.contains("1 peer"),
            "{text}"
        );

        let answer = json!({ "torrent": "d", "state": "paused", "reasons": ["a", "b"] });
        assert_eq!(why(&answer), "d: paused\n  a\n  b\n");
        let hosts = json!([
            {
                "address": "10.0.0.1:1", "source": "lsd", "here": true, "connected": true,
                "last_heard_s": 2.0,
            },
            {
                "address": "10.0.0.2:1", "source": null, "here": false, "connected": false,
                "last_heard_s": null,
            },
        ]);
        let text = network(&json!({ "network": hosts }));
        assert!(text.starts_with("2 evpeers, 1 of them here\n"), "{text}");
        assert!(text.contains("10.0.0.1:1  lsd      yes   2 s"), "{text}");
        assert!(
            text.contains("10.0.0.2:1  -        no    not connected"),
            "{text}"
        );
        let none = network(&json!({ "network": [] }));
        assert_eq!(none, "0 evpeers, 0 of them here\n");
    }
}

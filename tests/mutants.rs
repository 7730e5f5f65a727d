//! Whether the judges of the simulator see faults: each row plants one in a copy of the sources,
//! and `evpeer soak` has to find it, by the judge that is there for it.
//!
//! Every row compiles the crate anew, so this runs with `NIGHTLY=1` only.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A fault: in which file, what is there, what is put in its place; the judges that may see it.
struct Mutant {
    name: &'static str,
    file: &'static str,
    is: &'static str,
    becomes: &'static str,
    judges: &'static [&'static str],
}

const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "each new piece is announced twice",
        file: "src/swarm/news.rs",
        is: "        self.news.log.push(piece);\n",
        becomes: "        self.news.log.push(piece);\n        self.news.log.push(piece);\n",
        judges: &["have"],
    },
    Mutant {
        name: "a choke without BEP 6 leaves requests open",
        file: "src/swarm/download.rs",
        is: "            self.release_requests(key, now);\n        }\n        self.abandon_alone",
        becomes: "        }\n        self.abandon_alone",
        judges: &["lost request"],
    },
    Mutant {
        name: "a block has two writers",
        file: "src/swarm/download.rs",
        is: "                self.aside_count += 1;\n                \
             Reception::Aside(Vec::with_capacity(block.len as usize))\n",
        becomes: "                Reception::Write\n",
        judges: &["writer", "audit"],
    },
    Mutant {
        name: "a new holder is counted twice",
        file: "src/swarm/pieces.rs",
        is: "        self.picker.peer_gained(piece);\n",
        becomes: "        (0..2).for_each(|_| self.picker.peer_gained(piece));\n",
        judges: &["audit"],
    },
    Mutant {
        name: "a piece of wrong hash is claimed",
        file: "src/swarm/pieces.rs",
        is: "            Verdict::Bad { blocks } => self.piece_failed(piece, blocks),",
        becomes: "            Verdict::Bad { blocks } => self.piece_passed(piece, &blocks, now),",
        judges: &["claim"],
    },
    Mutant {
        name: "choked peers are served",
        file: "src/swarm/upload.rs",
        is: "(self.peer(key).choked && !self.take_grant(key, block.piece))",
        becomes: "(self.peer(key).choked && self.peers.len() > 60)",
        judges: &["choke"],
    },
    Mutant {
        name: "one peer too many is served",
        file: "src/swarm/choker.rs",
        is: "saturating_sub(chosen.len());\n        chosen.extend(waiting.iter()",
        becomes: "saturating_sub(chosen.len()) + 1;\n        chosen.extend(waiting.iter()",
        judges: &["slots"],
    },
    Mutant {
        name: "the first sender of a bad piece is to blame",
        file: "src/swarm/blame.rs",
        is: "first.is_some() && senders.iter().all(|s| *s == first)",
        becomes: "first.is_some()",
        judges: &["ban"],
    },
    Mutant {
        name: "what is known already is told on all the same",
        file: "src/tracker/broadcast/weigh.rs",
        is: "                self.link_mut(slot).trust.told();\n                \
             return Outcome::Same;\n",
        becomes: "                self.fresh.push(Item { list, who: Some(key) });\n                \
             return Outcome::Same;\n",
        judges: &["gossip"],
    },
    Mutant {
        name: "a request that is given up is not free for others",
        file: "src/swarm/timeouts.rs",
        is: "            None => self.picker.block_released(block),",
        becomes: "            None => {}",
        judges: &["audit"],
    },
];

/// Goal: no class of fault passes the judges unseen.
/// Method: copies the sources, plants one fault after the other, builds, soaks, reads the verdict.
#[test]
fn judges_see_every_planted_fault() {
    if env::var_os("NIGHTLY").is_none_or(|value| value != "1") {
        eprintln!("left out: planted faults, which are searched for with NIGHTLY=1");
        return;
    }
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let copy = tempfile::tempdir().expect("a temporary folder");
    for part in [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "src",
        "benches",
        "tests",
    ] {
        copy_all(&home.join(part), &copy.path().join(part));
    }
    let target = home.join("target/mutants");
    let mut seen = BTreeMap::new();
    for mutant in MUTANTS {
        let file = copy.path().join(mutant.file);
        let sound = fs::read_to_string(&file).expect("the file is there");
        assert_eq!(
            sound.matches(mutant.is).count(),
            1,
            "{}: the text that it changes is not in {} once",
            mutant.name,
            mutant.file
        );
        fs::write(&file, sound.replace(mutant.is, mutant.becomes)).expect("a copy is writable");
        let verdict = verdict(copy.path(), &target);
        println!("{}: {verdict}", mutant.name);
        seen.insert(mutant.name, verdict);
        fs::write(&file, sound).expect("a copy is writable");
    }
    let mut missed = 0;
    for mutant in MUTANTS {
        let judge = &seen[mutant.name];
        missed += u32::from(!mutant.judges.contains(&judge.as_str()));
    }
    assert_eq!(
        missed, 0,
        "see above: faults that no judge, or the wrong one, saw"
    );
}

/// Builds a copy and soaks it: the judge that found fault, or the end of what it said.
fn verdict(copy: &Path, target: &Path) -> String {
    let cargo = env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let build = Command::new(cargo)
        .args(["build", "--bin", "evpeer"])
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", target)
        .output()
        .expect("cargo runs");
    assert!(
        build.status.success(),
        "{}",
        String::from_utf8_lossy(&build.stderr)
    );
    let soak = Command::new(target.join("debug/evpeer"))
        .args(["soak", "--for", "2m", "--no-shrink"])
        .output()
        .expect("what was built runs");
    let said = String::from_utf8_lossy(&soak.stdout) + String::from_utf8_lossy(&soak.stderr);
    let verdict = said.lines().rev().find_map(|line| {
        let (judge, _) = line.strip_prefix("judge \"")?.split_once('"')?;
        Some(judge.to_owned())
    });
    verdict.unwrap_or_else(|| format!("no judge: {}", said.lines().last().unwrap_or_default()))
}

fn copy_all(from: &Path, to: &Path) {
    if from.is_file() {
        fs::copy(from, to).expect("files can be copied");
        return;
    }
    fs::create_dir_all(to).expect("a folder in a temporary folder");
    for entry in fs::read_dir(from).expect("a folder of the repository") {
        let entry = entry.expect("it can be read");
        copy_all(&entry.path(), &to.join(entry.file_name()));
    }
}

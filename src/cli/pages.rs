//! Completions and the manual page, both out of the definition of the command line.

use std::io;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::CommandLine;
use super::error::CliError;
use super::output::print;

/// Prints the completion script for `shell`.
///
/// # Errors
/// Standard output takes no more.
pub fn completions(shell: Shell) -> Result<ExitCode, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "evpeer", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the manual page.
///
/// # Errors
/// Standard output takes no more.
pub fn man() -> Result<ExitCode, CliError> {
    let page = manual_page().map_err(CliError::Stdout)?;
    print(&String::from_utf8_lossy(&page))?;
    Ok(ExitCode::SUCCESS)
}

/// The page as roff: the options of a running peer, then a section for each command.
fn manual_page() -> io::Result<Vec<u8>> {
    let mut command = CommandLine::command();
    command.build();
    let mut page = Vec::new();
    let main = Man::new(command.clone()).section("1");
    main.render_title(&mut page)?;
    main.render_name_section(&mut page)?;
    main.render_synopsis_section(&mut page)?;
    main.render_description_section(&mut page)?;
    main.render_options_section(&mut page)?;
    for sub in command.get_subcommands() {
        page.extend_from_slice(&command_section(sub)?);
    }
    page.extend_from_slice(CLOSING_SECTIONS.as_bytes());
    main.render_version_section(&mut page)?;
    Ok(page)
}

/// One command: its sections become parts of a section of its own.
fn command_section(command: &Command) -> io::Result<Vec<u8>> {
    let name = command.get_name();
    let usage_name = format!("evpeer {name}");
    let man = Man::new(command.clone().bin_name(usage_name).disable_help_flag(true));
    let mut parts = Vec::new();
    man.render_description_section(&mut parts)?;
    man.render_synopsis_section(&mut parts)?;
    man.render_options_section(&mut parts)?;
    let parts = String::from_utf8_lossy(&parts);
    let parts = parts
        .replace(".SH DESCRIPTION\n", "")
        .replace(".SH SYNOPSIS\n", ".PP\n")
        .replace(".SH OPTIONS\n", "");
    let title = name.to_uppercase();
    Ok(format!(".SH \"COMMAND {title}\"\n{parts}").into_bytes())
}

const CLOSING_SECTIONS: &str = r#".SH "EXIT STATUS"
.TP
\fB0\fR
Done, or stopped by SIGINT or SIGTERM in good order.
.TP
\fB1\fR
It failed while running; for verify: data is wrong or missing.
.TP
\fB2\fR
Unusable command line or input file: nothing was started, nothing written.
.SH SIGNALS
The first SIGINT or SIGTERM stops new work, tells trackers and peers, and syncs what was stored to
disk, which may take up to 30 s.
A second one leaves at once. Either is safe: the next start checks what is there.
.SH ENVIRONMENT
.TP
\fBNO_COLOR\fR
If set, nothing is coloured.
.SH EXAMPLES
.TP
evpeer share ./data
Share the folder ./data, and print what to type on the other hosts.
.TP
evpeer create ./data \-\-tracker http://10.0.0.1:6969/announce \-o data.torrent
Make a .torrent of the folder ./data.
.TP
evpeer \-p 6881 \-t data.torrent \-o .
Seed what is there, fetch what is missing.
.TP
evpeer \-t data.torrent \-o /srv \-\-peer 10.0.0.1:6881 \-\-exit\-on\-complete
Fetch it from a known peer, and leave.
.TP
evpeer verify \-t data.torrent \-o /srv
Check every byte.
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_page_names_every_option_and_command() {
        let page = String::from_utf8(manual_page().expect("renders")).expect("text");
        let page = page.replace('\\', "");
        let command = CommandLine::command();
        let subs = command.get_subcommands();
        for command in std::iter::once(&command).chain(subs) {
            assert!(page.contains(command.get_name()), "{}", command.get_name());
            for option in command.get_arguments().filter_map(|a| a.get_long()) {
                assert!(page.contains(&format!("--{option}")), "--{option}");
            }
        }
        assert_eq!(page.matches(".SH OPTIONS").count(), 1);
    }
}

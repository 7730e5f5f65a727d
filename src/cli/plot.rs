//! The plot of `simulate`: how many hosts are complete over time.

use std::path::Path;
use std::time::Duration;

use plotters::prelude::*;

use super::error::CliError;
use super::simulate::show_seconds;
use crate::sim::forecast::{Forecast, Outcome};

/// Finds out before a long run whether the plot can be written at its end.
///
/// # Errors
/// It cannot.
pub fn check(path: &Path) -> Result<(), CliError> {
    let opened = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path);
    opened.map(drop).map_err(|error| CliError::Plot {
        path: path.to_path_buf(),
        why: error.to_string(),
    })
}

/// Draws it.
///
/// # Errors
/// The file cannot be written.
pub fn draw(path: &Path, forecast: &Forecast, outcome: &Outcome) -> Result<(), CliError> {
    let mut svg = String::new();
    let drawn = draw_into(&mut svg, forecast, outcome);
    let written = drawn.and_then(|()| std::fs::write(path, &svg).map_err(|e| e.to_string()));
    written.map_err(|why| CliError::Plot {
        path: path.to_path_buf(),
        why,
    })
}

fn draw_into(svg: &mut String, forecast: &Forecast, outcome: &Outcome) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let bound = outcome.bound.as_secs_f64();
    let last = outcome.last().map_or(bound, |time| time.as_secs_f64());
    let end = last.max(bound) * 1.05;
    let hosts = f64::from(forecast.hosts - forecast.seeds);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|e| text(&e))?;
    let title = format!(
        "{} of {} hosts complete; the last after {}",
        outcome.completed.len(),
        forecast.hosts - forecast.seeds,
        outcome.last().map_or("never".to_owned(), show_seconds),
    );
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..hosts * 1.02)
        .map_err(|e| text(&e))?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("seconds")
        .y_desc("complete hosts")
        .y_label_formatter(&|hosts| format!("{hosts:.0}"))
        .draw()
        .map_err(|e| text(&e))?;
    chart
        .draw_series(LineSeries::new(
            steps(&outcome.completed, end),
            BLUE.stroke_width(2),
        ))
        .map_err(|e| text(&e))?
        .label("complete")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], BLUE.stroke_width(2)));
    chart
        .draw_series(LineSeries::new(
            [(bound, 0.0), (bound, hosts)],
            RED.stroke_width(1),
        ))
        .map_err(|e| text(&e))?
        .label(format!(
            "no protocol is below: {}",
            show_seconds(outcome.bound)
        ))
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], RED));
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .draw()
        .map_err(|e| text(&e))?;
    root.present().map_err(|e| text(&e))
}

/// The corners of the curve: it rises where a host becomes complete.
fn steps(completed: &[Duration], end: f64) -> Vec<(f64, f64)> {
    let mut corners = vec![(0.0, 0.0)];
    for (count, at) in completed.iter().enumerate() {
        let at = at.as_secs_f64();
        corners.push((at, count as f64));
        corners.push((at, count as f64 + 1.0));
    }
    corners.push((end, completed.len() as f64));
    // Ten thousand hosts are no more to see than a thousand.
    let every = corners.len().div_ceil(4000);
    let last = corners.len() - 1;
    let is_kept = |index: usize| index.is_multiple_of(every) || index == last;
    let kept = corners.into_iter().enumerate();
    kept.filter(|(index, _)| is_kept(*index))
        .map(|(_, corner)| corner)
        .collect()
}

/// Width and height, pixels.
const SIZE: (u32, u32) = (900, 520);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_ends_where_the_last_host_is_complete() {
        let completed: Vec<Duration> = (1..=10_000).map(Duration::from_millis).collect();
        let corners = steps(&completed, 11.0);
        assert!(corners.len() <= 4001);
        assert_eq!(corners.first(), Some(&(0.0, 0.0)));
        assert_eq!(corners.last(), Some(&(11.0, 10_000.0)));
        assert!(corners.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
    }
}

//! A picture of a run: live copies of the stored pieces and the number of running nodes over time.

use super::ledger::Sample;
use core::fmt::Write;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 60.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// A line of the picture: its name, its colour, its value in a sample, and the top of its scale.
type Line = (&'static str, &'static str, fn(&Sample) -> usize, f64);

/// An SVG file: the fewest, the median and the most live copies of a piece on the left scale, running nodes on the right.
pub fn draw(title: &str, history: &[Sample]) -> String {
    let end = history.last().map_or(1, |sample| sample.second.max(1)) as f64;
    let copies = history.iter().map(|sample| sample.max).max().unwrap_or(1).max(4) as f64;
    let nodes = history.iter().map(|sample| sample.up).max().unwrap_or(1).max(1) as f64;
    let x = |second: u64| LEFT + second as f64 / end * (WIDTH - LEFT - RIGHT);
    let y = |value: f64, most: f64| HEIGHT - BOTTOM - value / most * (HEIGHT - TOP - BOTTOM);
    let mut svg = String::new();
    // Writing into a string cannot fail.
    let mut put = |text: String| {
        let _ = writeln!(svg, "{text}");
    };
    put(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
    ));
    put(format!("<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>", escaped(title)));
    for step in 0..=4 {
        let (share, from, to) = (f64::from(step) / 4.0, LEFT, WIDTH - RIGHT);
        let at = y(share, 1.0);
        put(format!("<line x1=\"{from}\" y1=\"{at:.1}\" x2=\"{to}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>"));
        let (left, right) = (share * copies, share * nodes);
        put(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{left:.1}</text>", LEFT - 6.0, at + 4.0));
        put(format!("<text x=\"{}\" y=\"{:.1}\" fill=\"#888\">{right:.0}</text>", to + 6.0, at + 4.0));
        let (second, below) = ((end * share) as u64, HEIGHT - BOTTOM + 18.0);
        let hours = second as f64 / 3600.0;
        put(format!("<text x=\"{:.1}\" y=\"{below}\" text-anchor=\"middle\">{hours:.1} h</text>", x(second)));
    }
    let series: [Line; 4] = [
        ("running nodes", "#bbb", |sample| sample.up, nodes),
        ("most copies", "#8ecae6", |sample| sample.max, copies),
        ("median", "#1d3557", |sample| sample.median, copies),
        ("fewest", "#d62828", |sample| sample.min, copies),
    ];
    for (index, (name, colour, value, most)) in series.into_iter().enumerate() {
        let points: Vec<String> = history
            .iter()
            .map(|sample| format!("{:.1},{:.1}", x(sample.second), y(value(sample) as f64, most)))
            .collect();
        let points = points.join(" ");
        put(format!(
            "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
        ));
        let at = LEFT + 200.0 * index as f64;
        let below = HEIGHT - 10.0;
        put(format!("<text x=\"{at}\" y=\"{below}\" fill=\"{colour}\">{name}</text>"));
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_is_a_point_of_every_line() {
        let sample = |second| Sample { second, up: 10, min: 1, median: 3, max: 5 };
        let svg = draw("a <test>", &[sample(0), sample(60), sample(120)]);
        let lines: Vec<&str> = svg.lines().filter(|line| line.starts_with("<polyline")).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| line.matches(',').count() == 3));
        assert!(svg.contains("a &lt;test>") && svg.ends_with("</svg>\n"));
        assert!(draw("empty", &[]).ends_with("</svg>\n"));
    }
}

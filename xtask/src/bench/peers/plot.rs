//! A plot of rates by connections, as SVG.

use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 160.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 50.0;

/// Number of horizontal grid lines above zero.
const GRID_LINES: u32 = 5;

/// Distinguishable with colour blindness (Okabe and Ito).
const COLOURS: [&str; 5] = ["#009e73", "#0072b2", "#d55e00", "#999999", "#cc79a7"];

/// The rates of one target.
pub struct Series {
    pub name: &'static str,
    /// Connections, and requests per second.
    pub points: Vec<(usize, f64)>,
}

/// Draws one line per target. The numbers of connections have equal distances.
pub fn svg(series: &[Series]) -> String {
    let axes = Axes::of(series);
    let mut lines = vec![
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">"#
        ),
        r##"<rect width="100%" height="100%" fill="#ffffff"/>"##.to_owned(),
    ];
    lines.extend(axes.grid());
    for (one, colour) in series.iter().zip(COLOURS.iter().cycle()) {
        lines.extend(axes.line(one, colour));
    }
    lines.extend(Axes::legend(series));
    lines.push("</svg>\n".to_owned());
    lines.join("\n")
}

struct Axes {
    connections: Vec<usize>,
    top_rate: f64,
}

impl Axes {
    fn of(series: &[Series]) -> Self {
        let points = || series.iter().flat_map(|one| &one.points);
        let mut connections: Vec<_> = points().map(|(connections, _)| *connections).collect();
        connections.sort_unstable();
        connections.dedup();
        let highest = points().map(|(_, rate)| *rate).fold(1.0, f64::max);
        Self { connections, top_rate: round_up(highest) }
    }

    fn x(&self, connections: usize) -> f64 {
        let index = self.connections.iter().position(|known| *known == connections);
        let count = |number: usize| u32::try_from(number).map_or(0.0, f64::from);
        let steps = count(self.connections.len().saturating_sub(1)).max(1.0);
        LEFT + (WIDTH - LEFT - RIGHT) * count(index.unwrap_or_default()) / steps
    }

    fn y(&self, rate: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * rate / self.top_rate
    }

    fn grid(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for line in 0..=GRID_LINES {
            let rate = self.top_rate * f64::from(line) / f64::from(GRID_LINES);
            let (y, right) = (self.y(rate), WIDTH - RIGHT);
            lines.push(format!(
                r##"<line x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}" stroke="#dddddd"/>"##
            ));
            let text_y = y + 4.0;
            lines.push(format!(
                r#"<text x="{}" y="{text_y:.1}" text-anchor="end">{rate:.0}</text>"#,
                LEFT - 8.0
            ));
        }
        for connections in &self.connections {
            lines.push(format!(
                r#"<text x="{:.1}" y="{}" text-anchor="middle">{connections}</text>"#,
                self.x(*connections),
                HEIGHT - BOTTOM + 20.0
            ));
        }
        lines.push(format!(r#"<text x="{LEFT}" y="18">starts per second, by connections</text>"#));
        lines
    }

    fn line(&self, series: &Series, colour: &str) -> Vec<String> {
        let mut points = String::new();
        let mut circles = Vec::new();
        for (connections, rate) in &series.points {
            let (x, y) = (self.x(*connections), self.y(*rate));
            // Writing to a string cannot fail.
            let _ = write!(points, "{x:.1},{y:.1} ");
            circles.push(format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#));
        }
        circles.push(format!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            points.trim_end()
        ));
        circles
    }

    fn legend(series: &[Series]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut y = TOP + 10.0;
        for (one, colour) in series.iter().zip(COLOURS.iter().cycle()) {
            let x = WIDTH - RIGHT + 20.0;
            lines.push(format!(r#"<text x="{x}" y="{y}" fill="{colour}">{}</text>"#, one.name));
            y += 20.0;
        }
        lines
    }
}

/// Returns the next number of the form 1, 2 or 5 times a power of ten.
fn round_up(number: f64) -> f64 {
    let power = 10_f64.powf(number.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|round| *round >= number).unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_has_a_line_with_a_point_per_cell() {
        let series = [
            Series { name: "Go", points: vec![(1, 100.0), (64, 4_000.0)] },
            Series { name: "pgbench × 64", points: vec![(1, 50.0), (64, 5_000.0), (128, 0.0)] },
        ];
        let svg = svg(&series);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert_eq!(svg.matches("<circle").count(), 5);
        assert!(svg.contains(">pgbench × 64</text>") && svg.contains(">128</text>"));
        // 5,000 is the top of the axis, and 0 is its bottom.
        assert!(svg.contains(&format!(r#"cy="{TOP:.1}""#)), "{svg}");
        assert!(svg.contains(&format!(r#"cy="{:.1}""#, HEIGHT - BOTTOM)), "{svg}");
    }

    #[test]
    fn axis_ends_at_a_round_number() {
        for (number, expected) in
            [(1.0, 1.0), (1_234.0, 2_000.0), (4_999.0, 5_000.0), (51.0, 100.0)]
        {
            assert!((round_up(number) - expected).abs() < 1e-9, "{number}");
        }
    }
}

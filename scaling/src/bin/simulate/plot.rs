//! Cold starts against idle memory as an SVG: down and to the left is better.

use std::fmt::Write;

use crate::compare::Curve;
use crate::engine::Totals;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 480.0;
const MARGIN: f64 = 70.0;
const COLOURS: [&str; 5] = ["#888888", "#c77700", "#7a3fb0", "#0b62c4", "#63a8ee"];

/// Linear to the right, logarithmic upwards.
struct Axes {
    right: f64,
    low: f64,
    high: f64,
}

impl Axes {
    fn x(&self, gib_h: f64) -> f64 {
        MARGIN + gib_h / self.right * (WIDTH - 2.0 * MARGIN)
    }
    fn y(&self, starts: f64) -> f64 {
        let share = (starts.log10() - self.low) / (self.high - self.low);
        HEIGHT - MARGIN - share * (HEIGHT - 2.0 * MARGIN)
    }
    fn of(&self, totals: &Totals) -> (f64, f64) {
        (self.x(gib_h(totals)), self.y(totals.cold_starts.max(1) as f64))
    }
}

fn gib_h(totals: &Totals) -> f64 {
    totals.idle_gib_s / 3_600.0
}

/// The plot.
pub(crate) fn svg(curves: &[Curve]) -> String {
    let all = || curves.iter().flat_map(|c| &c.points).map(|p| &p.totals);
    let starts = || all().map(|t| t.cold_starts.max(1) as f64);
    let axes = Axes {
        right: (all().map(gib_h).fold(1.0, f64::max) / 100.0).ceil() * 100.0,
        low: starts().fold(f64::MAX, f64::min).log10().floor(),
        high: starts().fold(1.0, f64::max).log10().ceil(),
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    grid(&mut out, &axes);
    for (at, curve) in curves.iter().enumerate() {
        draw(&mut out, &axes, curve, COLOURS[at % COLOURS.len()], at);
    }
    out.push_str("</svg>\n");
    out
}

fn grid(out: &mut String, axes: &Axes) {
    let (bottom, end) = (HEIGHT - MARGIN, WIDTH - MARGIN);
    for step in 0..=5 {
        let value = axes.right / 5.0 * f64::from(step);
        let x = axes.x(value);
        let _ = writeln!(
            out,
            "<path d=\"M{x:.1} {MARGIN}V{bottom}\" stroke=\"#eee\"/><text x=\"{x:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{value:.0}</text>",
            bottom + 16.0
        );
    }
    for decade in axes.low as i32..=axes.high as i32 {
        for digit in [1.0, 2.0, 5.0] {
            let value = digit * 10f64.powi(decade);
            if value > 10f64.powf(axes.high) * 1.01 {
                continue;
            }
            let y = axes.y(value);
            let _ = writeln!(
                out,
                "<path d=\"M{MARGIN} {y:.1}H{end}\" stroke=\"#eee\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
                MARGIN - 6.0,
                y + 4.0
            );
        }
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">idle memory in a day, GiB x h</text><text transform=\"translate(18 {:.0}) rotate(-90)\" text-anchor=\"middle\">cold starts in a day</text>",
        WIDTH / 2.0,
        HEIGHT - 24.0,
        HEIGHT / 2.0
    );
}

fn draw(out: &mut String, axes: &Axes, curve: &Curve, colour: &str, at: usize) {
    let mut points: Vec<_> = curve.points.iter().map(|p| (axes.of(&p.totals), &p.knob)).collect();
    points.sort_by(|a, b| a.0.0.total_cmp(&b.0.0));
    let path: Vec<String> = points.iter().map(|((x, y), _)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        out,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        path.join(" ")
    );
    for ((x, y), knob) in &points {
        let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        // Curves that nearly coincide are labelled once.
        if at < 4 {
            let _ = writeln!(
                out,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\" font-size=\"9\">{knob}</text>",
                x + 5.0,
                y - 4.0
            );
        }
    }
    let y = 20.0 + 14.0 * at as f64;
    let _ = writeln!(
        out,
        "<path d=\"M{:.0} {y}h20\" stroke=\"{colour}\" stroke-width=\"2\"/><text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
        WIDTH - 230.0,
        WIDTH - 204.0,
        y + 4.0,
        curve.name
    );
}

//! The ratios as horizontal bars on a logarithmic scale, with target and stretch marked. Written by hand: a
//! drawing of rectangles needs no library.

use std::fmt::Write;

use crate::figure::{Goal, Verdict, short};
use crate::report::Row;

const ROW: f64 = 26.0;
const LEFT: f64 = 440.0;
const WIDTH: f64 = 460.0;
const TOP: f64 = 40.0;

/// A picture of every row that has a goal. Bars begin at the target: to the left is better for "at most", to the
/// right for "at least", so each bar's colour says which side it lies on.
pub(crate) fn svg(rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|r| r.figure.goal != Goal::None).collect();
    let height = TOP + ROW * rows.len() as f64 + 46.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{height}\" viewBox=\"0 0 {w} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"22\" font-size=\"15\">Measured value / target (logarithmic; line: min to max; ◆: stretch)</text>\n",
        w = LEFT + WIDTH + 130.0
    );
    let foot = TOP + ROW * rows.len() as f64;
    for tick in [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0] {
        let x = place(tick);
        let colour = if tick == 1.0 { "#333" } else { "#ddd" };
        let _ = write!(
            out,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{foot}\" stroke=\"{colour}\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{tick}</text>\n",
            foot + 16.0
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">target</text>",
        place(1.0),
        foot + 32.0
    );
    for (index, row) in rows.iter().enumerate() {
        bar(&mut out, row, TOP + ROW * index as f64);
    }
    out.push_str("</svg>\n");
    out
}

fn bar(out: &mut String, row: &Row, top: f64) {
    let Some((target, stretch)) = row.figure.goal.bounds() else { return };
    let at = |value: f64| place(value / target);
    let colour = match row.verdict() {
        Verdict::Stretch => "#1a7f37",
        Verdict::Met => "#6cbf84",
        Verdict::Missed | Verdict::Informative => "#cf4a3f",
    };
    let (from, to) = (at(row.value.median).min(place(1.0)), at(row.value.median).max(place(1.0)));
    let middle = top + ROW / 2.0;
    let _ = write!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} {}</text>\n\
         <rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\" fill=\"{colour}\"/>\n\
         <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"black\"/>\n\
         <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">◆</text>\n\
         <text x=\"{:.1}\" y=\"{:.1}\">{} ({})</text>\n",
        LEFT - 10.0,
        middle + 4.0,
        row.figure.id,
        escape(row.figure.name),
        middle - 6.0,
        (to - from).max(1.0),
        at(row.value.min),
        at(row.value.max),
        at(stretch),
        middle + 4.0,
        LEFT + WIDTH + 10.0,
        middle + 4.0,
        short(row.value.median),
        escape(row.figure.goal.to_string().split(" (").next().unwrap_or_default()),
    );
}

/// Where a multiple of the target lies: a tenth at the left edge, ten times at the right.
fn place(multiple: f64) -> f64 {
    LEFT + WIDTH * (multiple.clamp(0.1, 10.0).log10() + 1.0) / 2.0
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_lies_in_the_middle_and_nothing_leaves_the_picture() {
        assert_eq!(place(1.0), LEFT + WIDTH / 2.0);
        assert_eq!((place(0.0), place(1e9)), (LEFT, LEFT + WIDTH));
        assert_eq!(escape("a <= b & c"), "a &lt;= b &amp; c");
    }
}

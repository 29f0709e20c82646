//! Plots as SVG, without a library: lines, bars, axes and words.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 56.0;

/// One axis.
pub struct Axis<'a> {
    pub title: &'a str,
    pub from: f64,
    pub to: f64,
    /// Where there are marks, with their words.
    pub marks: Vec<(f64, String)>,
}

impl Axis<'_> {
    fn share(&self, value: f64) -> f64 {
        ((value - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }
}

/// One picture.
pub struct Plot<'a> {
    x: Axis<'a>,
    y: Axis<'a>,
    body: String,
    legend: usize,
}

impl<'a> Plot<'a> {
    /// Axes and grid.
    pub fn new(title: &str, x: Axis<'a>, y: Axis<'a>) -> Self {
        let mut plot = Plot {
            x,
            y,
            body: String::new(),
            legend: 0,
        };
        plot.text(WIDTH / 2.0, 24.0, "middle", 15, title);
        let marks: Vec<(f64, String)> = plot.x.marks.clone();
        for (value, words) in marks {
            let x = plot.at_x(value);
            plot.line((x, TOP), (x, HEIGHT - BOTTOM), "#e0e0e0");
            plot.text(x, HEIGHT - BOTTOM + 18.0, "middle", 12, &words);
        }
        let marks: Vec<(f64, String)> = plot.y.marks.clone();
        for (value, words) in marks {
            let y = plot.at_y(value);
            plot.line((LEFT, y), (WIDTH - RIGHT, y), "#e0e0e0");
            plot.text(LEFT - 6.0, y + 4.0, "end", 12, &words);
        }
        let (x, y) = (plot.x.title.to_owned(), plot.y.title.to_owned());
        plot.text(LEFT + (WIDTH - LEFT - RIGHT) / 2.0, HEIGHT - 16.0, "middle", 13, &x);
        let middle = TOP + (HEIGHT - TOP - BOTTOM) / 2.0;
        // Writing to a string does not fail.
        let _ = writeln!(
            plot.body,
            r#"<text x="18" y="{middle}" font-size="13" text-anchor="middle" transform="rotate(-90 18 {middle})">{}</text>"#,
            escaped(&y)
        );
        plot
    }

    fn at_x(&self, value: f64) -> f64 {
        LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn at_y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.share(value) * (HEIGHT - TOP - BOTTOM)
    }

    fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        let _ = writeln!(
            self.body,
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}"/>"#
        );
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, size: u32, words: &str) {
        let words = escaped(words);
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" text-anchor="{anchor}">{words}</text>"#
        );
    }

    /// A line through points.
    pub fn curve(&mut self, points: impl Iterator<Item = (f64, f64)>, colour: &str) {
        let mut path = String::new();
        for (x, y) in points {
            let _ = write!(path, "{:.1},{:.1} ", self.at_x(x), self.at_y(y));
        }
        let path = path.trim_end();
        let _ = writeln!(
            self.body,
            r#"<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>"#
        );
    }

    /// Columns side by side, from the left end of the axis to the right.
    pub fn columns(&mut self, heights: &[f64], colour: &str) {
        let width = (WIDTH - LEFT - RIGHT) / heights.len().max(1) as f64;
        for (index, height) in heights.iter().enumerate().filter(|(_, height)| **height > 0.0) {
            let (x, y) = (LEFT + index as f64 * width, self.at_y(*height));
            let tall = HEIGHT - BOTTOM - y;
            let _ = writeln!(
                self.body,
                r#"<rect x="{x:.2}" y="{y:.1}" width="{width:.2}" height="{tall:.1}" fill="{colour}" fill-opacity="0.55"/>"#
            );
        }
    }

    /// Says what a colour stands for.
    pub fn legend(&mut self, words: &str, colour: &str) {
        let y = TOP + 16.0 + 20.0 * self.legend as f64;
        self.legend += 1;
        let _ = writeln!(
            self.body,
            r#"<rect x="{:.1}" y="{:.1}" width="14" height="10" fill="{colour}"/>"#,
            LEFT + 14.0,
            y - 9.0
        );
        self.text(LEFT + 34.0, y, "start", 12, words);
    }

    /// The file.
    pub fn finish(mut self) -> String {
        self.line((LEFT, HEIGHT - BOTTOM), (WIDTH - RIGHT, HEIGHT - BOTTOM), "#404040");
        self.line((LEFT, TOP), (LEFT, HEIGHT - BOTTOM), "#404040");
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n{}</svg>\n",
            self.body
        )
    }
}

fn escaped(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_puts_points_where_the_axes_say() {
        let axis = |title| Axis {
            title,
            from: 0.0,
            to: 10.0,
            marks: vec![(0.0, "none".to_owned()), (10.0, "<all>".to_owned())],
        };
        let mut plot = Plot::new("a & b", axis("x"), axis("y"));
        plot.curve([(0.0, 0.0), (5.0, 10.0), (20.0, -1.0)].into_iter(), "#123456");
        plot.columns(&[0.0, 5.0], "red");
        plot.legend("what", "red");
        let svg = plot.finish();
        assert!(svg.contains(r#"points="70.0,384.0 385.0,44.0 700.0,384.0""#), "{svg}");
        assert!(
            svg.contains(r#"<rect x="385.00" y="214.0" width="315.00" height="170.0""#),
            "{svg}"
        );
        assert!(svg.contains("a &amp; b") && svg.contains("&lt;all&gt;") && svg.ends_with("</svg>\n"));
    }
}

//! Charts, as SVG.

use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::RGBColor;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::process::Error;

/// A curve of a chart.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) colour: RGBColor,
    /// The lengths of dashes and of the gaps between them; `None` for a solid line.
    pub(crate) dashes: Option<(u32, u32)>,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Series {
    fn style(&self) -> ShapeStyle {
        self.colour.stroke_width(2)
    }
}

/// The axes of a chart: their names and ranges.
pub(crate) struct Axes<'a> {
    pub(crate) x: (&'a str, f64, f64),
    pub(crate) y: (&'a str, f64, f64),
    /// Whether the y axis is logarithmic.
    pub(crate) is_log: bool,
}

/// Colours that are distinct for colour-blind readers too (Okabe and Ito).
pub(crate) const COLOURS: [RGBColor; 6] = [
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(0, 114, 178),
    RGBColor(204, 121, 167),
    RGBColor(90, 90, 90),
];

const SIZE: (u32, u32) = (860, 380);
/// The width of the legend of a line chart.
const LEGEND: u32 = 200;

/// Draws a line chart as SVG.
pub(crate) fn lines(axes: &Axes<'_>, series: &[Series]) -> Result<String, Error> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut builder = ChartBuilder::on(&area);
        builder.margin(12).margin_right(LEGEND).x_label_area_size(44).y_label_area_size(64);
        let ((x_name, x_min, x_max), (y_name, y_min, y_max)) = (axes.x, axes.y);
        // Linear and logarithmic axes have different types.
        macro_rules! draw {
            ($y:expr) => {{
                let mut chart = builder.build_cartesian_2d(x_min..x_max, $y)?;
                chart
                    .configure_mesh()
                    .x_desc(x_name)
                    .y_desc(y_name)
                    .light_line_style(WHITE)
                    .bold_line_style(RGBColor(225, 225, 225))
                    .x_label_formatter(&number)
                    .y_label_formatter(&number)
                    .axis_desc_style(("sans-serif", 15))
                    .label_style(("sans-serif", 13))
                    .draw()?;
                for line in series {
                    let points = line.points.iter().copied();
                    match line.dashes {
                        Some((dash, gap)) => chart.draw_series(DashedLineSeries::new(
                            points,
                            dash,
                            gap,
                            line.style(),
                        ))?,
                        None => chart.draw_series(LineSeries::new(points, line.style()))?,
                    };
                }
            }};
        }
        match axes.is_log {
            true => draw!((y_min..y_max).log_scale()),
            false => draw!(y_min..y_max),
        }
        // The legend is beside the plot, where it hides no line.
        let x = (SIZE.0 - LEGEND) as i32 + 14;
        for (line, y) in series.iter().zip((24..).step_by(20)) {
            let points = [(x, y), (x + 24, y)];
            match line.dashes {
                Some((dash, gap)) => {
                    let points = points.into_iter();
                    area.draw(&DashedPathElement::new(points, dash, gap, line.style()))?;
                }
                None => area.draw(&PathElement::new(points, line.style()))?,
            }
            area.draw(&Text::new(&*line.name, (x + 32, y), label(HPos::Left)))?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// A row of bars that belong together: one for each series that has a value here.
pub(crate) struct BarGroup {
    pub(crate) name: String,
    pub(crate) bars: Vec<Bar>,
}

/// A bar: its series, its length in percent, and what is written at its end.
pub(crate) struct Bar {
    pub(crate) series: usize,
    pub(crate) percent: f64,
    pub(crate) label: String,
}

/// Draws groups of horizontal bars of 0 to 100 percent as SVG; a series has a name and a colour.
pub(crate) fn bars(
    axis: &str,
    series: &[(&str, RGBColor)],
    groups: &[BarGroup],
) -> Result<String, Error> {
    const THICKNESS: u32 = 12;
    let pitch = THICKNESS * series.len() as u32 + 14;
    let size = (SIZE.0, 90 + pitch * groups.len() as u32);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        let mut builder = ChartBuilder::on(&area);
        builder.margin(12).margin_top(34).margin_right(72).x_label_area_size(44);
        let rows = 0.0..f64::from(pitch) * groups.len() as f64;
        let mut chart = builder.y_label_area_size(268).build_cartesian_2d(0.0..100.0, rows)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .y_labels(0)
            .x_desc(axis)
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_label_formatter(&number)
            .axis_desc_style(("sans-serif", 15))
            .label_style(("sans-serif", 13))
            .draw()?;
        let mut top = f64::from(pitch) * groups.len() as f64;
        for group in groups {
            let middle = chart.backend_coord(&(0.0, top - f64::from(pitch) / 2.0));
            area.draw(&Text::new(&*group.name, (middle.0 - 8, middle.1), label(HPos::Right)))?;
            for bar in &group.bars {
                let upper = top - 7.0 - f64::from(THICKNESS) * bar.series as f64;
                let lower = upper - f64::from(THICKNESS) + 2.0;
                let colour = series[bar.series].1;
                let corners = [(0.0, upper), (bar.percent, lower)];
                chart.draw_series([Rectangle::new(corners, colour.filled())])?;
                let end = chart.backend_coord(&(bar.percent, (upper + lower) / 2.0));
                area.draw(&Text::new(&*bar.label, (end.0 + 5, end.1), label(HPos::Left)))?;
            }
            top -= f64::from(pitch);
        }
        // The legend is above the bars.
        let mut x = chart.backend_coord(&(0.0, 0.0)).0;
        for (name, colour) in series {
            area.draw(&Rectangle::new([(x, 13), (x + 12, 23)], colour.filled()))?;
            area.draw(&Text::new(*name, (x + 18, 18), label(HPos::Left)))?;
            x += 40 + 7 * name.len() as i32;
        }
        area.present()?;
    }
    Ok(svg)
}

/// Returns the style of a text that begins or ends at a point, and is level with it.
fn label(horizontal: HPos) -> TextStyle<'static> {
    let text = ("sans-serif", 13).into_font().color(&BLACK);
    text.pos(Pos::new(horizontal, VPos::Center))
}

/// Formats the number of an axis label.
fn number(value: &f64) -> String {
    match *value {
        value if value == value.trunc() => format!("{value}"),
        value if value.abs() < 0.1 => format!("{value:.2}"),
        value => format!("{value:.1}"),
    }
}

//! Charts, as SVG.

use plotters::prelude::*;
use plotters::style::RGBColor;

use crate::process::Error;

/// A curve of a chart.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) colour: RGBColor,
    pub(crate) is_dashed: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

/// The axes of a chart: their names and ranges.
pub(crate) struct Axes<'a> {
    pub(crate) x: (&'a str, f64, f64),
    pub(crate) y: (&'a str, f64, f64),
    /// Whether the y axis is logarithmic.
    pub(crate) is_log: bool,
    /// The position of the legend.
    pub(crate) legend: SeriesLabelPosition,
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

const SIZE: (u32, u32) = (720, 380);

/// Draws a line chart as SVG.
pub(crate) fn lines(axes: &Axes<'_>, series: &[Series]) -> Result<String, Error> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut builder = ChartBuilder::on(&area);
        builder.margin(12).margin_right(24).x_label_area_size(44).y_label_area_size(64);
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
                    let Series { name, colour, is_dashed, points } = line;
                    let style = colour.stroke_width(2);
                    let points = points.iter().copied();
                    let legend = move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style);
                    if *is_dashed {
                        let dashes = DashedLineSeries::new(points, 5, 4, style);
                        chart
                            .draw_series(dashes)?
                            .label(name)
                            .legend(move |(x, y)| PathElement::new([(x, y), (x + 8, y)], style));
                    } else {
                        chart
                            .draw_series(LineSeries::new(points, style))?
                            .label(name)
                            .legend(legend);
                    }
                }
                chart
                    .configure_series_labels()
                    .position(axes.legend.clone())
                    .background_style(WHITE.mix(0.85))
                    .border_style(RGBColor(210, 210, 210))
                    .label_font(("sans-serif", 13))
                    .draw()?;
            }};
        }
        match axes.is_log {
            true => draw!((y_min..y_max).log_scale()),
            false => draw!(y_min..y_max),
        }
        area.present()?;
    }
    Ok(svg)
}

/// Formats the number of an axis label.
fn number(value: &f64) -> String {
    match *value {
        value if value == value.trunc() => format!("{value}"),
        value if value.abs() < 0.1 => format!("{value:.2}"),
        value => format!("{value:.1}"),
    }
}

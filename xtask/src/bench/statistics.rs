//! Medians, and confidence intervals of ratios.

/// The 97.5 % quantiles of Student's t distribution for 1 to 20 degrees of freedom.
const T_QUANTILES: [f64; 20] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
];

/// The geometric mean of ratios and its 95 % confidence interval.
#[derive(Debug, Clone, Copy)]
pub struct Ratio {
    pub mean: f64,
    pub lower: f64,
    pub upper: f64,
}

impl Ratio {
    /// The ratio of pairs that were measured one right after the other. `None` for fewer than two
    /// pairs or more than 21.
    pub fn of_pairs(pairs: &[(f64, f64)]) -> Option<Self> {
        let quantile = T_QUANTILES.get(pairs.len().checked_sub(2)?)?;
        let logarithms: Vec<f64> = pairs.iter().map(|(one, other)| (one / other).ln()).collect();
        let count = f64::from(u32::try_from(pairs.len()).ok()?);
        let mean = logarithms.iter().sum::<f64>() / count;
        let squares: f64 = logarithms.iter().map(|one| (one - mean).powi(2)).sum();
        let half_width = quantile * (squares / (count - 1.0) / count).sqrt();
        Some(Self {
            mean: mean.exp(),
            lower: (mean - half_width).exp(),
            upper: (mean + half_width).exp(),
        })
    }
}

/// The median; NaN of no values.
pub fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_contains_the_mean_and_narrows_with_agreement() {
        let steady = Ratio::of_pairs(&[(99.0, 100.0), (100.0, 101.0), (101.0, 102.0)]).unwrap();
        assert!(steady.lower < steady.mean && steady.mean < steady.upper);
        assert!((steady.mean - 0.99).abs() < 0.001, "{steady:?}");
        let noisy = Ratio::of_pairs(&[(80.0, 100.0), (100.0, 100.0), (120.0, 100.0)]).unwrap();
        assert!(noisy.lower < steady.lower && noisy.upper > steady.upper);
    }

    #[test]
    fn too_few_pairs_have_no_interval() {
        assert!(Ratio::of_pairs(&[]).is_none() && Ratio::of_pairs(&[(1.0, 1.0)]).is_none());
        assert!(Ratio::of_pairs(&[(1.0, 1.0); 21]).is_some());
        assert!(Ratio::of_pairs(&[(1.0, 1.0); 22]).is_none());
    }

    #[test]
    fn median_of_nothing_passes_no_threshold() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }
}

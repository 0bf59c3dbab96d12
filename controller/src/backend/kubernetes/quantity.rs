//! Quantities as numbers. The cluster writes one amount in several ways: `1000m` comes back as `1`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// How much it is (Kubernetes API conventions, `Quantity`); `None` for what is no amount.
pub(super) fn amount(quantity: &Quantity) -> Option<f64> {
    const UNITS: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
        ("m", 1e-3),
        ("", 1.0),
    ];
    let text = quantity.0.as_str();
    let (number, unit) = UNITS.iter().find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    let value: f64 = number.parse().ok()?;
    (value >= 0.0).then(|| value * unit)
}

/// Whether two are the same amount, to a thousandth.
pub(super) fn is_same(one: &Quantity, other: &Quantity) -> bool {
    let thousandths = |quantity| amount(quantity).map(|amount| (amount * 1_000.0).round() as u64);
    thousandths(one).is_some() && thousandths(one) == thousandths(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_amount_is_written_in_several_ways() {
        let same = |one: &str, other: &str| is_same(&Quantity(one.into()), &Quantity(other.into()));
        assert!(
            same("1000m", "1") && same("1024Mi", "1Gi") && same("536870912", "512Mi") && same("50m", "0.05")
        );
        assert!(!same("50m", "51m") && !same("512M", "512Mi") && !same("many", "many"));
    }
}

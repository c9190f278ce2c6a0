//! Arithmetic that several rules share.

/// Returns the greatest common divisor of all numbers; zeros do not count, and of nothing but zeros
/// it is 0.
pub(in crate::scheduler) fn greatest_common_divisor(numbers: impl Iterator<Item = u32>) -> u32 {
    numbers.fold(0, gcd)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

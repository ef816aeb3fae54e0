//! Sums of multiples of the generator and of another point.
//!
//! Both numbers are split in halves of 128 bits, k₁ + k₂ λ, where λ times a point costs one product (Gallant, Lambert and Vanstone), and
//! the halves are written with few digits other than zero, all of them odd. The four rows of digits share their doublings (Straus).

use super::field::Field;
use super::group::{Affine, Jacobian};
use super::scalar::{Half, Scalar};
use std::sync::OnceLock;

/// Bits of a digit for a point that comes with a signature: eight multiples are made of it.
const POINT_WIDTH: u32 = 5;
const POINT_MULTIPLES: usize = 1 << (POINT_WIDTH - 2);
/// Bits of a digit for the generator, whose multiples are made once.
const GENERATOR_WIDTH: u32 = 10;
const GENERATOR_MULTIPLES: usize = 1 << (GENERATOR_WIDTH - 2);

/// A number below 2¹²⁸ may have a digit more than bits, and so may one below 2⁶⁴.
const HALF_DIGITS: usize = 129;
const QUARTER_DIGITS: usize = 65;
/// A digit for each power of two, the lowest first: odd, or zero.
type Digits = [i16; HALF_DIGITS];

/// An odd multiple of a point, and λ times it.
#[derive(Clone, Copy, Debug)]
struct Multiple {
    x: Field,
    beta_x: Field,
    y: Field,
}

impl Multiple {
    const fn new(x: Field, beta_x: Field, y: Field) -> Self {
        Self { x, beta_x, y }
    }

    fn of(point: Affine) -> Self {
        Self::new(point.x, point.x.mul(&Field::BETA), point.y)
    }
}

/// The odd multiples 1, 3, 5 … of a point.
#[derive(Clone, Copy, Debug)]
struct Table<'a>(&'a [Multiple]);

impl Table<'_> {
    /// `digit` times the point, or that times λ; `None` of a digit that is beyond the table, which `digits` makes none of.
    #[inline(always)]
    fn get(&self, digit: i16, lambda: bool) -> Option<Affine> {
        let multiple = self.0.get(usize::from(digit.unsigned_abs() >> 1))?;
        let x = if lambda { multiple.beta_x } else { multiple.x };
        Some(Affine { x, y: multiple.y }.negate_if(digit < 0))
    }
}

/// A half of a number in digits, and what they count.
struct Row<'a> {
    digits: Digits,
    multiples: Table<'a>,
    lambda: bool,
    /// What z is yet to be multiplied by to be that of these multiples' curve.
    scale: Option<&'a Field>,
}

/// The odd multiples of a point that will be multiplied more than once, and those of 2⁶⁴ times it, which halve the doublings: 1.7 KiB.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    low: [Multiple; POINT_MULTIPLES],
    high: [Multiple; POINT_MULTIPLES],
}

impl Prepared {
    /// It takes three inverses and 64 doublings: for a point that is multiplied once or twice it costs more than it saves.
    pub(super) fn new(point: &Affine) -> Self {
        Self {
            low: unscaled_multiples(point),
            high: unscaled_multiples(&raised(point)),
        }
    }

    /// `of_generator` · G + `of_point` · the point.
    pub(super) fn sum_of_multiples(&self, of_generator: &Scalar, of_point: &Scalar) -> Jacobian {
        let row = |half, width, multiples, lambda| Row {
            digits: digits(half, width),
            multiples: Table(multiples),
            lambda,
            scale: None,
        };
        let quarters = |number: &Scalar| {
            let (first, second) = number.split();
            (first.split(), second.split())
        };
        let ((p1, p2), (p3, p4)) = quarters(of_point);
        let ((g1, g2), (g3, g4)) = quarters(of_generator);
        let (low, high) = (generator_multiples(), raised_generator_multiples());
        sum_of_rows(
            QUARTER_DIGITS,
            &[
                row(p1, POINT_WIDTH, &self.low, false),
                row(p2, POINT_WIDTH, &self.high, false),
                row(p3, POINT_WIDTH, &self.low, true),
                row(p4, POINT_WIDTH, &self.high, true),
                row(g1, GENERATOR_WIDTH, low, false),
                row(g2, GENERATOR_WIDTH, high, false),
                row(g3, GENERATOR_WIDTH, low, true),
                row(g4, GENERATOR_WIDTH, high, true),
            ],
        )
    }
}

/// `of_generator` · G + `of_point` · `point`.
pub(super) fn sum_of_multiples(of_generator: &Scalar, of_point: &Scalar, point: &Affine) -> Jacobian {
    let (multiples, scale) = point_multiples(point);
    let of_points = |half, lambda| Row {
        digits: digits(half, POINT_WIDTH),
        multiples: Table(&multiples),
        lambda,
        scale: None,
    };
    let of_generators = |half, lambda| Row {
        digits: digits(half, GENERATOR_WIDTH),
        multiples: Table(generator_multiples()),
        lambda,
        scale: Some(&scale),
    };
    let ((p1, p2), (g1, g2)) = (of_point.split(), of_generator.split());
    let rows = [
        of_points(p1, false),
        of_points(p2, true),
        of_generators(g1, false),
        of_generators(g2, true),
    ];
    let mut sum = sum_of_rows(HALF_DIGITS, &rows);
    sum.z = sum.z.mul(&scale);
    sum
}

/// The sum of all rows, of which the lowest `length` digits may be other than zero.
#[inline(never)]
fn sum_of_rows(length: usize, rows: &[Row<'_>]) -> Jacobian {
    let mut sum = Jacobian::INFINITY;
    for place in (0..length).rev() {
        if !sum.infinity {
            sum = sum.double();
        }
        for row in rows {
            let digit = row.digits.get(place).copied().unwrap_or(0);
            if digit != 0
                && let Some(multiple) = row.multiples.get(digit, row.lambda)
            {
                sum = match row.scale {
                    Some(scale) => sum.add_unscaled(&multiple, scale),
                    None => sum.add(&multiple).0,
                };
            }
        }
    }
    sum
}

/// 2⁶⁴ times the point.
fn raised(point: &Affine) -> Affine {
    let raised = (0..64).fold(Jacobian::from(*point), |raised, _| raised.double());
    // No multiple of a point by less than the order is the one at infinity.
    raised.to_affine().unwrap_or(*point)
}

/// The odd multiples of a point on the curve itself.
fn unscaled_multiples(point: &Affine) -> [Multiple; POINT_MULTIPLES] {
    let (multiples, scale) = point_multiples(point);
    let inverse = scale.invert();
    let squared = inverse.square();
    let cubed = squared.mul(&inverse);
    multiples.map(|multiple| {
        let (x, y) = (multiple.x.mul(&squared), multiple.y.mul(&cubed));
        Multiple::of(Affine { x, y })
    })
}

/// The digits of `width` bits of a number: odd ones between −2^(width − 1) and 2^(width − 1), with `width` − 1 zeros or more after each.
fn digits(number: Half, width: u32) -> Digits {
    let mut digits = [0; HALF_DIGITS];
    let mut left = number.size;
    let mut places = digits.iter_mut();
    let mut skip = 0;
    while left != 0 {
        let zeros = left.trailing_zeros();
        left >>= zeros;
        let low = (left as u16 & ((1_u16 << width).wrapping_sub(1))) as i16;
        left >>= width;
        let mut digit = low;
        if low >> (width.wrapping_sub(1)) != 0 {
            digit = low.wrapping_sub(1 << width);
            // Below 2¹²⁸, for it has been shifted.
            left = left.wrapping_add(1);
        }
        if let Some(place) = places.nth(zeros.wrapping_add(skip) as usize) {
            *place = if number.negative { digit.wrapping_neg() } else { digit };
        }
        skip = width.wrapping_sub(1);
    }
    digits
}

/// The odd multiples of a point, on the curve where z of all of them is 1, and what z is to be multiplied by to come back from there.
///
/// Each sum with twice the point multiplies z by a number that is known, so that all can be brought to the z of the last without an inverse.
fn point_multiples(point: &Affine) -> ([Multiple; POINT_MULTIPLES], Field) {
    let twice = Jacobian::from(*point).double();
    let (step, scale) = (
        Affine {
            x: twice.x.reduce(),
            y: twice.y,
        },
        twice.z,
    );
    let squared = scale.square();
    let mut sum = Jacobian::from(Affine {
        x: point.x.mul(&squared),
        y: point.y.mul(&squared).mul(&scale),
    });
    let mut made = [(sum, Field::ONE); POINT_MULTIPLES];
    for (place, ratio) in made.iter_mut().skip(1) {
        (sum, *ratio) = sum.add(&step);
        *place = sum;
    }
    let mut to_last = Field::ONE;
    let mut multiples = [Multiple::new(Field::ZERO, Field::ZERO, Field::ZERO); POINT_MULTIPLES];
    for (multiple, (point, ratio)) in multiples.iter_mut().zip(made).rev() {
        let squared = to_last.square();
        *multiple = Multiple::of(Affine {
            x: point.x.mul(&squared),
            y: point.y.mul(&squared).mul(&to_last),
        });
        to_last = to_last.mul(&ratio);
    }
    (multiples, sum.z.mul(&scale))
}

/// The odd multiples of the generator, made when they are first asked for.
fn generator_multiples() -> &'static [Multiple] {
    static MULTIPLES: OnceLock<Vec<Multiple>> = OnceLock::new();
    MULTIPLES.get_or_init(|| many_multiples(&Affine::GENERATOR))
}

/// Those of 2⁶⁴ times the generator.
fn raised_generator_multiples() -> &'static [Multiple] {
    static MULTIPLES: OnceLock<Vec<Multiple>> = OnceLock::new();
    MULTIPLES.get_or_init(|| many_multiples(&raised(&Affine::GENERATOR)))
}

/// As many odd multiples of a point as there are of the generator, on the curve itself: 27 KiB, in some 250 µs.
fn many_multiples(point: &Affine) -> Vec<Multiple> {
    let Some(step) = Jacobian::from(*point).double().to_affine() else {
        return Vec::new();
    };
    let mut sum = Jacobian::from(*point);
    let mut made = vec![sum];
    for _ in 1..GENERATOR_MULTIPLES {
        sum = sum.add(&step).0;
        made.push(sum);
    }
    // One inverse for all (Montgomery): of the product of every z, from which the last is taken off again and again.
    let mut product = Field::ONE;
    let mut before = Vec::with_capacity(made.len());
    for point in &made {
        before.push(product);
        product = product.mul(&point.z);
    }
    let mut inverse = product.invert();
    let mut multiples = vec![];
    for (point, before) in made.iter().zip(&before).rev() {
        let of_z = inverse.mul(before);
        inverse = inverse.mul(&point.z);
        let squared = of_z.square();
        multiples.push(Multiple::of(Affine {
            x: point.x.mul(&squared),
            y: point.y.mul(&squared).mul(&of_z),
        }));
    }
    multiples.reverse();
    multiples
}

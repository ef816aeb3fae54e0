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

/// A digit for each power of two, the lowest first: odd, or zero.
type Digits = [i16; 129];

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

/// The odd multiples of a point that will be multiplied more than once: 864 bytes.
#[derive(Clone, Debug)]
pub(super) struct Prepared([Multiple; POINT_MULTIPLES]);

impl Prepared {
    /// It takes an inverse, which for a point that is multiplied once would cost more than it saves.
    pub(super) fn new(point: &Affine) -> Self {
        let (multiples, scale) = point_multiples(point);
        let inverse = scale.invert();
        let squared = inverse.square();
        let cubed = squared.mul(&inverse);
        Self(multiples.map(|multiple| {
            let (x, y) = (multiple.x.mul(&squared), multiple.y.mul(&cubed));
            Multiple::of(Affine { x, y })
        }))
    }

    /// `of_generator` · G + `of_point` · the point.
    pub(super) fn sum_of_multiples(&self, of_generator: &Scalar, of_point: &Scalar) -> Jacobian {
        sum_of_rows(of_generator, of_point, Table(&self.0), None)
    }
}

/// `of_generator` · G + `of_point` · `point`.
pub(super) fn sum_of_multiples(of_generator: &Scalar, of_point: &Scalar, point: &Affine) -> Jacobian {
    let (multiples, scale) = point_multiples(point);
    let mut sum = sum_of_rows(of_generator, of_point, Table(&multiples), Some(&scale));
    sum.z = sum.z.mul(&scale);
    sum
}

/// The sum, whose z is yet to be multiplied by `scale` if the multiples of the point are those of a curve that lacks it.
#[inline(never)]
fn sum_of_rows(of_generator: &Scalar, of_point: &Scalar, points: Table<'_>, scale: Option<&Field>) -> Jacobian {
    let generators = Table(generator_multiples());
    let [p1, p2] = rows(of_point, POINT_WIDTH);
    let [g1, g2] = rows(of_generator, GENERATOR_WIDTH);
    let mut sum = Jacobian::INFINITY;
    for ((p1, p2), (g1, g2)) in p1.iter().zip(&p2).zip(g1.iter().zip(&g2)).rev() {
        if !sum.infinity {
            sum = sum.double();
        }
        for (digit, lambda) in [(*p1, false), (*p2, true)] {
            if digit != 0
                && let Some(multiple) = points.get(digit, lambda)
            {
                sum = sum.add(&multiple).0;
            }
        }
        for (digit, lambda) in [(*g1, false), (*g2, true)] {
            if digit != 0
                && let Some(multiple) = generators.get(digit, lambda)
            {
                sum = match scale {
                    Some(scale) => sum.add_unscaled(&multiple, scale),
                    None => sum.add(&multiple).0,
                };
            }
        }
    }
    sum
}

fn rows(number: &Scalar, width: u32) -> [Digits; 2] {
    let (first, second) = number.split();
    [digits(first, width), digits(second, width)]
}

/// The digits of `width` bits of a number: odd ones between −2^(width − 1) and 2^(width − 1), with `width` − 1 zeros or more after each.
fn digits(number: Half, width: u32) -> Digits {
    let mut digits = [0; 129];
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
    MULTIPLES.get_or_init(|| {
        let generator = Affine {
            x: Field::GENERATOR_X,
            y: Field::GENERATOR_Y,
        };
        let Some(step) = Jacobian::from(generator).double().to_affine() else {
            return Vec::new();
        };
        let mut sum = Jacobian::from(generator);
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
    })
}

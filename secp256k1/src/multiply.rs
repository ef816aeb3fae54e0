//! Sums of multiples of the generator and of another point.
//!
//! Both numbers are split in halves of 128 bits, k₁ + k₂ λ, where λ times a point costs one product (Gallant, Lambert and Vanstone), and
//! the halves are written with few digits other than zero, all of them odd. The four rows of digits share their doublings (Straus). Of a
//! point that is multiplied again and again, multiples of its multiples by 2¹⁶, 2³² … are kept, and most doublings are left out.

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

/// Bits between the bases that a point is prepared with.
const SPACING: usize = 16;
const BASES: usize = 128 / SPACING;
/// Bits of a digit for a point that is prepared, and for the generator beside it.
const PREPARED_WIDTH: u32 = 4;
const PREPARED_MULTIPLES: usize = 1 << (PREPARED_WIDTH - 2);
const PREPARED_GENERATOR_WIDTH: u32 = 10;
const PREPARED_GENERATOR_MULTIPLES: usize = 1 << (PREPARED_GENERATOR_WIDTH - 2);

/// A number below 2¹²⁸ may have a digit more than bits.
const HALF_DIGITS: usize = 129;
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

/// The first odd multiples of a point that will be multiplied more than once, and those of 2¹⁶, 2³² … 2¹¹² times it: 2304 bytes. Of 128
/// doublings, 16 are left.
#[derive(Clone, Debug)]
pub(super) struct Prepared(Box<[Affine]>);

/// What digits other than zero there can be of two numbers of 256 bits.
const TERMS: usize = 2 * HALF_DIGITS.div_ceil(PREPARED_WIDTH as usize) + 2 * HALF_DIGITS.div_ceil(PREPARED_GENERATOR_WIDTH as usize);
const _: () = assert!(TERMS <= u8::MAX as usize);

/// Points to be added, numbered from 1, in a list for each number of doublings that are left when they are. After the last comes 0.
struct Terms {
    points: [Affine; TERMS],
    next: [u8; TERMS],
    first: [u8; SPACING + 1],
    count: u8,
}

impl Prepared {
    /// It takes two thirds of what a recovery does, and each sum half of that: it pays from the second sum on.
    pub(super) fn new(point: &Affine) -> Self {
        Self(odd_multiples(&bases(point, BASES), PREPARED_MULTIPLES).into_boxed_slice())
    }

    /// `of_generator` · G + `of_point` · the point.
    pub(super) fn sum_of_multiples(&self, of_generator: &Scalar, of_point: &Scalar) -> Jacobian {
        let ((p1, p2), (g1, g2)) = (of_point.split(), of_generator.split());
        let generator = prepared_generator();
        let mut terms = Terms::new();
        for (half, lambda) in [(p1, false), (p2, true)] {
            terms.add_multiple(half, lambda, &self.0, PREPARED_WIDTH);
        }
        for (half, lambda) in [(g1, false), (g2, true)] {
            terms.add_multiple(half, lambda, generator, PREPARED_GENERATOR_WIDTH);
        }
        terms.pair();
        terms.pair();
        terms.sum()
    }
}

impl Terms {
    const fn new() -> Self {
        Self {
            points: [Affine {
                x: Field::ZERO,
                y: Field::ZERO,
            }; TERMS],
            next: [0; TERMS],
            first: [0; SPACING + 1],
            count: 0,
        }
    }

    /// Adds `half` times a point of which there are these multiples for digits of `width` bits, or λ times that.
    fn add_multiple(&mut self, half: Half, lambda: bool, multiples: &[Affine], width: u32) {
        for_digits(half, width, |position, digit| {
            let place = position & SPACING.wrapping_sub(1);
            let base = position / SPACING;
            // What comes after the last base is one doubling more of it.
            let (base, place) = if base == BASES {
                (BASES.wrapping_sub(1), SPACING)
            } else {
                (base, place)
            };
            let index = (base << width.wrapping_sub(2)) | usize::from(digit.unsigned_abs() >> 1);
            if let Some(multiple) = multiples.get(index)
                && let Some(point) = self.points.get_mut(usize::from(self.count))
                && let Some(next) = self.next.get_mut(usize::from(self.count))
                && let Some(first) = self.first.get_mut(place)
            {
                point.assign(multiple, lambda, digit < 0);
                self.count = self.count.wrapping_add(1);
                (*next, *first) = (*first, self.count);
            }
        });
    }

    /// The point of a number, and the next number.
    #[inline(always)]
    fn get(&self, number: u8) -> Option<(&Affine, u8)> {
        let index = usize::from(number).wrapping_sub(1);
        Some((self.points.get(index)?, *self.next.get(index)?))
    }

    /// Makes two that follow each other in a list one. An inverse serves all of them, so that a sum takes six products and squares instead of
    /// eleven: once and twice this saves more than the inverse costs.
    #[inline(never)]
    fn pair(&mut self) {
        let (mut pairs, mut runs) = (Vec::with_capacity(TERMS), Vec::with_capacity(TERMS));
        let mut product = Field::ONE;
        for first in self.first {
            let mut number = first;
            while let Some((point, next)) = self.get(number)
                && let Some((other, after)) = self.get(next)
            {
                let run = point.run_to(other);
                if run.is_zero() {
                    // The same point twice, or a point and its negative: left as they are.
                    number = next;
                    continue;
                }
                let indices = [number, next].map(|number| usize::from(number).wrapping_sub(1));
                pairs.push(indices);
                runs.push((run, product));
                product = product.mul(&run);
                let [index, _] = indices;
                if let Some(next) = self.next.get_mut(index) {
                    *next = after;
                }
                number = after;
            }
        }
        let mut inverse = product.invert();
        for (indices, (run, before)) in pairs.into_iter().zip(&runs).rev() {
            if let Ok([point, other]) = self.points.get_disjoint_mut(indices) {
                point.add_distinct(other, &inverse.mul(before));
            }
            inverse = inverse.mul(run);
        }
    }

    #[inline(never)]
    fn sum(&self) -> Jacobian {
        let mut sum = Jacobian::INFINITY;
        for first in self.first.iter().rev() {
            if !sum.infinity {
                sum.double();
            }
            let mut number = *first;
            while let Some((point, next)) = self.get(number) {
                sum.add(point);
                number = next;
            }
        }
        sum
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
    let mut sum = sum_of_rows(&rows);
    sum.z = sum.z.mul(&scale);
    sum
}

/// The sum of all rows.
#[inline(never)]
fn sum_of_rows(rows: &[Row<'_>]) -> Jacobian {
    let mut sum = Jacobian::INFINITY;
    for place in (0..HALF_DIGITS).rev() {
        if !sum.infinity {
            sum.double();
        }
        for row in rows {
            let digit = row.digits.get(place).copied().unwrap_or(0);
            if digit != 0
                && let Some(multiple) = row.multiples.get(digit, row.lambda)
            {
                match row.scale {
                    Some(scale) => sum.add_unscaled(&multiple, scale),
                    None => {
                        sum.add(&multiple);
                    }
                }
            }
        }
    }
    sum
}

/// The digits of `width` bits of a number, in their places.
fn digits(number: Half, width: u32) -> Digits {
    let mut digits = [0; HALF_DIGITS];
    for_digits(number, width, |position, digit| {
        if let Some(place) = digits.get_mut(position) {
            *place = digit;
        }
    });
    digits
}

/// Takes the digits of `width` bits of a number, and their positions: odd ones between −2^(width − 1) and 2^(width − 1), with `width` − 1
/// zeros or more after each.
#[inline(always)]
fn for_digits(number: Half, width: u32, mut take: impl FnMut(usize, i16)) {
    let mut left = number.size;
    let mut position = 0_u32;
    while left != 0 {
        let zeros = left.trailing_zeros();
        left >>= zeros;
        position = position.wrapping_add(zeros);
        let low = (left as u16 & ((1_u16 << width).wrapping_sub(1))) as i16;
        left >>= width;
        let mut digit = low;
        if low >> (width.wrapping_sub(1)) != 0 {
            digit = low.wrapping_sub(1 << width);
            // Below 2¹²⁸, for it has been shifted.
            left = left.wrapping_add(1);
        }
        take(position as usize, if number.negative { digit.wrapping_neg() } else { digit });
        position = position.wrapping_add(width);
    }
}

/// The odd multiples of a point, on the curve where z of all of them is 1, and what z is to be multiplied by to come back from there.
///
/// Each sum with twice the point multiplies z by a number that is known, so that all can be brought to the z of the last without an inverse.
fn point_multiples(point: &Affine) -> ([Multiple; POINT_MULTIPLES], Field) {
    let mut twice = Jacobian::from(*point);
    twice.double();
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
        *ratio = sum.add(&step);
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

/// The odd multiples of the generator, made when they are first asked for: 27 KiB, in some 250 µs.
fn generator_multiples() -> &'static [Multiple] {
    static MULTIPLES: OnceLock<Vec<Multiple>> = OnceLock::new();
    MULTIPLES.get_or_init(|| {
        let multiples = odd_multiples(&bases(&Affine::GENERATOR, 1), GENERATOR_MULTIPLES);
        multiples.into_iter().map(Multiple::of).collect()
    })
}

/// What [`Prepared`] is of a point, of the generator, and with more multiples; made when it is first asked for: 144 KiB, in some 2 ms.
fn prepared_generator() -> &'static [Affine] {
    static MULTIPLES: OnceLock<Vec<Affine>> = OnceLock::new();
    MULTIPLES.get_or_init(|| {
        let mut multiples = Vec::with_capacity(BASES.wrapping_mul(PREPARED_GENERATOR_MULTIPLES));
        // One base at a time: what is made in between would be three times the size.
        for base in bases(&Affine::GENERATOR, BASES).chunks_exact(2) {
            multiples.extend(odd_multiples(base, PREPARED_GENERATOR_MULTIPLES));
        }
        multiples
    })
}

/// The point and twice the point, 2¹⁶ times that, and so on: `count` pairs.
fn bases(point: &Affine, count: usize) -> Vec<Affine> {
    let mut pairs = Vec::with_capacity(count.wrapping_mul(2));
    let mut raised = Jacobian::from(*point);
    for index in 0..count {
        if index != 0 {
            (1..SPACING).for_each(|_| raised.double());
        }
        pairs.push(raised);
        raised.double();
        pairs.push(raised);
    }
    affine(&pairs)
}

/// The first `count` odd multiples of each base. No multiple of a point by less than the order is the one at infinity.
fn odd_multiples(bases: &[Affine], count: usize) -> Vec<Affine> {
    let (pairs, _) = bases.as_chunks();
    let mut multiples = Vec::with_capacity(count.wrapping_mul(pairs.len()));
    for [base, twice] in pairs {
        let mut sum = Jacobian::from(*base);
        multiples.push(sum);
        for _ in 1..count {
            sum.add(twice);
            multiples.push(sum);
        }
    }
    affine(&multiples)
}

/// Points other than the one at infinity, with one inverse for all (Montgomery): of the product of every z, from which the last is taken off
/// again and again.
fn affine(points: &[Jacobian]) -> Vec<Affine> {
    let mut product = Field::ONE;
    let mut before = Vec::with_capacity(points.len());
    for point in points {
        before.push(product);
        product = product.mul(&point.z);
    }
    let mut inverse = product.invert();
    let mut made = Vec::with_capacity(points.len());
    for (point, before) in points.iter().zip(&before).rev() {
        let of_z = inverse.mul(before);
        inverse = inverse.mul(&point.z);
        let squared = of_z.square();
        made.push(Affine {
            x: point.x.mul(&squared),
            y: point.y.mul(&squared).mul(&of_z),
        });
    }
    made.reverse();
    made
}

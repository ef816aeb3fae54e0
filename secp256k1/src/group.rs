//! Points of y² = x³ + 7, and their sums. Which way a sum goes depends on the points: all of them are public.
#![allow(clippy::arithmetic_side_effects)] // Of `Field` alone. The sizes that its bounds ask for are given where they are not 1.

use super::field::Field;
use super::words::{self, Words};

/// p, for what is read from outside.
const P: Words = [
    0xffff_fc2f,
    0xffff_fffe,
    0xffff_ffff,
    0xffff_ffff,
    0xffff_ffff,
    0xffff_ffff,
    0xffff_ffff,
    0xffff_ffff,
];

/// A point other than the one at infinity. The sizes are 2 at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Affine {
    pub(super) x: Field,
    pub(super) y: Field,
}

/// The point (x / z², y / z³), or the one at infinity, whose coordinates mean nothing.
///
/// The sizes are 3 of x, 2 of y and 1 of z at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Jacobian {
    pub(super) x: Field,
    pub(super) y: Field,
    pub(super) z: Field,
    pub(super) infinity: bool,
}

impl Affine {
    /// The generator.
    pub(super) const GENERATOR: Self = Self {
        x: Field::GENERATOR_X,
        y: Field::GENERATOR_Y,
    };

    /// The point with this x whose y is odd or not; `None` if x is not below p, or of no point.
    pub(super) fn from_x(x: &[u8; 32], odd: bool) -> Option<Self> {
        let x = words::from_bytes(x);
        if !words::less(&x, &P) {
            return None;
        }
        let x = Field::from_words(&x);
        // The curve has no point with y = 0.
        let y = (x.square().mul(&x) + Field::SEVEN).square_root()?;
        Some(Self {
            x,
            y: if y.is_odd() == odd { y } else { -y },
        })
    }

    pub(super) fn negate_if(&self, negative: bool) -> Self {
        Self {
            x: self.x,
            y: if negative { -self.y } else { self.y },
        }
    }

    /// Becomes the other point, its negative, λ times it, or the negative of that.
    #[inline(always)]
    pub(super) fn assign(&mut self, other: &Self, lambda: bool, negative: bool) {
        // By coordinates: in WebAssembly, a whole point is copied by a call, which takes as long as half a product.
        self.x = if lambda { other.x.mul(&Field::BETA) } else { other.x };
        self.y = if negative { -other.y } else { other.y };
    }

    /// How much more the other point's x is, reduced.
    #[inline(always)]
    pub(super) fn run_to(&self, other: &Self) -> Field {
        (other.x - self.x).reduce()
    }

    /// Adds a point of another x, where `of_run` is the inverse of [`Self::run_to`] it.
    #[inline(always)]
    pub(super) fn add_distinct(&mut self, other: &Self, of_run: &Field) {
        // Of size 4.
        let slope = (other.y - self.y).mul(of_run);
        let x = (slope.square() - self.x - other.x).reduce();
        self.y = (slope.mul(&(self.x - x)) - self.y).reduce();
        self.x = x;
    }

    /// x and then y, 32 bytes each.
    pub(super) fn to_bytes(self) -> [u8; 64] {
        let mut bytes = [0; 64];
        let (x, y) = (words::to_bytes(&self.x.to_words()), words::to_bytes(&self.y.to_words()));
        for (to, from) in bytes.iter_mut().zip(x.iter().chain(&y)) {
            *to = *from;
        }
        bytes
    }
}

impl From<Affine> for Jacobian {
    fn from(point: Affine) -> Self {
        Self {
            x: point.x,
            y: point.y,
            z: Field::ONE,
            infinity: false,
        }
    }
}

impl Jacobian {
    pub(super) const INFINITY: Self = Self {
        x: Field::ZERO,
        y: Field::ZERO,
        z: Field::ZERO,
        infinity: true,
    };

    /// `None` of the point at infinity.
    pub(super) fn to_affine(self) -> Option<Affine> {
        if self.infinity {
            return None;
        }
        let inverse = self.z.invert();
        let squared = inverse.square();
        Some(Affine {
            x: self.x.mul(&squared),
            y: self.y.mul(&squared).mul(&inverse),
        })
    }

    /// Doubles the point: three products and four squares. No point of the curve is its own negative, so that z is zero for none.
    #[inline(never)]
    pub(super) fn double(&mut self) {
        let squared = self.y.square();
        let slope = self.x.square().three_halves();
        let tangent = self.x.mul(&squared);
        self.z = self.y.mul(&self.z);
        // Of size 3.
        self.x = slope.square() - tangent.double();
        // 2.5 times 4, and then 2.
        self.y = slope.mul(&(tangent - self.x)) - squared.square();
    }

    /// Adds a point; what z was multiplied by for it, which means nothing if one of the points or the sum is the one at infinity, or both are the same.
    pub(super) fn add(&mut self, other: &Affine) -> Field {
        if self.infinity {
            self.set(other.x, other.y);
            return Field::ZERO;
        }
        let z = self.z;
        self.add_finite(other, &z)
    }

    /// Adds a point whose coordinates are those of the curve itself, where this one's z is yet to be multiplied by `scale`.
    pub(super) fn add_unscaled(&mut self, other: &Affine, scale: &Field) {
        if self.infinity {
            let squared = scale.square();
            self.set(other.x.mul(&squared), other.y.mul(&squared).mul(scale));
        } else {
            self.add_finite(other, &self.z.mul(scale));
        }
    }

    fn set(&mut self, x: Field, y: Field) {
        (self.x, self.y, self.z, self.infinity) = (x, y, Field::ONE, false);
    }

    /// Adds a point, and says what z was multiplied by for it: eight products and three squares. `z` is this point's on the curve of the other.
    #[inline(never)]
    fn add_finite(&mut self, other: &Affine, z: &Field) -> Field {
        let squared = z.square();
        let x = other.x.mul(&squared);
        let y = other.y.mul(&squared).mul(z);
        // Of sizes 4, so that it is reduced, and 3.
        let run = (x - self.x).reduce();
        let rise = y - self.y;
        if run.is_zero() {
            if rise.reduce().is_zero() {
                self.double();
            } else {
                self.infinity = true;
            }
            return Field::ZERO;
        }
        let run_squared = run.square();
        let cubed = run_squared.mul(&run);
        let base = self.x.mul(&run_squared);
        self.x = (rise.square() - cubed - base.double()).reduce();
        self.y = rise.mul(&(base - self.x)) - self.y.mul(&cubed);
        self.z = self.z.mul(&run);
        run
    }
}

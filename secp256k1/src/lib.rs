//! ECDSA over secp256k1 (SEC 1, section 4.1), for signatures that anybody may see: every number here is public, and how long anything
//! takes depends on them. There is no secret key in the filter; nothing here may be used with one.
//!
//! It is written for WebAssembly in V8, where it recovers a signer in less than half the time that k256 takes.

mod field;
mod group;
mod inverse;
mod multiply;
mod scalar;
#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod tests;
#[cfg(test)]
mod vectors;
mod words;

use group::Affine;
use multiply::Prepared;
use scalar::Scalar;

/// Whether a number, most significant byte first, is from 1 to the order of the curve − 1.
pub fn in_range(number: &[u8; 32]) -> bool {
    Scalar::from_bytes(number).is_some_and(|number| !number.is_zero())
}

/// The key of an account: a point of the curve.
#[derive(Clone, Copy, Debug)]
pub struct Key(Affine);

/// A key that signatures are checked with more than once.
#[derive(Clone, Debug)]
pub struct PreparedKey(Prepared);

impl Key {
    /// x and then y, 32 bytes each.
    pub fn to_bytes(self) -> [u8; 64] {
        self.0.to_bytes()
    }

    /// The key with multiples of it, 2304 bytes. It takes two thirds of the time of [`recover`]; each signature is checked in half of it then.
    pub fn prepare(&self) -> PreparedKey {
        PreparedKey(Prepared::new(&self.0))
    }
}

impl PreparedKey {
    /// Whether [`recover`] would find this key: whether s⁻¹(zG + rQ) is the point with `r` as its x and a y that is as odd as it should be.
    pub fn signed(&self, digest: &[u8; 32], r: &[u8; 32], s: &[u8; 32], odd: bool) -> bool {
        let (Some(x), Some(s), z) = (Scalar::from_bytes(r), Scalar::from_bytes(s), Scalar::reduce(digest)) else {
            return false;
        };
        if x.is_zero() || s.is_zero() {
            return false;
        }
        let inverse = s.invert();
        let sum = self.0.sum_of_multiples(&inverse.mul(&z), &inverse.mul(&x));
        // x itself and not modulo the order: r + n is nothing that a `v` of 27 or 28 could mean.
        sum.to_affine()
            .is_some_and(|point| point.x.to_words() == words::from_bytes(r) && point.y.is_odd() == odd)
    }
}

/// The key that `r` and `s` are a signature of over `digest`, where the point R has `r` as its x, and an odd y or an even one.
///
/// `None` if r or s is out of range, if r is no x coordinate, or if the key would be the point at infinity.
pub fn recover(digest: &[u8; 32], r: &[u8; 32], s: &[u8; 32], odd: bool) -> Option<Key> {
    if !in_range(r) || !in_range(s) {
        return None;
    }
    let point = Affine::from_x(r, odd)?;
    let (r, s, z) = (Scalar::from_bytes(r)?, Scalar::from_bytes(s)?, Scalar::reduce(digest));
    // Q = r⁻¹(sR − zG).
    let inverse = r.invert();
    let of_generator = inverse.mul(&z).negate();
    let of_point = inverse.mul(&s);
    multiply::sum_of_multiples(&of_generator, &of_point, &point).to_affine().map(Key)
}

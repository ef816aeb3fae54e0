//! Who signed a digest.

use super::{Address, Signature, keccak256};
use k256::elliptic_curve::ops::{MulByGeneratorVartime, Reduce};
use k256::elliptic_curve::point::DecompressPoint;
use k256::elliptic_curve::sec1::ToSec1Point;
use k256::elliptic_curve::{Group, PrimeField};
use k256::{AffinePoint, FieldBytes, ProjectivePoint, Scalar};

/// The account whose key made `signature` over `digest`, or `None` if there is none.
///
/// Nearly every well-formed signature recovers to *some* address: only comparing it with the payer's means anything.
/// As `ecrecover` does (yellow paper, appendix F): Q = r⁻¹(sR − zG). The digest, r and s are public, so the
/// faster arithmetic that takes longer for some numbers than for others is safe.
pub fn recover(digest: &[u8; 32], signature: &Signature) -> Option<Address> {
    let r = Scalar::from_repr((*signature.r()).into()).into_option()?;
    let s = Scalar::from_repr((*signature.s()).into()).into_option()?;
    let z = <Scalar as Reduce<FieldBytes>>::reduce(&(*digest).into());
    let odd = u8::from(signature.y_parity()).into();
    // R's x is r itself: an x of the order or more needs a `v` above 28, which is refused.
    let point = AffinePoint::decompress(&(*signature.r()).into(), odd).into_option()?;

    let inverse = r.invert_vartime().into_option()?;
    let of_generator = inverse.mul(&z).negate();
    let of_point = inverse.mul(&s);
    let key = ProjectivePoint::mul_by_generator_and_mul_add_vartime(&of_generator, &of_point, &point.into());
    if bool::from(key.is_identity()) {
        return None;
    }
    // 0x04, then x and y.
    let encoded = key.to_affine().to_sec1_point(false);
    let (_, coordinates) = encoded.as_bytes().split_first()?;
    Some(Address::from_word(keccak256(coordinates)))
}

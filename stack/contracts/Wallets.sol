// SPDX-License-Identifier: Apache-2.0
pragma solidity ^0.8.20;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";
import {SignatureChecker} from "@openzeppelin/contracts/utils/cryptography/SignatureChecker.sol";

/// A smart-contract wallet whose owner, in storage slot 0, signs for it (ERC-1271).
/// Bytes after the first 65 are ignored, so that tests can also send signatures that no key alone would make.
contract Wallet1271 {
    address public owner;

    function isValidSignature(bytes32 hash, bytes calldata signature) external view returns (bytes4) {
        if (signature.length < 65) return 0xffffffff;
        (address signer, ECDSA.RecoverError problem,) = ECDSA.tryRecover(hash, signature[:65]);
        return problem == ECDSA.RecoverError.NoError && signer == owner ? this.isValidSignature.selector : bytes4(0xffffffff);
    }
}

/// What some facilitators ask, in one call, whether a key or a deployed wallet signed. Deploys nothing.
contract SignatureValidator {
    function isValidSig(address signer, bytes32 hash, bytes calldata signature) public view returns (bool) {
        return SignatureChecker.isValidSignatureNow(signer, hash, signature);
    }

    function isValidSigWithSideEffects(address signer, bytes32 hash, bytes calldata signature)
        external view returns (bool)
    {
        return isValidSig(signer, hash, signature);
    }
}

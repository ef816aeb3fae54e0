// Who is who on the local chain: anvil's well-known accounts, and the addresses that x402 clients expect.
// The keys are public; they are worth nothing anywhere else.

import { toHex } from "viem";
import { mnemonicToAccount } from "viem/accounts";

const MNEMONIC = "test test test test test test test test test test test junk";
export const ACCOUNTS = 20;

const account = addressIndex => {
  const hd = mnemonicToAccount(MNEMONIC, { addressIndex });
  return { address: hd.address, key: toHex(hd.getHdKey().privateKey) };
};

export const roles = {
  deployer: account(0),
  facilitator: account(1), // the TypeScript facilitator
  client: account(2), // has tokens and has let Permit2 use them
  payTo: account(3),
  walletOwner: account(4), // signs for the ERC-1271 wallet
  penniless: account(5), // has no tokens
  withoutPermit2: account(6), // has tokens, has never heard of Permit2
  facilitatorPy: account(7),
  facilitatorPermit: account(8),
  facilitatorRs: account(9),
};
// As `client`, for tests that must not share a balance.
export const clients = Array.from({ length: ACCOUNTS - 10 }, (_, i) => account(10 + i));

export const contracts = {
  permit2: "0x000000000022D473030F116dDEE9F6B43aC78BA3",
  exactProxy: "0x402085c248EeA27D92E8b30b2C58ed07f9E20001",
  uptoProxy: "0x4020A4f3b7b90ccA423B9fabCc0CE57C6C240002",
  multicall3: "0xcA11bde05977b3631167028862bE2a173976CA11",
  signatureValidator: "0xdAcD51A54883eb67D95FAEb2BBfdC4a9a6BD2a3B",
  wallet1271: "0x1271000000000000000000000000000000001271",
};

// Circle's addresses; the name is part of what a payer signs, and Base's differs.
export const chains = {
  84532: { network: "eip155:84532", v1: "base-sepolia", usdc: "0x036CbD53842c5426634e7929541eC2318f3dCF7e", name: "USDC" },
  8453: { network: "eip155:8453", v1: "base", usdc: "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", name: "USD Coin" },
};

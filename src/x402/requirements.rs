//! Payment requirements: an offer as v2 and v1 write it, and whether what a client accepted is that offer.
//!
//! Source: x402 v2 "PaymentRequirements", x402 v1 "PaymentRequirements", `scheme_exact_evm`, `scheme_upto_evm`, `scheme_exact_svm`.

use std::borrow::Cow;

use serde::Serialize;

use crate::pricing::{Atomic, Offer, Scheme, Transfer};

/// An offer with what has to be known of a facilitator to quote it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payable<'a> {
    /// The offer, priced.
    pub offer: &'a Offer,
    /// Facts of the facilitator it is quoted with.
    pub facts: Facts<'a>,
}

/// What an offer needs to be told besides the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Facts<'a> {
    /// `upto` with Permit2: the account that may settle; from `/supported`.
    pub facilitator_address: Option<&'a str>,
    /// Solana: who pays the network's fee; from `/supported`.
    pub fee_payer: Option<&'a str>,
}

/// What a request is paid for, as requirements and challenges name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resource<'a> {
    /// From [`super::resource_url`].
    pub url: &'a str,
    /// For people; empty if there is none.
    pub description: &'a str,
    /// Of the answer; empty if not known.
    pub mime_type: &'a str,
}

/// A v2 requirement; serializes in the order of the official servers.
///
/// ```json
/// {"scheme": "exact", "network": "eip155:84532", "amount": "1000", "asset": "0x036C…", "payTo": "0x90F7…",
///  "maxTimeoutSeconds": 300, "extra": {"name": "USDC", "version": "2"}}
/// ```
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct RequirementV2<'a> {
    pub(super) scheme: &'static str,
    pub(super) network: &'a str,
    pub(super) amount: String,
    pub(super) asset: &'a str,
    pub(super) pay_to: Cow<'a, str>,
    pub(super) max_timeout_seconds: u64,
    pub(super) extra: Extra<'a>,
}

/// A v1 requirement; serializes in the order of the official servers, without `outputSchema`.
///
/// ```json
/// {"scheme": "exact", "network": "base-sepolia", "maxAmountRequired": "1000", "resource": "http://127.0.0.1:4123/exact",
///  "description": "", "mimeType": "", "payTo": "0x90F7…", "maxTimeoutSeconds": 300, "asset": "0x036C…",
///  "extra": {"name": "USDC", "version": "2"}}
/// ```
#[derive(Serialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct RequirementV1<'a> {
    scheme: &'static str,
    network: &'a str,
    max_amount_required: String,
    resource: &'a str,
    description: &'a str,
    mime_type: &'a str,
    pay_to: Cow<'a, str>,
    max_timeout_seconds: u64,
    asset: &'a str,
    extra: Extra<'a>,
}

/// `extra`, as the schemes want it.
#[derive(Serialize, Clone, PartialEq, Eq, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub(super) struct Extra<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) asset_transfer_method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    recipient_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facilitator_address: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fee_payer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payment_flow: Option<&'static str>,
}

/// In `extra`: how the token is moved; where it is not said, it is [`EIP3009`].
pub(super) const TRANSFER_METHOD: &str = "assetTransferMethod";
/// Source: `scheme_exact_evm`.
pub(super) const EIP3009: &str = "eip3009";

impl Extra<'_> {
    /// What it says, by the names it is serialized with.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'static str, &str)> {
        // Taken apart, so that no field can be left out.
        let Self {
            asset_transfer_method,
            name,
            version,
            primary_type,
            recipient_address,
            facilitator_address,
            fee_payer,
            payment_flow,
        } = *self;
        let fields = [
            (TRANSFER_METHOD, asset_transfer_method),
            ("name", name),
            ("version", version),
            ("primaryType", primary_type),
            ("recipientAddress", recipient_address),
            ("facilitatorAddress", facilitator_address),
            ("feePayer", fee_payer),
            ("paymentFlow", payment_flow),
        ];
        fields.into_iter().filter_map(|(key, value)| Some((key, value?)))
    }
}

impl<'a> Payable<'a> {
    /// Whether all facts that the offer needs are known; without them it must not be quoted.
    pub fn ready(&self) -> bool {
        match (&self.offer.transfer, self.offer.scheme) {
            (Transfer::Permit2, Scheme::Upto) => self.facts.facilitator_address.is_some(),
            (Transfer::Solana, _) => self.facts.fee_payer.is_some(),
            _ => true,
        }
    }

    /// The v2 requirement over the offer's amount; `None` for a Permit offer, which v2 has no words for.
    pub fn v2(&self) -> Option<RequirementV2<'a>> {
        self.v2_for(self.offer.amount)
    }

    /// The v2 requirement over another amount: what an `upto` settlement actually charges.
    pub fn v2_for(&self, amount: Atomic) -> Option<RequirementV2<'a>> {
        if matches!(self.offer.transfer, Transfer::Permit { .. }) {
            return None;
        }
        Some(RequirementV2 {
            scheme: self.scheme(),
            network: self.offer.asset.network.as_str(),
            amount: amount.0.to_string(),
            asset: &self.offer.asset.address,
            pay_to: self.pay_to(),
            max_timeout_seconds: self.offer.max_timeout_seconds,
            extra: self.extra(),
        })
    }

    /// The v1 requirement over the offer's amount.
    pub fn v1(&self, resource: &Resource<'a>) -> RequirementV1<'a> {
        self.v1_for(self.offer.amount, resource)
    }

    /// The v1 requirement over another amount.
    pub fn v1_for(&self, amount: Atomic, resource: &Resource<'a>) -> RequirementV1<'a> {
        RequirementV1 {
            scheme: self.scheme(),
            network: self.offer.asset.network.v1_name(),
            max_amount_required: amount.0.to_string(),
            resource: resource.url,
            description: resource.description,
            mime_type: resource.mime_type,
            pay_to: self.pay_to(),
            max_timeout_seconds: self.offer.max_timeout_seconds,
            asset: &self.offer.asset.address,
            extra: self.extra(),
        }
    }

    fn scheme(&self) -> &'static str {
        match self.offer.scheme {
            Scheme::Exact => "exact",
            Scheme::Upto => "upto",
        }
    }

    /// Who the signed transfer names: the seller, or in a Permit the spender.
    fn pay_to(&self) -> Cow<'a, str> {
        match &self.offer.transfer {
            Transfer::Permit { spender } => spender.to_string().into(),
            _ => self.seller().into(),
        }
    }

    /// The seller's account, in a Permit too.
    pub(super) fn seller(&self) -> &'a str {
        &self.offer.seller
    }

    fn extra(&self) -> Extra<'a> {
        let domain = self.offer.asset.eip712.as_ref();
        let evm = Extra {
            name: domain.map(|domain| &*domain.name),
            version: domain.map(|domain| &*domain.version),
            payment_flow: self.offer.upfront.then_some("upfront"),
            ..Extra::default()
        };
        match &self.offer.transfer {
            Transfer::Eip3009 => evm,
            Transfer::Permit2 => Extra {
                asset_transfer_method: Some("permit2"),
                facilitator_address: match self.offer.scheme {
                    Scheme::Upto => self.facts.facilitator_address,
                    Scheme::Exact => None,
                },
                ..evm
            },
            Transfer::Permit { .. } => Extra {
                primary_type: Some("Permit"),
                recipient_address: Some(self.seller()),
                ..evm
            },
            Transfer::Solana => Extra {
                fee_payer: self.facts.fee_payer,
                payment_flow: evm.payment_flow,
                ..Extra::default()
            },
        }
    }
}

//! Tenants, their API keys, and what they have.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use super::connect::{Store, StoreError};
use super::journal::{Account, Kind, Posting, post};

/// Who has a balance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// `ten_…`
    pub id: String,
    /// For people.
    pub name: String,
    /// What can be spent, in micro-dollars.
    pub available: i64,
    /// What is held for requests under way, in micro-dollars.
    pub reserved: i64,
    /// In Unix milliseconds.
    pub created_at: i64,
}

/// An API key, without itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// `key_…`
    pub id: String,
    /// Whose.
    pub tenant: String,
    /// For people.
    pub label: String,
    /// In Unix milliseconds.
    pub created_at: i64,
    /// In Unix milliseconds.
    pub revoked_at: Option<i64>,
}

/// A key that was just made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    /// `key_…`
    pub id: String,
    /// The key, which is shown this once.
    pub key: String,
}

/// What became of an adjustment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adjusted {
    /// It is done, now or by an earlier call.
    Done {
        /// What is available, in micro-dollars.
        balance: i64,
    },
    /// There is no such tenant.
    NoTenant,
    /// The tenant has less than is to be taken.
    TooLittle {
        /// What is available, in micro-dollars.
        balance: i64,
    },
    /// Another adjustment has this reference.
    OtherReference,
}

/// SHA-256 of a key, as it is stored and sent: 64 hexadecimal digits.
pub(crate) fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}

fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).map_err(|_| StoreError::Random)?;
    Ok(bytes)
}

const TENANT: &str = "SELECT id, name, available, reserved, created_at FROM tenants";

fn tenant(row: &sqlx::any::AnyRow) -> Result<Tenant, StoreError> {
    Ok(Tenant {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        available: row.try_get(2)?,
        reserved: row.try_get(3)?,
        created_at: row.try_get(4)?,
    })
}

impl Store {
    /// Makes a tenant with nothing; gives back its id.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn create_tenant(&self, name: &str, now_ms: i64) -> Result<String, StoreError> {
        let id = format!("ten_{}", hex::encode(random::<8>()?));
        sqlx::query("INSERT INTO tenants (id, name, created_at) VALUES ($1, $2, $3)")
            .bind(&id)
            .bind(name)
            .bind(now_ms)
            .execute(&self.pool)
            .await?;
        Ok(id)
    }

    /// By id.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn tenant(&self, id: &str) -> Result<Option<Tenant>, StoreError> {
        let row = sqlx::query(&format!("{TENANT} WHERE id = $1"))
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(tenant).transpose()
    }

    /// Tenants by id, those after `after`.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn tenants(&self, after: &str, limit: i64) -> Result<Vec<Tenant>, StoreError> {
        let rows = sqlx::query(&format!("{TENANT} WHERE id > $1 ORDER BY id LIMIT $2"))
            .bind(after)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(tenant).collect()
    }

    /// Makes an API key; `None`: there is no such tenant.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn create_key(&self, tenant: &str, label: &str, now_ms: i64) -> Result<Option<NewKey>, StoreError> {
        let key = format!("x402_{}", URL_SAFE_NO_PAD.encode(random::<32>()?));
        let id = format!("key_{}", hex::encode(random::<8>()?));
        let made =
            sqlx::query("INSERT INTO api_keys (hash, id, tenant, label, created_at) SELECT $1, $2, id, $3, $4 FROM tenants WHERE id = $5")
                .bind(hash(&key))
                .bind(&id)
                .bind(label)
                .bind(now_ms)
                .bind(tenant)
                .execute(&self.pool)
                .await?;
        Ok((made.rows_affected() > 0).then_some(NewKey { id, key }))
    }

    /// A tenant's keys, the oldest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn keys(&self, tenant: &str) -> Result<Vec<Key>, StoreError> {
        let rows = sqlx::query("SELECT id, tenant, label, created_at, revoked_at FROM api_keys WHERE tenant = $1 ORDER BY created_at, id")
            .bind(tenant)
            .fetch_all(&self.pool)
            .await?;
        let read = |row: &sqlx::any::AnyRow| {
            Ok(Key {
                id: row.try_get(0)?,
                tenant: row.try_get(1)?,
                label: row.try_get(2)?,
                created_at: row.try_get(3)?,
                revoked_at: Some(row.try_get(4)?).filter(|at| *at != 0),
            })
        };
        rows.iter().map(read).collect()
    }

    /// Ends a key's use at once; whether there was one that could be used.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn revoke_key(&self, id: &str, now_ms: i64) -> Result<bool, StoreError> {
        let revoked = sqlx::query("UPDATE api_keys SET revoked_at = $2 WHERE id = $1 AND revoked_at = 0")
            .bind(id)
            .bind(now_ms)
            .execute(&self.pool)
            .await?;
        Ok(revoked.rows_affected() > 0)
    }

    /// Whose key this is the SHA-256 of, in hexadecimal; `None` for one that is unknown or revoked.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn tenant_of(&self, hash: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT tenant FROM api_keys WHERE hash = $1 AND revoked_at = 0")
            .bind(hash)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Whose key this is or was.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn tenant_once_of(&self, hash: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT tenant FROM api_keys WHERE hash = $1")
            .bind(hash)
            .fetch_optional(&self.pool)
            .await?;
        Ok(row.map(|row| row.try_get(0)).transpose()?)
    }

    /// Gives or takes (negative) micro-dollars by hand, once per reference: said again, it is done already.
    ///
    /// # Errors
    ///
    /// [`StoreError`].
    pub async fn adjust(&self, tenant: &str, amount: i64, reference: &str, reason: &str, now_ms: i64) -> Result<Adjusted, StoreError> {
        let mut tx = self.begin().await?;
        // Locked before it is read.
        let row = sqlx::query("UPDATE tenants SET available = available WHERE id = $1 RETURNING available")
            .bind(tenant)
            .fetch_optional(&mut *tx)
            .await?;
        let Some(row) = row else { return Ok(Adjusted::NoTenant) };
        let before: i64 = row.try_get(0)?;
        let written = sqlx::query("SELECT tenant, debit, amount FROM credit_transactions WHERE kind = 'adjustment' AND reference = $1")
            .bind(reference)
            .fetch_optional(&mut *tx)
            .await?;
        if let Some(written) = written {
            let (of, debit, moved): (String, String, i64) = (written.try_get(0)?, written.try_get(1)?, written.try_get(2)?);
            let signed = if debit == "available" { moved.saturating_neg() } else { moved };
            return Ok(if of == tenant && signed == amount {
                Adjusted::Done { balance: before }
            } else {
                Adjusted::OtherReference
            });
        }
        let Some(balance) = before.checked_add(amount).filter(|balance| *balance >= 0) else {
            return Ok(Adjusted::TooLittle { balance: before });
        };
        sqlx::query("UPDATE tenants SET available = $2 WHERE id = $1")
            .bind(tenant)
            .bind(balance)
            .execute(&mut *tx)
            .await?;
        let (debit, credit) = if amount < 0 {
            (Account::Available, Account::Adjustments)
        } else {
            (Account::Adjustments, Account::Available)
        };
        let posting = Posting {
            tenant,
            kind: Kind::Adjustment,
            debit,
            credit,
            amount: amount.saturating_abs(),
            balance_after: balance,
            reference,
            payment: reason,
            now_ms,
        };
        post(&mut tx, &posting).await?;
        tx.commit().await?;
        Ok(Adjusted::Done { balance })
    }
}

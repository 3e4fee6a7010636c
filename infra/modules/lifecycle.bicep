// What the account does to blobs by itself. It knows ages and prefixes and nothing of chains, so it
// only moves what is old to cheaper tiers; `pgkeep expire` deletes. The rules that delete are a far
// backstop, for blobs that nobody looks after any more. The guard judges all of it each hour
// (docs/how-to/guard-the-lifecycle.md).
//
// Never to the archive tier: accounts that keep zones have none (access-tiers-overview), and what
// lies there takes up to 15 hours to be read.

@description('Name of the account with the backups.')
param accountName string

@description('Days for which full backups are kept, as in pgkeep.toml.')
@minValue(1)
param fullDays int = 28

@description('Days for which WAL is kept.')
@minValue(1)
param walDays int = 28

@description('Days for which incremental backups are kept.')
@minValue(1)
param incrementalDays int = 7

@description('Days for which dumps are kept.')
@minValue(1)
param dumpDays int = 28

@description('Days that the longest chain adds: from a full backup to its last incremental one.')
@minValue(1)
param chainDays int = 7

@description('Age in days at which full backups move to the cool tier, which costs less to keep and more to read; 0: never.')
@minValue(0)
param coolAfterDays int = 14

@description('What the backstop adds to retention and chain, in days, before it deletes.')
@minValue(30)
param backstopDays int = 365

@description('Age in days at which an earlier version of a blob goes. It counts from the upload, so the version that `expire` leaves is mostly old enough at once: then soft delete is the second chance.')
@minValue(7)
param versionDays int = 30

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: accountName
}

// No backstop for `evidence`: it holds the keys of everything, and cluster identities.
var backstops = {
  full: fullDays + chainDays + backstopDays
  incremental: incrementalDays + chainDays + backstopDays
  wal: walDays + chainDays + backstopDays
  dump: dumpDays + chainDays + backstopDays
}

var deletions = [for item in items(backstops): {
  name: 'backstop-${item.key}'
  enabled: true
  type: 'Lifecycle'
  definition: {
    filters: {
      blobTypes: [
        'blockBlob'
      ]
      prefixMatch: [
        '${item.key}/'
      ]
    }
    actions: {
      baseBlob: {
        delete: {
          daysAfterModificationGreaterThan: item.value
        }
      }
      version: {
        delete: {
          daysAfterCreationGreaterThan: versionDays
        }
      }
    }
  }
}]

// Not WAL: each of its many blobs would cost a write in the cool tier, and be charged for 30 days
// there although it goes before (access-tiers-overview): that eats up what is saved.
var cooling = [
  {
    name: 'cool'
    enabled: true
    type: 'Lifecycle'
    definition: {
      filters: {
        blobTypes: [
          'blockBlob'
        ]
        prefixMatch: [
          'full/'
        ]
      }
      actions: {
        baseBlob: {
          tierToCool: {
            daysAfterModificationGreaterThan: coolAfterDays
          }
        }
      }
    }
  }
]

// Leases are rewritten for ever, and each rewriting leaves a version.
var leases = [
  {
    name: 'versions-of-leases'
    enabled: true
    type: 'Lifecycle'
    definition: {
      filters: {
        blobTypes: [
          'blockBlob'
        ]
        prefixMatch: [
          'state/'
        ]
      }
      actions: {
        version: {
          delete: {
            daysAfterCreationGreaterThan: 1
          }
        }
      }
    }
  }
]

resource policy 'Microsoft.Storage/storageAccounts/managementPolicies@2025-01-01' = {
  parent: account
  name: 'default'
  properties: {
    policy: {
      rules: concat(deletions, leases, coolAfterDays > 0 ? cooling : [])
    }
  }
}

// The account that holds the only copy: nothing in it is ever overwritten, and nothing that is
// younger than its container's retention policy can be deleted, by anybody.

@description('Region of the account.')
param location string

@description('Tags of every resource.')
param tags object

@description('Name of the account.')
@minLength(3)
@maxLength(24)
param accountName string

@description('Copies. Readable copies in a second region (RA) let drills and restores go on when the first is lost.')
@allowed([
  'Standard_LRS'
  'Standard_ZRS'
  'Standard_GRS'
  'Standard_RAGRS'
  'Standard_GZRS'
  'Standard_RAGZRS'
])
param redundancy string = 'Standard_RAGZRS'

@description('Days for which the blobs of each container with backups can be neither changed nor deleted: at least retention and the longest chain.')
param immutabilityDays object = {
  full: 35
  incremental: 14
  wal: 35
  dump: 35
  evidence: 400
}

@description('Whether the retention policies are locked. Azure then takes no change of them but a longer term, which no template can give.')
param immutabilityLocked bool = false

@description('Days for which deleted blobs and containers can be brought back.')
@minValue(7)
@maxValue(365)
param softDeleteDays int = 14

@description('Whether only private endpoints, and the subnets and addresses below, reach the account; else everybody who has the right.')
param denyByDefault bool = false

@description('Ids of subnets that may reach the account; of use when everything else is denied.')
param allowedSubnetIds array = []

@description('Addresses or ranges that may reach the account, such as of servers outside Azure.')
param allowedIpRanges array = []

@description('Vault with the key that encrypts the account, beside our own encryption; empty: Microsoft manages the key.')
param encryptionVaultUri string = ''

@description('Name of that key; its newest version is used.')
param encryptionKeyName string = ''

@description('Id of the identity that may wrap and unwrap with that key; needed with a key.')
param encryptionIdentityId string = ''

@description('Id of the Log Analytics workspace for the log of every access.')
param workspaceId string

var ownKey = !empty(encryptionVaultUri)

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' = {
  name: accountName
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: redundancy
  }
  identity: ownKey ? {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${encryptionIdentityId}': {}
    }
  } : {
    type: 'None'
  }
  properties: {
    accessTier: 'Hot'
    allowSharedKeyAccess: false
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    // Disabled would also shut out Azure's own services, which `bypass` lets in.
    publicNetworkAccess: 'Enabled'
    networkAcls: {
      defaultAction: denyByDefault ? 'Deny' : 'Allow'
      // Event Grid must reach the dead-letter container.
      bypass: 'AzureServices'
      virtualNetworkRules: [for id in allowedSubnetIds: {
        id: id
        action: 'Allow'
      }]
      ipRules: [for range in allowedIpRanges: {
        value: range
        action: 'Allow'
      }]
    }
    encryption: {
      // Can be chosen only when the account is made.
      requireInfrastructureEncryption: true
      keySource: ownKey ? 'Microsoft.Keyvault' : 'Microsoft.Storage'
      keyvaultproperties: ownKey ? {
        keyvaulturi: encryptionVaultUri
        keyname: encryptionKeyName
      } : null
      identity: ownKey ? {
        userAssignedIdentity: encryptionIdentityId
      } : null
      services: {
        blob: {
          enabled: true
          keyType: 'Account'
        }
      }
    }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-01-01' = {
  parent: account
  name: 'default'
  properties: {
    isVersioningEnabled: true
    deleteRetentionPolicy: {
      enabled: true
      days: softDeleteDays
    }
    containerDeleteRetentionPolicy: {
      enabled: true
      days: softDeleteDays
    }
  }
}

resource containers 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' = [for item in items(immutabilityDays): {
  parent: blobs
  name: item.key
  properties: {
    publicAccess: 'None'
  }
}]

// Unlocked: whoever may write it may withdraw it. infra/hooks/lock-immutability makes it final. From
// then on a deployment must leave it alone: the only action on a locked policy is to extend it
// (rest/api/storagerp/blob-containers/extend-immutability-policy).
resource immutability 'Microsoft.Storage/storageAccounts/blobServices/containers/immutabilityPolicies@2025-01-01' = [for (item, index) in items(immutabilityDays): if (!immutabilityLocked) {
  parent: containers[index]
  name: 'default'
  properties: {
    immutabilityPeriodSinceCreationInDays: item.value
    // No blob of ours is ever appended to.
    allowProtectedAppendWrites: false
  }
}]

// Leases: the one container whose blobs change.
resource state 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' = {
  parent: blobs
  name: 'state'
  properties: {
    publicAccess: 'None'
  }
}

// Events that the function app did not take; Event Grid writes them.
resource deadLetters 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' = {
  parent: blobs
  name: 'eventgrid-dead-letter'
  properties: {
    publicAccess: 'None'
  }
}

resource queues 'Microsoft.Storage/storageAccounts/queueServices@2025-01-01' = {
  parent: account
  name: 'default'
}

// Where the Functions host puts events whose documents it could not take in: always in the account
// of the trigger (functions-bindings-storage-blob-trigger, "Poison blobs").
resource poisonedBlobs 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-01-01' = {
  parent: queues
  name: 'webjobs-blobtrigger-poison'
}

resource accesses 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: blobs
  name: 'accesses'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'StorageRead'
        enabled: true
      }
      {
        category: 'StorageWrite'
        enabled: true
      }
      {
        category: 'StorageDelete'
        enabled: true
      }
    ]
    metrics: [
      {
        category: 'Transaction'
        enabled: true
      }
    ]
  }
}

@description('Name of the account.')
output accountName string = account.name

@description('Resource id of the account.')
output accountId string = account.id

@description('Blob endpoint, without a slash at its end.')
output blobEndpoint string = 'https://${account.name}.blob.${environment().suffixes.storage}'

@description('Queue endpoint, without a slash at its end.')
output queueEndpoint string = 'https://${account.name}.queue.${environment().suffixes.storage}'

// The account of the function app and of the queues. It holds no backup and no key: its content can
// be made anew from a deployment, and the jobs in its queues from the catalogue.

@description('Region of the account.')
param location string

@description('Tags of every resource.')
param tags object

@description('Name of the account.')
@minLength(3)
@maxLength(24)
param accountName string

@description('Copies of what can be made anew.')
@allowed([
  'Standard_LRS'
  'Standard_ZRS'
])
param redundancy string = 'Standard_ZRS'

@description('Whether only private endpoints, and the subnets and addresses below, reach the account; else everybody who has the right.')
param denyByDefault bool = false

@description('Ids of subnets that may reach the account; of use when everything else is denied.')
param allowedSubnetIds array = []

@description('Addresses or ranges that may reach the account, such as of who deploys.')
param allowedIpRanges array = []

@description('Names of the queues: shared/jobs/messages.py has the list.')
param queueNames array = [
  'pgkeep-backup'
  'pgkeep-restore'
  'pgkeep-expire'
  'pgkeep-maintenance'
  'pgkeep-backup-poison'
  'pgkeep-restore-poison'
  'pgkeep-expire-poison'
  'pgkeep-maintenance-poison'
  'pgkeep-events'
  'pgkeep-wal-events'
  'pgkeep-events-poison'
  'pgkeep-wal-events-poison'
]

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' = {
  name: accountName
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: redundancy
  }
  properties: {
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
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-01-01' = {
  parent: account
  name: 'default'
  properties: {
    // A settings document that was overwritten by mistake can be had back.
    isVersioningEnabled: true
    deleteRetentionPolicy: {
      enabled: true
      days: 7
    }
    containerDeleteRetentionPolicy: {
      enabled: true
      days: 7
    }
  }
}

// The package of the function app.
resource deployments 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' = {
  parent: blobs
  name: 'deployments'
  properties: {
    publicAccess: 'None'
  }
}

// pgkeep.toml, for every process.
resource settings 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' = {
  parent: blobs
  name: 'settings'
  properties: {
    publicAccess: 'None'
  }
}

resource queueService 'Microsoft.Storage/storageAccounts/queueServices@2025-01-01' = {
  parent: account
  name: 'default'
}

resource queues 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-01-01' = [for name in queueNames: {
  parent: queueService
  name: name
}]

var suffix = environment().suffixes.storage

@description('Name of the account.')
output accountName string = account.name

@description('Resource id of the account.')
output accountId string = account.id

@description('Blob endpoint, without a slash at its end.')
output blobEndpoint string = 'https://${account.name}.blob.${suffix}'

@description('Queue endpoint, without a slash at its end.')
output queueEndpoint string = 'https://${account.name}.queue.${suffix}'

@description('Table endpoint, without a slash at its end.')
output tableEndpoint string = 'https://${account.name}.table.${suffix}'

@description('Where the package of the function app lies.')
output deploymentContainerUrl string = 'https://${account.name}.blob.${suffix}/deployments'

@description('Where every process reads its settings: PGKEEP_CONFIG.')
output settingsUrl string = 'https://${account.name}.blob.${suffix}/settings/pgkeep.toml'

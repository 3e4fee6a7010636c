// Who may do what, and where: the table of docs/how-to/azure-permissions.md. Rights are given on a
// container, a queue or a key, and on a whole account only where Azure knows nothing narrower.

@description('Name of the account with the backups.')
param backupAccountName string

@description('Name of the account of the function app and the queues.')
param hostAccountName string

@description('Name of the vault.')
param vaultName string

@description('Name of the Application Insights that everybody sends telemetry to.')
param appInsightsName string

@description('Name of the registry with the image.')
param registryName string

@description('Object ids: writer, walWriter, restore, reaper, maintenance, control.')
param principals object

@description('Object id of the identity of the Event Grid topic.')
param topicPrincipalId string

@description('Ids of the custom roles: the outputs of roles.bicep, by their names.')
param roles object

var builtIn = 'Microsoft.Authorization/roleDefinitions'

// https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
var blobDataReader = subscriptionResourceId(builtIn, '2a2b9908-6ea1-4ae2-8e65-a410df84e7d1')
var blobDataContributor = subscriptionResourceId(builtIn, 'ba92f5b4-2d11-453d-a403-e96b0029c9fe')
var blobDataOwner = subscriptionResourceId(builtIn, 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b')
var queueDataContributor = subscriptionResourceId(builtIn, '974c5e8b-45b9-4653-ba55-5f855dd0fb88')
var queueMessageSender = subscriptionResourceId(builtIn, 'c6a89b2d-59bc-44d0-9896-0f6e12d7b80a')
var tableDataContributor = subscriptionResourceId(builtIn, '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3')
var metricsPublisher = subscriptionResourceId(builtIn, '3913510d-42f4-4e42-8a64-420c390055eb')
var secretsUser = subscriptionResourceId(builtIn, '4633458b-17de-408a-b874-0445c86b69e6')
var acrPull = subscriptionResourceId(builtIn, '7f951dda-4ed3-4680-a7ca-43fe172d538d')

var onContainers = [
  { who: principals.writer, container: 'full', role: roles.uploadBlobs }
  { who: principals.writer, container: 'incremental', role: roles.uploadBlobs }
  { who: principals.writer, container: 'wal', role: roles.readBlobs }
  { who: principals.writer, container: 'state', role: roles.holdLeases }
  { who: principals.walWriter, container: 'wal', role: roles.addBlobs }
  { who: principals.walWriter, container: 'state', role: roles.holdLeases }
  { who: principals.restore, container: 'full', role: roles.readBlobs }
  { who: principals.restore, container: 'incremental', role: roles.readBlobs }
  { who: principals.restore, container: 'wal', role: roles.readBlobs }
  { who: principals.restore, container: 'dump', role: roles.readBlobs }
  { who: principals.restore, container: 'state', role: roles.holdLeases }
  { who: principals.reaper, container: 'full', role: roles.deleteBlobs }
  { who: principals.reaper, container: 'incremental', role: roles.deleteBlobs }
  { who: principals.reaper, container: 'wal', role: roles.deleteBlobs }
  { who: principals.reaper, container: 'state', role: roles.holdLeases }
  { who: principals.control, container: 'full', role: roles.readBlobs }
  { who: principals.control, container: 'incremental', role: roles.readBlobs }
  { who: principals.control, container: 'wal', role: roles.readBlobs }
  { who: principals.control, container: 'dump', role: roles.readBlobs }
  { who: topicPrincipalId, container: 'eventgrid-dead-letter', role: blobDataContributor }
]

module containerRoles 'container-role.bicep' = [for (right, index) in onContainers: {
  name: 'container-role-${index}'
  params: {
    accountName: backupAccountName
    containerName: right.container
    principalId: right.who
    roleId: right.role
  }
}]

// A name in the repository belongs for ever to whoever was first. So each adds only what is its to
// say: who was taken over can then not take names in advance, such as of a key's next record.
var sealing = ['*/cluster.json', '*/keys/*']
var proving = ['*/verifications/*', '*/verified/*', '*/drills/*']
var expiring = ['*/expired/*', '*/expiries/*']
var auditing = ['_audit/*']

var inEvidence = [
  { who: principals.writer, at: sealing }
  { who: principals.walWriter, at: sealing }
  { who: principals.restore, at: proving }
  { who: principals.reaper, at: expiring }
  { who: principals.control, at: auditing }
]

module evidenceRoles 'container-role.bicep' = [for (right, index) in inEvidence: {
  name: 'evidence-role-${index}'
  params: {
    accountName: backupAccountName
    containerName: 'evidence'
    principalId: right.who
    roleId: roles.addBlobs
    addsOnlyAt: right.at
  }
}]

// Only who runs something reads how it is to run.
var readers = [
  principals.writer
  principals.walWriter
  principals.restore
  principals.reaper
  principals.maintenance
]

module settingsRoles 'container-role.bicep' = [for (reader, index) in readers: {
  name: 'settings-role-${index}'
  params: {
    accountName: hostAccountName
    containerName: 'settings'
    principalId: reader
    roleId: blobDataReader
  }
}]

// A worker renews its message while the job runs, which the role Message Processor may not.
var onQueues = [
  { who: principals.writer, queue: 'pgkeep-backup', role: queueDataContributor }
  { who: principals.writer, queue: 'pgkeep-backup-poison', role: queueMessageSender }
  { who: principals.writer, queue: 'pgkeep-events', role: queueMessageSender }
  { who: principals.restore, queue: 'pgkeep-restore', role: queueDataContributor }
  { who: principals.restore, queue: 'pgkeep-restore-poison', role: queueMessageSender }
  { who: principals.restore, queue: 'pgkeep-events', role: queueMessageSender }
  { who: principals.reaper, queue: 'pgkeep-expire', role: queueDataContributor }
  { who: principals.reaper, queue: 'pgkeep-expire-poison', role: queueMessageSender }
  { who: principals.reaper, queue: 'pgkeep-events', role: queueMessageSender }
  { who: principals.maintenance, queue: 'pgkeep-maintenance', role: queueDataContributor }
  { who: principals.maintenance, queue: 'pgkeep-maintenance-poison', role: queueMessageSender }
  { who: principals.maintenance, queue: 'pgkeep-events', role: queueMessageSender }
  { who: principals.walWriter, queue: 'pgkeep-wal-events', role: queueMessageSender }
]

module queueRoles 'queue-role.bicep' = [for (right, index) in onQueues: {
  name: 'queue-role-${index}'
  params: {
    accountName: hostAccountName
    queueName: right.queue
    principalId: right.who
    roleId: right.role
  }
}]

module poisonedBlobsRole 'queue-role.bicep' = {
  name: 'poisoned-blobs-role'
  params: {
    accountName: backupAccountName
    queueName: 'webjobs-blobtrigger-poison'
    principalId: principals.control
    roleId: queueDataContributor
  }
}

var onKeys = [
  { who: principals.writer, key: 'sign', role: roles.sign }
  { who: principals.writer, key: 'manifest', role: roles.unwrap }
  { who: principals.walWriter, key: 'sign', role: roles.sign }
  { who: principals.restore, key: 'sign', role: roles.sign }
  { who: principals.restore, key: 'wrap', role: roles.unwrap }
  { who: principals.restore, key: 'manifest', role: roles.unwrap }
  { who: principals.reaper, key: 'sign', role: roles.sign }
]

module keyRoles 'key-role.bicep' = [for (right, index) in onKeys: {
  name: 'key-role-${index}'
  params: {
    vaultName: vaultName
    keyName: right.key
    principalId: right.who
    roleId: right.role
  }
}]

resource backupAccount 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: backupAccountName
}

// Azure Resource Manager knows policies by account.
resource guard 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: backupAccount
  name: guid(backupAccount.id, principals.control, roles.readPolicies)
  properties: {
    principalId: principals.control
    principalType: 'ServicePrincipal'
    roleDefinitionId: roles.readPolicies
  }
}

resource replication 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: backupAccount
  name: guid(backupAccount.id, principals.restore, roles.readReplication)
  properties: {
    principalId: principals.restore
    principalType: 'ServicePrincipal'
    roleDefinitionId: roles.readReplication
  }
}

resource hostAccount 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: hostAccountName
}

// What the Functions host asks of its own account (functions-reference, "Connecting to host storage
// with an identity"); queues of jobs and events lie there, too.
resource host 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for role in [
  queueDataContributor
  tableDataContributor
]: {
  scope: hostAccount
  name: guid(hostAccount.id, principals.control, role)
  properties: {
    principalId: principals.control
    principalType: 'ServicePrincipal'
    roleDefinitionId: role
  }
}]

var blobs = 'Microsoft.Storage/storageAccounts/blobServices/containers/blobs'
var changes = [
  'write'
  'add/action'
  'delete'
  'deleteBlobVersion/action'
  'move/action'
]
var unchanged = [for change in changes: '!(ActionMatches{\'${blobs}/${change}\'})']

// The host owns the blobs of its account, but not pgkeep.toml: with it, who took over the function
// app could name a key of their own, to which the workers would then seal every backup.
resource hostBlobs 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: hostAccount
  name: guid(hostAccount.id, principals.control, blobDataOwner)
  properties: {
    principalId: principals.control
    principalType: 'ServicePrincipal'
    roleDefinitionId: blobDataOwner
    condition: '((${join(unchanged, ' AND ')}) OR (@Resource[Microsoft.Storage/storageAccounts/blobServices/containers:name] StringNotEquals \'settings\'))'
    conditionVersion: '2.0'
  }
}

resource appInsights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: appInsightsName
}

resource telemetry 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for who in items(principals): {
  scope: appInsights
  name: guid(appInsights.id, who.value, metricsPublisher)
  properties: {
    principalId: who.value
    principalType: 'ServicePrincipal'
    roleDefinitionId: metricsPublisher
  }
}]

resource registry 'Microsoft.ContainerRegistry/registries@2025-11-01' existing = {
  name: registryName
}

resource images 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for who in readers: {
  scope: registry
  name: guid(registry.id, who, acrPull)
  properties: {
    principalId: who
    principalType: 'ServicePrincipal'
    roleDefinitionId: acrPull
  }
}]

resource vault 'Microsoft.KeyVault/vaults@2026-02-01' existing = {
  name: vaultName
}

// The only secret will be `connections`, for keys are none to this role. Given before it is there: who
// mounts a secret must have had the right for some minutes.
resource logins 'Microsoft.Authorization/roleAssignments@2022-04-01' = [for who in [
  principals.writer
  principals.walWriter
]: {
  scope: vault
  name: guid(vault.id, who, secretsUser)
  properties: {
    principalId: who
    principalType: 'ServicePrincipal'
    roleDefinitionId: secretsUser
  }
}]

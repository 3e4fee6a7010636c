// pgkeep on Azure, in one resource group: `azd up` (docs/tutorials/deploy-to-azure.md), or
// `az deployment sub create --location <region> --parameters infra/main.bicepparam`.

targetScope = 'subscription'

@description('Name of the environment: part of every name.')
@minLength(1)
@maxLength(20)
param environmentName string

@description('Region of everything.')
@metadata({
  azd: {
    type: 'location'
  }
})
param location string

@description('Object id of the person who deploys, and may then write pgkeep.toml and read public keys; empty: nobody.')
param principalId string = ''

@description('Client id of the app registration whose roles callers of the HTTP API have.')
param authClientId string

@description('The worker\'s image in the registry, by its digest; empty: no workers yet, for the registry comes first.')
param workerImage string = ''

@description('Clusters of pgkeep.toml whose WAL is received here.')
param walClusters array = []

@description('Whether the vault has a secret `connections`: a libpq service file with which workers log in to the clusters.')
param connections bool = false

@description('Copies of the backups.')
@allowed([
  'Standard_LRS'
  'Standard_ZRS'
  'Standard_GRS'
  'Standard_RAGRS'
  'Standard_GZRS'
  'Standard_RAGZRS'
])
param redundancy string = 'Standard_RAGZRS'

@description('Days for which full backups, and the WAL to recover to any instant, are kept: as in pgkeep.toml.')
@minValue(1)
param fullDays int = 28

@description('Days for which incremental backups are kept: as in pgkeep.toml.')
@minValue(1)
param incrementalDays int = 7

@description('Days that the longest chain of incrementals adds.')
@minValue(1)
param chainDays int = 7

@description('Days for which reports and keys can be neither changed nor deleted.')
@minValue(35)
param evidenceDays int = 400

@description('A network of our own, with private endpoints of storage and keys; everything else is denied.')
param privateNetwork bool = false

@description('Addresses that reach storage and keys although everything else is denied, such as of who deploys.')
param allowedIpRanges array = []

@description('Executions at once per queue of jobs.')
@minValue(1)
@maxValue(100)
param maxExecutions int = 20

@description('Whether infra/hooks/lock-immutability has run: from then on no deployment may touch the retention policies.')
param immutabilityLocked bool = false

@description('Whether who takes backups gets the right to write, too. Only when storage refuses it blocks without: docs/how-to/azure-permissions.md.')
param blocksNeedWrite bool = false

@description('A key of our own for the encryption that storage itself does.')
param ownStorageKey bool = false

@description('Bring back the vault of an environment of this name that was torn down less than 90 days ago.')
param recoverVault bool = false

@description('Keys in a hardware security module.')
param hardwareKeys bool = false

@description('A second server of the catalogue, in another zone.')
param catalogueHighAvailability bool = false

@description('Size of the catalogue\'s server.')
param catalogueSku string = 'Standard_B1ms'

@description('Tier of that size.')
@allowed([
  'Burstable'
  'GeneralPurpose'
  'MemoryOptimized'
])
param catalogueTier string = 'Burstable'

@description('Conninfo of a catalogue that is there already, without a password; empty: a server is made.')
param catalogueDsn string = ''

@description('NFS share for drills and restores of clusters above 8 GiB: its server; empty: none. Needs the private network.')
param scratchServer string = ''

@description('Path of that share, as /account/share.')
param scratchShare string = ''

@description('Microsoft Defender for Storage on the account with the backups.')
param defender bool = false

@description('Locks against the deletion of the account with the backups and of the vault.')
param locks bool = true

@description('Days for which telemetry can be queried.')
@minValue(30)
@maxValue(730)
param telemetryDays int = 90

@description('Addresses that get a mail when an alert begins and when it is over.')
param alertEmails array = []

@description('Address that gets a POST for the same, with what authenticates it; empty: none.')
@secure()
param alertWebhook string = ''

@description('Where people find the runbooks: an address, or the folder in the repository.')
param runbooks string = 'docs/runbooks'

var token = toLower(uniqueString(subscription().id, environmentName, location))
var prefix = 'pgkeep-${environmentName}'
var tags = {
  'azd-env-name': environmentName
  product: 'pgkeep'
}

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: 'rg-${prefix}'
  location: location
  tags: tags
}

module monitoring 'modules/monitoring.bicep' = {
  scope: group
  name: 'monitoring'
  params: {
    location: location
    tags: tags
    workspaceName: 'log-${prefix}'
    appInsightsName: 'appi-${prefix}'
    retentionDays: telemetryDays
  }
}

module identities 'modules/identities.bicep' = {
  scope: group
  name: 'identities'
  params: {
    location: location
    tags: tags
    prefix: 'id-${prefix}'
  }
}

module network 'modules/network.bicep' = if (privateNetwork) {
  scope: group
  name: 'network'
  params: {
    location: location
    tags: tags
    networkName: 'vnet-${prefix}'
  }
}

module backupStorage 'modules/backup-storage.bicep' = {
  scope: group
  name: 'backup-storage'
  params: {
    location: location
    tags: tags
    accountName: 'stbackup${token}'
    redundancy: redundancy
    immutabilityDays: {
      full: fullDays + chainDays
      incremental: incrementalDays + chainDays
      wal: fullDays + chainDays
      dump: fullDays + chainDays
      evidence: evidenceDays
    }
    immutabilityLocked: immutabilityLocked
    denyByDefault: privateNetwork
    allowedIpRanges: allowedIpRanges
    encryptionVaultUri: ownStorageKey ? keyVault.outputs.vaultUri : ''
    encryptionKeyName: ownStorageKey ? storageEncryption.outputs.keyName : ''
    encryptionIdentityId: ownStorageKey ? storageEncryption.outputs.identityId : ''
    workspaceId: monitoring.outputs.workspaceId
  }
}

module lifecycle 'modules/lifecycle.bicep' = {
  scope: group
  name: 'lifecycle'
  params: {
    accountName: backupStorage.outputs.accountName
    fullDays: fullDays
    walDays: fullDays
    incrementalDays: incrementalDays
    dumpDays: fullDays
    chainDays: chainDays
  }
}

module hostStorage 'modules/host-storage.bicep' = {
  scope: group
  name: 'host-storage'
  params: {
    location: location
    tags: tags
    accountName: 'sthost${token}'
    denyByDefault: privateNetwork
    allowedIpRanges: allowedIpRanges
  }
}

module keyVault 'modules/key-vault.bicep' = {
  scope: group
  name: 'key-vault'
  params: {
    location: location
    tags: tags
    vaultName: 'kv-${token}'
    sku: hardwareKeys ? 'premium' : 'standard'
    recover: recoverVault
    denyByDefault: privateNetwork
    allowedIpRanges: allowedIpRanges
    workspaceId: monitoring.outputs.workspaceId
  }
}

module storageEncryption 'modules/storage-encryption.bicep' = if (ownStorageKey) {
  scope: group
  name: 'storage-encryption'
  params: {
    location: location
    tags: tags
    identityName: 'id-${prefix}-storage'
    vaultName: keyVault.outputs.vaultName
  }
}

module privateAccess 'modules/private-access.bicep' = if (privateNetwork) {
  scope: group
  name: 'private-access'
  params: {
    location: location
    tags: tags
    prefix: 'pe-${prefix}'
    networkId: network.outputs.networkId
    subnetId: network.outputs.endpointsSubnetId
    backupAccountId: backupStorage.outputs.accountId
    secondary: startsWith(redundancy, 'Standard_RA')
    hostAccountId: hostStorage.outputs.accountId
    vaultId: keyVault.outputs.vaultId
  }
}

module registry 'modules/registry.bicep' = {
  scope: group
  name: 'registry'
  params: {
    location: location
    tags: tags
    registryName: 'cr${token}'
  }
}

module eventTopic 'modules/event-topic.bicep' = {
  scope: group
  name: 'event-topic'
  params: {
    location: location
    tags: tags
    topicName: 'evgt-${prefix}'
    backupAccountId: backupStorage.outputs.accountId
  }
}

module roles 'modules/roles.bicep' = {
  scope: group
  name: 'roles'
  params: {
    prefix: prefix
    blocksNeedWrite: blocksNeedWrite
  }
}

module roleAssignments 'modules/role-assignments.bicep' = {
  scope: group
  name: 'role-assignments'
  params: {
    backupAccountName: backupStorage.outputs.accountName
    hostAccountName: hostStorage.outputs.accountName
    vaultName: keyVault.outputs.vaultName
    appInsightsName: monitoring.outputs.appInsightsName
    registryName: registry.outputs.registryName
    principals: {
      writer: identities.outputs.writerPrincipalId
      walWriter: identities.outputs.walWriterPrincipalId
      restore: identities.outputs.restorePrincipalId
      reaper: identities.outputs.reaperPrincipalId
      maintenance: identities.outputs.maintenancePrincipalId
      control: identities.outputs.controlPrincipalId
    }
    topicPrincipalId: eventTopic.outputs.principalId
    roles: {
      addBlobs: roles.outputs.addBlobsId
      uploadBlobs: roles.outputs.uploadBlobsId
      readBlobs: roles.outputs.readBlobsId
      deleteBlobs: roles.outputs.deleteBlobsId
      holdLeases: roles.outputs.holdLeasesId
      readPolicies: roles.outputs.readPoliciesId
      readReplication: roles.outputs.readReplicationId
      sign: roles.outputs.signId
      unwrap: roles.outputs.unwrapId
    }
  }
}

module deployerRoles 'modules/deployer-roles.bicep' = if (!empty(principalId)) {
  scope: group
  name: 'deployer-roles'
  params: {
    principalId: principalId
    hostAccountName: hostStorage.outputs.accountName
    vaultName: keyVault.outputs.vaultName
  }
}

module catalogue 'modules/catalogue.bicep' = if (empty(catalogueDsn)) {
  scope: group
  name: 'catalogue'
  params: {
    location: location
    tags: tags
    serverName: 'psql-${prefix}-${token}'
    skuName: catalogueSku
    skuTier: catalogueTier
    highAvailability: catalogueHighAvailability ? 'ZoneRedundant' : 'Disabled'
    controlName: identities.outputs.controlName
    controlPrincipalId: identities.outputs.controlPrincipalId
    subnetId: privateNetwork ? network.outputs.postgresqlSubnetId : ''
    networkId: privateNetwork ? network.outputs.networkId : ''
  }
}

// What every process is told; who it is follows with each of them.
var everybody = {
  PGKEEP_CONFIG: hostStorage.outputs.settingsUrl
  PGKEEP_IDENTITY__KIND: 'managed-identity'
  PGKEEP_REPOSITORY__TYPE: 'azure'
  PGKEEP_REPOSITORY__ACCOUNT_URL: backupStorage.outputs.blobEndpoint
  PGKEEP_QUEUES__ACCOUNT_URL: hostStorage.outputs.queueEndpoint
}
var secondRegion = startsWith(redundancy, 'Standard_RA') ? {
  PGKEEP_REPOSITORY__SECONDARY_URL: 'auto'
} : {}
var common = union(everybody, secondRegion)
var worker = union(common, {
  APPLICATIONINSIGHTS_CONNECTION_STRING: monitoring.outputs.connectionString
})

module functionApp 'modules/function-app.bicep' = {
  scope: group
  name: 'function-app'
  params: {
    location: location
    tags: tags
    appName: 'func-${prefix}-${token}'
    planName: 'plan-${prefix}'
    identityId: identities.outputs.controlId
    identityClientId: identities.outputs.controlClientId
    hostEndpoints: {
      blob: hostStorage.outputs.blobEndpoint
      queue: hostStorage.outputs.queueEndpoint
      table: hostStorage.outputs.tableEndpoint
    }
    deploymentContainerUrl: hostStorage.outputs.deploymentContainerUrl
    backupEndpoints: {
      blob: backupStorage.outputs.blobEndpoint
      queue: backupStorage.outputs.queueEndpoint
    }
    settings: union(common, {
      PGKEEP_IDENTITY__CLIENT_ID: identities.outputs.controlClientId
      PGKEEP_CATALOGUE__DSN: empty(catalogueDsn) ? catalogue.outputs.dsn : catalogueDsn
      PGKEEP_CATALOGUE__ENTRA: '{}'
      PGKEEP_ACCESS__TYPE: 'easy-auth'
      PGKEEP_ACCESS__TENANT_ID: tenant().tenantId
      PGKEEP_ACCESS__AUDIENCES: '["${authClientId}", "api://${authClientId}"]'
      PGKEEP_ACCOUNT__TYPE: 'arm'
      PGKEEP_ACCOUNT__SUBSCRIPTION_ID: subscription().subscriptionId
      PGKEEP_ACCOUNT__RESOURCE_GROUP: group.name
      PGKEEP_ACCOUNT__NAME: backupStorage.outputs.accountName
    })
    connectionString: monitoring.outputs.connectionString
    tenantId: tenant().tenantId
    authClientId: authClientId
    subnetId: privateNetwork ? network.outputs.functionsSubnetId : ''
    workspaceId: monitoring.outputs.workspaceId
  }
  dependsOn: [
    roleAssignments
    privateAccess
  ]
}

module workerEnvironment 'modules/worker-environment.bicep' = {
  scope: group
  name: 'worker-environment'
  params: {
    location: location
    tags: tags
    environmentName: 'cae-${prefix}'
    subnetId: privateNetwork ? network.outputs.workersSubnetId : ''
    zoneRedundant: privateNetwork
    nfsServer: scratchServer
    nfsShareName: scratchShare
    workspaceName: monitoring.outputs.workspaceName
  }
}

var connectionsUrl = connections ? '${keyVault.outputs.vaultUri}secrets/connections' : ''

// One job per queue, each as somebody else. What drills and restores unpack needs room.
var queues = [
  'pgkeep-backup'
  'pgkeep-restore'
  'pgkeep-expire'
  'pgkeep-maintenance'
]
var jobs = {
  'pgkeep-backup': {
    identityId: identities.outputs.writerId
    clientId: identities.outputs.writerClientId
    connectionsUrl: connectionsUrl
    scratchStorage: ''
    cpu: '2.0'
    memory: '4Gi'
  }
  'pgkeep-restore': {
    identityId: identities.outputs.restoreId
    clientId: identities.outputs.restoreClientId
    connectionsUrl: ''
    scratchStorage: workerEnvironment.outputs.scratchStorage
    cpu: '2.0'
    memory: '4Gi'
  }
  'pgkeep-expire': {
    identityId: identities.outputs.reaperId
    clientId: identities.outputs.reaperClientId
    connectionsUrl: ''
    scratchStorage: ''
    cpu: '0.5'
    memory: '1Gi'
  }
  'pgkeep-maintenance': {
    identityId: identities.outputs.maintenanceId
    clientId: identities.outputs.maintenanceClientId
    connectionsUrl: ''
    scratchStorage: ''
    cpu: '0.5'
    memory: '1Gi'
  }
}

module workerJobs 'modules/worker-job.bicep' = [for queue in queues: if (!empty(workerImage)) {
  scope: group
  name: '${queue}-job'
  params: {
    location: location
    tags: tags
    jobName: queue
    environmentId: workerEnvironment.outputs.environmentId
    queueName: queue
    queueAccountName: hostStorage.outputs.accountName
    identityId: jobs[queue].identityId
    registryServer: registry.outputs.loginServer
    image: workerImage
    settings: union(worker, {
      PGKEEP_IDENTITY__CLIENT_ID: jobs[queue].clientId
      PGKEEP_DRILL__SCRATCH: '/scratch'
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${jobs[queue].clientId};Authorization=AAD'
    })
    connectionsUrl: jobs[queue].connectionsUrl
    scratchStorage: jobs[queue].scratchStorage
    maxExecutions: maxExecutions
    cpu: jobs[queue].cpu
    memory: jobs[queue].memory
  }
  dependsOn: [
    roleAssignments
    privateAccess
  ]
}]

module walReceivers 'modules/wal-receiver.bicep' = [for cluster in walClusters: if (!empty(workerImage)) {
  scope: group
  name: 'wal-${uniqueString(cluster)}'
  params: {
    location: location
    tags: tags
    // No two hyphens in a row: where the name is cut there may be one already.
    appName: replace('wal-${take(cluster, 14)}-${take(uniqueString(cluster), 6)}', '--', '-')
    environmentId: workerEnvironment.outputs.environmentId
    clusterName: cluster
    connectionsUrl: connectionsUrl
    identityId: identities.outputs.walWriterId
    registryServer: registry.outputs.loginServer
    image: workerImage
    settings: union(worker, {
      PGKEEP_IDENTITY__CLIENT_ID: identities.outputs.walWriterClientId
      APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identities.outputs.walWriterClientId};Authorization=AAD'
    })
  }
  dependsOn: [
    roleAssignments
    privateAccess
  ]
}]

module protection 'modules/protection.bicep' = {
  scope: group
  name: 'protection'
  params: {
    backupAccountName: backupStorage.outputs.accountName
    vaultName: keyVault.outputs.vaultName
    defender: defender
    locks: locks
  }
}

module actionGroup 'modules/action-group.bicep' = {
  scope: group
  name: 'action-group'
  params: {
    tags: tags
    actionGroupName: 'ag-${prefix}'
    emails: alertEmails
    webhookUri: alertWebhook
  }
}

module alerts 'modules/alerts.bicep' = {
  scope: group
  name: 'alerts'
  params: {
    location: location
    tags: tags
    prefix: 'alert-${prefix}'
    workspaceId: monitoring.outputs.workspaceId
    actionGroupId: actionGroup.outputs.actionGroupId
    runbooks: runbooks
  }
}

module workbook 'modules/workbook.bicep' = {
  scope: group
  name: 'workbook'
  params: {
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
    displayName: prefix
  }
}

// azd keeps these for the hooks and for people.
output AZURE_LOCATION string = location
output AZURE_TENANT_ID string = tenant().tenantId
output AZURE_RESOURCE_GROUP string = group.name
output AZURE_CONTAINER_REGISTRY_ENDPOINT string = registry.outputs.loginServer
output PGKEEP_BACKUP_ACCOUNT string = backupStorage.outputs.accountName
output PGKEEP_BACKUP_URL string = backupStorage.outputs.blobEndpoint
output PGKEEP_BACKUP_ACCOUNT_ID string = backupStorage.outputs.accountId
output PGKEEP_HOST_ACCOUNT string = hostStorage.outputs.accountName
output PGKEEP_EVENT_TOPIC string = eventTopic.outputs.topicName
output PGKEEP_FUNCTION_APP string = functionApp.outputs.appName
output PGKEEP_URL string = functionApp.outputs.url
output PGKEEP_VAULT string = keyVault.outputs.vaultName
output PGKEEP_WRAP_KEY_ID string = keyVault.outputs.wrapKeyId
output PGKEEP_MANIFEST_KEY_ID string = keyVault.outputs.manifestKeyId
output PGKEEP_SIGN_KEY_ID string = keyVault.outputs.signKeyId

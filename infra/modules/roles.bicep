// Rights that no built-in role gives as narrowly. Every action is spelled out.
// docs/how-to/azure-permissions.md says who has them where.

@description('What the names of the roles begin with, so that several deployments fit into one tenant.')
@minLength(3)
param prefix string

var here = resourceGroup().id
var blobs = 'Microsoft.Storage/storageAccounts/blobServices/containers/blobs'

// Put Block, Put Block List and Put Blob ask for `add` when the blob does not exist, and for `write`
// when it does (rest/api/storageservices/authorize-with-azure-active-directory): so a writer without
// `write` cannot change anything.
resource addBlobs 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(here, prefix, 'add-blobs')
  properties: {
    roleName: '${prefix} adds blobs'
    description: 'Reads blobs and adds new ones; changes none and deletes none.'
    type: 'CustomRole'
    assignableScopes: [
      here
    ]
    permissions: [
      {
        actions: []
        dataActions: [
          '${blobs}/read'
          '${blobs}/add/action'
        ]
      }
    ]
  }
}

resource readBlobs 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(here, prefix, 'read-blobs')
  properties: {
    roleName: '${prefix} reads blobs'
    description: 'Reads blobs; adds, changes and deletes none.'
    type: 'CustomRole'
    assignableScopes: [
      here
    ]
    permissions: [
      {
        actions: []
        dataActions: [
          '${blobs}/read'
        ]
      }
    ]
  }
}

// Deleting leaves an earlier version for as long as the lifecycle says: those it cannot delete.
resource deleteBlobs 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(here, prefix, 'delete-blobs')
  properties: {
    roleName: '${prefix} deletes blobs'
    description: 'Reads and deletes blobs that no retention policy protects; no earlier versions of them.'
    type: 'CustomRole'
    assignableScopes: [
      here
    ]
    permissions: [
      {
        actions: []
        dataActions: [
          '${blobs}/read'
          '${blobs}/delete'
        ]
      }
    ]
  }
}

resource holdLeases 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(here, prefix, 'hold-leases')
  properties: {
    roleName: '${prefix} holds leases'
    description: 'Takes, renews and gives up leases on blobs, and writes into them who holds them.'
    type: 'CustomRole'
    assignableScopes: [
      here
    ]
    permissions: [
      {
        actions: []
        dataActions: [
          '${blobs}/read'
          '${blobs}/write'
          '${blobs}/add/action'
        ]
      }
    ]
  }
}

// What the guard compares with the chains, and how far the second region is.
resource readPolicies 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(here, prefix, 'read-policies')
  properties: {
    roleName: '${prefix} reads storage policies'
    description: 'Reads lifecycle rules, retention policies and replication of a storage account.'
    type: 'CustomRole'
    assignableScopes: [
      here
    ]
    permissions: [
      {
        actions: [
          'Microsoft.Storage/storageAccounts/managementPolicies/read'
          'Microsoft.Storage/storageAccounts/blobServices/read'
          'Microsoft.Storage/storageAccounts/blobServices/containers/read'
        ]
        dataActions: []
      }
    ]
  }
}

resource readReplication 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(here, prefix, 'read-replication')
  properties: {
    roleName: '${prefix} reads replication'
    description: 'Asks a storage account how far its second region is.'
    type: 'CustomRole'
    assignableScopes: [
      here
    ]
    permissions: [
      {
        actions: [
          'Microsoft.Storage/storageAccounts/blobServices/read'
        ]
        dataActions: []
      }
    ]
  }
}

resource sign 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(here, prefix, 'sign')
  properties: {
    roleName: '${prefix} signs'
    description: 'Signs with a key and reads its public half; opens nothing.'
    type: 'CustomRole'
    assignableScopes: [
      here
    ]
    permissions: [
      {
        actions: []
        dataActions: [
          'Microsoft.KeyVault/vaults/keys/read'
          'Microsoft.KeyVault/vaults/keys/sign/action'
        ]
      }
    ]
  }
}

resource unwrap 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(here, prefix, 'unwrap')
  properties: {
    roleName: '${prefix} unwraps'
    description: 'Opens data keys that were wrapped to a key, and reads its public half.'
    type: 'CustomRole'
    assignableScopes: [
      here
    ]
    permissions: [
      {
        actions: []
        dataActions: [
          'Microsoft.KeyVault/vaults/keys/read'
          'Microsoft.KeyVault/vaults/keys/unwrap/action'
        ]
      }
    ]
  }
}

output addBlobsId string = addBlobs.id
output readBlobsId string = readBlobs.id
output deleteBlobsId string = deleteBlobs.id
output holdLeasesId string = holdLeases.id
output readPoliciesId string = readPolicies.id
output readReplicationId string = readReplication.id
output signId string = sign.id
output unwrapId string = unwrap.id

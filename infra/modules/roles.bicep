// Rights that no built-in role gives as narrowly. Every action is spelled out.
// docs/how-to/azure-permissions.md says who has them where.

@description('What the names of the roles begin with, so that several deployments fit into one tenant.')
@minLength(3)
param prefix string

@description('Whether who takes backups gets `write`, too. Only when storage refuses it blocks without: docs/how-to/azure-permissions.md.')
param blocksNeedWrite bool = false

var here = resourceGroup().id
// Names of roles are unique in the tenant, and there may be an environment of this name elsewhere.
var mark = uniqueString(here)
var blobs = 'Microsoft.Storage/storageAccounts/blobServices/containers/blobs'

// Put Blob asks for `add` when the blob does not exist, and for `write` when it does
// (rest/api/storageservices/authorize-with-azure-active-directory): without `write` nothing changes.
resource addBlobs 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(here, prefix, 'add-blobs')
  properties: {
    roleName: '${prefix} adds blobs (${mark})'
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

// Put Block and Put Block List: the same page asks for `write`, storage-auth-abac-attributes lists
// them under `add` as well. Whoever has `add` alone overwrites nothing wherever it may upload.
resource uploadBlobs 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(here, prefix, 'upload-blobs')
  properties: {
    roleName: '${prefix} uploads blobs in blocks (${mark})'
    description: 'Reads blobs and adds new ones of any size; deletes none.'
    type: 'CustomRole'
    assignableScopes: [
      here
    ]
    permissions: [
      {
        actions: []
        dataActions: concat([
          '${blobs}/read'
          '${blobs}/add/action'
        ], blocksNeedWrite ? [
          '${blobs}/write'
        ] : [])
      }
    ]
  }
}

resource readBlobs 'Microsoft.Authorization/roleDefinitions@2022-04-01' = {
  name: guid(here, prefix, 'read-blobs')
  properties: {
    roleName: '${prefix} reads blobs (${mark})'
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
    roleName: '${prefix} deletes blobs (${mark})'
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
    roleName: '${prefix} holds leases (${mark})'
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
    roleName: '${prefix} reads storage policies (${mark})'
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
    roleName: '${prefix} reads replication (${mark})'
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
    roleName: '${prefix} signs (${mark})'
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
    roleName: '${prefix} unwraps (${mark})'
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
output uploadBlobsId string = uploadBlobs.id
output readBlobsId string = readBlobs.id
output deleteBlobsId string = deleteBlobs.id
output holdLeasesId string = holdLeases.id
output readPoliciesId string = readPolicies.id
output readReplicationId string = readReplication.id
output signId string = sign.id
output unwrapId string = unwrap.id

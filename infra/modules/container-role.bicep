// One role on one container, and nothing else of its account; where it adds blobs, perhaps only in
// some of its folders.

@description('Name of the account.')
param accountName string

@description('Name of the container.')
param containerName string

@description('Id of the role.')
param roleId string

@description('Object id of the identity.')
param principalId string

@description('Patterns of the paths at which the role may add blobs; empty: anywhere in the container.')
param addsOnlyAt array = []

var blobs = 'Microsoft.Storage/storageAccounts/blobServices/containers/blobs'
var places = [for path in addsOnlyAt: '@Resource[${blobs}:path] StringLike \'${path}\'']
// https://learn.microsoft.com/azure/storage/blobs/storage-auth-abac-examples
var condition = '((!(ActionMatches{\'${blobs}/add/action\'})) OR (${join(places, ' OR ')}))'

resource container 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' existing = {
  name: '${accountName}/default/${containerName}'
}

resource assignment 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: container
  name: guid(container.id, principalId, roleId)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: roleId
    condition: empty(addsOnlyAt) ? null : condition
    conditionVersion: empty(addsOnlyAt) ? null : '2.0'
  }
}

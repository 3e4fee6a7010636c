// One role on one container, and nothing else of its account.

@description('Name of the account.')
param accountName string

@description('Name of the container.')
param containerName string

@description('Id of the role.')
param roleId string

@description('Object id of the identity.')
param principalId string

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
  }
}

// One role on one queue, and nothing else of its account.

@description('Name of the account.')
param accountName string

@description('Name of the queue.')
param queueName string

@description('Id of the role.')
param roleId string

@description('Object id of the identity.')
param principalId string

resource queue 'Microsoft.Storage/storageAccounts/queueServices/queues@2025-01-01' existing = {
  name: '${accountName}/default/${queueName}'
}

resource assignment 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: queue
  name: guid(queue.id, principalId, roleId)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: roleId
  }
}

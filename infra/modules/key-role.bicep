// One role on one key, and no other key of its vault.

@description('Name of the vault.')
param vaultName string

@description('Name of the key.')
param keyName string

@description('Id of the role.')
param roleId string

@description('Object id of the identity.')
param principalId string

resource key 'Microsoft.KeyVault/vaults/keys@2026-02-01' existing = {
  name: '${vaultName}/${keyName}'
}

resource assignment 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: key
  name: guid(key.id, principalId, roleId)
  properties: {
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: roleId
  }
}

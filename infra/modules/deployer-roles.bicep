// Who deploys writes pgkeep.toml and the clusters' logins, and reads public keys. It gives no right to
// any backup.

@description('Object id of the person.')
param principalId string

@description('Name of the account of the function app and the queues.')
param hostAccountName string

@description('Name of the vault.')
param vaultName string

var builtIn = 'Microsoft.Authorization/roleDefinitions'

// https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
var blobDataContributor = subscriptionResourceId(builtIn, 'ba92f5b4-2d11-453d-a403-e96b0029c9fe')
var keyVaultReader = subscriptionResourceId(builtIn, '21090545-7ca7-4776-b22c-e363652d74d2')
var keyVaultSecretsOfficer = subscriptionResourceId(builtIn, 'b86a8fe4-44ce-4948-aee5-eccb2c155cd7')

resource settings 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' existing = {
  name: '${hostAccountName}/default/settings'
}

resource vault 'Microsoft.KeyVault/vaults@2026-02-01' existing = {
  name: vaultName
}

resource writesSettings 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: settings
  name: guid(settings.id, principalId, blobDataContributor)
  properties: {
    principalId: principalId
    roleDefinitionId: blobDataContributor
  }
}

resource readsKeys 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: vault
  name: guid(vault.id, principalId, keyVaultReader)
  properties: {
    principalId: principalId
    roleDefinitionId: keyVaultReader
  }
}

resource writesLogins 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: vault
  name: guid(vault.id, principalId, keyVaultSecretsOfficer)
  properties: {
    principalId: principalId
    roleDefinitionId: keyVaultSecretsOfficer
  }
}

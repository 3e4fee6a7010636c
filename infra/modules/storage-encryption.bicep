// A key of our own for the encryption that storage itself does, below pgkeep's. Whoever takes it away
// stops every read and write of the account: an off switch, and one more thing that can be lost.

@description('Region of the identity.')
param location string

@description('Tags of every resource.')
param tags object

@description('Name of the identity as which storage uses the key.')
param identityName string

@description('Name of the vault; it must be protected against purges.')
param vaultName string

@description('Length of the key, in bits.')
@allowed([
  3072
  4096
])
param rsaBits int = 3072

// https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
var cryptoServiceEncryptionUser = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', 'e147488a-f6f5-4113-8e2d-b22465e65bf6')

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2024-11-30' = {
  name: identityName
  location: location
  tags: tags
}

resource vault 'Microsoft.KeyVault/vaults@2026-02-01' existing = {
  name: vaultName
}

// Rotates by itself: storage looks for a newer version each day and wraps its own key anew, as long
// as no version is named (storage/common/customer-managed-keys-overview).
resource key 'Microsoft.KeyVault/vaults/keys@2026-02-01' = {
  parent: vault
  name: 'storage'
  properties: {
    kty: 'RSA'
    keySize: rsaBits
    keyOps: [
      'wrapKey'
      'unwrapKey'
    ]
    rotationPolicy: {
      lifetimeActions: [
        {
          trigger: {
            timeAfterCreate: 'P1Y'
          }
          action: {
            type: 'rotate'
          }
        }
      ]
    }
  }
}

resource assignment 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: key
  name: guid(key.id, identity.id, cryptoServiceEncryptionUser)
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: cryptoServiceEncryptionUser
  }
}

@description('Id of the identity.')
output identityId string = identity.id

@description('Name of the key, without a version: storage follows its newest.')
output keyName string = key.name

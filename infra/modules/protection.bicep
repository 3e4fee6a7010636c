// What keeps people from destroying backups by mistake, and tells of it when somebody tries. What all
// of it may cost is watched by a budget, which infra/hooks/make-budget makes: a person has to say how
// much, and no template may set a budget's start to a month that is over.

@description('Name of the account with the backups.')
param backupAccountName string

@description('Name of the vault.')
param vaultName string

@description('Whether Microsoft Defender for Storage watches the account; it costs per account and month.')
param defender bool = false

@description('Whether the account and the vault are locked against deletion. Remove the locks before a teardown.')
param locks bool = true

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' existing = {
  name: backupAccountName
}

resource vault 'Microsoft.KeyVault/vaults@2026-02-01' existing = {
  name: vaultName
}

resource accountLock 'Microsoft.Authorization/locks@2020-05-01' = if (locks) {
  scope: account
  name: 'keeps-backups'
  properties: {
    level: 'CanNotDelete'
    notes: 'The only copy of the backups. docs/tutorials/deploy-to-azure.md says how to tear down.'
  }
}

resource vaultLock 'Microsoft.Authorization/locks@2020-05-01' = if (locks) {
  scope: vault
  name: 'keeps-keys'
  properties: {
    level: 'CanNotDelete'
    notes: 'Without these keys no backup opens.'
  }
}

resource watch 'Microsoft.Security/defenderForStorageSettings@2025-06-01' = if (defender) {
  scope: account
  name: 'current'
  properties: {
    isEnabled: true
    // What is uploaded is sealed: a scanner finds nothing in it.
    malwareScanning: {
      onUpload: {
        isEnabled: false
      }
    }
    sensitiveDataDiscovery: {
      isEnabled: false
    }
    overrideSubscriptionLevelSettings: true
  }
}

// Three keys. `wrap` opens every backup, `manifest` only the lists of files that an incremental
// backup needs of its parent, `sign` vouches for documents. Private halves never leave the vault;
// the escrow key is made offline and is not here (docs/how-to/keys-and-escrow.md).

@description('Region of the vault.')
param location string

@description('Tags of every resource.')
param tags object

@description('Name of the vault.')
@minLength(3)
@maxLength(24)
param vaultName string

@description('Tenant whose identities may use the keys.')
param tenantId string = tenant().tenantId

@description('Length of the RSA keys, in bits.')
@allowed([
  3072
  4096
])
param rsaBits int = 3072

@description('Premium keeps keys in a hardware security module.')
@allowed([
  'standard'
  'premium'
])
param sku string = 'standard'

@description('Whether only private endpoints, and the subnets and addresses below, reach the vault; else everybody who has the right.')
param denyByDefault bool = false

@description('Ids of subnets that may reach the vault; of use when everything else is denied.')
param allowedSubnetIds array = []

@description('Addresses or ranges that may reach the vault, such as of who deploys.')
param allowedIpRanges array = []

@description('Whether a deleted vault of this name is brought back: for 90 days there can be no other.')
param recover bool = false

@description('Id of the Log Analytics workspace for the log of every use of a key.')
param workspaceId string

var kind = sku == 'premium' ? 'RSA-HSM' : 'RSA'

resource vault 'Microsoft.KeyVault/vaults@2026-02-01' = {
  name: vaultName
  location: location
  tags: tags
  properties: {
    createMode: recover ? 'recover' : 'default'
    tenantId: tenantId
    sku: {
      family: 'A'
      name: sku
    }
    enableRbacAuthorization: true
    enableSoftDelete: true
    softDeleteRetentionInDays: 90
    // Without the keys every backup is lost: nobody may purge them, and this cannot be taken back.
    enablePurgeProtection: true
    enabledForDeployment: false
    enabledForTemplateDeployment: false
    enabledForDiskEncryption: false
    // Disabled would also shut out Azure's own services, which `bypass` lets in.
    publicNetworkAccess: 'Enabled'
    networkAcls: {
      defaultAction: denyByDefault ? 'Deny' : 'Allow'
      bypass: 'AzureServices'
      virtualNetworkRules: [for id in allowedSubnetIds: {
        id: id
      }]
      ipRules: [for range in allowedIpRanges: {
        value: range
      }]
    }
  }
}

// No rotation policy: a new version is of use only when pgkeep.toml names it, and the old one must
// stay as long as what it opens. A policy that only reminds would need an expiry, and an expired key
// signs no more (key-vault/keys/about-keys-details).
resource wrap 'Microsoft.KeyVault/vaults/keys@2026-02-01' = {
  parent: vault
  name: 'wrap'
  properties: {
    kty: kind
    keySize: rsaBits
    keyOps: [
      'wrapKey'
      'unwrapKey'
    ]
  }
}

resource manifest 'Microsoft.KeyVault/vaults/keys@2026-02-01' = {
  parent: vault
  name: 'manifest'
  properties: {
    kty: kind
    keySize: rsaBits
    keyOps: [
      'wrapKey'
      'unwrapKey'
    ]
  }
}

resource sign 'Microsoft.KeyVault/vaults/keys@2026-02-01' = {
  parent: vault
  name: 'sign'
  properties: {
    kty: sku == 'premium' ? 'EC-HSM' : 'EC'
    curveName: 'P-256'
    keyOps: [
      'sign'
      'verify'
    ]
  }
}

resource uses 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: vault
  name: 'uses'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'AuditEvent'
        enabled: true
      }
    ]
  }
}

@description('Name of the vault.')
output vaultName string = vault.name

@description('Resource id of the vault.')
output vaultId string = vault.id

@description('Address of the vault.')
output vaultUri string = vault.properties.vaultUri

@description('Id of the key that opens backups, with its version: for `pgkeep keys describe`.')
output wrapKeyId string = wrap.properties.keyUriWithVersion

@description('Id of the key that opens manifests, with its version.')
output manifestKeyId string = manifest.properties.keyUriWithVersion

@description('Id of the key that signs documents, with its version.')
output signKeyId string = sign.properties.keyUriWithVersion

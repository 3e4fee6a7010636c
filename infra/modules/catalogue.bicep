// The catalogue: an index that the repository can rebuild. Entra identities only, no passwords.

@description('Region of the server.')
param location string

@description('Tags of every resource.')
param tags object

@description('Name of the server.')
param serverName string

@description('Name of the database.')
param databaseName string = 'pgkeep'

@description('Size of the server.')
param skuName string = 'Standard_B1ms'

@description('Tier of that size.')
@allowed([
  'Burstable'
  'GeneralPurpose'
  'MemoryOptimized'
])
param skuTier string = 'Burstable'

@description('A second server in another zone.')
@allowed([
  'Disabled'
  'SameZone'
  'ZoneRedundant'
])
param highAvailability string = 'Disabled'

@description('Gigabytes.')
@allowed([
  32
  64
  128
  256
])
param storageGb int = 32

@description('Name of the identity `control`, which becomes the server\'s administrator and owner of the schema.')
param controlName string

@description('Object id of the identity `control`.')
param controlPrincipalId string

@description('Id of the delegated subnet; empty: reachable from Azure\'s own addresses.')
param subnetId string = ''

@description('Id of the network, when there is a subnet.')
param networkId string = ''

var private = !empty(subnetId)

resource zone 'Microsoft.Network/privateDnsZones@2024-06-01' = if (private) {
  name: '${serverName}.private.postgres.database.azure.com'
  location: 'global'
  tags: tags
}

resource link 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = if (private) {
  parent: zone
  name: 'pgkeep'
  location: 'global'
  tags: tags
  properties: {
    registrationEnabled: false
    virtualNetwork: {
      id: networkId
    }
  }
}

resource server 'Microsoft.DBforPostgreSQL/flexibleServers@2025-08-01' = {
  name: serverName
  location: location
  tags: tags
  sku: {
    name: skuName
    tier: skuTier
  }
  properties: {
    version: '17'
    authConfig: {
      activeDirectoryAuth: 'Enabled'
      passwordAuth: 'Disabled'
      tenantId: tenant().tenantId
    }
    storage: {
      storageSizeGB: storageGb
      autoGrow: 'Enabled'
    }
    backup: {
      // What it holds can be rebuilt from the repository: the shortest term is enough.
      backupRetentionDays: 7
      geoRedundantBackup: 'Disabled'
    }
    highAvailability: {
      mode: highAvailability
    }
    network: private ? {
      delegatedSubnetResourceId: subnetId
      privateDnsZoneArmResourceId: zone.id
      publicNetworkAccess: 'Disabled'
    } : {
      publicNetworkAccess: 'Enabled'
    }
  }
  dependsOn: [
    link
  ]
}

resource database 'Microsoft.DBforPostgreSQL/flexibleServers/databases@2025-08-01' = {
  parent: server
  name: databaseName
}

resource administrator 'Microsoft.DBforPostgreSQL/flexibleServers/administrators@2025-08-01' = {
  parent: server
  name: controlPrincipalId
  properties: {
    principalName: controlName
    principalType: 'ServicePrincipal'
    tenantId: tenant().tenantId
  }
  dependsOn: [
    database
  ]
}

// The address range that stands for services inside Azure (flexible-server/concepts-firewall-rules).
resource fromAzure 'Microsoft.DBforPostgreSQL/flexibleServers/firewallRules@2025-08-01' = if (!private) {
  parent: server
  name: 'azure'
  properties: {
    startIpAddress: '0.0.0.0'
    endIpAddress: '0.0.0.0'
  }
  dependsOn: [
    administrator
  ]
}

output serverName string = server.name

@description('PGKEEP_CATALOGUE__DSN: the password is a token.')
output dsn string = 'host=${server.properties.fullyQualifiedDomainName} port=5432 dbname=${databaseName} user=${controlName} sslmode=verify-full sslrootcert=system'

// Private endpoints of both storage accounts and the vault, and the zones that name them.

@description('Region of the network.')
param location string

@description('Tags of every resource.')
param tags object

@description('What the names of the endpoints begin with.')
param prefix string

@description('Id of the network.')
param networkId string

@description('Id of the subnet of the endpoints.')
param subnetId string

@description('Id of the account with the backups.')
param backupAccountId string

@description('Whether the account with the backups has a readable copy in a second region.')
param secondary bool

@description('Id of the account of the function app and the queues.')
param hostAccountId string

@description('Id of the vault.')
param vaultId string

var zoneNames = {
  blob: 'privatelink.blob.${environment().suffixes.storage}'
  queue: 'privatelink.queue.${environment().suffixes.storage}'
  table: 'privatelink.table.${environment().suffixes.storage}'
  vault: 'privatelink.vaultcore.azure.net'
}

resource zones 'Microsoft.Network/privateDnsZones@2024-06-01' = [for zone in items(zoneNames): {
  name: zone.value
  location: 'global'
  tags: tags
}]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [for (zone, index) in items(zoneNames): {
  parent: zones[index]
  name: prefix
  location: 'global'
  tags: tags
  properties: {
    registrationEnabled: false
    virtualNetwork: {
      id: networkId
    }
  }
}]

var always = [
  { name: 'backup-blob', resource: backupAccountId, group: 'blob', zone: 'blob' }
  { name: 'backup-queue', resource: backupAccountId, group: 'queue', zone: 'queue' }
  { name: 'host-blob', resource: hostAccountId, group: 'blob', zone: 'blob' }
  { name: 'host-queue', resource: hostAccountId, group: 'queue', zone: 'queue' }
  { name: 'host-table', resource: hostAccountId, group: 'table', zone: 'table' }
  { name: 'vault', resource: vaultId, group: 'vault', zone: 'vault' }
]
// The second region has an address of its own, from which restores go on when the first is lost.
var there = [
  { name: 'backup-blob-secondary', resource: backupAccountId, group: 'blob_secondary', zone: 'blob' }
]

module endpoints 'private-endpoint.bicep' = [for item in concat(always, secondary ? there : []): {
  name: 'endpoint-${item.name}'
  params: {
    location: location
    tags: tags
    endpointName: '${prefix}-${item.name}'
    subnetId: subnetId
    resourceId: item.resource
    groupId: item.group
    zoneId: resourceId('Microsoft.Network/privateDnsZones', zoneNames[item.zone])
  }
  dependsOn: [
    zones
  ]
}]

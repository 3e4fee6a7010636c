// One service, reachable inside the network under its usual name.

@description('Region of the network.')
param location string

@description('Tags of every resource.')
param tags object

@description('Name of the endpoint.')
param endpointName string

@description('Id of the subnet that it gets an address of.')
param subnetId string

@description('Id of the resource behind it.')
param resourceId string

@description('Part of the resource: its sub-resource, as in private-endpoint-overview.')
@allowed([
  'blob'
  'blob_secondary'
  'queue'
  'table'
  'vault'
])
param groupId string

@description('Id of the private DNS zone that names it.')
param zoneId string

resource endpoint 'Microsoft.Network/privateEndpoints@2025-09-01' = {
  name: endpointName
  location: location
  tags: tags
  properties: {
    subnet: {
      id: subnetId
    }
    privateLinkServiceConnections: [
      {
        name: groupId
        properties: {
          privateLinkServiceId: resourceId
          groupIds: [
            groupId
          ]
        }
      }
    ]
  }
}

resource zoneGroup 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2025-09-01' = {
  parent: endpoint
  name: 'default'
  properties: {
    privateDnsZoneConfigs: [
      {
        name: groupId
        properties: {
          privateDnsZoneId: zoneId
        }
      }
    ]
  }
}

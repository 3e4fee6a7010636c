// A network of our own: subnets for the function app, the workers and PostgreSQL, and private
// endpoints, so that storage and keys need not be reachable from anywhere else.

@description('Region of the network.')
param location string

@description('Tags of every resource.')
param tags object

@description('Name of the network.')
param networkName string

@description('Addresses of the network: a /20 or larger.')
param addressPrefix string = '10.60.0.0/20'

// What is in these delegated subnets gets its way to the internet from its service: the default of
// private subnets is not for them (virtual-network/ip-services/default-outbound-access).
resource network 'Microsoft.Network/virtualNetworks@2025-09-01' = {
  name: networkName
  location: location
  tags: tags
  properties: {
    addressSpace: {
      addressPrefixes: [
        addressPrefix
      ]
    }
    subnets: [
      {
        name: 'functions'
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, 24, 0)
          // Flex Consumption runs on the platform of Container Apps (flex-consumption-how-to).
          delegations: [
            {
              name: 'functions'
              properties: {
                serviceName: 'Microsoft.App/environments'
              }
            }
          ]
        }
      }
      {
        name: 'workers'
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, 23, 1)
          delegations: [
            {
              name: 'workers'
              properties: {
                serviceName: 'Microsoft.App/environments'
              }
            }
          ]
        }
      }
      {
        name: 'endpoints'
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, 24, 4)
        }
      }
      {
        name: 'postgresql'
        properties: {
          addressPrefix: cidrSubnet(addressPrefix, 24, 5)
          delegations: [
            {
              name: 'postgresql'
              properties: {
                serviceName: 'Microsoft.DBforPostgreSQL/flexibleServers'
              }
            }
          ]
        }
      }
    ]
  }
}

output networkId string = network.id
output functionsSubnetId string = '${network.id}/subnets/functions'
output workersSubnetId string = '${network.id}/subnets/workers'
output endpointsSubnetId string = '${network.id}/subnets/endpoints'
output postgresqlSubnetId string = '${network.id}/subnets/postgresql'

// The registry of the worker's image. Identities pull; nobody logs in with a password.

@description('Region of the registry.')
param location string

@description('Tags of every resource.')
param tags object

@description('Name of the registry.')
@minLength(5)
@maxLength(50)
param registryName string

@description('Premium has private endpoints.')
@allowed([
  'Basic'
  'Standard'
  'Premium'
])
param sku string = 'Basic'

resource registry 'Microsoft.ContainerRegistry/registries@2025-11-01' = {
  name: registryName
  location: location
  tags: tags
  sku: {
    name: sku
  }
  properties: {
    adminUserEnabled: false
    anonymousPullEnabled: false
  }
}

output registryName string = registry.name
output loginServer string = registry.properties.loginServer

// Where containers of workers run: nothing in it can be reached from outside.

@description('Region of the environment.')
param location string

@description('Tags of every resource.')
param tags object

@description('Name of the environment.')
param environmentName string

@description('Id of the subnet of the environment; empty: a network of Azure, without private endpoints and NFS.')
param subnetId string = ''

@description('Spread over the zones of the region; needs a subnet.')
param zoneRedundant bool = false

@description('Server of an NFS share for drills and restores of large clusters; empty: none.')
param nfsServer string = ''

@description('Path of that share, as /account/share.')
param nfsShareName string = ''

@description('Name of the Log Analytics workspace for what containers print.')
param workspaceName string

resource workspace 'Microsoft.OperationalInsights/workspaces@2026-03-01' existing = {
  name: workspaceName
}

resource environment 'Microsoft.App/managedEnvironments@2026-01-01' = {
  name: environmentName
  location: location
  tags: tags
  properties: {
    zoneRedundant: zoneRedundant
    vnetConfiguration: empty(subnetId) ? null : {
      infrastructureSubnetId: subnetId
      internal: true
    }
    workloadProfiles: [
      {
        name: 'Consumption'
        workloadProfileType: 'Consumption'
      }
    ]
    appLogsConfiguration: {
      destination: 'azure-monitor'
    }
  }
}

resource prints 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: environment
  name: 'prints'
  properties: {
    workspaceId: workspace.id
    logs: [
      {
        category: 'ContainerAppConsoleLogs'
        enabled: true
      }
      {
        category: 'ContainerAppSystemLogs'
        enabled: true
      }
    ]
  }
}

resource scratch 'Microsoft.App/managedEnvironments/storages@2026-01-01' = if (!empty(nfsServer)) {
  parent: environment
  name: 'scratch'
  properties: {
    nfsAzureFile: {
      server: nfsServer
      shareName: nfsShareName
      accessMode: 'ReadWrite'
    }
  }
}

output environmentId string = environment.id
output environmentName string = environment.name

@description('Name of the storage for drills; empty when there is none.')
output scratchStorage string = empty(nfsServer) ? '' : 'scratch'

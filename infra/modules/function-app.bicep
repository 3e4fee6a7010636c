// The function app: decides, records, answers HTTP. It holds no key and moves no backup.

@description('Region of the app.')
param location string

@description('Tags of every resource; azd finds the app by `azd-service-name`.')
param tags object

@description('Name of the app.')
param appName string

@description('Name of its plan.')
param planName string

@description('Python of the app: what azure-functions of requirements.txt supports.')
@allowed([
  '3.11'
  '3.12'
])
param pythonVersion string = '3.12'

@description('Memory of an instance, in megabytes.')
@allowed([
  2048
  4096
])
param instanceMemoryMB int = 2048

@description('Instances at most.')
@minValue(40)
@maxValue(1000)
param maximumInstanceCount int = 40

@description('Id of the identity `control`.')
param identityId string

@description('Client id of the identity `control`.')
param identityClientId string

@description('Endpoints of the account of the host, without a slash at their ends.')
param hostEndpoints object

@description('Where the package of the app is put.')
param deploymentContainerUrl string

@description('Endpoints of the account with the backups: blob and queue.')
param backupEndpoints object

@description('What every process of pgkeep reads from its environment: names and values.')
param settings object

@description('Where telemetry goes.')
param connectionString string

@description('Tenant whose users and applications may call the HTTP API.')
param tenantId string

@description('Client id of the app registration with the roles reader, operator and approver.')
param authClientId string

@description('Id of the subnet through which the app reaches others; empty: none.')
param subnetId string = ''

@description('Id of the Log Analytics workspace.')
param workspaceId string

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: planName
  location: location
  tags: tags
  kind: 'functionapp'
  sku: {
    name: 'FC1'
    tier: 'FlexConsumption'
  }
  properties: {
    reserved: true
  }
}

var identified = {
  credential: 'managedidentity'
  clientId: identityClientId
}

var hostSettings = {
  AzureWebJobsStorage__credential: identified.credential
  AzureWebJobsStorage__clientId: identified.clientId
  AzureWebJobsStorage__blobServiceUri: hostEndpoints.blob
  AzureWebJobsStorage__queueServiceUri: hostEndpoints.queue
  AzureWebJobsStorage__tableServiceUri: hostEndpoints.table
  PGKEEP_HOST_REPOSITORY__credential: identified.credential
  PGKEEP_HOST_REPOSITORY__clientId: identified.clientId
  PGKEEP_HOST_REPOSITORY__blobServiceUri: backupEndpoints.blob
  PGKEEP_HOST_REPOSITORY__queueServiceUri: backupEndpoints.queue
  PGKEEP_HOST_QUEUES__credential: identified.credential
  PGKEEP_HOST_QUEUES__clientId: identified.clientId
  PGKEEP_HOST_QUEUES__queueServiceUri: hostEndpoints.queue
  // Six fields, UTC: seconds first.
  PGKEEP_DISPATCH_SCHEDULE: '0 * * * * *'
  PGKEEP_FRESHNESS_SCHEDULE: '30 */5 * * * *'
  PGKEEP_RECONCILE_SCHEDULE: '45 12 * * * *'
  APPLICATIONINSIGHTS_CONNECTION_STRING: connectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  name: appName
  location: location
  tags: union(tags, {
    'azd-service-name': 'control'
  })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    publicNetworkAccess: 'Enabled'
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    // Flex Consumption has no FTP and refuses `ftpsState` (functions-app-settings, "Flex Consumption
    // plan deprecations"), and its health check is not that of App Service: instances come and go.
    siteConfig: {
      minTlsVersion: '1.2'
      // No page of another origin calls this API.
      cors: {
        allowedOrigins: []
      }
    }
    functionAppConfig: {
      runtime: {
        name: 'python'
        version: pythonVersion
      }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
      }
      deployment: {
        storage: {
          type: 'blobContainer'
          value: deploymentContainerUrl
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
    }
  }
}

resource appSettings 'Microsoft.Web/sites/config@2025-03-01' = {
  parent: app
  name: 'appsettings'
  properties: union(settings, hostSettings)
}

// Roles decide in the app; here only who a caller is. Event Grid's webhook comes with a key of its
// own, on a path of the host.
resource authentication 'Microsoft.Web/sites/config@2025-03-01' = {
  parent: app
  name: 'authsettingsV2'
  properties: {
    platform: {
      enabled: true
      runtimeVersion: '~1'
    }
    globalValidation: {
      requireAuthentication: true
      unauthenticatedClientAction: 'Return401'
      excludedPaths: [
        '/api/health'
        '/runtime/webhooks/blobs'
      ]
    }
    httpSettings: {
      requireHttps: true
    }
    identityProviders: {
      azureActiveDirectory: {
        enabled: true
        registration: {
          clientId: authClientId
          openIdIssuer: '${environment().authentication.loginEndpoint}${tenantId}/v2.0'
        }
        validation: {
          allowedAudiences: [
            authClientId
            'api://${authClientId}'
          ]
        }
      }
    }
    login: {
      tokenStore: {
        enabled: false
      }
    }
  }
  // One change of a site after the other: two at a time end in a conflict.
  dependsOn: [
    appSettings
  ]
}

// Deployments come with the deployer's own identity.
resource ftp 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: app
  name: 'ftp'
  properties: {
    allow: false
  }
  dependsOn: [
    authentication
  ]
}

resource scm 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-03-01' = {
  parent: app
  name: 'scm'
  properties: {
    allow: false
  }
  dependsOn: [
    ftp
  ]
}

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: app
  name: 'host'
  properties: {
    workspaceId: workspaceId
    logs: [
      {
        category: 'AppServiceAuthenticationLogs'
        enabled: true
      }
    ]
  }
}

output appId string = app.id
output appName string = app.name
output url string = 'https://${app.properties.defaultHostName}'

// The WAL receiver of one cluster: always on, and never twice, for a slot has one reader. A second
// one, as during a new revision, waits for the first one's lease.

@description('Region of the app.')
param location string

@description('Tags of every resource.')
param tags object

@description('Name of the app.')
@maxLength(32)
param appName string

@description('Id of the environment.')
param environmentId string

@description('Name of the cluster in pgkeep.toml.')
param clusterName string

@description('Id of the identity `walWriter`.')
param identityId string

@description('Server of the registry that the identity pulls from.')
param registryServer string

@description('The image, by its digest.')
param image string

@description('What the process reads from its environment: names and values.')
param settings object

@description('Address of the Key Vault secret with a libpq service file for the clusters, mounted as /secrets/pg_service.conf; empty: none.')
param connectionsUrl string = ''

@description('Port of metrics and of the probes\' page. No ingress leads to it; it shows names of clusters and numbers.')
@minValue(1024)
@maxValue(65535)
param metricsPort int = 9187

// The loop of the receiver shows that it turns, and the page says when it last did: minutes of silence end
// the container. Only HTTP and TCP can be asked here; TCP would answer for a receiver that hangs
// (https://learn.microsoft.com/azure/container-apps/health-probes).
var life = {
  path: '/healthz'
  port: metricsPort
  scheme: 'HTTP'
}

// Only a file: variables of a container are shown to everybody who may read its definition.
var connections = empty(connectionsUrl) ? {
  secrets: []
  volumes: []
  mounts: []
} : {
  secrets: [
    {
      name: 'connections'
      keyVaultUrl: connectionsUrl
      identity: identityId
    }
  ]
  volumes: [
    {
      name: 'connections'
      storageType: 'Secret'
      secrets: [
        {
          secretRef: 'connections'
          path: 'pg_service.conf'
        }
      ]
    }
  ]
  mounts: [
    {
      volumeName: 'connections'
      mountPath: '/secrets'
    }
  ]
}

resource receiver 'Microsoft.App/containerApps@2026-01-01' = {
  name: appName
  location: location
  tags: tags
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    environmentId: environmentId
    workloadProfileName: 'Consumption'
    configuration: {
      activeRevisionsMode: 'Single'
      secrets: connections.secrets
      registries: [
        {
          server: registryServer
          identity: identityId
        }
      ]
    }
    template: {
      terminationGracePeriodSeconds: 60
      scale: {
        minReplicas: 1
        maxReplicas: 1
      }
      containers: [
        {
          name: 'pgkeep'
          image: image
          args: [
            'wal'
            'receive'
            clusterName
          ]
          resources: {
            cpu: json('0.5')
            memory: '1Gi'
          }
          env: [for setting in items(union(settings, { PGKEEP_METRICS_ADDRESS: '0.0.0.0:${metricsPort}' })): {
            name: setting.key
            value: setting.value
          }]
          probes: [
            {
              type: 'Startup'
              httpGet: life
              initialDelaySeconds: 5
              periodSeconds: 10
              timeoutSeconds: 5
              failureThreshold: 10
            }
            {
              type: 'Liveness'
              httpGet: life
              periodSeconds: 60
              timeoutSeconds: 10
              failureThreshold: 3
            }
          ]
          volumeMounts: concat(connections.mounts, [
            {
              volumeName: 'tmp'
              mountPath: '/tmp'
            }
          ])
        }
      ]
      volumes: concat(connections.volumes, [
        {
          name: 'tmp'
          storageType: 'EmptyDir'
        }
      ])
    }
  }
}

output appName string = receiver.name

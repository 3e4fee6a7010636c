// An event-driven job: KEDA looks at one queue and starts an execution for each message. An
// execution does one job and ends (docs/how-to/run-the-container-host.md).

@description('Region of the job.')
param location string

@description('Tags of every resource.')
param tags object

@description('Name of the job.')
@maxLength(32)
param jobName string

@description('Id of the environment.')
param environmentId string

@description('The queue that is served.')
@allowed([
  'pgkeep-backup'
  'pgkeep-restore'
  'pgkeep-expire'
  'pgkeep-maintenance'
])
param queueName string

@description('Name of the account with the queues.')
param queueAccountName string

@description('Id of the identity of this role.')
param identityId string

@description('Server of the registry that the identity pulls from.')
param registryServer string

@description('The image, by its digest.')
param image string

@description('What the process reads from its environment: names and values.')
param settings object

@description('Executions at once: as many as hosts and storage bear.')
@minValue(1)
@maxValue(100)
param maxExecutions int

@description('Processors of an execution, as text: a decimal number.')
param cpu string = '2.0'

@description('Memory of an execution.')
param memory string = '4Gi'

@description('Seconds after which an execution is ended: longer than the longest backup.')
@minValue(3600)
@maxValue(604800)
param replicaTimeout int = 86400

@description('Name of the environment\'s storage for drills and restores; empty: the disk of the execution, 8 GiB at most.')
param scratchStorage string = ''

@description('Address of the Key Vault secret with a libpq service file for the clusters, mounted as /secrets/pg_service.conf; empty: none.')
param connectionsUrl string = ''

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

var scratch = empty(scratchStorage) ? {
  name: 'scratch'
  storageType: 'EmptyDir'
} : {
  name: 'scratch'
  storageType: 'NfsAzureFile'
  storageName: scratchStorage
}

resource job 'Microsoft.App/jobs@2026-01-01' = {
  name: jobName
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
      triggerType: 'Event'
      replicaTimeout: replicaTimeout
      // The queue delivers again; two counts of retries would multiply.
      replicaRetryLimit: 0
      secrets: connections.secrets
      registries: [
        {
          server: registryServer
          identity: identityId
        }
      ]
      eventTriggerConfig: {
        parallelism: 1
        replicaCompletionCount: 1
        scale: {
          minExecutions: 0
          maxExecutions: maxExecutions
          pollingInterval: 30
          rules: [
            {
              name: queueName
              type: 'azure-queue'
              identity: identityId
              metadata: {
                accountName: queueAccountName
                queueName: queueName
                queueLength: '1'
                // Hidden messages count, and running executions are taken off.
                queueLengthStrategy: 'all'
              }
            }
          ]
        }
      }
    }
    template: {
      containers: [
        {
          name: 'pgkeep'
          image: image
          args: [
            'run'
            '--once'
            '--queue'
            queueName
          ]
          resources: {
            cpu: json(cpu)
            memory: memory
          }
          env: [for setting in items(settings): {
            name: setting.key
            value: setting.value
          }]
          volumeMounts: concat(connections.mounts, [
            {
              volumeName: 'scratch'
              mountPath: '/scratch'
            }
            {
              volumeName: 'tmp'
              mountPath: '/tmp'
            }
          ])
        }
      ]
      volumes: concat(connections.volumes, [
        scratch
        {
          name: 'tmp'
          storageType: 'EmptyDir'
        }
      ])
    }
  }
}

output jobName string = job.name

// From the commit of a backup to the function that verifies it: one subscription per container. The
// webhook's key exists only once the app runs, so infra/hooks/postdeploy deploys this.

@description('Name of the topic of the account with the backups.')
param topicName string

@description('Name of the function app.')
param appName string

@description('Id of the account with the container for events that nobody took.')
param backupAccountId string

var functions = {
  full: 'blob_backup_committed'
  incremental: 'blob_incremental_committed'
}

resource app 'Microsoft.Web/sites@2025-03-01' existing = {
  name: appName
}

resource topic 'Microsoft.EventGrid/systemTopics@2025-02-15' existing = {
  name: topicName
}

resource committed 'Microsoft.EventGrid/systemTopics/eventSubscriptions@2025-02-15' = [for item in items(functions): {
  parent: topic
  name: 'committed-${item.key}'
  properties: {
    eventDeliverySchema: 'EventGridSchema'
    destination: {
      endpointType: 'WebHook'
      properties: {
        endpointUrl: 'https://${app.properties.defaultHostName}/runtime/webhooks/blobs?functionName=Host.Functions.${item.value}&code=${listKeys('${app.id}/host/default', '2025-03-01').systemKeys.blobs_extension}'
        maxEventsPerBatch: 1
      }
    }
    filter: {
      includedEventTypes: [
        'Microsoft.Storage.BlobCreated'
      ]
      // Volumes, indexes and manifests come before: only the document says that a backup is whole.
      subjectBeginsWith: '/blobServices/default/containers/${item.key}/'
      subjectEndsWith: '/backup.json'
    }
    retryPolicy: {
      maxDeliveryAttempts: 30
      eventTimeToLiveInMinutes: 1440
    }
    deadLetterWithResourceIdentity: {
      identity: {
        type: 'SystemAssigned'
      }
      deadLetterDestination: {
        endpointType: 'StorageBlob'
        properties: {
          resourceId: backupAccountId
          blobContainerName: 'eventgrid-dead-letter'
        }
      }
    }
  }
}]

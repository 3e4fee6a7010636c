// The storage account's events. Subscriptions need a key of the deployed function app:
// event-subscriptions.bicep comes after the code.

@description('Region of the account, and so of its topic.')
param location string

@description('Tags of every resource.')
param tags object

@description('Name of the topic.')
param topicName string

@description('Id of the account with the backups.')
param backupAccountId string

resource topic 'Microsoft.EventGrid/systemTopics@2025-02-15' = {
  name: topicName
  location: location
  tags: tags
  identity: {
    // It writes what nobody took into the dead-letter container.
    type: 'SystemAssigned'
  }
  properties: {
    source: backupAccountId
    topicType: 'Microsoft.Storage.StorageAccounts'
  }
}

output topicName string = topic.name
output principalId string = topic.identity.principalId

// Who is told when an alert fires, and again when it is over.

@description('Tags of every resource.')
param tags object

@description('Name of the action group.')
param actionGroupName string

@description('What text messages and mails begin with.')
@minLength(1)
@maxLength(12)
param shortName string = 'pgkeep'

@description('Addresses that get a mail; empty: none.')
param emails array = []

@description('Address that gets a POST in the common alert schema, with what authenticates it; empty: none.')
@secure()
param webhookUri string = ''

resource group 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: actionGroupName
  // The service is global, and so no region's outage silences it: https://learn.microsoft.com/azure/azure-monitor/alerts/action-groups.
  location: 'global'
  tags: tags
  properties: {
    groupShortName: shortName
    enabled: true
    emailReceivers: [for (email, index) in emails: {
      name: 'email-${index}'
      emailAddress: email
      useCommonAlertSchema: true
    }]
    webhookReceivers: empty(webhookUri) ? [] : [
      {
        name: 'webhook'
        serviceUri: webhookUri
        useCommonAlertSchema: true
      }
    ]
  }
}

output actionGroupId string = group.id
